"""HSIC attribution: how far the score depends, in whatever way, on each cell of a grid."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Final, Literal

import numpy as np

from cnnviz_core.explainer import Maps
from cnnviz_core.fills import Fill
from cnnviz_core.masks import GridMasks
from cnnviz_core.model import Array, Model
from cnnviz_core.pace import BatchSize
from cnnviz_core.parameters import Help, Range
from cnnviz_core.perturb import check_positions
from cnnviz_core.sampling import Tolerance, check_points
from cnnviz_core.targets import Target
from cnnviz_perturbation.cells import grid_of
from cnnviz_perturbation.designs import BLOCK, binary_hypercube
from cnnviz_perturbation.sensitivity import Design, Upsampling, Work, sensitivity_maps

__all__ = ["HSIC"]

_ROWS: Final = 256
"""How many rows of the kernel of the scores are held at once."""


@dataclass(frozen=True)
class HSIC:
    """Dependence of the score on a cell's presence, by the Hilbert-Schmidt criterion.

    The picture is cut into a grid of cells, and in each run a random half of them is replaced by
    the fill.  The raw map is, for each cell, the Hilbert-Schmidt independence criterion between its
    presence and the score, ``trace(K H L H) / (p - 1)**2`` over p runs (equation 5 of the paper;
    H subtracts the mean): K holds the kernel of the cell's presence, which is 3/2 where two runs
    agree and 1/2 where they do not, L the Gaussian kernel ``exp(-(y - y')**2 / (2 b**2))`` of the
    scores.  It is not normalised and, of its nature, never negative: it says that a cell matters,
    not which way, and an ignored cell shows what chance gives (the extra "chance").

    Parameters
    ----------
    cells : int
        Cells along every axis; an axis with fewer positions is cut into those.
    samples : int
        Runs p, each with a mask of its own.
    bandwidth : {"distances", "scores"}
        The width b of the kernel of the scores: the median distance of two scores, which does not
        change when something is added to all of them, or the median score, as the authors' code
        takes it.  Where it is 0, the mean distance is taken.
    upsample : {"nearest", "bilinear"}
        How masks are brought to the picture's size, and the map with them: cells with sharp edges,
        as the authors have them, or blended into each other.
    fill : float, str or ndarray
        What a cell is replaced by; see `cnnviz_core.fills.Fill`.  The authors take 0.
    tolerance : float or None
        Stop as soon as the largest standard error of a map is at most this share of the map's
        range, and not before 100 samples; None takes all samples.  What chance gives is the same
        for all cells, and not counted.
    seed : int
        For the masks and a fill that is drawn.
    batch_size : int or "auto"
        How many masks go through the network at once; "auto" measures what pays.

    References
    ----------
    Novello, Fel & Vigouroux, "Making sense of dependence: efficient black-box explanations using
    dependence measure", NeurIPS 2022, section 3.
    Gretton, Bousquet, Smola & Schölkopf, "Measuring statistical dependence with Hilbert-Schmidt
    norms", ALT 2005: the estimator.
    """

    cells: Annotated[int, Range(1), Help("cells of the grid along every axis")] = 7
    samples: Annotated[int, Range(2), Help("runs, each with a mask of its own")] = 1500
    bandwidth: Annotated[
        Literal["distances", "scores"],
        Help("width of the scores' kernel: their median distance, or the median score"),
    ] = "distances"
    upsample: Annotated[Upsampling, Help("how masks and map are brought to the picture's size")] = (
        "nearest"
    )
    fill: Annotated[Fill, Help("what a cell is replaced by: a value, mean, blur or noise")] = 0.0
    tolerance: Tolerance = None
    seed: Annotated[int, Range(0), Help("for the masks")] = 0
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
            With the criterion of each pixel's cell as raw map (N, H, W), and as extras of that
            shape "standard_error", by the infinitesimal jackknife over the runs for the given
            bandwidth, and "chance", what a cell that does not matter shows on average: the mean of
            the criterion over all orders in which the scores could have come.  All are 0 where the
            score did not vary.  Besides, "samples" (N,), the runs that were used, and "history"
            (N, 32, 2), for `cnnviz_core.sampling.convergence`.

        Raises
        ------
        ArrayError
            If the samples have no axis to be cut into cells.
        """
        check_positions(x)
        grid = grid_of(x.shape[1:-1], self.cells)
        kept = binary_hypercube(self.samples, math.prod(grid), self.seed)
        masks = GridMasks(kept.reshape(-1, *grid), x.shape[1:-1], self.upsample)
        design = Design(
            masks,
            grid,
            lambda scores: self._dependence(kept[: len(scores)], scores),
            check_points(self.samples, first=BLOCK, step=BLOCK),
        )
        work = Work(self.fill, self.seed, self.batch_size, self.upsample, self.tolerance, "HSIC")
        return sensitivity_maps(model, x, targets, design, work)

    def passes(self, model: Model, x: Array) -> int:
        """Give the forward passes for one sample; with a tolerance the most there can be."""
        return self.samples + 1

    def _dependence(self, kept: Array, scores: Array) -> Mapping[str, Array]:
        """Estimate how far the scores (p,) depend on which cells were kept (p, K).

        For two runs whose presences z are 0 or 1, the kernel of a cell is
        ``3/2 - (z - z')**2``, of which the centring leaves 2 z z': so no kernel of a cell is made,
        and that of the scores a few rows at a time.
        """
        p = len(scores)
        centred = kept - kept.mean(0)
        product, total = _kernel_product(scores, self._width(scores), centred)
        terms = 2 * centred * (product - product.mean(0))
        spread = 2 * (centred**2).sum(0) * (p - total / p)
        return {
            "value": terms.sum(0) / (p - 1) ** 2,
            "standard_error": 2 * np.sqrt(p * terms.var(0)) / (p - 1) ** 2,
            "chance": spread / (p - 1) ** 3,
        }

    def _width(self, scores: Array) -> float:
        """Give the width of the kernel of the scores; any will do where they do not vary."""
        from scipy.spatial.distance import pdist

        distances = pdist(scores[:, None])
        mean = distances.mean()
        by_score = self.bandwidth == "scores"
        middle = np.median(scores) if by_score else np.median(distances, overwrite_input=True)
        return float(abs(middle) or mean or 1)


def _kernel_product(scores: Array, width: float, values: Array) -> tuple[Array, float]:
    """Multiply the Gaussian kernel of the scores with values (p, K), and sum the kernel up."""
    product = np.empty(values.shape)
    total = 0.0
    for start in range(0, len(scores), _ROWS):
        rows = slice(start, start + _ROWS)
        kernel = np.exp(-(((scores[rows, None] - scores) / width) ** 2) / 2)
        product[rows] = kernel @ values
        total += float(kernel.sum())
    return product, total
