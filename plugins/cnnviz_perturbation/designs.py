"""Experimental designs over the cells of a grid: how much of each cell is kept in every run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from cnnviz_core.errors import ParameterError
from cnnviz_core.mask_forms import MaskForm
from cnnviz_core.masks import GridMasks
from cnnviz_core.model import Array
from cnnviz_perturbation.sensitivity import Upsampling

__all__ = ["BLOCK", "PickFreezeMasks", "binary_hypercube", "low_discrepancy_pairs"]

BLOCK: Final = 20
"""The rows of a binary hypercube of which a cell is kept in half."""


@dataclass(frozen=True, eq=False)
class PickFreezeMasks:
    """Masks of two designs, and of the first with one cell at a time taken from the second.

    For each of N rows of K cells there are K + 2 masks, one row after the other: that of `first`,
    that of `second`, and for each cell in turn that of `first` in which the cell is as in `second`.
    Only the two designs are held.

    Attributes
    ----------
    first, second : ndarray (N, *grid)
        The designs, called A and B by Saltelli et al. (2010); in [0, 1].
    size : tuple of int
        A sample's positions along each axis, as many axes as the grid has.
    how : {"nearest", "bilinear"}
        How the grids are resized.
    """

    first: Array
    second: Array
    size: tuple[int, ...]
    how: Upsampling = "nearest"

    def __len__(self) -> int:
        return len(self.first) * (math.prod(self.first.shape[1:]) + 2)

    def form(self, start: int, stop: int) -> MaskForm:
        """Describe some of the masks; see `Masks.form`."""
        first, second = (design.reshape(len(design), -1) for design in (self.first, self.second))
        cells = np.arange(first.shape[1])
        row, mixed = np.divmod(np.arange(len(self))[start:stop, None], len(cells) + 2)
        of_second = (mixed == 1) | (mixed == cells + 2)
        grids = np.where(of_second, second[row, cells], first[row, cells])
        grids = grids.reshape(-1, *self.first.shape[1:])
        return GridMasks(grids, self.size, self.how).form(0, len(grids))


def low_discrepancy_pairs(samples: int, cells: int, seed: int) -> tuple[Array, Array]:
    """Draw two designs that together fill the unit cube evenly: a scrambled Sobol sequence.

    Parameters
    ----------
    samples : int
        Rows of each; a power of two, which the sequence needs to be balanced.
    cells : int
        Columns of each.
    seed : int
        For the scrambling.

    Returns
    -------
    first, second : ndarray (samples, cells)
        In [0, 1); the first and the second half of the columns of one sequence.

    Raises
    ------
    ParameterError
        If `samples` is no power of two, or the sequence is not known in so many dimensions.

    References
    ----------
    Owen, "Scrambling Sobol' and Niederreiter-Xing points", Journal of Complexity 14, 1998.
    """
    from scipy.stats import qmc

    if samples.bit_count() != 1:
        raise ParameterError(
            f"samples={samples} is no power of two",
            "2, 4, 8, 16, 32, ...",
            f"pass samples={1 << samples.bit_length()}",
        )
    if 2 * cells > qmc.Sobol.MAXDIM:
        raise ParameterError(
            f"the grid has {cells} cells",
            f"at most {qmc.Sobol.MAXDIM // 2}: the sequence is not known in more dimensions",
            "cut the samples into fewer cells",
        )
    sequence = qmc.Sobol(2 * cells, scramble=True, seed=np.random.default_rng(seed))
    drawn: Array = sequence.random(samples)
    return drawn[:, :cells], drawn[:, cells:]


def binary_hypercube(samples: int, cells: int, seed: int) -> Array:
    """Draw Latin hypercubes of 20 rows rounded to 0 and 1: each cell is kept in half of the rows.

    So a cell is kept in half of the first 20, 40, 60, ... rows too, and these are the same however
    many there are.

    Parameters
    ----------
    samples : int
        Rows; the last hypercube has what is left.  Of an odd number of rows each cell is kept in
        half of the others.
    cells : int
        Columns, which are drawn independently.
    seed : int
        For NumPy's generator.

    Returns
    -------
    ndarray of bool (samples, cells)

    References
    ----------
    McKay, Beckman & Conover, "A comparison of three methods for selecting values of input variables
    in the analysis of output from a computer code", Technometrics 21, 1979.
    """
    rng = np.random.default_rng(seed)
    drawn = []
    for start in range(0, samples, BLOCK):
        halves = np.arange(min(BLOCK, samples - start)) % 2 == 1
        drawn.append(rng.permuted(np.tile(halves, (cells, 1)), axis=1).T)
    return np.concatenate(drawn)
