"""Walking the graph that autograd recorded."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch.autograd.graph import Node, get_gradient_edge

__all__ = ["Node", "Ways", "operations", "ways"]

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
