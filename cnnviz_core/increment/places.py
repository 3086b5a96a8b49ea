"""Windows in the grids of a network's values, one for each of a batch, and how they lie."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from cnnviz_core.model import Array
from cnnviz_core.spatial import Window

__all__ = ["Cut", "Overlap", "Part", "everywhere", "part_around", "reading", "reads", "united"]


@dataclass(frozen=True, eq=False)
class Part:
    """Windows of one extent in a grid, one for each of a batch.

    Attributes
    ----------
    starts : ndarray of int (n, axes)
        Where each starts.
    extent : tuple of int
        How many positions each has along each axis.
    """

    starts: Array
    extent: tuple[int, ...]

    @property
    def stops(self) -> Array:
        """Where each ends, (n, axes)."""
        return self.starts + self.extent

    @property
    def positions(self) -> int:
        """How many positions each has."""
        return math.prod(self.extent)

    def __len__(self) -> int:
        return len(self.starts)

    def same(self, other: Part) -> bool:
        """Tell whether others are the same windows.

        Parameters
        ----------
        other : Part
            The others.

        Returns
        -------
        bool
        """
        return self.extent == other.extent and bool((self.starts == other.starts).all())


def part_around(starts: Array, stops: Array, grid: Sequence[int]) -> Part:
    """Give windows of one extent that contain given ones.

    Parameters
    ----------
    starts, stops : ndarray of int (n, axes)
        Where the given ones start and stop.  What lies beyond the ends of the grid is left out;
        they may be empty.
    grid : sequence of int
        The grid's positions along each axis.

    Returns
    -------
    Part
        Within the grid, as small as can be.
    """
    starts, stops = np.clip(starts, 0, grid), np.clip(stops, 0, grid)
    extent = np.maximum((stops - starts).max(axis=0), 1)
    return Part(np.minimum(starts, grid - extent), tuple(extent.tolist()))


def everywhere(count: int, grid: Sequence[int]) -> Part:
    """Give windows that are all of a grid.

    Parameters
    ----------
    count : int
        How many.
    grid : sequence of int
        The grid's positions along each axis.

    Returns
    -------
    Part
    """
    return Part(np.zeros((count, len(grid)), dtype=np.int64), tuple(grid))


def reading(part: Part, along: Sequence[Window], grid: Sequence[int]) -> Part:
    """Give windows around all positions of an operation that read a changed one of its input.

    Parameters
    ----------
    part : Part
        What has changed in the input.
    along : sequence of Window
        How the operation reads it, for each axis.
    grid : sequence of int
        The operation's own positions along each axis.

    Returns
    -------
    Part
    """
    stride, before, span = _numbers(along)
    first = -((span - part.starts - before) // stride)
    last = (part.stops - 1 + before) // stride
    return part_around(first, last + 1, grid)


def reads(part: Part, along: Sequence[Window]) -> Part:
    """Give the windows of an operation's input that windows of its own read.

    Parameters
    ----------
    part : Part
        Its own.
    along : sequence of Window
        How it reads its input, for each axis.

    Returns
    -------
    Part
        Perhaps beyond the ends of the input.
    """
    stride, before, span = _numbers(along)
    extent = (np.array(part.extent) - 1) * stride + span + 1
    return Part(part.starts * stride - before, tuple(extent.tolist()))


def _numbers(along: Sequence[Window]) -> tuple[Array, Array, Array]:
    """Give the strides, what comes before, and how far the last place read is from the first."""
    each = [(w.stride, w.before, (w.size - 1) * w.dilation) for w in along]
    stride, before, span = np.array(each, dtype=np.int64).T
    return stride, before, span


def united(parts: Sequence[Part], grid: Sequence[int]) -> Part:
    """Give windows that contain several.

    Parameters
    ----------
    parts : sequence of Part
        At least one, in the same grid.
    grid : sequence of int
        Its positions along each axis.

    Returns
    -------
    Part
    """
    if all(part.same(parts[0]) for part in parts[1:]):
        return parts[0]
    starts = np.min([part.starts for part in parts], axis=0)
    stops = np.max([part.stops for part in parts], axis=0)
    return part_around(starts, stops, grid)


Overlap: TypeAlias = tuple[slice | Array, tuple[slice, ...], tuple[slice, ...]]
"""Some of a batch; a box in their windows; and the box of what has changed that lies on it."""


@dataclass(frozen=True, eq=False)
class Cut:
    """Windows of a clean map with what has changed of it laid on them: how, but not with what.

    Attributes
    ----------
    grid : tuple of int
        The map's positions along each axis.
    window : Part
        The windows, perhaps beyond the ends of the map.
    changed : Part or None
        What has changed; None for nothing.
    border : float
        What lies beyond the ends.
    """

    grid: tuple[int, ...]
    window: Part
    changed: Part | None
    border: float = 0.0

    def rows(self) -> Array:
        """Say where the clean values stand.

        Returns
        -------
        ndarray of int (n * positions,)
            For every position of every window, in order, the position of the map, counted row by
            row; the number of these for a position beyond its ends.
        """
        beyond = math.prod(self.grid)
        axes = len(self.grid)
        rows = np.zeros((len(self.window), *(1 for _ in self.grid)), dtype=np.int64)
        for axis, (n, positions) in enumerate(zip(self.grid, self.window.extent, strict=True)):
            at = self.window.starts[:, axis, None] + np.arange(positions)
            row = np.where((at >= 0) & (at < n), at * math.prod(self.grid[axis + 1 :]), beyond)
            rows = rows + row.reshape(-1, *(positions if a == axis else 1 for a in range(axes)))
        return np.minimum(rows, beyond).ravel()

    def overlaps(self) -> Iterator[Overlap]:
        """Say what of the changed windows lies where on the others.

        Yields
        ------
        which : slice or ndarray of int
            Some of the batch, in which the two lie alike to each other.
        inside : tuple of slice
            Which positions of their windows, along each axis.
        of : tuple of slice
            On which lie these positions of what has changed.
        """
        if self.changed is None:
            return
        offsets = self.changed.starts - self.window.starts
        for which in _alike(offsets):
            shift = offsets[which][0]
            inside, of = [], []
            for at, wide, long in zip(shift, self.window.extent, self.changed.extent, strict=True):
                start, stop = max(int(at), 0), min(int(at) + long, wide)
                inside.append(slice(start, max(start, stop)))
                of.append(slice(start - int(at), max(start, stop) - int(at)))
            if all(along.stop > along.start for along in inside):
                yield which, tuple(inside), tuple(of)


def _alike(rows: Array) -> Iterator[slice | Array]:
    """Group the rows of an array (n, k) that are equal, as slices where that can be."""
    rows = rows - rows.min(axis=0)
    number = np.ravel_multi_index(tuple(rows.T), tuple(rows.max(axis=0) + 1))
    for one in np.unique(number):
        which = np.flatnonzero(number == one)
        step = int(which[1] - which[0]) if len(which) > 1 else 1
        even = (np.diff(which) == step).all()
        yield slice(int(which[0]), int(which[-1]) + 1, step) if even else which
