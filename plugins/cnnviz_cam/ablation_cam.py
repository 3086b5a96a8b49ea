"""Ablation-CAM."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, ClassVar

import numpy as np

from cnnviz_cam.masking import channels_of, largest, weighted
from cnnviz_cam.observing import observe_features
from cnnviz_core.explainer import Maps
from cnnviz_core.layers import AUTO
from cnnviz_core.model import Array, Model
from cnnviz_core.pace import BatchSize
from cnnviz_core.parameters import Help, Range
from cnnviz_core.perturb import distinct_samples, score_replaced
from cnnviz_core.targets import Target

__all__ = ["AblationCAM"]


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
    batch_size : int or "auto"
        How many ablations go through the network at once; "auto" measures what pays.

    Notes
    -----
    The paper's weights are ``(y - y_k) / y``.  The divisor is the same for all channels of a
    sample, so that normalising a map takes it away, except for its sign: where the score is
    negative, as raw scores may be, it would turn the map over, and show what speaks against the
    class.  It is left out; ``extras["weights"]`` divided by `Maps.scores` are the paper's.

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
        BatchSize, Range(1), Help("ablations that go through the network at once")
    ] = 16

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
            One for each channel, and one more; fewer where channels are 0.
        """
        return channels_of(model, x, self.layer, self.channels) + 1

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
        seen = observe_features(model, x, targets, self.layer)
        node, grid = seen.layer.name, seen.layer.grid or ()
        # Tokens are replaced as they are, before they are laid out on the grid.
        tokens = len(seen.layer.shape) != len(grid) + 1
        values = model.forward(x, capture=(node,))[node] if tokens else seen.features
        weights = np.zeros((len(x), values.shape[-1]))
        for rows in distinct_samples(x):
            value = values[rows[0]]
            size = np.square(value, dtype=np.float64).sum(axis=tuple(range(value.ndim - 1)))
            kept = largest(size, self.channels)
            kept = kept[size[kept] > 0]
            without = score_replaced(
                model,
                x[rows[0]],
                [seen.targets[row] for row in rows],
                node,
                partial(_ablated, value, kept),
                len(kept),
                batch_size=self.batch_size,
                what=f"ablation-cam, picture {rows[0] + 1} of {len(x)}",
            )
            weights[np.array(rows)[:, None], kept] = seen.scores[rows, None] - without
        return weighted(seen, weights)


def _ablated(value: Array, channels: Array, start: int, stop: int) -> Array:
    """Give a layer's value without each of some channels: (stop - start, ...)."""
    gone = channels[start:stop]
    without = np.repeat(value[None], len(gone), axis=0)
    without[np.arange(len(gone)), ..., gone] = 0
    return without
