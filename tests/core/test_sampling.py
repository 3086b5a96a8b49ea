"""Running estimates against their formulas over all samples, and the rule that stops them."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise

import numpy as np
import pytest

from cnnviz_core.errors import ArrayError
from cnnviz_core.random_masks import RandomGrids
from cnnviz_core.sampling import (
    LEAST,
    POINTS,
    ProductMean,
    RatioMean,
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
    masks = RandomGrids(SIZE, 3, KEEP, n, seed).make(0, n)
    weights = rng.normal(size=(targets, *SIZE)) / 5
    return masks, np.tensordot(weights, masks, ((1, 2), (1, 2))) + noise * rng.normal(
        size=(targets, n)
    )


def parts(masks, scores, size):
    for start in range(0, len(masks), size):
        yield masks[start : start + size], scores[:, start : start + size]


def fed(estimate, masks, scores, size=16):
    for part in parts(masks, scores, size):
        estimate.add(*part)
    return estimate


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
    many = RandomGrids(SIZE, 3, KEEP, 200_000, seed=99).make(0, 200_000).astype(float)
    truth = (score(many)[0, :, None, None] * many).mean(0) / KEEP
    covered = np.zeros(SIZE)
    for seed in range(300):
        masks = RandomGrids(SIZE, 3, KEEP, 400, seed).make(0, 400)
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


@pytest.mark.parametrize("tolerance", [None, 0.15])
@pytest.mark.parametrize("name", ESTIMATES)
def test_the_size_of_the_batches_does_not_matter(name, tolerance):
    masks, scores = drawn(2000, noise=0.2)
    first, *others = (
        sampled(parts(masks, scores, size), ESTIMATES[name](), 2000, tolerance)
        for size in (1, 7, 16, 64, 2000)
    )
    for other in others:
        np.testing.assert_array_equal(other.samples, first.samples)
        np.testing.assert_allclose(other.value, first.value, rtol=1e-9)
        np.testing.assert_allclose(other.standard_error, first.standard_error, rtol=1e-9)
        np.testing.assert_allclose(other.history, first.history, rtol=1e-9)
    assert (first.samples < 2000).all() if tolerance else (first.samples == 2000).all()


@pytest.mark.parametrize("tolerance", [0.3, 0.15, 0.1])
def test_it_stops_at_the_first_check_that_is_within_the_tolerance(tolerance):
    masks, scores = drawn(4000, noise=0.2)
    found = sampled(parts(masks, scores, 16), RatioMean(), 4000, tolerance)
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
        np.testing.assert_allclose(found.value[t], upto.value[0], rtol=1e-10)
        np.testing.assert_allclose(found.standard_error[t], upto.standard_error[0], rtol=1e-9)
        largest = upto.standard_error.max() / np.ptp(upto.value)
        assert errors[-1] == pytest.approx(largest, rel=1e-9)


def test_each_target_stops_for_itself():
    masks, scores = drawn(4000, targets=3, noise=0.2)
    scores[1] += np.random.default_rng(8).normal(size=4000)
    together = sampled(parts(masks, scores, 16), RatioMean(), 4000, 0.2)
    assert len(set(together.samples)) > 1
    for t in range(3):
        alone = sampled(parts(masks, scores[t : t + 1], 16), RatioMean(), 4000, 0.2)
        assert alone.samples[0] == together.samples[t]
        np.testing.assert_allclose(alone.value[0], together.value[t], rtol=1e-10)
        np.testing.assert_allclose(alone.history[0], together.history[t], rtol=1e-9)


def test_nothing_more_is_asked_for_than_needed():
    masks, scores = drawn(4000, noise=0)
    asked = []

    def noted():
        for part in parts(masks, scores, 16):
            asked.append(len(part[0]))
            yield part

    found = sampled(noted(), RatioMean(), 4000, 0.2)
    assert found.samples.max() <= sum(asked) < found.samples.max() + 16


def test_even_an_exact_map_is_not_stopped_before_the_least_number():
    masks, scores = drawn(4000)
    found = sampled(parts(masks, np.ones_like(scores), 16), RatioMean(), 4000, 1e-9)
    assert (found.samples == next(p for p in check_points(4000) if p >= LEAST)).all()
    few = sampled(parts(masks[:50], np.ones((2, 50)), 16), RatioMean(), 50, 1e-9)
    assert (few.samples == 50).all()


def test_a_map_that_is_not_finite_is_not_called_stable():
    value = np.array([[1.0, 2.0], [1.0, np.nan], [1.0, 1.0], [1.0, 1.0]])
    error = np.array([[0.1, 0.2], [0.1, np.nan], [0.0, 0.0], [0.1, 0.0]])
    np.testing.assert_array_equal(relative_error(value, error), [0.2, np.inf, 0, np.inf])


def test_too_few_samples_are_an_error():
    masks, scores = drawn(30)
    with pytest.raises(ArrayError, match="fewer than 31"):
        sampled(parts(masks, scores, 16), RatioMean(), 31)


@pytest.mark.parametrize("name", ESTIMATES)
def test_more_samples_take_no_more_memory(name):
    masks, scores = drawn(16)

    def peak(n):
        tracemalloc.start()
        sampled(((masks, scores) for _ in range(n // 16)), ESTIMATES[name](), n)
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return top

    peak(160)
    assert peak(3200) < 1.2 * peak(160)


# ---------------------------------------------------------------------------------- convergence


def test_the_curves_are_the_history_in_percent():
    masks, scores = drawn(2000, targets=3, noise=0.2)
    scores[1] += np.random.default_rng(8).normal(size=2000)
    found = sampled(parts(masks, scores, 16), RatioMean(), 2000, 0.2)
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


@pytest.mark.parametrize(
    ("history", "names"), [(np.zeros((3, 2)), ()), (np.zeros((3, 4, 2)), ["one"])]
)
def test_what_is_no_history_is_reported(history, names):
    with pytest.raises(ArrayError, match="history"):
        convergence(history, names)
