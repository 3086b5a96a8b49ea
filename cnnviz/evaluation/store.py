"""What was measured, in an SQLite file that survives being killed at any moment.

A *column* is one way of measuring: a network, its preprocessing, a target, a method and a metric,
all with their parameters.  It holds at most one record of an item.  What a batch of items gave by
one method is written in one transaction: it is there whole or not at all.
"""

from __future__ import annotations

import contextlib
import json
import math
import sqlite3
import weakref
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from cnnviz_core.errors import ArrayError, ParameterError
from cnnviz_core.model import Array

__all__ = ["FILE", "Seen", "Store"]

FILE: Final = "records.sqlite"
"""What the file is called."""

_VERSION: Final = 1
_ALIKE: Final = 1e-5
"""Networks whose answers differ by less, as a share of the largest, are the same one."""
_WAIT: Final = 60.0
"""Seconds to wait while another process writes."""

_TABLES: Final = """
CREATE TABLE IF NOT EXISTS networks (
    id INTEGER PRIMARY KEY, about TEXT NOT NULL, answers BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS columns (id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS seen (
    column INTEGER NOT NULL, item TEXT NOT NULL, target TEXT NOT NULL, score REAL,
    status TEXT NOT NULL, PRIMARY KEY (column, item)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS records (
    column INTEGER NOT NULL, item TEXT NOT NULL, form TEXT NOT NULL, numbers BLOB NOT NULL,
    PRIMARY KEY (column, item)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS remarks (
    column INTEGER NOT NULL, item TEXT NOT NULL, told TEXT NOT NULL, PRIMARY KEY (column, item)
) WITHOUT ROWID;
CREATE TEMPORARY TABLE wanted (item TEXT PRIMARY KEY, position INTEGER NOT NULL) WITHOUT ROWID;
"""


class Seen(NamedTuple):
    """What is known of one explanation beside its records.

    Attributes
    ----------
    target : str
        What was asked, in words.
    score : float or None
        The target's score.
    status : str
        "ok", or why the map shows nothing; see `cnnviz_core.explainer.present`.
    """

    target: str
    score: float | None
    status: str


class Store:
    """Records of items, by column.

    Parameters
    ----------
    path : Path or None
        The file, made if need be; None keeps everything in memory.

    Raises
    ------
    ParameterError
        If the file cannot be made, or is no such store.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        try:
            self._base = sqlite3.connect(
                ":memory:" if path is None else path, timeout=_WAIT, isolation_level=None
            )
            weakref.finalize(self, self._base.close)
            (version,) = self._base.execute("PRAGMA user_version").fetchone()
            if version not in (0, _VERSION):
                raise ParameterError(
                    f"{path} was written by another version of cnnviz (form {version})",
                    f"a file of form {_VERSION}",
                    "name another folder",
                )
            self._base.executescript(_TABLES)
            self._base.execute(f"PRAGMA user_version = {_VERSION}")
        except sqlite3.Error as error:
            raise ParameterError(
                f"the records cannot be kept in {path}: {error}",
                "a folder in which files may be written, and no other file of this name",
                "name another folder",
            ) from error

    def close(self) -> None:
        """Close the file."""
        self._base.close()

    def copy(self, path: Path) -> None:
        """Write all records to another file.

        Parameters
        ----------
        path : Path
            The file; nothing happens if it is the store's own.
        """
        if self.path is not None and path.resolve() == self.path.resolve():
            return
        with contextlib.closing(sqlite3.connect(path)) as other:
            self._base.backup(other)

    def network(self, about: Mapping[str, Any], answers: Array) -> int:
        """Find a network by what it answers, or note it.

        Parameters
        ----------
        about : mapping of str to value
            What must be equal.
        answers : ndarray
            What it answers to a fixed input; differences by rounding do not count.

        Returns
        -------
        int
            Its number in this store.
        """
        text, values = _key(about), np.asarray(answers, dtype=np.float64).ravel()
        known = self._base.execute("SELECT id, answers FROM networks WHERE about = ?", (text,))
        for number, blob in known.fetchall():
            earlier = np.frombuffer(blob)
            if earlier.shape == values.shape and np.allclose(
                earlier,
                values,
                rtol=0,
                atol=_ALIKE * float(np.nanmax(np.abs(values), initial=0)),
                equal_nan=True,
            ):
                return int(number)
        row = (text, values.tobytes())
        made = self._base.execute("INSERT INTO networks (about, answers) VALUES (?, ?)", row)
        return int(made.lastrowid or 0)

    def column(self, key: Mapping[str, Any]) -> int:
        """Find a column by all that makes it, or add it.

        Parameters
        ----------
        key : mapping of str to value
            As JSON has it.

        Returns
        -------
        int
            Its number in this store.
        """
        text = _key(key)
        self._base.execute("INSERT OR IGNORE INTO columns (key) VALUES (?)", (text,))
        (number,) = self._base.execute("SELECT id FROM columns WHERE key = ?", (text,)).fetchone()
        return int(number)

    def want(self, items: Sequence[str]) -> None:
        """Say which items there are, in their order; others in the file are passed over.

        Parameters
        ----------
        items : sequence of str
            Their keys.
        """
        with self._transaction():
            self._base.execute("DELETE FROM wanted")
            self._base.executemany(
                "INSERT INTO wanted VALUES (?, ?)", ((item, i) for i, item in enumerate(items))
            )

    def done(self, columns: Sequence[int]) -> int:
        """Count the wanted items that have a record in each of some columns.

        Parameters
        ----------
        columns : sequence of int
            Different ones.

        Returns
        -------
        int
        """
        marks = ", ".join("?" * len(columns))
        (count,) = self._base.execute(
            f"SELECT count(*) FROM (SELECT item FROM wanted JOIN records USING (item) "
            f"WHERE column IN ({marks}) GROUP BY item HAVING count(*) = ?)",
            (*columns, len(columns)),
        ).fetchone()
        return int(count)

    def measured(self, items: Sequence[str]) -> set[tuple[str, int]]:
        """Tell what of a batch is done.

        Parameters
        ----------
        items : sequence of str
            Their keys.

        Returns
        -------
        set of (str, int)
            The item and the column of each record.
        """
        marks = ", ".join("?" * len(items))
        rows = self._base.execute(
            f"SELECT item, column FROM records WHERE item IN ({marks})", tuple(items)
        )
        return set(rows.fetchall())

    def write(
        self,
        column: int,
        seen: Mapping[str, Seen],
        records: Mapping[int, Mapping[str, Mapping[str, Array]]],
    ) -> None:
        """Write what a batch gave by one method, whole or not at all.

        Parameters
        ----------
        column : int
            The method's column.
        seen : mapping of str to Seen
            By item.
        records : mapping of int to mapping of str to mapping
            By the metrics' columns, then by item: its arrays by their names.
        """
        rows = (
            (number, item, *_packed(record))
            for number, items in records.items()
            for item, record in items.items()
        )
        with self._transaction():
            self._base.executemany(
                "INSERT OR REPLACE INTO seen VALUES (?, ?, ?, ?, ?)",
                ((column, item, *each) for item, each in seen.items()),
            )
            self._base.executemany("INSERT OR REPLACE INTO records VALUES (?, ?, ?, ?)", rows)

    def seen(self, column: int) -> dict[int, Seen]:
        """Read what is known of a method's explanations.

        Parameters
        ----------
        column : int
            The method's column.

        Returns
        -------
        dict of int to Seen
            By the items' positions.
        """
        rows = self._base.execute(
            "SELECT position, target, score, status FROM wanted JOIN seen USING (item) "
            "WHERE column = ? ORDER BY position",
            (column,),
        )
        return {position: Seen(*rest) for position, *rest in rows}

    def remark(self, column: int, told: Mapping[str, Sequence[Any]]) -> None:
        """Note what preparing some items has shown.

        Parameters
        ----------
        column : int
            Of the preparation.
        told : mapping of str to sequence of value
            By item, as JSON has them.
        """
        with self._transaction():
            self._base.executemany(
                "INSERT OR REPLACE INTO remarks VALUES (?, ?, ?)",
                ((column, item, json.dumps(each)) for item, each in told.items()),
            )

    def remarks(self, column: int) -> list[Any]:
        """Read what preparing the wanted items has shown.

        Parameters
        ----------
        column : int
            Of the preparation.

        Returns
        -------
        list of value
            In the order of the items.
        """
        rows = self._base.execute(
            "SELECT told FROM wanted JOIN remarks USING (item) WHERE column = ? ORDER BY position",
            (column,),
        )
        return [each for (told,) in rows for each in json.loads(told)]

    def records(self, column: int) -> dict[str, Array]:
        """Read a column.

        Parameters
        ----------
        column : int
            Of a metric.

        Returns
        -------
        dict of str to ndarray (N, ...)
            A row for each wanted item; NaN where there is no record.  Empty where there is none
            of any.

        Raises
        ------
        ArrayError
            If the records of two items have different shapes.
        """
        (total,) = self._base.execute("SELECT count(*) FROM wanted").fetchone()
        rows = self._base.execute(
            "SELECT position, form, numbers FROM wanted JOIN records USING (item) "
            "WHERE column = ? ORDER BY position",
            (column,),
        )
        form, found, places = None, {}, []
        for position, text, numbers in rows:
            if form is None:
                form = text
                found = {
                    name: np.full((total, *shape), np.nan) for name, _, shape in json.loads(text)
                }
            if text != form:
                raise ArrayError(
                    f"a metric gave records of different forms: {form} and {text}",
                    "numbers of the same shapes for every picture",
                    "report it to the metric's author, or let all pictures have one input size",
                )
            places.append(position)
            for name, values in _unpacked(text, numbers).items():
                found[name][position] = values
        if form is not None and len(places) == total:
            kinds = {name: kind for name, kind, _ in json.loads(form)}
            found = {name: values.astype(kinds[name]) for name, values in found.items()}
        return found

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        """Do all of a block or nothing."""
        self._base.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._base.execute("ROLLBACK")
            raise
        self._base.execute("COMMIT")


def _key(value: Mapping[str, Any]) -> str:
    """Write JSON values in the one way in which they can be looked up."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _packed(record: Mapping[str, Array]) -> tuple[str, bytes]:
    """Write an item's record: names, types and shapes, and all numbers as float64."""
    arrays = {name: np.asarray(values) for name, values in record.items()}
    form = [[name, array.dtype.str, list(array.shape)] for name, array in arrays.items()]
    numbers = b"".join(array.astype("<f8").tobytes() for array in arrays.values())
    return json.dumps(form), numbers


def _unpacked(form: str, numbers: bytes) -> dict[str, Array]:
    """Read an item's record."""
    values, found, start = np.frombuffer(numbers, dtype="<f8"), {}, 0
    for name, _, shape in json.loads(form):
        size = math.prod(shape)
        found[name] = values[start : start + size].reshape(shape)
        start += size
    return found
