"""Counterfactual Grad-CAM."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

from cnnviz_cam.observing import observe
from cnnviz_core.explainer import Maps
from cnnviz_core.layers import AUTO
from cnnviz_core.maps import channel_means
from cnnviz_core.model import Array, Model
from cnnviz_core.parameters import Help
from cnnviz_core.targets import Target

__all__ = ["CounterfactualGradCAM"]


@dataclass(frozen=True)
class CounterfactualGradCAM:
    """Grad-CAM of the negated score: what speaks against the target.

    With ``A_k`` the k-th feature map of the layer and ``y`` the target's score, the weight of a
    channel is ``-mean_ij dy / dA_k[i, j]``, and the raw map is the weighted sum of the feature
    maps, which is that of Grad-CAM negated; its positive part is shown.  It marks the regions
    whose removal would raise the score.

    Parameters
    ----------
    layer : str
        The layer whose feature maps are weighted; "auto" is the last one with a spatial grid.

    References
    ----------
    Selvaraju et al., "Grad-CAM: visual explanations from deep networks via gradient-based
    localization", ICCV 2017, section 3.3.
    """

    layer: Annotated[str, Help("layer to look at; auto is the last one with a spatial grid")] = AUTO

    needs: ClassVar[frozenset[str]] = frozenset({"capture", "gradient"})

    def explain(self, model: Model, x: Array, targets: Sequence[Target]) -> Maps:
        """Explain what lowers the targets' scores on a batch.

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
            With the raw map (N, h, w) at the layer's size, before its positive part is taken;
            `scores` are the targets' own, not negated.

        Raises
        ------
        UnknownLayerError
            If the layer does not exist or has no spatial grid.
        """
        seen = observe(model, x, targets, self.layer)
        return seen.weighted(-channel_means(seen.gradients))
