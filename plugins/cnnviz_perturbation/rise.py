"""RISE: randomised input sampling for explanation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np

from cnnviz_core.explainer import Maps, Presentation
from cnnviz_core.fills import Fill, filling
from cnnviz_core.model import Array, Model
from cnnviz_core.pace import BatchSize
from cnnviz_core.parameters import Help, Range
from cnnviz_core.perturb import check_positions, each_sample, scored_batches
from cnnviz_core.random_masks import RandomGrids
from cnnviz_core.sampling import (
    Estimate,
    ProductMean,
    RatioMean,
    Sampled,
    Tolerance,
    check_points,
    sampled,
)
from cnnviz_core.scoring import score
from cnnviz_core.targets import Target

__all__ = ["RISE"]


@dataclass(frozen=True)
class RISE:
    """Mean score of the picture under random masks that show a pixel.

    Each mask is a coarse random grid, interpolated and shifted (`cnnviz_core.random_masks`).  The
    raw map at a pixel is the mean of the scores under the masks, weighted by how much of the pixel
    each mask shows: pixels that do not matter have the mean score of all masks, which is not zero;
    those for which the network looks have more, those against which it decides have less.

    The paper divides the sum of score times mask by the masks' expected sum; the sum of the masks
    that were drawn has the same limit and leaves out the noise of how often a pixel was shown, so
    the same precision takes fewer masks.  ``normalise="expected"`` gives the paper's own formula.

    Every sample sees the same masks.  With a tolerance each sample and target stops for itself,
    after a number of masks at which all would be looked at.

    Parameters
    ----------
    samples : int
        How many masks are drawn; the paper takes 4000 for VGG-16 and 8000 for ResNet-50.
    cells : int
        Cells of a mask's grid along every axis.
    keep : float
        The probability that a cell is shown.
    fill : float, "mean", "blur", "noise" or ndarray
        What is shown where a mask hides the picture (`cnnviz_core.fills.Fill`).  The paper
        multiplies the network's input by the mask: 0 in the network's own input range.
    normalise : {"drawn", "expected"}
        Whether to divide by the sum of the masks that were drawn, or by its expectation.
    tolerance : float or None
        Stop as soon as the largest standard error of a map is at most this share of the map's
        range, and not before 100 samples; None takes all samples.
    seed : int
        For NumPy's generator.
    batch_size : int or "auto"
        How many masks go through the network at once; "auto" measures what pays.

    References
    ----------
    Petsiuk, Das & Saenko, "RISE: Randomized input sampling for explanation of black-box models",
    BMVC 2018, sections 3.1, equation 6, and 3.2.
    """

    samples: Annotated[int, Range(2), Help("how many masks are drawn, at most")] = 4000
    cells: Annotated[int, Range(1), Help("cells of a mask's grid along every axis")] = 7
    keep: Annotated[
        float, Range(0, 1, open_low=True, open_high=True), Help("probability of showing a cell")
    ] = 0.5
    fill: Annotated[
        Fill, Help("value shown where a mask hides, or mean colour, blurred picture or noise")
    ] = 0.0
    normalise: Annotated[
        Literal["drawn", "expected"],
        Help("divide by the masks that were drawn, or by their expectation as the paper does"),
    ] = "drawn"
    tolerance: Tolerance = None
    seed: Annotated[int, Range(0), Help("seed of the masks")] = 0
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
            With the raw map (N, H, W), of all axes but the last, in the unit of the score.  Extras:
            ``standard_error`` (N, H, W) of the map; ``samples`` (N,), the masks that were used;
            ``history`` (N, 32, 2), for `cnnviz_core.sampling.convergence`.

        Raises
        ------
        ArrayError
            If the samples have no axis for a mask to lie along, or a fill does not fit them.
        """
        check_positions(x)
        whole = score(model, x, targets)
        found: dict[str, Array] = {}
        for rows, sample, what in each_sample(x, "rise"):
            seen = self._sampled(model, sample, [whole.targets[row] for row in rows], what)
            for name, values in seen.named(whole.scores.dtype).items():
                empty = np.empty((len(x), *values.shape[1:]), values.dtype)
                found.setdefault(name, empty)[rows] = values
        return Maps(
            raw=found.pop("value"),
            scores=whole.scores,
            targets=whole.targets,
            presentation=Presentation(sign="relative"),
            extras=found,
        )

    def passes(self, model: Model, x: Array) -> int:
        """Give the forward passes for one sample; with a tolerance the most there can be."""
        return self.samples + 1

    def _sampled(self, model: Model, x: Array, targets: Sequence[Target], what: str) -> Sampled:
        """Estimate one sample's maps for several targets."""
        masks = RandomGrids(x.shape[:-1], self.cells, self.keep, self.samples, self.seed)
        batches = scored_batches(
            model,
            x,
            targets,
            masks,
            filling(x, self.fill, self.seed),
            batch_size=self.batch_size,
            what=what,
        )
        estimate: Estimate = RatioMean() if self.normalise == "drawn" else ProductMean(self.keep)
        return sampled(batches, estimate, check_points(self.samples), self.tolerance)
