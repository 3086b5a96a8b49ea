"""A node of a traced graph, and finding the tensor that a nested value is about."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

__all__ = ["Node", "first_floating", "leaves"]


@dataclass(frozen=True)
class Node:
    """One call of one layer, or one operation, and its tensor.

    Attributes
    ----------
    name, kind, type, path, call, calls, same_as
        As in `cnnviz_core.model.LayerInfo`.
    tensor : tf.Tensor
        Its value in the graph.
    """

    name: str
    kind: str
    type: str
    tensor: tf.Tensor
    path: str
    call: int = 0
    calls: int = 1
    same_as: str | None = None


def first_floating(value: Any, graph: tf.Graph) -> tf.Tensor | None:
    """Find the first floating tensor of a nested value.

    Parameters
    ----------
    value : object
        A tensor, or a mapping or sequence of such values.
    graph : tf.Graph
        The graph that it must belong to.

    Returns
    -------
    tf.Tensor or None
        In the order of the mappings and sequences.
    """
    return next((t for t in leaves(value) if _is_floating(t, graph)), None)


def leaves(value: Any) -> Iterator[Any]:
    """Walk a nested value.

    Parameters
    ----------
    value : object
        A mapping or sequence of such values, or anything else.

    Yields
    ------
    object
        What is neither a mapping nor a list or tuple, in the order of these.
    """
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from leaves(item)
    else:
        yield value


def _is_floating(value: Any, graph: tf.Graph) -> bool:
    """Tell whether something is a floating tensor of a graph."""
    return (
        isinstance(value, tf.Tensor)
        and value.dtype.is_floating
        and getattr(value, "graph", None) is graph
    )
