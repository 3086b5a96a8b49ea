"""The boxes around the contours of a map, at many levels at once.

From every pixel one climbs from neighbour to neighbour to a peak, and what leads to the same peak
is in one component of all that lies above a level, wherever it is above it.  So the components at
every level follow from the peaks alone, and from how high the saddles between them are; nothing is
labelled level by level.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np

from cnnviz_core.errors import ArrayError
from cnnviz_core.model import Array

__all__ = ["contour_boxes", "largest_contour_boxes"]

_EDGES: Final = ((0, 1), (1, 0))
_EDGES_AND_CORNERS: Final = (*_EDGES, (1, 1), (1, -1))

_OUTWARDS: Final = np.array([-1, -1, 1, 1])

Saddle: TypeAlias = tuple[int, int, int]
"""Two peaks, and the height of the highest way from one to the other."""


def contour_boxes(image: Array, levels: Array) -> tuple[Array, Array, Array]:
    """Find the boxes around all contours of what lies above each of several levels.

    Contours are those that OpenCV's ``findContours`` follows: one around each component, whose
    pixels may touch by their corners, and one around each hole, along the pixels that border on it.

    Parameters
    ----------
    image : ndarray (h, w) of int
        The map, in whole numbers.
    levels : ndarray (K,) of int
        The levels, ascending; a pixel is in the foreground of those that it exceeds.

    Returns
    -------
    boxes : ndarray (n, 4) of int64
        (x0, y0, x1, y1) in pixels, half-open; in no order.
    start, stop : ndarray (n,) of int64
        At which levels, counted from 0, each stands: from `start` up to but without `stop`.

    Raises
    ------
    ArrayError
        If the image is not (h, w) of whole numbers, or the levels do not ascend.

    Examples
    --------
    >>> import numpy as np
    >>> boxes, start, stop = contour_boxes(np.array([[9, 0, 7, 8]]), np.array([0, 8]))
    >>> sorted(zip(boxes.tolist(), start.tolist(), stop.tolist()))
    [([0, 0, 1, 1], 0, 2), ([2, 0, 4, 1], 0, 1)]
    """
    ranks, count = _ranks(image, levels)
    around, start, stop = _runs(_extents(ranks, _terrain(ranks, _EDGES_AND_CORNERS), count))
    below = _below(ranks, count)
    holes, highest, lowest = _runs(_extents(below, _terrain(below, _EDGES), count))
    inner = (holes[:, :2] > 0).all(axis=1)  # The others reach the frame.
    # Less the frame's pixel, and one of the component, along which the hole's contour runs.
    boxes = np.concatenate([around, holes[inner] - (2, 2, 0, 0)])
    start = np.concatenate([start, count - lowest[inner]])
    stop = np.concatenate([stop, count - highest[inner]])
    return boxes, start, stop


def largest_contour_boxes(image: Array, levels: Array) -> Array:
    """Find the box around the largest contour of what lies above each of several levels.

    The largest is the one whose polygon, drawn through the centres of its pixels, has the largest
    area, as OpenCV's ``contourArea`` gives it: a line of pixels has none.  Of several equally large
    ones it is that whose first pixel, row by row, comes last.

    Parameters
    ----------
    image : ndarray (h, w) of int
        The map, in whole numbers.
    levels : ndarray (K,) of int
        The levels, ascending; a pixel is in the foreground of those that it exceeds.

    Returns
    -------
    ndarray (K, 4) of int64
        (x0, y0, x1, y1) in pixels, half-open; zeros where no pixel lies above the level.

    Raises
    ------
    ArrayError
        If the image is not (h, w) of whole numbers, or the levels do not ascend.

    Examples
    --------
    >>> import numpy as np
    >>> largest_contour_boxes(np.array([[9, 0, 7, 8]]), np.array([0, 7, 9])).tolist()
    [[2, 0, 4, 1], [3, 0, 4, 1], [0, 0, 0, 0]]
    """
    # A component has the same outer contour with its holes filled; no contour within is as large.
    ranks = _filled(*_ranks(image, levels))
    count = len(levels)
    terrain = _terrain(ranks, _EDGES_AND_CORNERS)
    areas = _areas(ranks, terrain, count).astype(np.int64)
    firsts = _firsts(ranks, terrain, count)
    # Of several, the one whose first pixel is the nearest to the last.
    best = np.where(firsts < 0, -1, (areas + 1) * ranks.size - firsts).argmax(axis=0)
    extents = _extents(ranks, terrain, count)[best, :, np.arange(count)]
    return np.where(extents[:, 2:3] > 0, extents * _OUTWARDS, 0)


def _ranks(image: Array, levels: Array) -> tuple[Array, int]:
    """Give the number of levels that each pixel exceeds, and the number of levels."""
    image, levels = np.asarray(image), np.asarray(levels)
    if image.ndim != 2 or not image.size or image.dtype.kind not in "iub":
        raise ArrayError(
            f"the image has the shape {image.shape} and the type {image.dtype}",
            "(h, w) of whole numbers",
            "scale the map to 0 to 255 and convert it to uint8, one map at a time",
        )
    if levels.ndim != 1 or not levels.size or (np.diff(levels) < 0).any():
        raise ArrayError(
            f"the levels have the shape {levels.shape}, or do not ascend",
            "(K,) ascending numbers, one at least",
            "sort them",
        )
    return np.searchsorted(levels, image, side="left"), len(levels)


def _below(ranks: Array, count: int) -> Array:
    """Turn an image upside down, and put a frame around it that is higher than all."""
    return count - np.pad(ranks, 1)


@dataclass(frozen=True, eq=False)
class _Terrain:
    """The peaks of an image, and how they hang together.

    Attributes
    ----------
    peak : ndarray (h, w) of int
        The number of the peak to which each pixel leads.
    peaks : int
        How many there are.
    saddles : list of Saddle
        A forest that joins the peaks by the highest ways, the highest saddle first.
    """

    peak: Array
    peaks: int
    saddles: list[Saddle]

    def merges(self) -> Iterator[tuple[int, int, int, dict[int, list[int]]]]:
        """Join the peaks from the highest saddle down.

        Yields
        ------
        kept, gone : int
            The components that become one, and which of the two names it has.
        height : int
            Of the saddle: they are one at the levels counted from 0 up to but without it.
        members : dict from int to list of int
            The peaks of each component, before.
        """
        members = {peak: [peak] for peak in range(self.peaks)}
        home = list(range(self.peaks))
        for a, b, height in self.saddles:
            gone, kept = sorted((home[a], home[b]), key=lambda name: len(members[name]))
            yield kept, gone, height, members
            for peak in members[gone]:
                home[peak] = kept
            members[kept] += members.pop(gone)


def _terrain(ranks: Array, steps: tuple[tuple[int, int], ...]) -> _Terrain:
    """Find the peaks of an image (h, w) and their saddles, going by steps and their opposites.

    Of equals the later pixel is the higher one, so that each pixel leads to one peak.
    """
    order = ranks * ranks.size + np.arange(ranks.size).reshape(ranks.shape)
    highest = order.copy()
    for step in steps:
        here, there = _pairs(step)
        np.maximum(highest[here], order[there], out=highest[here])
        np.maximum(highest[there], order[here], out=highest[there])
    towards = highest.ravel() % ranks.size
    while not np.array_equal(further := towards[towards], towards):
        towards = further
    tops = towards == np.arange(ranks.size)
    peak = (np.cumsum(tops) - 1)[towards].reshape(ranks.shape)
    peaks = int(np.count_nonzero(tops))
    return _Terrain(peak, peaks, _saddles(ranks, peak, peaks, steps))


def _pairs(step: tuple[int, int]) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Give what of an image lies one step before, and after, another of its pixels."""
    down, right = step
    columns = slice(None, -1), slice(1, None)
    if right <= 0:
        columns = (slice(1, None), slice(None, -1)) if right else (slice(None), slice(None))
    rows = (slice(None, -1), slice(1, None)) if down else (slice(None), slice(None))
    return (rows[0], columns[0]), (rows[1], columns[1])


def _saddles(
    ranks: Array, peak: Array, peaks: int, steps: tuple[tuple[int, int], ...]
) -> list[Saddle]:
    """Find the highest saddles that join the peaks; what lies above no level joins nothing."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import minimum_spanning_tree

    scale = int(ranks.max()) + 1
    found = []
    for step in steps:
        here, there = _pairs(step)
        a, b = peak[here], peak[there]
        height = np.minimum(ranks[here], ranks[there])
        crossing = (a != b) & (height > 0)
        a, b, height = a[crossing], b[crossing], height[crossing]
        found.append((np.minimum(a, b) * peaks + np.maximum(a, b)) * scale + height)
    ways = np.sort(np.concatenate(found))
    if not len(ways):
        return []
    between, heights = np.divmod(ways, scale)
    highest = np.append(between[1:] != between[:-1], True)
    depths, between = scale - heights[highest], between[highest]
    graph = coo_array((depths, np.divmod(between, peaks)), shape=(peaks, peaks))
    forest = minimum_spanning_tree(graph.tocsr()).tocoo()
    order = np.argsort(forest.data, kind="stable")
    heights = scale - forest.data[order].astype(np.int64)
    a, b = (ends[order].tolist() for ends in (forest.row, forest.col))
    return list(zip(a, b, heights.tolist(), strict=True))


def _tabulate(
    terrain: _Terrain, count: int, join: Any, peak: Array, height: Array, values: Array
) -> Array:
    """Join what the pixels of each component have to say, at each level.

    Parameters
    ----------
    terrain : _Terrain
        Of P peaks.
    count : int
        The number of levels.
    join : ufunc
        ``np.maximum`` or ``np.add``.
    peak, height : ndarray (n,)
        To which peak a value belongs, and how many levels it counts for; none for 0.
    values : ndarray (A, n)
        The values.

    Returns
    -------
    ndarray (P, A, count)
        Of the values' type.  A component stands in the row of one of its peaks; the rows of the
        others hold what makes no difference: 0 for sums, the least number for maxima.
    """
    nothing = 0 if join is np.add else np.iinfo(values.dtype).min
    table = np.full((terrain.peaks, len(values), count), nothing, values.dtype)
    seen = height > 0
    cells = (peak[seen] * len(values) + np.arange(len(values))[:, None]) * count + height[seen] - 1
    join.at(table.reshape(-1), cells.ravel(), values[:, seen].ravel())
    downwards = table[..., ::-1]
    join.accumulate(downwards, axis=-1, dtype=table.dtype, out=downwards)
    for kept, gone, saddle, _ in terrain.merges():
        one, other = table[kept, :, :saddle], table[gone, :, :saddle]
        join(one, other, out=one)
        other[...] = nothing
    return table


def _extents(ranks: Array, terrain: _Terrain, count: int) -> Array:
    """Give -x0, -y0, x1 and y1 of the components (P, 4, count)."""
    y, x = np.indices(ranks.shape).reshape(2, -1)
    kind = np.int16 if max(ranks.shape) < np.iinfo(np.int16).max else np.int32
    values = np.stack([-x, -y, x + 1, y + 1]).astype(kind)
    return _tabulate(terrain, count, np.maximum, terrain.peak.ravel(), ranks.ravel(), values)


def _firsts(ranks: Array, terrain: _Terrain, count: int) -> Array:
    """Give the distance (P, count) of the components' first pixels from the image's last one."""
    values = np.arange(ranks.size, dtype=np.int32)[None, ::-1]
    return _tabulate(terrain, count, np.maximum, terrain.peak.ravel(), ranks.ravel(), values)[:, 0]


def _areas(ranks: Array, terrain: _Terrain, count: int) -> Array:
    """Give twice the areas (P, count) of the polygons through the centres of components' borders.

    The polygon of a component without holes is made of the unit squares between four of its pixels
    and of the triangles between three.
    """
    one, two, three, four = _blocks(ranks)
    low, high = np.minimum(one, two), np.maximum(one, two)
    low_too, high_too = np.minimum(three, four), np.maximum(three, four)
    all_four = np.minimum(low, low_too)
    some_three = np.minimum(np.maximum(low, low_too), np.minimum(high, high_too))
    # The highest of the four is in the component whenever three are.
    order = ranks * ranks.size + np.arange(ranks.size).reshape(ranks.shape)
    highest = np.maximum.reduce(_blocks(order)) % ranks.size
    peak = np.tile(terrain.peak.ravel()[highest.ravel()], 2)
    height = np.concatenate([all_four, some_three], axis=None)
    halves = np.ones((1, len(height)), np.int32)
    return _tabulate(terrain, count, np.add, peak, height, halves)[:, 0]


def _blocks(image: Array) -> tuple[Array, Array, Array, Array]:
    """Give the four pixels of each block of two by two."""
    return image[:-1, :-1], image[:-1, 1:], image[1:, :-1], image[1:, 1:]


def _filled(ranks: Array, count: int) -> Array:
    """Raise each pixel to the height at which water from outside, passing edges, reaches it."""
    below = _below(ranks, count)
    terrain = _terrain(below, _EDGES)
    outside = int(terrain.peak[0, 0])
    reached = np.zeros(terrain.peaks, np.int64)
    reached[outside] = count
    for kept, gone, height, members in terrain.merges():
        if outside in (kept, gone):
            reached[members[gone if outside == kept else kept]] = height
            outside = kept
    return count - np.minimum(below, reached[terrain.peak])[1:-1, 1:-1]


def _runs(extents: Array) -> tuple[Array, Array, Array]:
    """List the boxes (n, 4) of a table of extents, and from and up to which level each stands."""
    rows, _, count = extents.shape
    changes = np.ones((rows, count), bool)
    changes[:, 1:] = (extents[..., 1:] != extents[..., :-1]).any(axis=1)
    begin = np.flatnonzero(changes)
    length = np.diff(begin, append=rows * count)
    row, start = np.divmod(begin, count)
    boxes = extents[row, :, start]
    there = boxes[:, 2] > 0
    return boxes[there] * _OUTWARDS, start[there], (start + length)[there]
