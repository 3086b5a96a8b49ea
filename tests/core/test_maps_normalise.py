"""Normalising maps, and reducing channels."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from cnnviz_core.errors import ArrayError, ParameterError
from cnnviz_core.maps import min_max, percentile_clip, reduce_channels, scale_to_max, symmetric

SCALERS = [min_max, scale_to_max, symmetric]
dtypes = st.sampled_from([np.float32, np.float64])
shapes = npst.array_shapes(min_dims=2, max_dims=4, max_side=4)


def numbers(low=-1e3, high=1e3):
    # No number so near zero that it loses digits.
    return st.floats(low, high, width=32).map(lambda v: v if abs(v) > 1e-3 else 0.0)


def arrays(shape=shapes, elements=None):
    elements = numbers() if elements is None else elements
    return dtypes.flatmap(lambda dtype: npst.arrays(dtype, shape, elements=elements))


def per_sample(values):
    return values.reshape(len(values), -1)


@given(arrays())
def test_min_max_reaches_zero_and_one_and_keeps_the_order(maps):
    scaled = min_max(maps)
    assert (scaled.dtype, scaled.shape) == (maps.dtype, maps.shape)
    for raw, new in zip(per_sample(maps), per_sample(scaled), strict=True):
        if raw.min() == raw.max():
            assert not new.any()
        else:
            assert (new.min(), new.max()) == (0, 1)
            assert (np.diff(new[np.argsort(raw)]) >= 0).all()
            exact = (raw.astype(np.float64) - raw.min()) / (float(raw.max()) - float(raw.min()))
            np.testing.assert_allclose(new, exact, rtol=4 * np.finfo(maps.dtype).eps, atol=0)


@given(arrays())
def test_min_max_twice_is_min_max_once(maps):
    np.testing.assert_array_equal(min_max(min_max(maps)), min_max(maps))


@given(arrays(elements=st.integers(-50, 50).map(float)), st.sampled_from([0.25, 1.0, 8.0]))
def test_min_max_does_not_see_a_shift_or_a_scale(maps, scale):
    np.testing.assert_allclose(min_max(scale * maps + 7), min_max(maps), rtol=1e-6)


def test_min_max_of_the_widest_range_does_not_overflow():
    for dtype in (np.float32, np.float64):
        edge = np.finfo(dtype).max
        assert min_max(np.array([[-edge, 0, edge]], dtype)).tolist() == [[0, 0.5, 1]]


@given(arrays(elements=numbers(0)))
def test_scale_to_max_keeps_zero_and_the_ratios(maps):
    scaled = scale_to_max(maps)
    for raw, new in zip(per_sample(maps), per_sample(scaled), strict=True):
        np.testing.assert_array_equal(new == 0, raw == 0)
        assert new.max() == (1 if raw.any() else 0)
        np.testing.assert_allclose(new * raw.max(), raw, rtol=1e-6)


def test_scale_to_max_of_what_is_nowhere_positive_is_zero():
    assert not scale_to_max(np.array([[-1.0, 0.0], [-3.0, -2.0], [0.0, 0.0]])).any()


@given(arrays())
def test_symmetric_keeps_signs_and_ratios(maps):
    scaled = symmetric(maps)
    for raw, new in zip(per_sample(maps), per_sample(scaled), strict=True):
        np.testing.assert_array_equal(np.sign(new), np.sign(raw))
        assert np.abs(new).max() == (1 if raw.any() else 0)
        np.testing.assert_allclose(new * np.abs(raw).max(), raw, rtol=1e-6)
    np.testing.assert_array_equal(symmetric(-maps), -scaled)


@given(arrays())
def test_every_scaler_is_idempotent_and_treats_samples_apart(maps):
    for scaler in SCALERS:
        once = scaler(np.abs(maps))
        np.testing.assert_array_equal(scaler(once), once)
        for i in range(len(maps)):
            np.testing.assert_array_equal(scaler(np.abs(maps)[i : i + 1])[0], once[i])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("scaler", SCALERS)
def test_a_map_that_is_not_finite_becomes_zeros(scaler, bad):
    maps = np.array([[1.0, 2.0, 4.0], [1.0, bad, 4.0], [bad, bad, bad]])
    scaled = scaler(maps)
    np.testing.assert_array_equal(scaled[:1], scaler(maps[:1]))
    assert not scaled[1:].any()


@pytest.mark.parametrize("scaler", SCALERS)
@pytest.mark.parametrize("axis", [(1, 2), (-3, -2), (0, 1, 2), 3, -1])
def test_other_axes_are_normalised_slice_by_slice(scaler, axis):
    maps = np.random.default_rng(0).standard_normal((3, 4, 5, 2))
    axes = {a % 4 for a in np.atleast_1d(axis)}
    kept = [a for a in range(4) if a not in axes]
    found = np.moveaxis(scaler(maps, axis=axis), kept, range(len(kept)))
    source = np.moveaxis(maps, kept, range(len(kept)))
    for at in np.ndindex(source.shape[: len(kept)]):
        np.testing.assert_array_equal(found[at].ravel(), scaler(source[at].reshape(1, -1))[0])


@pytest.mark.parametrize("scaler", SCALERS)
def test_a_batch_beyond_the_cache_is_scaled_as_its_samples_are(scaler):
    maps = np.random.default_rng(0).standard_normal((7, 300, 400))
    maps[3, 5, 6], maps[4] = np.nan, 0
    scaled = scaler(maps)
    for i in range(len(maps)):
        np.testing.assert_array_equal(scaled[i], scaler(maps[i : i + 1])[0])
    assert not scaled[3:5].any()


@pytest.mark.parametrize("scaler", SCALERS)
def test_nothing_of_the_size_of_the_batch_is_made_on_the_way(scaler):
    maps = np.random.default_rng(0).standard_normal((40, 300, 400)).astype(np.float32)
    tracemalloc.start()
    scaled = scaler(maps)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < scaled.nbytes + 2**20


@given(arrays(), st.floats(0, 100))
def test_percentile_clip_caps_magnitudes_at_their_percentile(maps, q):
    clipped = percentile_clip(maps, q)
    assert clipped.dtype == maps.dtype
    for raw, new in zip(per_sample(maps), per_sample(clipped), strict=True):
        cap = np.percentile(np.abs(raw), q)
        cap = cap if cap > 0 else np.inf
        np.testing.assert_allclose(
            new, np.sign(raw) * np.minimum(np.abs(raw), cap), rtol=2e-7, atol=1e-9
        )


def test_percentile_clip_spares_a_sparse_map_and_one_that_is_not_finite():
    maps = np.zeros((4, 1000))
    maps[0, 0] = -5
    maps[1:, ::2] = 7
    maps[1:, 1] = [np.nan, np.inf, -np.inf]
    for q in (0, 40, 99, 100):
        np.testing.assert_array_equal(percentile_clip(maps, q), maps)


def test_percentile_clip_takes_other_axes():
    maps = np.random.default_rng(0).standard_normal((3, 4, 5, 2))
    by_channel = percentile_clip(maps, 60, axis=(1, 2))
    for c in range(2):
        np.testing.assert_array_equal(by_channel[..., c], percentile_clip(maps[..., c], 60))


REFERENCE = {
    "max-abs": lambda v: max(map(abs, v)),
    "sum": math.fsum,
    "mean": lambda v: math.fsum(v) / len(v),
    "sum-abs": lambda v: math.fsum(map(abs, v)),
    "mean-abs": lambda v: math.fsum(map(abs, v)) / len(v),
    "l2": lambda v: math.hypot(*v),
}


@pytest.mark.parametrize("how", REFERENCE)
@given(maps=arrays())
def test_reduce_channels_is_the_plain_formula(how, maps):
    found = reduce_channels(maps, how)
    assert (found.dtype, found.shape) == (maps.dtype, maps.shape[:-1])
    scale = np.abs(maps).sum(axis=-1)
    for at in np.ndindex(found.shape):
        expected = REFERENCE[how](maps[at].tolist())
        assert abs(found[at] - expected) <= 4 * np.finfo(maps.dtype).eps * scale[at]


def test_the_default_is_the_largest_magnitude():
    assert reduce_channels(np.array([[[[1.0, -3.0, 2.0]]]])).tolist() == [[[3.0]]]


def test_l2_of_tiny_gradients_is_not_zero():
    tiny = np.array([[3e-30, 4e-30]], dtype=np.float32)
    assert reduce_channels(tiny, "l2")[0] == pytest.approx(5e-30, rel=1e-6, abs=0)


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: min_max(np.ones(3)), ArrayError, r"\(3,\)"),
        (lambda: symmetric(np.ones((3, 0))), ArrayError, "without a single value"),
        (lambda: scale_to_max(np.array([["a"]])), ArrayError, "real numbers"),
        (lambda: min_max(np.ones((2, 3)), axis=2), ParameterError, "axis=2"),
        (lambda: percentile_clip(np.ones((2, 3)), axis=(1, -3)), ParameterError, "-3"),
        (lambda: percentile_clip(np.ones((2, 3)), 101), ParameterError, "q=101"),
        (lambda: percentile_clip(np.ones((2, 3)), -1), ParameterError, "q=-1"),
        (lambda: percentile_clip(np.ones((2, 3)), math.nan), ParameterError, "q=nan"),
        (lambda: reduce_channels(np.ones(3)), ArrayError, r"\.\.\.grid"),
        (lambda: reduce_channels(np.ones((2, 3)), "max"), ParameterError, "'max-abs'"),
    ],
)
def test_bad_arguments_are_refused(call, error, says):
    with pytest.raises(error, match=says):
        call()
