"""A network's operations, run in part and on batches of any size."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import torch

from cnnviz_core.model import LOGITS, OUTPUT
from cnnviz_torch.program.tape import Call, Slot, Tape, Untaped, mapped, results_of

__all__ = ["Program", "Size", "Unrunnable", "generalised", "in_place", "shares"]

# Which operations may overwrite their first argument; and which where a derivative will be taken,
# of what some operations make: neither these nor those need what is overwritten.
_IN_PLACE: Final = frozenset(
    {"relu", "add", "mul", "hardtanh", "silu", "hardswish", "hardsigmoid", "sigmoid", "leaky_relu"}
)
_IN_PLACE_RECORDED: Final = frozenset({"relu", "sigmoid"})
_FORGETFUL: Final = frozenset(
    {"convolution", "addmm", "add", "native_batch_norm", "_native_batch_norm_legit_no_training"}
)
_PERHAPS_SHARED: Final = frozenset({"reshape", "contiguous", "_unsafe_view"})
# Which operations give a value that lies in no other's memory.
_FRESH: Final = _IN_PLACE | {
    "_adaptive_avg_pool2d",
    "_convolution_pointwise",
    "_native_batch_norm_legit_no_training",
    "addmm",
    "avg_pool2d",
    "bmm",
    "cat",
    "convolution",
    "max_pool2d_with_indices",
    "mean",
    "mm",
    "native_batch_norm",
    "native_layer_norm",
    "sub",
}


class Unrunnable(Exception):
    """A program does not run on this batch, or not as it was noted; the text says why."""


@dataclass(frozen=True)
class Size:
    """A number that grows with the batch.

    Attributes
    ----------
    each : int
        How much each sample adds.
    """

    each: int


@dataclass(frozen=True)
class Program:
    """A network's operations, in order.

    Attributes
    ----------
    calls : tuple of Call
        With a `Slot` in the place of each tensor and a `Size` in that of each number that grows
        with the batch.
    inputs : mapping of str to int
        The slots of the network's inputs.
    constants : mapping of int to Tensor
        What is in slots from the start.
    marks : mapping of str to int
        The slots of values by their names.
    shapes : mapping of int to tuple of (int or Size)
        The shape in each slot.
    dtypes : mapping of int to torch.dtype
        The type in each slot.
    """

    calls: tuple[Call, ...]
    inputs: Mapping[str, int]
    constants: Mapping[int, torch.Tensor]
    marks: Mapping[str, int]
    shapes: Mapping[int, tuple[int | Size, ...]]
    dtypes: Mapping[int, torch.dtype]

    def __post_init__(self) -> None:
        object.__setattr__(self, "_schedules", {})

    def run(
        self, given: Mapping[int, torch.Tensor], wanted: Collection[int], n: int
    ) -> dict[int, torch.Tensor]:
        """Run the operations that lie between some values and others.

        Parameters
        ----------
        given : mapping of int to Tensor
            Values for slots; they are not written to.
        wanted : collection of int
            The slots whose values to return.
        n : int
            How many samples there are.

        Returns
        -------
        dict of int to Tensor
            Perhaps parts of those that were given, or of each other.

        Raises
        ------
        KeyError
            If a slot that is needed neither is given nor follows from what is.
        Unrunnable
            If an operation refuses what it is given, or a value has not the shape that it should.
        """
        values: dict[int, Any] = {**self.constants, **given}

        def fill(part: Slot | Size) -> Any:
            return part.each * n if isinstance(part, Size) else values[part.index]

        for step in self._schedule(frozenset(given), frozenset(wanted)):
            try:
                results = step.run(values, fill)
                for slot, result in zip(step.call.results, results, strict=True):
                    if slot is not None:
                        values[slot] = result
            except (RuntimeError, ValueError, IndexError) as error:
                raise Unrunnable(f"{step.call.op}: {error}") from None
            for slot in step.last:
                del values[slot]
        found = {slot: values[slot] for slot in wanted}
        for slot, value in found.items():
            if tuple(value.shape) != self.shape(slot, n):
                raise Unrunnable(f"a value has the shape {tuple(value.shape)}")
        return found

    def shape(self, slot: int, n: int) -> tuple[int, ...]:
        """Give the shape of a value.

        Parameters
        ----------
        slot : int
            Its slot.
        n : int
            How many samples there are.

        Returns
        -------
        tuple of int
        """
        return tuple(
            part.each * n if isinstance(part, Size) else part for part in self.shapes[slot]
        )

    def before(self, given: Collection[int], wanted: Collection[int]) -> set[int]:
        """Find what else has to be known to make some values of others.

        Parameters
        ----------
        given : collection of int
            The slots that are known and differ from sample to sample in their own way.
        wanted : collection of int
            The slots to make.

        Returns
        -------
        set of int
            The slots that do not depend on `given`, and are read by operations that do; `wanted`
            ones among them.  Constants are left out.
        """
        varying = self.after(given)
        needed: set[int] = set()
        for call in self._between(frozenset(given), frozenset(wanted)):
            if varying.intersection(s for s in call.results if s is not None):
                needed.update(s for s in call.reads if s not in varying)
        needed.update(slot for slot in wanted if slot not in varying)
        return needed - self.constants.keys()

    def after(self, given: Iterable[int]) -> set[int]:
        """Find the slots that depend on some, which are among them.

        Parameters
        ----------
        given : iterable of int
            The slots.

        Returns
        -------
        set of int
        """
        varying = set(given)
        for call in self.calls:
            if not varying.isdisjoint(call.reads):
                varying.update(slot for slot in call.results if slot is not None)
        return varying

    def tidied(self) -> Program:
        """Let values that were only handed on be one, and compute once what is the same always.

        Returns
        -------
        Program
            Without the marks of values that do not depend on the input: what is put in their place
            could not be told from what was computed of them.
        """
        settled = self._without_aliases().settled()
        varying = {name: s for name, s in settled.marks.items() if s not in settled.constants}
        return replace(settled, marks=varying)

    def _without_aliases(self) -> Program:
        """Let a value and the one handed on be one, where nobody else reads the first."""
        uses, same, calls = self.uses(), dict[int, int](), []

        def renamed(slot: Slot) -> Slot:
            return Slot(same.get(slot.index, slot.index))

        for call in self.calls:
            args, kwargs = mapped((call.args, dict(call.kwargs)), Slot, renamed)
            alias = call.op is torch.ops.aten.alias.default
            if alias and uses[call.reads[0]] == 1 and args[0].index not in self.constants:
                assert call.results[0] is not None
                same[call.results[0]] = args[0].index
            else:
                calls.append(replace(call, args=args, kwargs=kwargs))
        marks = {name: same.get(slot, slot) for name, slot in self.marks.items()}
        return replace(self, calls=tuple(calls), marks=marks)

    def settled(self) -> Program:
        """Compute what is the same for every input once and for all."""
        constants = dict(self.constants)
        calls = []
        for call in self.calls:
            sized: list[Size] = []
            mapped((call.args, dict(call.kwargs)), Size, sized.append)
            if sized or not all(slot in constants for slot in call.reads):
                calls.append(call)
                continue
            args, kwargs = mapped(
                (call.args, dict(call.kwargs)), Slot, lambda slot: constants[slot.index]
            )
            with torch.no_grad():
                results = results_of(call.op(*args, **kwargs))
            for slot, each in zip(call.results, results, strict=True):
                if slot is not None:
                    constants[slot] = each
        return replace(self, calls=tuple(calls), constants=constants)

    @property
    def ends(self) -> frozenset[int]:
        """The slots of what the network returns, which are always asked for."""
        return frozenset(self.marks[node] for node in (OUTPUT, LOGITS) if node in self.marks)

    def uses(self) -> dict[int, int]:
        """Count how often each slot is read."""
        count: dict[int, int] = {}
        for call in self.calls:
            for slot in call.reads:
                count[slot] = count.get(slot, 0) + 1
        return count

    def _schedule(self, given: frozenset[int], wanted: frozenset[int]) -> list[_Step]:
        """Plan what to run, what to overwrite and what to forget when."""
        key = (given, wanted, torch.is_grad_enabled())
        schedules: dict[Any, list[_Step]] = self._schedules  # type: ignore[attr-defined]
        if key not in schedules:
            schedules[key] = _planned(self, self._between(given, wanted), given | wanted)
        return schedules[key]

    def _between(self, given: frozenset[int], wanted: frozenset[int]) -> list[Call]:
        """List the operations that make the wanted of the given."""
        need = set(wanted) - given
        chosen = []
        for call in reversed(self.calls):
            if not need.isdisjoint(slot for slot in call.results if slot is not None):
                chosen.append(call)
                need.update(slot for slot in call.reads if slot not in given)
        return chosen[::-1]


@dataclass(frozen=True)
class _Step:
    """One operation of a plan: what to call, and which slots nobody reads after it."""

    call: Call
    op: Callable[..., Any]
    last: tuple[int, ...]
    places: tuple[tuple[int, int], ...] | None  # of its tensors; None where some are nested

    def run(self, values: Mapping[int, Any], fill: Callable[[Slot | Size], Any]) -> tuple[Any, ...]:
        """Run it."""
        call = self.call
        if self.places is None:
            args = mapped(call.args, (Slot, Size), fill)
            return results_of(self.op(*args, **mapped(call.kwargs, (Slot, Size), fill)))
        given = list(call.args)
        for place, slot in self.places:
            given[place] = values[slot]
        return results_of(self.op(*given, **call.kwargs))


def _planned(program: Program, calls: Sequence[Call], kept: frozenset[int]) -> list[_Step]:
    """Say after which operation each value goes, and which may overwrite what it is given."""
    kept |= program.constants.keys()
    owner: dict[int, int] = {}
    maker: dict[int, str] = {}
    last_of: dict[int, int] = {}
    last_in: dict[int, int] = {}  # the same of all values that share a memory
    readers: dict[int, int] = {}
    for i, call in enumerate(calls):
        made = [slot for slot in call.results if slot is not None]
        if call.reads and shares(call):
            owner |= dict.fromkeys(made, owner.get(call.reads[0], call.reads[0]))
        maker |= dict.fromkeys(made, call.name)
        for slot in (*call.reads, *made):
            last_of[slot] = last_in[owner.get(slot, slot)] = i
        for slot in call.reads:
            readers[slot] = readers.get(slot, 0) + 1
    held = {owner.get(slot, slot) for slot in kept}
    recorded = torch.is_grad_enabled()

    def overwrites(i: int, call: Call) -> bool:
        first = call.args[0] if call.args else None
        if call.name not in (_IN_PLACE_RECORDED if recorded else _IN_PLACE):
            return False
        if not isinstance(first, Slot):
            return False
        slot, result = first.index, call.results[0]
        if any(owner.get(other, other) == slot for other in call.reads[1:]):
            return False
        return (
            maker.get(slot) in _FRESH
            and slot not in held
            and last_in[slot] == i
            and program.shapes[slot] == program.shapes[result]
            and program.dtypes[slot] == program.dtypes[result]
            and (not recorded or (readers[slot] == 1 and maker.get(slot) in _FORGETFUL))
        )

    steps = []
    for i, call in enumerate(calls):
        slots = dict.fromkeys((*call.reads, *(s for s in call.results if s is not None)))
        last = tuple(slot for slot in slots if last_of[slot] == i and slot not in kept)
        op = in_place(call) if overwrites(i, call) else None
        steps.append(_Step(call, op or call.op, last, _places(call)))
    return steps


def _places(call: Call) -> tuple[tuple[int, int], ...] | None:
    """Say where an operation takes tensors, if these are arguments of their own."""
    sized: list[Size] = []
    mapped((call.args, dict(call.kwargs)), Size, sized.append)
    found = [(i, part.index) for i, part in enumerate(call.args) if isinstance(part, Slot)]
    return tuple(found) if not sized and len(found) == len(call.reads) else None


def shares(call: Call) -> bool:
    """Tell whether an operation's results may lie in the memory of what it was given.

    Parameters
    ----------
    call : Call
        The operation.

    Returns
    -------
    bool
    """
    returns = call.op._schema.returns
    return call.name in _PERHAPS_SHARED or any(returned.alias_info for returned in returns)


def in_place(call: Call) -> Callable[..., Any] | None:
    """Find the form of an operation that overwrites its first argument.

    Parameters
    ----------
    call : Call
        The operation.

    Returns
    -------
    callable or None
        None where it has no such form.
    """
    namespace, _, name = call.op._schema.name.partition("::")
    packet = getattr(getattr(torch.ops, namespace), f"{name}_", None)
    return getattr(packet, call.op._overloadname, None)


def generalised(one: Tape, two: Tape, sizes: tuple[int, int]) -> Program:
    """Make a program for batches of any size of two tapes of different sizes.

    Parameters
    ----------
    one, two : Tape
        Of the same network.
    sizes : tuple of int
        How many samples each had.

    Returns
    -------
    Program

    Raises
    ------
    Untaped
        If they differ in more than numbers that grow with the batch.
    """

    def unite(a: Any, b: Any) -> Any:
        if isinstance(a, tuple) and isinstance(b, tuple) and len(a) == len(b):
            return tuple(map(unite, a, b))
        if isinstance(a, Mapping) and isinstance(b, Mapping) and a.keys() == b.keys():
            return {key: unite(a[key], b[key]) for key in a}
        if type(a) is type(b) and a == b:
            return a
        if type(a) is int and type(b) is int:
            each, rest = divmod(a, sizes[0])
            if rest == 0 and each * sizes[1] == b:
                return Size(each)
        raise Untaped("it does something else on batches of another size")

    if len(one.calls) != len(two.calls) or one.marks != two.marks or one.inputs != two.inputs:
        raise Untaped("it does something else on batches of another size")
    calls = []
    for a, b in zip(one.calls, two.calls, strict=True):
        if a.op is not b.op or a.results != b.results:
            raise Untaped("it does something else on batches of another size")
        calls.append(Call(a.op, unite(a.args, b.args), unite(a.kwargs, b.kwargs), a.results))
    if one.constants.keys() != two.constants.keys():
        raise Untaped("it does something else on batches of another size")
    for slot, tensor in one.constants.items():
        other = two.constants[slot]
        if tensor is not other and not (
            tensor.shape == other.shape and tensor.dtype == other.dtype and tensor.equal(other)
        ):
            raise Untaped("it makes another constant for another input")
    constants = {slot: tensor.detach() for slot, tensor in one.constants.items()}
    shapes = {slot: unite(shape, two.shapes[slot]) for slot, shape in one.shapes.items()}
    if one.dtypes != two.dtypes:
        raise Untaped("it does something else on batches of another size")
    return Program(tuple(calls), one.inputs, constants, one.marks, shapes, one.dtypes)
