"""The least and greatest values that the first layers of a network can take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd.graph import Node

from cnnviz_core.errors import RuleError
from cnnviz_torch.flow import PLACING, Flow
from cnnviz_torch.graph import derivative, operation_name, shape_of

__all__ = ["Rescaling", "rescaling_before"]


@dataclass
class Rescaling:
    """Constants that scale and shift the network's input before a layer, ``scale * x + shift``.

    Attributes
    ----------
    scale, shift : Tensor
        Of the shape of what the layer takes.
    """

    scale: torch.Tensor
    shift: torch.Tensor

    def of_bounds(self, low: torch.Tensor, high: torch.Tensor, end: str) -> torch.Tensor:
        """Give the least or the greatest value of what the layer takes.

        Parameters
        ----------
        low, high : Tensor
            The least and the greatest values of the network's input.
        end : {"low", "high"}
            Which.

        Returns
        -------
        Tensor
        """
        ends = [self.scale * values + self.shift for values in (low, high)]
        return torch.minimum(*ends) if end == "low" else torch.maximum(*ends)


def rescaling_before(node: Node, taken: torch.Tensor, flow: Flow) -> Rescaling | None:
    """Find by what a network rescales its input before a layer, as some networks do.

    Parameters
    ----------
    node : Node
        A convolution or dense layer.
    taken : Tensor
        What it takes, without the zeros that are padded before it.
    flow : Flow
        Where it is in.

    Returns
    -------
    Rescaling or None
        None where the input's values come as they are.

    Raises
    ------
    RuleError
        If they come as anything else.
    """
    chain, below = [], _below(node, flow)
    while below not in flow.inputs:
        placed = operation_name(below) in PLACING
        if not (placed or flow.kinds[below] == "batchnorm") or len(flow.given(below)) != 1:
            raise _unknown(operation_name(below))
        chain.append(below)
        below = _below(below, flow)
    if all(operation_name(one) in PLACING for one in chain):
        return None
    if operation_name(chain[0]) == "ConstantPadNd":
        del chain[0]  # the layer's own border
    leaf: Any = below
    x, scale = leaf.variable.detach(), torch.ones_like(taken)
    for one in chain:
        handed = derivative(one, [scale])[flow.given(one)[0]]
        if handed is None or handed.shape != taken.shape or shape_of(one, 0) != taken.shape:
            raise _unknown(operation_name(one))
        scale = handed
    return Rescaling(scale, taken - scale * x)


def _below(node: Node, flow: Flow) -> Node:
    """Give the operation whose result another one takes."""
    below = node.next_functions[flow.given(node)[0]][0]
    assert below is not None
    return below


def _unknown(name: str) -> RuleError:
    """Say that the bounds of what a layer takes are not known."""
    return RuleError(
        f"a rule with bounds meets a first layer before which there is {name}, so that the bounds "
        "of what it takes are not known",
        "a first layer that takes the network's input, or the input scaled and shifted by "
        "constants",
        "use a rule without bounds, such as epsilon-plus, or do that before the network",
    )
