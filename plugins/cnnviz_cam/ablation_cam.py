"""Ablation-CAM."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, ClassVar, Final

import numpy as np

from cnnviz_cam.masking import channels_of, largest, weighted
from cnnviz_cam.observing import differentiated, observe_features
from cnnviz_core.ablated import ABLATE, Ablated
from cnnviz_core.explainer import Maps
from cnnviz_core.fast import fast_paths
from cnnviz_core.layers import AUTO, resolve_layer
from cnnviz_core.model import LOGITS, Array, LayerInfo, Model
from cnnviz_core.pace import BatchSize
from cnnviz_core.parameters import Help, Range
from cnnviz_core.perturb import distinct_samples, score_replaced
from cnnviz_core.targets import (
    ClassScore,
    Contrast,
    Predicted,
    Segment,
    Target,
    Weighted,
    cotangent_of,
    target_node,
)

__all__ = ["AblationCAM"]


_AT_ONCE: Final = 16
_LINEAR: Final = (ClassScore, Contrast, Predicted, Segment, Weighted)
"""Targets that are linear in the value that they are about; what is predicted is held."""


@dataclass(frozen=True)
class AblationCAM:
    """Feature maps weighted by the drop of the score without each of them.

    With ``y`` the target's score and ``y_k`` the score when the k-th channel of the layer is set to
    0, the weights are ``w_k = y - y_k``, and the raw map is ``sum_k w_k A_k``; its positive part is
    shown.

    Parameters
    ----------
    layer : str
        The layer whose feature maps are weighted; "auto" is the last one with a spatial grid.
    channels : int or None
        How many channels to ask about; the others weigh nothing.  Those with the largest sum of
        squares are taken, for what is set to 0 is their distance from it; None is all.
    batch_size : int, "auto" or None
        How many ablations go through the network at once; "auto" measures what pays.  None is as
        many as the model takes where it makes them itself, and else 16.

    Notes
    -----
    The paper's weights are ``(y - y_k) / y``.  The divisor is the same for all channels of a
    sample, so that normalising a map takes it away, except for its sign: where the score is
    negative, as raw scores may be, it would turn the map over, and show what speaks against the
    class.  It is left out; ``extras["weights"]`` divided by `Maps.scores` are the paper's.

    Where the logits are an affine function of the layer's value (`LayerInfo.affine`), as behind
    global average pooling and a linear layer, and the score is a linear one of the logits, the drop
    is that of the first order, exactly: ``w_k = sum_ij dy/dA_kij A_kij``, of one forward and one
    backward pass for all channels.

    A channel that is 0 everywhere weighs exactly 0, and is not asked about.  Of a layer of tokens
    the channel is set to 0 in all of them, also in those that are not on the grid.

    References
    ----------
    Ramaswamy & Desai, "Ablation-CAM: visual explanations for deep convolutional network via
    gradient-free localization", WACV 2020, section 3.
    """

    layer: Annotated[str, Help("layer to look at; auto is the last one with a spatial grid")] = AUTO
    channels: Annotated[
        int | None, Range(1), Help("channels to ask about, the largest in square; none: all")
    ] = None
    batch_size: Annotated[
        BatchSize | None,
        Range(1),
        Help("ablations that go through the network at once; none: as many as the model takes"),
    ] = None

    needs: ClassVar[frozenset[str]] = frozenset({"capture", "replace"})

    def passes(self, model: Model, x: Array) -> int:
        """Count the forward passes for one sample.

        Parameters
        ----------
        model : Model
            The network.
        x : ndarray (N, H, W, C)
            The batch.

        Returns
        -------
        int
            One for each channel, and one more, or two where the layer is one of tokens; fewer where
            channels are 0.  Where the drops follow from the gradient 3, unless the score is no
            linear function of the logits, such as a probability.
        """
        if _is_affine(model, resolve_layer(model, self.layer, x)):
            return 3
        asked = channels_of(model, x, self.layer, self.channels)
        return asked + 1 + _has_tokens(resolve_layer(model, self.layer, x))

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
            With the raw map (N, h, w) at the layer's size, before its positive part is taken, and
            ``extras["weights"]`` (N, K), in units of the score.

        Raises
        ------
        UnknownLayerError
            If the layer does not exist or has no spatial grid.
        """
        info = resolve_layer(model, self.layer, x)
        linear = target_node(targets) == LOGITS and all(type(t) in _LINEAR for t in targets)
        if linear and _is_affine(model, info):
            return self._by_gradient(model, x, targets, info)
        return self._by_passes(model, x, targets, info)

    def _by_gradient(
        self, model: Model, x: Array, targets: Sequence[Target], info: LayerInfo
    ) -> Maps:
        """Find the drops in one pass forward and back."""
        back = model.pullback(x, cotangent_of(targets), of=LOGITS, wrt=(info.name,))
        value = back.values[info.name]
        positions = tuple(range(1, value.ndim - 1))
        drops = (back.gradients[info.name] * value).sum(positions, dtype=np.float64)
        weights = np.zeros_like(drops)
        for row, sample in enumerate(value):
            kept = self._asked_about(sample)
            weights[row, kept] = drops[row, kept]
        return weighted(differentiated(info, targets, back), weights)

    def _by_passes(
        self, model: Model, x: Array, targets: Sequence[Target], info: LayerInfo
    ) -> Maps:
        """Run the network without each of the channels."""
        seen = observe_features(model, x, targets, self.layer)
        # Tokens are replaced as they are, before they are laid out on the grid.
        tokens = _has_tokens(info)
        values = model.forward(x, capture=(info.name,))[info.name] if tokens else seen.features
        weights = np.zeros((len(x), values.shape[-1]))
        for rows in distinct_samples(x):
            value = values[rows[0]]
            kept = self._asked_about(value)
            described = ABLATE in model.capabilities and self.batch_size is None
            without = score_replaced(
                model,
                x[rows[0]],
                [seen.targets[row] for row in rows],
                info.name,
                partial(_ablated, value, kept, described),
                len(kept),
                batch_size=self.batch_size or (None if described else _AT_ONCE),
                what=f"ablation-cam, picture {rows[0] + 1} of {len(x)}",
            )
            weights[np.array(rows)[:, None], kept] = seen.scores[rows, None] - without
        return weighted(seen, weights)

    def _asked_about(self, value: Array) -> Array:
        """Find the channels of a sample's value to take away: the largest that are not 0."""
        size = np.square(value, dtype=np.float64).sum(axis=tuple(range(value.ndim - 1)))
        kept = largest(size, self.channels)
        return kept[size[kept] > 0]


def _is_affine(model: Model, layer: LayerInfo) -> bool:
    """Tell whether a model gives the logits' dependence on a layer as a gradient, exactly."""
    return layer.affine and "gradient" in model.capabilities and fast_paths()


def _has_tokens(layer: LayerInfo) -> bool:
    """Tell whether a layer's positions are tokens in a row."""
    return len(layer.shape) != len(layer.grid or ()) + 1


def _ablated(
    value: Array, channels: Array, described: bool, start: int, stop: int
) -> Array | Ablated:
    """Give a layer's value without each of some channels: (stop - start, ...)."""
    without = Ablated(value, channels[start:stop])
    return without if described else np.asarray(without)
