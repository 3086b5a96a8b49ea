"""Bringing maps to a range in which they can be looked at and compared.

Each sample is normalised by itself, unless `axis` says otherwise.  A map in which nothing can be
told apart, because it is constant, or holds NaN or infinity, becomes zeros; `map_status` tells
these apart.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

import numpy as np

from cnnviz_core.errors import ParameterError
from cnnviz_core.maps._checks import checked_maps, parts_of, pick
from cnnviz_core.model import Array

__all__ = [
    "min_max",
    "percentile_clip",
    "reduce_channels",
    "scale_to_max",
    "symmetric",
]

Axis: TypeAlias = int | tuple[int, ...] | None
Scale: TypeAlias = Callable[[Array, Array, Array, Array], None]
"""Takes maps, their least and their largest values, and where to write them scaled."""

_REDUCTIONS: Final[dict[str, Callable[[Array], Array]]] = {
    "max-abs": lambda channels: np.abs(channels).max(axis=0),
    "sum": lambda channels: channels.sum(axis=0),
    "mean": lambda channels: channels.mean(axis=0),
    "sum-abs": lambda channels: np.abs(channels).sum(axis=0),
    "mean-abs": lambda channels: np.abs(channels).mean(axis=0),
    # Not the root of a sum of squares: the square of a small gradient is zero in float32.
    "l2": lambda channels: np.hypot.reduce(channels, axis=0, initial=0),
}


def min_max(maps: Array, axis: Axis = None) -> Array:
    """Shift and scale each map so that its least value is 0 and its largest 1.

    Parameters
    ----------
    maps : ndarray (N, ...)
        Signed maps.
    axis : int or tuple of int, optional
        The axes over which a minimum and a maximum are taken; all but the first by default.
        ``axis=(1, 2)`` treats every channel of (N, h, w, C) by itself, as Score-CAM does.

    Returns
    -------
    ndarray (N, ...)
        In [0, 1]; zeros where a map is constant or not finite.

    Raises
    ------
    ArrayError
        If `maps` is not (N, ...) with at least one value for each sample.
    ParameterError
        If `maps` has no such axis.

    Examples
    --------
    >>> import numpy as np
    >>> min_max(np.array([[-2.0, 0.0, 2.0], [5.0, 5.0, 5.0]])).tolist()
    [[0.0, 0.5, 1.0], [0.0, 0.0, 0.0]]
    """
    return _in_parts(_to_unit, maps, axis)


def scale_to_max(maps: Array, axis: Axis = None) -> Array:
    """Divide each map by its maximum, so that 0 keeps its meaning.

    Parameters
    ----------
    maps : ndarray (N, ...)
        Maps without negative values, such as the positive part of a class activation map.
    axis : int or tuple of int, optional
        The axes over which the maximum is taken; all but the first by default.

    Returns
    -------
    ndarray (N, ...)
        In [0, 1]; zeros where no value of a map is positive, or one is not finite.

    Raises
    ------
    ArrayError
        If `maps` is not (N, ...) with at least one value for each sample.
    ParameterError
        If `maps` has no such axis.

    Examples
    --------
    >>> import numpy as np
    >>> scale_to_max(np.array([[0.0, 1.0, 4.0], [0.0, 0.0, 0.0]])).tolist()
    [[0.0, 0.25, 1.0], [0.0, 0.0, 0.0]]
    """
    return _in_parts(_to_maximum, maps, axis)


def symmetric(maps: Array, axis: Axis = None) -> Array:
    """Divide each map by its largest magnitude, so that 0 and the signs keep their meaning.

    Parameters
    ----------
    maps : ndarray (N, ...)
        Signed attributions.
    axis : int or tuple of int, optional
        The axes over which the largest magnitude is taken; all but the first by default.

    Returns
    -------
    ndarray (N, ...)
        In [-1, 1]; zeros where a map is all zero or not finite.

    Raises
    ------
    ArrayError
        If `maps` is not (N, ...) with at least one value for each sample.
    ParameterError
        If `maps` has no such axis.

    Examples
    --------
    >>> import numpy as np
    >>> symmetric(np.array([[-4.0, 0.0, 2.0]])).tolist()
    [[-1.0, 0.0, 0.5]]
    """
    return _in_parts(_to_magnitude, maps, axis)


def percentile_clip(maps: Array, q: float = 99.0, axis: Axis = None) -> Array:
    """Cap the magnitudes of each map at a percentile of them, so that a few outliers do not rule.

    Parameters
    ----------
    maps : ndarray (N, ...)
        Attributions, signed or not.
    q : float
        The percentile of the magnitudes, in [0, 100].
    axis : int or tuple of int, optional
        The axes over which the percentile is taken; all but the first by default.

    Returns
    -------
    ndarray (N, ...)
        Signs are kept.  A map so sparse that the percentile is 0 is kept as it is: a cap of 0 would
        erase it.  So is one that holds NaN or infinity.

    Raises
    ------
    ArrayError
        If `maps` is not (N, ...) with at least one value for each sample.
    ParameterError
        If `q` is out of its range, or `maps` has no such axis.

    References
    ----------
    Smilkov et al., "SmoothGrad: removing noise by adding noise", 2017, section 3.1, caps outlying
    gradients at the 99th percentile.

    Examples
    --------
    >>> import numpy as np
    >>> percentile_clip(np.array([[1.0, 2.0, -100.0]]), 50).tolist()
    [[1.0, 2.0, -2.0]]
    """
    maps, axes = _checked(maps, axis)
    if not 0 <= q <= 100:
        raise ParameterError(
            f"q={q!r} is out of range", "a percentile from 0 to 100", "pass q=99 or leave it out"
        )
    magnitudes = np.abs(maps)
    with np.errstate(invalid="ignore"):
        cap = np.percentile(magnitudes, q, axis=axes, keepdims=True).astype(maps.dtype)
    usable = (cap > 0) & np.isfinite(magnitudes.max(axis=axes, keepdims=True))
    cap = np.where(usable, cap, np.inf)
    return np.clip(maps, -cap, cap)


def reduce_channels(attributions: Array, how: str = "max-abs") -> Array:
    """Make one value of the values that a position has in several channels.

    Parameters
    ----------
    attributions : ndarray (N, ...grid, C)
        Signed attributions to input values, (N, H, W, C) for pictures.
    how : {"max-abs", "sum", "mean", "sum-abs", "mean-abs", "l2"}
        - "max-abs": the largest magnitude, as for saliency maps.
        - "sum", "mean": signed; the sum keeps the completeness of integrated gradients.
        - "sum-abs", "mean-abs": of the magnitudes.
        - "l2": the Euclidean norm.

    Returns
    -------
    ndarray (N, ...grid)

    Raises
    ------
    ArrayError
        If the array has no channels.
    ParameterError
        If `how` is unknown.

    References
    ----------
    "max-abs": Simonyan et al., "Deep inside convolutional networks: visualising image
    classification models and saliency maps", ICLR workshop 2014, section 3.1.

    Examples
    --------
    >>> import numpy as np
    >>> reduce_channels(np.array([[[1.0, -3.0, 2.0]]])).tolist()
    [[3.0]]
    """
    reduce = pick(_REDUCTIONS, "how", how)
    values = checked_maps(attributions, "attributions", range(2, 33), "(N, ...grid, C)")
    # NumPy reduces a long outer axis many times faster than a short inner one.
    return reduce(np.ascontiguousarray(np.moveaxis(values, -1, 0)))


def _checked(maps: Array, axis: Axis) -> tuple[Array, tuple[int, ...]]:
    """Check maps and axes; by default all axes but the first."""
    maps = checked_maps(maps, "maps", range(2, 33), "(N, ...)")
    if axis is None:
        return maps, tuple(range(1, maps.ndim))
    axes = (axis,) if isinstance(axis, int) else tuple(axis)
    if not all(-maps.ndim <= a < maps.ndim for a in axes):
        raise ParameterError(
            f"axis={axis!r} does not exist in maps of the shape {maps.shape}",
            f"axes from {-maps.ndim} to {maps.ndim - 1}",
            "leave it out to treat each sample by itself",
        )
    return maps, axes


def _in_parts(scale: Scale, maps: Array, axis: Axis) -> Array:
    """Scale maps into a new array, a few samples at a time unless they are scaled together."""
    maps, axes = _checked(maps, axis)
    scaled = np.empty_like(maps)
    together = any(a % maps.ndim == 0 for a in axes)
    for part in [slice(None)] if together else parts_of(maps):
        lowest = maps[part].min(axis=axes, keepdims=True)
        highest = maps[part].max(axis=axes, keepdims=True)
        scale(maps[part], lowest, highest, scaled[part])
    return scaled


def _to_unit(maps: Array, lowest: Array, highest: Array, out: Array) -> None:
    """Bring the least value to 0 and the largest to 1."""
    with np.errstate(invalid="ignore"):
        # Halves keep the difference of two huge values from overflowing.
        span = highest * 0.5 - lowest * 0.5
        np.multiply(maps, 0.5, out=out)
        out -= lowest * 0.5
    _divide(out, span, _finite(lowest, highest), out)


def _to_maximum(maps: Array, lowest: Array, highest: Array, out: Array) -> None:
    """Bring the largest value to 1, and leave 0 where it is."""
    _divide(maps, highest, _finite(lowest, highest), out)


def _to_magnitude(maps: Array, lowest: Array, highest: Array, out: Array) -> None:
    """Bring the largest magnitude to 1, and leave 0 where it is."""
    _divide(maps, np.maximum(-lowest, highest), _finite(lowest, highest), out)


def _finite(lowest: Array, highest: Array) -> Array:
    """Tell which maps are finite everywhere: NaN is the extreme of what holds it."""
    finite: Array = np.isfinite(lowest) & np.isfinite(highest)
    return finite


def _divide(maps: Array, by: Array, finite: Array, out: Array) -> None:
    """Divide each map by its divisor; give zeros if that is zero or the map is not finite."""
    usable = finite & (by > 0)
    np.divide(maps, np.where(usable, by, 1), out=out)
    if not usable.all():
        np.copyto(out, 0, where=~usable)
