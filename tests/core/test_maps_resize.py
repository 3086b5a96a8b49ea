"""Resizing, against OpenCV, SciPy, scikit-image, Pillow and plain loops."""

from __future__ import annotations

import tracemalloc
from fractions import Fraction
from itertools import product

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage
from skimage import transform

from cnnviz_core.errors import ArrayError, ParameterError
from cnnviz_core.maps import resize, resize_matrix

METHODS = ["nearest", "bilinear", "bicubic"]
SIZES = [((7, 7), (224, 224)), ((7, 5), (64, 97)), ((1, 1), (5, 3)), ((1, 6), (9, 13))]
SIZES += [((2, 3), (3, 2)), ((9, 4), (4, 9)), ((24, 31), (7, 5)), ((6, 6), (1, 1))]

sides = st.integers(1, 12)
pairs = st.tuples(sides, sides)
seeds = st.integers(0, 2**32 - 1)
methods = st.sampled_from(METHODS)
smooth = st.sampled_from(["bilinear", "bicubic"])
every = st.sampled_from([(m, False) for m in METHODS] + [("bilinear", True), ("bicubic", True)])


def normal(shape, seed=0, dtype=np.float64):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


# OpenCV and Pillow round coordinates or sums to single precision, at up to 30 pixels: 1e-5.


@pytest.mark.parametrize(("old", "new"), SIZES)
@pytest.mark.parametrize(
    ("method", "flag"),
    [("bilinear", cv2.INTER_LINEAR), ("bicubic", cv2.INTER_CUBIC)],
)
def test_equals_opencv(old, new, method, flag):
    maps = normal((2, *old), dtype=np.float32)
    expected = [cv2.resize(m, new[::-1], interpolation=flag) for m in maps]
    np.testing.assert_allclose(resize(maps, new, method), expected, atol=2e-5)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("channels", [(), (1,), (4,)])
def test_signals_and_volumes_are_resized_axis_by_axis(method, channels):
    volume = normal((2, 3, 4, 5, *channels))
    new = (6, 4, 3)
    matrices = [resize_matrix(o, n, method) for o, n in zip((3, 4, 5), new, strict=True)]
    expected = np.einsum("nabc...,ia,jb,kc->nijk...", volume, *matrices)
    np.testing.assert_allclose(resize(volume, new, method), expected, atol=1e-12)
    signal = normal((2, 5, *channels))
    expected = np.einsum("na...,ia->ni...", signal, resize_matrix(5, 9, method))
    np.testing.assert_allclose(resize(signal, (9,), method), expected, atol=1e-12)


@pytest.mark.parametrize(("old", "new"), SIZES)
def test_bilinear_equals_scipy(old, new):
    maps = normal((2, *old))
    rows, columns = [
        np.clip((np.arange(n) + 0.5) * o / n - 0.5, 0, o - 1) for o, n in zip(old, new, strict=True)
    ]
    where = np.meshgrid(rows, columns, indexing="ij")
    expected = [ndimage.map_coordinates(m, where, order=1, mode="nearest") for m in maps]
    np.testing.assert_allclose(resize(maps, new), expected, atol=1e-12)


def test_bilinear_equals_scipys_zoom():
    maps = normal((2, 7, 5))
    expected = [ndimage.zoom(m, 3, order=1, mode="nearest", grid_mode=True) for m in maps]
    np.testing.assert_allclose(resize(maps, (21, 15)), expected, atol=1e-12)


@pytest.mark.parametrize(("old", "new"), SIZES)
def test_bilinear_equals_scikit_image(old, new):
    maps = normal((2, *old))
    expected = [transform.resize(m, new, order=1, mode="edge", anti_aliasing=False) for m in maps]
    np.testing.assert_allclose(resize(maps, new), expected, atol=1e-12)


@pytest.mark.parametrize("new", [(9, 11), (3, 4), (5, 7)])
def test_bicubic_equals_keys_formula_tap_by_tap(new):
    def keys(d, a=Fraction(-3, 4)):
        d = abs(d)
        if d <= 1:
            return (a + 2) * d**3 - (a + 3) * d**2 + 1
        return a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a if d < 2 else Fraction(0)

    def taps(old, n, i):
        centre = Fraction((2 * i + 1) * old, 2 * n) - Fraction(1, 2)
        base = centre.numerator // centre.denominator
        return [(min(max(k, 0), old - 1), keys(centre - k)) for k in range(base - 1, base + 3)]

    image = normal((5, 7))
    expected = np.empty(new)
    for i, j in product(range(new[0]), range(new[1])):
        expected[i, j] = sum(
            float(u * v) * image[r, c] for r, u in taps(5, new[0], i) for c, v in taps(7, new[1], j)
        )
    np.testing.assert_allclose(resize(image[None], new, "bicubic")[0], expected, atol=1e-13)


@given(pairs, pairs, seeds)
def test_nearest_takes_the_pixel_on_which_the_centre_lies(old, new, seed):
    image = normal(old, seed, np.float32)
    found = resize(image[None], new, "nearest")[0]
    for i, j in product(range(new[0]), range(new[1])):
        row, column = Fraction(2 * i + 1, 2 * new[0]) * old[0], Fraction(2 * j + 1, 2 * new[1])
        assert found[i, j] == image[int(row), int(column * old[1])]


@pytest.mark.parametrize(("old", "new"), SIZES)
def test_nearest_equals_pillow(old, new):
    maps = normal((2, *old), dtype=np.float32)
    expected = [Image.fromarray(m).resize(new[::-1], Image.Resampling.NEAREST) for m in maps]
    np.testing.assert_array_equal(resize(maps, new, "nearest"), np.stack(expected))


@pytest.mark.parametrize("new", [(7, 5), (24, 8), (8, 31), (1, 1), (23, 30), (12, 10)])
@pytest.mark.parametrize(
    ("method", "filter"),
    [("bilinear", Image.Resampling.BILINEAR), ("bicubic", Image.Resampling.BICUBIC)],
)
def test_antialiasing_equals_pillow(new, method, filter):
    maps = normal((2, 24, 31), dtype=np.float32)
    expected = [np.asarray(Image.fromarray(m).resize(new[::-1], filter)) for m in maps]
    found = resize(maps, new, method, antialias=True)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    if np.prod(new) < 100:
        assert np.abs(found).max() < np.abs(resize(maps, new, method)).max()


@given(pairs, pairs, smooth, seeds)
def test_antialiasing_leaves_an_axis_that_grows_alone(old, new, method, seed):
    maps = normal((1, *old), seed)
    grown = (max(old[0], new[0]), max(old[1], new[1]))
    np.testing.assert_array_equal(
        resize(maps, grown, method, antialias=True), resize(maps, grown, method)
    )


@given(pairs, pairs, every, seeds)
def test_linear_in_the_maps(old, new, how, seed):
    method, antialias = how
    a, b = normal((2, 3, *old), seed)

    def f(maps):
        return resize(maps, new, method, antialias=antialias)

    np.testing.assert_allclose(f(2.5 * a - b), 2.5 * f(a) - f(b), atol=1e-12)


@given(pairs, pairs, every)
def test_a_constant_map_stays_constant(old, new, how):
    method, antialias = how
    maps = np.full((2, *old), 3.7)
    found = resize(maps, new, method, antialias=antialias)
    assert found.shape == (2, *new)
    np.testing.assert_allclose(found, 3.7, rtol=1e-14)
    for n_in, n_out in zip(old, new, strict=True):
        matrix = resize_matrix(n_in, n_out, method, antialias=antialias)
        np.testing.assert_allclose(matrix.sum(axis=1), 1, rtol=1e-14)


@given(pairs, pairs, smooth, st.booleans(), seeds)
def test_flipping_before_is_flipping_after(old, new, method, antialias, seed):
    maps = normal((2, *old), seed)
    after = resize(maps, new, method, antialias=antialias)
    before = resize(maps[:, ::-1, ::-1], new, method, antialias=antialias)
    np.testing.assert_allclose(before, after[:, ::-1, ::-1], atol=1e-12)


@given(pairs, pairs, every, seeds)
def test_transposing_before_is_transposing_after(old, new, how, seed):
    method, antialias = how
    maps = normal((2, *old), seed)
    after = resize(maps, new, method, antialias=antialias)
    before = resize(maps.swapaxes(1, 2), new[::-1], method, antialias=antialias)
    np.testing.assert_allclose(before.swapaxes(1, 2), after, atol=1e-12)


@given(pairs, pairs, methods, seeds)
def test_axes_can_be_resized_one_after_the_other(old, new, method, seed):
    maps = normal((2, *old), seed)
    at_once = resize(maps, new, method)
    rows_first = resize(resize(maps, (new[0], old[1]), method), new, method)
    columns_first = resize(resize(maps, (old[0], new[1]), method), new, method)
    np.testing.assert_allclose(rows_first, at_once, atol=1e-12)
    np.testing.assert_allclose(columns_first, at_once, atol=1e-12)


@given(pairs, pairs, methods, st.integers(1, 4), seeds)
def test_channels_are_resized_each_by_itself(old, new, method, channels, seed):
    maps = normal((2, *old, channels), seed)
    found = resize(maps, new, method)
    assert found.shape == (2, *new, channels)
    for c in range(channels):
        np.testing.assert_allclose(found[..., c], resize(maps[..., c], new, method), atol=1e-12)


@given(pairs, pairs, seeds)
def test_bilinear_stays_in_the_range_of_the_map(old, new, seed):
    maps = normal((2, *old), seed)
    found = resize(maps, new)
    assert (found <= maps.max(axis=(1, 2), keepdims=True) + 1e-12).all()
    assert (found >= maps.min(axis=(1, 2), keepdims=True) - 1e-12).all()


@given(st.integers(2, 12), st.integers(2, 40))
def test_bilinear_keeps_a_ramp_between_the_outermost_centres(n_in, n_out):
    centres = (np.arange(n_out) + 0.5) / n_out
    ramp = ((np.arange(n_in) + 0.5) / n_in)[None, None]
    inside = (centres >= ramp.min()) & (centres <= ramp.max())
    found = resize(ramp, (1, n_out))[0, 0]
    np.testing.assert_allclose(found[inside], centres[inside], atol=1e-13)


@given(pairs, methods, st.booleans(), seeds)
def test_the_same_size_gives_the_same_values_in_a_new_array(old, method, antialias, seed):
    antialias = antialias and method != "nearest"
    maps = normal((2, *old), seed, np.float32)
    found = resize(maps, old, method, antialias=antialias)
    np.testing.assert_array_equal(found, maps)
    assert not np.shares_memory(found, maps)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("channels", [(), (3,)])
@pytest.mark.parametrize("size", [(3, 20), (11, 9)])
def test_what_is_not_finite_stays_in_its_own_sample(method, channels, size):
    maps = normal((4, 5, 6, *channels))
    clean = resize(maps, size, method)
    maps[0, 2, 3], maps[2, 4, 0] = np.nan, np.inf
    found = resize(maps, size, method)
    np.testing.assert_array_equal(found[[1, 3]], clean[[1, 3]])
    assert not np.isfinite(found[0]).all() or method == "nearest"


@pytest.mark.parametrize("channels", [(), (3,)])
def test_a_batch_beyond_the_cache_is_resized_as_its_samples_are(channels):
    maps = normal((11, 40, 30, *channels))
    matrices = [resize_matrix(o, n) for o, n in zip((40, 30), (150, 230), strict=True)]
    expected = np.einsum("nab...,ia,jb->nij...", maps, *matrices, optimize=True)
    np.testing.assert_allclose(resize(maps, (150, 230)), expected, atol=1e-12)


@given(st.integers(20, 90), st.integers(20, 150), every, st.sampled_from([(), (2,)]), seeds)
def test_leaving_out_zeros_changes_nothing(n_in, n_out, how, channels, seed):
    method, antialias = how
    maps = normal((2, n_in, 5, *channels), seed)
    matrix = resize_matrix(n_in, n_out, method, antialias=antialias)
    rows = resize(maps, (n_out, 5), method, antialias=antialias)
    np.testing.assert_allclose(rows, np.einsum("na...,ia->ni...", maps, matrix), atol=1e-12)
    columns = resize(maps.swapaxes(1, 2), (5, n_out), method, antialias=antialias)
    np.testing.assert_allclose(columns.swapaxes(1, 2), rows, atol=1e-12)


def test_between_two_axes_there_is_never_the_whole_batch():
    maps = normal((200, 56, 56), dtype=np.float32)
    resize_matrix(56, 224)
    tracemalloc.start()
    resized = resize(maps, (224, 224))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < resized.nbytes + 2**20


def test_strides_do_not_matter():
    maps = normal((3, 4, 6, 5))
    np.testing.assert_array_equal(
        resize(maps.transpose(0, 2, 3, 1), (9, 2)),
        resize(np.ascontiguousarray(maps.transpose(0, 2, 3, 1)), (9, 2)),
    )
    np.testing.assert_array_equal(
        resize(maps[..., 0].swapaxes(1, 2), (9, 2)),
        resize(np.ascontiguousarray(maps[..., 0].swapaxes(1, 2)), (9, 2)),
    )


def test_an_empty_batch_is_resized_too():
    assert resize(np.zeros((0, 7, 7)), (9, 4)).shape == (0, 9, 4)
    assert resize(np.zeros((0, 7, 7, 3)), (9, 4)).shape == (0, 9, 4, 3)


def test_the_matrices_are_shared_and_locked():
    matrix = resize_matrix(7, 224, "bicubic")
    assert matrix is resize_matrix(7, 224, "bicubic")
    assert (matrix.dtype, matrix.shape) == (np.float64, (224, 7))
    for method in METHODS:
        with pytest.raises(ValueError, match="read-only"):
            resize_matrix(3, 4, method)[0, 0] = 1


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: resize(np.ones((7, 7)), (9, 9)), ArrayError, "N, h, w"),
        (lambda: resize(np.ones((1, 0, 7)), (9, 9)), ArrayError, "without a single value"),
        (lambda: resize(np.ones((1, 7, 7)), 9), ParameterError, "no size"),
        (lambda: resize(np.ones((1, 7, 7)), (9, 9, 3, 3)), ParameterError, "no size"),
        (lambda: resize(np.ones((1, 7, 7)), (9, 9, 3)), ArrayError, "N, d, h, w"),
        (lambda: resize(np.ones((1, 7, 7)), (0, 9)), ParameterError, "at least 1"),
        (lambda: resize(np.ones((1, 7, 7)), (9.5, 9)), ParameterError, "9.5"),
        (
            lambda: [resize(np.ones((1, 7, 7)), (side, 9)) for side in (9, 9.0)],
            ParameterError,
            "9.0",
        ),
        (lambda: resize(np.ones((1, 7, 7)), (9, 9), "cubic"), ParameterError, "'bicubic'"),
        (lambda: resize(np.ones((1, 7, 7)), (7, 7), "area"), ParameterError, "'area'"),
        (lambda: resize_matrix(7, -1), ParameterError, "n_out=-1"),
        (lambda: resize_matrix(7, 3, "nearest", antialias=True), ParameterError, "nearest"),
    ],
)
def test_bad_arguments_are_refused(call, error, says):
    with pytest.raises(error, match=says):
        call()
