"""What of their inputs a program's operations need for each position of their results."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Final, TypeAlias

import torch

from cnnviz_core.increment import Kind, Operation
from cnnviz_core.spatial import Window
from cnnviz_torch.program.program import Program, Size
from cnnviz_torch.program.tape import Call

__all__ = ["Described", "Entry", "describe"]

# fmt: off
_POINTWISE: Final = (
    "relu", "hardtanh", "hardsigmoid", "hardswish", "silu", "gelu", "sigmoid", "tanh",
    "leaky_relu", "elu", "celu", "softplus", "mish", "log_sigmoid", "clamp", "clamp_min",
    "clamp_max", "neg", "abs", "exp", "log", "sqrt", "rsqrt", "reciprocal", "square", "pow",
    "add", "sub", "rsub", "mul", "div", "maximum", "minimum", "clone", "alias", "detach",
    "contiguous", "_to_copy", "_prelu_kernel", "threshold", "where",
)
# fmt: on
_NORMS: Final = (
    "native_batch_norm",
    "_native_batch_norm_legit_no_training",
    "cudnn_batch_norm",
    "miopen_batch_norm",
)
_CONVOLUTIONS: Final = ("convolution", "_convolution_pointwise")
_PARTS: Final = ("split", "split_with_sizes", "slice")
_PRODUCTS: Final = frozenset({"mm", "addmm", "bmm", "baddbmm"})


@dataclass(frozen=True)
class Entry:
    """One value of a program.

    Attributes
    ----------
    slot : int
        Where it stands.
    shape : tuple of (int or Size)
        Its shape.
    call : Call or None
        The operation that makes it; None for an input.
    result : int
        Which of the operation's results it is.
    within : Call or None
        The operation that makes windows of it, given what these read; None where there is none.
    """

    slot: int
    shape: tuple[int | Size, ...]
    call: Call | None = None
    result: int = 0
    within: Call | None = None


@dataclass(frozen=True)
class Described:
    """A program as the incremental engine takes it.

    Attributes
    ----------
    operations : sequence of Operation
        One for each value that is made of the inputs.
    entries : sequence of Entry
        What of the program each of them is.
    number : mapping of int to int
        For each slot its operation.
    """

    operations: Sequence[Operation]
    entries: Sequence[Entry]
    number: Mapping[int, int]


def describe(program: Program, source: int) -> Described:
    """Tell what of their inputs a program's operations need, and what they cost.

    Parameters
    ----------
    program : Program
        With what is constant computed (`Program.settled`).
    source : int
        The slot of the input that is to change, (N, C, ...); its axes are those of the grids.

    Returns
    -------
    Described
    """
    reader = _Reader(program, len(program.shapes[source]) - 2)
    for slot in program.inputs.values():
        reader.add(Entry(slot, program.shapes[slot]), Operation("input", *reader.layout(slot)))
    for call in program.calls:
        reader.read(call)
    return Described(reader.operations, reader.entries, MappingProxyType(reader.number))


@dataclass(frozen=True)
class _Local:
    """How an operation is computed in windows; see `Operation` and `Entry`."""

    kind: Kind
    within: Call | None = None
    along: tuple[Window, ...] = ()
    border: float = 0.0


class _Reader:
    """Goes through a program's operations in order."""

    def __init__(self, program: Program, axes: int) -> None:
        self.program = program
        self.axes = axes
        self.operations: list[Operation] = []
        self.entries: list[Entry] = []
        self.number: dict[int, int] = {}
        self._read = set(program.uses()) | set(program.marks.values())

    def add(self, entry: Entry, operation: Operation) -> None:
        """Add a value."""
        self.number[entry.slot] = len(self.entries)
        self.entries.append(entry)
        self.operations.append(operation)

    def read(self, call: Call) -> None:
        """Add the values that an operation makes, as far as others read them."""
        inputs = tuple(self.number[slot] for slot in self.changing(call))
        for result, slot in enumerate(call.results):
            if slot is None or (result and slot not in self._read):
                continue
            alike = result == 0 or call.name in _PARTS
            local = (self._local(call) if alike else None) or _Local("whole")
            grid, channels = self.layout(slot)
            work = _work(self, call) / math.prod(grid)
            self.add(
                Entry(slot, self.program.shapes[slot], call, result, local.within),
                Operation(local.kind, grid, channels, inputs, work, local.along, local.border),
            )

    def changing(self, call: Call) -> list[int]:
        """Give the slots that an operation reads and that are no constants, with repetitions."""
        return [slot for slot in call.reads if slot not in self.program.constants]

    def layout(self, slot: int) -> tuple[tuple[int, ...], int]:
        """Give the grid of a slot, () where it has none, and the values at each position."""
        shape = self.shape(slot)
        batch = bool(shape) and self.program.shapes[slot][0] == Size(1)
        if batch and len(shape) == self.axes + 2:
            return shape[2:], shape[1]
        return (), math.prod(shape[1:])

    def shape(self, slot: int) -> tuple[int, ...]:
        """Give the shape of a slot for one sample."""
        if slot in self.program.constants:
            return tuple(self.program.constants[slot].shape)
        shape = self.program.shapes[slot]
        return tuple(n.each if isinstance(n, Size) else n for n in shape)

    def grid(self, slot: int) -> tuple[int, ...]:
        """Give the positions of a slot along each axis."""
        return self.layout(slot)[0]

    def _local(self, call: Call) -> _Local | None:
        """Find how the first result of an operation is computed in windows; None for not at all."""
        rule, first = _RULES.get(call.name), call.results[0]
        if rule is None or first is None or not self.changing(call):
            return None
        return rule(self, call) if self.grid(first) or rule is _mean else None


_Rule: TypeAlias = Callable[[_Reader, Call], _Local | None]


def _pointwise(reader: _Reader, call: Call) -> _Local | None:
    """Read an operation that takes the same position of all inputs."""
    assert call.results[0] is not None
    grid = reader.grid(call.results[0])
    for slot in call.reads:
        if slot in reader.program.constants:
            alike = all(n == 1 for n in reader.program.constants[slot].shape[-reader.axes :])
        else:
            alike = reader.grid(slot) == grid or reader.shape(slot)[2:] == (1,) * reader.axes
        if not alike:
            return None
    return _Local("pointwise", call)


def _normalisation(reader: _Reader, call: Call) -> _Local | None:
    """Read a batch normalisation, which must not take the statistics of the batch."""
    given = _named(call)
    alone = reader.changing(call) == [given["input"].index]
    return _Local("pointwise", call) if alone and not given.get("training") else None


def _convolution(reader: _Reader, call: Call) -> _Local | None:
    """Read a convolution, perhaps with an activation behind it."""
    given = _named(call)
    source, weight = call.args[0].index, call.args[1].index
    if given.get("transposed") or reader.changing(call) != [source]:
        return None
    size = reader.program.constants[weight].shape[2:]
    along = _windows(reader, size, given["stride"], given["dilation"], given["padding"])
    return _Local("window", _with(call, padding=[0] * reader.axes), along)


def _max_pool(reader: _Reader, call: Call) -> _Local | None:
    """Read a max-pool."""
    given = _named(call)
    size, stride = given["kernel_size"], given["stride"] or given["kernel_size"]
    along = _windows(reader, size, stride, given["dilation"], given["padding"])
    within = _with(call, stride=stride, padding=0, ceil_mode=False)
    return _Local("window", within, along, -math.inf)


def _average_pool(reader: _Reader, call: Call) -> _Local | None:
    """Read an average pool, whose count has to be the same everywhere."""
    given = _named(call)
    size, stride = given["kernel_size"], given["stride"] or given["kernel_size"]
    along = _windows(reader, size, stride, 1, given["padding"])
    padded = any(window.before for window in along)
    if given["ceil_mode"] or (padded and not given["count_include_pad"]):
        return None
    return _Local("window", _with(call, stride=stride, padding=0), along)


def _adaptive_pool(reader: _Reader, call: Call) -> _Local | None:
    """Read an adaptive average pool, whose parts have to be equal and apart."""
    assert call.results[0] is not None
    below, grid = reader.grid(call.reads[0]), reader.grid(call.results[0])
    if any(n % m for n, m in zip(below, grid, strict=True)):
        return None
    size = [n // m for n, m in zip(below, grid, strict=True)]
    pool = Call(_AVERAGE_POOLS[call.name], (call.args[0], size), {}, call.results)
    return _Local("window", pool, _windows(reader, size, size, 1, 0))


def _padding(reader: _Reader, call: Call) -> _Local | None:
    """Read what lays a border around the grid."""
    given = _named(call)
    pad = given["pad"]
    if len(pad) > 2 * reader.axes:
        return None
    before = (*pad[::2], *(0,) * (reader.axes - len(pad) // 2))[::-1]
    same = Call(torch.ops.aten.alias.default, (call.args[0],), {}, call.results)
    return _Local("window", same, _windows(reader, 1, 1, 1, before), float(given.get("value", 0)))


def _mean(reader: _Reader, call: Call) -> _Local | None:
    """Read a mean, which has to be of all positions."""
    given = _named(call)
    axes = {axis % (reader.axes + 2) for axis in given.get("dim") or ()}
    whole = axes == set(range(2, reader.axes + 2)) and given.get("dtype") is None
    return _Local("mean") if whole and reader.grid(call.reads[0]) else None


def _concatenation(reader: _Reader, call: Call) -> _Local | None:
    """Read a concatenation, which has to be of channels that change."""
    assert call.results[0] is not None
    grid = reader.grid(call.results[0])
    along = _named(call).get("dim", 0) % (reader.axes + 2) == 1
    alike = all(slot in reader.number and reader.grid(slot) == grid for slot in call.reads)
    return _Local("concatenate", call) if along and alike else None


def _parts(reader: _Reader, call: Call) -> _Local | None:
    """Read what takes some of the channels."""
    along = _named(call).get("dim", 0) % (reader.axes + 2) == 1
    return _Local("pointwise", call) if along else None


_AVERAGE_POOLS: Final[Mapping[str, Any]] = {
    "_adaptive_avg_pool2d": torch.ops.aten.avg_pool2d.default,
    "_adaptive_avg_pool3d": torch.ops.aten.avg_pool3d.default,
}

_RULES: Final[Mapping[str, _Rule]] = {
    **dict.fromkeys(_POINTWISE, _pointwise),
    **dict.fromkeys(_NORMS, _normalisation),
    **dict.fromkeys(_CONVOLUTIONS, _convolution),
    "max_pool2d_with_indices": _max_pool,
    "max_pool3d_with_indices": _max_pool,
    "avg_pool1d": _average_pool,
    "avg_pool2d": _average_pool,
    "avg_pool3d": _average_pool,
    **dict.fromkeys(_AVERAGE_POOLS, _adaptive_pool),
    "constant_pad_nd": _padding,
    **dict.fromkeys(_PARTS, _parts),
    "mean": _mean,
    "cat": _concatenation,
}


def _named(call: Call) -> dict[str, Any]:
    """Give what an operation is given by name, with the defaults."""
    arguments = call.op._schema.arguments
    given = {a.name: a.default_value for a in arguments if a.has_default_value()}
    return given | dict(zip((a.name for a in arguments), call.args, strict=False)) | {**call.kwargs}


def _with(call: Call, **changed: Any) -> Call:
    """Give an operation with other arguments."""
    given = _named(call) | changed
    return replace(call, args=(), kwargs=given)


def _along(axes: int, value: Any) -> tuple[int, ...]:
    """Give a number for each axis of what is one for all, or one for each."""
    values = tuple(value) if isinstance(value, (tuple, list, torch.Size)) else (value,)
    return values * axes if len(values) == 1 else values


def _windows(
    reader: _Reader, size: Any, stride: Any, dilation: Any, before: Any
) -> tuple[Window, ...]:
    """Give what an operation reads along each axis."""
    numbers = (_along(reader.axes, each) for each in (size, stride, dilation, before))
    return tuple(Window(*each) for each in zip(*numbers, strict=True))


def _work(reader: _Reader, call: Call) -> float:
    """Count the multiply-adds of an operation for one sample."""
    assert call.results[0] is not None
    if call.name in _CONVOLUTIONS:
        transposed = _named(call).get("transposed", False)
        at = call.args[0].index if transposed else call.results[0]
        weight = reader.shape(call.args[1].index)
        return float(math.prod(weight)) * math.prod(reader.shape(at)[2:])
    if call.name in _PRODUCTS:
        inner = reader.shape(call.reads[-1])[-2]
        return float(math.prod(reader.shape(call.results[0]))) * inner
    return 0.0
