"""Timing several ways of doing one thing, side by side in one run."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping


def measure(
    ways: Mapping[str, Callable[[], object]],
    rounds: int | Mapping[str, int],
    warm_up: int = 2,
    clock: Callable[[], float] = time.process_time,
) -> dict[str, list[float]]:
    """Time each way once a round, so that a noisy moment falls on all of them.

    Parameters
    ----------
    ways : mapping of str to callable
        What is timed, by name.
    rounds : int, or mapping of str to int
        How often; a way with fewer rounds than others takes part in the first of them.
    warm_up : int
        How many rounds go before, untimed.
    clock : callable
        Tells the time in seconds; left out, the processor time of the whole process.

    Returns
    -------
    dict of str to list of float
        Seconds, one for each round.
    """
    turns = dict.fromkeys(ways, rounds) if isinstance(rounds, int) else rounds
    for _ in range(warm_up):
        for run in ways.values():
            run()
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(max((turns[name] for name in ways), default=0)):
        for name, run in ways.items():
            if turn < turns[name]:
                seconds[name].append(timed(run, clock))
    return seconds


def timed(run: Callable[[], object], clock: Callable[[], float] = time.process_time) -> float:
    """Run something once, and give how many seconds that took.

    Parameters
    ----------
    run : callable
        What is run.
    clock : callable
        As for `measure`.

    Returns
    -------
    float
    """
    start = clock()
    run()
    return clock() - start
