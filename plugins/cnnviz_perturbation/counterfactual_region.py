"""The smallest region without which the answer is another one."""

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
from cnnviz_perturbation.answers import Answer, Criterion, Region, one_fewer, pruned, region_maps
from cnnviz_perturbation.cells import grid_of

__all__ = ["CounterfactualRegion"]


@dataclass(frozen=True, eq=False)
class CounterfactualRegion:
    """The cells without which the answer changes, when the fill is shown in their place.

    The picture is cut into cells by a regular grid.  The cell whose removal leaves the lowest value
    is removed, and then the next, until the answer has changed.  Then cells are put back that were
    not needed for that, until without any single one of those that are left the answer would not
    have changed.

    The raw map is 0 outside the region; of its m cells the one that was removed as the j-th of
    them, from 0, has ``1 - j / m``.  Where the picture scores less than the fill alone, the region
    is what keeps the score low, and the map is negative.

    Parameters
    ----------
    criterion : {"score", "class"}
        When the answer has changed: when the target's score keeps less than a share of what the
        picture makes of it, that is of the whole picture's score less that of the fill alone; or
        when another class scores more than the target's.
    threshold : float
        The share below which the answer is another one, for the criterion "score".
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
    A region of which every single cell is needed need not be the smallest of all; it is where the
    score is a sum of what each cell adds, none of which is negative.  A cell that the network
    ignores is never in it.

    References
    ----------
    Dabkowski & Gal, "Real time image saliency for black box classifiers", NeurIPS 2017, section 2:
    the smallest destroying region.
    Fong & Vedaldi, "Interpretable explanations of black boxes by meaningful perturbation", ICCV
    2017: the deletion game.
    """

    criterion: Annotated[
        Criterion,
        Help("what must change: what the picture adds to the score, or the class"),
    ] = "score"
    threshold: Annotated[
        float, Range(0, 1, open_low=True), Help("share of what the picture adds to fall below")
    ] = 0.5
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
            "cells" (N,), how many they are, "score" (N,), the target's score without the region,
            and "found" (N,) of bool: False where the whole picture does not give the answer to
            begin with (it scores what the fill alone scores, or is taken for another class), and
            where nothing that the search removes changes it.  The map is 0 there, and the region
            empty.

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
            _needed,
            criterion=self.criterion,
            threshold=self.threshold,
            cells=self.cells,
            fill=self.fill,
            seed=self.seed,
            batch_size=self.batch_size,
            what="counterfactual region",
        )

    def passes(self, model: Model, x: Array) -> int:
        """Give the most forward passes that one sample can take; far fewer are usual."""
        n = int(np.prod(grid_of(x.shape[1:-1], self.cells)))
        return 3 + n * (n + 1) + n.bit_length()


def _needed(answer: Answer, number: int) -> Region:
    """Remove cells until the answer changes, and put those back that were not needed for that."""
    removed = _removed(answer, number) if answer.sign else []
    members = np.zeros(number, dtype=bool)
    members[removed] = True
    _, needed = pruned(
        lambda gone: -answer.value(~gone), lambda values: values > -answer.level, members
    )
    left = [cell for cell in removed if needed[cell]]
    order = np.zeros(number)
    order[left] = 1 - np.arange(len(left)) / max(len(left), 1)
    return Region(order, needed, ~needed, bool(left))


def _removed(answer: Answer, number: int) -> list[int]:
    """Remove cell after cell, the one that leaves the lowest value, until the answer changes."""
    rest, removed = np.ones(number, dtype=bool), list[int]()
    while rest.any():
        values = answer.value(one_fewer(rest))
        lowest = int(values.argmin())
        removed.append(int(np.flatnonzero(rest)[lowest]))
        rest[removed[-1]] = False
        if values[lowest] < answer.level:
            return removed
    return []
