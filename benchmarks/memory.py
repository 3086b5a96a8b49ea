"""How much memory something takes, as Linux counts it for the whole process."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path

PROCESS = Path("/proc/self")


def growth(run: Callable[[], object]) -> float:
    """Run something, and tell by how much the process grew meanwhile at most.

    What C's allocator keeps for later is given back first, so that each way begins alike; arrays
    of every framework count, whoever made them.

    Parameters
    ----------
    run : callable
        What is run.  It should have run before, lest what stays after a first time be counted.

    Returns
    -------
    float
        In MiB: the peak of the resident set less what it was before.  NaN where there is no Linux.
    """
    if not (PROCESS / "clear_refs").exists():
        return float("nan")
    ctypes.CDLL(None).malloc_trim(0)
    before = _kilobytes("VmRSS")
    (PROCESS / "clear_refs").write_text("5")  # sets the peak to what is resident now
    run()
    return (_kilobytes("VmHWM") - before) / 1024


def _kilobytes(field: str) -> int:
    """Read one of the process' sizes."""
    lines = (PROCESS / "status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))
