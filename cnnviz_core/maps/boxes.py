"""From a map to boxes: threshold, connected components, bounding boxes, and their overlap.

Boxes are (x0, y0, x1, y1) in pixels and half-open: a box holds the columns from ``x0`` up to but
without ``x1``, and its area is ``(x1 - x0) * (y1 - y0)``.
"""

from __future__ import annotations

from typing import Any, Final, Literal

import numpy as np

from cnnviz_core.errors import ArrayError, ParameterError
from cnnviz_core.maps._checks import checked_maps, parts_of
from cnnviz_core.maps._runs import components_of
from cnnviz_core.model import Array

__all__ = ["boxes_of", "boxes_of_each", "clip_boxes", "components", "iou", "threshold_mask"]

_MANY: Final = 2**22
"""Bytes of maps whose runs are listed at once."""


def threshold_mask(map: Array, threshold: float) -> Array:
    """Mark what lies strictly above a share of the map's maximum.

    Parameters
    ----------
    map : ndarray (h, w) or (N, h, w)
        One map, or several, each with a maximum of its own.
    threshold : float
        The share of the maximum, in [0, 1].

    Returns
    -------
    ndarray of bool
        Of the shape of `map`; nothing is marked where no value is positive, or where one is NaN or
        infinite.

    Raises
    ------
    ArrayError
        If `map` has another rank or no position.
    ParameterError
        If the threshold is out of its range.

    References
    ----------
    Zhou et al., "Learning deep features for discriminative localization", CVPR 2016, section 3.2:
    above 20 % of the maximum.  Selvaraju et al., "Grad-CAM", ICCV 2017, section 4.1: 15 %.

    Examples
    --------
    >>> import numpy as np
    >>> threshold_mask(np.array([[0.0, 1.0, 2.0, 4.0]]), 0.5).tolist()
    [[False, False, False, True]]
    """
    maps = checked_maps(map, "the map", (2, 3), "(h, w) or (N, h, w)")
    if not 0 <= threshold <= 1:
        raise ParameterError(
            f"threshold={threshold!r} is out of range",
            "a share of the maximum, from 0 to 1",
            "pass threshold=0.15 for 15 % of the maximum",
        )
    highest = maps.max(axis=(-2, -1), keepdims=True)
    usable = (highest > 0) & np.isfinite(highest)
    # The level is rounded to the map's own type, so that a value that equals it is not above it.
    level = np.where(usable, highest, 0) * float(threshold)
    mask: Array = maps > np.where(usable, level, np.inf)
    return mask


def components(mask: Array, connectivity: Literal[1, 2] = 2) -> list[Array]:
    """Split a mask into its connected components.

    Parameters
    ----------
    mask : ndarray of bool (h, w)
        The foreground.
    connectivity : {1, 2}
        1 joins pixels that share an edge, 2 also those that share a corner.

    Returns
    -------
    list of ndarray of bool (h, w)
        One mask for each component, the one with the most pixels first; of two with equally many,
        the one that comes first row by row.

    Raises
    ------
    ArrayError
        If the mask is not (h, w) of bool.
    ParameterError
        If the connectivity is neither 1 nor 2.

    Examples
    --------
    >>> import numpy as np
    >>> [c.tolist() for c in components(np.array([[True, False, True, True]]))]
    [[[False, False, True, True]], [[True, False, False, False]]]
    """
    mask = np.asarray(mask)
    if mask.ndim != 2 or mask.dtype != bool:
        raise ArrayError(
            f"the mask has the shape {mask.shape} and the type {mask.dtype}",
            "(h, w) of bool",
            "make one with threshold_mask, and pass that of one map at a time",
        )
    found = components_of(mask[None], _checked_connectivity(connectivity))
    labels = np.full(mask.shape, -1)
    labels[mask] = found.labels
    return [labels == k for k in range(len(found.areas))]


def boxes_of(
    map: Array,
    threshold: float = 0.15,
    largest: bool = True,
    min_area: int = 1,
    *,
    connectivity: Literal[1, 2] = 2,
) -> Array:
    """Find the boxes around what is hot in a map.

    Parameters
    ----------
    map : ndarray (h, w)
        One map.
    threshold : float
        The share of the map's maximum, in [0, 1], that a pixel must exceed.
    largest : bool
        Whether to keep only the component with the most pixels.
    min_area : int
        How many pixels a component must have.
    connectivity : {1, 2}
        1 joins pixels that share an edge, 2 also those that share a corner.

    Returns
    -------
    ndarray of int64 (k, 4)
        The tightest boxes (x0, y0, x1, y1), half-open, in pixels, by the number of pixels of their
        components, the largest first.  None (k = 0) where no value is positive.

    Raises
    ------
    ArrayError
        If `map` is not (h, w).
    ParameterError
        If the threshold or the connectivity is out of its range.

    References
    ----------
    Zhou et al., "Learning deep features for discriminative localization", CVPR 2016, section 3.2:
    the box that covers the largest connected component.

    Examples
    --------
    >>> import numpy as np
    >>> boxes_of(np.array([[0.0, 9.0, 8.0, 0.0], [0.0, 7.0, 0.0, 1.0]])).tolist()
    [[1, 0, 3, 2]]
    """
    map = checked_maps(map, "the map", (2,), "(h, w)")
    return boxes_of_each(map[None], threshold, largest, min_area, connectivity=connectivity)[0]


def boxes_of_each(
    maps: Array,
    threshold: float = 0.15,
    largest: bool = True,
    min_area: int = 1,
    *,
    connectivity: Literal[1, 2] = 2,
) -> list[Array]:
    """Find the boxes around what is hot in each of several maps; see `boxes_of`.

    Parameters
    ----------
    maps : ndarray (N, h, w)
        The maps, each with a maximum of its own.
    threshold : float
        The share of a map's maximum, in [0, 1], that a pixel must exceed.
    largest : bool
        Whether to keep only the component of a map with the most pixels.
    min_area : int
        How many pixels a component must have.
    connectivity : {1, 2}
        1 joins pixels that share an edge, 2 also those that share a corner.

    Returns
    -------
    list of ndarray of int64 (k, 4)
        For each map what `boxes_of` gives.

    Raises
    ------
    ArrayError
        If `maps` is not (N, h, w).
    ParameterError
        If the threshold or the connectivity is out of its range.

    Examples
    --------
    >>> import numpy as np
    >>> [boxes.tolist() for boxes in boxes_of_each(np.array([[[0.0, 9.0, 8.0]], [[0, 0, 0]]]))]
    [[[1, 0, 3, 1]], []]
    """
    maps = checked_maps(maps, "maps", (3,), "(N, h, w)")
    connectivity = _checked_connectivity(connectivity)
    boxes: list[Array] = []
    for part in parts_of(maps, _MANY):
        found = components_of(threshold_mask(maps[part], threshold), connectivity)
        kept = found.areas >= min_area
        if largest:
            kept &= np.diff(found.samples, prepend=-1) > 0
        of_each = np.searchsorted(found.samples[kept], np.arange(1, len(maps[part])))
        boxes += np.split(found.boxes[kept], of_each)
    return boxes


def _checked_connectivity(connectivity: Any) -> Literal[1, 2]:
    """Check a connectivity."""
    if connectivity not in (1, 2):
        raise ParameterError(
            f"connectivity={connectivity!r} is unknown",
            "1 (edges) or 2 (edges and corners)",
            "pass connectivity=2",
        )
    checked: Literal[1, 2] = connectivity
    return checked


def iou(a: Array, b: Array, *, inclusive: bool = False) -> Array:
    """Compare boxes pairwise by intersection over union.

    Parameters
    ----------
    a : ndarray (n, 4)
        Boxes (x0, y0, x1, y1).
    b : ndarray (m, 4)
        Boxes.
    inclusive : bool
        Whether the last column and row, ``x1`` and ``y1``, belong to the box, as in the
        evaluation of ILSVRC and VOC; a box is then ``x1 - x0 + 1`` pixels wide.

    Returns
    -------
    ndarray of float64 (n, m)
        In [0, 1]; 0 where both boxes are empty.

    Raises
    ------
    ArrayError
        If the boxes are not (k, 4), not finite, or have their corners the wrong way round.

    References
    ----------
    Everingham et al., "The PASCAL visual object classes (VOC) challenge", International Journal of
    Computer Vision 88, 2010, section 4.2.

    Examples
    --------
    >>> iou([[0, 0, 2, 2]], [[0, 0, 2, 2], [1, 0, 3, 2], [5, 5, 6, 6]]).round(3).tolist()
    [[1.0, 0.333, 0.0]]
    """
    one = int(inclusive)
    first = _checked_boxes(a, "a").astype(np.float64)[:, None]
    second = _checked_boxes(b, "b").astype(np.float64)[None]
    low = np.maximum(first[..., :2], second[..., :2])
    high = np.minimum(first[..., 2:], second[..., 2:])
    shared = np.maximum(high - low + one, 0).prod(axis=-1)
    areas = [(boxes[..., 2:] - boxes[..., :2] + one).prod(axis=-1) for boxes in (first, second)]
    union = areas[0] + areas[1] - shared
    overlaps: Array = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return overlaps


def clip_boxes(boxes: Array, width: int, height: int) -> Array:
    """Cut off what of boxes lies outside a picture.

    Parameters
    ----------
    boxes : ndarray (k, 4)
        Boxes (x0, y0, x1, y1), half-open.
    width, height : int
        The picture's size in pixels.

    Returns
    -------
    ndarray (k, 4)
        As many boxes, of the same type; one that lay outside is empty.

    Raises
    ------
    ArrayError
        If the boxes are not (k, 4), not finite, or have their corners the wrong way round.
    ParameterError
        If the picture has no pixel.

    Examples
    --------
    >>> clip_boxes([[-3, 2, 5, 99]], width=4, height=10).tolist()
    [[0, 2, 4, 10]]
    """
    if width < 1 or height < 1:
        raise ParameterError(
            f"a picture of width={width!r} and height={height!r} has no pixel",
            "two positive numbers",
            "pass the picture's size in pixels",
        )
    checked = _checked_boxes(boxes, "boxes")
    return np.clip(checked, 0, (width, height, width, height)).astype(checked.dtype, copy=False)


def _checked_boxes(boxes: Any, name: str) -> Array:
    """Check boxes, taking an empty list for no box."""
    array = np.asarray(boxes)
    if array.shape == (0,):
        array = array.reshape(0, 4)
    if array.ndim != 2 or array.shape[1] != 4 or array.dtype.kind not in "fiu":
        raise ArrayError(
            f"{name} has the shape {array.shape} and the type {array.dtype}",
            "numbers of the shape (k, 4)",
            "pass rows of x0, y0, x1, y1; a single box is [box]",
        )
    if not (np.isfinite(array).all() and (array[:, :2] <= array[:, 2:]).all()):
        raise ArrayError(
            f"{name} holds a box that is not finite, or whose corners are the wrong way round",
            "x0 <= x1 and y0 <= y1 in every row",
            "give the corners as x0, y0, x1, y1, not as x, y, width, height",
        )
    return array
