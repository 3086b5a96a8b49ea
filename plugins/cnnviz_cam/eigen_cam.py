"""Eigen-CAM."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

from cnnviz_cam.observing import observe_features
from cnnviz_core.explainer import Maps
from cnnviz_core.layers import AUTO
from cnnviz_core.maps.principal import project
from cnnviz_core.model import Array, Model
from cnnviz_core.parameters import Help
from cnnviz_core.targets import Target

__all__ = ["EigenCAM"]


@dataclass(frozen=True)
class EigenCAM:
    """Feature vectors projected on the direction in which they are strongest.

    The layer's features at all positions are the rows of a matrix ``A``, of which ``v`` is the
    first right singular vector; the raw map is ``A v``.  Its positive part is shown.

    The sign of ``v`` is arbitrary: it is chosen so that the map correlates positively with the sum
    of the feature maps.  Of features without negative values the map then has none either, unless
    it is centred.  The map is the same for every target.

    Parameters
    ----------
    layer : str
        The layer whose feature maps are projected; "auto" is the last one with a spatial grid.
    centre : bool
        Whether each channel's spatial mean is subtracted first, so that ``v`` is the first
        principal component.  The paper does not; pytorch-grad-cam does.

    References
    ----------
    Muhammad and Yeasin, "Eigen-CAM: class activation map using principal components", IJCNN 2020,
    section III.
    """

    layer: Annotated[str, Help("layer to look at; auto is the last one with a spatial grid")] = AUTO
    centre: Annotated[bool, Help("subtract each channel's spatial mean first")] = False

    needs: ClassVar[frozenset[str]] = frozenset({"capture"})
    class_agnostic: ClassVar[bool] = True

    def explain(self, model: Model, x: Array, targets: Sequence[Target]) -> Maps:
        """Explain what a layer sees in a batch.

        Parameters
        ----------
        model : Model
            The network.
        x : ndarray (N, H, W, C)
            The batch.
        targets : sequence of Target
            One for each sample; they change the scores only.

        Returns
        -------
        Maps
            With the raw map (N, h, w) at the layer's size, before its positive part is taken.

        Raises
        ------
        UnknownLayerError
            If the layer does not exist or has no spatial grid.
        """
        seen = observe_features(model, x, targets, self.layer)
        projection = project(seen.features, centre=self.centre)
        return seen.maps(projection.maps, terms=projection.terms)
