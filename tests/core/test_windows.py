"""The positions of a sliding window against plain loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnviz_core.errors import ParameterError
from cnnviz_core.windows import Windows

SIZES = st.lists(st.integers(1, 12), min_size=1, max_size=3).map(tuple)
SIDES = st.tuples(st.integers(1, 14), st.integers(1, 14)).map(lambda pair: (max(pair), min(pair)))


def counted(windows):
    covered = np.zeros(windows.size, dtype=int)
    for window in windows:
        covered[window] += 1
    return covered


@given(SIZES, SIDES)
def test_every_pixel_is_covered_and_no_window_leaves_the_sample(size, sides):
    windows = Windows.over(size, *sides)
    assert counted(windows).min() >= 1
    for window in windows:
        for part, extent in zip(window, size, strict=True):
            assert 0 <= part.start < part.stop <= extent
            assert part.stop - part.start == min(sides[0], extent)


@given(SIZES, SIDES)
def test_windows_come_row_by_row_and_each_once(size, sides):
    windows = Windows.over(size, *sides)
    corners = [tuple(part.start for part in window) for window in windows]
    assert len(corners) == len(windows) == np.prod(windows.grid)
    assert corners == sorted(set(corners))


def test_the_last_window_is_flush_with_the_edge():
    windows = Windows.over((10, 7), 4, 3)
    assert [(s.start, s.stop) for s in windows.along[0]] == [(0, 4), (3, 7), (6, 10)]
    assert [(s.start, s.stop) for s in windows.along[1]] == [(0, 4), (3, 7)]
    assert windows.grid == (3, 2)


def test_left_out_the_window_is_a_seventh_of_the_shortest_axis_and_the_step_a_quarter_of_it():
    assert Windows.over((224, 300)) == Windows.over((224, 300), 32, 8)
    assert Windows.over((3, 5)) == Windows.over((3, 5), 1, 1)


def test_a_step_larger_than_the_window_is_refused():
    with pytest.raises(ParameterError, match="stride=5 is larger than window=4"):
        Windows.over((9, 9), 4, 5)
    with pytest.raises(ParameterError, match="never be covered"):
        Windows.over((21, 21), stride=4)


@given(SIZES, SIDES, st.integers(0, 9))
def test_the_mean_at_a_pixel_is_over_the_windows_that_cover_it(size, sides, seed):
    windows = Windows.over(size, *sides)
    values = np.random.default_rng(seed).normal(size=(2, len(windows)))
    mean = windows.mean(values)
    for pixel in np.ndindex(size):
        inside = [
            all(part.start <= p < part.stop for p, part in zip(pixel, window, strict=True))
            for window in windows
        ]
        np.testing.assert_allclose(mean[:, *pixel], values[:, inside].mean(1), atol=1e-12)


def test_the_mean_keeps_the_type():
    windows = Windows.over((4, 4), 2, 1)
    assert windows.mean(np.ones((1, 9), np.float32)).dtype == np.float32


@given(SIZES, SIDES)
def test_each_pixel_shows_a_window_whose_middle_is_nearest(size, sides):
    windows = Windows.over(size, *sides)
    numbers = np.arange(len(windows)).reshape(windows.grid)
    shown = windows.spread(numbers)
    middles = np.array([[(s.start + s.stop - 1) / 2 for s in window] for window in windows])
    for pixel in np.ndindex(size):
        away = np.abs(middles - pixel)
        np.testing.assert_array_equal(away[shown[pixel]], away.min(0))


def test_disjoint_windows_are_shown_where_they_are():
    shown = Windows.over((4, 6), 2, 2).spread(np.arange(6).reshape(2, 3))
    np.testing.assert_array_equal(shown, np.kron([[0, 1, 2], [3, 4, 5]], np.ones((2, 2))))
