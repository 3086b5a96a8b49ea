"""Backward rules of gradients: hooks on the operations of the graph that autograd recorded.

They live as long as this graph, which one call makes and drops; nothing of the network is touched.
Functional, in-place, traced and exported rectifiers are all found, since each leaves its operation
in the graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch

from cnnviz_core.errors import RuleError
from cnnviz_core.rules import BackwardRule
from cnnviz_core.steps import ReluStep
from cnnviz_torch.graph import Node, is_opaque

__all__ = ["about_gradients", "apply_rule", "is_rectifier", "refused"]

# Rectifiers, by the name of their backward node without its number, each with the attribute that
# holds the bound below which it cuts off: it must be zero.
_RECTIFIERS = {
    "ReluBackward": None,
    "LeakyReluBackward": None,
    "RreluWithNoiseBackward": None,
    "HardtanhBackward": "_saved_min_val",
    "ThresholdBackward": "_saved_threshold",
    "ClampMinBackward": "_saved_min",
    "ClampBackward": "_saved_min",
}
# The greater of two tensors: a rectifier where one of them is a constant zero.
_MAXIMA = ("MaximumBackward", "FmaxBackward")


def about_gradients(rule: BackwardRule) -> bool:
    """Tell whether a rule only overrides what rectifiers do to a gradient.

    Parameters
    ----------
    rule : BackwardRule
        Any.

    Returns
    -------
    bool
        If not, it takes `cnnviz_torch.relevance`.
    """
    steps = rule.steps.values()
    return (
        rule.needs <= {"rule:relu"}
        and all(isinstance(step, ReluStep) for step in steps)
        and rule.unknown == "differentiate"
    )


def apply_rule(rule: BackwardRule, nodes: Iterable[Node], way: str) -> None:
    """Have the gradient pass operations as a rule says.

    Parameters
    ----------
    rule : BackwardRule
        The rule; it is one `about_gradients`.
    nodes : iterable of Node
        The operations through which the gradient will pass.
    way : str
        From where to where, for the message.

    Raises
    ------
    RuleError
        If there is nothing that the rule would override, or there may be some of it inside an
        operation that cannot be looked into.
    """
    step = rule.steps.get("relu")
    if step is None:
        return
    nodes = list(nodes)
    for node in nodes:
        if is_opaque(node):
            raise refused(rule, node, way)
    rectifiers = [node for node in nodes if is_rectifier(node)]
    if not rectifiers:
        raise RuleError(
            f"the rule {rule.name!r} would change nothing: there is no relu {way}",
            "a ReLU, ReLU6, leaky ReLU, hardtanh(0, ...) or clamp(min=0) on the way",
            "use the plain gradient (saliency), or a node before such a layer",
        )
    for node in rectifiers:
        node.register_hook(_hook(step))


def refused(rule: BackwardRule, node: Node, between: str) -> RuleError:
    """Say that a rule meets an operation that cannot be looked into.

    Parameters
    ----------
    rule : BackwardRule
        The rule.
    node : Node
        The operation.
    between : str
        What it lies between.

    Returns
    -------
    RuleError
    """
    hidden = "rectifiers" if about_gradients(rule) else "operations"
    return RuleError(
        f"the rule {rule.name!r} cannot be applied: the {hidden} inside "
        f"{node.name()!r} cannot be seen {between}",
        "a network of plain torch operations (no compiled or scripted part, no "
        "autograd.Function of its own, no in-place operation on a slice)",
        "call its uncompiled original, or use a method without a rule, such as saliency",
    )


def is_rectifier(node: Any) -> bool:
    """Tell whether an operation is a rectifier.

    Parameters
    ----------
    node : Node
        Any.

    Returns
    -------
    bool
    """
    name = node.name().rstrip("0123456789")
    if name in _MAXIMA:
        operands = (node._saved_self, node._saved_other)
        return any(_is_zero(node, place, operands[place]) for place in (0, 1))
    if name not in _RECTIFIERS:
        return False
    attribute = _RECTIFIERS[name]
    return attribute is None or _is_zero(node, 1, getattr(node, attribute))


def _is_zero(node: Node, place: int, operand: torch.Tensor | float | None) -> bool:
    """Tell whether an operand is zero, and constant if it is a tensor."""
    if isinstance(operand, torch.Tensor):
        return node.next_functions[place][0] is None and not operand.any()
    return operand == 0


def _hook(step: ReluStep) -> Callable[[Any, Any], Any]:
    """Make the hook that takes a step."""

    def pass_down(own: torch.Tensor | None, arriving: torch.Tensor) -> torch.Tensor | None:
        if own is None:
            return None
        gradient = own if step.gate else arriving
        return gradient.clamp(min=0) if step.rectify else gradient

    def hook(own: tuple[torch.Tensor | None, ...], arriving: tuple[torch.Tensor, ...]) -> Any:
        return tuple(pass_down(gradient, arriving[0]) for gradient in own)

    return hook
