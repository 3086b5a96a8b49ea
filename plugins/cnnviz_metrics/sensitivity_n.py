"""Sensitivity-n: do attributions sum up to what the removal of n cells costs, for many n."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Final

import numpy as np

from cnnviz_core.exhibits import Curves, Exhibit, Line
from cnnviz_core.fills import Fill
from cnnviz_core.metric import Explained
from cnnviz_core.model import Array, Model
from cnnviz_core.parameters import Help, Range
from cnnviz_metrics._judging import ScoreOf
from cnnviz_metrics._removing import sums_and_drops
from cnnviz_metrics._rows import Resampled, counted, mean, measured
from cnnviz_metrics.subsets import (
    Attributed,
    correlation,
    subsets_of,
)

__all__ = ["SensitivityN", "subset_sizes"]


def subset_sizes(cells: int, sizes: int = 8) -> Array:
    """Give how many cells subsets have: from one to four fifths of all, by equal factors.

    Parameters
    ----------
    cells : int
        How many there are.
    sizes : int
        How many numbers to give.

    Returns
    -------
    ndarray (sizes,) of int64
        Ascending; some are the same where there are few cells.

    Examples
    --------
    >>> subset_sizes(81, 5).tolist()
    [1, 3, 8, 23, 65]
    """
    return np.round(np.geomspace(1, max(1.0, 0.8 * cells), sizes)).astype(np.int64)


@dataclass(frozen=True)
class SensitivityN(Resampled):
    """Correlation of the sum of the attributions of n cells with what their removal costs.

    The picture is cut into a grid of cells.  For each of several n random subsets of n cells are
    drawn; for each subset the attributions of its pixels are summed up, and the score drops by
    something when the fill is shown in its place.  The measure for n is Pearson's correlation of
    the two, 1 at best; 0 where the attributions, or the drops, are the same for all subsets.  All
    pictures have the same subsets.  A map that is not finite is left out.

    Parameters
    ----------
    grid : int
        Cells along every axis.
    sizes : int
        For how many n, from one cell to four fifths of all, by equal factors.
    samples : int
        How many subsets there are for each n.
    fill : float, "mean", "blur", "noise", "inpaint" or ndarray
        What is shown in their place; see `cnnviz_core.fills.Fill`.
    attributed : {"signed", "shown"}
        What is summed up: the method's own result with its sign, all channels together, or the map
        as its authors show it.
    score : {"target", "probability"}
        Whether the explained score itself drops, or the probability of the explained class.

    References
    ----------
    Ancona et al., "Towards better understanding of gradient-based attribution methods for deep
    neural networks", ICLR 2018: sensitivity-n.
    """

    grid: Annotated[int, Range(2), Help("cells along every axis")] = 9
    sizes: Annotated[int, Range(1), Help("for how many numbers n of cells")] = 8
    samples: Annotated[int, Range(2), Help("how many subsets there are for each n")] = 50
    fill: Annotated[
        Fill,
        Help(
            "shown in their place: a value, the mean colour, the blurred picture, noise, what is "
            "around continued, or an array"
        ),
    ] = 0.0
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
        mapping of str to ndarray
            ``correlation`` (N, sizes), in [-1, 1], and ``cells`` (N, sizes), the n.
        """
        grid = (self.grid,) * len(explained.size)
        cells = self.grid ** len(grid)
        rng = np.random.default_rng(explained.seed)
        ns = subset_sizes(cells, self.sizes)
        removed = np.concatenate([subsets_of(cells, n, self.samples, rng) for n in ns])
        compared = sums_and_drops(
            explained,
            removed,
            grid,
            attributed=self.attributed,
            fill=self.fill,
            score=self.score,
            what="sensitivity-n",
        )
        records = {k: np.full((len(explained), self.sizes), np.nan) for k in _CORRELATED}
        for row, sums, drops in compared:
            each = zip(*(values.reshape(self.sizes, -1) for values in (sums, drops)), strict=True)
            records["correlation"][row] = [correlation(a, b, "pearson") for a, b in each]
            records["cells"][row] = ns
        return records

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
            ``correlation``, the mean over the pictures and all n; ``one_cell`` and ``most_cells``,
            those for the least n and for the largest.  All in [-1, 1].
        """
        counts, found, _ = counted(counts, *(records[k] for k in _CORRELATED))
        means = mean(counts, found)
        return {
            "correlation": means.mean(axis=1),
            "one_cell": means[:, 0],
            "most_cells": means[:, -1],
        }

    def curves(self, records: Mapping[str, Array]) -> tuple[Exhibit, ...]:
        """Draw the correlation over the number of cells that are removed."""
        found, cells = measured(*(records[k] for k in _CORRELATED))
        if not len(found):
            return ()
        line = Line("mean and standard deviation", found.mean(axis=0), found.std(axis=0))
        return (
            Curves(
                cells[0],
                (line,),
                title="Sensitivity-n",
                x_title="cells removed",
                y_title="correlation of attributions and drops",
                y_range=(-1, 1),
            ),
        )

    def passes(self, model: Model, x: Array) -> int:
        """Give the forward passes for one map."""
        return self.sizes * self.samples


_CORRELATED: Final = ("correlation", "cells")
