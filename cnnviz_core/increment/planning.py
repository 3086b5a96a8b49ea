"""Which values to compute again when windows of an input have changed, chosen by counted work."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

from cnnviz_core.increment.operations import Operation
from cnnviz_core.increment.places import Part, reading, reads, united

__all__ = ["MOVED", "Change", "Plan", "Structure"]

MOVED: Final = 32.0
"""How many multiply-adds take the time in which one value is moved in memory."""

Change: TypeAlias = Part | Literal["nothing", "everything"]
"""What of an operation's values is another than that of the clean sample."""


@dataclass(frozen=True)
class Plan:
    """What to compute of each operation.

    Attributes
    ----------
    operations : sequence of Operation
        The network's.
    source : int
        The input that changes.
    changes : tuple of Change
        For each operation, of which of its values the changed ones are computed.
    order : tuple of int
        The operations to compute.
    wanted : tuple of int
        Those whose values are asked for.
    work : float
        Multiply-adds for each sample.
    cost : float
        The same, with what is moved in memory counted as multiply-adds.
    """

    operations: Sequence[Operation]
    source: int
    changes: tuple[Change, ...]
    order: tuple[int, ...]
    wanted: tuple[int, ...]
    work: float
    cost: float

    def __len__(self) -> int:
        """Count the samples."""
        changed = self.changes[self.source]
        assert isinstance(changed, Part)
        return len(changed)


@dataclass(frozen=True)
class Structure:
    """A network's operations, and what of them depends on one input and is asked for.

    Attributes
    ----------
    operations : sequence of Operation
        Every one behind those that it reads.
    wanted : sequence of int
        Those whose values are asked for.
    source : int
        The input that changes.
    order : tuple of int
        The operations between the two, in order.
    work, cost : float
        As of a `Plan` that computes all of them whole.
    """

    operations: Sequence[Operation]
    wanted: Sequence[int]
    source: int = 0
    order: tuple[int, ...] = field(init=False)
    work: float = field(init=False)
    cost: float = field(init=False)

    def __post_init__(self) -> None:
        order = _between(self.operations, self.source, self.wanted)
        whole = [_Way.whole(self.operations[k]) for k in order]
        object.__setattr__(self, "order", order)
        object.__setattr__(self, "work", sum(way.work for way in whole))
        object.__setattr__(self, "cost", sum(way.cost for way in whole))

    def plan(self, part: Part) -> Plan:
        """Choose what to compute of each operation when windows of the input have changed.

        An operation is computed in windows where these are all that it needs and cost less than the
        whole, with what it takes to cut them out of the clean values.

        Parameters
        ----------
        part : Part
            The windows, one for each sample.

        Returns
        -------
        Plan
        """
        choice = _Choice(self.operations, self.source, part)
        for k in self.order:
            choice.decide(k)
        for k in self.wanted:
            choice.make_whole(k)
        changes = tuple(choice.changes.get(k, "nothing") for k in range(len(self.operations)))
        return Plan(
            self.operations,
            self.source,
            changes,
            self.order,
            tuple(self.wanted),
            choice.work,
            choice.cost,
        )


def _between(
    operations: Sequence[Operation], source: int, wanted: Collection[int]
) -> tuple[int, ...]:
    """List the operations that depend on one and that others depend on, in order."""
    touched = {source}
    for k, operation in enumerate(operations):
        if not touched.isdisjoint(operation.inputs):
            touched.add(k)
    needed = set(wanted)
    for k in reversed(range(len(operations))):
        if k in needed:
            needed.update(operations[k].inputs)
    return tuple(sorted((touched & needed) - {source}))


@dataclass(frozen=True)
class _Way:
    """A way to compute an operation: which values, and at what price."""

    change: Change
    work: float
    cost: float

    @classmethod
    def whole(cls, operation: Operation, moved: float = 0.0) -> _Way:
        """Price all positions, and that other values are moved before."""
        return cls._of("everything", operation, math.prod(operation.grid), moved)

    @classmethod
    def within(cls, operation: Operation, part: Part, moved: float) -> _Way:
        """Price some positions, and that other values are moved before."""
        return cls._of(part, operation, part.positions, moved)

    @classmethod
    def _of(cls, change: Change, operation: Operation, positions: int, moved: float) -> _Way:
        work = operation.work * positions
        return cls(change, work, work + MOVED * (operation.channels * positions + moved))


class _Choice:
    """Decides operation by operation, in order."""

    def __init__(self, operations: Sequence[Operation], source: int, part: Part) -> None:
        self._operations = operations
        self.changes: dict[int, Change] = {source: part}
        self.work = self.cost = 0.0
        self._completed: set[int] = set()

    def decide(self, k: int) -> None:
        """Choose the cheaper way for an operation."""
        operation = self._operations[k]
        ways = [self._whole(k)]
        part = self._part(k)
        if part is not None and part.extent != operation.grid:
            ways.append(_Way.within(operation, part, self._cut(k, part)))
        best = min(ways, key=lambda way: way.cost)
        self.changes[k] = best.change
        self.work += best.work
        self.cost += best.cost
        if best.change == "everything" and not self._is_moved_mean(k):
            self._completed.update(operation.inputs)

    def make_whole(self, k: int) -> None:
        """Price that an operation's values are asked for."""
        self.cost += MOVED * self._missing(k)
        self._completed.add(k)

    def _whole(self, k: int) -> _Way:
        """Price an operation as a whole."""
        operation = self._operations[k]
        if self._is_moved_mean(k):
            part = self.changes[operation.inputs[0]]
            assert isinstance(part, Part)
            values = self._operations[operation.inputs[0]].channels * part.positions
            return _Way("everything", 0.0, MOVED * 2 * values)
        return _Way.whole(operation, sum(map(self._missing, set(operation.inputs))))

    def _is_moved_mean(self, k: int) -> bool:
        """Tell whether an operation is a mean of which only some terms have changed."""
        operation = self._operations[k]
        return operation.kind == "mean" and isinstance(self._change(operation.inputs[0]), Part)

    def _missing(self, k: int) -> float:
        """Count the values to move before an operation's are there as a whole."""
        if k in self._completed or not isinstance(self._change(k), Part):
            return 0.0
        return self._operations[k].channels * math.prod(self._operations[k].grid)

    def _change(self, k: int) -> Change:
        """Give what of an operation has changed."""
        return self.changes.get(k, "nothing")

    def _part(self, k: int) -> Part | None:
        """Find which windows of an operation can have changed; None where it is all."""
        operation = self._operations[k]
        changes = [self._change(i) for i in operation.inputs]
        if operation.kind == "window" and isinstance(changes[0], Part):
            return reading(changes[0], operation.along, operation.grid)
        if operation.kind not in ("pointwise", "concatenate") or "everything" in changes:
            return None
        parts = []
        for i, change in zip(operation.inputs, changes, strict=True):
            grid = self._operations[i].grid
            if isinstance(change, Part):
                parts.append(change)
            if grid != operation.grid and (isinstance(change, Part) or math.prod(grid) > 1):
                return None
        return united(parts, operation.grid)

    def _cut(self, k: int, part: Part) -> float:
        """Count the values to cut out of clean maps before windows can be computed."""
        operation = self._operations[k]
        moved = 0.0
        for i in operation.inputs:
            change, of = self._change(i), self._operations[i]
            need = reads(part, operation.along) if operation.kind == "window" else part
            if of.grid and not (isinstance(change, Part) and change.same(need)):
                moved += of.channels * need.positions
        return moved
