"""Gradient times input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from cnnviz_core.explainer import Maps
from cnnviz_core.model import Array, Model, as_float
from cnnviz_core.rules import STANDARD
from cnnviz_core.targets import Target
from cnnviz_gradient.attributions import ATTRIBUTION
from cnnviz_gradient.input_gradient import input_gradient

__all__ = ["GradientXInput"]


@dataclass(frozen=True)
class GradientXInput:
    """Gradient of the score, times the picture.

    With ``y`` the target's score, the raw result is ``x * dy / dx`` for each pixel and channel: the
    first term of the score's expansion about an input of zeros, in the network's own value range.
    Of a network that is linear it adds up to the score less that of zeros.

    References
    ----------
    Shrikumar et al., "Not just a black box: learning important features through propagating
    activation differences", 2016, section 2.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"gradient"})

    def explain(self, model: Model, x: Array, targets: Sequence[Target]) -> Maps:
        """Explain the targets' scores on a batch.

        Parameters
        ----------
        model : Model
            The network.
        x : ndarray (N, H, W, C)
            The batch; of signals (N, L, C), of volumes (N, D, H, W, C).
        targets : sequence of Target
            One for each sample.

        Returns
        -------
        Maps
            With the raw product of the shape of `x`, signed; the sum of its magnitudes over the
            channels shows.
        """
        x = as_float(x)
        maps = input_gradient(model, x, targets, STANDARD)
        return replace(maps, raw=(x * maps.raw).astype(x.dtype), presentation=ATTRIBUTION)
