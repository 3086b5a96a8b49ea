"""Recording what every Keras layer returns while a network is traced, without a trace on it."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import tensorflow as tf

from cnnviz_tf.nodes import first_floating, leaves

__all__ = ["Call", "layer_paths", "preserved", "recording"]

_CONTAINERS: Final = {
    "list": list,
    "set": set,
    "dict": dict,
    "TrackedList": list,
    "TrackedSet": set,
    "TrackedDict": dict,
}


@dataclass(frozen=True)
class Call:
    """One call of one layer.

    Attributes
    ----------
    path : str
        The layer's path.
    layer : keras.Layer
        The layer.
    tensor : tf.Tensor
        The first floating tensor that it returned: no other call has this very tensor.
    same_as : int or None
        The earlier call whose tensor a container handed on.
    """

    path: str
    layer: Any
    tensor: tf.Tensor
    same_as: int | None


def layer_paths(root: Any) -> dict[str, Any]:
    """Name every layer inside a Keras layer by its path.

    Parameters
    ----------
    root : keras.Layer
        A layer or model.

    Returns
    -------
    dict of str to keras.Layer
        The names of the layers on the way, joined by "/"; a layer that is found twice has the first
        path, and of two layers of one name in one place the second gets a number.
    """
    paths: dict[str, Any] = {}
    seen = {id(root)}

    def walk(parent: Any, prefix: str) -> None:
        for layer in parent._flatten_layers(include_self=False, recursive=False):
            if id(layer) in seen:
                continue
            seen.add(id(layer))
            path = name = prefix + layer.name
            number = 1
            while path in paths:
                number += 1
                path = f"{name}_{number}"
            paths[path] = layer
            walk(layer, f"{path}/")

    walk(root, "")
    return paths


@contextmanager
def recording(root: Any, layers: Mapping[str, Any], graph: tf.Graph) -> Iterator[list[Call]]:
    """Record the calls of layers while a graph is being built.

    Other threads may run the network meanwhile: what they compute is in no graph, or in another.

    A layer that hands a tensor on untouched (dropout in inference, a container) hands on an
    identity of it, so that each call has a tensor of its own to differentiate by and to replace.

    Parameters
    ----------
    root : keras.Layer
        The network.
    layers : mapping of str to keras.Layer
        The layers inside it, by path.
    graph : tf.Graph
        The graph; calls that end inside another one (a loop's body) are left out.

    Yields
    ------
    list of Call
        Filled in the order in which the calls end.
    """
    calls: list[Call] = []
    owners: dict[int, int] = {}

    def note(path: str, given: Any, outputs: Any) -> Any:
        tensor = first_floating(outputs, graph)
        if tensor is None:
            return outputs
        layer = layers[path]
        owner = owners.get(id(tensor))
        own = tensor
        if owner is not None or any(t is tensor for t in leaves(given)):
            own = tf.identity(tensor)
            if hasattr(tensor, "_keras_mask"):
                own._keras_mask = tensor._keras_mask
            outputs = tf.nest.map_structure(lambda t: own if t is tensor else t, outputs)
        owners[id(own)] = len(calls)
        calls.append(Call(path, layer, own, owner if _is_container(layer) else None))
        return outputs

    with preserved([root, *layers.values()]):
        for path, layer in layers.items():
            method = "quantized_call" if getattr(layer, "quantization_mode", None) else "call"
            hook = _hook(getattr(layer, method), functools.partial(note, path))
            object.__setattr__(layer, method, hook)  # past Keras' own tracking of attributes
        yield calls


def _hook(original: Any, note: Any) -> Any:
    """Wrap a layer's method so that its result is noted."""

    @functools.wraps(original)
    def call(*args: Any, **kwargs: Any) -> Any:
        return note((args, kwargs), original(*args, **kwargs))

    return call


def _is_container(layer: Any) -> bool:
    """Tell whether a layer has layers inside."""
    return bool(layer._flatten_layers(include_self=False, recursive=False))


@contextmanager
def preserved(layers: Iterable[Any]) -> Iterator[None]:
    """Put the attributes of layers back as they were.

    Calling a layer may change it: Keras clears and collects losses, and a user's ``call`` may keep
    a tensor or count.

    Parameters
    ----------
    layers : iterable of keras.Layer
        The layers.
    """
    before = []
    for layer in layers:
        attributes = dict(vars(layer))
        contents = {k: kind(v) for k, v in attributes.items() if (kind := _container(v))}
        before.append((layer, attributes, contents))
    try:
        yield
    finally:
        for layer, attributes, contents in before:
            for name in vars(layer).keys() - attributes.keys():
                object.__delattr__(layer, name)
            for name, value in attributes.items():
                if name not in vars(layer) or vars(layer)[name] is not value:
                    object.__setattr__(layer, name, value)
            for name, content in contents.items():
                _refill(attributes[name], content)


def _container(value: Any) -> type | None:
    """Give the built-in class of a plain or a Keras-tracked container."""
    return _CONTAINERS.get(type(value).__name__) if isinstance(value, (list, set, dict)) else None


def _refill(value: Any, content: Any) -> None:
    """Give a container its earlier content, past what tracks it."""
    kind = type(content)
    if _is_same(kind(value), content):
        return
    kind.clear(value)
    if kind is list:
        list.extend(value, content)
    else:
        kind.update(value, content)


def _is_same(a: Any, b: Any) -> bool:
    """Tell whether two containers hold the very same objects."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(a[k] is b[k] for k in a)
    if isinstance(a, set):
        return bool(a == b)
    return len(a) == len(b) and all(x is y for x, y in zip(a, b, strict=True))
