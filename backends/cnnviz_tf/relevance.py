"""Backward passes under rules of relevance: operation by operation, from the top down.

The pass is added to the network's graph, so that it and the forward pass are one run.  First every
operation that something will reach is given a step (`plan`), and the rule is checked; then the
steps are added to the graph (`hand_down`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeAlias

import tensorflow as tf

from cnnviz_core.redistribution import redistribute
from cnnviz_core.rules import BackwardRule, without_effect, without_step
from cnnviz_core.steps import AS_IS, LinearStep, PassStep, ReluStep, Step
from cnnviz_tf.bounds import bound_of
from cnnviz_tf.derivative import derivative, derivative_between, replayed
from cnnviz_tf.folding import Folded, fold, through_moves
from cnnviz_tf.kinds import PLACING, SUMS, TYPES, Facts
from cnnviz_tf.linear import Average, Functions, Sum, Weighted
from cnnviz_tf.precision import wide
from cnnviz_tf.rules import check_in_sight, differentiable_ops, in_force
from cnnviz_tf.spelled import Spelled, spelled

__all__ = ["Planned", "Way", "hand_down", "plan", "unruled"]

_WEIGHTED: Final = ("conv", "linear")
_SEVERAL: Final = SUMS | {"Maximum", "Minimum", "Mul", "RealDiv", "Select", "SelectV2"}


@dataclass(frozen=True)
class Planned:
    """An operation and the step that is taken there.

    Attributes
    ----------
    op : tf.Operation
        The operation.
    kind : str or None
        What a rule calls it.
    step : step or None
        None for its own derivative.
    folded : Folded, optional
        With what belongs to it, if it is a convolution or dense layer.
    whole : Spelled, optional
        The function that ends in it.
    constant : bool
        Whether it is folded into a layer below.
    """

    op: tf.Operation
    kind: str | None
    step: Step | None
    folded: Folded | None = None
    whole: Spelled | None = None
    constant: bool = False

    @property
    def is_unruled(self) -> bool:
        """Whether a rule should say what to do there and does not."""
        return self.step is None and not self.constant and self.op.type not in PLACING


class Way:
    """The operations between a tensor and others that it depends on.

    Parameters
    ----------
    top : tf.Tensor
        What relevance comes from.
    ends : sequence of tf.Tensor
        Where it goes to.
    facts : Facts
        Those of the graph.
    rule : BackwardRule
        The rule.
    """

    def __init__(
        self, top: tf.Tensor, ends: Sequence[tf.Tensor], facts: Facts, rule: BackwardRule
    ) -> None:
        self.ends: Final = {tensor.ref() for tensor in ends}
        self.facts: Final = facts
        found = differentiable_ops(top, ends)
        self.ops: Final = sorted(found, key=facts.order.__getitem__, reverse=True)
        self._on_the_way: Final = set(found)
        self._kinds: Final = {op: facts.kind(op) for op in self.ops}
        self._below_another: Final = self._read_by_weighted()
        self._folded: dict[tf.Operation, Folded] = {}
        self._constants: set[tf.Operation] = set()
        if rule.conserves:
            self._fold()

    def leads(self, tensor: tf.Tensor) -> bool:
        """Tell whether relevance at a tensor is of use.

        Parameters
        ----------
        tensor : tf.Tensor
            Any of the graph.

        Returns
        -------
        bool
        """
        return tensor.op in self._on_the_way or tensor.ref() in self.ends

    def step_at(self, op: tf.Operation, rule: BackwardRule) -> Planned:
        """Give the step at an operation.

        Parameters
        ----------
        op : tf.Operation
            One on the way.
        rule : BackwardRule
            The rule.

        Returns
        -------
        Planned
        """
        if op in self._constants:
            return Planned(op, "batchnorm", None, constant=True)
        kind, whole = self._kinds[op], None
        if op.type in _SEVERAL and kind in (None, "add") and len(self.facts.data_of(op)) > 1:
            whole = spelled(op, self.facts, self.ends)
            kind = whole.kind if whole else kind
        weighted = kind in _WEIGHTED
        first = weighted and self.facts.is_first(op)
        last = weighted and op not in self._below_another
        step = rule.step(kind, first=first, last=last)
        return Planned(op, kind, step, self._folded.get(op), whole)

    def _fold(self) -> None:
        """Fold constants and padding into convolutions and dense layers."""
        for op in self.ops:
            if self._kinds[op] in _WEIGHTED:
                self._folded[op] = fold(op, self.facts, self._takers)
                self._constants.update(self._folded[op].after)

    def _takers(self, tensor: tf.Tensor) -> list[tf.Operation]:
        """List the operations on the way that take a tensor."""
        return [op for op in dict.fromkeys(tensor.consumers()) if op in self._on_the_way]

    def _read_by_weighted(self) -> set[tf.Operation]:
        """Give the operations of which a convolution or dense layer on the way makes something."""
        below: set[tf.Operation] = set()
        for op in self.ops:
            if op in below or self._kinds[op] in _WEIGHTED:
                below.update(t.op for t in op.inputs if t.op in self._on_the_way)
        return below


def plan(
    top: tf.Tensor,
    ends: Sequence[tf.Tensor],
    facts: Facts,
    rule: BackwardRule,
    between: str,
) -> tuple[Way, list[Planned]]:
    """Give a step to every operation that relevance reaches.

    Parameters
    ----------
    top : tf.Tensor
        What it comes from.
    ends : sequence of tf.Tensor
        Where it goes to.
    facts : Facts
        Those of the graph.
    rule : BackwardRule
        The rule, its steps checked.
    between : str
        What lies between what, for messages.

    Returns
    -------
    way : Way
        The operations in between.
    steps : list of Planned
        In the order in which they are taken.

    Raises
    ------
    RuleError
        If the rule refuses an operation, or would change nothing.
    """
    way = Way(top, ends, facts, rule)
    reached, steps = {top.ref()}, []
    for op in way.ops:
        if any(output.ref() in reached for output in op.outputs):
            steps.append(way.step_at(op, rule))
            reached.update(tensor.ref() for tensor in _below(steps[-1], facts))
    named = [_named(one) for one in steps if one.is_unruled]
    if named and rule.unknown == "refuse":
        raise without_step(rule, named, between)
    if rule.unknown == "differentiate":
        check_in_sight(rule, [one.op for one in steps], TYPES)
    if rule.needs and all(one.step is None for one in steps):
        raise without_effect(rule, between)
    return way, steps


def hand_down(
    top: tf.Tensor, relevance: tf.Tensor, way: Way, steps: Sequence[Planned], rule: BackwardRule
) -> dict[object, tf.Tensor]:
    """Add the steps to the current graph.

    Parameters
    ----------
    top : tf.Tensor
        What the relevance is of.
    relevance : tf.Tensor
        Of its shape.
    way : Way
        The operations in between.
    steps : sequence of Planned
        As from `plan`.
    rule : BackwardRule
        The rule.

    Returns
    -------
    dict of reference to tf.Tensor
        The relevance of every tensor that some of it reached.
    """
    arrived: dict[object, tf.Tensor] = {top.ref(): wide(relevance)}
    for planned in steps:
        arriving = [arrived.get(output.ref()) for output in planned.op.outputs]
        for tensor, part in _taken(planned, arriving, way, rule):
            if way.leads(tensor) and part is not None:
                ref, part = tensor.ref(), wide(part)
                arrived[ref] = tf.add_n([arrived[ref], part]) if ref in arrived else part
    return arrived


def unruled(rule: BackwardRule, steps: Sequence[Planned]) -> tuple[str, ...]:
    """Name the operations at which a rule with unknown="mark" took the plain derivative.

    Parameters
    ----------
    rule : BackwardRule
        The rule.
    steps : sequence of Planned
        As from `plan`.

    Returns
    -------
    tuple of str
    """
    if rule.unknown != "mark":
        return ()
    return tuple(dict.fromkeys(_named(one) for one in steps if one.is_unruled))


def _named(planned: Planned) -> str:
    """Name an operation for messages."""
    op = planned.whole.op if planned.whole else planned.op
    return f"{op.type} {op.name!r}"


def _below(planned: Planned, facts: Facts) -> list[tf.Tensor]:
    """List the tensors to which a step hands something down."""
    op = planned.op
    if planned.whole:
        return [planned.whole.root]
    if planned.folded:
        return [planned.folded.input]
    if planned.kind == "gate" and isinstance(planned.step, PassStep):
        return [op.inputs[facts.signal(op)]]
    return list(op.inputs)


Parts: TypeAlias = Sequence[tuple[tf.Tensor, tf.Tensor | None]]
"""What tensors below get."""


def _taken(
    planned: Planned, arriving: list[tf.Tensor | None], way: Way, rule: BackwardRule
) -> Parts:
    """Take a step: what each tensor below gets."""
    op, step = planned.op, planned.step
    if all(one is None for one in arriving):
        return []
    if planned.constant:
        (tensor,) = way.facts.data_of(op)
        return [(tensor, through_moves(op, arriving[0]))]
    if isinstance(step, PassStep):
        below = filter(way.facts.is_data, _below(planned, way.facts))
        return [(tensor, _passed(arriving[0], tensor)) for tensor in below]
    if planned.folded:
        return _through_layer(planned.folded, step, arriving[0], way, rule)
    if isinstance(step, LinearStep):
        return _through_sum(op, step, arriving[0], way.facts)
    if planned.whole:
        root = planned.whole.root
        given = tf.cast(arriving[0], op.outputs[0].dtype)
        return [(root, derivative_between(op.outputs[0], root, given))]
    if op.type == "IdentityN":  # whose gradient may be the network's own invention
        return list(zip(op.inputs, arriving, strict=True))
    given = [
        tf.cast(one, output.dtype) if one is not None and output.dtype.is_floating else one
        for output, one in zip(op.outputs, arriving, strict=True)
    ]
    with in_force(step if isinstance(step, ReluStep) else None):
        return list(zip(op.inputs, derivative(op, given), strict=True))


def _through_layer(
    folded: Folded, step: Step | None, arriving: tf.Tensor, way: Way, rule: BackwardRule
) -> Parts:
    """Split what arrives at a convolution or dense layer among its inputs."""
    nonnegative = way.facts.is_nonnegative(folded.input)
    bound = partial(bound_of, folded, way.facts, rule)
    operation = Weighted(folded, nonnegative, bound)
    if isinstance(step, LinearStep):
        (part,) = redistribute(step, operation, arriving, Functions(arriving.dtype))
    else:
        (part,) = operation.transposed(arriving, AS_IS)
    found, padded = [(folded.input, part)], part
    for op in folded.before:
        padded = replayed(op, {0: padded}).outputs[0]
        if op.outputs[0].ref() in way.ends:
            found.append((op.outputs[0], padded))
    return found


def _through_sum(op: tf.Operation, step: LinearStep, arriving: tf.Tensor, facts: Facts) -> Parts:
    """Split what arrives at a sum or an average among what it adds up."""
    several = op.type in SUMS
    inputs = list(op.inputs) if several else [op.inputs[0]]
    nonnegative = all(map(facts.is_nonnegative, inputs))
    operation = (Sum if several else Average)(op, nonnegative)
    parts = redistribute(step, operation, arriving, Functions(arriving.dtype))
    return list(zip(inputs, parts, strict=True))


def _passed(relevance: tf.Tensor, below: tf.Tensor) -> tf.Tensor:
    """Hand relevance down unchanged, added up where a value was broadcast."""
    if relevance.shape.rank is not None and relevance.shape.as_list() == below.shape.as_list():
        return relevance
    broad = tf.broadcast_to(tf.cast(below, relevance.dtype), tf.shape(relevance))
    return derivative(broad.op, [relevance])[0]
