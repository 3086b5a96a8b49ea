"""The tables: every section with every network, each row printed when it is known."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from benchmarks.measuring import Patience, Row, measured
from benchmarks.peers import Peer, peers_of
from benchmarks.report import Report
from benchmarks.room import Room, open_room
from benchmarks.sections import SECTIONS
from benchmarks.tables import Table, about, heading
from benchmarks.task import Section
from benchmarks.work import Work

QUICK = Work(side=48, window=16, stride=16, samples=20, batch_size=8, steps=2, budget=60)
"""So little that all of it runs in half a minute."""


@dataclass(frozen=True)
class Choice:
    """What is measured.

    Attributes
    ----------
    sections : collection of str
    networks : collection of str
        Empty for each section's own.
    methods : collection of str
        Empty for all.
    work : Work
    patience : Patience
    threads : int
        For the record; who starts the process sets them.
    quick : bool
        Whether networks are small ones.
    """

    sections: Collection[str]
    networks: Collection[str]
    methods: Collection[str]
    work: Work
    patience: Patience
    threads: int = 1
    quick: bool = False

    def networks_of(self, section: Section, room: Room) -> Sequence[str]:
        """Give the networks that a section looks at.

        Parameters
        ----------
        section : Section
        room : Room

        Returns
        -------
        sequence of str
        """
        own = section.networks[room.framework]
        if self.networks:
            return [name for name in room.networks() if name in self.networks]
        return [name for name in own if name == "nothing"] + ["small"] if self.quick else own


def run(framework: str, choice: Choice, report: Report) -> None:
    """Measure all that is chosen on one framework.

    Parameters
    ----------
    framework : {"torch", "tensorflow"}
    choice : Choice
    report : Report
        Takes the tables, each row as soon as it is known.

    Raises
    ------
    ModuleNotFoundError
        If the framework is not installed.
    """
    room, peers = open_room(framework), peers_of(framework)
    told = about(room, peers, choice.threads)
    report.begin(told)
    report.say(heading(told))
    for name in choice.sections:
        section = SECTIONS[name]
        beside = [peers[peer] for peer in section.peers if peer in peers and peers[peer].version]
        table = Table(section, tuple(peer.name for peer in beside))
        for place, row in enumerate(_rows(section, room, beside, choice)):
            if not place:
                report.say(f"\n{table.head()}")
            report.say(table.row(row))
            report.add(row)


def _rows(section: Section, room: Room, beside: Sequence[Peer], choice: Choice) -> Iterator[Row]:
    """Measure one section."""
    for network in choice.networks_of(section, room):
        for task in section.tasks(partial(room.case, network, choice.work)):
            if not choice.methods or task.method in choice.methods:
                yield measured(section.name, task, room, beside, choice.patience)
