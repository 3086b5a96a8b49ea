"""HiResCAM."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

from cnnviz_cam.observing import observe
from cnnviz_core.explainer import Maps
from cnnviz_core.layers import AUTO
from cnnviz_core.model import Array, Model
from cnnviz_core.parameters import Help
from cnnviz_core.targets import Target

__all__ = ["HiResCAM"]


@dataclass(frozen=True)
class HiResCAM:
    """Feature maps times the gradient of the score, position by position.

    With ``A_k`` the k-th feature map of the layer and ``y`` the target's score, the raw map is
    ``sum_k A_k[i, j] dy / dA_k[i, j]``; its positive part is shown.  Where the score is a linear
    function of the layer, the map sums to the score without its bias, so that it shows where the
    score comes from; Grad-CAM, which averages the gradient first, need not.

    Parameters
    ----------
    layer : str
        The layer whose feature maps are weighted; "auto" is the last one with a spatial grid.

    References
    ----------
    Draelos and Carin, "Use HiResCAM instead of Grad-CAM for faithful explanations of convolutional
    neural networks", 2020, arXiv:2011.08891.
    """

    layer: Annotated[str, Help("layer to look at; auto is the last one with a spatial grid")] = AUTO

    needs: ClassVar[frozenset[str]] = frozenset({"capture", "gradient"})

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
            With the raw map (N, h, w) at the layer's size, before its positive part is taken.

        Raises
        ------
        UnknownLayerError
            If the layer does not exist or has no spatial grid.
        """
        seen = observe(model, x, targets, self.layer)
        return seen.weighted(seen.gradients)
