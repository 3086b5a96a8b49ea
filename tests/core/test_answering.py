from __future__ import annotations

import threading

import numpy as np
import pytest

from cnnviz_core.answering import AnsweringModel
from cnnviz_core.errors import (
    AnswerError,
    ArrayError,
    CnnvizError,
    MissingCapabilityError,
    ParameterError,
    TargetError,
)
from cnnviz_core.model import INPUT, LOGITS, OUTPUT, Model
from cnnviz_core.targets import ClassProbability, ClassScore, scores_of


def batch(n, seed=0, dtype=np.float32):
    return np.random.default_rng(seed).normal(size=(n, 5, 4, 3)).astype(dtype)


def means(x):
    """Three scores: the means of the channels, a row at a time, so that no batch matters."""
    return np.stack([sample.mean((0, 1)) for sample in x])


class Service:
    """Answers by `means`; counts the calls and samples, and fails when it is told to."""

    def __init__(self, fails=lambda call: False, error=ConnectionError):
        self.fails, self.error = fails, error
        self.sizes = []
        self.calls = 0
        self.seen = []

    def __call__(self, x):
        self.calls += 1
        if self.fails(self.calls):
            raise self.error("no line")
        self.sizes.append(len(x))
        self.seen += [sample.tobytes() for sample in x]
        return means(x)


class Clock:
    """A clock that only sleeping moves."""

    def __init__(self):
        self.now = 100.0
        self.slept = []

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds


def asked(function, **how):
    """A model that never sleeps for real."""
    clock = how.pop("clock", None) or Clock()
    return AnsweringModel(function, clock=clock, sleep=clock.sleep, **how)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("remember", [0, 100])
def test_logits_and_output_are_what_the_function_returns(dtype, remember):
    model = AnsweringModel(means, remember=remember)
    assert isinstance(model, Model)
    x = batch(5, dtype=dtype)
    trace = model.forward(x, capture=[INPUT])
    for node in (LOGITS, OUTPUT):
        np.testing.assert_array_equal(trace[node], means(x), strict=True)
    np.testing.assert_array_equal(trace[INPUT], x, strict=True)


def test_numbers_of_other_types_reach_the_function_as_float32():
    seen = []

    def function(x):
        seen.append(x.dtype)
        return x.sum((1, 2)).astype(np.int64)

    assert AnsweringModel(function).forward(np.ones((2, 3, 3, 1), np.uint8)).output.dtype == "f4"
    assert seen == [np.float32]


@pytest.mark.parametrize(
    ("returned", "expected"),
    [
        ([[1, 2], [3, 4]], [[1, 2], [3, 4]]),
        (([1.5, 2], (3, 4)), [[1.5, 2], [3, 4]]),
        ([0.25, 0.75], [[0.25], [0.75]]),
        (np.array([7, 8], np.float16), [[7], [8]]),
        (np.arange(12).reshape(2, 1, 2, 3), np.arange(12).reshape(2, 1, 2, 3)),
    ],
)
def test_rows_may_be_lists_and_a_single_score_needs_no_axis(returned, expected):
    output = AnsweringModel(lambda x: returned, remember=0).forward(batch(2)).output
    np.testing.assert_array_equal(output, expected)
    assert output.dtype in (np.float32, np.float64)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (np.zeros((3, 2)), r"\(3, 2\) for 2 samples of the shape \(5, 4, 3\)"),
        (0.5, r"\(\) for 2 samples"),
        (np.array([[0, np.nan], [np.inf, 1]]), r"2 values that are NaN or infinite"),
        (np.zeros((2, 0)), r"shape \(2, 0\)"),
        ([[1, 2], [3]], "a list of 2, of which no array can be made"),
        ({"scores": [[1], [2]]}, "a dict with the keys 'scores'"),
        (["cat", "dog"], "a list of 2, an array of <U3"),
        (np.zeros((2, 2), complex), "complex128"),
        (None, "a NoneType"),
    ],
)
def test_an_answer_that_is_none_is_told(returned, message):
    with pytest.raises(ArrayError, match=message):
        AnsweringModel(lambda x: returned).forward(batch(2))


def test_every_answer_has_as_many_scores():
    model = AnsweringModel(lambda x: np.zeros((len(x), 2 + len(x))))
    model.forward(batch(1))
    with pytest.raises(ArrayError, match=r"the shape \(4,\), and before of the shape \(3,\)"):
        model.forward(batch(2, seed=1))
    with pytest.raises(ArrayError, match=r"\(4,\), and before of the shape \(3,\)"):
        model.forward(batch(2, seed=1)[:, :2])


def test_dense_answers_grow_with_the_picture():
    model = AnsweringModel(lambda x: x[..., :2])
    for x in (batch(2), batch(2)[:, :2]):
        np.testing.assert_array_equal(model.forward(x).output, x[..., :2])


def test_an_entry_of_the_result_is_picked():
    def service(x):
        return {"scores": means(x), "time": 3}

    for output in ("scores", lambda result: result["scores"]):
        found = AnsweringModel(service, output=output).forward(batch(3)).output
        np.testing.assert_array_equal(found, means(batch(3)))
    with pytest.raises(ArrayError, match=r"output='score' could not .* keys 'scores', 'time'"):
        AnsweringModel(service, output="score").forward(batch(3))


def test_what_a_function_does_to_its_arrays_changes_nothing():
    """It spoils its input, also before it fails, and hands out one buffer again and again."""
    buffer = np.zeros((2, 3), np.float32)
    calls = []

    def spoiler(x):
        assert x.flags.writeable
        assert x.flags.c_contiguous
        calls.append(x.copy())
        buffer[:] = means(x)
        x[:] = np.nan
        if len(calls) == 1:
            raise OSError("again, please")
        return buffer

    x = batch(4)
    x.flags.writeable = False
    model = asked(spoiler, retry=1, batch_size=2)
    np.testing.assert_array_equal(model.forward(x).output, means(batch(4)))
    np.testing.assert_array_equal(x, batch(4))
    np.testing.assert_array_equal(calls[0], calls[1])
    model.forward(x).output[:] = 0
    np.testing.assert_array_equal(model.forward(x).output, means(batch(4)))


@pytest.mark.parametrize(("size", "sizes"), [(None, [7]), (3, [3, 3, 1]), (1, [1] * 7), (9, [7])])
def test_a_call_takes_as_many_samples_as_it_may(size, sizes):
    service = Service()
    found = AnsweringModel(service, batch_size=size).forward(batch(7)).output
    assert service.sizes == sizes
    np.testing.assert_array_equal(found, means(batch(7)))


def test_a_sample_is_asked_for_once():
    service = Service()
    model = AnsweringModel(service)
    x = batch(4)
    doubled = x[[0, 1, 0, 2, 1]]
    np.testing.assert_array_equal(model.forward(doubled).output, means(doubled))
    np.testing.assert_array_equal(model.forward(x).output, means(x))
    assert service.sizes == [3, 1]
    # The same bytes in another shape, or of another type, are another sample.
    model.forward(np.ascontiguousarray(x.reshape(4, 4, 5, 3)))
    model.forward(x.astype(np.float64))
    assert service.sizes == [3, 1, 4, 4]


def test_nothing_is_remembered_where_that_is_not_wanted():
    service = Service()
    model = AnsweringModel(service, remember=0)
    for _ in range(2):
        model.forward(batch(3)[[0, 0, 1]])
    assert service.sizes == [3, 3]


def test_the_memory_is_bounded_by_number_and_forgets_the_longest_unused():
    service = Service()
    model = AnsweringModel(service, remember=3)
    x = batch(5)
    model.forward(x[:3])
    model.forward(x[:1])  # used again, so 1 is the longest unused
    model.forward(x[3:4])
    model.forward(x[[0, 2, 3]])
    assert service.sizes == [3, 1]
    model.forward(x[1:2])
    assert service.sizes == [3, 1, 1]
    # A batch larger than the memory is still answered whole.
    np.testing.assert_array_equal(model.forward(x).output, means(x))


def test_the_memory_is_bounded_by_bytes(monkeypatch):
    monkeypatch.setattr("cnnviz_core.answering._KEPT_BYTES", 2 * 12)
    service = Service()
    model = AnsweringModel(service)
    model.forward(batch(3))
    model.forward(batch(3)[1:])
    assert service.sizes == [3]
    model.forward(batch(3)[:1])
    assert service.sizes == [3, 1]


def test_a_function_that_fails_every_third_call_is_asked_again():
    clock = Clock()
    service = Service(lambda call: call % 3 == 0)
    model = asked(service, retry=1, wait=2, batch_size=1, clock=clock)
    np.testing.assert_array_equal(model.forward(batch(7)).output, means(batch(7)))
    assert service.calls == 10
    assert clock.slept == [2, 2, 2]


def test_the_wait_is_doubled_up_to_a_minute_and_starts_anew():
    clock = Clock()
    service = Service(lambda call: call not in (6, 8))
    model = asked(service, retry=5, wait=5, clock=clock)
    model.forward(batch(1))
    model.forward(batch(1, seed=1))
    assert clock.slept == [5, 10, 20, 40, 60, 5]
    clock.slept.clear()
    asked(Service(lambda call: call < 3), retry=2, wait=90, clock=clock).forward(batch(1))
    assert clock.slept == [90, 90]


def test_the_last_error_says_what_it_was_and_how_often_it_was_tried():
    service = Service(lambda call: True)
    with pytest.raises(
        AnswerError, match="raised ConnectionError, in each of 4 tries: no line"
    ) as e:
        asked(service, retry=3).forward(batch(2))
    assert service.calls == 4
    assert isinstance(e.value.__cause__, ConnectionError)
    assert "answers are kept" not in str(e.value)


@pytest.mark.parametrize("fails_at", range(1, 6))
def test_a_failure_loses_no_answer(fails_at):
    service = Service(lambda call: call == fails_at)
    model = asked(service, batch_size=2)
    with pytest.raises(AnswerError) as error:
        model.forward(batch(9))
    kept = 2 * (fails_at - 1)
    assert (f"{kept} answers are kept" in str(error.value)) == (kept > 0)
    np.testing.assert_array_equal(model.forward(batch(9)).output, means(batch(9)))
    assert sorted(service.seen) == sorted(sample.tobytes() for sample in batch(9))


def test_a_changed_model_knows_what_was_answered():
    service = Service(lambda call: call == 3)
    model = asked(service, batch_size=2)
    with pytest.raises(AnswerError):
        model.forward(batch(6))
    other = model.changed(retry=2, batch_size=None)
    np.testing.assert_array_equal(other.forward(batch(6)).output, means(batch(6)))
    assert service.sizes == [2, 2, 2]
    # Other scores are other answers.
    first = model.changed(output=lambda scores: scores[:, 0])
    np.testing.assert_array_equal(first.forward(batch(2)).output, means(batch(2))[:, :1])


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interruption_passes_at_once_and_loses_nothing(error):
    service = Service(lambda call: call == 2, error)
    model = asked(service, retry=5, batch_size=1)
    with pytest.raises(error):
        model.forward(batch(3))
    assert service.calls == 2
    model.forward(batch(3))
    assert service.sizes == [1, 1, 1]


def test_an_error_of_our_own_is_not_retried():
    def refuses(x):
        raise TargetError("one", "two", "three")

    with pytest.raises(TargetError, match="one"):
        asked(refuses, retry=5).forward(batch(1))


def test_calls_keep_their_distance_and_tries_count():
    clock = Clock()
    at = []
    service = Service(lambda call: at.append(clock.now) or call == 2)
    model = asked(service, rate=4, retry=1, wait=0.125, batch_size=1, clock=clock)
    model.forward(batch(4))
    np.testing.assert_allclose(np.diff(at), 0.25)
    # A function that takes longer than that is not held up.
    clock.now += 10
    slept = len(clock.slept)
    model.forward(batch(1, seed=1))
    assert len(clock.slept) == slept


def test_threads_share_one_memory():
    clock = Clock()
    service = Service()
    model = asked(service, batch_size=1, clock=clock)
    x = batch(32)
    wrong = []

    def work(part):
        for i in part:
            if not np.array_equal(model.forward(x[i : i + 2]).output, means(x[i : i + 2])):
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(range(0, 31),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    before = service.calls
    model.forward(x)
    assert service.calls == before


@pytest.mark.parametrize(
    ("rows", "activation"),
    [
        ([[0.25, 0.75], [1, 0]], "probabilities"),
        ([[0.333, 0.333, 0.333], [0.5, 0.25, 0.245]], "probabilities"),
        ([[3, -1], [2, 0.5]], "softmax"),
        ([[0.9, 0.8], [0.1, 0.2]], "none"),
        ([[1], [1]], "none"),
        ([[4], [-3]], "none"),
    ],
)
def test_what_scores_are_is_learnt_from_the_first_answers(rows, activation):
    model = AnsweringModel(lambda x: rows, remember=0)
    assert model.activation == "softmax"
    model.forward(batch(2))
    assert model.activation == activation
    rows[:] = [[0.5] * len(rows[0])] * 2
    model.forward(batch(2))
    assert model.activation == activation


@pytest.mark.parametrize("activation", ["softmax", "sigmoid", "probabilities", "none"])
def test_what_is_said_of_the_scores_counts(activation):
    model = AnsweringModel(lambda x: [[0.25, 0.75]] * len(x), activation=activation)
    value = model.forward(batch(2)).logits
    assert model.activation == activation
    np.testing.assert_array_equal(scores_of([ClassScore(1)] * 2, value), [0.75, 0.75])
    if activation in ("softmax", "sigmoid"):
        p = ClassProbability(1, activation).score(value[0])
        odds = np.exp(0.5) if activation == "softmax" else np.exp(0.75)
        assert p == pytest.approx(odds / (1 + odds))


def test_it_only_answers():
    model = AnsweringModel(means, channels=3)
    assert model.capabilities == frozenset()
    assert dict(model.layers) == {}
    for call, capability in (
        (lambda: model.forward(batch(1), capture=["conv1"]), "capture"),
        (lambda: model.forward(batch(1), replace={INPUT: batch(1)}), "replace"),
        (lambda: model.pullback(batch(1), np.ones((1, 3))), "gradient"),
        (lambda: model.parameters("conv1"), "parameters"),
    ):
        with pytest.raises(MissingCapabilityError, match=f"'{capability}', and a function only"):
            call()


def test_the_input_is_checked_as_far_as_it_is_known():
    assert AnsweringModel(means).inputs["input"].shape is None
    assert AnsweringModel(means, channels=3).inputs["input"].shape == (None, None, 3)
    assert AnsweringModel(means, input_shape=(5, 4, 3)).inputs["input"].shape == (5, 4, 3)
    np.testing.assert_array_equal(
        AnsweringModel(means, channels=3).forward({"input": batch(2)}).output, means(batch(2))
    )
    for how, x, message in (
        ({"channels": 1}, batch(2), r"\(N, any, any, 1\)"),
        ({"input_shape": (4, 5, 3)}, batch(2), r"\(N, 4, 5, 3\)"),
        ({}, batch(2) * np.nan, "NaN"),
        ({}, batch(0), "no sample"),
        ({}, {"image": batch(2)}, "named"),
    ):
        with pytest.raises(ArrayError, match=message):
            AnsweringModel(means, **how).forward(x)


@pytest.mark.parametrize(
    "how",
    [
        {"retry": -1},
        {"retry": 1.5},
        {"retry": True},
        {"wait": -1},
        {"wait": float("inf")},
        {"rate": 0},
        {"rate": "fast"},
        {"batch_size": 0},
        {"remember": -1},
        {"channels": 0},
        {"activation": "logits"},
        {"channels": 1, "input_shape": (5, 4, 3)},
        {"input_shape": {"image": (5, 4, 3)}},
    ],
)
def test_a_policy_out_of_range_is_told(how):
    with pytest.raises(ParameterError, match=next(iter(how))) as error:
        AnsweringModel(means, **how)
    assert isinstance(error.value, CnnvizError)
