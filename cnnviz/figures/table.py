"""Tables on figures."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from cnnviz.figures.canvas import INK, MUTED, RULE, Canvas, Scale
from cnnviz.figures.lines import LEADING, widest, wrapped
from cnnviz_core.exhibits import Table

__all__ = ["TableBlock"]

_CELL_LINES, _NOTE_LINES = 4, 6


@dataclass(frozen=True, eq=False)
class TableBlock:
    """A table, laid out: columns as wide as what stands in them, numbers flush right."""

    table: Table
    scale: Scale

    @property
    def _letters(self) -> float:
        """The size of the letters."""
        return self.scale.letters(12.5)

    @functools.cached_property
    def _cells(self) -> list[list[tuple[str, ...]]]:
        """The cells in lines, the heads first."""
        columns = len(self.table.columns)
        most = max(self.scale.px(60), (self.scale.width / max(1, columns)) * 1.6)
        return [
            [wrapped(text, self._letters, most, _CELL_LINES) for text in row]
            for row in (self.table.columns, *self.table.rows)
        ]

    @functools.cached_property
    def _widths(self) -> list[int]:
        """The columns' widths."""
        columns = range(len(self.table.columns))
        return [
            round(
                max(widest(row[j], self._letters, bold=i == 0) for i, row in enumerate(self._cells))
            )
            for j in columns
        ]

    @functools.cached_property
    def _heights(self) -> list[int]:
        """The rows' heights, with the room to the next one."""
        line = LEADING * self._letters
        return [
            round(max((len(cell) for cell in row), default=1) * line + 0.7 * self._letters)
            for row in self._cells
        ]

    @property
    def _note(self) -> tuple[str, ...]:
        """The note, in lines."""
        return wrapped(
            self.table.note, self.scale.letters(12), self.scale.noted(self._wide), _NOTE_LINES
        )

    @property
    def size(self) -> tuple[int, int]:
        """Its width and height, in pixels."""
        px = self.scale.letters(12)
        note = round(len(self._note) * LEADING * px) + self.scale.px(8) if self._note else 0
        return max(self._wide, round(widest(self._note, px))), sum(self._heights) + note

    @property
    def _wide(self) -> int:
        """How wide the columns are with the gaps between them."""
        return sum(self._widths) + self.scale.px(28) * max(0, len(self._widths) - 1)

    def draw(self, canvas: Canvas, left: int, top: int) -> None:
        """Draw it with its upper left corner there."""
        field = canvas.field(left, top, *self.size, label=self.table.title or "table")
        gap, px = self.scale.px(28), self._letters
        y = 0
        for i, (row, tall) in enumerate(zip(self._cells, self._heights, strict=True)):
            x = 0
            heads = zip(self.table.columns, self._widths, row, strict=True)
            for column, width, lines in heads:
                flush = column in self.table.numeric
                place = (x + width * flush, y + 0.3 * px)
                colour = MUTED if i == 0 else INK
                side = "right" if flush else "left"
                canvas.write(field, place, lines, px, colour, side, bold=i == 0)
                x += width + gap
            y += tall
            field.plot(
                (0, self._wide), (y, y), color=MUTED if i == 0 else RULE, lw=1 if i == 0 else 0.6
            )
        px = self.scale.letters(12)
        place = (0, self.size[1] - len(self._note) * LEADING * px)
        canvas.write(field, place, self._note, px, MUTED)
