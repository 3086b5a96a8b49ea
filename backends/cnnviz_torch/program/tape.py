"""The operations of one forward pass, noted below everything that the network's own code does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakIdKeyDictionary

__all__ = ["Call", "Slot", "Tape", "Taping", "Untaped", "mapped", "results_of", "slots_in"]

_UNSTABLE: Final = {
    torch.Tag.nondeterministic_seeded: "draws random numbers",
    torch.Tag.data_dependent_output: "reads a tensor's value",
    torch.Tag.dynamic_output_shape: "makes a shape that depends on values",
}
# What gives or changes a tensor's values and is no operation.
_READERS: Final = frozenset(
    {"numpy", "tolist", "data_ptr", "untyped_storage", "storage", "__array__", "__dlpack__"}
    | {"__set__"}  # another tensor's memory is put into it: ``x.data = y``
)
# What depends on how a tensor lies in memory, which is none of its value.
_LAYOUT: Final = frozenset({"as_strided", "as_strided_"})
_OWN: Final = ("aten", "mkldnn")
_PLAIN: Final = (torch.Tensor, torch.nn.Parameter)


class Untaped(Exception):
    """A network does something that a list of operations cannot repeat; the text says what."""


@dataclass(frozen=True)
class Slot:
    """Where a tensor of a tape stands.

    Attributes
    ----------
    index : int
    """

    index: int


@dataclass(frozen=True)
class Call:
    """One operation of a tape.

    Attributes
    ----------
    op : OpOverload
        ATen's operation; never one that writes to what it is given.
    args : tuple
        What it was given, with a `Slot` in the place of each tensor.
    kwargs : mapping of str to object
        Likewise.
    results : tuple of (int or None)
        The slots of its results, in order; None for what is no tensor.
    """

    op: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    results: tuple[int | None, ...]

    @property
    def name(self) -> str:
        """The operation's name without the overload's: "convolution"; of others', "theirs::it"."""
        namespace, _, name = self.op._schema.name.partition("::")
        return name if namespace in _OWN else f"{namespace}::{name}"

    @property
    def reads(self) -> list[int]:
        """The slots that it reads, with repetitions."""
        return slots_in((self.args, dict(self.kwargs)))


@dataclass
class Tape:
    """The operations of one forward pass, in order.

    Attributes
    ----------
    calls : list of Call
    inputs : dict of str to int
        The slots of the network's inputs.
    constants : dict of int to Tensor
        The tensors that were there before: parameters, buffers, and what the code made of numbers.
    marks : dict of str to int
        The slots of the values that were asked for by name.
    shapes : dict of int to tuple of int
        The shape in each slot.
    dtypes : dict of int to torch.dtype
        The type in each slot.
    """

    calls: list[Call] = field(default_factory=list)
    inputs: dict[str, int] = field(default_factory=dict)
    constants: dict[int, torch.Tensor] = field(default_factory=dict)
    marks: dict[str, int] = field(default_factory=dict)
    shapes: dict[int, tuple[int, ...]] = field(default_factory=dict)
    dtypes: dict[int, torch.dtype] = field(default_factory=dict)


class Taping(TorchDispatchMode):
    """While it is active, notes every operation that this thread runs.

    What is written in place becomes an operation that gives a new value: a tensor stands for its
    last one.  Other tensors that share the memory are then outdated, and may not be read again.

    Parameters
    ----------
    inputs : mapping of str to Tensor
        What the network will be given.
    """

    def __init__(self, inputs: Mapping[str, torch.Tensor]) -> None:
        super().__init__()
        self.tape = Tape()
        self._slot_of = WeakIdKeyDictionary()
        # Of each slot, the one whose memory it shares; and the slots that were overwritten.
        self._owner: dict[int, int] = {}
        self._outdated: set[int] = set()
        self._problem: str | None = None
        for name, tensor in inputs.items():
            try:
                self.tape.inputs[name] = self._bind(tensor)
            except Untaped as problem:
                self.refuse(str(problem))

    def finished(self) -> Tape:
        """Give what was noted.

        Returns
        -------
        Tape

        Raises
        ------
        Untaped
            If it does not suffice to repeat the pass.
        """
        if self._problem is not None:
            raise Untaped(self._problem)
        return self.tape

    def refuse(self, problem: str) -> None:
        """Say that the pass cannot be repeated.

        Parameters
        ----------
        problem : str
            Why.
        """
        self._problem = self._problem or problem

    def mark(self, name: str, tensor: torch.Tensor) -> None:
        """Remember a value by a name.

        Parameters
        ----------
        name : str
            The name.
        tensor : Tensor
            The value.
        """
        if self._problem is None:
            try:
                self.tape.marks[name] = self._read(tensor).index
            except Untaped as problem:
                self.refuse(str(problem))

    def handed_on(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """Remember a value by a name, of those who get it from now on only.

        A layer may return what it was given, and others may read this too.  What is put in the
        place of the layer's value is not for them.

        Parameters
        ----------
        name : str
            The name.
        tensor : Tensor
            The value.

        Returns
        -------
        Tensor
            What to hand on in its place.
        """
        other = torch.ops.aten.alias.default(tensor)
        self.mark(name, other)
        return other

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Note what is run in this block."""
        with self, _Reading(self):
            yield

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Tell torch not to keep its compiler away, for which it would load it: slowly."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self._problem is not None:
            return func(*args, **kwargs)
        try:
            note = self._noting(func, args, kwargs)
        except Untaped as problem:
            self.refuse(str(problem))
            return func(*args, **kwargs)
        result = func(*args, **kwargs)
        try:
            note(result)
        except Untaped as problem:
            self.refuse(str(problem))
        return result

    def _noting(self, func: Any, args: Any, kwargs: Any) -> Callable[[Any], None]:
        """Look at what an operation is given; gives the function that notes what it makes."""
        signature = _signature(func)
        # Attention has a dropout of its own, which is at zero in evaluation.
        if signature.problem and signature.named(args, kwargs).get("dropout_p") != 0:
            raise Untaped(signature.problem)
        given = mapped((args, kwargs), torch.Tensor, self._read)
        written: list[Any] = []
        shared = None
        if signature.written or signature.shared:
            named = signature.named(args, kwargs)
            written = [named[name] for name in signature.written if name in named]
            tensors = (named.get(name) for name in signature.shared)
            shared = next((each for each in tensors if isinstance(each, torch.Tensor)), None)

        def note(result: Any) -> None:
            if written:
                self._note_written(func, given, written)
                return
            slots = [self._made(func, each, shared) for each in results_of(result)]
            self.tape.calls.append(Call(func, given[0], given[1], tuple(slots)))

        return note

    def _made(self, func: Any, result: Any, shared: torch.Tensor | None) -> int | None:
        """Give a slot to one of an operation's results."""
        if result is None:
            return None
        if not isinstance(result, torch.Tensor):
            raise Untaped(f"{func} reads a tensor's value")
        slot = self._bind(result)
        if shared is not None:
            source = self._slot_of[shared]
            self._owner[slot] = self._owner.get(source, source)
        return slot

    def _note_written(self, func: Any, given: Any, written: list[torch.Tensor]) -> None:
        """Note an operation in place as the one that gives a new value."""
        if len(written) != 1 or not isinstance(written[0], torch.Tensor):
            raise Untaped(f"{func} writes to several tensors")
        (target,) = written
        slot = self._slot_of[target]
        owner = self._owner.get(slot, slot)
        if owner in self.tape.constants:
            raise Untaped(f"{func} writes to a tensor of the network")
        group = {slot, owner, *(s for s, o in self._owner.items() if o == owner)}
        self._outdated |= group
        new = self._bind(target)
        # It is in the old memory still: whoever writes there next outdates it too.
        self._owner[new] = owner
        self.tape.calls.append(Call(_functional(func), given[0], given[1], (new,)))

    def _read(self, tensor: torch.Tensor) -> Slot:
        """Give the slot of a tensor that is read; one that was never seen is a constant."""
        slot = self._slot_of.get(tensor)
        if slot is None:
            slot = self._bind(tensor)
            self.tape.constants[slot] = tensor
        elif slot in self._outdated:
            raise Untaped("a value is read after it was overwritten through another tensor")
        return Slot(slot)

    def _bind(self, tensor: torch.Tensor) -> int:
        """Give a tensor a slot of its own."""
        if type(tensor) not in _PLAIN or tensor.layout is not torch.strided or tensor.is_quantized:
            raise Untaped(f"a tensor of the type {type(tensor).__name__} is used")
        slot = len(self.tape.shapes)
        self._slot_of[tensor] = slot
        self.tape.shapes[slot] = tuple(tensor.shape)
        self.tape.dtypes[slot] = tensor.dtype
        return slot


class _Reading(TorchFunctionMode):
    """While it is active, notes where code gets at a tensor's values past all operations."""

    def __init__(self, taping: Taping) -> None:
        super().__init__()
        self._taping = taping

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if getattr(func, "__name__", "") in _READERS:
            self._taping.refuse(f"{func.__name__} gets at a tensor's values")
        return func(*args, **(kwargs or {}))


def results_of(result: Any) -> tuple[Any, ...]:
    """Give what an operation returned, one by one.

    Parameters
    ----------
    result : Tensor, or tuple or list of Tensor, or None
        What it returned.

    Returns
    -------
    tuple
    """
    return tuple(result) if isinstance(result, (tuple, list)) else (result,)


def mapped(value: Any, kind: type | tuple[type, ...], function: Callable[[Any], Any]) -> Any:
    """Put something in the place of certain parts of nested tuples, lists and dictionaries.

    Parameters
    ----------
    value : object
        What an operation is given.
    kind : type or tuple of type
        Which parts.
    function : callable
        From such a part to what takes its place.

    Returns
    -------
    object
        Of tuples and lists alike, tuples.
    """
    if isinstance(value, kind):
        return function(value)
    if isinstance(value, (tuple, list)):
        return tuple([mapped(part, kind, function) for part in value])
    if isinstance(value, dict):
        return {key: mapped(part, kind, function) for key, part in value.items()}
    return value


def slots_in(value: Any) -> list[int]:
    """List the slots in what an operation is given.

    Parameters
    ----------
    value : object
        Nested tuples, lists and mappings.

    Returns
    -------
    list of int
        With repetitions, in order.
    """
    found: list[int] = []
    mapped(value, Slot, lambda slot: found.append(slot.index))
    return found


def _functional(func: Any) -> Any:
    """Find the operation that gives what another one writes in place."""
    namespace, _, name = func._schema.name.partition("::")
    packet = getattr(getattr(torch.ops, namespace), name.removesuffix("_"), None)
    overload = None if packet is None else getattr(packet, func._overloadname, None)
    if overload is None or not name.endswith("_") or name.endswith("__"):
        raise Untaped(f"{func} writes to what it is given")
    return overload


@dataclass(frozen=True)
class _Signature:
    """What a schema tells: the arguments, those written to, those shared, and a problem."""

    arguments: tuple[str, ...]
    defaults: Mapping[str, Any]
    written: tuple[str, ...]
    shared: tuple[str, ...]
    problem: str | None

    def named(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Give the arguments by name."""
        return {**self.defaults, **dict(zip(self.arguments, args, strict=False)), **kwargs}


@cache
def _signature(func: Any) -> _Signature:
    """Read an operation's schema."""
    schema = func._schema
    problem = next((f"{func} {what}" for tag, what in _UNSTABLE.items() if tag in func.tags), None)
    if schema.name.rpartition(":")[2] in _LAYOUT:
        problem = f"{func} depends on how a value lies in memory"
    shares = any(returned.alias_info for returned in schema.returns)
    aliased = [a for a in schema.arguments if a.alias_info]
    return _Signature(
        tuple(a.name for a in schema.arguments),
        {a.name: a.default_value for a in schema.arguments if a.has_default_value()},
        tuple(a.name for a in aliased if a.alias_info.is_write),
        tuple(a.name for a in aliased) if shares else (),
        problem,
    )
