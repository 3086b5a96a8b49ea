"""From feature maps to one map: weighting, combination, rectification."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from cnnviz_core.errors import ArrayError, ParameterError
from cnnviz_core.model import Array, as_float

__all__ = ["channel_means", "combine", "relu", "weight_channels"]


def weight_channels(features: Array, weights: Array) -> Array:
    """Sum feature maps, each times its weight.

    Parameters
    ----------
    features : ndarray (N, ...grid, C)
        Feature maps of any grid.
    weights : ndarray (N, C) or (N, ...grid, C)
        One weight for each channel, or for each value.

    Returns
    -------
    ndarray (N, ...grid)

    Raises
    ------
    ArrayError
        If the shapes do not fit.

    Examples
    --------
    >>> weight_channels(np.ones((1, 2, 2, 3)), np.array([[1.0, 2.0, 3.0]]))
    array([[[6., 6.],
            [6., 6.]]])
    """
    features, weights = as_float(features), as_float(weights)
    n, *grid, channels = features.shape if features.ndim > 1 else (0, 0)
    if weights.shape == (n, channels):
        flat = features.reshape(n, -1, channels)
        return np.matmul(flat, weights[:, :, None]).reshape(n, *grid)
    if weights.shape == features.shape:
        return np.einsum("n...c,n...c->n...", features, weights)
    raise ArrayError(
        f"features of the shape {features.shape} and weights of the shape {weights.shape}",
        "features (N, ...grid, C) with weights (N, C), or of the features' shape",
        "give one weight for each sample and channel",
    )


def channel_means(gradients: Array) -> Array:
    """Average over the grid.

    Parameters
    ----------
    gradients : ndarray (N, ...grid, C)
        The score's gradient with respect to feature maps.

    Returns
    -------
    ndarray (N, C)

    Raises
    ------
    ArrayError
        If there is no grid.

    References
    ----------
    Selvaraju et al., "Grad-CAM", ICCV 2017, equation 1.
    """
    gradients = as_float(gradients)
    if gradients.ndim < 3:
        raise ArrayError(
            f"gradients of the shape {gradients.shape} have no grid",
            "(N, ...grid, C)",
            "take the gradient at a layer with a spatial grid",
        )
    means: Array = gradients.mean(axis=tuple(range(1, gradients.ndim - 1)))
    return means


def combine(maps: Sequence[Array], how: Literal["mean", "max", "sum", "product"] = "mean") -> Array:
    """Fuse several maps of one size into one.

    Parameters
    ----------
    maps : sequence of ndarray (N, ...)
        Maps of equal shapes.
    how : {"mean", "max", "sum", "product"}
        What is done at each position.

    Returns
    -------
    ndarray (N, ...)

    Raises
    ------
    ArrayError
        If there are none, or the shapes differ.
    ParameterError
        If `how` is unknown.
    """
    ways = {"mean": np.mean, "max": np.max, "sum": np.sum, "product": np.prod}
    if how not in ways:
        raise ParameterError(
            f"maps cannot be combined by {how!r}", f"one of {', '.join(ways)}", "use 'mean'"
        )
    shapes = {np.shape(m) for m in maps}
    if len(shapes) != 1:
        raise ArrayError(
            f"maps of {len(shapes)} shapes were to be combined: {sorted(shapes)}",
            "at least one map, all of one shape",
            "resize them to one size first",
        )
    combined: Array = ways[how](np.stack([as_float(m) for m in maps]), axis=0)
    return combined


def relu(maps: Array) -> Array:
    """Keep the positive part.

    Parameters
    ----------
    maps : ndarray
        Any values.

    Returns
    -------
    ndarray
        Of the same shape, at least 0; NaN stays NaN.
    """
    return np.maximum(as_float(maps), 0)
