"""Computing a network again only where a change reaches, with any framework's arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final, Generic, Protocol, TypeVar, cast

import numpy as np

from cnnviz_core.blended import Blended
from cnnviz_core.increment.operations import Operation
from cnnviz_core.increment.places import Cut, Part, everywhere, part_around, reads
from cnnviz_core.increment.planning import Plan, Structure
from cnnviz_core.mask_forms import MaskForm
from cnnviz_core.model import Array
from cnnviz_core.reached import blended_within, reached

__all__ = ["Increment", "IncrementArrays", "run"]

PAYS: Final = 0.8
"""The share of the whole network's cost below which it pays to compute it in windows."""

_CALL: Final = 2e6
"""How many multiply-adds take the time in which an operation is planned and called."""
_STEPS: Final = 8
"""Into how many steps the side of a sample is divided, to tell large boxes from small ones."""
_FEW: Final = 4
"""How many samples at least are worth a plan of their own."""

T = TypeVar("T")


class IncrementArrays(Protocol[T]):
    """A network's operations and its clean values, in a framework's arrays.

    Operations are told by their indices in the list that the `Increment` was given; the clean
    values are those of the sample that is changed.  An array holds the values of a batch, for all
    positions or for a window of each, laid out as the framework has it.
    """

    def patches(self, values: Array) -> T:
        """Bring windows (n, *extent, C) of the changed input to where the network computes."""
        ...

    def clean(self, k: int, n: int) -> T:
        """Give an operation's clean value, n times, as one batch; a view will do."""
        ...

    def cut(self, k: int, cut: Cut, changed: T | None) -> T:
        """Cut windows out of an operation's clean value, and lay what has changed on them."""
        ...

    def apply(self, k: int, inputs: Sequence[T], windows: bool) -> T:
        """Compute an operation of its inputs, which may not be written to.

        With `windows`, an operation of the kind "window" is given windows that hold what lies
        beyond the ends too, and has to be computed without padding of its own; a "pointwise" or
        "concatenate" one is given windows of the places that are asked for.
        """
        ...

    def moved_mean(self, k: int, old: T, new: T) -> T:
        """Compute a mean of which some terms have changed: windows of clean values, and the new."""
        ...

    def whole(self, batch: Blended) -> Sequence[T]:
        """Compute the wanted values of a batch in the plain way."""
        ...

    def joined(self, parts: Sequence[T]) -> T:
        """Put batches behind each other."""
        ...

    def ordered(self, values: T, places: Array) -> T:
        """Give ``values[places]``, of a batch."""
        ...


class Increment(Generic[T]):
    """Computes one sample's values under masks, each time only where the mask reaches.

    The values of the clean sample are known.  Of each operation those windows are computed that a
    mask can have changed, all of a batch at once, laid into the clean values where the next one
    reads more, and the whole of it from where this costs less (Nakandala, Kumar and
    Papakonstantinou, "Incremental and approximate inference for faster occlusion-based deep CNN
    explanations", SIGMOD 2019; of it the exact part).  Nothing is left out, so that the results are
    those of the plain way, but for rounding.

    Parameters
    ----------
    operations : sequence of Operation
        The network's, every one behind those that it reads.
    wanted : sequence of int
        The operations whose values are asked for.
    arrays : IncrementArrays
        The operations themselves, and the values of the clean sample.
    source : int
        The input that is changed.
    """

    def __init__(
        self,
        operations: Sequence[Operation],
        wanted: Sequence[int],
        arrays: IncrementArrays[T],
        source: int = 0,
    ) -> None:
        self._structure = Structure(operations, wanted, source)
        self._arrays = arrays

    def pays(self, form: MaskForm) -> bool:
        """Tell whether some samples under masks cost less than in the plain way.

        Parameters
        ----------
        form : MaskForm
            The masks.

        Returns
        -------
        bool
        """
        return any(plan is not None for _, plan in self._groups(form))

    def run(self, batch: Blended) -> list[T]:
        """Compute the wanted values of a sample under masks.

        Parameters
        ----------
        batch : Blended
            The clean sample under masks.

        Returns
        -------
        list of array
            For each wanted operation its value, for all of the batch; in the plain way where
            another does not pay.
        """
        groups = self._groups(batch.masks)
        found = [self._group(batch, *group) for group in groups]
        if len(found) == 1:
            return list(found[0])
        places = np.argsort(np.concatenate([which for which, _ in groups]))
        joined = map(self._arrays.joined, zip(*found, strict=True))
        return [self._arrays.ordered(values, places) for values in joined]

    def _group(self, batch: Blended, which: Array, plan: Plan | None) -> Sequence[T]:
        """Compute some samples of a batch by one plan; by none in the plain way."""
        if len(which) < len(batch):
            batch = replace(batch, masks=batch.masks[which])
        if plan is None:
            return self._arrays.whole(batch)
        part = cast(Part, plan.changes[plan.source])
        return run(plan, blended_within(batch, part.starts, part.extent), self._arrays)

    def _groups(self, form: MaskForm) -> list[tuple[Array, Plan | None]]:
        """Divide masks into those that one plan serves; those that none serves come last."""
        boxes = reached(form)
        every = np.arange(len(form))
        together = self._plan(boxes, every)
        alike = _of_like_size(boxes, form.shape[1:])
        if len(alike) == 1:
            return [together]
        divided = [self._plan(boxes, which) for which in alike]
        plain = [which for which, plan in divided if plan is None]
        groups = [group for group in divided if group[1] is not None]
        if plain:
            groups.append((np.concatenate(plain), None))
        return min([together], groups, key=self._cost)

    def _plan(self, boxes: Array, which: Array) -> tuple[Array, Plan | None]:
        """Plan for some of a batch's boxes; None where it does not pay."""
        grid = self._structure.operations[self._structure.source].grid
        plan = self._structure.plan(part_around(boxes[which, :, 0], boxes[which, :, 1], grid))
        return which, plan if plan.cost < PAYS * self._structure.cost else None

    def _cost(self, groups: Sequence[tuple[Array, Plan | None]]) -> float:
        """Add up what groups cost, and the calls that they take."""
        each = (self._structure.cost if plan is None else plan.cost for _, plan in groups)
        samples = sum(cost * len(which) for cost, (which, _) in zip(each, groups, strict=True))
        return samples + len(groups) * _CALL * len(self._structure.order)


def _of_like_size(boxes: Array, size: Sequence[int]) -> list[Array]:
    """Divide boxes (n, axes, 2) into those whose longest sides are alike, the smallest first."""
    sides = -(-(boxes[..., 1] - boxes[..., 0]) * _STEPS // np.array(size)).min(axis=1)
    groups: list[list[int]] = [[]]
    for side in np.unique(sides):
        if len(groups[-1]) >= _FEW:
            groups.append([])
        groups[-1] += np.flatnonzero(sides == side).tolist()
    return [np.array(group) for group in groups]


def run(plan: Plan, patches: Array, arrays: IncrementArrays[T]) -> list[T]:
    """Compute what a plan says.

    Parameters
    ----------
    plan : Plan
        The plan.
    patches : ndarray (n, *extent, C)
        The changed windows of its source.
    arrays : IncrementArrays
        The operations, and the clean values.

    Returns
    -------
    list of array
        The value of each wanted operation, for each sample.
    """
    return _Run(plan, arrays.patches(patches), arrays).results()


class _Run(Generic[T]):
    """One execution of a plan."""

    def __init__(self, plan: Plan, patches: T, arrays: IncrementArrays[T]) -> None:
        self._plan = plan
        self._arrays = arrays
        self._values: dict[int, T] = {plan.source: patches}
        self._wholes: dict[int, T] = {}

    def results(self) -> list[T]:
        """Compute everything, and forget each value after the last that reads it."""
        operations, kept = self._plan.operations, set(self._plan.wanted)
        last = {i: k for k in self._plan.order for i in operations[k].inputs}
        for k in self._plan.order:
            self._values[k] = self._compute(k)
            for i in set(operations[k].inputs):
                if last[i] == k and i not in kept:
                    self._values.pop(i, None)
                    self._wholes.pop(i, None)
        return [self._whole(k) for k in self._plan.wanted]

    def _compute(self, k: int) -> T:
        """Compute an operation, in windows or whole."""
        operation, change = self._plan.operations[k], self._plan.changes[k]
        if isinstance(change, Part):
            within = self._windows if operation.kind == "window" else self._places
            return self._arrays.apply(k, within(operation, change), True)
        first = operation.inputs[0]
        terms = self._plan.changes[first]
        if operation.kind == "mean" and isinstance(terms, Part):
            old = self._arrays.cut(first, Cut(self._grid(first), terms, None), None)
            return self._arrays.moved_mean(k, old, self._values[first])
        return self._arrays.apply(k, [self._whole(i) for i in operation.inputs], False)

    def _windows(self, operation: Operation, part: Part) -> list[T]:
        """Give what windows of an operation read."""
        (i,) = operation.inputs
        return [self._laid(i, reads(part, operation.along), operation.border)]

    def _places(self, operation: Operation, part: Part) -> list[T]:
        """Give the same places of all inputs; what has a single position as it is."""
        return [
            self._laid(i, part, 0.0)
            if self._grid(i) == operation.grid
            else self._arrays.clean(i, 1)
            for i in operation.inputs
        ]

    def _whole(self, k: int) -> T:
        """Give an operation's value for all positions."""
        change = self._plan.changes[k]
        if change == "nothing":
            return self._arrays.clean(k, len(self._plan))
        if change == "everything":
            return self._values[k]
        if k not in self._wholes:
            self._wholes[k] = self._laid(k, everywhere(len(self._plan), self._grid(k)), 0.0)
        return self._wholes[k]

    def _laid(self, k: int, window: Part, border: float) -> T:
        """Give windows of an operation's value, with what has changed of it."""
        change = self._plan.changes[k]
        changed = change if isinstance(change, Part) else None
        if changed is not None and changed.same(window):
            return self._values[k]
        cut = Cut(self._grid(k), window, changed, border)
        return self._arrays.cut(k, cut, self._values.get(k))

    def _grid(self, k: int) -> tuple[int, ...]:
        """Give an operation's positions along each axis."""
        return self._plan.operations[k].grid
