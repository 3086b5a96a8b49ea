"""ReLU rules: the gradients registered for rectifiers, and the check that a rule took hold.

Every rectifier of a traced graph carries one of our registered gradients, put there by
``gradient_override_map``.  They ask what rule is in force while ``tf.gradients`` builds the
backward pass, so one trace serves every rule: under `GUIDED` they are what is known as
``GuidedRelu``, under `DECONVNET` what is known as ``DeconvRelu``, and without a rule the plain
derivative.  Their names are cnnviz's own, because a script that registers a ``GuidedRelu`` of its
own must go on working.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final

import tensorflow as tf

from cnnviz_core.errors import RuleError
from cnnviz_core.rules import BackwardRule
from cnnviz_core.steps import ReluStep

__all__ = [
    "OVERRIDES",
    "check_applicable",
    "check_applied",
    "check_in_sight",
    "differentiable_ops",
    "in_force",
    "is_about_rectifiers",
    "relu_step",
]

OVERRIDES: Final = {kind: f"cnnviz.Ruled{kind}" for kind in ("Relu", "Relu6", "LeakyRelu")}
"""From the type of a rectifier's operation to the name of its registered gradient."""

_SILENT: Final = frozenset({"StopGradient", "PreventGradient"})
_SUMS: Final = frozenset({"Add", "AddV2", "Sub"})
_RELAYS: Final = frozenset({"Neg", "Mul", "Identity", "Cast", "Reshape", "ExpandDims"})


@dataclass
class _Rule:
    """The rule in force, and the rectifiers that obeyed it."""

    step: ReluStep
    applied: set[tf.Operation] = field(default_factory=set)


_RULE: ContextVar[_Rule | None] = ContextVar("rule", default=None)


def _derivative(op: tf.Operation, gradient: tf.Tensor) -> tf.Tensor:
    """Apply a rectifier's own derivative."""
    if op.type == "Relu":
        return tf.raw_ops.ReluGrad(gradients=gradient, features=op.outputs[0])
    if op.type == "Relu6":
        return tf.raw_ops.Relu6Grad(gradients=gradient, features=op.outputs[0])
    return tf.raw_ops.LeakyReluGrad(
        gradients=gradient, features=op.inputs[0], alpha=op.get_attr("alpha")
    )


def _ruled_gradient(op: tf.Operation, gradient: tf.Tensor) -> tf.Tensor:
    """Take a rectifier's backward step under the rule in force."""
    rule = _RULE.get()
    if rule is None:
        return _derivative(op, gradient)
    rule.applied.add(op)
    if rule.step.gate:
        gradient = _derivative(op, gradient)
    return tf.nn.relu(gradient) if rule.step.rectify else gradient


for _name in OVERRIDES.values():
    with suppress(KeyError):  # a reloaded module finds its names taken, by this very function
        tf.RegisterGradient(_name)(_ruled_gradient)


@contextmanager
def in_force(step: ReluStep | None) -> Iterator[set[tf.Operation]]:
    """Let a step rule the rectifiers while ``tf.gradients`` builds a backward pass.

    Parameters
    ----------
    step : ReluStep or None
        The step; None for the plain derivative.

    Yields
    ------
    set of tf.Operation
        The rectifiers that obeyed it so far.
    """
    rule = None if step is None else _Rule(step)
    token = _RULE.set(rule)
    try:
        yield set() if rule is None else rule.applied
    finally:
        _RULE.reset(token)


def is_about_rectifiers(rule: BackwardRule) -> bool:
    """Tell whether registered gradients can obey a rule: it has a step at rectifiers at most.

    Parameters
    ----------
    rule : BackwardRule
        The rule.

    Returns
    -------
    bool
    """
    steps = (*rule.steps.items(), *rule.first.items(), *rule.last.items())
    own = all(kind == "relu" and isinstance(step, ReluStep) for kind, step in steps)
    return own and rule.unknown == "differentiate"


def relu_step(rule: BackwardRule) -> ReluStep | None:
    """Read a rule.

    Parameters
    ----------
    rule : BackwardRule
        The rule.

    Returns
    -------
    ReluStep or None
        Its step at rectifiers; None where it has none.
    """
    return rule.steps.get("relu")


def differentiable_ops(of: tf.Tensor, wrt: Sequence[tf.Tensor]) -> list[tf.Operation]:
    """List the operations that a gradient passes on its way.

    Parameters
    ----------
    of : tf.Tensor
        What is differentiated.
    wrt : sequence of tf.Tensor
        What it is differentiated by.

    Returns
    -------
    list of tf.Operation
    """
    ends = {t.ref() for t in wrt}
    passes: dict[tf.Operation, bool] = {}
    stack = [of.op]
    while stack:
        op = stack[-1]
        inputs = [] if op.type in _SILENT else [t for t in op.inputs if _carries_gradient(t)]
        waiting = [t.op for t in inputs if t.op not in passes]
        if waiting and op not in passes:
            passes.setdefault(op, False)  # also ends the walk around a loop
            stack.extend(waiting)
            continue
        passes[op] = any(t.ref() in ends or passes[t.op] for t in inputs)
        stack.pop()
    return [op for op, on_the_way in passes.items() if on_the_way]


def _carries_gradient(tensor: tf.Tensor) -> bool:
    """Tell whether a gradient may pass a tensor (a variant may be a list of floating ones)."""
    return tensor.dtype.is_floating or tensor.dtype.is_complex or tensor.dtype == tf.variant


def check_in_sight(
    rule: BackwardRule, ops: Sequence[tf.Operation], types: Mapping[str, frozenset[str]]
) -> None:
    """Check that no function hides operations that a rule is about.

    Parameters
    ----------
    rule : BackwardRule
        The rule.
    ops : sequence of tf.Operation
        The operations on the way.
    types : mapping of str to set of str
        From a kind of operation to the types of operation that may be of it.

    Raises
    ------
    RuleError
        If one does.
    """
    for kind in (*rule.steps, *rule.first, *rule.last):
        hidden = _hiding(ops, types.get(kind, frozenset()))
        if hidden:
            raise _out_of_reach(rule, kind, hidden)


def _hiding(ops: Sequence[tf.Operation], types: Collection[str]) -> list[str]:
    """Name the operations that call a function with operations of some types inside."""
    called = {op.name: _called(op.node_def.attr) for op in ops}
    if not any(called.values()):
        return []
    library = {f.signature.name: f for f in ops[0].graph.as_graph_def().library.function}

    def holds(name: str, seen: set[str]) -> bool:
        if name in seen or name not in library:
            return False
        seen.add(name)
        return any(
            node.op in types or any(holds(n, seen) for n in _called(node.attr))
            for node in library[name].node_def
        )

    return [op for op, names in called.items() if any(holds(n, set()) for n in names)]


def _called(attributes: Mapping[str, Any]) -> list[str]:
    """Name the functions that an operation calls."""
    names: list[str] = []
    for value in attributes.values():
        names += [value.func.name] if value.HasField("func") else []
        names += [f.name for f in value.list.func]
    return names


def check_applicable(rule: BackwardRule, ops: Sequence[tf.Operation], between: str) -> None:
    """Check that a rule has something to change, and a meaning, on the gradient's way.

    Parameters
    ----------
    rule : BackwardRule
        The rule, with a step at rectifiers.
    ops : sequence of tf.Operation
        All operations on the way, as `differentiable_ops` lists them.
    between : str
        What the gradient runs between, for messages.

    Raises
    ------
    RuleError
        If there is no rectifier; if some are inside functions, or parts of another activation.
    """
    hidden = _hiding(ops, OVERRIDES)
    if hidden:
        raise _out_of_reach(rule, "relu", hidden)
    rectifiers = [op for op in ops if op.type in OVERRIDES]
    if not rectifiers:
        raise _without_effect(rule, between)
    on_the_way = set(ops)
    parts = [op.name for op in rectifiers if _is_part(op, on_the_way)]
    if not rule.steps["relu"].gate:
        parts += [op.name for op in rectifiers if _is_clipped(op, on_the_way)]
    if parts:
        raise RuleError(
            f"the rule {rule.name!r} has no meaning for the activation around {parts[0]!r}, which "
            "is put together of several operations (PReLU, or ReLU with a max_value other than 6)",
            "ReLU, ReLU6 or LeakyReLU",
            "use a method without a rule, such as saliency or grad-cam",
        )


def check_applied(
    rule: BackwardRule, applied: set[tf.Operation], ops: Sequence[tf.Operation], between: str
) -> None:
    """Check that a rule took hold of every rectifier on the gradient's way.

    Parameters
    ----------
    rule : BackwardRule
        The rule.
    applied : set of tf.Operation
        The rectifiers that obeyed it.
    ops : sequence of tf.Operation
        All operations on the way, as `differentiable_ops` lists them.
    between : str
        What the gradient runs between, for messages.

    Raises
    ------
    RuleError
        If a custom gradient hides some of them, or none obeyed.
    """
    missed = [op.name for op in ops if op.type in OVERRIDES and op not in applied]
    if missed:
        raise _out_of_reach(rule, "relu", missed)
    if not applied:
        raise _without_effect(rule, between)


def _without_effect(rule: BackwardRule, between: str) -> RuleError:
    """Say that there are no rectifiers."""
    return RuleError(
        f"the rule {rule.name!r} would change nothing: there is no relu between {between}",
        "a Relu, Relu6 or LeakyRelu operation on the way; other activations (GELU, swish, "
        "maximum(x, 0)) have none",
        "use the plain gradient (saliency), or a node before such a layer",
    )


def _out_of_reach(rule: BackwardRule, kind: str, where: Sequence[str]) -> RuleError:
    """Say that some operations are hidden."""
    return RuleError(
        f"the rule {rule.name!r} cannot reach the {kind} inside {', '.join(where[:3])}",
        "operations in plain sight of the graph: no custom gradient, recomputation or loop around "
        "them, and no function that cannot be inlined",
        "use a method without a rule (saliency, grad-cam), or load the network's own code instead "
        "of an exported file",
    )


def _is_part(op: tf.Operation, on_the_way: set[tf.Operation]) -> bool:
    """Tell whether a rectifier is the negative half of an activation such as PReLU.

    That is ``f(x) + c * relu(-x)``: the rectifier takes a negated value that is used elsewhere too,
    and what it gives is scaled and added.
    """
    source = op.inputs[0].op
    if source.type in _SUMS:  # relu(threshold - x)
        source = next((t.op for t in source.inputs if t.op.type == "Neg"), source)
    if source.type != "Neg" or len(_consumers(source.inputs[0], on_the_way)) < 2:
        return False
    reached, stack = {op}, [op]
    while stack:
        for consumer in _consumers(stack.pop().outputs[0], on_the_way):
            if consumer.type in _SUMS:
                return True
            if consumer.type in _RELAYS and consumer not in reached:
                reached.add(consumer)
                stack.append(consumer)
    return False


def _is_clipped(op: tf.Operation, on_the_way: set[tf.Operation]) -> bool:
    """Tell whether what a rectifier gives is clipped from above by another operation."""
    consumers = _consumers(op.outputs[0], on_the_way)
    return any(consumer.type in ("Minimum", "ClipByValue") for consumer in consumers)


def _consumers(tensor: tf.Tensor, on_the_way: set[tf.Operation]) -> list[tf.Operation]:
    """List the operations on the gradient's way that take a tensor."""
    return [op for op in tensor.consumers() if op in on_the_way]
