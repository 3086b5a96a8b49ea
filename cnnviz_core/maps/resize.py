"""Resizing maps: separable interpolation with half-pixel centres, a matrix product an axis.

Pixel ``i`` of ``n`` covers the interval from ``i / n`` to ``(i + 1) / n`` of its axis and has its
centre in the middle, so that both sizes cover the same field (``align_corners=False``).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final, Literal, TypeAlias

import numpy as np

from cnnviz_core.errors import ParameterError
from cnnviz_core.maps._checks import checked_maps, parts_of, pick
from cnnviz_core.model import Array

__all__ = ["Interpolation", "resize", "resize_matrix"]

Interpolation: TypeAlias = Literal["nearest", "bilinear", "bicubic"]

_Band: TypeAlias = tuple[slice, slice, Array]
"""Which new values follow from which old ones, by which weights (new, old)."""
_FEW: Final = 8
"""Old values of which a product is no slower than writing its result."""
_BAND: Final = 32
"""New values in a band: enough for a matrix product, and few beside what a large map has."""


def resize(
    maps: Array,
    size: tuple[int, ...],
    method: Interpolation = "bilinear",
    *,
    antialias: bool = False,
) -> Array:
    """Resize maps to any size.

    Parameters
    ----------
    maps : ndarray (N, h, w) or (N, h, w, C)
        The maps; of signals (N, l) or (N, l, C), of volumes (N, d, h, w) or (N, d, h, w, C).
    size : tuple of int
        (height, width) of the result; one number for each axis of the grid.
    method : {"bilinear", "bicubic", "nearest"}
        The interpolation along each axis.  Bicubic may overshoot the range of the map.
    antialias : bool
        Whether an axis that shrinks is averaged over all that a new pixel covers.  Otherwise its
        values are those interpolated at the new pixels' centres, as in PyTorch and OpenCV by
        default.  Axes that grow are the same either way.

    Returns
    -------
    ndarray (N, height, width) or (N, height, width, C)
        A new array; an axis that keeps its size keeps its values exactly.  A sample with NaN or
        infinity in it may become NaN everywhere, the others do not.

    Raises
    ------
    ArrayError
        If `maps` has another rank or no position.
    ParameterError
        If the size or the method is unfit, or `antialias` goes with "nearest".

    See Also
    --------
    resize_matrix : the weights, and their conventions.

    Examples
    --------
    >>> import numpy as np
    >>> resize(np.array([[[0.0, 4.0]]]), (1, 4)).tolist()
    [[[0.0, 1.0, 3.0, 4.0]]]
    """
    if np.ndim(size) != 1 or not 1 <= len(size) <= 3:
        raise ParameterError(
            f"size={size!r} is no size",
            "(height, width), or one number for each axis of a signal or a volume",
            "pass whole numbers",
        )
    rank = len(size)
    grid = ("l", "h, w", "d, h, w")[rank - 1]
    maps = checked_maps(maps, "maps", (rank + 1, rank + 2), f"(N, {grid}) or (N, {grid}, C)")
    bands = [
        _bands(old, new, method, antialias, maps.dtype)
        for old, new in zip(maps.shape[1 : rank + 1], size, strict=True)
    ]
    axes = [axis for axis in range(rank, 0, -1) if size[axis - 1] != maps.shape[axis]]
    if not axes:
        return maps.copy()
    # The axis that grows least goes first, before there are more values to multiply.
    axes.sort(key=lambda axis: size[axis - 1] / maps.shape[axis])
    resized = np.empty((len(maps), *size, *maps.shape[rank + 1 :]), maps.dtype)
    # Zero times infinity is NaN; `map_status` speaks of it.
    with np.errstate(over="ignore", invalid="ignore"):
        for part in parts_of(resized):
            between = maps[part]
            for axis in axes[:-1]:
                grown = (*between.shape[:axis], size[axis - 1], *between.shape[axis + 1 :])
                between = _along(between, axis, bands[axis - 1], np.empty(grown, maps.dtype))
            _along(between, axes[-1], bands[axes[-1] - 1], resized[part])
    return resized


@lru_cache(maxsize=16, typed=True)  # 9.0 pixels are an error, also after 9 were not
def _bands(
    n_in: int, n_out: int, method: Interpolation, antialias: bool, dtype: np.dtype[Any]
) -> list[_Band]:
    """Cut the weights into blocks of rows, and leave out the columns in which a block is zero."""
    matrix = resize_matrix(n_in, n_out, method, antialias=antialias).astype(dtype)
    bands = []
    step = _BAND if n_in > _FEW else n_out
    for start in range(0, n_out, step):
        rows = slice(start, start + step)
        columns = np.flatnonzero(matrix[rows].any(axis=0))
        read = slice(int(columns[0]), int(columns[-1]) + 1)
        bands.append((rows, read, matrix[rows, read]))
    return bands


def _along(maps: Array, axis: int, bands: list[_Band], out: Array) -> Array:
    """Multiply a matrix along one axis of a batch, into a contiguous array."""
    before, after = math.prod(maps.shape[:axis]), math.prod(maps.shape[axis + 1 :])
    read = maps.reshape(before, maps.shape[axis], after)
    written = out.reshape(before, out.shape[axis], after)
    for rows, columns, weights in bands:
        if after == 1:
            np.matmul(read[:, columns, 0], weights.T, out=written[:, rows, 0])
        else:
            np.matmul(weights, read[:, columns], out=written[:, rows])
    return out


def resize_matrix(
    n_in: int, n_out: int, method: Interpolation = "bilinear", *, antialias: bool = False
) -> Array:
    """Give the weights by which the new values of an axis follow from the old.

    Parameters
    ----------
    n_in, n_out : int
        The old and the new size of the axis; at least 1.
    method : {"bilinear", "bicubic", "nearest"}
        The interpolation.

        - "bilinear": the triangle kernel.  Equal to PyTorch's "bilinear" and OpenCV's INTER_LINEAR.
        - "bicubic": Keys' kernel with a = -0.75.  Equal to PyTorch's "bicubic" and OpenCV's
          INTER_CUBIC.
        - "nearest": the old pixel on which the new pixel's centre lies; on a border the later one.
          As PyTorch's "nearest-exact" and Pillow's NEAREST.

        Beyond the border the outermost pixel is repeated.
    antialias : bool
        Whether the kernel is stretched by n_in / n_out where the axis shrinks.  It then covers only
        pixels inside the border and is normalised, and the bicubic kernel has a = -0.5: equal to
        Pillow's, and to PyTorch's with ``antialias=True``.

    Returns
    -------
    ndarray (n_out, n_in) of float64
        Read-only and cached.  Every row sums to 1.

    Raises
    ------
    ParameterError
        If a size is not a positive whole number, the method is unknown, or `antialias` goes with
        "nearest".

    References
    ----------
    Keys, "Cubic convolution interpolation for digital image processing", IEEE Transactions on
    Acoustics, Speech, and Signal Processing 29, 1981.

    Examples
    --------
    >>> resize_matrix(2, 4).tolist()
    [[1.0, 0.0], [0.75, 0.25], [0.25, 0.75], [0.0, 1.0]]
    """
    for name, n in (("n_in", n_in), ("n_out", n_out)):
        if not isinstance(n, (int, np.integer)) or n < 1:
            raise ParameterError(
                f"an axis cannot be resized with {name}={n!r}",
                "a whole number of pixels, at least 1",
                "give the size as (height, width) in pixels",
            )
    interpolate = pick(_METHODS, "method", method)
    if antialias and method == "nearest":
        raise ParameterError(
            "antialias=True does not go with method='nearest'",
            "antialias=False, or a method that averages",
            "pass method='bilinear'",
        )
    return interpolate(int(n_in), int(n_out), bool(antialias and n_out < n_in))


@lru_cache(maxsize=16)
def _nearest(n_in: int, n_out: int, stretched: bool) -> Array:
    """Weights of the nearest neighbour, found in whole numbers."""
    return _read_only(np.eye(n_in)[(2 * np.arange(n_out) + 1) * n_in // (2 * n_out)])


@lru_cache(maxsize=16)
def _bilinear(n_in: int, n_out: int, stretched: bool) -> Array:
    """Weights of linear interpolation."""
    if stretched:
        return _stretched(n_in, n_out, _triangle)
    return _sampled(n_in, n_out, _triangle, reach=1)


@lru_cache(maxsize=16)
def _bicubic(n_in: int, n_out: int, stretched: bool) -> Array:
    """Weights of cubic convolution."""
    if stretched:
        return _stretched(n_in, n_out, lambda distance: _keys(distance, a=-0.5))
    return _sampled(n_in, n_out, lambda distance: _keys(distance, a=-0.75), reach=2)


_METHODS: Final = {"bilinear": _bilinear, "bicubic": _bicubic, "nearest": _nearest}


def _centres(n_in: int, n_out: int) -> Array:
    """Centres of the new pixels, counted in old pixels from the centre of the first."""
    centres: Array = ((2 * np.arange(n_out) + 1) * n_in - n_out) / (2 * n_out)
    return centres


def _sampled(n_in: int, n_out: int, kernel: Callable[[Array], Array], reach: int) -> Array:
    """Weights of a kernel that reaches over `reach` pixels to each side, the border repeated."""
    centres = _centres(n_in, n_out)[:, None]
    taps = np.floor(centres).astype(int) + np.arange(1 - reach, 1 + reach)
    matrix = np.zeros((n_out, n_in))
    rows = np.broadcast_to(np.arange(n_out)[:, None], taps.shape)
    np.add.at(matrix, (rows, taps.clip(0, n_in - 1)), kernel(np.abs(centres - taps)))
    return _read_only(matrix)


def _stretched(n_in: int, n_out: int, kernel: Callable[[Array], Array]) -> Array:
    """Weights of a kernel as wide as the new pixels, normalised inside the border."""
    distances = np.abs(_centres(n_in, n_out)[:, None] - np.arange(n_in)) * (n_out / n_in)
    weights = kernel(distances)
    return _read_only(weights / weights.sum(axis=1, keepdims=True))


def _triangle(distance: Array) -> Array:
    """Evaluate the kernel of linear interpolation at distances in pixels."""
    weights: Array = np.maximum(1 - distance, 0)
    return weights


def _keys(distance: Array, a: float) -> Array:
    """Evaluate the kernel of cubic convolution at distances in pixels."""
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = a * (((distance - 5) * distance + 8) * distance - 4)
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0.0))


def _read_only(matrix: Array) -> Array:
    """Lock an array that is going to be shared."""
    matrix.flags.writeable = False
    return matrix
