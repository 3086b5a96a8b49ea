"""Where rows go: to the screen, and to files that are whole after each of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.measuring import Row
from benchmarks.tables import as_json


@dataclass
class Report:
    """What was measured so far.

    Attributes
    ----------
    markdown, json : pathlib.Path or None
        The files, where any are asked for.
    """

    markdown: Path | None = None
    json: Path | None = None
    _said: list[str] = field(default_factory=list)
    _runs: list[tuple[Mapping[str, Any], list[Row]]] = field(default_factory=list)

    def begin(self, told: Mapping[str, Any]) -> None:
        """Begin with another framework.

        Parameters
        ----------
        told : mapping
            What `benchmarks.tables.about` says of it.
        """
        self._runs.append((told, []))

    def say(self, text: str) -> None:
        """Print a piece of Markdown.

        Parameters
        ----------
        text : str
        """
        print(text, flush=True)
        self._said.append(text)
        if self.markdown:
            self.markdown.write_text("\n".join(self._said) + "\n")

    def add(self, row: Row) -> None:
        """Take in a row.

        Parameters
        ----------
        row : Row
        """
        self._runs[-1][1].append(row)
        if self.json:
            self.json.write_text(as_json(self._runs))

    @property
    def rows(self) -> list[Row]:
        """All rows."""
        return [row for _, rows in self._runs for row in rows]

    @property
    def failed(self) -> bool:
        """Whether one of our own methods failed."""
        return any(row.ours.why for row in self.rows)
