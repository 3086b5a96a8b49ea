"""Guided backpropagation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from cnnviz_core.explainer import Maps
from cnnviz_core.model import Array, Model
from cnnviz_core.rules import GUIDED
from cnnviz_core.targets import Target
from cnnviz_gradient.input_gradient import input_gradient

__all__ = ["GuidedBackprop"]


@dataclass(frozen=True)
class GuidedBackprop:
    """Gradient of which rectifiers let only the positive part pass.

    At a rectifier with input ``f``, the gradient ``g`` from above becomes
    ``(f > 0) * max(g, 0)``; everything else is differentiated as it is.

    References
    ----------
    Springenberg et al., "Striving for simplicity: the all convolutional net", ICLR workshop 2015,
    figure 1.
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
        return input_gradient(model, x, targets, GUIDED)
