"""Grad-CAM++."""

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

__all__ = ["GradCAMPlusPlus", "plus_plus_weights"]


@dataclass(frozen=True)
class GradCAMPlusPlus:
    """Feature maps weighted by a mean of the positive gradients that counts each object once.

    With ``A_k`` the k-th feature map of the layer, ``y`` the target's score and
    ``G = dy / dA_k[i, j]``, a position's share is ``alpha = G^2 / (2 G^2 + S_k G^3)`` with
    ``S_k = sum_ab A_k[a, b]``, the weight of a channel is ``sum_ij alpha max(G, 0)``, and the raw
    map is the weighted sum of the feature maps; its positive part is shown.

    The paper explains ``exp(y)``, of which the second and third derivatives are ``exp(y) G^2`` and
    ``exp(y) G^3`` where ``y`` is linear in the feature maps.  The factor ``exp(y)`` cancels in
    ``alpha`` and is one positive number for a whole map, so it is left out.  A position at which
    the denominator is 0 has no share.

    The formula is meant for feature maps that are not negative, at layers after a rectifier: there
    ``alpha`` is at most 1/2 where `G` is positive.  Elsewhere its denominator may be near 0.  The
    map depends on the score's scale: twice the score is not twice the map.

    Parameters
    ----------
    layer : str
        The layer whose feature maps are weighted; "auto" is the last one with a spatial grid.

    References
    ----------
    Chattopadhay et al., "Grad-CAM++: generalized gradient-based visual explanations for deep
    convolutional networks", WACV 2018, equation 19.
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
        first = seen.gradients.astype(np.float64)
        second = first * first
        return seen.weighted(plus_plus_weights(seen.features, first, second, second * first))


def plus_plus_weights(features: Array, first: Array, second: Array, third: Array) -> Array:
    """Weigh channels by three derivatives of the score.

    Parameters
    ----------
    features : ndarray (N, ...grid, K)
        The feature maps.
    first, second, third : ndarray (N, ...grid, K)
        The score's derivatives with respect to them, in float64: cubes of small gradients vanish
        in float32.

    Returns
    -------
    ndarray (N, K)
        ``sum_ij alpha max(first, 0)`` with ``alpha = second / (2 second + third sum_ab A)``, or 0
        where that is a division by 0; of the features' type.
    """
    grid = tuple(range(1, features.ndim - 1))
    denominator = 2 * second + features.sum(grid, dtype=np.float64, keepdims=True) * third
    shares = np.divide(second, denominator, out=np.zeros_like(second), where=denominator != 0)
    weights: Array = (shares * np.maximum(first, 0)).sum(grid)
    return weights.astype(features.dtype)
