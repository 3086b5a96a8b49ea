"""Walking the graph that autograd recorded."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, TypeAlias

import torch
from torch.autograd.function import BackwardCFunction
from torch.autograd.graph import GradientEdge, Node, get_gradient_edge

__all__ = [
    "Node",
    "Ways",
    "bottom_up",
    "derivative",
    "is_opaque",
    "operation_name",
    "operations",
    "shape_of",
    "ways",
]

# Operations that hold others.
_OPAQUE: Final = ("CompiledFunctionBackward", "DifferentiableGraphBackward", "CopySlices")
# A user's own full backward hook on a module; it hands the gradient on.
_TRANSPARENT: Final = "BackwardHookFunctionBackward"

Edges: TypeAlias = dict[Node, list[Node]]


@dataclass(frozen=True)
class Ways:
    """What lies between a value and those that it was made from.

    Attributes
    ----------
    nodes : list of Node
        The operations through which a gradient passes on its way down, every one once.
    reached : list of bool
        For each of the tensors that were asked about, whether the value depends on it.
    checkpointed : bool
        Whether a reentrant checkpoint is on the way, or may hide a tensor that was not reached.
    """

    nodes: list[Node]
    reached: list[bool]
    checkpointed: bool


def ways(root: torch.Tensor, targets: Sequence[torch.Tensor]) -> Ways:
    """Find the operations between a value and the tensors that it was made from.

    Parameters
    ----------
    root : Tensor
        The value that is differentiated.
    targets : sequence of Tensor
        What it is differentiated with respect to; all are recorded.

    Returns
    -------
    Ways
    """
    above = _edges_upwards(root)
    ends = [get_gradient_edge(target).node for target in targets]
    # The gradient with respect to an operation's result does not pass this operation itself.
    takers = [node for end in ends if end in above for node in above[end]]
    nodes, reached = _reachable(takers, above), [end in above for end in ends]
    searched = nodes if all(reached) else above
    return Ways(
        nodes, reached, any(node.name() == "CheckpointFunctionBackward" for node in searched)
    )


def operations(root: torch.Tensor) -> list[Node]:
    """List the operations that a value was made by.

    Parameters
    ----------
    root : Tensor
        Any.

    Returns
    -------
    list of Node
        Every one once.
    """
    return list(_edges_upwards(root))


def bottom_up(roots: Iterable[Node], ends: Iterable[Node] = ()) -> list[Node]:
    """List the operations below some values.

    Parameters
    ----------
    roots : iterable of Node
        Those that made the values.
    ends : iterable of Node
        Where to stop; they are left out.

    Returns
    -------
    list of Node
        Every one once, behind those whose results it takes.
    """
    order: list[Node] = []
    seen = set(ends)
    waiting = [(node, False) for node in roots]
    while waiting:
        node, ready = waiting.pop()
        if ready:
            order.append(node)
        elif node not in seen:
            seen.add(node)
            waiting.append((node, True))
            waiting += [(child, False) for child, _ in node.next_functions if child is not None]
    return order


def operation_name(node: Node) -> str:
    """Name an operation.

    Parameters
    ----------
    node : Node
        What autograd recorded of it.

    Returns
    -------
    str
        Such as "Convolution".
    """
    return _short(node.name())


@cache
def _short(name: str) -> str:
    """Take off what autograd adds to an operation's name."""
    return re.sub(r"Backward\d*$", "", name.rpartition(":")[2])


def shape_of(node: Node, k: int) -> tuple[int, ...]:
    """Give the shape of a result.

    Parameters
    ----------
    node : Node
        The operation, or a leaf.
    k : int
        Which of its results.

    Returns
    -------
    tuple of int
    """
    leaf = getattr(node, "variable", None)
    return tuple(node._input_metadata[k].shape if leaf is None else leaf.shape)


def derivative(node: Any, given: Sequence[torch.Tensor | None]) -> Sequence[torch.Tensor | None]:
    """Multiply by the transposed derivative of one operation.

    Parameters
    ----------
    node : Node
        The operation.
    given : sequence of (Tensor or None)
        What arrives at each of its results; None for nothing.

    Returns
    -------
    sequence of (Tensor or None)
        For each of `Node.next_functions`, what is handed down; None for nothing.
    """
    if node.name().endswith(_TRANSPARENT):
        return given
    if not is_opaque(node):
        found = node(*given)
        return found if isinstance(found, tuple) else (found,)
    # What a user's own function gives is not in the order of its edges; the engine knows both.
    below = list(dict.fromkeys(place for place in node.next_functions if place[0] is not None))
    arriving = {k: part for k, part in enumerate(given) if part is not None}
    found = torch.autograd.grad(
        [GradientEdge(node, k) for k in arriving],
        [GradientEdge(*place) for place in below],
        list(arriving.values()),
        retain_graph=True,
        allow_unused=True,
    )
    parts = dict(zip(below, found, strict=True))
    return [parts.pop(place, None) for place in node.next_functions]


def is_opaque(node: Node) -> bool:
    """Tell whether an operation holds others that cannot be seen.

    Parameters
    ----------
    node : Node
        Any.

    Returns
    -------
    bool
    """
    name = node.name()
    if name.endswith(_TRANSPARENT):
        return False
    return name.endswith(_OPAQUE) or isinstance(node, BackwardCFunction)


def _edges_upwards(root: torch.Tensor) -> Edges:
    """Give every operation below a value, with the operations that take its result."""
    if root.grad_fn is None:
        return {get_gradient_edge(root).node: []} if root.requires_grad else {}
    above: Edges = {root.grad_fn: []}
    waiting = [root.grad_fn]
    while waiting:
        node = waiting.pop()
        for child, _ in node.next_functions:
            if child is None:
                continue
            if child not in above:
                above[child] = []
                waiting.append(child)
            above[child].append(node)
    return above


def _reachable(start: Iterable[Node], edges: Edges) -> list[Node]:
    """Give all that can be reached along edges, the start included."""
    waiting = list(start)
    found = dict.fromkeys(waiting)
    while waiting:
        for node in edges[waiting.pop()]:
            if node not in found:
                found[node] = None
                waiting.append(node)
    return list(found)
