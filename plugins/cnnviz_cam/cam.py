"""Class activation mapping, for networks that end in global pooling and a linear layer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from cnnviz_core.errors import TargetError, UnsupportedModelError
from cnnviz_core.explainer import Maps
from cnnviz_core.layers import AUTO, on_grid, resolve_layer
from cnnviz_core.maps import weight_channels
from cnnviz_core.model import LOGITS, Array, LayerInfo, Model
from cnnviz_core.parameters import Help
from cnnviz_core.targets import Target, cotangent_of, resolve_all, scores_of, target_node

__all__ = ["CAM"]

TOLERANCE = 1e-3
"""How far the head's prediction of the scores may be off, as a fraction of the largest score."""


@dataclass(frozen=True)
class CAM:
    """Feature maps weighted by the linear layer's weights for the class.

    Where the scores are ``y_c = sum_k w_kc mean_ij A_k[i, j] + b_c``, the raw map is
    ``sum_k w_kc A_k``: its mean is the score without the bias.  A network that ends in global
    average pooling of one feature map for each class is the special case of ``w`` the identity.

    Behind global max pooling the greatest value of each feature map stands in the place of its
    mean, and the raw map is the same sum.

    That the network has one of these forms is checked numerically on the batch.

    Parameters
    ----------
    layer : str
        The layer that is pooled; "auto" is the last one with a spatial grid.

    References
    ----------
    Zhou et al., "Learning deep features for discriminative localization", CVPR 2016, equation 2.
    Oquab et al., "Is object localization for free? Weakly-supervised learning with convolutional
    neural networks", CVPR 2015: global max pooling.
    """

    layer: Annotated[
        str, Help("layer that is pooled; auto is the last one with a spatial grid")
    ] = AUTO

    needs: ClassVar[frozenset[str]] = frozenset({"capture", "parameters"})

    def explain(self, model: Model, x: Array, targets: Sequence[Target]) -> Maps:
        """Explain the targets' scores on a batch.

        Parameters
        ----------
        model : Model
            The network.
        x : ndarray (N, H, W, C)
            The batch.
        targets : sequence of Target
            One for each sample, about the scores of classes.

        Returns
        -------
        Maps
            With the raw map (N, h, w) at the layer's size, before its positive part is taken.

        Raises
        ------
        UnsupportedModelError
            If the scores are a linear function neither of the layer's spatial means nor of its
            greatest values.
        UnknownLayerError
            If the layer does not exist or has no spatial grid.
        TargetError
            If a target is not about the scores.
        """
        if target_node(targets) != LOGITS:
            raise TargetError(
                f"a target is about {target_node(targets)!r}",
                "targets about the scores of classes",
                "use grad-cam for other targets",
            )
        layer = resolve_layer(model, self.layer, x)
        trace = model.forward(x, capture=(layer.name,))
        features = on_grid(trace[layer.name], layer)
        head = _head(model, layer, features, trace.logits)
        return Maps(
            raw=weight_channels(features, cotangent_of(targets)(trace.logits) @ head.T),
            scores=scores_of(targets, trace.logits),
            targets=resolve_all(targets, trace.logits),
            layer=layer.name,
        )


def _head(model: Model, layer: LayerInfo, features: Array, logits: Array) -> Array:
    """Find the weights (C, K) by which the scores follow from the layer's pooled channels."""
    positions = tuple(range(1, features.ndim - 1))
    means = features.mean(axis=positions, dtype=np.float64)
    greatest = features.max(axis=positions)
    scale = max(float(np.abs(logits).max()), 1e-12)
    closest = np.inf
    for weight, bias in _candidates(model, layer, features.shape[-1], logits):
        for pooled in (means, greatest):
            error = float(np.abs(pooled @ weight + bias - logits).max()) / scale
            if error <= TOLERANCE:
                return weight.astype(logits.dtype)
            closest = min(closest, error)
    found = (
        f"the nearest linear layer misses the scores by {closest:.1%} of the largest"
        if np.isfinite(closest)
        else "no linear layer takes as many channels and gives as many scores"
    )
    raise UnsupportedModelError(
        "the scores are a linear function neither of the spatial means nor of the greatest values "
        f"of layer {layer.name!r} ({found})",
        "a network that ends in global pooling and one linear layer after that layer",
        "use grad-cam, which equals CAM behind average pooling and runs on all networks, or make "
        "such a network of this one with cnnviz.heads.pooled",
    )


def _candidates(
    model: Model, layer: LayerInfo, channels: int, logits: Array
) -> Iterator[tuple[Array, Array | float]]:
    """Give the linear maps from pooled channels to scores that the layers after this one hold."""
    if logits.ndim != 2:
        return
    if channels == logits.shape[1]:
        yield np.eye(channels), 0.0
    names = list(model.layers)
    for name in names[names.index(layer.name) + 1 :]:
        # A 1 x 1 convolution is a linear layer at each position.
        if model.layers[name].kind in ("linear", "conv"):
            arrays = model.parameters(name)
            weight = arrays.get("weight")
            if weight is not None and weight.size == channels * logits.shape[1]:
                yield (
                    weight.reshape(channels, logits.shape[1]).astype(np.float64),
                    arrays.get("bias", 0.0),
                )
