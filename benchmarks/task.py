"""What is timed: tasks, and the sections that they stand in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from benchmarks.case import Case, Way

Make: TypeAlias = Callable[[int], Case]
"""Makes the network that a section is about, with a batch of so many pictures."""


@dataclass(frozen=True)
class Task:
    """One line of a table.

    Attributes
    ----------
    case : Case
    method : str
        The name of our method, or of what else is done.
    ours : callable
        Our way of doing it.
    label : str
        What the line says; left out, the method's name.
    key : str
        What peers call it in their `Ways`; left out, the method's name.
    units : float
        The cost is divided by so many, such as by the number of masks.
    skipped : str
        Why it is not run; empty if it is.
    """

    case: Case
    method: str
    ours: Way = field(repr=False)
    label: str = ""
    key: str = ""
    units: float = 1
    skipped: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "label", self.label or self.method)
        object.__setattr__(self, "key", self.key or self.method)


@dataclass(frozen=True)
class Section:
    """One table.

    Attributes
    ----------
    name : str
        What the command line calls it.
    title : str
    networks : mapping of str to tuple of str
        For each framework those that are looked at, if nothing else is asked for.
    tasks : callable
        Gives its tasks with one network.
    peers : tuple of str
        Who has a column, of any framework.
    unit : str
        Of what the costs are, in forward passes.
    """

    name: str
    title: str
    networks: Mapping[str, tuple[str, ...]]
    tasks: Callable[[Make], Iterator[Task]]
    peers: tuple[str, ...] = ()
    unit: str = "a run"
