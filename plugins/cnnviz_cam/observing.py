"""What a layer's feature maps are, and how the targets' scores depend on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from cnnviz_core.explainer import Maps
from cnnviz_core.layers import on_grid, resolve_layer
from cnnviz_core.maps import weight_channels
from cnnviz_core.model import LOGITS, OUTPUT, Array, LayerInfo, Model, Pullback
from cnnviz_core.targets import Target, cotangent_of, resolve_all, scores_of, target_node

__all__ = ["Differentiated", "Observed", "differentiated", "observe", "observe_features"]


@dataclass(frozen=True)
class Observed:
    """A layer's feature maps on a batch.

    Attributes
    ----------
    layer : LayerInfo
        The layer.
    features : ndarray (N, ...grid, K)
        Its feature maps.
    scores : ndarray (N,)
        The targets' scores.
    targets : tuple of Target
        The targets, resolved.
    value : ndarray (N, ...)
        The value at the targets' node, such as the logits.
    """

    layer: LayerInfo
    features: Array
    scores: Array
    targets: tuple[Target, ...]
    value: Array

    def maps(self, raw: Array, **more: Any) -> Maps:
        """Return a method's result at this layer.

        Parameters
        ----------
        raw : ndarray (N, ...grid)
            The raw maps.
        **more
            Further fields of `Maps`.

        Returns
        -------
        Maps
        """
        return Maps(
            raw=raw, scores=self.scores, targets=self.targets, layer=self.layer.name, **more
        )

    def weighted(self, weights: Array, **more: Any) -> Maps:
        """Return the sum of the feature maps, weighted.

        Parameters
        ----------
        weights : ndarray (N, K) or (N, ...grid, K)
            A weight for each channel, or for each channel at each position.
        **more
            Further fields of `Maps`.

        Returns
        -------
        Maps
            With the terms of the sum.
        """

        def terms() -> Array:
            grid = self.features.ndim - 2
            wide = weights.ndim == self.features.ndim
            return self.features * (
                weights if wide else weights.reshape(len(weights), *(1,) * grid, -1)
            )

        return self.maps(weight_channels(self.features, weights), terms=terms, **more)


@dataclass(frozen=True)
class Differentiated(Observed):
    """A layer's feature maps, and the scores' gradients with respect to them.

    Attributes
    ----------
    gradients : ndarray (N, ...grid, K)
        For each sample the gradient of its score.
    """

    gradients: Array


def observe_features(model: Model, x: Array, targets: Sequence[Target], layer: str) -> Observed:
    """Look at a layer's feature maps, in one forward pass.

    Parameters
    ----------
    model : Model
        The network.
    x : ndarray (N, H, W, C)
        The batch.
    targets : sequence of Target
        One for each sample.
    layer : str
        The layer, as `cnnviz_core.layers.resolve_layer` takes it.

    Returns
    -------
    Observed

    Raises
    ------
    UnknownLayerError
        If the layer does not exist or has no spatial grid.
    """
    info = resolve_layer(model, layer, x)
    of = target_node(targets)
    nodes = [info.name] if of in (LOGITS, OUTPUT) else [info.name, of]
    trace = model.forward(x, capture=nodes)
    return Observed(
        info,
        on_grid(trace[info.name], info),
        scores_of(targets, trace[of]),
        resolve_all(targets, trace[of]),
        trace[of],
    )


def observe(
    model: Model,
    x: Array,
    targets: Sequence[Target],
    layer: str,
    cotangent: Callable[[Array], Array] | None = None,
) -> Differentiated:
    """Look at a layer's feature maps and gradients, in one forward and one backward pass.

    Every method that asks for the same layer and targets asks for the same pass, so that a model
    that remembers makes it once.

    Parameters
    ----------
    model : Model
        The network.
    x : ndarray (N, H, W, C)
        The batch.
    targets : sequence of Target
        One for each sample.
    layer : str
        The layer, as `cnnviz_core.layers.resolve_layer` takes it.
    cotangent : callable, optional
        From the value at the targets' node to what is differentiated there, if that is not the
        targets' scores.

    Returns
    -------
    Differentiated

    Raises
    ------
    UnknownLayerError
        If the layer does not exist or has no spatial grid, or the score does not depend on it.
    """
    info = resolve_layer(model, layer, x)
    of = target_node(targets)
    back = model.pullback(x, cotangent or cotangent_of(targets), of=of, wrt=(info.name,))
    return differentiated(info, targets, back)


def differentiated(info: LayerInfo, targets: Sequence[Target], back: Pullback) -> Differentiated:
    """Lay out what a pass forward and back gave at a layer.

    Parameters
    ----------
    info : LayerInfo
        The layer, which has a spatial grid.
    targets : sequence of Target
        One for each sample.
    back : Pullback
        From the targets' node to the layer.

    Returns
    -------
    Differentiated
    """
    of = target_node(targets)
    return Differentiated(
        info,
        on_grid(back.values[info.name], info),
        scores_of(targets, back.values[of]),
        resolve_all(targets, back.values[of]),
        back.values[of],
        on_grid(back.gradients[info.name], info),
    )
