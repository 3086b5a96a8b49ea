"""Which classes a network takes for which: counts, a matrix and tables."""

from __future__ import annotations

import operator
from typing import Final

import numpy as np

from cnnviz_core.exhibits import Matrix, Table
from cnnviz_core.inspector import Subject
from cnnviz_core.model import Array
from cnnviz_features.judging import Judged

__all__ = ["Confusion", "short_label"]

_ROWS: Final = 20
"""How many rows a table has at most."""


class Confusion:
    """How often each class is taken for which.

    Parameters
    ----------
    subject : Subject
        The network, the pictures and the names of the classes.
    judged : Judged
        What the network says of them.

    Attributes
    ----------
    pairs : ndarray (K, 3) of int
        Class, class predicted, and how many pictures; only pairs that occur, in ascending order.
    """

    def __init__(self, subject: Subject, judged: Judged) -> None:
        self._subject, self._judged = subject, judged
        both = np.stack([judged.truth, judged.predicted], axis=1)
        pairs, counts = np.unique(both, axis=0, return_counts=True)
        self.pairs: Array = np.column_stack([pairs, counts])

    def square(self) -> Array:
        """Give the counts as a square of numbers.

        Returns
        -------
        ndarray (C, C) of int
            Pictures of each class (row) by the class predicted (column).
        """
        return self._square(self.pairs, self._judged.classes)

    @staticmethod
    def _square(pairs: Array, n: int) -> Array:
        """Lay counts out."""
        square = np.zeros((n, n), dtype=np.int64)
        square[pairs[:, 0], pairs[:, 1]] = pairs[:, 2]
        return square

    def matrix(self, largest: int) -> Matrix | None:
        """Draw the counts.

        Parameters
        ----------
        largest : int
            Up to how many classes.

        Returns
        -------
        Matrix or None
            Of the classes that occur; None if they are more.
        """
        seen = np.unique(self.pairs[:, :2])
        if len(seen) > largest:
            return None
        places = np.column_stack([np.searchsorted(seen, self.pairs[:, :2]), self.pairs[:, 2]])
        labels = tuple(short_label(self._subject, index) for index in seen)
        return Matrix(
            self._square(places, len(seen)),
            labels,
            labels,
            title="Confusion",
            row_title="true class",
            column_title="answer",
            note="How many pictures of each class (row) were given each answer (column).",
        )

    def mistaken(self) -> Table | None:
        """List the pairs of classes that are confused most, each with its worst example.

        Returns
        -------
        Table or None
            None where there is no mistake.
        """
        wrong = self.pairs[self.pairs[:, 0] != self.pairs[:, 1]]
        if not len(wrong):
            return None
        judged = self._judged
        totals = np.bincount(judged.truth, minlength=judged.classes)
        lead = judged.p_predicted - judged.p_true
        found = []
        for true, answer, count in wrong:
            examples = np.flatnonzero((judged.truth == true) & (judged.predicted == answer))
            worst = examples[lead[examples].argmax()]
            cells = (
                short_label(self._subject, true),
                short_label(self._subject, answer),
                f"{count} of {totals[true]}",
                self._subject.pictures.names[int(judged.pictures[worst])],
            )
            found.append((-count, -lead[worst], cells))
        rows = [cells for *_, cells in sorted(found, key=operator.itemgetter(0, 1))][:_ROWS]
        return Table(
            ("true class", "answer", "pictures", "worst example"),
            tuple(rows),
            title="What is taken for what",
            note=_of_all(len(rows), len(wrong), "pairs"),
            numeric=("pictures",),
        )

    def accuracies(self) -> Table:
        """List how often each class is recognised, the worst first.

        Returns
        -------
        Table
        """
        rows = []
        for index in np.unique(self._judged.truth):
            own = self._judged.truth == index
            rank, loss = self._judged.rank[own], self._judged.loss[own].mean()
            right, near = np.mean(rank == 0), np.mean(rank < 5)
            line = {
                "class": short_label(self._subject, index),
                "pictures": str(len(rank)),
                "top-1": f"{100 * right:.0f} %",
                "top-5": f"{100 * near:.0f} %",
                "most often taken for": self._taken_for(index),
            }
            rows.append((right, near, -len(rank), -loss, line))
        lines = [line for *_, line in sorted(rows, key=operator.itemgetter(0, 1, 2, 3))]
        # Of five classes and fewer the first five are all.
        columns = [c for c in lines[0] if c != "top-5" or self._judged.classes > 5]
        return Table(
            tuple(columns),
            tuple(tuple(line[column] for column in columns) for line in lines[:_ROWS]),
            title="How often each class is recognised, the worst first",
            note=_of_all(min(_ROWS, len(lines)), len(lines), "classes"),
            numeric=tuple(columns[1:-1]),
        )

    def _taken_for(self, index: int) -> str:
        """Name the wrong answer that a class is given most often."""
        wrong = self.pairs[(self.pairs[:, 0] == index) & (self.pairs[:, 1] != index)]
        return short_label(self._subject, wrong[wrong[:, 2].argmax(), 1]) if len(wrong) else ""


def short_label(subject: Subject, index: int) -> str:
    """Give the first of several names of a class.

    Parameters
    ----------
    subject : Subject
        Who knows the names.
    index : int
        The class.

    Returns
    -------
    str
        "tabby" of "tabby, tabby cat".
    """
    return subject.label(int(index)).partition(",")[0]


def _of_all(shown: int, there: int, what: str) -> str:
    """Say that a table is not whole."""
    return f"{shown} of {there} {what}." if shown < there else ""
