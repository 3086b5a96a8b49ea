"""The gradient of the score with respect to the picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from cnnviz_core.explainer import Maps
from cnnviz_core.model import Array, Model
from cnnviz_core.rules import STANDARD
from cnnviz_core.targets import Target
from cnnviz_gradient.input_gradient import input_gradient

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
        return input_gradient(model, x, targets, STANDARD)
