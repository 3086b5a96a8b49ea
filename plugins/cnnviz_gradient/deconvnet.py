"""The deconvolutional network's projection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from cnnviz_core.explainer import Maps
from cnnviz_core.model import Array, Model
from cnnviz_core.rules import DECONVNET
from cnnviz_core.targets import Target
from cnnviz_gradient.input_gradient import input_gradient

__all__ = ["Deconvnet"]


@dataclass(frozen=True)
class Deconvnet:
    """The score projected to the picture through a deconvolutional network.

    At a rectifier the gradient ``g`` from above becomes ``max(g, 0)``, whatever its input was;
    max-pooling hands it to the position that won, which is the switch of the deconvolutional
    network; everything else is differentiated as it is.  Where pools overlap, a position that won
    several times receives the sum.

    References
    ----------
    Zeiler & Fergus, "Visualizing and understanding convolutional networks", ECCV 2014, section 2.1.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"gradient", "rule:relu"})

    def explain(self, model: Model, x: Array, targets: Sequence[Target]) -> Maps:
        """Explain the targets' scores on a batch.

        Parameters
        ----------
        model : Model
            The network.
        x : ndarray (N, H, W, C)
            The batch.
        targets : sequence of Target
            One for each sample.

        Returns
        -------
        Maps
            With the raw gradient (N, H, W, C), signed.

        Raises
        ------
        RuleError
            If no rectifier lies between the score and the picture, so that the result would be the
            plain gradient.
        """
        return input_gradient(model, x, targets, DECONVNET)
