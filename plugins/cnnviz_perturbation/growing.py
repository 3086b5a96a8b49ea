"""Overlapping segments of a picture at several scales, and regions grown of them by density."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Final

import numpy as np

from cnnviz_core.model import Array

__all__ = ["grown", "overlapping_segments"]

_AREA: Final = 224 * 224
"""The size of picture, in pixels, that the numbers below are for; they are scaled with it."""

_SCALES: Final = (50, 100, 150, 250, 500, 1200)
"""Felzenszwalb's scale parameter, for values in [-1, 1]."""

_SMALLEST: Final = 150
"""Pixels of the smallest segment."""

_GAIN: Final = 50
"""Pixels that a segment must add to a region, at least."""


def overlapping_segments(picture: Array, dilation: float) -> list[Array]:
    """Cut a picture into segments at six scales, and widen each.

    Parameters
    ----------
    picture : ndarray of float (H, W, C)
        Colours, with values in [-1, 1].
    dilation : float
        By how many pixels a segment is widened, if the picture were 224 x 224.

    Returns
    -------
    list of ndarray of int
        Of each segment its pixels, counted row by row.  Those of each scale cover the picture.

    References
    ----------
    Felzenszwalb & Huttenlocher, "Efficient graph-based image segmentation", IJCV 2004.
    """
    from skimage.segmentation import felzenszwalb

    share = picture[..., 0].size / _AREA
    smallest = max(1, round(_SMALLEST * share))
    segments: list[Array] = []
    with warnings.catch_warnings():
        # More channels than three are meant.
        warnings.filterwarnings("ignore", "Got image with third dimension", RuntimeWarning)
        for scale in _SCALES:
            numbers = felzenszwalb(
                picture, scale=scale * share, sigma=0.8, min_size=smallest, channel_axis=-1
            )
            segments += _widened(numbers, dilation * np.sqrt(share))
    return segments


def _widened(numbers: Array, reach: float) -> list[Array]:
    """Give the pixels of each segment, and those that are as near to it."""
    from scipy.ndimage import distance_transform_edt, find_objects

    room = int(reach) + 1
    pixels = np.arange(numbers.size).reshape(numbers.shape)
    found: list[Array] = []
    for k, box in enumerate(find_objects(numbers + 1)):
        around = tuple(slice(max(0, s.start - room), s.stop + room) for s in box)
        outside = numbers[around] != k
        # Of a segment that fills its box there is nothing to be distant from it.
        near = distance_transform_edt(outside) <= reach if outside.any() else ~outside
        found.append(pixels[around][near])
    return found


def grown(segments: Sequence[Array], attribution: Array) -> Array:
    """Cover a picture by segments, always by that which adds most attribution for its area.

    A segment counts by the mean attribution of those of its pixels that are not covered yet, and
    only while these are not too few: at least 50 in a picture of 224 x 224.  What no segment covers
    in the end is the last region.

    Parameters
    ----------
    segments : sequence of ndarray of int
        The pixels of each, counted row by row.
    attribution : ndarray (H, W)
        The attribution to each pixel.

    Returns
    -------
    ndarray of int (H, W)
        By which region each pixel was covered, in order, from 0.

    References
    ----------
    Kapishnikov et al., "XRAI: better attributions through regions", ICCV 2019.
    """
    from scipy.sparse import csc_array

    flat = attribution.ravel().astype(np.float64)
    areas = np.array([len(segment) for segment in segments])
    owners = np.repeat(np.arange(len(segments)), areas)
    where = (owners, np.concatenate(segments))
    members = csc_array((np.ones(len(owners)), where), shape=(len(segments), flat.size))
    sums = members @ flat
    least = max(1, round(_GAIN * flat.size / _AREA))
    order = np.full(flat.size, -1)
    number = 0
    while (enough := areas >= least).any():
        best = int(np.where(enough, sums / np.maximum(areas, 1), -np.inf).argmax())
        new = segments[best][order[segments[best]] < 0]
        order[new] = number
        number += 1
        columns = members[:, new]
        sums -= columns @ flat[new]
        areas -= columns.sum(axis=1).astype(int)
    order[order < 0] = number
    return order.reshape(attribution.shape)
