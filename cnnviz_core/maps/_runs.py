"""Connected components of many masks at once, put together from the runs of their rows.

A run is what of a row lies between two borders of the foreground.  There are far fewer runs than
pixels, so that but for finding the borders all work is done on short lists.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cnnviz_core.model import Array

__all__ = ["Components", "components_of"]


@dataclass(frozen=True)
class Components:
    """The connected components of a stack of masks.

    They are sorted by mask; of one mask those with the most pixels come first, and of equally many
    pixels those that come first row by row.

    Attributes
    ----------
    samples : ndarray (k,) of int64
        To which mask each belongs.
    areas : ndarray (k,) of int64
        How many pixels each has.
    boxes : ndarray (k, 4) of int64
        The tightest boxes (x0, y0, x1, y1), half-open.
    labels : ndarray (pixels,) of int64
        To which component each pixel of the foreground belongs, row by row.
    """

    samples: Array
    areas: Array
    boxes: Array
    labels: Array


def components_of(masks: Array, connectivity: int) -> Components:
    """Find the connected components of masks.

    Parameters
    ----------
    masks : ndarray of bool (N, h, w)
        The foregrounds.
    connectivity : {1, 2}
        1 joins pixels that share an edge, 2 also those that share a corner.

    Returns
    -------
    Components
    """
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    starts, stops = _runs(masks)
    height, width = (side + 1 for side in masks.shape[1:])
    below = _touching(starts, stops, width, connectivity - 1)
    links = csr_array((np.ones(len(below[0]), bool), *below), shape=(len(starts), len(starts)))
    count, joined = connected_components(links, directed=False)
    order = np.argsort(joined, kind="stable")
    begins = np.searchsorted(joined[order], np.arange(count))
    samples, y = np.divmod(starts[order] // width, height)
    x0, x1 = starts[order] % width, stops[order] % width
    areas = np.add.reduceat(x1 - x0, begins)
    boxes = [
        np.minimum.reduceat(x0, begins),
        y[begins],
        np.maximum.reduceat(x1, begins),
        np.maximum.reduceat(y, begins) + 1,
    ]
    samples = samples[begins]
    sorting = np.lexsort((order[begins], -areas, samples))
    ranks = np.argsort(sorting)
    return Components(
        samples[sorting],
        areas[sorting],
        np.stack(boxes, axis=1)[sorting],
        np.repeat(ranks[joined], stops - starts),
    )


def _runs(masks: Array) -> tuple[Array, Array]:
    """Give the first pixel of each run and the one behind its last, row by row.

    Pixels are counted through masks that have one more row and one more column, both empty: so no
    run goes on in the next row, and none touches a run of the next mask.
    """
    samples, height, width = masks.shape
    borders = np.zeros((samples, height + 1, width + 1), dtype=bool)
    borders[:, :-1, :-1] = masks
    borders[:, :-1, 1:] ^= masks
    at = np.flatnonzero(borders)
    return at[::2], at[1::2]


def _touching(starts: Array, stops: Array, width: int, reach: int) -> tuple[Array, Array]:
    """List for each run those of the next row that it touches, as a sparse matrix does.

    The runs are sorted and do not overlap, so those that one touches follow each other.
    """
    first = np.searchsorted(stops, starts + (width - reach), side="right")
    behind = np.searchsorted(starts, stops + (width + reach), side="left")
    ends = np.concatenate([[0], np.cumsum(behind - first)])
    listed = np.arange(ends[-1]) + np.repeat(first - ends[:-1], behind - first)
    return listed, ends
