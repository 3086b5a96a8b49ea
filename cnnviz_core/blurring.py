"""Samples blurred by a Gaussian."""

from __future__ import annotations

import math
from typing import Final, Literal, TypeAlias

import numpy as np

from cnnviz_core.model import Array

__all__ = ["Edges", "blurred", "largest_sigma"]

Edges: TypeAlias = Literal["mirror", "zero"]

_MODES: Final = {"mirror": "reflect", "zero": "constant"}
_MATRIX: Final = 1024
"""Up to this many positions an axis is blurred by a matrix product: 10 times faster where the blur
is wide."""


def largest_sigma(shape: tuple[int, ...]) -> float:
    """Give the blur that leaves little but the colours: a fifth of the longest side, at most 50.

    Parameters
    ----------
    shape : tuple of int
        (N, ...size, C).

    Returns
    -------
    float
        A standard deviation in pixels.
    """
    return min(50.0, max(shape[1:-1], default=0) / 5)


def blurred(x: Array, sigma: float, edges: Edges = "mirror") -> Array:
    """Blur samples by a Gaussian, along all their spatial axes.

    Parameters
    ----------
    x : ndarray (N, ...size, C)
        The batch.
    sigma : float
        The Gaussian's standard deviation in pixels; 0 changes nothing.
    edges : {"mirror", "zero"}
        What lies beyond the edges: the sample mirrored, so that its mean stays, or zeros.

    Returns
    -------
    ndarray of float64 (N, ...size, C)
        What `scipy.ndimage.gaussian_filter` gives, with its kernel cut off at 4 `sigma`.
    """
    from scipy.ndimage import gaussian_filter1d

    x = x.astype(np.float64)
    for axis in range(1, x.ndim - 1) if sigma > 0 else ():
        n, mode = x.shape[axis], _MODES[edges]
        if n > _MATRIX:
            x = gaussian_filter1d(x, sigma, axis=axis, mode=mode)
        else:
            weights = gaussian_filter1d(np.eye(n), sigma, axis=0, mode=mode)
            rows = x.reshape(math.prod(x.shape[:axis]), n, -1)
            x = (weights @ rows).reshape(x.shape)
    return x
