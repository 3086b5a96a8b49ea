"""SmoothGrad."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from cnnviz_core.model import Array
from cnnviz_gradient.noise import NoisyGradients

__all__ = ["SmoothGrad"]


@dataclass(frozen=True)
class SmoothGrad(NoisyGradients):
    """Mean of the gradients at noisy copies of the picture.

    With ``y`` the target's score, ``s`` the noise's share of the sample's range and ``e_k``
    standard normal, the raw result is ``mean_k dy / dx (x + s * (max x - min x) * e_k)``, signed.

    Parameters
    ----------
    noise : float
        Standard deviation of the noise, as a share of the sample's range; the authors recommend
        0.1 to 0.2.
    samples : int
        How many noisy copies there are; 1, without noise, is the plain gradient.
    seed : int
        Of the noise.
    batch_size : int
        How many copies go through the network at once.

    References
    ----------
    Smilkov et al., "SmoothGrad: removing noise by adding noise", 2017, section 3.
    """

    def _moment(self, gradients: Iterator[Array], shape: tuple[int, ...]) -> Array:
        """Take the mean."""
        total = np.zeros(shape)
        for gradient in gradients:
            total += gradient
        return total / self.samples
