"""Backward rules: hooks on the operations of the graph that autograd recorded.

They live as long as this graph, which one call makes and drops; nothing of the network is touched.
Functional, in-place, traced and exported rectifiers are all found, since each leaves its operation
in the graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.autograd.function import BackwardCFunction

from cnnviz_core.errors import RuleError
from cnnviz_core.rules import BackwardRule
from cnnviz_core.steps import ReluStep
from cnnviz_torch.graph import Node

__all__ = ["KINDS", "apply_rule", "check_rule"]

KINDS = ("relu",)
"""The kinds of operation whose backward step can be overridden."""

# Operations that hold others, in which rectifiers may hide.
_OPAQUE = ("CompiledFunctionBackward", "DifferentiableGraphBackward", "CopySlices")
# A user's own full backward hook on a module; it hands the gradient on.
_TRANSPARENT = ("BackwardHookFunctionBackward",)
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


def check_rule(rule: BackwardRule) -> None:
    """Check that every step of a rule is one that this backend knows.

    Parameters
    ----------
    rule : BackwardRule
        The rule.

    Raises
    ------
    RuleError
        If one is unknown.
    """
    for kind, step in rule.steps.items():
        if kind not in KINDS or not isinstance(step, ReluStep):
            raise RuleError(
                f"the rule {rule.name!r} has the step {step!r} for {kind!r}",
                f"steps for {', '.join(map(repr, KINDS))} (a ReluStep)",
                f"use a backend that offers it: its models' capabilities name 'rule:{kind}'",
            )


def apply_rule(rule: BackwardRule, nodes: Iterable[Node], way: str) -> None:
    """Have the gradient pass operations as a rule says.

    Parameters
    ----------
    rule : BackwardRule
        The rule; `check_rule` has passed it.
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
        if _opaque(node):
            raise RuleError(
                f"the rule {rule.name!r} cannot be applied: the rectifiers inside "
                f"{node.name()!r} cannot be seen {way}",
                "a network of plain torch operations (no compiled or scripted part, no "
                "autograd.Function of its own, no in-place operation on a slice)",
                "call its uncompiled original, or use a method without a rule, such as saliency",
            )
    rectifiers = [node for node in nodes if _is_rectifier(node)]
    if not rectifiers:
        raise RuleError(
            f"the rule {rule.name!r} would change nothing: there is no relu {way}",
            "a ReLU, ReLU6, leaky ReLU, hardtanh(0, ...) or clamp(min=0) on the way",
            "use the plain gradient (saliency), or a node before such a layer",
        )
    for node in rectifiers:
        node.register_hook(_hook(step))


def _opaque(node: Node) -> bool:
    """Tell whether an operation holds others that cannot be seen."""
    name = node.name()
    if name.endswith(_TRANSPARENT):
        return False
    return name.endswith(_OPAQUE) or isinstance(node, BackwardCFunction)


def _is_rectifier(node: Any) -> bool:
    """Tell whether an operation is a rectifier."""
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
