"""Sobol indices: how much of the score's variance each cell of a grid has a part in."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Final

import numpy as np

from cnnviz_core.explainer import Maps
from cnnviz_core.fills import Fill
from cnnviz_core.model import Array, Model
from cnnviz_core.pace import BatchSize
from cnnviz_core.parameters import Help, Range
from cnnviz_core.perturb import check_positions
from cnnviz_core.sampling import Tolerance
from cnnviz_core.targets import Target
from cnnviz_perturbation.cells import grid_of
from cnnviz_perturbation.designs import PickFreezeMasks, low_discrepancy_pairs
from cnnviz_perturbation.sensitivity import Design, Upsampling, Work, sensitivity_maps

__all__ = ["Sobol"]

_LEAST: Final = 16
"""The rows before which nothing is stopped: of fewer the bootstrap knows too little."""


@dataclass(frozen=True)
class Sobol:
    """Total Sobol index: a cell's part, alone and with others, in the variance of the score.

    The picture is cut into a grid of cells, each of which is faded into the fill by a random
    amount, uniform in [0, 1].  The raw map is the total index of each cell: the share of the
    score's variance that would be left if all cells but this one were known.  It is 0 for a cell
    that the network ignores; the indices sum to 1 where cells act independently of each other, and
    to more where they interact.  It has no sign: it says that a cell matters, not which way.

    With A and B two designs of N rows, and A_B^(i) the first with column i of the second, the total
    index is estimated as ``mean((f(A) - f(A_B^(i)))**2) / (2 V)``, V being the variance of f(A)
    (Jansen 1999; equation 6 of the paper).

    Parameters
    ----------
    cells : int
        Cells along every axis; an axis with fewer positions is cut into those.
    samples : int
        Rows N of each design; a power of two.  Each takes a pass for every cell and two more.
    upsample : {"nearest", "bilinear"}
        How masks are brought to the picture's size, and the map with them: cells with sharp edges,
        as the authors have them, or blended into each other.
    fill : float, str or ndarray
        What a cell is faded into; see `cnnviz_core.fills.Fill`.  The authors take 0.
    resamples : int
        Bootstrap samples of which the standard error is made; they cost no pass.
    tolerance : float or None
        Stop as soon as the largest standard error of a map is at most this share of the map's
        range, and not before 16 rows; None takes all samples.  The map is looked at when 8, 16,
        32, ... rows are done, as only then the designs are even.
    seed : int
        For the designs, the bootstrap and a fill that is drawn.
    batch_size : int or "auto"
        How many masks go through the network at once; "auto" measures what pays.

    References
    ----------
    Fel, Cadene, Chalvidal, Cord, Vigouroux & Serre, "Look at the variance! Efficient black-box
    explanations with Sobol-based sensitivity analysis", NeurIPS 2021, section 3.
    Jansen, "Analysis of variance designs for model output", Computer Physics Communications 117,
    1999.
    Saltelli, Annoni, Azzini, Campolongo, Ratto & Tarantola, "Variance based sensitivity analysis of
    model output", Computer Physics Communications 181, 2010: the first-order index.
    """

    cells: Annotated[int, Range(1), Help("cells of the grid along every axis")] = 8
    samples: Annotated[int, Range(2), Help("rows of each of the two designs; a power of two")] = 32
    upsample: Annotated[Upsampling, Help("how masks and map are brought to the picture's size")] = (
        "nearest"
    )
    fill: Annotated[Fill, Help("what a cell is faded into: a value, mean, blur or noise")] = 0.0
    resamples: Annotated[int, Range(2), Help("bootstrap samples for the standard error")] = 200
    tolerance: Tolerance = None
    seed: Annotated[int, Range(0), Help("for the designs and the bootstrap")] = 0
    batch_size: Annotated[
        BatchSize, Range(1), Help("masks that go through the network at once")
    ] = 16

    needs: ClassVar[frozenset[str]] = frozenset()

    def explain(self, model: Model, x: Array, targets: Sequence[Target]) -> Maps:
        """Explain the targets' scores on a batch.

        Parameters
        ----------
        model : Model
            The network.
        x : ndarray (N, H, W, C)
            The batch; of signals (N, L, C), of volumes (N, D, H, W, C).
        targets : sequence of Target
            One for each sample.

        Returns
        -------
        Maps
            With the total index of each pixel's cell as raw map (N, H, W), and as extras of that
            shape "standard_error", of the total index by bootstrap over the rows of the designs,
            and "first_order", the part that the cell has alone, which may be negative by chance.
            All are 0 where the score did not vary.  Besides, "samples" (N,), the rows that were
            used, and "history" (N, 32, 2), for `cnnviz_core.sampling.convergence`.

            The bootstrap takes the rows for independent: of large designs, which are evener than
            chance, it tells too large an error, and too small a one of a cell whose columns in the
            two designs happen to run alike, which a design of 32 rows has now and then; another
            seed tells.

        Raises
        ------
        ArrayError
            If the samples have no axis to be cut into cells.
        ParameterError
            If `samples` is no power of two, or there are more cells than the designs can have.
        """
        check_positions(x)
        grid = grid_of(x.shape[1:-1], self.cells)
        designs = low_discrepancy_pairs(self.samples, math.prod(grid), self.seed)
        first, second = (design.reshape(-1, *grid) for design in designs)
        masks = PickFreezeMasks(first, second, x.shape[1:-1], self.upsample)
        each = math.prod(grid) + 2
        design = Design(
            masks,
            grid,
            lambda scores: self._indices(scores.reshape(-1, each)),
            [2**k for k in range(3, self.samples.bit_length())] or [self.samples],
            each,
            _LEAST,
        )
        work = Work(
            self.fill, self.seed, self.batch_size, self.upsample, self.tolerance, "Sobol indices"
        )
        return sensitivity_maps(model, x, targets, design, work)

    def passes(self, model: Model, x: Array) -> int:
        """Give the forward passes for one sample; with a tolerance the most there can be."""
        return self.samples * (math.prod(grid_of(x.shape[1:-1], self.cells)) + 2) + 1

    def _indices(self, scores: Array) -> Mapping[str, Array]:
        """Estimate each cell's indices, given the scores (N, K + 2) of A, B and every A_B^(i)."""
        first, second, *mixed = scores.T - scores.mean()
        changes = np.array(mixed) - first
        variance = _variance(first)
        return {
            "value": _share((changes**2).mean(1) / 2, variance),
            "first_order": _share((second * changes).mean(1), variance),
            "standard_error": self._error(first, changes),
        }

    def _error(self, first: Array, changes: Array) -> Array:
        """Estimate the standard error of the total indices by drawing rows with replacement."""
        n = len(first)
        rows = np.random.default_rng(self.seed).integers(n, size=(self.resamples, n))
        drawn = np.array([np.bincount(row, minlength=n) for row in rows])
        parts = drawn @ (changes**2).T / (2 * n)
        totals = _share(parts, _variance(first[rows])[:, None])
        error: Array = totals.std(0, ddof=1)
        return error


def _variance(scores: Array) -> Array:
    """Estimate the variance along the last axis; exactly 0 of equal scores, whatever rounding."""
    return np.where(np.ptp(scores, -1) > 0, scores.var(-1, ddof=1), 0)


def _share(part: Array, variance: Array) -> Array:
    """Divide by a variance; nothing has a share in none."""
    return np.divide(part, variance, out=np.zeros(part.shape), where=variance > 0)
