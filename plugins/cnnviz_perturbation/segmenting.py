"""Segments of a sample: superpixels, equal blocks, or those that the user drew."""

from __future__ import annotations

import warnings
from typing import Literal, TypeAlias

import numpy as np

from cnnviz_core.errors import ArrayError
from cnnviz_core.model import Array

__all__ = ["Segmentation", "segment"]

Segmentation: TypeAlias = Literal["slic", "felzenszwalb", "quickshift", "grid"] | Array
"""How a sample is divided: by one of three ways to find superpixels, into equal blocks, or by an
array that gives the number of each position's segment."""

_COMPACTNESS = 20.0
_COLOUR_WEIGHT = 0.2
_TRIALS = 12


def segment(x: Array, how: Segmentation, segments: int) -> Array:
    """Divide one sample into segments.

    Parameters
    ----------
    x : ndarray (H, W, C)
        The sample, in any value range: what is compared are its values scaled to [0, 1] by its own
        least and largest, in the Lab space if it has three channels (taken as red, green and
        blue).  Of signals (L, C), which are treated as pictures of one row; of volumes
        (D, H, W, C).
    how : str or ndarray
        "slic", clusters of colours and places (Achanta et al., PAMI 2012); "felzenszwalb", a graph
        of neighbours that is cut where they differ (Felzenszwalb & Huttenlocher, IJCV 2004), its
        scale searched for; "quickshift", the modes of the density of colours and places (Vedaldi &
        Soatto, ECCV 2008), its tree cut at its longest links; "grid", blocks as equal, and as near
        to cubes, as the size allows; or an array of the sample's size with a whole number for each
        position.
    segments : int
        How many are wanted.  Only "grid" of a signal gives just as many; the others come near.  Of
        no meaning for an array.

    Returns
    -------
    ndarray of int (H, W)
        The number of each position's segment, from 0 and without gaps; the same whenever it is
        asked for.

    Raises
    ------
    ArrayError
        If the array is not of the sample's size or not of whole numbers, or a volume is to be
        divided by a method for pictures only.
    """
    if isinstance(how, np.ndarray):
        return _numbered(_given(how, x.shape[:-1]))
    if how == "grid":
        return _numbered(_blocks(x.shape[:-1], segments))
    scaled = _scaled(x)
    if x.ndim == 2:
        return _numbered(_SUPERPIXELS[how](scaled[None], segments)[0])
    if x.ndim > 3 and how != "slic":
        raise ArrayError(
            f"{how} was asked to divide a sample of the shape {x.shape}",
            "a picture (H, W, C) or a signal (L, C)",
            "pass segmentation='slic' or 'grid' for volumes",
        )
    return _numbered(_SUPERPIXELS[how](scaled, segments))


def _numbered(labels: Array) -> Array:
    """Number the segments from 0, without gaps."""
    return np.unique(labels, return_inverse=True)[1].reshape(labels.shape)


def _given(labels: Array, size: tuple[int, ...]) -> Array:
    """Check segments that the user drew."""
    if labels.shape != size or labels.dtype.kind not in "iub":
        raise ArrayError(
            f"the segments are an array of {labels.dtype} of the shape {labels.shape}",
            f"whole numbers of the shape {size}",
            "draw them on the sample as the network gets it, and convert them with astype(int)",
        )
    return labels


def _scaled(x: Array) -> Array:
    """Bring a sample to [0, 1] by its own least and largest value."""
    values = x.astype(np.float64)
    spread = np.ptp(values)
    return (values - values.min()) / spread if spread else np.zeros_like(values)


def _blocks(size: tuple[int, ...], segments: int) -> Array:
    """Divide equally along every axis."""
    side = (np.prod(size) / segments) ** (1 / len(size))
    labels = np.zeros(size, dtype=np.int64)
    for axis, extent in enumerate(size):
        count = int(np.clip(round(extent / side), 1, extent))
        along = np.arange(extent) * count // extent
        labels = labels * count + along.reshape([-1 if a == axis else 1 for a in range(len(size))])
    return labels


def _slic(x: Array, segments: int) -> Array:
    """Cluster colours and places, after the smoothing without which noise gives one segment."""
    from skimage.segmentation import slic

    # Without Lab, whose values reach to 100, colours differ by a hundredth as much.
    compactness = _COMPACTNESS if x.shape[-1] == 3 else _COMPACTNESS / 100
    return slic(x, segments, compactness=compactness, sigma=1, start_label=0, channel_axis=-1)


def _felzenszwalb(x: Array, segments: int) -> Array:
    """Cut a graph of neighbours, at the scale that gives the number nearest to that wanted."""
    from skimage.segmentation import felzenszwalb

    least = max(1, x[..., 0].size // (4 * segments))
    low, high = 0.0, 6.0  # powers of ten
    found = []
    for _ in range(_TRIALS):
        middle = (low + high) / 2
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # that there are many channels
            labels = felzenszwalb(x, scale=10**middle, min_size=least, channel_axis=-1)
        found.append(labels)
        if labels.max() + 1 == segments:
            break
        low, high = (middle, high) if labels.max() + 1 > segments else (low, middle)
    return min(found, key=lambda labels: abs(int(labels.max()) + 1 - segments))


def _quickshift(x: Array, segments: int) -> Array:
    """Link each pixel to the nearest of higher density, and cut the longest links."""
    from skimage.color import rgb2lab
    from skimage.segmentation import quickshift

    colours = rgb2lab(x) if x.shape[-1] == 3 else 100 * x
    _, parents, lengths = quickshift(
        colours,
        ratio=_COLOUR_WEIGHT,
        kernel_size=max(1.0, np.sqrt(x[..., 0].size / segments) / 8),
        max_dist=np.inf,
        return_tree=True,
        convert2lab=False,
        rng=0,
    )
    # The modes, which have no link, are told to have one of boundless length, to themselves.
    longest = np.argsort(-np.ravel(lengths), kind="stable")[:segments]
    roots = np.ravel(parents).astype(np.int64)
    roots[longest] = longest
    while not np.array_equal(roots, roots[roots]):
        roots = roots[roots]
    return roots.reshape(x.shape[:-1])


_SUPERPIXELS = {"slic": _slic, "felzenszwalb": _felzenszwalb, "quickshift": _quickshift}
