"""Noisy copies of a batch, the same for every method, backend and batch."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from cnnviz_core.model import Array

__all__ = ["noisy_copies", "value_range"]


def value_range(x: Array) -> Array:
    """Give each sample's largest less its least value.

    Parameters
    ----------
    x : ndarray (N, ...)
        The batch.

    Returns
    -------
    ndarray of float64 (N, 1, ...)
        Broadcasts to `x`.
    """
    axes = tuple(range(1, x.ndim))
    low, high = (f(x, axis=axes, keepdims=True).astype(np.float64) for f in (np.min, np.max))
    difference: Array = high - low
    return difference


def noisy_copies(x: Array, noise: float, copies: int, seed: int) -> Iterator[Array]:
    """Add normal noise to a batch, as SmoothGrad does.

    The draws depend on the seed and on a sample's shape alone: every sample of a batch gets the
    same, scaled to its own range, so that its result does not depend on its batch.

    Parameters
    ----------
    x : ndarray (N, ...)
        The batch, floating.
    noise : float
        The noise's standard deviation, as a fraction of each sample's range, its largest less its
        least value.
    copies : int
        How many copies to give.
    seed : int
        For NumPy's generator.

    Yields
    ------
    ndarray (N, ...)
        A noisy copy of the batch, in its type; drawn when it is asked for.

    References
    ----------
    Smilkov et al., "SmoothGrad: removing noise by adding noise", 2017.

    Examples
    --------
    >>> import numpy as np
    >>> [copy.shape for copy in noisy_copies(np.zeros((2, 5, 1)), 0.15, 3, seed=0)]
    [(2, 5, 1), (2, 5, 1), (2, 5, 1)]
    """
    rng = np.random.default_rng(seed)
    deviation = noise * value_range(x)
    for _ in range(copies):
        yield (x + deviation * rng.standard_normal(x.shape[1:])).astype(x.dtype)
