"""A program computed again only where a change reaches; see `cnnviz_core.increment`."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, Final, TypeAlias

import numpy as np
import torch

from cnnviz_core.blended import Blended
from cnnviz_core.increment import Cut, Increment
from cnnviz_core.model import Array
from cnnviz_torch.blending import blended
from cnnviz_torch.program.locality import Described, describe
from cnnviz_torch.program.lowering import channels_last
from cnnviz_torch.program.program import Program, Size, in_place, shares
from cnnviz_torch.program.tape import Slot, mapped

__all__ = ["Plain", "increment"]

_IN_PLACE: Final = frozenset({"relu", "hardtanh", "hardswish", "hardsigmoid", "silu", "sigmoid"})

Plain: TypeAlias = Callable[[Blended], Sequence[torch.Tensor]]
"""Computes the wanted values of a batch in the plain way."""


def increment(
    program: Program,
    given: Mapping[int, torch.Tensor],
    wanted: Sequence[int],
    source: int,
    plain: Plain | None = None,
) -> Increment[torch.Tensor]:
    """Prepare to compute a sample's values under masks, each time only where a mask reaches.

    Parameters
    ----------
    program : Program
        The network, in evaluation.
    given : mapping of int to Tensor
        The clean sample in the slots of the program's inputs, each (1, C, ...).
    wanted : sequence of int
        The slots whose values are asked for.
    source : int
        The slot of the input that is changed.
    plain : callable, optional
        From a `Blended` to the wanted values, where windows do not pay; by default the program
        itself.

    Returns
    -------
    Increment
        Its `run` gives a tensor for each of `wanted`; it is to be called without gradients.
    """
    program = channels_last(program.settled())
    described = describe(program, source)
    arrays = _Arrays(program, described, given, wanted, source, plain)
    numbers = [described.number[slot] for slot in wanted]
    return Increment(described.operations, numbers, arrays, described.number[source])


class _Arrays:
    """A program's operations and clean values; see `cnnviz_core.increment.IncrementArrays`."""

    def __init__(
        self,
        program: Program,
        described: Described,
        given: Mapping[int, torch.Tensor],
        wanted: Sequence[int],
        source: int,
        plain: Plain | None,
    ) -> None:
        self._program = program
        self._described = described
        self._entries = described.entries
        self._operations = described.operations
        self._given = given
        self._wanted = wanted
        self._source = source
        self._plain = plain or self._run
        self._rows: dict[tuple[int, float], torch.Tensor] = {}
        self._overwriting = self._in_place(described.number[source])

    @cached_property
    def _clean(self) -> dict[int, torch.Tensor]:
        """Compute the clean values."""
        with torch.no_grad():
            return self._program.run(self._given, [entry.slot for entry in self._entries], 1)

    def patches(self, values: Array) -> torch.Tensor:
        """Bring windows to where the network computes."""
        like = self._given[self._source]
        return torch.from_numpy(values).to(like.device, like.dtype).movedim(-1, 1)

    def clean(self, k: int, n: int) -> torch.Tensor:
        """Give a clean value n times."""
        value = self._clean[self._entries[k].slot]
        return value.expand(n, *value.shape[1:])

    def cut(self, k: int, cut: Cut, changed: torch.Tensor | None) -> torch.Tensor:
        """Cut windows out of a clean value, and lay what has changed on them."""
        rows = self._clean_rows(k, cut.border)
        places = torch.from_numpy(cut.rows()).to(rows.device)
        windows = rows.index_select(0, places).reshape(
            len(cut.window), *cut.window.extent, rows.shape[1]
        )
        if changed is not None:
            changed = changed.movedim(1, -1)
            for which, inside, of in cut.overlaps():
                some = torch.from_numpy(which) if isinstance(which, np.ndarray) else which
                windows[(some, *inside)] = changed[(some, *of)]
        return windows.movedim(-1, 1)

    def apply(self, k: int, inputs: Sequence[torch.Tensor], windows: bool) -> torch.Tensor:
        """Compute an operation."""
        entry = self._entries[k]
        call = entry.within if windows else entry.call
        assert call is not None
        values = iter(inputs)
        constants, n = self._program.constants, len(inputs[0])

        def fill(part: Slot | Size) -> Any:
            if isinstance(part, Size):
                return part.each * n
            return constants[part.index] if part.index in constants else next(values)

        args = mapped(call.args, (Slot, Size), fill)
        kwargs = mapped(call.kwargs, (Slot, Size), fill)
        result = self._overwriting.get(k, call.op)(*args, **kwargs)
        made: torch.Tensor = result[entry.result] if isinstance(result, (tuple, list)) else result
        return made

    def moved_mean(self, k: int, old: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
        """Compute a mean of which some terms have changed."""
        clean = self._clean[self._entries[k].slot]
        below = self._operations[self._operations[k].inputs[0]]
        moved = (new - old).sum(tuple(range(2, new.ndim))) / math.prod(below.grid)
        return clean + moved.reshape(len(moved), *clean.shape[1:])

    def whole(self, batch: Blended) -> Sequence[torch.Tensor]:
        """Compute the wanted values of a batch in the plain way."""
        return self._plain(batch)

    def joined(self, parts: Sequence[torch.Tensor]) -> torch.Tensor:
        """Put batches behind each other."""
        return torch.cat(list(parts))

    def ordered(self, values: torch.Tensor, places: Array) -> torch.Tensor:
        """Give some of a batch."""
        return values.index_select(0, torch.from_numpy(places).to(values.device))

    def _in_place(self, source: int) -> dict[int, Callable[..., Any]]:
        """Find the operations that may overwrite what they read, as nobody else does."""
        readers = Counter(i for operation in self._operations for i in operation.inputs)
        readers.update(self._described.number[slot] for slot in self._wanted)
        changed, found = {source}, {}
        for k, (operation, entry) in enumerate(zip(self._operations, self._entries, strict=True)):
            if changed.isdisjoint(operation.inputs) or entry.call is None:
                continue
            changed.add(k)
            first = operation.inputs[0]
            below = self._entries[first]
            alone = first in changed - {source} and readers[first] == 1
            alike = entry.shape == below.shape and entry.call.reads[0] == below.slot
            fresh = below.call is not None and not shares(below.call)
            same = self._program.dtypes[entry.slot] == self._program.dtypes[below.slot]
            if entry.call.name in _IN_PLACE and alone and alike and fresh and same:
                found[k] = in_place(entry.call) or entry.call.op
        return found

    def _clean_rows(self, k: int, border: float) -> torch.Tensor:
        """Give a clean value as (positions, C), and a last row of what lies beyond the ends."""
        if (k, border) not in self._rows:
            value = self._clean[self._entries[k].slot][0].flatten(1).T
            beyond = value.new_full((1, value.shape[1]), border)
            self._rows[k, border] = torch.cat([value, beyond])
        return self._rows[k, border]

    def _run(self, batch: Blended) -> list[torch.Tensor]:
        """Compute the wanted values of a batch by the program itself."""
        n, like = len(batch), self._given[self._source]
        given = {slot: value.expand(n, *value.shape[1:]) for slot, value in self._given.items()}
        given[self._source] = blended(batch, like, channels_first=True)
        found = self._program.run(given, self._wanted, n)
        return [found[slot] for slot in self._wanted]
