"""Guided backpropagation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from cnnviz_core.explainer import Maps, Presentation
from cnnviz_core.model import INPUT, Array, Model
from cnnviz_core.rules import GUIDED
from cnnviz_core.targets import Target, cotangent_of, resolve_all, scores_of, target_node

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
        of = target_node(targets)
        back = model.pullback(x, cotangent_of(targets), of=of, wrt=(INPUT,), rule=GUIDED)
        return Maps(
            raw=back.gradients[INPUT],
            scores=scores_of(targets, back.values[of]),
            targets=resolve_all(targets, back.values[of]),
            presentation=Presentation(sign="absolute", reduce="max-abs"),
        )
