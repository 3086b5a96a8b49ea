"""Letting the processor's library (oneDNN) do what follows a convolution in one go with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import torch

from cnnviz_torch.program.program import Program, Size
from cnnviz_torch.program.tape import Call, Slot

__all__ = ["activations_fused", "fused"]

# What the library calls the functions that it can apply to a convolution's result.
_UNARY: Final[Mapping[str, str]] = {
    "relu": "relu",
    "hardtanh": "hardtanh",
    "leaky_relu": "leaky_relu",
    "sigmoid": "sigmoid",
    "silu": "swish",
    "hardswish": "hardswish",
    "hardsigmoid": "hardsigmoid",
}


def fused(program: Program) -> Program:
    """Join convolutions with the additions and activations behind them.

    The weights are laid out as the library wants them, which otherwise happens in every pass.

    Parameters
    ----------
    program : Program
        Any.

    Returns
    -------
    Program
        For forward passes: its operations have no derivative.  The same program where the library
        is missing.
    """
    return _fused(program, whole=True)


def activations_fused(program: Program) -> Program:
    """Join convolutions with the activations behind them only, and leave their weights as they are.

    Parameters
    ----------
    program : Program
        Any.

    Returns
    -------
    Program
        As `fused`; a convolution's first two arguments are its values and its weight still.
    """
    return _fused(program, whole=False)


def _fused(program: Program, whole: bool) -> Program:
    """Join convolutions with what is behind them."""
    if not torch.backends.mkldnn.is_available():
        return program
    fusing = _Fusing(program, whole)
    for call in program.calls:
        if fusing.is_convolution(call):
            fusing.join(call)
    return fusing.result()


class _Fusing:
    """Goes through a program, and puts one operation in the place of several."""

    def __init__(self, program: Program, whole: bool) -> None:
        self._program = program
        self._whole = whole
        self._constants = dict(program.constants)
        self._next = max(max(program.shapes), max(self._constants, default=0)) + 1
        self._readers: dict[int, list[Call]] = {}
        for call in program.calls:
            for slot in call.reads:
                self._readers.setdefault(slot, []).append(call)
        self._replaced: dict[int, Call] = {}  # by the last operation of several
        self._dropped: set[int] = set()
        self._gone: set[int | None] = set()

    def is_convolution(self, call: Call) -> bool:
        """Tell whether an operation is a convolution that the library does."""
        if call.name != "convolution" or call.args[6]:
            return False
        weight = self._constants.get(call.args[1].index)
        return (
            weight is not None
            and weight.ndim == 4
            and weight.dtype == torch.float32
            and weight.device.type == "cpu"
        )

    def join(self, call: Call) -> None:
        """Join a convolution with what follows it."""
        chain = [call]
        added = self._addition(call) if self._whole else None
        if added is not None:
            chain.append(added[0])
        after = self._only_reader(chain[-1])
        name = "none" if after is None else _UNARY.get(after.name, "none")
        numbers: tuple[float, ...] = ()
        if after is not None and name in (("relu",) if added else _UNARY.values()):
            chain.append(after)
            numbers = _numbers(after)
        else:
            name = "none"
        values, weight, bias, stride, padding, dilation, _, _, groups = call.args
        if self._whole:
            weight = self._packed(call, weight)
        given = (weight, bias, padding, stride, dilation, groups)
        if added is None:
            operation = torch.ops.mkldnn._convolution_pointwise.default
            args: tuple[Any, ...] = (values, *given, name, numbers, "")
        else:
            operation = torch.ops.mkldnn._convolution_pointwise.binary
            unary = None if name == "none" else name
            args = (values, added[1], *given, "add", 1.0, unary, numbers, None)
        self._replaced[id(chain[-1])] = Call(operation, args, {}, chain[-1].results)
        self._dropped.update(id(each) for each in chain[:-1])
        self._gone.update(slot for each in chain[:-1] for slot in each.results)

    def result(self) -> Program:
        """Give the program that it has become."""
        program = self._program
        calls = tuple(
            self._replaced.get(id(call), call)
            for call in program.calls
            if id(call) not in self._dropped
        )
        marks = {name: slot for name, slot in program.marks.items() if slot not in self._gone}
        return replace(program, calls=calls, constants=self._constants, marks=marks)

    def _only_reader(self, call: Call) -> Call | None:
        """Give the operation that reads a result, if it is the only one."""
        (result, *_) = call.results
        readers = self._readers.get(result or 0, [])
        return readers[0] if len(readers) == 1 and result not in self._program.ends else None

    def _addition(self, call: Call) -> tuple[Call, Slot] | None:
        """Find the addition of a convolution's result and another value of its shape."""
        after = self._only_reader(call)
        if after is None or after.op is not torch.ops.aten.add.Tensor or after.kwargs:
            return None
        if id(after) in self._dropped or id(after) in self._replaced:
            return None  # the other term is a convolution's, too
        if not all(isinstance(part, Slot) for part in after.args) or len(after.args) != 2:
            return None
        shapes, dtypes = self._program.shapes, self._program.dtypes
        (other,) = (part for part in after.args if part.index != call.results[0])
        alike = all(shapes[part.index] == shapes[after.results[0]] for part in after.args)
        return (after, other) if alike and dtypes[other.index] == torch.float32 else None

    def _packed(self, call: Call, weight: Slot) -> Slot:
        """Lay a weight out as the library wants it."""
        _, _, _, stride, padding, dilation, _, _, groups = call.args
        shape = self._program.shapes[call.args[0].index]
        size = [part.each if isinstance(part, Size) else part for part in shape]
        packed = torch.ops.mkldnn._reorder_convolution_weight(
            self._constants[weight.index], padding, stride, dilation, groups, size
        )
        self._constants[self._next] = packed
        self._next += 1
        return Slot(self._next - 1)


def _numbers(call: Call) -> tuple[float, ...]:
    """Give the numbers of an activation, also those that it takes by default."""
    defaults = [argument.default_value for argument in call.op._schema.arguments]
    return tuple(float(number) for number in (*call.args, *defaults[len(call.args) :])[1:])
