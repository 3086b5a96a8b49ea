"""Eigen-Grad-CAM."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

from cnnviz_cam.observing import observe
from cnnviz_core.explainer import Maps
from cnnviz_core.layers import AUTO
from cnnviz_core.maps.principal import project
from cnnviz_core.model import Array, Model
from cnnviz_core.parameters import Help
from cnnviz_core.targets import Target

__all__ = ["EigenGradCAM"]


@dataclass(frozen=True)
class EigenGradCAM:
    """Gradient times features, projected on the direction in which the products are strongest.

    With ``A_k`` the k-th feature map of the layer and ``y`` the target's score, the products
    ``A_k[i, j] dy / dA_k[i, j]`` at all positions are the rows of a matrix, of which ``v`` is the
    first right singular vector; the raw map is the projection on ``v``.  Its positive part is
    shown.

    The sign of ``v`` is arbitrary: it is chosen so that the map correlates positively with the sum
    of the products over the channels, which is HiResCAM.

    Parameters
    ----------
    layer : str
        The layer whose feature maps are projected; "auto" is the last one with a spatial grid.
    centre : bool
        Whether each channel's spatial mean of the products is subtracted first, as in the method's
        only definition, that of pytorch-grad-cam.

    References
    ----------
    Gildenblat and contributors, "PyTorch library for CAM methods" (pytorch-grad-cam), 2021, after
    Muhammad and Yeasin, "Eigen-CAM: class activation map using principal components", IJCNN 2020.
    """

    layer: Annotated[str, Help("layer to look at; auto is the last one with a spatial grid")] = AUTO
    centre: Annotated[bool, Help("subtract each channel's spatial mean first")] = True

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
        projection = project(seen.gradients * seen.features, centre=self.centre)
        return seen.maps(projection.maps, terms=projection.terms)
