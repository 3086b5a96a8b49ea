"""From a map to boxes: threshold, connected components, bounding boxes, overlap.

A box is (x0, y0, x1, y1) in pixels and half-open: it holds the pixels x0 <= x < x1, y0 <= y < y1.
"""

from __future__ import annotations

import numpy as np

from cnnviz_core.errors import ArrayError, ParameterError
from cnnviz_core.model import Array, as_float

__all__ = ["boxes_of", "clip_boxes", "components", "iou", "threshold_mask"]


def _image(values: Array, what: str) -> Array:
    """Check that there is one map."""
    values = np.asarray(values)
    if values.ndim != 2:
        raise ArrayError(
            f"{what} has the shape {values.shape}", "one of (H, W)", "take one sample: maps[i]"
        )
    return values


def threshold_mask(map: Array, threshold: float) -> Array:
    """Mark the pixels strictly above a share of the maximum.

    Parameters
    ----------
    map : ndarray (H, W)
        One map.
    threshold : float
        The share, in [0, 1].

    Returns
    -------
    ndarray (H, W) of bool
        All false for a map without a positive value.

    Raises
    ------
    ArrayError
        If `map` is not one map.
    ParameterError
        If the threshold is out of its range.

    References
    ----------
    Zhou et al., CVPR 2016 (20 %), and Selvaraju et al., ICCV 2017 (15 %).
    """
    values = as_float(_image(map, "the map"))
    if not 0 <= threshold <= 1:
        raise ParameterError(f"threshold={threshold}", "a share in [0, 1]", "use 0.15 or 0.2")
    highest = values.max(initial=0)
    if not highest > 0:
        return np.zeros(values.shape, dtype=bool)
    return values > threshold * highest


def components(mask: Array, connectivity: int = 2) -> list[Array]:
    """Split a mask into its connected components.

    Parameters
    ----------
    mask : ndarray (H, W) of bool
        The foreground.
    connectivity : {1, 2}
        1 joins pixels that share an edge, 2 also those that share a corner.

    Returns
    -------
    list of ndarray (H, W) of bool
        The largest first; of equal ones, the one met first from the top left.
    """
    from skimage.measure import label

    labels = label(_image(mask, "the mask").astype(bool), connectivity=connectivity)
    areas = np.bincount(labels.ravel())[1:]
    order = np.argsort(-areas, kind="stable") + 1
    return [labels == k for k in order]


def boxes_of(
    map: Array,
    threshold: float = 0.15,
    *,
    largest: bool = True,
    min_area: int = 1,
    connectivity: int = 2,
) -> Array:
    """Find the boxes around what stands out of a map.

    Parameters
    ----------
    map : ndarray (H, W)
        One map.
    threshold : float
        The share of the maximum above which a pixel is foreground, in [0, 1].
    largest : bool
        Only the largest connected component, as in the CAM and Grad-CAM papers; otherwise all.
    min_area : int
        Components of fewer pixels are left out.
    connectivity : {1, 2}
        1 joins pixels that share an edge, 2 also those that share a corner.

    Returns
    -------
    ndarray (k, 4) of int
        Boxes (x0, y0, x1, y1), half-open, the largest component's first; empty where nothing stands
        out.

    Raises
    ------
    ArrayError
        If `map` is not one map.
    ParameterError
        If the threshold is out of its range.

    Examples
    --------
    >>> boxes_of(np.array([[0, 0, 0], [0, 2, 1], [0, 0, 0]]), 0.2)
    array([[1, 1, 3, 2]])
    """
    found = components(threshold_mask(map, threshold), connectivity)
    found = [c for c in found if np.count_nonzero(c) >= min_area]
    boxes = []
    for component in found[:1] if largest else found:
        rows, columns = np.flatnonzero(component.any(1)), np.flatnonzero(component.any(0))
        boxes.append((columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))
    return np.array(boxes, dtype=int).reshape(-1, 4)


def _boxes(boxes: Array) -> Array:
    """Check that these are boxes."""
    boxes = np.asarray(boxes)
    if boxes.size == 0:
        boxes = boxes.reshape(0, 4)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ArrayError(
            f"boxes of the shape {boxes.shape}", "(k, 4): x0, y0, x1, y1", "pass a list of boxes"
        )
    return boxes


def clip_boxes(boxes: Array, width: int, height: int) -> Array:
    """Clip boxes to a picture.

    Parameters
    ----------
    boxes : ndarray (k, 4)
        Boxes (x0, y0, x1, y1).
    width, height : int
        The picture's size.

    Returns
    -------
    ndarray (k, 4)
    """
    return np.clip(_boxes(boxes), 0, np.array([width, height, width, height]))


def iou(a: Array, b: Array, *, inclusive: bool = False) -> Array:
    """Compute the intersection over union of boxes, all with all.

    Parameters
    ----------
    a : ndarray (n, 4)
        Boxes (x0, y0, x1, y1).
    b : ndarray (m, 4)
        Boxes (x0, y0, x1, y1).
    inclusive : bool
        Count x1 and y1 as inside the box (ILSVRC's convention), instead of half-open boxes.

    Returns
    -------
    ndarray (n, m) of float64
        In [0, 1]; 0 where a box is empty.

    Examples
    --------
    >>> iou([[0, 0, 2, 2]], [[1, 0, 3, 2]])
    array([[0.33333333]])
    """
    extra = 1 if inclusive else 0
    a, b = (_boxes(boxes).astype(np.float64) for boxes in (a, b))
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    common = np.clip(high - low + extra, 0, None).prod(-1)
    areas = [np.clip(boxes[:, 2:] - boxes[:, :2] + extra, 0, None).prod(-1) for boxes in (a, b)]
    union = areas[0][:, None] + areas[1][None] - common
    return np.divide(common, union, out=np.zeros_like(common), where=union > 0)
