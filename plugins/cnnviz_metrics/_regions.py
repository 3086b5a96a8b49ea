"""Which pixels are the object's."""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np

from cnnviz_core.errors import ArrayError
from cnnviz_core.maps import clip_boxes, resize
from cnnviz_core.metric import IGNORED, Annotation
from cnnviz_core.model import Array

Region: TypeAlias = Literal["mask", "boxes"]
"""What says which pixels are the object's: its mask where there is one, or always its boxes."""


def region_of(
    annotation: Annotation, size: tuple[int, ...], region: Region, at: tuple[int, int] | None = None
) -> tuple[Array, Array] | None:
    """Give which pixels are the object's (h, w), and which count at all; None if nothing is known.

    A pixel is in a box if its centre is; each box has a pixel at least.  The annotation is of an
    input of `size`, and the result of the size `at`, the input's if left out.
    """
    height, width = at or size
    if region == "mask" and annotation.mask is not None:
        mask = resize(
            mask_of(annotation, size)[None].astype(np.float32), (height, width), "nearest"
        )
        return _if_any(mask[0] == 1, mask[0] != IGNORED)
    inside = np.zeros((height, width), bool)
    grown = boxes_in(annotation, size) * (
        np.array([width, height] * 2) / np.array([size[1], size[0]] * 2)
    )
    for x0, y0, x1, y1 in np.ceil(grown - 0.5).astype(np.int64):
        # A box that lies between the centres has the pixel after it, or the last one.
        left, top = min(x0, width - 1), min(y0, height - 1)
        inside[top : max(y1, top + 1), left : max(x1, left + 1)] = True
    return _if_any(inside, np.ones_like(inside))


def boxes_in(annotation: Annotation, size: tuple[int, ...]) -> Array:
    """Give what of an annotation's boxes (B, 4) lies in an input of a size."""
    height, width = size
    boxes = clip_boxes(annotation.boxes, width, height)
    return boxes[(boxes[:, 2:] > boxes[:, :2]).all(axis=1)]


def mask_of(annotation: Annotation, size: tuple[int, ...]) -> Array:
    """Give an annotation's mask, and check that it is of the input's size."""
    mask = np.asarray(annotation.mask)
    if mask.shape != tuple(size):
        raise ArrayError(
            f"the mask of {annotation.name or 'a picture'} has the shape {mask.shape}",
            f"the input's size, {tuple(size)}",
            "treat masks as the pictures, with interpolation by the nearest pixel",
        )
    return mask


def _if_any(inside: Array, counted: Array) -> tuple[Array, Array] | None:
    """Give a region if it holds a pixel."""
    return (inside, counted) if inside.any() else None
