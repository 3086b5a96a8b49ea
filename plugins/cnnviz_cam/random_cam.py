"""Random CAM, a control."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from cnnviz_cam.observing import observe_features
from cnnviz_core.explainer import Maps
from cnnviz_core.layers import AUTO
from cnnviz_core.model import Array, Model
from cnnviz_core.parameters import Help, Range
from cnnviz_core.targets import Target

__all__ = ["RandomCAM"]


@dataclass(frozen=True)
class RandomCAM:
    """Feature maps weighted at random: what any weighting of channels must do better than.

    The weights are drawn uniformly from [-1, 1), the same for every sample and every target; the
    raw map is ``sum_k w_k A_k``, and its positive part is shown.

    Parameters
    ----------
    layer : str
        The layer whose feature maps are weighted; "auto" is the last one with a spatial grid.
    seed : int
        Of the draw; the same seed gives the same weights on every backend.

    References
    ----------
    Gildenblat and contributors, "PyTorch library for CAM methods" (pytorch-grad-cam), 2021.
    """

    layer: Annotated[str, Help("layer to look at; auto is the last one with a spatial grid")] = AUTO
    seed: Annotated[int, Range(0), Help("seed of the channels' weights")] = 0

    needs: ClassVar[frozenset[str]] = frozenset({"capture"})
    class_agnostic: ClassVar[bool] = True

    def explain(self, model: Model, x: Array, targets: Sequence[Target]) -> Maps:
        """Make the control's maps of a batch.

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
        samples, channels = len(seen.features), seen.features.shape[-1]
        weights = np.random.default_rng(self.seed).uniform(-1, 1, (channels,))
        return seen.weighted(
            np.broadcast_to(weights.astype(seen.features.dtype), (samples, channels))
        )
