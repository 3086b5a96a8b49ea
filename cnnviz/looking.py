"""From what a person says of a layer (a name, a pattern, -1, the layer itself) to its name."""

from __future__ import annotations

import operator
import os
from collections.abc import Sequence
from typing import Any, Final, TypeAlias

from cnnviz.network import Network
from cnnviz_core.errors import UnknownLayerError, UnsupportedModelError
from cnnviz_core.importing import import_string
from cnnviz_core.layers import AUTO
from cnnviz_core.registry import get_registry

__all__ = ["AskedLayer", "is_several", "layer_text"]

AskedLayer: TypeAlias = Any
"""A layer: its name, a pattern, a negative number, the framework's own, or a sequence of these."""

_BETWEEN: Final = ", "
_REMEDY: Final = "list them with cnnviz.layers(model) or `cnnviz layers MODEL`"


def layer_text(network: Network, layer: AskedLayer) -> str:
    """Say in text which layer is meant, as explainers take it.

    Parameters
    ----------
    network : Network
        Whose layer it is.
    layer : str, int, layer of the framework, or sequence of these
        A name, a pattern such as "layer4.*", "auto", or a position from the end: -1 is the last
        layer.  A sequence is for methods that look at several.

    Returns
    -------
    str
        Names, patterns and positions, separated by commas.

    Raises
    ------
    UnknownLayerError
        If the number is not negative, the object is no layer of the network, or nothing is named.
    """
    if isinstance(layer, str):
        return layer
    if layer is None:
        return AUTO
    if is_several(layer):
        parts = [layer_text(network, each) for each in layer]
        if not parts:
            raise UnknownLayerError(
                "no layer was given", "at least one layer", "name one, or leave layer out"
            )
        return _BETWEEN.join(dict.fromkeys(parts))
    if isinstance(layer, (os.PathLike, bool)):
        raise _no_layer(network, layer)
    try:
        position = operator.index(layer)
    except TypeError:
        return _path_of(network, layer)
    if position >= 0:
        raise UnknownLayerError(
            f"layer={position} was given, and layers are not counted from the beginning: the first "
            "ones depend on how the framework divides the network",
            "a negative number, counted from the end: -1 is the last layer",
            f"if a layer is called so, pass layer={str(position)!r}; {_REMEDY}",
        )
    return str(position)


def is_several(layer: AskedLayer) -> bool:
    """Tell a sequence of layers from one layer, which may be a container of others.

    Parameters
    ----------
    layer : str, int, layer of the framework, or sequence of these
        What was asked for.

    Returns
    -------
    bool
    """
    return isinstance(layer, (list, tuple)) or (
        isinstance(layer, Sequence) and not isinstance(layer, str)
    )


def _path_of(network: Network, layer: Any) -> str:
    """Ask the network's backend where in it a layer is."""
    try:
        spec = get_registry().backend_of(network.native)
    except UnsupportedModelError:
        raise _no_layer(network, layer) from None
    path = None
    if spec.path_of is not None:
        path = import_string(spec.path_of)(network.native, layer)
    if path is None:
        raise _no_layer(network, layer)
    return str(path)


def _no_layer(network: Network, layer: Any) -> UnknownLayerError:
    """Say that an object is no layer of a network."""
    return UnknownLayerError(
        f"an object of {type(layer).__module__}.{type(layer).__name__} was given as the layer, "
        f"and it is no layer of {network.name or 'the network'}",
        "a layer's name, a pattern, a negative number, or a layer of this very network",
        _REMEDY,
    )
