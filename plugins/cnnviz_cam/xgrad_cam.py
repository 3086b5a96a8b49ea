"""XGrad-CAM."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from cnnviz_cam.observing import observe
from cnnviz_core.explainer import Maps
from cnnviz_core.layers import AUTO
from cnnviz_core.model import Array, Model
from cnnviz_core.parameters import Help
from cnnviz_core.targets import Target

__all__ = ["XGradCAM"]


@dataclass(frozen=True)
class XGradCAM:
    """Feature maps weighted by the gradient of the score, averaged where the features are.

    With ``A_k`` the k-th feature map of the layer and ``y`` the target's score, the weight of a
    channel is ``sum_ij (A_k[i, j] / sum_ab A_k[a, b]) dy / dA_k[i, j]``, and the raw map is the
    weighted sum of the feature maps; its positive part is shown.  The map then sums to
    ``sum_k sum_ij A_k dy / dA_k``, which is the score, but for its bias, where the layers after
    this one are rectifiers and linear layers without biases ("conservation" in the paper).

    A channel that sums to 0 has the weight 0.  The formula is meant for feature maps that are not
    negative, at layers after a rectifier; elsewhere the sum may be near 0.

    Parameters
    ----------
    layer : str
        The layer whose feature maps are weighted; "auto" is the last one with a spatial grid.

    References
    ----------
    Fu et al., "Axiom-based Grad-CAM: towards accurate visualization and explanation of CNNs",
    BMVC 2020.
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
        grid = tuple(range(1, seen.features.ndim - 1))
        parts = (seen.features * seen.gradients).sum(grid, dtype=np.float64)
        whole = seen.features.sum(grid, dtype=np.float64)
        weights = np.divide(parts, whole, out=np.zeros_like(parts), where=whole != 0)
        return seen.weighted(weights.astype(seen.features.dtype))
