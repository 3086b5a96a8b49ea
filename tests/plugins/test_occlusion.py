"""Occlusion against its formula, written plainly, and the theorems that it obeys."""

from __future__ import annotations

import math
from functools import cache
from itertools import product

import numpy as np
import pytest

from cnnviz_core.delegate import Delegate
from cnnviz_core.errors import ArrayError, ParameterError
from cnnviz_core.explainer import passes_of
from cnnviz_core.fills import filling
from cnnviz_core.netspec import NetSpec, Op
from cnnviz_core.progress import listening
from cnnviz_core.targets import ClassProbability, ClassScore, Contrast, Predicted
from cnnviz_core.testing.explainers import parametrize_with_checks
from cnnviz_core.testing.nets import NETS, random_input
from cnnviz_core.testing.reference import ReferenceModel
from cnnviz_perturbation.occlusion import Occlusion

FILLS = [0.3, "mean", "blur", "noise", "inpaint"]


def case(name="plain", n=2, seed=5, dtype="float64"):
    net = NETS[name]()
    (x,) = random_input(net, n, seed).values()
    return ReferenceModel(net, dtype), x.astype(dtype)


MODEL, X = case()
TARGETS = [ClassScore(3), Contrast(1, 2)]


def explain(model=MODEL, x=X, targets=TARGETS, **params):
    return Occlusion(**params).explain(model, x, targets)


class Counting(Delegate):
    """A model that notes how many samples each call has."""

    def __init__(self, model):
        super().__init__(model)
        self.calls = []

    def forward(self, x, **more):
        self.calls.append(len(x))
        return super().forward(x, **more)


class Blind(Delegate):
    """A model that ignores a part of each sample."""

    def __init__(self, model, ignored):
        super().__init__(model)
        self.ignored = ignored

    def forward(self, x, **more):
        seen = x.copy()
        seen[self.ignored] = 0
        return super().forward(seen, **more)


# ------------------------------------------------------------------------------- the formula


def begins(extent, side, step):
    """Give where windows begin along an axis, the last one flush with the edge."""
    if extent <= side:
        return [(extent - side) // 2]
    return sorted({*range(0, extent - side, step), extent - side})


@cache
def places(size, window, stride, shape):
    """Give what each window covers, a pixel at a time."""
    inner = window
    if shape == "disc":  # the largest centred box whose corners the disc covers
        while math.hypot(*[(inner - 1) / 2] * len(size)) > window / 2:
            inner -= 2
    over, found = (window - inner) // 2, []
    for begin in product(*(begins(extent, inner, stride) for extent in size)):
        covered = np.zeros(size, bool)
        for pixel in np.ndindex(size):
            away = [abs(p - b + over - (window - 1) / 2) for p, b in zip(pixel, begin, strict=True)]
            measure = max(away) if shape == "box" else math.hypot(*away)
            covered[pixel] = measure <= window / 2
        found.append(covered)
    return found


def by_formula(model, x, target, window, stride, shape, fill):
    """Give the mean drop at each pixel, and the drop under each window."""
    score = lambda picture: target.score(model.forward(picture[None]).logits[0])  # noqa: E731
    total, times, drops = np.zeros(x.shape[:-1]), np.zeros(x.shape[:-1]), []
    for covered in places(x.shape[:-1], window, stride, shape):
        shown = np.broadcast_to(filling(x, fill, 4).under(1.0 - covered[None]), (1, *x.shape))[0]
        drops.append(score(x) - score(np.where(covered[..., None], shown, x)))
        total[covered] += drops[-1]
        times[covered] += 1
    return total / times, drops


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize(
    ("shape", "window", "stride"),
    [("box", 4, 3), ("box", 2, 2), ("box", 20, 7), ("disc", 5, 3), ("disc", 4, 2), ("disc", 12, 7)],
)
def test_occlusion_is_its_formula(shape, window, stride, fill):
    maps = explain(shape=shape, window=window, stride=stride, fill=fill, seed=4, batch_size=7)
    for n, target in enumerate(TARGETS):
        expected, drops = by_formula(MODEL, X[n], target, window, stride, shape, fill)
        np.testing.assert_allclose(maps.raw[n], expected, atol=1e-12)
        np.testing.assert_allclose(maps.extras["drops"][n].ravel(), drops, atol=1e-12)
        assert maps.scores[n] == pytest.approx(target.score(MODEL.forward(X[n : n + 1]).logits[0]))


@pytest.mark.parametrize("name", ["signal", "volume"])
@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("shape", ["box", "disc"])
def test_signals_and_volumes_are_occluded_likewise(name, fill, shape):
    model, x = case(name)
    maps = explain(model, x, shape=shape, window=5, stride=3, fill=fill, seed=4)
    assert maps.raw.shape == x.shape[:-1]
    for n, target in enumerate(TARGETS[:1]):
        expected, drops = by_formula(model, x[n], target, 5, 3, shape, fill)
        np.testing.assert_allclose(maps.raw[n], expected, atol=1e-12)
        np.testing.assert_allclose(maps.extras["drops"][n].ravel(), drops, atol=1e-12)


def test_an_array_may_be_shown():
    fill = np.random.default_rng(0).normal(size=(12, 9, 1))
    expected, _ = by_formula(MODEL, X[0], TARGETS[0], 4, 2, "box", fill)
    found = explain(x=X[:1], targets=TARGETS[:1], window=4, stride=2, fill=fill).raw[0]
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_the_drop_is_that_of_a_probability_where_the_target_is_one():
    target = ClassProbability(2)
    expected, _ = by_formula(MODEL, X[0], target, 4, 3, "box", "mean")
    found = explain(x=X[:1], targets=[target], window=4, stride=3).raw[0]
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert np.abs(found).max() < 1


def test_left_out_the_window_is_a_seventh_and_the_step_a_quarter_of_it():
    np.testing.assert_array_equal(explain().raw, explain(window=1, stride=1, fill="mean").raw)
    assert Occlusion().passes(MODEL, np.zeros((1, 224, 224, 3))) == 25**2 + 1


# ---------------------------------------------------------------------------------- theorems


def linear(shape, bias, seed=0):
    """A network that is one linear layer."""
    rng = np.random.default_rng(seed)
    arrays = {"fc.weight": rng.normal(size=(math.prod(shape), 3))}
    arrays["fc.bias"] = rng.normal(size=3) * bias
    ops = (Op("flat", "flatten", ("x",)), Op("fc", "linear", ("flat",)))
    return ReferenceModel(NetSpec({"x": shape}, ops, arrays, "linear"), "float64")


@pytest.mark.parametrize("shape", [(12, 2), (12, 9, 3), (6, 9, 3, 2)])
@pytest.mark.parametrize("bias", [0, 1])
def test_tiles_of_a_linear_model_sum_to_its_score_less_its_bias(shape, bias):
    model = linear(shape, bias)
    x = np.random.default_rng(1).normal(size=(2, *shape))
    maps = explain(model, x, [ClassScore(0), ClassScore(2)], window=3, stride=3, fill=0.0)
    nothing = model.forward(np.zeros_like(x[:1])).logits[0, [0, 2]]
    axes = tuple(range(1, len(shape)))
    np.testing.assert_allclose(maps.extras["drops"].sum(axes), maps.scores - nothing, atol=1e-12)
    area = 3 ** len(axes)
    np.testing.assert_allclose(maps.raw.sum(axes) / area, maps.scores - nothing, atol=1e-12)
    if not bias:
        np.testing.assert_array_equal(nothing, 0)


@pytest.mark.parametrize("fill", ["noise", "inpaint"])
@pytest.mark.parametrize("shape", ["box", "disc"])
@pytest.mark.parametrize("name", ["plain", "signal", "volume"])
def test_a_region_that_the_model_ignores_gets_zero(name, shape, fill):
    model, x = case(name)
    half = x.shape[1] // 2
    model = Blind(model, np.s_[:, half:])
    maps = explain(model, x, shape=shape, window=3, stride=1, fill=fill)
    # No window that covers a pixel two further on reaches what the model sees.
    np.testing.assert_array_equal(maps.raw[:, half + 2 :], 0)
    assert np.abs(maps.raw[:, :half]).max() > 1e-3


@pytest.mark.parametrize("shape", ["box", "disc"])
def test_a_fill_that_is_the_picture_itself_changes_nothing(shape):
    maps = explain(x=X[:1], targets=TARGETS[:1], shape=shape, window=5, stride=2, fill=X[0])
    np.testing.assert_allclose(maps.raw, 0, atol=1e-13)


@pytest.mark.parametrize("fill", ["mean", "blur", "noise", "inpaint"])
def test_a_picture_of_one_colour_has_nothing_to_hide(fill):
    flat = np.full_like(X, [0.3, -1, 2])
    np.testing.assert_allclose(explain(x=flat, fill=fill, window=4).raw, 0, atol=1e-12)


@pytest.mark.parametrize("size", [1, 3])
def test_discs_of_up_to_three_pixels_are_boxes(size):
    box = explain(window=size, stride=1)
    disc = explain(window=size, stride=1, shape="disc")
    np.testing.assert_allclose(disc.raw, box.raw, rtol=1e-12, atol=1e-15)


def test_discs_of_signals_are_boxes():
    model, x = case("signal")
    disc, box = (explain(model, x, window=7, stride=4, shape=s) for s in ("disc", "box"))
    np.testing.assert_allclose(disc.raw, box.raw, rtol=1e-12, atol=1e-15)


def test_the_seed_is_of_the_noise_alone():
    one, two, again = (explain(window=4, fill="noise", seed=s).raw for s in (1, 2, 1))
    np.testing.assert_array_equal(one, again)
    assert np.abs(one - two).max() > 1e-3
    np.testing.assert_array_equal(explain(seed=1).raw, explain(seed=2).raw)


# ------------------------------------------------------------------------------------- work


@pytest.mark.parametrize(
    "params", [{}, {"window": 4}, {"window": 5, "stride": 3, "shape": "disc"}, {"window": 99}]
)
@pytest.mark.parametrize("name", ["plain", "signal", "volume"])
def test_passes_are_what_is_said_beforehand(name, params):
    model, x = case(name, n=1)
    model = Counting(model)
    explain(model, x, TARGETS[:1], **params)
    assert sum(model.calls) == passes_of(Occlusion(**params), model, x)


@pytest.mark.parametrize("fill", FILLS)
def test_targets_of_one_picture_share_its_passes(fill):
    targets = [ClassScore(0), ClassScore(4), Contrast(2, 1), Predicted(1)]
    single, shared = Counting(MODEL), Counting(MODEL)
    params = {"window": 4, "fill": fill, "batch_size": 10}
    alone = [explain(single, X[:1], [t], **params) for t in targets]
    together = explain(shared, np.repeat(X[:1], 4, axis=0), targets, **params)
    np.testing.assert_allclose(together.raw, [m.raw[0] for m in alone], atol=1e-12)
    assert [str(t) for t in together.targets] == [str(m.targets[0]) for m in alone]
    assert shared.calls == [4, *single.calls[1 : len(single.calls) // 4]]


def test_progress_is_told_a_batch_at_a_time():
    seen = []
    with listening(lambda *event: seen.append(event)):
        explain(window=6, stride=3, batch_size=4)
    assert seen == [(f"occlusion, picture {n} of 2", done, 6) for n in (1, 2) for done in (4, 6)]


@pytest.mark.parametrize("fill", [*FILLS, np.zeros(3)], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_type_of_the_numbers_is_kept(fill, dtype):
    model, x = case(dtype=dtype)
    maps = explain(model, x, fill=fill, window=4)
    assert maps.raw.dtype == maps.scores.dtype == maps.extras["drops"].dtype == dtype
    assert maps.extras["drops"].shape == (2, 9, 6)


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"window": 4, "stride": 5}, ParameterError, "stride=5 is larger than window=4"),
        ({"window": 8, "stride": 7, "shape": "disc"}, ParameterError, "larger than 6, the side of"),
        ({"fill": np.zeros((5, 3))}, ArrayError, "the fill has the shape"),
    ],
)
def test_unfit_parameters_are_errors(params, error, message):
    with pytest.raises(error, match=message):
        explain(**params)


def test_vectors_have_nothing_for_a_window_to_slide_along():
    with pytest.raises(ArrayError, match="pass pictures, signals or volumes"):
        explain(x=np.zeros((2, 12)))


@parametrize_with_checks(
    [
        Occlusion(window=5, stride=3, shape="disc", fill="inpaint", batch_size=5),
        Occlusion(window=4, fill="noise", seed=3),
        Occlusion(window=4, fill="blur", batch_size=100),
    ]
)
def test_the_checks_with_other_parameters(explainer, check):
    check(explainer)
