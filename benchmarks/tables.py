"""What was measured, as Markdown and as JSON."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from benchmarks.goals import PASS
from benchmarks.measuring import OURS, Row, Spent
from benchmarks.peers import Peer
from benchmarks.room import Room
from benchmarks.task import Section


@dataclass(frozen=True)
class Table:
    """The table of one section, of which each line is known when its row is.

    Attributes
    ----------
    section : Section
    peers : tuple of str
        Those that have a column.
    """

    section: Section
    peers: tuple[str, ...]

    @property
    def _columns(self) -> int:
        """How many columns there are."""
        return 7 + len(self.peers) + bool(self.peers)

    def head(self) -> str:
        """Write the title, what the costs are, and the head of the table.

        Returns
        -------
        str
        """
        ratio = ["ours / best peer"] if self.peers else []
        columns = ["network", "", "forward, ms", OURS, *self.peers, *ratio, "ms", "MiB", "at most"]
        ruled = ["---", "---", *["---:"] * (self._columns - 3), "---"]
        units = f"Costs of {self.section.unit} in forward passes."
        if self.peers:
            units = f"{units[:-1]}; ms and MiB of {' / '.join((OURS, *self.peers))}."
        return f"### {self.section.title}\n\n{units}\n\n{line(columns)}\n{line(ruled)}"

    def row(self, row: Row) -> str:
        """Write a line.

        Parameters
        ----------
        row : Row

        Returns
        -------
        str
        """
        if row.skipped:
            return line([row.network, row.label, "", row.skipped, *[""] * (self._columns - 4)])
        spent = [row.ours, *(row.peers.get(name) for name in self.peers)]
        cells = [row.network, row.label]
        cells += [number(1000 * row.forward.seconds)]
        cells += [_cost(one) for one in spent]
        if self.peers:
            cells += [number(row.ratio)]
        cells += [_joined(spent, lambda one: 1000 * one.seconds)]
        cells += [_joined(spent, lambda one: one.mib)]
        return line([*cells, _goal(row)])


def line(cells: Sequence[str]) -> str:
    """Write a line of a table in Markdown.

    Parameters
    ----------
    cells : sequence of str

    Returns
    -------
    str
    """
    return f"| {' | '.join(cells)} |"


def number(value: float) -> str:
    """Write a number with three digits; nothing for NaN.

    Parameters
    ----------
    value : float

    Returns
    -------
    str
    """
    if not math.isfinite(value):
        return ""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 0.01 or not value else f"{value:.1g}"


def _cost(spent: Spent | None) -> str:
    """Write a cost, or why there is none."""
    if spent is None:
        return ""
    return f"({spent.why.splitlines()[0][:60]})" if spent.why else number(spent.cost)


def _joined(spent: Sequence[Spent | None], value: Callable[[Spent], float]) -> str:
    """Write a number of each who did it."""
    written = ["–" if one is None else number(value(one)) or "–" for one in spent]
    return " / ".join(written) if set(written) != {"–"} else ""


def _goal(row: Row) -> str:
    """Write the goal, and whether it is reached."""
    if row.goal is None:
        return ""
    most = number(row.goal.most)
    of = "" if row.goal.of == PASS else f" of {row.goal.of}"
    told = {True: ", reached", False: ", **missed**", None: ""}[row.reached]
    return f"{most}{of}{told}"


def about(room: Room, peers: Mapping[str, Peer], threads: int) -> dict[str, Any]:
    """Say what was measured on what.

    Parameters
    ----------
    room : Room
    peers : mapping of str to Peer
    threads : int
        How many the framework may use.

    Returns
    -------
    dict
        Of what JSON knows.
    """
    return {
        "framework": room.framework,
        "version": room.version,
        "device": room.device,
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": threads,
        "python": platform.python_version(),
        "cnnviz": version("cnnviz"),
        "peers": {name: peer.version for name, peer in peers.items()},
        "missing": {name: peer.why for name, peer in peers.items() if peer.why},
    }


def place_of(told: Mapping[str, Any]) -> str:
    """Write on what was measured.

    Parameters
    ----------
    told : mapping
        What `about` gave.

    Returns
    -------
    str
        Such as "NVIDIA H200" or "AMD EPYC, 1 thread".
    """
    if told["device"] != "CPU":
        return str(told["device"])
    return f"{told['processor']}, {told['threads']} thread{'s' if told['threads'] > 1 else ''}"


def heading(told: Mapping[str, Any]) -> str:
    """Write what `about` says.

    Parameters
    ----------
    told : mapping
        What `about` gave.

    Returns
    -------
    str
    """
    peers = [f"{name} {found}" for name, found in told["peers"].items() if found]
    missing = [f"{name} ({why})" for name, why in told["missing"].items()]
    lines = [
        f"## {told['framework']} {told['version']}",
        "",
        f"cnnviz {told['cnnviz']} on {place_of(told)}, Python {told['python']}.",
        f"Beside it: {', '.join(peers) or 'nobody'}.",
    ]
    return "\n".join(lines + ([f"Left out: {', '.join(missing)}."] if missing else []))


def as_json(runs: Sequence[tuple[Mapping[str, Any], Sequence[Row]]]) -> str:
    """Write all numbers.

    Parameters
    ----------
    runs : sequence of (mapping, sequence of Row)
        For each framework what `about` gave, and its rows.

    Returns
    -------
    str
        A JSON document; what is not known is null.
    """
    document = [{**told, "rows": [_entry(row) for row in rows]} for told, rows in runs]
    return json.dumps({"runs": document}, indent=1, allow_nan=False) + "\n"


def _entry(row: Row) -> dict[str, Any]:
    """Give a row as JSON knows it."""
    entry = {**dataclasses.asdict(row), "ratio": row.ratio, "reached": row.reached}
    return _known(entry)


def _known(value: Any) -> Any:
    """Put None where a number is not known."""
    if isinstance(value, dict):
        return {key: _known(each) for key, each in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _processor() -> str:
    """Name the processor."""
    try:
        with open("/proc/cpuinfo") as told:
            names = [text.split(":", 1)[1] for text in told if text.startswith("model name")]
    except OSError:
        names = []
    return names[0].strip() if names else platform.processor() or platform.machine()
