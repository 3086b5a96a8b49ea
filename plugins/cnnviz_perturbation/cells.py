"""Cells: a sample cut by a regular grid, and its scores with only some of the cells kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from cnnviz_core.fills import Fill, Filling, filling
from cnnviz_core.masks import SegmentMasks
from cnnviz_core.model import Array, Model
from cnnviz_core.pace import BatchSize
from cnnviz_core.perturb import check_positions, each_sample, score_masked
from cnnviz_core.targets import Target

__all__ = ["CellScores", "cell_numbers", "each_scored", "grid_of"]


def grid_of(size: tuple[int, ...], cells: int) -> tuple[int, ...]:
    """Tell how many cells there are along each axis.

    Parameters
    ----------
    size : tuple of int
        A sample's positions along each axis.
    cells : int
        How many cells are wanted along each; an axis with fewer positions has as many as those.

    Returns
    -------
    tuple of int
    """
    return tuple(min(cells, extent) for extent in size)


def cell_numbers(size: tuple[int, ...], cells: int) -> Array:
    """Number the cells of a regular grid, row by row.

    Parameters
    ----------
    size, cells
        As for `grid_of`.

    Returns
    -------
    ndarray of int (*size)
        Each position's cell, from 0.  Cells differ by at most one position along each axis.
    """
    grid = grid_of(size, cells)
    along = [np.arange(extent) * n // extent for extent, n in zip(size, grid, strict=True)]
    numbers: Array = np.arange(np.prod(grid)).reshape(grid)[np.ix_(*along)]
    return numbers


class CellScores:
    """A sample's scores as a function of which of its cells are kept.

    The fill is shown in the place of the others.  Each subset goes through the network once, for
    whichever target and however often it is asked about.

    Parameters
    ----------
    model : Model
        The network.
    x : ndarray (*size, C)
        One sample, in the network's own value range.
    targets : sequence of Target
        What is scored, T targets about one node; resolved.
    cells : ndarray of int (*size)
        Each position's cell, from 0.
    fill : Filling
        What is shown in the place of the sample.
    batch_size : int or "auto"
        How many subsets go through the network at once; "auto" measures what pays.
    what : str
        What to call the work in the progress.
    """

    def __init__(
        self,
        model: Model,
        x: Array,
        targets: Sequence[Target],
        cells: Array,
        fill: Filling,
        *,
        batch_size: BatchSize,
        what: str,
    ) -> None:
        self._model, self._x, self._targets = model, x, targets
        self._fill, self._batch_size, self._what = fill, batch_size, what
        self._known: dict[bytes, Array] = {}
        self.cells = cells

    @property
    def number(self) -> int:
        """How many cells there are."""
        return int(self.cells.max()) + 1

    def __call__(self, kept: Array) -> Array:
        """Score the sample with subsets of its cells.

        Parameters
        ----------
        kept : ndarray of bool (M, K)
            For each subset, which of the K cells are kept.

        Returns
        -------
        ndarray of float64 (M, T)
        """
        keys = [packed.tobytes() for packed in np.packbits(kept, axis=1)]
        new = {key: row for key, row in zip(keys, kept, strict=True) if key not in self._known}
        if new:
            scores = score_masked(
                self._model,
                self._x,
                self._targets,
                SegmentMasks(self.cells, np.stack(list(new.values()))),
                self._fill,
                batch_size=self._batch_size,
                what=self._what,
            )
            self._known.update(zip(new, scores.T.astype(np.float64), strict=True))
        return np.stack([self._known[key] for key in keys])

    def of(self, column: int) -> Callable[[Array], Array]:
        """Give the scores by one of the targets, as a function of the kept cells alone."""

        def one(kept: Array) -> Array:
            return self(kept)[:, column]

        return one

    def ends(self) -> Array:
        """Score the sample with none of its cells, and with all: (2, T)."""
        return self(np.stack([np.zeros(self.number, bool), np.ones(self.number, bool)]))


def each_scored(
    model: Model,
    x: Array,
    targets: Sequence[Target],
    *,
    cells: int,
    fill: Fill,
    seed: int,
    batch_size: BatchSize,
    what: str,
) -> Iterator[tuple[list[int], CellScores]]:
    """Give the distinct samples of a batch, as functions of which cells are kept.

    Parameters
    ----------
    model : Model
        The network.
    x : ndarray (N, *size, C)
        The batch.
    targets : sequence of Target
        One or more for each row, all about one node and resolved; the k-th ones of all rows before
        the next ones.
    cells : int
        How many cells there are along each axis.
    fill : float, str or ndarray
        What is shown in the place of the other cells; see `cnnviz_core.fills.Fill`.
    seed : int
        For a fill of noise.
    batch_size : int or "auto"
        How many subsets go through the network at once; "auto" measures what pays.
    what : str
        What to call the work in the progress.

    Yields
    ------
    rows : list of int
        The rows of the batch that hold the sample.
    scores : CellScores
        By the targets of these rows, in their order.

    Raises
    ------
    ArrayError
        If the samples have no axis to cut, or a fill does not broadcast to them.
    """
    check_positions(x)
    numbers = cell_numbers(x.shape[1:-1], cells)
    for rows, sample, doing in each_sample(x, what):
        yield (
            rows,
            CellScores(
                model,
                sample,
                [targets[k + row] for k in range(0, len(targets), len(x)) for row in rows],
                numbers,
                filling(sample, fill, seed),
                batch_size=batch_size,
                what=doing,
            ),
        )
