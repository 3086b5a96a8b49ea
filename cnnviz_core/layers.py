"""Finding layers: by name, by call, by pattern, from the end, or the last with a spatial grid."""

from __future__ import annotations

import fnmatch
import math
import re
from collections.abc import Iterable, Mapping, Sequence

from cnnviz_core.errors import ArrayError, UnknownLayerError, near
from cnnviz_core.model import INPUT, LOGITS, OUTPUT, Array, LayerInfo, Model

__all__ = [
    "AUTO",
    "auto_layer",
    "check_nodes",
    "find_layer",
    "is_special",
    "layers_of",
    "resolve_layer",
    "resolve_layers",
    "stages",
]

AUTO = "auto"
"""The name that stands for the last layer with a spatial grid."""

_NOT_ITS_OWN = frozenset({"pool", "pad", "dropout", "reshape"})
_PATTERN = re.compile(r"[*?\[]")


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
    """Find a layer by its name, by a pattern, or counted from the end.

    Parameters
    ----------
    layers : mapping of str to LayerInfo
        The network's layers.
    name : str
        A key; the path of a layer that is called once; a pattern such as ``"layer4.*"``, which
        stands for the last layer with a spatial grid among those whose names match; or ``"-3"``,
        the third of `layers` from the end.

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
    if _PATTERN.search(name):
        return auto_layer({info.name: info for info in _matching(layers, name)})
    if re.fullmatch(r"-\d+", name):
        if not 1 <= -int(name) <= len(layers):
            raise UnknownLayerError(
                f"layer {name} was asked for, and the network has {len(layers)} layers",
                f"from -1, the last, to -{len(layers)}",
                "list them with cnnviz.layers(model) or `cnnviz layers MODEL`",
            )
        return list(layers.values())[int(name)]
    alike = near(name, layers) or list(layers)[-3:]
    raise UnknownLayerError(
        f"the network has no layer {name!r}",
        f"a layer's name such as {', '.join(map(repr, alike))}",
        "list them with cnnviz.layers(model) or `cnnviz layers MODEL`",
    )


def _matching(layers: Mapping[str, LayerInfo], pattern: str) -> list[LayerInfo]:
    """Give the layers whose names match a pattern."""
    found = [info for name, info in layers.items() if fnmatch.fnmatchcase(name, pattern)]
    if not found:
        raise UnknownLayerError(
            f"no layer's name matches {pattern!r}",
            f"a pattern such as {next(iter(layers)).split('.')[0] + '*'!r}; * stands for any text",
            "list the names with cnnviz.layers(model) or `cnnviz layers MODEL`",
        )
    return found


def auto_layer(layers: Mapping[str, LayerInfo]) -> LayerInfo:
    """Pick the last layer whose output still has a spatial grid.

    Pooling, padding, dropout and reshaping layers are passed over: they only make the grid of the
    layer before them coarser or wider, or hand it on.  So are grids of a single position, and names
    for a value that such a layer made.

    Of a transformer with a class token it is the last such layer before the last attention: behind
    it the tokens on the grid have no influence on the answer any more.

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
    shown = _to_look_at(layers)
    if shown:
        return shown[-1]
    raise UnknownLayerError(
        "no layer of the network has a spatial grid"
        if len(layers) != 1
        else f"layer {next(iter(layers))!r} has no spatial grid",
        "a layer with an output of (h, w, channels) that is larger than one position",
        "use a method that needs no layer, such as saliency or occlusion",
    )


def _to_look_at(layers: Mapping[str, LayerInfo]) -> list[LayerInfo]:
    """Give the layers with a grid of their own making on which the answer depends."""
    shown = [info for info in layers.values() if _shows(info, layers)]
    if shown and shown[-1].prefix:
        # Where a class token collects the answer, what is behind the last attention says nothing.
        before = _before_the_last_attention(layers)
        shown = [info for info in shown if info.name in before] or shown
    return shown


def _before_the_last_attention(layers: Mapping[str, LayerInfo]) -> set[str]:
    """Name the layers that end before the last attention begins; all where there is none."""
    names = list(layers)
    last = max((i for i, n in enumerate(names) if layers[n].kind == "attention"), default=None)
    if last is None:
        return set(names)
    inside = f"{layers[names[last]].path}."
    return {name for name in names[:last] if not layers[name].path.startswith(inside)}


def _shows(info: LayerInfo, layers: Mapping[str, LayerInfo]) -> bool:
    """Tell whether a layer has a grid of its own making."""
    origin = info
    while origin.same_as is not None and origin.same_as in layers:
        origin = layers[origin.same_as]
    return info.grid is not None and math.prod(info.grid) > 1 and origin.kind not in _NOT_ITS_OWN


def stages(layers: Mapping[str, LayerInfo]) -> list[LayerInfo]:
    """Give the last layer of each resolution.

    Parameters
    ----------
    layers : mapping of str to LayerInfo
        The network's layers, in the order in which their calls end.

    Returns
    -------
    list of LayerInfo
        One for each size of grid, in forward order; what `auto_layer` passes over is passed over.
    """
    last: dict[tuple[int, ...], LayerInfo] = {}
    for info in _to_look_at(layers):
        if info.grid is not None:
            last.pop(info.grid, None)
            last[info.grid] = info
    return list(last.values())


def resolve_layer(model: Model, layer: str, x: Array) -> LayerInfo:
    """Find the layer that a method was asked to look at.

    Parameters
    ----------
    model : Model
        The network.
    layer : str
        What `find_layer` takes, or "auto" for the last layer with a spatial grid.
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
    layers = layers_of(model, x)
    return auto_layer(layers) if layer == AUTO else find_layer(layers, layer)


def resolve_layers(model: Model, layer: str, x: Array) -> list[LayerInfo]:
    """Find the layers that a method that looks at several was asked to look at.

    Parameters
    ----------
    model : Model
        The network.
    layer : str
        Names, patterns and positions as `find_layer` takes them, separated by commas, where a
        pattern stands for all layers that match it and have a spatial grid; or "auto" for the last
        layer of each resolution.
    x : ndarray (N, ...)
        The batch to be explained.

    Returns
    -------
    list of LayerInfo
        In forward order; of several names for one value the last.

    Raises
    ------
    UnknownLayerError
        If one of them does not exist, or none has a spatial grid.
    """
    layers = layers_of(model, x)
    if layer == AUTO:
        found = stages(layers)
    else:
        found = [
            info
            for part in (part.strip() for part in layer.split(","))
            for info in (
                [each for each in _matching(layers, part) if _shows(each, layers)]
                if _PATTERN.search(part) and part not in layers
                else [find_layer(layers, part)]
            )
        ]
    if not found:
        auto_layer({})  # raises
    return _distinct(found, layers)


def _distinct(found: Iterable[LayerInfo], layers: Mapping[str, LayerInfo]) -> list[LayerInfo]:
    """Put layers in forward order, and leave out all but the last of the names for one value."""
    names = {info.name for info in found}
    values: dict[str, LayerInfo] = {}
    for name, info in layers.items():
        if name in names:
            origin = info
            while origin.same_as is not None and origin.same_as in layers:
                origin = layers[origin.same_as]
            values[origin.name] = info
    return list(values.values())


def layers_of(model: Model, x: Array) -> Mapping[str, LayerInfo]:
    """Give a network's layers; some networks know them only once they have seen an input.

    Parameters
    ----------
    model : Model
        The network.
    x : ndarray (N, ...)
        A batch that it takes; one sample is shown to it if need be.

    Returns
    -------
    mapping of str to LayerInfo
        `Model.layers`.
    """
    try:
        return model.layers
    except ArrayError:
        model.forward(x[:1])
        return model.layers


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
    if values.ndim == len(info.grid) + 2 and not info.prefix:
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
