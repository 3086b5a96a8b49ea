"""The gradient of the score with respect to the picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from cnnviz_core.explainer import Maps, Presentation
from cnnviz_core.model import INPUT, Array, Model
from cnnviz_core.targets import Target, cotangent_of, resolve_all, scores_of, target_node

__all__ = ["Saliency"]


@dataclass(frozen=True)
class Saliency:
    """Gradient of the score with respect to the picture.

    With ``y`` the target's score, the raw result is ``dy / dx`` for each pixel and channel.  The
    paper's map is the largest magnitude over the channels, which is how it is shown.

    References
    ----------
    Simonyan et al., "Deep inside convolutional networks: visualising image classification models
    and saliency maps", ICLR workshop 2014, section 3.1.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"gradient"})

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
        """
        of = target_node(targets)
        back = model.pullback(x, cotangent_of(targets), of=of, wrt=(INPUT,))
        return Maps(
            raw=back.gradients[INPUT],
            scores=scores_of(targets, back.values[of]),
            targets=resolve_all(targets, back.values[of]),
            presentation=Presentation(sign="absolute", reduce="max-abs"),
        )
