"""VarGrad."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from cnnviz_core.model import Array
from cnnviz_gradient.noise import NoisyGradients

__all__ = ["VarGrad"]


@dataclass(frozen=True)
class VarGrad(NoisyGradients):
    """Variance of the gradients at noisy copies of the picture.

    The raw result is ``mean_k (g_k - mean_j g_j) ** 2`` with ``g_k`` the gradients of SmoothGrad:
    the population's variance, divided by the number of copies.  It is summed up as the copies come,
    by Welford's recurrence, which does not cancel as the difference of two moments does.

    Parameters
    ----------
    noise : float
        Standard deviation of the noise, as a share of the sample's range.
    samples : int
        How many noisy copies there are; of one the variance is 0.
    seed : int
        Of the noise.
    batch_size : int
        How many copies go through the network at once.

    References
    ----------
    Adebayo et al., "Local explanation methods for deep neural networks lack sensitivity to
    parameter values", ICLR workshop 2018, section 2.  Welford, "Note on a method for calculating
    corrected sums of squares and products", Technometrics 4, 1962.
    """

    def _moment(self, gradients: Iterator[Array], shape: tuple[int, ...]) -> Array:
        """Take the variance."""
        mean, squares = np.zeros(shape), np.zeros(shape)
        for k, gradient in enumerate(gradients, start=1):
            off = gradient - mean
            mean += off / k
            squares += off * (gradient - mean)
        return squares / self.samples
