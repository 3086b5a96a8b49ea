"""Records that print as a table, on a terminal and in a notebook."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import Generic, TypeVar

__all__ = ["Table"]

Row = TypeVar("Row")


class Table(tuple[Row, ...], Generic[Row]):
    """A tuple of records that prints as a table.

    Parameters
    ----------
    records : iterable
        The records.
    columns : sequence of str
        The columns' titles.
    cells : sequence of sequence of str
        What is printed, a row for each record.
    """

    columns: tuple[str, ...]
    cells: tuple[tuple[str, ...], ...]

    def __new__(
        cls, records: Iterable[Row], columns: Sequence[str], cells: Iterable[Sequence[str]]
    ) -> Table[Row]:
        """Make the tuple, and keep what is printed."""
        table = super().__new__(cls, records)
        table.columns = tuple(columns)
        table.cells = tuple(tuple(row) for row in cells)
        return table

    def __repr__(self) -> str:
        rows = [self.columns, *self.cells]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """Show the table in a notebook."""

        def row(cells: Sequence[str], tag: str) -> str:
            return "<tr>" + "".join(f"<{tag}>{html.escape(c)}</{tag}>" for c in cells) + "</tr>"

        body = "".join(row(cells, "td") for cells in self.cells)
        return f"<table><thead>{row(self.columns, 'th')}</thead><tbody>{body}</tbody></table>"
