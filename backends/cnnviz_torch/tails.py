"""What lies between a layer's value and a network's ends, read off the tape of one pass."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch

from cnnviz_core.model import LOGITS, OUTPUT
from cnnviz_torch.program.tape import Call, Tape, Taping, Untaped, slots_in

__all__ = ["TailTaping", "Tails"]

# fmt: off
_LINEAR: Final = frozenset({
    "view", "_unsafe_view", "reshape", "unsqueeze", "squeeze", "permute", "transpose", "t",
    "expand", "slice", "select", "split", "split_with_sizes", "unbind", "clone", "contiguous",
    "_to_copy", "mean", "sum", "cat", "stack", "add", "sub", "rsub", "neg", "constant_pad_nd",
    "avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d", "adaptive_avg_pool2d",
    "_adaptive_avg_pool2d", "_adaptive_avg_pool3d", "upsample_nearest2d", "upsample_bilinear2d",
})
"""Affine in all that they read."""
_IN_FIRST: Final = frozenset({
    "div", "convolution", "_native_batch_norm_legit_no_training", "native_batch_norm", "linear",
    "index_select",
})
"""Affine in the first argument."""
_PRODUCTS: Final = frozenset({"mul", "mm", "bmm", "mv", "dot", "matmul"})
_SUMS_OF_PRODUCTS: Final = frozenset({"addmm", "addmv", "baddbmm"})
# fmt: on
_AFFINE: Final = _LINEAR | _IN_FIRST | _PRODUCTS | _SUMS_OF_PRODUCTS
_TRAINING: Final = 5
"""Which argument of ``native_batch_norm`` tells whether the statistics are the batch's own."""


@dataclass(frozen=True)
class Tails:
    """What is known of a network's layers; nothing of some where a pass could not be noted.

    Attributes
    ----------
    cuts : frozenset of str
        The marks of those values through which everything goes from the inputs to the ends.
    affine : frozenset of str
        The marks of those values of which the logits are an affine function, whose coefficients
        torch gives as the gradient.
    """

    cuts: frozenset[str] = frozenset()
    affine: frozenset[str] = frozenset()


class TailTaping(Taping):
    """Notes the operations of a pass, of which `tails` tells what it has to.

    Parameters
    ----------
    inputs : mapping of str to Tensor
        What the network will be given.
    """

    def __init__(self, inputs: Mapping[str, torch.Tensor]) -> None:
        super().__init__(inputs)
        # The operations inside of functions that have a derivative of their own.
        self._own: set[int] = set()

    def tails(self, differentiable: bool = True) -> Tails:
        """Read off what lies behind each mark.

        Parameters
        ----------
        differentiable : bool
            Whether the network's derivative is that of its operations, as far as these can tell.

        Returns
        -------
        Tails
        """
        try:
            tape = self.finished()
        except Untaped:
            return Tails()
        if not {LOGITS, OUTPUT} <= tape.marks.keys():
            return Tails()
        reads = [call.reads for call in tape.calls]
        affine = _affine(tape, reads, self._own) if differentiable else frozenset[str]()
        return Tails(_cuts(tape, reads), affine)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before = len(self.tape.calls)
        result = super().__torch_dispatch__(func, types, args, kwargs)
        if _in_function():
            self._own.update(range(before, len(self.tape.calls)))
        return result


def _in_function() -> bool:
    """Tell whether what runs now was called by a ``torch.autograd.Function``."""
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code is _APPLY:
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False


_APPLY: Final = torch.autograd.Function.apply.__func__.__code__  # type: ignore[attr-defined]


def _cuts(tape: Tape, reads: Sequence[Sequence[int]]) -> frozenset[str]:
    """Find the values through which all ways lead, by counting these."""
    ways_to = Counter(dict.fromkeys(tape.inputs.values(), 1))
    for call, read in zip(tape.calls, reads, strict=True):
        if ways := sum(ways_to[slot] for slot in read):
            ways_to.update(dict.fromkeys(_made(call), ways))
    ends = {tape.marks[LOGITS], tape.marks[OUTPUT]}
    ways_from = Counter(dict.fromkeys(ends, 1))
    for call, read in zip(reversed(tape.calls), reversed(reads), strict=True):
        if ways := sum(ways_from[slot] for slot in _made(call)):
            for slot in read:
                ways_from[slot] += ways
    every = sum(ways_to[end] for end in ends)
    return frozenset(
        name for name, slot in tape.marks.items() if ways_to[slot] * ways_from[slot] == every > 0
    )


def _affine(tape: Tape, reads: Sequence[Sequence[int]], own: set[int]) -> frozenset[str]:
    """Find the values of which the logits are an affine function."""
    end = tape.marks[LOGITS]
    maker = {slot: i for i, call in enumerate(tape.calls) for slot in _made(call)}
    found: dict[int, bool] = {}

    def is_affine(start: int) -> bool:
        varying = {start}
        for i in range(maker.get(start, -1) + 1, maker.get(end, -1) + 1):
            if varying.isdisjoint(reads[i]):
                continue
            if i in own or not _is_affine(tape.calls[i], varying, tape):
                return False
            varying.update(_made(tape.calls[i]))
        return end in varying

    for slot in tape.marks.values():
        if slot not in found:
            found[slot] = tape.dtypes[slot].is_floating_point and is_affine(slot)
    return frozenset(name for name, slot in tape.marks.items() if found[slot])


def _is_affine(call: Call, varying: set[int], tape: Tape) -> bool:
    """Tell whether an operation is affine in what varies of that which it reads."""
    name = call.name
    if name not in _AFFINE or (name == "native_batch_norm" and call.args[_TRAINING]):
        return False
    varies = [not varying.isdisjoint(slots_in(argument)) for argument in call.args]
    if name in _IN_FIRST and any(varies[1:]):
        return False
    if name in _PRODUCTS and sum(varies) > 1:
        return False
    if name in _SUMS_OF_PRODUCTS and sum(varies[1:]) > 1:
        return False
    kinds = {tape.dtypes[slot] for slot in (*_made(call), *(varying & set(call.reads)))}
    return len(kinds) == 1  # rounding to another type is not affine


def _made(call: Call) -> list[int]:
    """Give the slots of an operation's results."""
    return [slot for slot in call.results if slot is not None]
