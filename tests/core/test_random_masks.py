"""Random smooth grids against their description, written plainly."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from cnnviz_core.masks import drawn
from cnnviz_core.random_masks import RandomGrids

SIZES = [(23,), (12, 9), (7, 8, 6), (6, 50), (3, 4)]


def interpolated(grid, new):
    """Interpolate linearly along each axis between the centres of the cells."""
    for axis, extent in enumerate(new):
        old = grid.shape[axis]
        centres = [(i + 0.5) * old / extent - 0.5 for i in range(extent)]
        grid = np.apply_along_axis(
            lambda line, c=centres: np.interp(c, range(len(line)), line), axis, grid
        )
    return grid


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("cells", [1, 3, 7])
def test_a_mask_is_a_grid_interpolated_and_cut_at_a_shift(size, cells):
    masks = RandomGrids(size, cells, keep=0.4, count=80, seed=3)
    made = drawn(masks, 0, 80)
    sides = [math.ceil(extent / cells) for extent in size]
    for k in (0, 5, 63, 64, 79):
        grids, shifts = masks._drawn(k // 64)
        grid, shift = grids[k % 64], shifts[k % 64]
        assert grid.shape == (cells,) * len(size)
        assert all(0 <= s < side for s, side in zip(shift, sides, strict=True))
        whole = interpolated(grid.astype(float), [(cells + 1) * side for side in sides])
        cut = tuple(slice(s, s + extent) for s, extent in zip(shift, size, strict=True))
        np.testing.assert_allclose(made[k], whole[cut], atol=1e-7)


@pytest.mark.parametrize("size", SIZES)
def test_masks_are_the_same_whenever_they_are_asked_for(size):
    masks = RandomGrids(size, 3, count=150, seed=1)
    whole = drawn(masks, 0, 150)
    assert whole.dtype == np.float32
    assert whole.shape == (150, *size)
    for start, stop in [(0, 1), (63, 65), (10, 140), (149, 150), (64, 128)]:
        np.testing.assert_array_equal(drawn(masks, start, stop), whole[start:stop])
    for batch_size in (1, 7, 64, 200):
        parts = [drawn(masks, start, start + batch_size) for start in range(0, 150, batch_size)]
        np.testing.assert_array_equal(np.concatenate(parts), whole)
    np.testing.assert_array_equal(drawn(RandomGrids(size, 3, count=400, seed=1), 0, 150), whole)


def test_slices_end_as_those_of_arrays_do():
    masks = RandomGrids((5, 4), 2, count=70)
    assert len(masks) == 70
    assert drawn(masks, 60, 200).shape == (10, 5, 4)
    assert drawn(masks, 90, 200).shape == (0, 5, 4)
    assert drawn(masks, 5, 5).shape == (0, 5, 4)


def test_every_mask_and_every_seed_is_another():
    masks = RandomGrids((12, 9), count=200)
    made = drawn(masks, 0, 200).reshape(200, -1)
    assert len(np.unique(made, axis=0)) == 200
    other = drawn(replace(masks, seed=1), 0, 200).reshape(200, -1)
    assert not (made == other).all(1).any()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("keep", [0.1, 0.5, 0.8])
def test_every_position_is_shown_alike(size, keep):
    made = drawn(RandomGrids(size, 4, keep, count=4000, seed=2), 0, 4000).astype(float)
    assert made.min() >= 0
    assert made.max() <= 1
    error = made.std(0) / np.sqrt(len(made))
    assert (np.abs(made.mean(0) - keep) < 4.5 * error).all()


def test_cells_are_kept_independently():
    # Positions that share no cell do not correlate.
    made = drawn(RandomGrids((40,), 8, count=4000), 0, 4000)
    correlation = np.corrcoef(made.T)
    assert np.abs(correlation[0, 12:]).max() < 4.5 / np.sqrt(4000)
    assert correlation[20, 21] > 0.9


@pytest.mark.parametrize("size", SIZES)
def test_what_is_kept_whole_is_exactly_one(size):
    assert (drawn(RandomGrids(size, keep=1 - 1e-12, count=64), 0, 64) == 1).all()
    assert (drawn(RandomGrids(size, keep=1e-12, count=64), 0, 64) == 0).all()
