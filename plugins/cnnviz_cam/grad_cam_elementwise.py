"""Grad-CAM, element by element."""

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

__all__ = ["GradCAMElementwise"]


@dataclass(frozen=True)
class GradCAMElementwise:
    """The positive part of feature maps times the gradient of the score, position by position.

    With ``A_k`` the k-th feature map of the layer and ``y`` the target's score, the raw map is
    ``sum_k max(A_k[i, j] dy / dA_k[i, j], 0)``.  HiResCAM adds up first and takes the positive part
    last; here what speaks against the score in one channel cancels nothing in another.  Where the
    feature maps are not negative this is LayerCAM.

    Known from the package pytorch-grad-cam, where it is called GradCAMElementWise.

    Parameters
    ----------
    layer : str
        The layer whose feature maps are weighted; "auto" is the last one with a spatial grid.

    References
    ----------
    Gildenblat et al., "PyTorch library for CAM methods", 2021,
    https://github.com/jacobgil/pytorch-grad-cam.
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
            With the raw map (N, h, w) at the layer's size, which is nowhere negative.

        Raises
        ------
        UnknownLayerError
            If the layer does not exist or has no spatial grid.
        """
        seen = observe(model, x, targets, self.layer)
        # The gradient where it has the feature's sign, so that every term is positive.
        return seen.weighted(np.where(seen.features * seen.gradients > 0, seen.gradients, 0))
