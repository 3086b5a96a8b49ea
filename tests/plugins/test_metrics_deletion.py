"""Deletion and insertion against their formula, written plainly, and the theorems they obey."""

from __future__ import annotations

from itertools import pairwise, permutations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.signal import convolve2d

from cnnviz_core.errors import ArrayError
from cnnviz_core.fills import filling
from cnnviz_core.masks import drawn
from cnnviz_core.targets import ClassProbability, ClassScore, Contrast
from cnnviz_core.testing.metrics import parametrize_with_checks
from cnnviz_metrics.deletion import Deletion, deletion_curve
from cnnviz_metrics.insertion import Insertion, insertion_curve, small_blur
from cnnviz_metrics.pixel_order import OrderMasks, curve_area, ranks, step_counts
from support.changed_pixels import Blind, Constant, Counting, case, explained, linear

MODEL, X, MAPS = case()
TARGETS = [ClassScore(3), Contrast(1, 2), ClassProbability(2)]
EITHER = pytest.mark.parametrize("metric", [Deletion(), Insertion()], ids=["deletion", "insertion"])


@parametrize_with_checks(
    [
        Deletion(),
        Deletion(pixels=7, fill="mean", score="target"),
        Deletion(steps=3, fill="inpaint"),
        Insertion(),
        Insertion(pixels=50, start="noise", score="target"),
        Insertion(steps=200, start=0.0),
    ]
)
def test_they_are_metrics(metric, check):
    check(metric)


# ------------------------------------------------------------------------------- the formula


def probability(model, picture, index):
    """Give the softmax probability of a class."""
    logits = model.forward(picture[None]).logits[0]
    return np.exp(logits[index]) / np.exp(logits).sum()


def by_formula(model, begin, end, map, score, per_step):
    """Change the pixels one by one, and score after each so many."""
    canvas, scores = begin.copy(), [score(model, begin)]
    order = sorted(np.ndindex(map.shape), key=lambda at: -map[at])  # stable
    for changed, at in enumerate(order, 1):
        canvas[at] = end[at]
        if changed % per_step == 0 or changed == len(order):
            scores.append(score(model, canvas))
    area = sum((a + b) / 2 for a, b in pairwise(scores))
    return scores, area / (len(scores) - 1)


@pytest.mark.parametrize("per_step", [1, 7, 9, 108, 500])
def test_they_are_their_formula(per_step):
    tied = np.round(MAPS, 0)
    batch = explained(MODEL, X, tied, TARGETS, batch_size=5)
    scores = [
        lambda model, picture: probability(model, picture, 3),
        lambda model, picture: TARGETS[1].score(model.forward(picture[None]).logits[0]),
        lambda model, picture: probability(model, picture, 2),
    ]
    deleted = Deletion(pixels=per_step).measure(batch)
    inserted = Insertion(pixels=per_step).measure(batch)
    areas = []
    for row, score in enumerate(scores):
        x, map = X[row], tied[row]
        curve, area = by_formula(MODEL, x, np.zeros_like(x), map, score, per_step)
        np.testing.assert_allclose(deleted["curve"][row], curve, atol=1e-12)
        areas.append(area)
        curve, _ = by_formula(MODEL, small_blur(x), x, map, score, per_step)
        np.testing.assert_allclose(inserted["curve"][row], curve, atol=1e-12)
    found = Deletion().summarise(deleted)
    assert found["auc"] == pytest.approx(np.mean(areas), abs=1e-12)
    assert found["start"] == pytest.approx(deleted["curve"][:, 0].mean(), abs=1e-12)
    assert found["end"] == pytest.approx(deleted["curve"][:, -1].mean(), abs=1e-12)


@pytest.mark.parametrize("fill", [0.3, "mean", "blur", "noise", X[1, :1]])
def test_any_fill_is_shown(fill):
    """Both run between the picture and the fill; of one map their curves mirror each other's."""
    shown = np.broadcast_to(filling(X[0], fill, 3).values, X[0].shape)
    target, counts = TARGETS[1], step_counts(108, per_step=10)
    score = lambda model, picture: target.score(model.forward(picture[None]).logits[0])  # noqa: E731
    for begin, end, found in (
        (X[0], shown, deletion_curve(MODEL, X[0], target, MAPS[0], counts, fill=fill, seed=3)),
        (shown, X[0], insertion_curve(MODEL, X[0], target, MAPS[0], counts, start=fill, seed=3)),
    ):
        curve, _ = by_formula(MODEL, begin, end, MAPS[0], score, 10)
        np.testing.assert_allclose(found, curve, atol=1e-12)
    measure = Deletion(fill=fill, pixels=10, score="target")
    records = measure.measure(explained(MODEL, X[:1], MAPS[:1], [target], seed=3))
    curve, _ = by_formula(MODEL, X[0], shown, MAPS[0], score, 10)
    np.testing.assert_allclose(records["curve"][0], curve, atol=1e-12)


@pytest.mark.parametrize("shape", [(30, 21, 3), (4, 9, 1)])
def test_the_blur_is_that_of_the_published_numbers(shape):
    """A Gaussian made of a point in 11 x 11 pixels, and zeros around the picture."""
    sample = np.random.default_rng(0).normal(size=shape)
    point = np.zeros((11, 11))
    point[5, 5] = 1
    kernel = gaussian_filter(point, 5)
    assert kernel.sum() == pytest.approx(1)
    for channel in range(shape[-1]):
        expected = convolve2d(sample[..., channel], kernel, mode="same")
        np.testing.assert_allclose(small_blur(sample)[..., channel], expected, atol=1e-12)


def test_steps_are_the_published_ones():
    """28 steps at 224 x 224 are 1792 pixels each; a last step may be smaller."""
    np.testing.assert_array_equal(step_counts(224**2, 28), step_counts(224**2, per_step=224 * 8))
    np.testing.assert_array_equal(step_counts(224**2, 224), step_counts(224**2, per_step=224))
    assert step_counts(10, per_step=3).tolist() == [0, 3, 6, 9, 10]
    for pixels, steps in ((10, 3), (7, 20), (1, 1), (224**2, 30)):
        counts = step_counts(pixels, steps)
        assert len(counts) == steps + 1
        assert (counts[0], counts[-1]) == (0, pixels)
        assert np.ptp(np.diff(counts)) <= 1


def test_the_area_is_the_trapezoids():
    curves = np.random.default_rng(0).random((4, 9))
    expected = np.trapezoid(curves, dx=1 / 8, axis=1)
    np.testing.assert_allclose(curve_area(curves), expected, rtol=1e-12)


def test_masks_name_the_highest_pixels():
    map = np.round(np.random.default_rng(2).normal(size=(5, 4)), 1)
    counts = np.array([0, 0, 3, 4, 11, 20])
    order = np.argsort(-map.ravel(), kind="stable")
    for keep in (False, True):
        masks = drawn(OrderMasks(map, counts, keep), 1, 6)
        for mask, count in zip(masks, counts[1:], strict=True):
            expected = np.zeros(20) if keep else np.ones(20)
            expected[order[:count]] = keep
            np.testing.assert_array_equal(mask.ravel(), expected)


def test_a_mask_costs_little_memory():
    """Described, a mask has a number a step; drawn, it would have one a pixel."""
    form = OrderMasks(np.zeros((224, 224)), step_counts(224**2, 28)).form(0, 29)
    assert form.values.nbytes < 1000


# ------------------------------------------------------------------------------- theorems


@pytest.mark.parametrize("score", [ClassScore(0), ClassProbability(0)])
def test_a_linear_network_s_own_attributions_are_the_best_order(score):
    """At every point of the curve no other order deletes more, or inserts more.

    Of two classes the probability grows with the difference of their scores, which is linear.
    """
    model, weights = linear((2, 3))
    x = np.random.default_rng(1).normal(size=(2, 3, 2))
    of = weights[..., 0] - (weights[..., 1] if isinstance(score, ClassProbability) else 0)
    exact, counts = (of * x).sum(-1), np.arange(7)

    def curves(map):
        return (
            deletion_curve(model, x, score, map, counts),
            insertion_curve(model, x, score, map, counts, start=0.0),
        )

    deleted, inserted = curves(exact)
    for order in permutations(range(6)):
        other, another = curves(np.array(order, float).reshape(2, 3))
        assert (deleted <= other + 1e-12).all()
        assert (inserted >= another - 1e-12).all()


@EITHER
def test_a_constant_network_has_flat_curves(metric):
    model = Constant(MODEL)
    curves = metric.measure(explained(model, X, MAPS))["curve"]
    expected = probability(model, X[0], 0)
    np.testing.assert_allclose(curves, expected, rtol=1e-12)
    assert metric.summarise({"curve": curves})["auc"] == pytest.approx(expected)


def test_what_is_ignored_can_be_deleted():
    """As long as the map ranks only what the network ignores, the score stays."""
    model, map = Blind(MODEL, slice(4, 8)), MAPS[0].copy()
    map[4:8] += 100
    curve = deletion_curve(model, X[0], TARGETS[0], map, np.arange(40))
    np.testing.assert_allclose(curve[:37], curve[0], rtol=1e-12)
    assert abs(curve[39] - curve[0]) > 1e-6


@EITHER
def test_the_ends_are_the_picture_and_the_fill(metric):
    curves = metric.measure(explained(MODEL, X, MAPS))["curve"]
    fills = [np.zeros_like(x) for x in X] if metric == Deletion() else [small_blur(x) for x in X]
    ends = [[probability(MODEL, p, 0) for p in pictures] for pictures in (X, fills)]
    if metric == Insertion():
        ends = ends[::-1]
    np.testing.assert_allclose(curves[:, [0, -1]], np.transpose(ends), rtol=1e-12)


@EITHER
@pytest.mark.parametrize("rescale", [lambda m: 3 * m + 2, np.arctan, lambda m: np.exp(2 * m)])
def test_only_the_order_of_a_map_counts(metric, rescale):
    one, two = (metric.measure(explained(MODEL, X, m)) for m in (MAPS, rescale(MAPS)))
    np.testing.assert_array_equal(one["curve"], two["curve"])


@EITHER
def test_the_area_lies_between_the_least_and_the_highest_score(metric):
    curves = metric.measure(explained(MODEL, X, MAPS))["curve"]
    areas = curve_area(curves)
    assert (areas >= curves.min(axis=1)).all()
    assert (areas <= curves.max(axis=1)).all()
    assert (curves >= 0).all()
    assert (curves <= 1).all()


@EITHER
def test_the_batch_size_does_not_matter(metric):
    one, two = (metric.measure(explained(MODEL, X, MAPS, batch_size=b)) for b in (1, 64))
    np.testing.assert_allclose(one["curve"], two["curve"], rtol=1e-12)


@pytest.mark.parametrize("metric", [Deletion(), Deletion(pixels=10), Insertion(steps=5)])
def test_the_passes_are_told(metric):
    model = Counting(MODEL)
    metric.measure(explained(model, X, MAPS))
    assert model.seen == len(X) * metric.passes(MODEL, X)


@EITHER
def test_maps_that_are_not_finite_are_left_out(metric):
    maps = MAPS.copy()
    maps[1, 2, 3] = np.nan
    records = metric.measure(explained(MODEL, X, maps))
    assert np.isnan(records["curve"][1]).all()
    rest = {"curve": records["curve"][[0, 2]]}
    assert metric.summarise(records) == metric.summarise(rest)
    with pytest.raises(ArrayError, match="no order"):
        ranks(maps[1])


@EITHER
@pytest.mark.parametrize("name", ["signal", "volume"])
def test_signals_and_volumes_are_measured(metric, name):
    model, x, maps = case(name, 2)
    curves = metric.measure(explained(model, x, maps))["curve"]
    assert curves.shape == (2, 29)
    at = 0 if metric == Deletion() else -1
    np.testing.assert_allclose(curves[:, at], [probability(model, p, 0) for p in x], rtol=1e-12)


def test_what_is_scored_is_as_the_network_ends():
    """Its own activation makes probabilities; a score that was asked for is not touched."""
    model, x, maps = case("sigmoid_head")
    logits = model.forward(x).logits[:, 0]
    starts = [
        Deletion(score=score).measure(explained(model, x, maps))["curve"][:, 0]
        for score in ("probability", "target")
    ]
    np.testing.assert_allclose(starts, [1 / (1 + np.exp(-logits)), logits], rtol=1e-12)


@EITHER
def test_the_curve_is_drawn(metric):
    records = metric.measure(explained(MODEL, X, MAPS))
    (drawing,) = metric.curves(records)
    (line,) = drawing.lines
    np.testing.assert_allclose(line.y, records["curve"].mean(axis=0))
    np.testing.assert_allclose(line.spread, records["curve"].std(axis=0))
    assert (drawing.x[0], drawing.x[-1]) == (0, 1)
    assert metric.curves({"curve": records["curve"][:0]}) == ()
