"""FEM, the feature-based explanation method."""

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

__all__ = ["FEM"]


@dataclass(frozen=True)
class FEM:
    """Positions at which channels are unusually strong, weighted by the channels' means.

    With ``m_k`` and ``s_k`` the spatial mean and standard deviation of the k-th feature map, a
    position counts for a channel where ``A_k[i, j] > m_k + k s_k``, and the raw map is
    ``sum_k m_k [A_k[i, j] > m_k + k s_k]``; its positive part is shown.  The map is the same for
    every target.

    No value lies further than ``sqrt(n - 1)`` standard deviations from the mean of ``n`` values, so
    that with the default of 2 a grid of at most 5 positions shows nothing.

    Parameters
    ----------
    layer : str
        The layer whose feature maps are used; "auto" is the last one with a spatial grid.
    k : float
        How many standard deviations above its mean a channel must be.

    References
    ----------
    Fuad et al., "Features understanding in 3D CNNs for actions recognition in video", IPTA 2020.
    pytorch-grad-cam's FEM is another: it weights each feature map itself by the share of its
    positions above the threshold.
    """

    layer: Annotated[str, Help("layer to look at; auto is the last one with a spatial grid")] = AUTO
    k: Annotated[float, Range(0), Help("standard deviations above the mean that count")] = 2.0

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
        grid = tuple(range(1, seen.features.ndim - 1))
        values = seen.features.astype(np.float64)
        first = values[(slice(None), *(slice(0, 1),) * len(grid))]
        with np.errstate(over="ignore", invalid="ignore"):
            # Of a constant channel every value, not the rounding of its mean, is the mean.
            shifted = values - first
            offsets = shifted.mean(axis=grid, keepdims=True)
            deviations = np.sqrt(np.square(shifted - offsets).mean(axis=grid, keepdims=True))
            above = shifted > offsets + self.k * deviations
            means = first + offsets

        def terms() -> Array:
            return (above * means).astype(seen.features.dtype)

        return seen.maps((above * means).sum(axis=-1).astype(seen.features.dtype), terms=terms)
