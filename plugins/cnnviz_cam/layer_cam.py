"""LayerCAM."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

from cnnviz_cam.observing import observe
from cnnviz_core.explainer import Maps
from cnnviz_core.layers import AUTO
from cnnviz_core.maps import relu
from cnnviz_core.model import Array, Model
from cnnviz_core.parameters import Help
from cnnviz_core.targets import Target

__all__ = ["LayerCAM"]


@dataclass(frozen=True)
class LayerCAM:
    """Feature maps times the positive gradients of the score, position by position.

    With ``A_k`` the k-th feature map of the layer and ``y`` the target's score, the raw map is
    ``sum_k A_k[i, j] max(dy / dA_k[i, j], 0)``; its positive part is shown.  Meant for early
    layers too, whose gradients differ from position to position.

    Parameters
    ----------
    layer : str
        The layer whose feature maps are weighted; "auto" is the last one with a spatial grid.

    References
    ----------
    Jiang et al., "LayerCAM: exploring hierarchical class activation maps for localization", IEEE
    Transactions on Image Processing 30, 2021, section III.
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
        return seen.weighted(relu(seen.gradients))
