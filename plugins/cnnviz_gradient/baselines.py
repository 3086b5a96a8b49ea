"""The inputs with which a sample is compared: values, mean colours, blurred and given ones."""

from __future__ import annotations

import numpy as np

from cnnviz_core.blurring import blurred, largest_sigma
from cnnviz_core.errors import ArrayError
from cnnviz_core.model import Array

__all__ = ["baseline_of"]


def baseline_of(x: Array, baseline: float | str | Array) -> Array:
    """Give the baseline of each sample.

    Parameters
    ----------
    x : ndarray (N, ...size, C)
        The batch.
    baseline : float, "mean", "blur" or ndarray
        One value everywhere; the sample's mean colour; the sample, blurred by `largest_sigma` with
        mirrored edges; or an array that broadcasts to a sample's shape.

    Returns
    -------
    ndarray of float64 (N, ...size, C)

    Raises
    ------
    ArrayError
        If the array does not fit a sample.
    """
    if isinstance(baseline, str):
        if baseline == "blur":
            return blurred(x, largest_sigma(x.shape))
        colour = x.mean(axis=tuple(range(1, x.ndim - 1)), keepdims=True, dtype=np.float64)
        return np.broadcast_to(colour, x.shape)
    values = np.asarray(baseline, dtype=np.float64)
    try:
        return np.broadcast_to(np.broadcast_to(values, x.shape[1:]), x.shape)
    except ValueError:
        raise ArrayError(
            f"the baseline has the shape {values.shape}",
            f"a sample's shape, {x.shape[1:]}, or one that broadcasts to it",
            "prepare it as the samples are prepared, without the batch axis",
        ) from None
