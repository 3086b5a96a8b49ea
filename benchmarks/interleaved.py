"""Timing several ways of doing one thing, side by side in one run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

from rich.console import Console
from rich.table import Table


def measure(
    ways: Mapping[str, Callable[[], object]], rounds: int, warm_up: int = 2
) -> dict[str, list[float]]:
    """Time each way once a round, so that a noisy moment falls on all of them.

    Parameters
    ----------
    ways : mapping of str to callable
        What is timed, by name.
    rounds : int
        How often.
    warm_up : int
        How many rounds go before, untimed.

    Returns
    -------
    dict of str to list of float
        CPU seconds of the process, one for each round.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + warm_up):
        for name, run in ways.items():
            start = time.process_time()
            run()
            spent = time.process_time() - start
            if turn >= warm_up:
                seconds[name].append(spent)
    return seconds


def show(title: str, results: Mapping[str, Mapping[str, list[float]]], unit: str) -> None:
    """Print medians as multiples of the unit's, one row for each network.

    Parameters
    ----------
    title : str
        What was measured.
    results : mapping of str to mapping
        For each network what `measure` gave.
    unit : str
        The way that counts as 1.
    """
    ways = list(dict.fromkeys(way for seconds in results.values() for way in seconds))
    table = Table(title=title, caption=f"medians, as multiples of one {unit} in the same run")
    table.add_column("network")
    table.add_column(f"{unit}, ms", justify="right")
    for way in ways:
        if way != unit:
            table.add_column(way, justify="right")
    for network, seconds in results.items():
        one = statistics.median(seconds[unit])
        cells = [
            f"{statistics.median(seconds[way]) / one:.2f}" if way in seconds else "-"
            for way in ways
            if way != unit
        ]
        table.add_row(network, f"{1000 * one:.1f}", *cells)
    Console(width=120).print(table)
