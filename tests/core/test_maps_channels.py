"""Feature maps to one map."""

from __future__ import annotations

import itertools
import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnviz_core.errors import ArrayError, ParameterError
from cnnviz_core.maps import channel_means, combine, relu, weight_channels

shapes = st.lists(st.integers(1, 4), min_size=2, max_size=5).map(tuple)
seeds = st.integers(0, 2**32 - 1)


def normal(shape, seed=0, dtype=np.float64):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


@given(shapes, seeds)
def test_one_weight_for_each_channel_is_the_plain_sum_on_any_grid(shape, seed):
    features, weights = normal(shape, seed), normal((shape[0], shape[-1]), seed + 1)
    found = weight_channels(features, weights)
    assert found.shape == shape[:-1]
    for at in np.ndindex(found.shape):
        terms = [f * w for f, w in zip(features[at], weights[at[0]], strict=True)]
        assert found[at] == pytest.approx(math.fsum(terms), rel=1e-12, abs=1e-13)


@given(shapes, seeds)
def test_one_weight_for_each_value_is_the_plain_sum_on_any_grid(shape, seed):
    features, weights = normal(shape, seed), normal(shape, seed + 1)
    found = weight_channels(features, weights)
    assert found.shape == shape[:-1]
    for at in np.ndindex(found.shape):
        terms = [f * w for f, w in zip(features[at], weights[at], strict=True)]
        assert found[at] == pytest.approx(math.fsum(terms), rel=1e-12, abs=1e-13)


@given(shapes, seeds)
def test_weights_of_a_channel_spread_over_the_grid_are_the_same_weights(shape, seed):
    features, weights = normal(shape, seed), normal((shape[0], shape[-1]), seed + 1)
    grid = (1,) * (len(shape) - 2)
    spread = np.broadcast_to(weights.reshape(shape[0], *grid, shape[-1]), shape)
    np.testing.assert_allclose(
        weight_channels(features, weights), weight_channels(features, spread), atol=1e-13
    )


def test_a_single_weight_of_one_picks_a_channel_exactly():
    features = normal((3, 5, 4, 6), dtype=np.float32)
    for k in range(6):
        picked = weight_channels(features, np.tile(np.eye(6, dtype=np.float32)[k], (3, 1)))
        np.testing.assert_array_equal(picked, features[..., k])


def test_the_mean_of_the_map_is_the_weighted_mean_of_the_channels():
    features, weights = normal((3, 5, 4, 6)), normal((3, 6), 1)
    expected = (channel_means(features) * weights).sum(axis=1)
    np.testing.assert_allclose(
        weight_channels(features, weights).mean(axis=(1, 2)), expected, rtol=1e-12
    )


def test_2048_channels_in_single_precision():
    features, weights = normal((2, 7, 7, 2048), dtype=np.float32), normal((2, 2048), 1, np.float32)
    exact = np.einsum("nhwc,nc->nhw", features.astype(np.float64), weights.astype(np.float64))
    found = weight_channels(features, weights)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, exact, atol=1e-5 * np.abs(exact).max())


@pytest.mark.parametrize("order", ["channels last", "channels first underneath"])
@pytest.mark.parametrize("per_value", [False, True])
def test_no_copy_of_the_features_is_made(order, per_value):
    features = normal((2, 32, 32, 128), dtype=np.float32)
    if order != "channels last":
        features = np.ascontiguousarray(np.moveaxis(features, -1, 1))
        features = np.moveaxis(features, 1, -1)
    weights = features if per_value else normal((2, 128), 1, np.float32)
    expected = (features * (weights if per_value else weights[:, None, None])).sum(axis=-1)
    tracemalloc.start()
    found = weight_channels(features, weights)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert peak < features.nbytes / 10


@pytest.mark.parametrize("shape", [(4,), (2, 4), (3, 3, 5), (2, 3, 2, 5)])
def test_channel_means_are_plain_means(shape):
    gradients = normal((2, *shape, 3))
    found = channel_means(gradients)
    assert found.shape == (2, 3)
    for n, c in itertools.product(range(2), range(3)):
        values = gradients[n, ..., c].ravel().tolist()
        assert found[n, c] == pytest.approx(math.fsum(values) / len(values), rel=1e-12)


def test_channel_means_do_not_lose_digits_on_a_large_grid():
    gradients = np.full((1, 500, 500, 2), 0.1, dtype=np.float32)
    np.testing.assert_array_equal(channel_means(gradients), gradients[:, 0, 0])


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("mean", [[2.0, -1.0]]),
        ("sum", [[6.0, -3.0]]),
        ("max", [[3.0, 4.0]]),
        ("min", [[1.0, -5.0]]),
        ("product", [[6.0, 40.0]]),
    ],
)
def test_combine(how, expected):
    maps = [np.array([[1.0, -5.0]]), np.array([[2.0, 4.0]]), np.array([[3.0, -2.0]])]
    np.testing.assert_allclose(combine(maps, how), expected, rtol=1e-15)
    np.testing.assert_array_equal(combine(np.stack(maps), how), combine(maps, how))
    np.testing.assert_allclose(combine(maps[::-1], how), expected, rtol=1e-15)


def test_combining_one_map_changes_nothing():
    one = normal((2, 3, 4))
    for how in ("mean", "sum", "max", "min", "product"):
        np.testing.assert_array_equal(combine([one], how), one)


@given(shapes, seeds)
def test_relu_splits_a_map_in_two(shape, seed):
    maps = normal(shape, seed)
    np.testing.assert_array_equal(relu(maps) - relu(-maps), maps)
    assert (relu(maps) >= 0).all()
    np.testing.assert_array_equal(relu(relu(maps)), relu(maps))


def test_what_is_not_finite_stays_so_in_its_own_sample():
    features = np.ones((3, 2, 2, 2), dtype=np.float32)
    features[0, 0, 0, 0], features[1, 0, 0, 0] = np.nan, np.inf
    weights = np.array([[1, 1], [0, 1], [1, 1]], dtype=np.float32)
    sums = weight_channels(features, weights)
    assert np.isfinite(sums.reshape(3, -1)).all(axis=1).tolist() == [False, False, True]
    means = channel_means(features)
    assert np.isfinite(means).all(axis=1).tolist() == [False, False, True]
    np.testing.assert_array_equal(relu(np.array([np.nan, -np.inf, np.inf])), [np.nan, 0, np.inf])


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: weight_channels(np.ones((2, 3, 3, 4)), np.ones((2, 3))), r"\(2, 4\)"),
        (lambda: weight_channels(np.ones((2, 3, 3, 4)), np.ones((1, 4))), r"\(2, 4\)"),
        (lambda: weight_channels(np.ones((2, 3, 3, 4)), np.ones(4)), "shape"),
        (lambda: weight_channels(np.ones(4), np.ones(4)), "shape"),
        (lambda: weight_channels(np.ones((2, 3), dtype=complex), np.ones((2, 3))), "complex"),
        (lambda: channel_means(np.ones((2, 3))), r"\.\.\.grid"),
        (lambda: channel_means(np.ones((2, 0, 3))), "without a single value"),
        (lambda: combine([]), "no map"),
        (lambda: combine([np.ones((1, 2)), np.ones((1, 3))]), r"\(1, 2\), \(1, 3\)"),
        (lambda: relu("a"), "type"),
    ],
)
def test_unfit_arrays_are_refused(call, says):
    with pytest.raises(ArrayError, match=says):
        call()


def test_an_unknown_combination_is_refused():
    with pytest.raises(ParameterError, match="'median' is unknown"):
        combine([np.ones((1, 2))], "median")
