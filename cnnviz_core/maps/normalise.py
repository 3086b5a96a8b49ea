"""Scaling maps for the eye, each sample by itself; never baked into a method's numbers."""

from __future__ import annotations

import numpy as np

from cnnviz_core.errors import ArrayError, ParameterError
from cnnviz_core.model import Array, as_float

__all__ = ["min_max", "percentile_clip", "reduce_channels", "scale_to_max", "symmetric"]


def _axes(maps: Array) -> tuple[int, ...]:
    """Give all axes but the batch's."""
    return tuple(range(1, maps.ndim))


def _divide(values: Array, by: Array) -> Array:
    """Divide, and give zeros where the divisor is zero."""
    return np.divide(values, by, out=np.zeros_like(values), where=by > 0)


def min_max(maps: Array) -> Array:
    """Scale each map to [0, 1].

    Parameters
    ----------
    maps : ndarray (N, ...)
        Any finite values.

    Returns
    -------
    ndarray (N, ...)
        In [0, 1]; a constant map becomes zeros.
    """
    maps = as_float(maps)
    low = maps.min(axis=_axes(maps), keepdims=True)
    # Halves keep the difference of two huge values from overflowing.
    half = maps * 0.5 - low * 0.5
    return _divide(half, half.max(axis=_axes(maps), keepdims=True))


def scale_to_max(maps: Array) -> Array:
    """Divide each map by its maximum.

    Parameters
    ----------
    maps : ndarray (N, ...)
        Any finite values.

    Returns
    -------
    ndarray (N, ...)
        At most 1; zeros for a map without a positive value.
    """
    maps = as_float(maps)
    return _divide(maps, maps.max(axis=_axes(maps), keepdims=True))


def symmetric(maps: Array) -> Array:
    """Divide each map by its largest magnitude, so that zero stays zero.

    Parameters
    ----------
    maps : ndarray (N, ...)
        Any finite values.

    Returns
    -------
    ndarray (N, ...)
        In [-1, 1]; zeros for a map of zeros.
    """
    maps = as_float(maps)
    return _divide(maps, np.abs(maps).max(axis=_axes(maps), keepdims=True))


def percentile_clip(maps: Array, q: float = 99.0) -> Array:
    """Clip each map's magnitudes to a percentile, so that few outliers do not darken the rest.

    Parameters
    ----------
    maps : ndarray (N, ...)
        Any finite values.
    q : float
        The percentile of the magnitudes, in [0, 100].

    Returns
    -------
    ndarray (N, ...)

    Raises
    ------
    ParameterError
        If `q` is out of its range.
    """
    maps = as_float(maps)
    if not 0 <= q <= 100:
        raise ParameterError(f"the percentile is {q}", "a number in [0, 100]", "use 99")
    limit = np.percentile(np.abs(maps), q, axis=_axes(maps), keepdims=True).astype(maps.dtype)
    return np.clip(maps, -limit, limit)


_REDUCTIONS = {
    "max-abs": lambda a: np.abs(a).max(-1),
    "mean-abs": lambda a: np.abs(a).mean(-1),
    "sum-abs": lambda a: np.abs(a).sum(-1),
    "l2": lambda a: np.sqrt(np.square(a).sum(-1)),
    "sum": lambda a: a.sum(-1),
    "mean": lambda a: a.mean(-1),
}


def reduce_channels(attributions: Array, how: str = "max-abs") -> Array:
    """Reduce attributions to input values over their channels.

    Parameters
    ----------
    attributions : ndarray (N, H, W, C)
        One value for each input value.
    how : {"max-abs", "mean-abs", "sum-abs", "l2", "sum", "mean"}
        "max-abs" is the largest magnitude; "sum" and "mean" keep the sign.

    Returns
    -------
    ndarray (N, H, W)

    Raises
    ------
    ArrayError
        If the rank is not 4.
    ParameterError
        If `how` is unknown.

    References
    ----------
    Simonyan et al., "Deep inside convolutional networks", 2014, section 3.1: the largest magnitude.
    """
    attributions = as_float(attributions)
    if attributions.ndim != 4:
        raise ArrayError(
            f"attributions of the shape {attributions.shape}",
            "(N, H, W, C)",
            "add the axis that lacks",
        )
    if how not in _REDUCTIONS:
        raise ParameterError(
            f"channels cannot be reduced by {how!r}",
            f"one of {', '.join(_REDUCTIONS)}",
            "use 'max-abs'",
        )
    reduced: Array = _REDUCTIONS[how](attributions)
    return reduced
