"""Running estimates against their formulas over all samples, and the rule that stops them."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest

from cnnviz_core.errors import ArrayError
from cnnviz_core.mask_forms import Drawn
from cnnviz_core.masks import drawn as masks_of
from cnnviz_core.random_masks import RandomGrids
from cnnviz_core.sampling import (
    LEAST,
    POINTS,
    ProductMean,
    RatioMean,
    Refit,
    by_target,
    check_points,
    convergence,
    relative_error,
    sampled,
)

SIZE = (6, 5)
KEEP = 0.4
ESTIMATES = {"product": lambda: ProductMean(KEEP), "ratio": RatioMean}


def drawn(n=300, targets=2, seed=0, noise=1.0):
    """Give masks and scores that depend on them, and on chance."""
    rng = np.random.default_rng(seed)
    masks = masks_of(RandomGrids(SIZE, 3, KEEP, n, seed), 0, n)
    weights = rng.normal(size=(targets, *SIZE)) / 5
    return masks, np.tensordot(weights, masks, ((1, 2), (1, 2))) + noise * rng.normal(
        size=(targets, n)
    )


def parts(masks, scores, size):
    for start in range(0, len(masks), size):
        yield Drawn(masks[start : start + size]), scores[:, start : start + size]


def fed(estimate, masks, scores, size=16):
    """Give what an estimate finds in all samples, as attributes."""
    for part in parts(masks, scores, size):
        estimate.add(*part)
    return SimpleNamespace(**estimate.found())


def run(masks, scores, tolerance=None, size=16, make=RatioMean, **more):
    """Let an estimate run over all samples, or until it is stable."""
    points = check_points(len(masks))
    return sampled(parts(masks, scores, size), make(), points, tolerance, **more)


# -------------------------------------------------------------------------------- the formulas


@pytest.mark.parametrize("size", [1, 7, 300])
def test_the_product_mean_is_its_formula(size):
    masks, scores = drawn()
    found = fed(ProductMean(KEEP), masks, scores, size)
    products = scores[:, :, None, None] * masks.astype(float) / KEEP
    np.testing.assert_allclose(found.value, products.mean(1), rtol=1e-11)
    expected = products.std(1, ddof=1) / np.sqrt(300)
    np.testing.assert_allclose(found.standard_error, expected, rtol=1e-11)


@pytest.mark.parametrize("size", [1, 7, 300])
def test_the_ratio_mean_is_its_formula(size):
    masks, scores = drawn()
    found = fed(RatioMean(), masks, scores, size)
    for t, *p in np.ndindex(2, *SIZE):
        m = masks[:, p[0], p[1]].astype(float)
        value = sum(m * scores[t]) / sum(m)
        error = np.sqrt(300 / 299 * sum(m**2 * (scores[t] - value) ** 2)) / sum(m)
        assert found.value[t, *p] == pytest.approx(value, rel=1e-10)
        assert found.standard_error[t, *p] == pytest.approx(error, rel=1e-10)


def test_weights_of_one_give_the_mean_and_its_standard_error():
    _, scores = drawn()
    ones = np.ones((300, *SIZE), np.float32)
    for found in (fed(RatioMean(), ones, scores), fed(ProductMean(1), ones, scores)):
        for t in range(2):
            np.testing.assert_allclose(found.value[t], scores[t].mean(), rtol=1e-10)
            error = scores[t].std(ddof=1) / np.sqrt(300)
            np.testing.assert_allclose(found.standard_error[t], error, rtol=1e-10)


@pytest.mark.parametrize("offset", [1e4, -1e8])
def test_a_large_constant_in_the_scores_is_added_and_costs_no_precision(offset):
    masks, scores = drawn()
    found, far = fed(RatioMean(), masks, scores), fed(RatioMean(), masks, scores + offset)
    np.testing.assert_allclose(far.value - offset, found.value, atol=1e-13 * abs(offset))
    np.testing.assert_allclose(far.standard_error, found.standard_error, rtol=1e-6)


def test_a_score_that_ignores_the_masks_is_known_exactly():
    masks, scores = drawn()
    found = fed(RatioMean(), masks, np.full_like(scores, 0.1))
    assert (found.value == 0.1).all()
    assert (found.standard_error == 0).all()
    # What the masks' expectation knows nothing of is how often a position was shown.
    noisy = fed(ProductMean(KEEP), masks, np.full_like(scores, 0.1))
    assert noisy.standard_error.min() > 0.001


def test_a_position_that_was_never_shown_has_the_mean_score_and_is_unknown():
    masks, scores = drawn()
    masks[:, 2, 3] = 0
    found = fed(RatioMean(), masks, scores)
    np.testing.assert_allclose(found.value[:, 2, 3], scores.mean(1))
    assert np.isinf(found.standard_error[:, 2, 3]).all()
    assert np.isfinite(np.delete(found.standard_error[0].ravel(), 2 * 5 + 3)).all()


@pytest.mark.parametrize("name", ESTIMATES)
def test_one_sample_says_nothing_of_its_error(name):
    masks, scores = drawn(1)
    found = fed(ESTIMATES[name](), masks, scores)
    assert np.isfinite(found.value).all()
    assert np.isinf(found.standard_error).all()


@pytest.mark.parametrize("name", ESTIMATES)
def test_two_standard_errors_cover_the_truth_as_often_as_they_should(name):
    """Of 300 repetitions at a few independent places about 95 % must cover; 4 sigma is 91 to 99."""
    weights = np.random.default_rng(5).normal(size=SIZE)
    score = lambda masks: np.tensordot(weights, masks, ((0, 1), (1, 2)))[None] + 3  # noqa: E731
    many = masks_of(RandomGrids(SIZE, 3, KEEP, 200_000, seed=99), 0, 200_000).astype(float)
    truth = (score(many)[0, :, None, None] * many).mean(0) / KEEP
    covered = np.zeros(SIZE)
    for seed in range(300):
        masks = masks_of(RandomGrids(SIZE, 3, KEEP, 400, seed), 0, 400)
        found = fed(ESTIMATES[name](), masks, score(masks), 400)
        covered += np.abs(found.value[0] - truth) < 2 * found.standard_error[0]
    share = covered / 300
    assert 0.93 < share.mean() < 0.97
    assert share.min() > 0.90
    assert share.max() < 0.995


def test_the_ratio_varies_less_than_the_product():
    masks, scores = drawn(noise=0.1)
    scores += 2
    ratio = fed(RatioMean(), masks, scores).standard_error
    product = fed(ProductMean(KEEP), masks, scores).standard_error
    assert (ratio < product / 2).all()


# ------------------------------------------------------------------------------------- stopping


@pytest.mark.parametrize("samples", [1, 2, 15, 16, 17, 40, 100, 4000, 10**6])
def test_check_points_grow_to_the_last_sample(samples):
    points = check_points(samples)
    assert points[-1] == samples
    assert points[0] == min(16, samples)
    assert len(points) <= POINTS
    assert list(points) == sorted(set(points))
    assert all(b <= max(a + 1, 1.5 * a) for a, b in pairwise(points))


@pytest.mark.parametrize(("first", "step"), [(16, 20), (20, 20), (52, 1), (16, 7)])
@pytest.mark.parametrize("samples", [2, 19, 20, 45, 1500])
def test_check_points_are_multiples_but_for_the_last(samples, first, step):
    points = check_points(samples, first, step)
    assert points[-1] == samples
    assert points[0] >= min(first - step / 2, samples)
    assert len(points) <= POINTS
    assert list(points) == sorted(set(points))
    assert not any(p % step for p in points[:-1])


@pytest.mark.parametrize("tolerance", [None, 0.15])
@pytest.mark.parametrize("name", ESTIMATES)
def test_the_size_of_the_batches_does_not_matter(name, tolerance):
    masks, scores = drawn(2000, noise=0.2)
    first, *others = (
        run(masks, scores, tolerance, size, ESTIMATES[name]) for size in (1, 7, 16, 64, 2000)
    )
    for other in others:
        np.testing.assert_array_equal(other.samples, first.samples)
        for key in ("value", "standard_error"):
            np.testing.assert_allclose(other.found[key], first.found[key], rtol=1e-9)
        np.testing.assert_allclose(other.history, first.history, rtol=1e-9)
    assert (first.samples < 2000).all() if tolerance else (first.samples == 2000).all()


@pytest.mark.parametrize("tolerance", [0.3, 0.15, 0.1])
def test_it_stops_at_the_first_check_that_is_within_the_tolerance(tolerance):
    masks, scores = drawn(4000, noise=0.2)
    found = run(masks, scores, tolerance)
    points = np.array(check_points(4000))
    for t in range(2):
        n = found.samples[t]
        last = np.flatnonzero(points == n)[0]
        history = found.history[t]
        np.testing.assert_array_equal(history[: last + 1, 0], points[: last + 1])
        assert np.isnan(history[last + 1 :]).all()
        errors = history[: last + 1, 1]
        assert LEAST <= n < 4000
        assert errors[-1] <= tolerance
        assert (errors[:-1] > tolerance)[points[:last] >= LEAST].all()
        upto = fed(RatioMean(), masks[:n], scores[t : t + 1, :n])
        np.testing.assert_allclose(found.found["value"][t], upto.value[0], rtol=1e-10)
        error = found.found["standard_error"][t]
        np.testing.assert_allclose(error, upto.standard_error[0], rtol=1e-9)
        largest = upto.standard_error.max() / np.ptp(upto.value)
        assert errors[-1] == pytest.approx(largest, rel=1e-9)


def test_each_target_stops_for_itself():
    masks, scores = drawn(4000, targets=3, noise=0.2)
    scores[1] += np.random.default_rng(8).normal(size=4000)
    together = run(masks, scores, 0.2)
    assert len(set(together.samples)) > 1
    for t in range(3):
        alone = run(masks, scores[t : t + 1], 0.2)
        assert alone.samples[0] == together.samples[t]
        for name, values in alone.found.items():
            np.testing.assert_allclose(values[0], together.found[name][t], rtol=1e-10)
        np.testing.assert_allclose(alone.history[0], together.history[t], rtol=1e-9)


class Mean:
    """Fits the mean of two positions, of which each sample has one mask."""

    def __init__(self):
        self.seen = []

    def __call__(self, scores):
        self.seen.append(scores.shape)
        both = scores.reshape(-1, 2)
        error = both.std(0, ddof=1) / np.sqrt(len(both))
        return {"value": both.mean(0), "standard_error": error, "last": both[-1, 0]}


@pytest.mark.parametrize("size", [1, 7, 500])
def test_a_sample_may_take_several_masks_and_what_is_found_be_fitted_anew(size):
    noise = np.random.default_rng(0).normal(size=(3, 600)) * [[1], [0.3], [2]]
    scores = noise + np.tile([0, 1], 300)
    masks = np.zeros((600, 2), np.float32)
    fit, points = Mean(), [20, 40, 80, 160, 300]
    batches = parts(masks, scores.astype(np.float32), size)
    found = sampled(batches, Refit(by_target(fit)), points, 0.1, each=2, least=40)
    assert set(fit.seen) <= {(2 * p,) for p in points}
    assert found.samples[1] < found.samples[0] < found.samples[2]
    for t in range(3):
        n = found.samples[t]
        alone = Mean()(np.float32(scores[t, : 2 * n]).astype(float))
        assert set(alone) == set(found.found)
        for name, values in alone.items():
            np.testing.assert_array_equal(found.found[name][t], values)
        looks = points[: points.index(n) + 1]
        np.testing.assert_array_equal(found.history[t, : len(looks), 0], looks)
    named = found.named(np.float32)
    assert {name: values.dtype.name for name, values in named.items()} == {
        "value": "float32",
        "standard_error": "float32",
        "last": "float32",
        "samples": "int64",
        "history": "float64",
    }


def test_nothing_more_is_asked_for_than_needed():
    masks, scores = drawn(4000, noise=0)
    asked = []

    def noted():
        for part in parts(masks, scores, 16):
            asked.append(len(part[0]))
            yield part

    found = sampled(noted(), RatioMean(), check_points(4000), 0.2)
    assert found.samples.max() <= sum(asked) < found.samples.max() + 16


def test_even_an_exact_map_is_not_stopped_before_the_least_number():
    masks, scores = drawn(4000)
    for least in (LEAST, 16, 300):
        found = run(masks, np.ones_like(scores), 1e-9, least=least)
        assert (found.samples == next(p for p in check_points(4000) if p >= least)).all()
    few = run(masks[:50], np.ones((2, 50)), 1e-9)
    assert (few.samples == 50).all()


def test_a_map_that_is_not_finite_is_not_called_stable():
    nan, inf = np.nan, np.inf
    value = [[1, 2], [1, nan], [1, 1], [1, 1], [1, 2], [1, 2], [1, inf], [1, nan], [inf, inf]]
    error = [[0.1, 0.2], [0.1, nan], [0, 0], [0.1, 0], [0.1, nan], [inf, 0], [0, 1], [0, 0], [0, 0]]
    found = relative_error(np.array(value), np.array(error))
    np.testing.assert_array_equal(found, [0.2, inf, 0, inf, inf, inf, inf, inf, inf])


def test_too_few_samples_are_an_error():
    masks, scores = drawn(30)
    with pytest.raises(ArrayError, match="fewer than 31"):
        sampled(parts(masks, scores, 16), RatioMean(), [16, 31])
    with pytest.raises(ArrayError, match="fewer than 32"):
        sampled(parts(masks, scores, 16), RatioMean(), [4, 8], each=4)


@pytest.mark.parametrize("name", ESTIMATES)
def test_more_samples_take_no_more_memory(name):
    masks, scores = drawn(16)

    def peak(n):
        tracemalloc.start()
        many = ((Drawn(masks), scores) for _ in range(n // 16))
        sampled(many, ESTIMATES[name](), check_points(n))
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return top

    # Of fewer, no batch is taken in whole between two looks.
    peak(320)
    assert peak(3200) < 1.2 * peak(320)


# ---------------------------------------------------------------------------------- convergence


def test_the_curves_are_the_history_in_percent():
    masks, scores = drawn(2000, targets=3, noise=0.2)
    scores[1] += np.random.default_rng(8).normal(size=2000)
    found = run(masks, scores, 0.2)
    curves = convergence(found.history, ["cat", "dog", "cow"])
    assert [line.name for line in curves.lines] == ["cat", "dog", "cow"]
    longest = max(found.samples)
    np.testing.assert_array_equal(curves.x, [p for p in check_points(2000) if p <= longest])
    for line, its in zip(curves.lines, found.history, strict=True):
        np.testing.assert_allclose(line.y, 100 * its[: len(curves.x), 1])
    assert [line.name for line in convergence(found.history).lines] == ["map 1", "map 2", "map 3"]


def test_an_unknown_error_is_a_gap_in_the_curve():
    history = np.full((1, POINTS, 2), np.nan)
    history[0, :3] = [[16, np.inf], [30, 0.5], [60, 0.25]]
    curves = convergence(history)
    np.testing.assert_array_equal(curves.x, [16, 30, 60])
    np.testing.assert_array_equal(curves.lines[0].y, [np.nan, 50, 25])


def test_maps_may_be_looked_at_after_different_numbers_of_samples():
    history = np.full((4, POINTS, 2), np.nan)
    history[0, :3] = [[16, 0.8], [30, 0.5], [60, 0.2]]
    history[1, :4] = [[20, np.inf], [40, 0.4], [50, np.inf], [80, 0.1]]
    history[2, :2] = [[20, np.inf], [40, np.inf]]
    history[3, :1] = [[100, 0]]
    curves = convergence(history)
    nan = np.nan
    np.testing.assert_array_equal(curves.x, [16, 20, 30, 40, 50, 60, 80, 100])
    first, second, third, fourth = (line.y for line in curves.lines)
    between = 80 - 30 * 4 / 14
    np.testing.assert_allclose(first, [80, between, 50, 40, 30, 20, nan, nan])
    np.testing.assert_allclose(second, [nan, nan, nan, 40, nan, 25, 10, nan])
    assert np.isnan(third).all()
    np.testing.assert_array_equal(fourth, [*[nan] * 7, 0])


@pytest.mark.parametrize(
    ("history", "names"), [(np.zeros((3, 2)), ()), (np.zeros((3, 4, 2)), ["one"])]
)
def test_what_is_no_history_is_reported(history, names):
    with pytest.raises(ArrayError, match="history"):
        convergence(history, names)
