"""Rules of relevance: a walk down autograd's graph that takes a rule's step at each operation.

The graph is that of one call, which drops it; nothing of the network is touched.  An operation
without a step hands down by its own derivative: the node that autograd made can be called.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.graph import Node, get_gradient_edge

from cnnviz_core.redistribution import redistribute
from cnnviz_core.rules import BackwardRule, without_effect, without_step
from cnnviz_core.steps import (
    AS_IS,
    PASS,
    LinearStep,
    PassStep,
    ReluStep,
    Step,
    reads_bounds,
)
from cnnviz_torch.bounds import rescaling_before
from cnnviz_torch.flow import DENSE, PLACING, Flow, Place
from cnnviz_torch.folding import Fold, folded
from cnnviz_torch.graph import derivative, operation_name, shape_of
from cnnviz_torch.linear import linear_operation
from cnnviz_torch.operations import FUNCTIONS, Convolution
from cnnviz_torch.records import Records
from cnnviz_torch.rules import is_opaque, refused

__all__ = ["Descent", "needs_results"]

Given: TypeAlias = Sequence[torch.Tensor | None]
_WEIGHTED = ("conv", "linear")


def needs_results(rule: BackwardRule) -> bool:
    """Tell whether a rule asks for what convolutions and dense layers make of their inputs.

    Parameters
    ----------
    rule : BackwardRule
        The rule.

    Returns
    -------
    bool
    """
    named = [steps.get(kind) for steps in (rule.steps, rule.first, rule.last) for kind in _WEIGHTED]
    linear = [step for step in named if isinstance(step, LinearStep)]
    return any(
        len(step.shares) > 1 or term.weight == AS_IS
        for step in linear
        for share in step.shares
        for term in share.terms
    )


@dataclass
class Descent:
    """The way of relevance from a value to those that it was made from, under a rule.

    Parameters
    ----------
    rule : BackwardRule
        The rule.
    flow : Flow
        The operations.
    records : Records
        What they were given.
    names : mapping of nn.Module to str
        The paths of the network's modules, for messages.
    between : str
        From where to where, for messages.

    Attributes
    ----------
    unruled : tuple of str
        The operations for which the rule has no step.

    Raises
    ------
    RuleError
        If the rule changes nothing, or refuses an operation.
    """

    rule: BackwardRule
    flow: Flow
    records: Records
    names: Mapping[nn.Module, str]
    between: str
    unruled: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        self._way = [node for node in reversed(self.flow.order) if node in self.flow.way]
        weighted = [node for node, kind in self.flow.kinds.items() if kind in _WEIGHTED]
        self._folds = {node: self._fold(node) for node in weighted}
        self._inside = {member for fold in self._folds.values() for member in fold.members}
        first, last = self._first(), self._last()
        self._steps = {
            node: self._step(node, node in first, node in last)
            for node in self._way
            if node not in self._inside
        }
        self.unruled = self._check()

    def _fold(self, node: Node) -> Fold:
        """Find the constants behind a convolution or dense layer."""
        axis = self._axis(node)
        if axis is None or not self.rule.conserves or self.records.of(node) is None:
            return Fold()
        return folded(node, axis, self.flow, self.records)

    def _axis(self, node: Node) -> int | None:
        """Tell on which axis a convolution or dense layer has the channels of its result."""
        if self.flow.kinds[node] == "conv":
            return 1
        left = self.flow.given(node)[0] != DENSE[operation_name(node)]
        return None if left else len(shape_of(node, 0)) - 1

    def _first(self) -> set[Node]:
        """Find the convolutions and dense layers before which there is no other one."""
        first, behind = set(), set()
        for node in self.flow.order:
            hit = any(child in behind for child, _ in node.next_functions)
            weighted = self.flow.kinds[node] in _WEIGHTED
            if weighted and not hit:
                first.add(node)
            if weighted or hit:
                behind.add(node)
        return first

    def _last(self) -> set[Node]:
        """Find the convolutions and dense layers on the way behind which there is no other one."""
        last, before = set(), set()
        for node in self._way:
            weighted = self.flow.kinds[node] in _WEIGHTED
            if weighted and node not in before:
                last.add(node)
            if weighted or node in before:
                before.update(child for child, _ in node.next_functions if child is not None)
        return last

    def _step(self, node: Node, first: bool, last: bool) -> Step | None:
        """Find the step to take at an operation."""
        step = self.rule.step(self.flow.kinds[node], first=first, last=last)
        unknown = isinstance(step, LinearStep) and self.records.of(node) is None
        return None if unknown else step

    def _check(self) -> tuple[str, ...]:
        """Check that the rule has the steps that it needs, and name the operations without one."""
        marking = self.rule.unknown == "mark"
        for node in self._steps:
            if is_opaque(node) and not marking:
                raise refused(self.rule, node, self.between)
        if self.rule.needs and not any(self._steps.values()):
            raise without_effect(self.rule, self.between)
        if self.rule.unknown == "differentiate":
            return ()
        unruled = [
            self._named(node)
            for node, step in self._steps.items()
            if step is None and operation_name(node) not in PLACING
        ]
        if unruled and not marking:
            raise without_step(self.rule, unruled, self.between)
        return tuple(dict.fromkeys(unruled))

    def _named(self, node: Node) -> str:
        """Name an operation, and the module that it is in."""
        record = self.records.of(node)
        if record is None:
            return operation_name(node)
        path = self.names.get(record.module, "") if record.module is not None else ""
        return f"{record.name} {path!r}" if path else record.name

    @torch.no_grad()
    def run(
        self, root: torch.Tensor, relevance: torch.Tensor, leaves: Sequence[torch.Tensor]
    ) -> list[torch.Tensor]:
        """Hand relevance down.

        Parameters
        ----------
        root : Tensor
            The value that has the relevance.
        relevance : Tensor
            Of its shape.
        leaves : sequence of Tensor
            The values whose relevance is asked for.

        Returns
        -------
        list of Tensor
            One for each leaf, of its shape.
        """
        ends = [_place(leaf) for leaf in leaves]
        arrived: dict[Place, torch.Tensor] = {_place(root): relevance}
        for node in self._way:
            results = [(node, k) for k in range(len(node._input_metadata))]
            given = [arrived.get(place) for place in results]
            for place in results:
                if place not in ends:
                    arrived.pop(place, None)
            if all(part is None for part in given):
                continue
            parts = self._handed_down(node, given)
            for place, part in zip(node.next_functions, parts, strict=True):
                if part is not None and (place[0] in self.flow.way or place in ends):
                    arrived[place] = arrived[place] + part if place in arrived else part
        return [
            arrived[end] if end in arrived else torch.zeros_like(leaf)
            for end, leaf in zip(ends, leaves, strict=True)
        ]

    def _handed_down(self, node: Node, given: Given) -> Given:
        """Give each value that an operation took what it gets of what arrives."""
        (arriving, *others), step = given, self._step_at(node)
        linear = isinstance(step, LinearStep) or (node in self._folds and self.records.of(node))
        if arriving is None or any(part is not None for part in others):
            return derivative(node, given)
        if linear:
            return self._split(node, step, arriving)
        if isinstance(step, PassStep):
            return self._passed(node, arriving)
        if not isinstance(step, ReluStep):
            return derivative(node, given)
        parts = derivative(node, given) if step.gate else self._passed(node, arriving)
        return [p if p is None or not step.rectify else p.clamp(min=0) for p in parts]

    def _step_at(self, node: Node) -> Step | None:
        """Give the step to take at an operation; what is folded into another hands down."""
        return PASS if node in self._inside else self._steps[node]

    def _passed(self, node: Node, arriving: torch.Tensor) -> Given:
        """Hand all that arrives down to the one value that an operation changes."""
        gate = self.flow.kinds[node] == "gate"
        place = self.flow.signal(node) if gate else self.flow.given(node)[0]
        return self._at(node, [place], [arriving])

    def _split(self, node: Node, step: Step | None, arriving: torch.Tensor) -> Given:
        """Split what arrives at an operation; without a step, by its derivative."""
        fold = self._folds.get(node) or Fold()
        operation: Any = linear_operation(node, self.flow, self.records, fold, self.rule.bounds)
        if isinstance(step, LinearStep):
            if reads_bounds(step):
                operation.before = rescaling_before(node, operation.inputs[0], self.flow)
            parts = redistribute(step, operation, arriving, FUNCTIONS)
        else:
            parts = operation.transposed(arriving, AS_IS)
        if isinstance(operation, Convolution) and operation.border:
            # The graph goes on above the padding, which has its own derivative.
            parts = [F.pad(part, list(operation.border)) for part in parts]
        return self._at(node, self.flow.given(node), parts)

    def _at(self, node: Node, places: Sequence[int], parts: Sequence[torch.Tensor]) -> Given:
        """Give some of what an operation took their parts, in the shapes that they have."""
        found: list[torch.Tensor | None] = [None] * len(node.next_functions)
        for place, part in zip(places, parts, strict=True):
            found[place] = part.sum_to_size(shape_of(*node.next_functions[place]))
        return found


def _place(tensor: torch.Tensor) -> Place:
    """Tell where a recorded tensor comes from."""
    edge = get_gradient_edge(tensor)
    return edge.node, edge.output_nr
