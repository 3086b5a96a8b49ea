"""Rewriting a program so that it runs faster and gives the same."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import torch

from cnnviz_torch.program.program import Program
from cnnviz_torch.program.tape import Call, Slot

__all__ = ["channels_last", "normalisations_folded"]

_NORMS: Final = {
    # Where the epsilon stands; the first five are input, weight, bias, mean and variance.
    "native_batch_norm": 7,
    "_native_batch_norm_legit_no_training": 6,
    "cudnn_batch_norm": 7,
    "miopen_batch_norm": 7,
}
_VIEWS: Final = frozenset({"view", "_unsafe_view", "_reshape_alias"})


def normalisations_folded(program: Program) -> Program:
    """Put batch normalisations into the weights of the convolutions before them.

    A convolution is taken whose result nobody else reads.  The factors are made in double
    precision, and the weights are new: the network's own are not written to.

    Parameters
    ----------
    program : Program
        Any, with what is constant computed (`Program.settled`).

    Returns
    -------
    Program
        The values between a convolution and its normalisation are no longer made.
    """
    uses = program.uses()
    constants = dict(program.constants)
    makers = {call.results[0]: call for call in program.calls}
    replaced: dict[int, Call] = {}
    dropped: set[int] = set()
    for norm in program.calls:
        if norm.name not in _NORMS or not isinstance(norm.args[0], Slot):
            continue
        source = norm.args[0].index
        convolution = makers.get(source)
        rest = [slot for slot in norm.results[1:] if slot is not None and uses.get(slot)]
        if convolution is None or convolution.name != "convolution" or rest:
            continue
        if uses[source] > 1 or source in program.ends:
            continue
        slots = [part.index for part in (*convolution.args[1:3], *norm.args[1:5]) if part]
        if convolution.args[6] or not all(slot in constants for slot in slots):
            continue  # transposed ones have their weights in another order
        weight, bias = _folded(convolution, norm, constants)
        at = max(max(program.shapes), max(constants)) + 1
        constants |= {at: weight, at + 1: bias}
        args = (convolution.args[0], Slot(at), Slot(at + 1), *convolution.args[3:])
        replaced[id(norm)] = Call(convolution.op, args, convolution.kwargs, norm.results[:1])
        dropped.add(id(convolution))
    calls = tuple(replaced.get(id(c), c) for c in program.calls if id(c) not in dropped)
    gone = {s for c in program.calls if id(c) in dropped for s in c.results}
    marks = {name: slot for name, slot in program.marks.items() if slot not in gone}
    return replace(program, calls=calls, constants=constants, marks=marks)


def _folded(
    convolution: Call, norm: Call, constants: dict[int, torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute the weight and the bias of a convolution and the normalisation behind it."""

    def wide(part: Any) -> torch.Tensor | None:
        return None if part is None else constants[part.index].detach().double()

    weight = constants[convolution.args[1].index].detach()
    bias = wide(convolution.args[2])
    scale, shift, mean, variance = map(wide, norm.args[1:5])
    assert mean is not None
    assert variance is not None
    factor = torch.rsqrt(variance + norm.args[_NORMS[norm.name]])
    factor = factor if scale is None else factor * scale
    offset = -mean * factor if bias is None else (bias - mean) * factor
    offset = offset if shift is None else offset + shift
    each = factor.to(weight.dtype).reshape(-1, *(1,) * (weight.ndim - 1))
    return weight * each, offset.to(weight.dtype)


def channels_last(program: Program) -> Program:
    """Lay the weights of convolutions out with the channels last, as their results will be.

    Parameters
    ----------
    program : Program
        Any.

    Returns
    -------
    Program
        One that also runs where values are laid out so: views become reshapes.
    """
    constants = dict(program.constants)
    calls = []
    for call in program.calls:
        if call.name == "convolution" and not call.args[6]:
            slot = call.args[1].index
            weight = constants.get(slot)
            if weight is not None and weight.ndim == 4:
                constants[slot] = weight.detach().contiguous(memory_format=torch.channels_last)
        if call.name in _VIEWS:
            call = replace(call, op=torch.ops.aten.reshape.default)
        calls.append(call)
    return replace(program, calls=tuple(calls), constants=constants)
