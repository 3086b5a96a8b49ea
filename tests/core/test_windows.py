"""The positions of a sliding window against plain loops."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnviz_core.errors import ParameterError
from cnnviz_core.windows import Windows

SIZES = st.lists(st.integers(1, 12), min_size=1, max_size=3).map(tuple)
SIDES = st.tuples(st.integers(1, 14), st.integers(1, 14)).map(lambda pair: (max(pair), min(pair)))
SHAPES = st.sampled_from(["box", "disc"])


def counted(windows):
    covered = np.zeros(windows.size, dtype=int)
    for window in windows:
        covered[window] += 1
    return covered


def widest(side, axes):
    """Give the largest step of discs: the side of the box whose corners a disc just covers."""
    centred = [m for m in range(1, side + 1) if (side - m) % 2 == 0]
    return max(m for m in centred if math.hypot(*[(m - 1) / 2] * axes) <= side / 2)


def laid(size, sides, shape):
    """Lay windows, with as large a step as their shape allows."""
    side, step = sides
    return Windows.over(
        size, side, step if shape == "box" else min(step, widest(side, len(size))), shape
    )


def covers(windows, index):
    """Tell, a pixel at a time, what a window covers."""
    at = np.unravel_index(index, windows.grid)
    begin = [starts[i] for starts, i in zip(windows.starts, at, strict=True)]
    covered = np.zeros(windows.size, bool)
    for pixel in np.ndindex(windows.size):
        away = [p - b - (windows.side - 1) / 2 for p, b in zip(pixel, begin, strict=True)]
        inside = max(map(abs, away)) < windows.side / 2
        covered[pixel] = inside and (
            windows.shape == "box" or math.hypot(*away) <= windows.side / 2
        )
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


@settings(max_examples=40)
@given(SIZES, SIDES, SHAPES)
def test_a_window_covers_a_box_or_the_disc_inscribed_in_it(size, sides, shape):
    windows = laid(size, sides, shape)
    for index, lies in zip(range(min(len(windows), 9)), windows, strict=False):
        part, inside = windows.place(index)
        assert part == lies
        covered = np.zeros(size, bool)
        covered[part] = inside
        np.testing.assert_array_equal(covered, covers(windows, index))


@given(SIZES, SIDES)
def test_discs_leave_no_pixel_out_either(size, sides):
    windows = laid(size, sides, "disc")
    covered = np.zeros(size, dtype=int)
    for index in range(len(windows)):
        part, inside = windows.place(index)
        assert inside.any()
        covered[part] += inside
    assert covered.min() >= 1


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("side", [1, 2, 3, 4, 5, 8, 14])
def test_discs_whose_steps_leave_gaps_are_refused(side, axes):
    inner, size = widest(side, axes), (40, 37, 25)[:axes]
    assert len(Windows.over(size, side, inner, "disc"))
    assert len(Windows.over(size, side, shape="disc"))  # the step that is left out fits
    with pytest.raises(ParameterError, match=f"stride={inner + 1} is larger than {inner}, the"):
        Windows.over(size, side, inner + 1, "disc")
    if axes == 1:
        assert inner == side


def test_a_disc():
    part, inside = Windows.over((9, 9), 5, 3, "disc").place(4)
    assert part == (slice(2, 7), slice(2, 7))
    assert ["".join(".#"[pixel] for pixel in row) for row in inside.astype(int)] == [
        ".###.",
        "#####",
        "#####",
        "#####",
        ".###.",
    ]


@settings(max_examples=40)
@given(SIZES, SIDES, SHAPES, st.integers(0, 9))
def test_the_mean_at_a_pixel_is_over_the_windows_that_cover_it(size, sides, shape, seed):
    windows = laid(size, sides, shape)
    values = np.random.default_rng(seed).normal(size=(2, len(windows)))
    covering = np.zeros((len(windows), *size), bool)
    for index in range(len(windows)):
        part, inside = windows.place(index)
        covering[index][part] = inside
    mean = windows.mean(values)
    for pixel in np.ndindex(size):
        expected = values[:, covering[:, *pixel]].mean(1)
        np.testing.assert_allclose(mean[:, *pixel], expected, atol=1e-12)


def test_the_mean_keeps_the_type():
    windows = Windows.over((4, 4), 2, 1)
    assert windows.mean(np.ones((1, 9), np.float32)).dtype == np.float32


@given(SIZES, SIDES, SHAPES)
def test_each_pixel_shows_a_window_whose_middle_is_nearest(size, sides, shape):
    windows = laid(size, sides, shape)
    numbers = np.arange(len(windows)).reshape(windows.grid)
    shown = windows.spread(numbers)
    middles = np.array(list(product(*windows.starts))) + (windows.side - 1) / 2
    for pixel in np.ndindex(size):
        away = np.abs(middles - pixel)
        np.testing.assert_array_equal(away[shown[pixel]], away.min(0))


def test_disjoint_windows_are_shown_where_they_are():
    shown = Windows.over((4, 6), 2, 2).spread(np.arange(6).reshape(2, 3))
    np.testing.assert_array_equal(shown, np.kron([[0, 1, 2], [3, 4, 5]], np.ones((2, 2))))


@settings(max_examples=30)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=3), st.integers(1, 5), st.integers(0, 9))
def test_the_mean_of_boxes_is_that_of_any_windows(size, side, seed):
    windows = Windows.over(tuple(size), side, 1)
    values = np.random.default_rng(seed).normal(size=(2, len(windows)))
    total, covered = np.zeros((2, *size)), np.zeros(size)
    for index in range(len(windows)):
        part, inside = windows.place(index)
        total[:, *part] += values[:, index].reshape(2, *(1 for _ in size)) * inside
        covered[part] += inside
    np.testing.assert_allclose(windows.mean(values), total / covered, rtol=1e-12, atol=1e-12)
