"""How many samples to run at once on a processor."""

from __future__ import annotations

import math
from typing import Final

from cnnviz_torch.program.program import Program, Size

__all__ = ["most_at_once"]

_MAPPED: Final = 32 * 2**20
"""Blocks from here on the C library takes anew from the system each time, which then clears them
page by page: this can take longer than what is computed in them (M_MMAP_THRESHOLD_MAX of glibc)."""


def most_at_once(program: Program) -> int:
    """Say how many samples to run at once, so that no value becomes a block of that kind.

    Parameters
    ----------
    program : Program
        The operations.

    Returns
    -------
    int
        At least 1.
    """
    return max(1, (_MAPPED - 1) // max(1, *_bytes_each(program)))


def _bytes_each(program: Program) -> list[int]:
    """Give the size of what the operations make of each sample."""
    sizes = []
    for call in program.calls:
        for slot in call.results:
            shape = () if slot is None else program.shapes.get(slot, ())
            if slot is not None and any(isinstance(part, Size) for part in shape):
                values = math.prod(p.each if isinstance(p, Size) else p for p in shape)
                sizes.append(values * program.dtypes[slot].itemsize)
    return [*sizes, 1]
