"""How many changed samples go through a network at once: as many as is said, or as pays."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from time import perf_counter
from typing import Final, Literal, TypeAlias, TypeVar

__all__ = ["BatchSize", "in_pace"]

BatchSize: TypeAlias = int | Literal["auto"]
"""A number, or "auto": found by measuring, so that results may differ by rounding from run to
run."""

_FIRST: Final = 4
_BYTES: Final = 2**27
"""The most that a measured batch of inputs may take."""
_GAIN: Final = 0.95
"""A larger batch must take at most this share of the time for each of its samples."""

_T = TypeVar("_T")


def in_pace(
    total: int,
    batch_size: BatchSize | None,
    sample_bytes: int,
    work: Callable[[int, int], _T],
) -> Iterator[tuple[int, int, _T]]:
    """Do work in batches.

    A measured size starts at 4 and doubles for as long as each sample takes at least 5 % less time
    than in smaller batches, and a batch of inputs at most 128 MiB.  If the memory does not suffice,
    the size is halved and the batch is done again, in halves.

    Parameters
    ----------
    total : int
        How many samples there are.
    batch_size : int, "auto" or None
        How many at once; None for all, where it is the work itself that says what is too much.
    sample_bytes : int
        What one sample takes at the network's input.
    work : callable
        From ``(start, stop)`` to a result.

    Yields
    ------
    start, stop : int
        Which samples were done.
    result
        What `work` gave.

    Raises
    ------
    MemoryError
        If the memory does not suffice for a batch of the size that was given, or for one sample.
    """
    pace = _Pace(batch_size, sample_bytes, total)
    start = 0
    while start < total:
        stop = min(start + pace.size, total)
        began = perf_counter()
        try:
            result = work(start, stop)
        except MemoryError:
            if not pace.smaller():
                raise
            continue
        pace.took(stop - start, perf_counter() - began)
        yield start, stop, result
        start = stop


class _Pace:
    """How large the next batch is, given what the earlier ones took."""

    def __init__(self, batch_size: BatchSize | None, sample_bytes: int, total: int) -> None:
        self._most = max(1, _BYTES // max(1, sample_bytes))
        self._shrinks = not isinstance(batch_size, int)
        self._growing = batch_size == "auto"
        self._best = float("inf")
        first = min(_FIRST, self._most) if self._growing else max(1, total)
        self.size = batch_size if isinstance(batch_size, int) else first

    def took(self, samples: int, seconds: float) -> None:
        """Go on with a larger batch where that may pay, and go back where it did not."""
        if not self._growing or samples < self.size:
            return
        each = seconds / samples
        pays, before = each <= _GAIN * self._best, self._best
        self._growing = pays and 2 * self.size <= self._most
        self._best = min(each, before)
        if self._growing:
            self.size *= 2
        elif not pays:
            self.size //= 2

    def smaller(self) -> bool:
        """Go on with smaller batches; tell whether there are such."""
        if not self._shrinks or self.size == 1:
            return False
        self.size //= 2
        self._growing = False
        return True
