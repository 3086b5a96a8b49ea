"""Random smooth grids: the masks of RISE, drawn where they are used."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from cnnviz_core.maps import resize_matrix
from cnnviz_core.mask_forms import MaskForm, Separable
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
    >>> masks.form(10, 13).shape
    (3, 5, 6)
    """

    size: tuple[int, ...]
    cells: int = 7
    keep: float = 0.5
    count: int = 4000
    seed: int = 0

    def __len__(self) -> int:
        return self.count

    def form(self, start: int, stop: int) -> MaskForm:
        """Describe some of the masks; see `cnnviz_core.masks.Masks.form`."""
        start, stop, _ = slice(start, stop).indices(self.count)
        first = start // _BLOCK
        blocks = [self._drawn(b) for b in range(first, max(first + 1, math.ceil(stop / _BLOCK)))]
        grids, shifts = map(np.concatenate, zip(*blocks, strict=True))
        asked = slice(start - first * _BLOCK, stop - first * _BLOCK)
        weights = [
            self._interpolation(extent)[:, shifts[asked, axis, None] + np.arange(extent)]
            for axis, extent in enumerate(self.size)
        ]
        return Separable(grids[asked], [np.moveaxis(along, 0, 1) for along in weights])

    def _drawn(self, block: int) -> tuple[Array, Array]:
        """Draw the grids (64, cells, ...) of one block and their shifts (64, axes)."""
        rng = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(block,)))
        axes = len(self.size)
        grids = rng.random((_BLOCK, *(self.cells,) * axes)) < self.keep
        shifts = rng.integers(0, [self._side(extent) for extent in self.size], (_BLOCK, axes))
        return grids, shifts

    def _interpolation(self, extent: int) -> Array:
        """Give the weights of an axis' cells at each position, before the cut: (cells, ...)."""
        return resize_matrix(self.cells, (self.cells + 1) * self._side(extent)).T

    def _side(self, extent: int) -> int:
        """Give the side of a cell along an axis."""
        return math.ceil(extent / self.cells)
