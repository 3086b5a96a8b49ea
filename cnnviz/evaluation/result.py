"""What an evaluation found: numbers for each picture, their summary, and what failed."""

from __future__ import annotations

import importlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from cnnviz.datasets import Label, Problem
from cnnviz.evaluation.asking import Measure
from cnnviz.evaluation.cost import Cost
from cnnviz.evaluation.failures import Failure
from cnnviz.evaluation.plots import plots_of
from cnnviz.evaluation.store import Seen, Store
from cnnviz.evaluation.summary import Score
from cnnviz.tables import Table
from cnnviz_core.exhibits import Exhibit
from cnnviz_core.importing import installed
from cnnviz_core.model import Array

__all__ = ["Evaluation", "Pictured", "Row"]


class Pictured(NamedTuple):
    """An item that was evaluated.

    Attributes
    ----------
    id : str
        Unique in its data set.
    name : str
        What the picture is called.
    label : str, int or None
        Its class as annotated.
    key : str
        Under which the store has it.
    """

    id: str
    name: str
    label: Label | None
    key: str


class Row(NamedTuple):
    """One number of one picture.

    Attributes
    ----------
    item, picture : str
        The item's id, and its picture's name.
    label : str, int or None
        The class as annotated.
    target : str
        What was asked of the network.
    score : float or None
        The target's score.
    status : str
        "ok", or why the map shows nothing.
    method, metric, name : str
        Whose number it is, by which metric, and what the metric calls it.
    value : float
        NaN where there was nothing to measure.
    """

    item: str
    picture: str
    label: Label | None
    target: str
    score: float | None
    status: str
    method: str
    metric: str
    name: str
    value: float


class _Records(Mapping[tuple[str, str], Mapping[str, Array]]):
    """Records by method and metric, read when they are asked for."""

    def __init__(self, store: Store, columns: Mapping[tuple[str, str], int]) -> None:
        self._store = store
        self._columns = {key: number for key, number in columns.items() if key[1]}

    def __getitem__(self, key: tuple[str, str]) -> Mapping[str, Array]:
        return self._store.records(self._columns[key])

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)


@dataclass(frozen=True, eq=False)
class Evaluation:
    """How good methods are on a network and a data set.

    Attributes
    ----------
    title : str
        Which network, on which pictures.
    pictures : tuple of Pictured
        The items that were evaluated.
    methods : tuple of str
        The methods' labels.
    measures : tuple of Measure
        The metrics.
    summary : Table of Score
        All numbers of the data set; it prints as a table of methods and metrics.
    problems : tuple of Problem
        What is wrong with the data set, and what became of it.
    failures : tuple of Failure
        Pictures, methods and metrics that failed while it ran.
    left_out : mapping of str to str
        Methods and metrics that were not run to the end, each with the reason.
    notes : tuple of str
        What a reader must know, a line each.
    cost : Cost
        What was to be done when it started.
    settings, provenance : mapping of str to value
        How it was made, and by which versions.
    command : str
        What reruns it on a command line; empty where that cannot be said.
    """

    title: str
    pictures: tuple[Pictured, ...]
    methods: tuple[str, ...]
    measures: tuple[Measure, ...]
    summary: Table[Score]
    problems: tuple[Problem, ...]
    failures: tuple[Failure, ...]
    left_out: Mapping[str, str]
    notes: tuple[str, ...]
    cost: Cost
    settings: Mapping[str, Any]
    provenance: Mapping[str, str]
    command: str
    store: Store = field(repr=False)
    columns: Mapping[tuple[str, str], int] = field(repr=False)

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics' labels."""
        return tuple(measure.label for measure in self.measures)

    @property
    def records(self) -> Mapping[tuple[str, str], Mapping[str, Array]]:
        """What each metric recorded: by (method, metric), arrays with a row for each picture."""
        return _Records(self.store, self.columns)

    @property
    def counts(self) -> dict[str, int]:
        """How many problems there are of each kind, the most frequent first."""
        return dict(Counter(problem.kind for problem in self.problems).most_common())

    @property
    def table(self) -> Any:
        """The numbers of single pictures, a row each: see `Row`.

        A pandas.DataFrame if pandas is installed, else a `Table` of `Row`.  Records that are more
        than a number, such as a curve, are in `records`.
        """
        rows = list(self.rows())
        if installed("pandas"):
            return importlib.import_module("pandas").DataFrame(rows, columns=Row._fields)
        cells = [tuple("" if value is None else str(value) for value in row) for row in rows]
        return Table(rows, Row._fields, cells)

    def rows(self) -> Iterator[Row]:
        """Go through the numbers of single pictures, method by method.

        Yields
        ------
        Row
        """
        records = self.records
        for method in self.methods:
            known = self.store.seen(self.columns[method, ""])
            for metric in self.metrics:
                for name, values in records[method, metric].items():
                    if values.ndim == 1:
                        yield from self._rows(method, metric, name, values, known)

    def _rows(
        self, method: str, metric: str, name: str, values: Array, known: Mapping[int, Seen]
    ) -> Iterator[Row]:
        """Go through one number of all pictures."""
        for i, (picture, value) in enumerate(zip(self.pictures, values, strict=True)):
            if i in known:
                whose = (picture.id, picture.name, picture.label)
                yield Row(*whose, *known[i], method, metric, name, float(value))

    def plots(self) -> dict[str, tuple[Exhibit, ...]]:
        """Draw what the metrics show beside numbers.

        Returns
        -------
        dict of str to tuple of Exhibit
            By metric; see `cnnviz.evaluation.plots.plots_of`.
        """
        records = self.records
        found = {}
        for measure in self.measures:
            own = {method: records[method, measure.label] for method in self.methods}
            found[measure.label] = plots_of(measure, {m: each for m, each in own.items() if each})
        return {metric: plots for metric, plots in found.items() if plots}

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write everything to a folder: records, tables, plots and a page.

        Parameters
        ----------
        folder : path
            Made if need be.  Files of an earlier evaluation are written over.

        Returns
        -------
        pathlib.Path
            The page, "leaderboard.html".

        Raises
        ------
        ParameterError
            If nothing can be written there.
        """
        from cnnviz.evaluation.writing import save

        return save(self, folder)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Evaluation:
        """Read an evaluation from the folder to which it was written.

        Parameters
        ----------
        folder : path
            As given to `save`, or as ``out`` to `cnnviz.evaluate`.

        Returns
        -------
        Evaluation

        Raises
        ------
        ParameterError
            If there is none, it was not finished, or a metric of it is not installed.
        """
        from cnnviz.evaluation.writing import load

        return load(folder)

    def __repr__(self) -> str:
        lines = [self.title, "", repr(self.summary)]
        if self.problems:
            told = ", ".join(f"{kind}: {count}" for kind, count in self.counts.items())
            lines += ["", f"problems of the data set: {told}"]
        if self.failures:
            lines += ["", f"{len(self.failures)} failures; the first: {self.failures[0]}"]
        if self.left_out:
            lines += ["", *(f"left out: {label}: {why}" for label, why in self.left_out.items())]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return self.summary._repr_html_()
