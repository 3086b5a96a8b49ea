"""MuFidelity: do attributions sum up to what the removal of random subsets costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, TypeAlias

import numpy as np

from cnnviz_core.fills import Fill
from cnnviz_core.metric import Explained
from cnnviz_core.model import Array, Model
from cnnviz_core.parameters import Help, Range
from cnnviz_metrics._judging import ScoreOf
from cnnviz_metrics._removing import sums_and_drops
from cnnviz_metrics._rows import Resampled, counted, mean
from cnnviz_metrics.subsets import (
    Attributed,
    Correlation,
    correlation,
    subsets_of,
)

__all__ = ["MuFidelity", "Subsets"]

Subsets: TypeAlias = Literal["any-size", "one-size"]
"""Whether subsets have each cell with a probability, or as many cells each."""


@dataclass(frozen=True)
class MuFidelity(Resampled):
    """Correlation of what random subsets of a picture are given with what their removal costs.

    The picture is cut into a grid of cells, of which many random subsets are drawn.  For each
    subset the attributions of its pixels are summed up, and the score drops by something when the
    fill is shown in its place.  The measure is the correlation of the two over the subsets, 1 at
    best; 0 where the attributions, or the drops, are the same for all subsets.  Where subsets
    differ in size the larger ones have larger sums and cost more, so that a map that is the same
    everywhere correlates too.  All pictures have the same subsets.  A map that is not finite is
    left out.

    Parameters
    ----------
    grid : int
        Cells along every axis.
    share : float
        The probability that a subset has a cell, or the share of cells that it has.
    samples : int
        How many subsets there are.
    subsets : {"any-size", "one-size"}
        Whether a subset has each cell with that probability, as xplique has it, or all have the
        same number of cells, as the paper has it.
    fill : float, "mean", "blur", "noise", "inpaint" or ndarray
        What is shown in their place; see `cnnviz_core.fills.Fill`.
    correlation : {"spearman", "pearson"}
        Of ranks, as xplique has it, or of the values, as the paper has it.
    attributed : {"signed", "shown"}
        What is summed up: the method's own result with its sign, all channels together, or the map
        as its authors show it.
    score : {"target", "probability"}
        Whether the explained score itself drops, or the probability of the explained class.

    References
    ----------
    Bhatt, Weller & Moura, "Evaluating and aggregating feature-based model explanations", IJCAI
    2020, definition 3.  Fel et al., "Xplique: a deep learning explainability toolbox", 2022, for
    the grid, the ranks and subsets of any size.
    """

    grid: Annotated[int, Range(1), Help("cells along every axis")] = 9
    share: Annotated[
        float,
        Range(0, 1, open_low=True, open_high=True),
        Help("share of the cells that a subset has"),
    ] = 0.2
    samples: Annotated[int, Range(2), Help("how many subsets there are")] = 200
    subsets: Annotated[Subsets, Help("have each cell by chance, or all the same number")] = (
        "any-size"
    )
    fill: Annotated[
        Fill,
        Help(
            "shown in their place: a value, the mean colour, the blurred picture, noise, what is "
            "around continued, or an array"
        ),
    ] = 0.0
    correlation: Annotated[Correlation, Help("of ranks, or of the values themselves")] = "spearman"
    attributed: Annotated[
        Attributed, Help("what is summed up: the method's signed result, or the map as shown")
    ] = "signed"
    score: ScoreOf = "target"

    needs: ClassVar[frozenset[str]] = frozenset()

    def measure(self, explained: Explained) -> Mapping[str, Array]:
        """Measure the maps of a batch.

        Parameters
        ----------
        explained : Explained
            The batch.

        Returns
        -------
        mapping of str to ndarray (N,)
            ``correlation``, in [-1, 1].
        """
        grid = (self.grid,) * len(explained.size)
        removed = self._drawn(self.grid ** len(grid), explained.seed)
        compared = sums_and_drops(
            explained,
            removed,
            grid,
            attributed=self.attributed,
            fill=self.fill,
            score=self.score,
            what="MuFidelity",
        )
        found = np.full(len(explained), np.nan)
        for row, sums, drops in compared:
            found[row] = correlation(sums, drops, self.correlation)
        return {"correlation": found}

    def _drawn(self, cells: int, seed: int) -> Array:
        """Draw the subsets (samples, cells)."""
        rng = np.random.default_rng(seed)
        if self.subsets == "one-size":
            return subsets_of(cells, max(1, round(self.share * cells)), self.samples, rng)
        return rng.random((self.samples, cells)) <= self.share

    def resample(self, records: Mapping[str, Array], counts: Array) -> Mapping[str, Array]:
        """Sum up data sets in which pictures stand several times; see `resampled`.

        Parameters
        ----------
        records : mapping of str to ndarray
            Those of any number of pictures.
        counts : ndarray (R, N)
            How often each picture stands in each data set.

        Returns
        -------
        mapping of str to ndarray (R,)
            The mean correlation, ``spearman`` or ``pearson``, in [-1, 1].
        """
        counts, found = counted(counts, records["correlation"])
        return {self.correlation: mean(counts, found)}

    def passes(self, model: Model, x: Array) -> int:
        """Give the forward passes for one map."""
        return self.samples
