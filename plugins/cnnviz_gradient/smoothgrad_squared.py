"""SmoothGrad-squared."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from cnnviz_core.model import Array
from cnnviz_gradient.noise import NoisyGradients

__all__ = ["SmoothGradSquared"]


@dataclass(frozen=True)
class SmoothGradSquared(NoisyGradients):
    """Mean of the squared gradients at noisy copies of the picture.

    The raw result is ``mean_k g_k ** 2`` with ``g_k`` the gradients of SmoothGrad; it has no sign,
    and with the same seed it is SmoothGrad's square plus VarGrad.

    Parameters
    ----------
    noise : float
        Standard deviation of the noise, as a share of the sample's range.
    samples : int
        How many noisy copies there are.
    seed : int
        Of the noise.
    batch_size : int
        How many copies go through the network at once.

    References
    ----------
    Hooker et al., "A benchmark for interpretability methods in deep neural networks", NeurIPS 2019,
    section 3.
    """

    def _moment(self, gradients: Iterator[Array], shape: tuple[int, ...]) -> Array:
        """Take the mean of the squares."""
        total = np.zeros(shape)
        for gradient in gradients:
            total += np.square(gradient, dtype=np.float64)
        return total / self.samples
