"""Resizing maps: separable, so two matrix products serve a whole batch."""

from __future__ import annotations

import functools
from typing import Literal

import numpy as np

from cnnviz_core.errors import ArrayError, ParameterError
from cnnviz_core.model import Array, as_float

__all__ = ["resize", "resize_matrix"]

Method = Literal["nearest", "bilinear", "bicubic"]


@functools.lru_cache(maxsize=256)
def resize_matrix(n_in: int, n_out: int, method: Method = "bilinear") -> Array:
    """Give the matrix that resizes one axis.

    Positions are half-pixel centres: output ``i`` lies at input ``(i + 1/2) n_in / n_out - 1/2``.
    Beyond the border the outermost value is repeated.  There is no antialiasing: a smaller size
    samples.

    Parameters
    ----------
    n_in, n_out : int
        Sizes of the axis before and after, at least 1.
    method : {"nearest", "bilinear", "bicubic"}
        The kernel; bicubic is Keys' with a = -3/4.

    Returns
    -------
    ndarray (n_out, n_in) of float64
        Rows sum to 1.  Read-only: it is shared between calls.

    Raises
    ------
    ParameterError
        If the method is unknown.
    ArrayError
        If a size is below 1.

    References
    ----------
    Keys, "Cubic convolution interpolation for digital image processing", IEEE TASSP 1981.
    """
    if min(n_in, n_out) < 1:
        raise ArrayError(
            f"an axis of {n_in} was to be resized to {n_out}", "sizes of at least 1", "give a size"
        )
    at = (np.arange(n_out) + 0.5) * (n_in / n_out) - 0.5
    if method == "nearest":
        taps = {0: np.ones(n_out)}
        base = np.floor(at + 0.5).astype(int)
    elif method == "bilinear":
        base = np.floor(at).astype(int)
        t = at - base
        taps = {0: 1 - t, 1: t}
    elif method == "bicubic":
        base = np.floor(at).astype(int)
        t = at - base
        taps = {k: _cubic(t - k) for k in (-1, 0, 1, 2)}
    else:
        raise ParameterError(
            f"maps cannot be resized by {method!r}",
            "'nearest', 'bilinear' or 'bicubic'",
            "use 'bilinear'",
        )
    matrix = np.zeros((n_out, n_in))
    for shift, weight in taps.items():
        np.add.at(matrix, (np.arange(n_out), np.clip(base + shift, 0, n_in - 1)), weight)
    matrix.flags.writeable = False
    return matrix


def _cubic(t: Array, a: float = -0.75) -> Array:
    """Evaluate Keys' cubic kernel."""
    t = np.abs(t)
    near = ((a + 2) * t - (a + 3)) * t * t + 1
    far = ((t - 5) * t + 8) * t * a - 4 * a
    return np.where(t <= 1, near, np.where(t < 2, far, 0))


def resize(maps: Array, size: tuple[int, int], method: Method = "bilinear") -> Array:
    """Resize a batch of maps.

    Parameters
    ----------
    maps : ndarray (N, h, w) or (N, h, w, C)
        Maps of any values.
    size : tuple of int
        (height, width) to give them.
    method : {"nearest", "bilinear", "bicubic"}
        How; see `resize_matrix`.  Bilinear is OpenCV's ``INTER_LINEAR`` and PyTorch's bilinear with
        ``align_corners=False``; bicubic is their bicubic.

    Returns
    -------
    ndarray (N, height, width) or (N, height, width, C)

    Raises
    ------
    ArrayError
        If the rank or the size does not fit.
    ParameterError
        If the method is unknown.

    Examples
    --------
    >>> resize(np.array([[[0.0, 1.0]]]), (1, 4))
    array([[[0.  , 0.25, 0.75, 1.  ]]])
    """
    maps = as_float(maps)
    if maps.ndim not in (3, 4):
        raise ArrayError(
            f"maps of the shape {maps.shape} were to be resized",
            "(N, h, w) or (N, h, w, C)",
            "add the batch axis: maps[None]",
        )
    height, width = size
    rows = resize_matrix(maps.shape[1], int(height), method).astype(maps.dtype, copy=False)
    columns = resize_matrix(maps.shape[2], int(width), method).astype(maps.dtype, copy=False)
    if maps.ndim == 3:
        return rows @ (maps @ columns.T)
    moved = np.moveaxis(maps, -1, 1)
    return np.ascontiguousarray(np.moveaxis(rows @ (moved @ columns.T), 1, -1))
