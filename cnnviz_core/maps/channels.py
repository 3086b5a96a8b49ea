"""From feature maps to one map: weighting channels, fusing maps, keeping the positive part."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final, Literal, TypeAlias

import numpy as np

from cnnviz_core.errors import ArrayError
from cnnviz_core.maps._checks import checked_maps, pick
from cnnviz_core.model import Array

__all__ = ["Combination", "channel_means", "combine", "relu", "weight_channels"]

Combination: TypeAlias = Literal["mean", "sum", "max", "min", "product"]

_COMBINATIONS: Final = {
    "mean": np.mean,
    "sum": np.sum,
    "max": np.max,
    "min": np.min,
    "product": np.prod,
}
_ANY_GRID: Final = range(2, 33)
"""The ranks of a batch of channels on a grid of any rank."""


def weight_channels(features: Array, weights: Array) -> Array:
    """Sum feature maps over their channels, weighted.

    Parameters
    ----------
    features : ndarray (N, ...grid, C)
        Feature maps on a grid of any rank, (N, h, w, C) for pictures.
    weights : ndarray (N, C) or (N, ...grid, C)
        A weight for each channel, or for each channel at each position.

    Returns
    -------
    ndarray (N, ...grid)
        The signed sums.  Where a sample is not finite its map is not either; see `map_status`.

    Raises
    ------
    ArrayError
        If the shapes do not fit.

    References
    ----------
    One weight for each channel: Zhou et al., "Learning deep features for discriminative
    localization", CVPR 2016, equation 2; Selvaraju et al., "Grad-CAM", ICCV 2017, equation 2.
    One for each position: Jiang et al., "LayerCAM: exploring hierarchical class activation maps for
    localization", IEEE Transactions on Image Processing 30, 2021; Draelos and Carin, "Use HiResCAM
    instead of Grad-CAM", 2020.

    Examples
    --------
    >>> import numpy as np
    >>> features = np.array([[[[1.0, 2.0], [3.0, 4.0]]]])
    >>> weight_channels(features, np.array([[1.0, -1.0]])).tolist()
    [[[-1.0, -1.0]]]
    """
    features = checked_maps(features, "features", _ANY_GRID, "(N, ...grid, C)")
    weights = checked_maps(weights, "weights", _ANY_GRID, "(N, C) or (N, ...grid, C)")
    samples, *grid, channels = features.shape
    per_channel = weights.shape == (samples, channels)
    if not per_channel and weights.shape != features.shape:
        raise ArrayError(
            f"weights of the shape {weights.shape} were given to features of the shape "
            f"{features.shape}",
            f"({samples}, {channels}), or the shape of the features",
            "give one weight for each sample and channel; one weighting for all samples is "
            "numpy.broadcast_to(weights, (N, C))",
        )
    # Neither product makes a temporary of the features' size.
    with np.errstate(over="ignore", invalid="ignore"):
        if per_channel:
            positions = features.reshape(samples, math.prod(grid), channels)
            sums: Array = np.matmul(positions, weights[:, :, None]).reshape(samples, *grid)
        else:
            sums = np.einsum("...c,...c->...", features, weights)
    return sums


def channel_means(gradients: Array) -> Array:
    """Average over the positions of a grid.

    Of the gradient of a score with respect to feature maps these are the channels' weights in
    Grad-CAM, ``a_k = mean_ij dy / dA_k[i, j]``.

    Parameters
    ----------
    gradients : ndarray (N, ...grid, C)
        Values on a grid of any rank.

    Returns
    -------
    ndarray (N, C)
        The means, summed in double precision.

    Raises
    ------
    ArrayError
        If the array has no grid.

    References
    ----------
    Selvaraju et al., "Grad-CAM: visual explanations from deep networks via gradient-based
    localization", ICCV 2017, equation 1.

    Examples
    --------
    >>> import numpy as np
    >>> channel_means(np.array([[[1.0, 2.0], [3.0, 6.0]]])).tolist()
    [[2.0, 4.0]]
    """
    gradients = checked_maps(gradients, "gradients", _ANY_GRID[1:], "(N, ...grid, C)")
    with np.errstate(over="ignore", invalid="ignore"):
        means = gradients.mean(axis=tuple(range(1, gradients.ndim - 1)), dtype=np.float64)
        rounded: Array = means.astype(gradients.dtype, copy=False)
    return rounded


def combine(maps: Sequence[Array], how: Combination = "mean") -> Array:
    """Fuse several maps of one size into one, value by value.

    Parameters
    ----------
    maps : sequence of ndarray, each (N, ...)
        The maps of several layers or methods, already of equal size and on comparable scales.
    how : {"mean", "sum", "max", "min", "product"}
        What becomes of the values at one position.

    Returns
    -------
    ndarray (N, ...)

    Raises
    ------
    ArrayError
        If there is no map, or the shapes differ.
    ParameterError
        If `how` is unknown.

    References
    ----------
    "max" fuses layers in Jiang et al., "LayerCAM: exploring hierarchical class activation maps for
    localization", IEEE Transactions on Image Processing 30, 2021; "product" fuses guided
    backpropagation and Grad-CAM in Selvaraju et al., "Grad-CAM", ICCV 2017, section 3.2.

    Examples
    --------
    >>> import numpy as np
    >>> combine([np.array([[[0.0, 1.0]]]), np.array([[[1.0, 3.0]]])], "max").tolist()
    [[[1.0, 3.0]]]
    """
    fuse: Any = pick(_COMBINATIONS, "how", how)
    given = [checked_maps(m, f"map {i}", range(1, 33), "(N, ...)") for i, m in enumerate(maps)]
    shapes = list(dict.fromkeys(m.shape for m in given))
    if len(shapes) != 1:
        raise ArrayError(
            f"the maps have the shapes {', '.join(map(str, shapes))}" if shapes else "no map given",
            "at least one map, all of one shape",
            "resize them to one size with cnnviz_core.maps.resize",
        )
    fused: Array = fuse(np.stack(given), axis=0)
    return fused


def relu(maps: Array) -> Array:
    """Keep the positive part.

    Parameters
    ----------
    maps : ndarray
        Signed maps of any shape.

    Returns
    -------
    ndarray
        ``max(maps, 0)``; NaN stays NaN.

    Examples
    --------
    >>> import numpy as np
    >>> relu(np.array([-1.0, 0.0, 2.0])).tolist()
    [0.0, 0.0, 2.0]
    """
    return np.maximum(checked_maps(maps, "maps", range(33), "(N, ...)"), 0)
