"""The smallest region that is enough."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from cnnviz_core.explainer import Maps
from cnnviz_core.fills import Fill
from cnnviz_core.model import Array, Model
from cnnviz_core.pace import BatchSize
from cnnviz_core.parameters import Help, Range
from cnnviz_core.targets import Target
from cnnviz_perturbation.answers import Answer, Criterion, Region, pruned, region_maps
from cnnviz_perturbation.cells import grid_of

__all__ = ["MinimalSufficientRegion"]


@dataclass(frozen=True, eq=False)
class MinimalSufficientRegion:
    """The cells that alone keep the answer, when the fill is shown everywhere else.

    The picture is cut into cells by a regular grid.  Cells are removed, those that matter least
    first, while the answer stays: each round asks what the removal of each cell alone would do, and
    removes those together that leave the largest values, fewer where they cannot go together.  It
    ends where no single cell can be removed any more.

    The raw map is 1 in the region that is left.  Elsewhere it is the order of removal, below 1/2:
    of m cells that were removed the j-th, from 0, has ``j / 2m``, so the later, the larger.  Where
    the picture scores less than the fill alone, the region is what keeps the score low, and the map
    is negative.

    Parameters
    ----------
    criterion : {"score", "class"}
        When the answer stays: while the target's score keeps a share of what the picture makes of
        it, that is of the whole picture's score less that of the fill alone; or while no other
        class scores more than the target's.
    threshold : float
        The share that must be kept, for the criterion "score".
    cells : int
        Cells along each axis.
    fill : float, "mean", "blur", "noise" or ndarray
        What is shown in the place of cells that are removed: a value in the network's own input
        range, the sample's mean colour, the sample blurred, noise of its mean and spread, or an
        array that broadcasts to a sample.
    seed : int
        For a fill of noise.
    batch_size : int or "auto"
        How many subsets of the cells go through the network at once; "auto" measures what pays.

    Notes
    -----
    A region from which no single cell can be removed need not be the smallest of all; it is where
    the score is a sum of what each cell adds, none of which is negative.  A cell that the network
    ignores is never in it.  A picture may hold several regions that are each enough, of which one
    is shown.

    References
    ----------
    Carter et al., "What made you do this? Understanding black-box decisions with sufficient input
    subsets", AISTATS 2019, which removes one at a time.
    Dabkowski & Gal, "Real time image saliency for black box classifiers", NeurIPS 2017, section 2:
    the smallest sufficient region.
    """

    criterion: Annotated[
        Criterion,
        Help("what must stay: a share of what the picture adds, or the class"),
    ] = "score"
    threshold: Annotated[
        float, Range(0, 1, open_low=True), Help("share of what the picture adds that must stay")
    ] = 0.8
    cells: Annotated[int, Range(1), Help("cells along each axis")] = 8
    fill: Annotated[Fill, Help("what is shown in the place of cells that are removed")] = "mean"
    seed: Annotated[int, Range(0), Help("for a fill of noise")] = 0
    batch_size: Annotated[
        BatchSize, Range(1), Help("subsets that go through the network at once")
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
            With the raw map (N, H, W), in [-1, 1], and the extras "region" (N, H, W) of bool,
            "cells" (N,), how many they are, "score" (N,), the target's score on the region alone,
            and "found" (N,) of bool: False where the whole picture does not give the answer, that
            is, scores what the fill alone scores, or is taken for another class.  The map is 0
            there, as it is where the fill alone gives the answer.

        Raises
        ------
        ArrayError
            If the samples have no axis to cut, or a fill that is an array does not fit them.
        TargetError
            If the criterion is "class", and a target is not about one.
        """
        return region_maps(
            model,
            x,
            targets,
            _least,
            criterion=self.criterion,
            threshold=self.threshold,
            cells=self.cells,
            fill=self.fill,
            seed=self.seed,
            batch_size=self.batch_size,
            what="minimal sufficient region",
        )

    def passes(self, model: Model, x: Array) -> int:
        """Give the most forward passes that one sample can take; far fewer are usual."""
        n = int(np.prod(grid_of(x.shape[1:-1], self.cells)))
        return 3 + n * (n + 1) // 2 + n.bit_length()


def _least(answer: Answer, number: int) -> Region:
    """Remove cells while the answer stays; one that the fill alone gives needs no cell."""
    none = np.zeros(number, dtype=bool)

    def stays(values: Array) -> Array:
        return values >= answer.level

    if not answer.sign or stays(answer.value(none[None]))[0]:
        return Region(np.zeros(number), none, none, bool(answer.sign))
    removed, rest = pruned(answer.value, stays, ~none)
    order = np.ones(number)
    order[removed] = np.arange(len(removed)) / (2 * max(len(removed), 1))
    return Region(order, rest, rest, True)
