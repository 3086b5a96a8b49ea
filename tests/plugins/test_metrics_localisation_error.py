"""The localisation error against a loop over all guesses, each with a map of its own."""

from __future__ import annotations

import numpy as np
import pytest

from cnnviz_core.errors import UnknownClassError
from cnnviz_core.maps import iou
from cnnviz_core.metric import Annotation, Explained
from cnnviz_core.targets import ClassProbability, ClassScore
from cnnviz_core.testing.metrics import parametrize_with_checks
from cnnviz_metrics.boxes import rule_boxes
from cnnviz_metrics.localisation_error import LocalisationError, guess_ranks, localisation_errors
from support.annotated import Drawn, Written, boxed, rows

N, CLASSES = 40, Written.classes
RNG = np.random.default_rng(4)
LABELS = RNG.integers(0, CLASSES, N)
CORNERS = RNG.integers(2, 8, (N, 2))


def pictures():
    """Draw pictures: scores in their first pixel, a blob near a box for each class's map."""
    x = np.zeros((N, 20, 24, 2 * CLASSES))
    x[:, 0, 0, :CLASSES] = RNG.normal(size=(N, CLASSES))
    x[np.arange(N), 0, 0, LABELS] += 1
    for n, (left, top) in enumerate(CORNERS):
        for c in range(CLASSES):
            right, down = RNG.integers(0, 5, 2)
            x[n, top + down : top + down + 6, left + right : left + right + 7, CLASSES + c] = 1 + c
    return x


X = pictures()
KNOWN = tuple(
    boxed([x0, y0, x0 + 7, y0 + 6], [x0 + 1, y0 + 2, x0 + 6, y0 + 9], label=int(label))
    for label, (x0, y0) in zip(LABELS, CORNERS, strict=True)
)


class Counting(Drawn):
    """The method, with a note of what it was asked."""

    def explain(self, model, x, targets):
        self.asked.extend(targets)
        return super().explain(model, x, targets)


def batch(targets, annotations=KNOWN, explainer=None, **known):
    explainer = explainer or Drawn()
    maps = explainer.explain(Written(), X[: len(targets)], targets)
    return Explained(Written(), explainer, X[: len(targets)], maps, tuple(annotations), **known)


@parametrize_with_checks([LocalisationError(), LocalisationError("cam", 0.3)])
def test_it_is_a_metric(metric, check):
    check(metric)


def by_the_definition(guesses, delta, rule):
    """Give the error: of each picture the least over the guesses."""
    errors = []
    for n, known in enumerate(KNOWN):
        best = 1
        for guess in np.argsort(-X[n, 0, 0, :CLASSES], kind="stable")[:guesses]:
            (map,) = Drawn().explain(Written(), X[n : n + 1], [ClassScore(int(guess))]).raw
            box_wrong = iou(rule_boxes(map, rule), known.boxes).max(initial=0) < delta
            best = min(best, max(guess != known.label, box_wrong))
        errors.append(best)
    return np.mean(errors)


@pytest.mark.parametrize("rule", ["cam", "grad-cam", 0.5])
@pytest.mark.parametrize("delta", [0.3, 0.5])
def test_the_error_is_its_formula_whatever_class_was_explained(rule, delta):
    metric = LocalisationError(rule, delta)
    for targets in ([ClassScore(int(c)) for c in LABELS], [ClassScore(2)] * N):
        found = metric.summarise(metric.measure(batch(targets, batch_size=7)))
        assert found["top1_error"] == pytest.approx(by_the_definition(1, delta, rule))
        assert found["top5_error"] == pytest.approx(by_the_definition(5, delta, rule))


def test_errors_are_parted_into_those_of_the_class_and_of_the_box():
    metric = LocalisationError()
    records = metric.measure(batch([ClassScore(int(c)) for c in LABELS]))
    found = metric.summarise(records)
    order = np.argsort(-X[:, 0, 0, :CLASSES], axis=1)
    for k in (1, 5):
        named = (order[:, :k] == LABELS[:, None]).any(axis=1)
        assert found[f"top{k}_class_error"] == pytest.approx(1 - named.mean())
        class_wrong, box_wrong = localisation_errors(records["rank"], records["overlap"], k)
        assert not (class_wrong & box_wrong).any()
        assert found[f"top{k}_error"] == pytest.approx((class_wrong | box_wrong).mean())
    assert found["box_error"] == pytest.approx((records["overlap"] < 0.5).mean())
    assert 0 < found["box_error"] <= found["top5_error"] <= found["top1_error"] < 1


def test_ranks_are_places_in_the_order_of_the_scores():
    scores = RNG.integers(0, 4, (30, 7)).astype(float)
    labels = RNG.integers(0, 7, 30)
    order = np.argsort(-scores, axis=1, kind="stable")
    expected = (order == labels[:, None]).argmax(axis=1)
    np.testing.assert_array_equal(guess_ranks(scores, labels), expected)


# ---------------------------------------------------------------------------------- the maps


def asked(targets, **params):
    """Give what the method was asked while it was measured, and the records."""
    explainer = Counting(**params)
    object.__setattr__(explainer, "asked", [])
    explained = batch(targets, explainer=explainer)
    explainer.asked.clear()
    records = LocalisationError().measure(explained)
    return explainer.asked, records


def test_only_maps_that_are_missing_are_made():
    right = [ClassScore(int(c)) for c in LABELS]
    assert asked(right)[0] == []
    some = [ClassScore(0), *right[1:-1], ClassScore(5)]
    missing = [right[n] for n in range(N) if some[n] != right[n]]
    assert 1 <= len(missing) <= 2
    again, records = asked(some)
    assert again == missing
    np.testing.assert_array_equal(records["overlap"], asked(right)[1]["overlap"])


def test_a_method_that_knows_no_classes_is_not_asked_again():
    assert asked([ClassScore(0)] * N, class_agnostic=True)[0] == []


def test_who_explained_probabilities_goes_on_doing_so():
    right = [ClassProbability(int(c), "sigmoid") for c in LABELS]
    assert asked(right)[0] == []
    again, _ = asked([ClassProbability(0, "sigmoid")] * N)
    assert again == [target for target in right if target.index != 0]


# ---------------------------------------------------------------------------------- theorems


def test_a_perfect_network_with_perfect_maps_has_no_error():
    x = np.zeros((3, 16, 16, 2 * CLASSES))
    x[np.arange(3), 0, 0, [0, 4, 5]] = 1
    known = []
    for n, c in enumerate([0, 4, 5]):
        x[n, 2 : 9 + n, 3:12, CLASSES + c] = 1
        known.append(boxed([3, 2, 12, 9 + n], label=c))
    targets = [ClassScore(c) for c in (0, 4, 5)]
    maps = Drawn().explain(Written(), x, targets)
    metric = LocalisationError(delta=1.0)
    records = metric.measure(Explained(Written(), Drawn(), x, maps, tuple(known)))
    assert set(metric.summarise(records).values()) == {0}


def test_pictures_without_a_class_or_box_are_left_out():
    known = [KNOWN[0], Annotation(2), boxed([1, 1, 5, 5]), KNOWN[3]]
    metric = LocalisationError()
    records = metric.measure(batch([ClassScore(1)] * 4, known))
    assert np.isnan(records["rank"]).tolist() == [False, True, True, False]
    assert metric.summarise(records) == metric.summarise(rows(records, [3, 0]))
    nothing = metric.measure(batch([ClassScore(1)] * 2, known[1:3]))
    assert np.isnan(list(metric.summarise(nothing).values())).all()


def test_a_class_that_the_network_does_not_know_is_refused():
    with pytest.raises(UnknownClassError, match="class 9"):
        LocalisationError().measure(batch([ClassScore(1)], [boxed([1, 1, 5, 5], label=9)]))
