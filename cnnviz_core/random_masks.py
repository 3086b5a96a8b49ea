"""Random smooth grids: the masks of RISE, drawn where they are used."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from cnnviz_core.maps import resize_matrix
from cnnviz_core.model import Array

__all__ = ["RandomGrids"]

_BLOCK: Final = 64
"""How many masks come from one generator; the masks depend on it."""


@dataclass(frozen=True)
class RandomGrids:
    """Masks that are coarse random grids, interpolated and shifted at random.

    Each cell of a grid is kept with the same probability, independently of the others.  The grid is
    interpolated linearly along each axis to one cell more than covers the sample, and a part of the
    sample's size is cut out of it, at a shift of less than a cell.  The expectation of a mask is
    `keep` at every position.

    A cell's side is the sample's divided by `cells`, rounded up: rounded down, as the paper has it,
    the grid would not always reach the far edge.

    Attributes
    ----------
    size : tuple of int
        A sample's positions along each axis.
    cells : int
        Cells of a grid along every axis.
    keep : float
        The probability that a cell is kept.
    count : int
        How many masks there are.  The first of many are those of few.
    seed : int
        For NumPy's generator.

    References
    ----------
    Petsiuk, Das & Saenko, "RISE: Randomized input sampling for explanation of black-box models",
    BMVC 2018, section 3.2.

    Examples
    --------
    >>> masks = RandomGrids((5, 6), cells=2, keep=0.5, count=100)
    >>> masks.make(10, 13).shape
    (3, 5, 6)
    """

    size: tuple[int, ...]
    cells: int = 7
    keep: float = 0.5
    count: int = 4000
    seed: int = 0

    def __len__(self) -> int:
        return self.count

    def make(self, start: int, stop: int) -> Array:
        """Make some of the masks; see `Masks.make`."""
        stop = min(stop, self.count)
        made = np.empty((max(0, stop - start), *self.size), np.float32)
        for block in range(start // _BLOCK, math.ceil(stop / _BLOCK)):
            first = max(start, block * _BLOCK)
            last = min(stop, (block + 1) * _BLOCK)
            grids, shifts = self._drawn(block)
            chosen = slice(first - block * _BLOCK, last - block * _BLOCK)
            made[first - start : last - start] = self._masks(grids[chosen], shifts[chosen])
        return made

    def _drawn(self, block: int) -> tuple[Array, Array]:
        """Draw the grids (64, cells, ...) of one block and their shifts (64, axes)."""
        rng = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(block,)))
        axes = len(self.size)
        grids = rng.random((_BLOCK, *(self.cells,) * axes)) < self.keep
        shifts = rng.integers(0, [self._side(extent) for extent in self.size], (_BLOCK, axes))
        return grids, shifts

    def _masks(self, grids: Array, shifts: Array) -> Array:
        """Interpolate grids and cut the masks out of them."""
        made = grids.astype(np.float64)
        for axis, extent in enumerate(self.size):
            rows = shifts[:, axis, None] + np.arange(extent)
            # The axis in front becomes the last one, so that after all of them the order is back.
            lines = made.reshape(len(made), self.cells, math.prod(made.shape[2:])).swapaxes(1, 2)
            weights = self._interpolation(extent)[rows].swapaxes(1, 2)
            made = (lines @ weights).reshape(len(made), *made.shape[2:], extent)
        return made

    def _interpolation(self, extent: int) -> Array:
        """Give the weights of an axis' cells at each position, before the cut."""
        return resize_matrix(self.cells, (self.cells + 1) * self._side(extent))

    def _side(self, extent: int) -> int:
        """Give the side of a cell along an axis."""
        return math.ceil(extent / self.cells)
