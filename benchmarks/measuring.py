"""Timing a task: our way, the peers' and plain forward passes in turn."""

from __future__ import annotations

import contextlib
import io
import math
import statistics
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from benchmarks.case import Way
from benchmarks.goals import PASS, Goal, goal_of
from benchmarks.interleaved import measure, timed
from benchmarks.peers import Peer
from benchmarks.room import Room
from benchmarks.task import Task
from benchmarks.work import Work

OURS = "cnnviz"
_NEARBY = 3
"""How many forward passes are timed beside each way's first run."""


@dataclass(frozen=True)
class Spent:
    """What one way of doing a task took.

    Attributes
    ----------
    seconds : float
        The median; NaN where it failed.
    cost : float
        The same in plain forward passes of the same batch, for each unit of the task.
    mib : float
        The most memory that it took; NaN where it is not known.
    rounds : int
        How often it was timed.
    why : str
        Why it failed; empty if it did not.
    """

    seconds: float
    cost: float
    mib: float
    rounds: int
    why: str = ""


@dataclass(frozen=True)
class Row:
    """What a task took.

    Attributes
    ----------
    framework, section, network, method, label : str
    batch, side : int
        How many pictures, and how high and wide.
    units : float
        By what the costs are divided.
    forward, ours : Spent
    peers : mapping of str to Spent
        Those that can do it, by name.
    goal : Goal or None
        The most that ours is to cost.
    skipped : str
        Why it was not run; empty if it was.
    """

    framework: str
    section: str
    network: str
    method: str
    label: str
    batch: int
    side: int
    units: float
    forward: Spent
    ours: Spent
    peers: Mapping[str, Spent] = field(default_factory=dict)
    goal: Goal | None = None
    skipped: str = ""

    @property
    def ratio(self) -> float:
        """Our cost by that of the cheapest peer; NaN where there is none."""
        costs = [spent.cost for spent in self.peers.values() if not spent.why]
        return self.ours.cost / min(costs) if costs else math.nan

    @property
    def reached(self) -> bool | None:
        """Whether the goal is reached; None where that cannot be told."""
        if self.goal is None or self.skipped or self.ours.why:
            return None
        if self.goal.of == PASS:
            return self.ours.cost <= self.goal.most
        peer = self.peers.get(self.goal.of)
        if peer is None or peer.why:
            return None
        return self.ours.cost <= self.goal.most * peer.cost


@dataclass(frozen=True)
class Patience:
    """How often things are timed.

    Attributes
    ----------
    rounds : int
        How often each way is, at most.
    seconds : float
        For about how long one way is timed, but once at least.  Where a run takes more than three
        times as long, the first counts, in which whatever is made only once is made.
    """

    rounds: int = 9
    seconds: float = 20.0

    def turns(self, first: float) -> int:
        """Give how often a way is timed after its first run, which took so many seconds.

        Parameters
        ----------
        first : float

        Returns
        -------
        int
        """
        if first > 3 * self.seconds:
            return 0
        return min(self.rounds, math.ceil(self.seconds / max(first, 1e-9)))


def measured(
    section: str, task: Task, room: Room, peers: Sequence[Peer], patience: Patience
) -> Row:
    """Time a task.

    Parameters
    ----------
    section : str
        The table that it stands in.
    task : Task
    room : Room
        The framework of its case.
    peers : sequence of Peer
        Who else may do it.
    patience : Patience

    Returns
    -------
    Row
    """
    case = task.case
    makers: dict[str, Callable[[], Way]] = {PASS: lambda: case.forward, OURS: lambda: task.ours}
    for peer in peers:
        ways = peer.ways(case)
        if task.key in ways:
            makers[peer.name] = ways[task.key]
    if task.skipped:
        spent = {PASS: _failed(""), OURS: _failed("")}
    else:
        with _quiet():
            spent = _spent(makers, room, patience, task.units)
    usual = room.device == "CPU" and case.work.side == Work().side
    return Row(
        framework=room.framework,
        section=section,
        network=case.name,
        method=task.method,
        label=task.label,
        batch=len(case.x),
        side=case.work.side,
        units=task.units,
        forward=spent.pop(PASS),
        ours=spent.pop(OURS),
        peers=spent,
        goal=goal_of(room.framework, section, task.label, case.name) if usual else None,
        skipped=task.skipped,
    )


def _spent(
    makers: Mapping[str, Callable[[], Way]], room: Room, patience: Patience, units: float
) -> dict[str, Spent]:
    """Time all ways: those that take long once, the others in turn."""
    ways: dict[str, Way] = {}
    firsts: dict[str, Spent] = {}
    failed: dict[str, Spent] = {}
    nearby: list[float] = []
    for name, make in makers.items():
        try:
            ways[name], firsts[name] = _first(make, room)
        except Exception as error:
            if name == PASS:
                raise
            ways.pop(name, None)
            failed[name] = _failed(f"{type(error).__name__}: {error}")
        nearby += [timed(ways[PASS], room.clock) for _ in range(_NEARBY)]
    turns = {name: patience.turns(first.seconds) for name, first in firsts.items()}
    turns[PASS] = max(1, *turns.values())
    again = {name: ways[name] for name in ways if turns[name]}
    times = measure(again, turns, 0, room.clock)
    seconds = {name: statistics.median(took) for name, took in times.items()}
    found = {}
    for name, first in firsts.items():
        mib = first.mib if first.seconds > patience.seconds else room.growth(ways[name])
        if name in again:
            cost = seconds[name] / seconds[PASS]
            found[name] = Spent(seconds[name], cost / units, mib, turns[name])
        else:
            cost = first.seconds / statistics.median(nearby)
            found[name] = Spent(first.seconds, cost / units, mib, 1)
    found[PASS] = replace(found[PASS], cost=1.0)
    return {name: found.get(name) or failed[name] for name in makers}


def _first(make: Callable[[], Way], room: Room) -> tuple[Way, Spent]:
    """Make a way ready, and run it for the first time."""
    way = make()
    seconds: list[float] = []
    mib = room.growth(lambda: seconds.append(timed(way, room.clock)))
    return way, Spent(seconds[0], math.nan, mib, 1)


def _failed(why: str) -> Spent:
    """Say that a way has no numbers."""
    return Spent(math.nan, math.nan, math.nan, 0, why)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what libraries print, such as bars of progress, out of the tables."""
    nowhere = io.StringIO()
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        warnings.simplefilter("ignore")
        yield
