"""Finding a layer: by name, by call, or the last one with a spatial grid."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from cnnviz_core.errors import ArrayError, UnknownLayerError, near
from cnnviz_core.model import INPUT, LOGITS, OUTPUT, Array, LayerInfo, Model

__all__ = [
    "AUTO",
    "auto_layer",
    "check_nodes",
    "find_layer",
    "is_special",
    "resolve_layer",
]

AUTO = "auto"
"""The name that stands for the last layer with a spatial grid."""

_COARSER = frozenset({"pool", "dropout", "reshape"})


def is_special(node: str) -> bool:
    """Tell whether a node is the input, the logits or the output, not a layer.

    Parameters
    ----------
    node : str
        A node's name.

    Returns
    -------
    bool
    """
    return node in (LOGITS, OUTPUT, INPUT) or node.startswith(f"{INPUT}:")


def find_layer(layers: Mapping[str, LayerInfo], name: str) -> LayerInfo:
    """Find a layer by its name.

    Parameters
    ----------
    layers : mapping of str to LayerInfo
        The network's layers.
    name : str
        A key, or the path of a layer that is called once.

    Returns
    -------
    LayerInfo

    Raises
    ------
    UnknownLayerError
        If there is none; the message lists names near it.  If the layer is called several times
        and the name does not say which call.
    """
    if name in layers:
        return layers[name]
    calls = [info.name for info in layers.values() if info.path == name]
    if calls:
        raise UnknownLayerError(
            f"layer {name!r} is called {len(calls)} times in one forward pass",
            f"one of {', '.join(calls)}",
            f"name the call, for the last one {calls[-1]!r}",
        )
    alike = near(name, layers) or list(layers)[-3:]
    raise UnknownLayerError(
        f"the network has no layer {name!r}",
        f"a layer's name such as {', '.join(map(repr, alike))}",
        "list them with cnnviz.layers(model) or `cnnviz layers MODEL`",
    )


def auto_layer(layers: Mapping[str, LayerInfo]) -> LayerInfo:
    """Pick the last layer whose output still has a spatial grid.

    Pooling, dropout and reshaping layers are passed over: they only make the grid of the layer
    before them coarser, or hand it on.  So are grids of a single position, and names for a value
    that such a layer made.

    Parameters
    ----------
    layers : mapping of str to LayerInfo
        The network's layers, in the order in which their calls end.

    Returns
    -------
    LayerInfo

    Raises
    ------
    UnknownLayerError
        If no layer has a spatial grid.

    References
    ----------
    Selvaraju et al., "Grad-CAM: visual explanations from deep networks via gradient-based
    localization", ICCV 2017: the last convolutional layer has "the best compromise between
    high-level semantics and detailed spatial information".
    """
    for info in reversed(list(layers.values())):
        origin = info
        while origin.same_as is not None and origin.same_as in layers:
            origin = layers[origin.same_as]
        if info.grid is not None and math.prod(info.grid) > 1 and origin.kind not in _COARSER:
            return info
    raise UnknownLayerError(
        "no layer of the network has a spatial grid",
        "a layer with an output of (h, w, channels) that is larger than one position",
        "use a method that needs no layer, such as saliency or occlusion",
    )


def resolve_layer(model: Model, layer: str, x: Array) -> LayerInfo:
    """Find the layer that a method was asked to look at.

    Parameters
    ----------
    model : Model
        The network.
    layer : str
        A layer's name, or "auto" for the last layer with a spatial grid.
    x : ndarray (N, ...)
        The batch to be explained.

    Returns
    -------
    LayerInfo

    Raises
    ------
    UnknownLayerError
        If there is none.
    """
    try:
        layers = model.layers
    except ArrayError:
        # Some networks know their layers' shapes only once they have seen an input.
        model.forward(x[:1])
        layers = model.layers
    return auto_layer(layers) if layer == AUTO else find_layer(layers, layer)


def on_grid(values: Array, info: LayerInfo) -> Array:
    """Lay a layer's values out on its spatial grid.

    Parameters
    ----------
    values : ndarray (N, h, w, C), or (N, tokens, C) of a transformer
        The layer's values, or gradients with respect to them.
    info : LayerInfo
        The layer.

    Returns
    -------
    ndarray (N, ...grid, C)
        Without the tokens that are not on the grid.

    Raises
    ------
    UnknownLayerError
        If the layer has no spatial grid.
    """
    if info.grid is None:
        raise UnknownLayerError(
            f"layer {info.name!r} has no spatial grid; its output has the shape {info.shape}",
            "a layer with an output of (h, w, channels)",
            "choose a convolutional layer; cnnviz.layers(model) shows each layer's grid",
        )
    if values.ndim == len(info.grid) + 2:
        return values
    return values[:, info.prefix :].reshape(len(values), *info.grid, values.shape[-1])


def check_nodes(layers: Mapping[str, LayerInfo], nodes: Sequence[str]) -> None:
    """Check that every node is a layer's or a special one.

    Parameters
    ----------
    layers : mapping of str to LayerInfo
        The network's layers.
    nodes : sequence of str
        Names of nodes.

    Raises
    ------
    UnknownLayerError
        If one is unknown.
    """
    for node in nodes:
        if not is_special(node):
            find_layer(layers, node)
