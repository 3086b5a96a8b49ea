"""Matrices on figures: coloured fields with their numbers."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np

from cnnviz.figures.canvas import EMPTY, INK, MUTED, PAPER, Canvas, Scale
from cnnviz.figures.lines import LEADING, text_width, widest, wrapped
from cnnviz_core.exhibits import Matrix
from cnnviz_core.model import Array

__all__ = ["Field", "MatrixBlock", "fields_of"]

_HOT: Final = ("#faf7f5", "#fbe3d3", "#f4b58c", "#dd7d45", "#b3501d", "#7a2f0b", "#451703")
_COLD: Final = ("#081f45", "#08306b", "#2171b5", "#4f9bcb", "#92c4e2", "#dbe9f5")
_FAINT = "#a9b1ba"
_NUMBERED = 24


class Field(NamedTuple):
    """How a field of a matrix looks.

    Attributes
    ----------
    text : str
        Its number; empty where there is none.
    ground, ink : str
        Its colour and that of its number, as in CSS.
    """

    text: str
    ground: str
    ink: str


@dataclass(frozen=True, eq=False)
class MatrixBlock:
    """A matrix, laid out: coloured fields with their numbers."""

    matrix: Matrix
    scale: Scale

    @property
    def _letters(self) -> float:
        """The size of the labels."""
        return self.scale.letters(12 if max(self.matrix.values.shape) <= 16 else 10.5)

    @functools.cached_property
    def _labels(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The labels of the rows and of the columns, each in a line."""
        most = self.scale.px(190)
        rows, columns = (
            tuple(next(iter(wrapped(label, self._letters, most, 1)), "") for label in labels)
            for labels in (self.matrix.row_labels, self.matrix.column_labels)
        )
        return rows, columns

    @functools.cached_property
    def _fields(self) -> list[list[Field]]:
        """What is written in the fields."""
        return fields_of(self.matrix.values)

    @functools.cached_property
    def _field(self) -> int:
        """How long the side of a field is."""
        rows, columns = self.matrix.values.shape
        n = max(rows, columns, 1)
        side = self.scale.px(max(20, min(64, 720 / n)))
        if n <= _NUMBERED:
            longest = max((each.text for row in self._fields for each in row), key=len, default="")
            side = max(side, round(text_width(longest, self._letters) + self.scale.px(10)))
        return max(4, min(side, (self.scale.width - self._left) // max(1, columns)))

    @property
    def _left(self) -> int:
        """The room for the labels of the rows."""
        title = self.scale.px(24) if self.matrix.row_title else 0
        rows, columns = (widest(labels, self._letters) for labels in self._labels)
        # A slanted label of the first column must not begin outside.
        return max(title + round(rows) + self.scale.px(12), round(0.71 * columns))

    @property
    def _wide(self) -> int:
        """How wide the fields are with their labels."""
        return self._left + self.matrix.values.shape[1] * self._field

    @property
    def _slanted(self) -> bool:
        """Whether the labels of the columns are too wide to stand level."""
        return widest(self._labels[1], self._letters) > self._field - self.scale.px(4)

    @property
    def _below(self) -> int:
        """The room for the labels of the columns."""
        wide = widest(self._labels[1], self._letters)
        tall = 0.707 * (wide + self._letters) if self._slanted else LEADING * self._letters
        title = self.scale.px(24) if self.matrix.column_title else 0
        return round(tall) + self.scale.px(10) + title

    @functools.cached_property
    def _note(self) -> tuple[str, ...]:
        """The note, in lines."""
        return wrapped(self.matrix.note, self.scale.letters(12), self.scale.noted(self._wide), 6)

    @property
    def size(self) -> tuple[int, int]:
        """Its width and height, in pixels."""
        px = self.scale.letters(12)
        note = round(len(self._note) * LEADING * px) + self.scale.px(8) if self._note else 0
        fields = len(self.matrix.values) * self._field
        return max(self._wide, round(widest(self._note, px))), fields + self._below + note

    def draw(self, canvas: Canvas, left: int, top: int) -> None:
        """Draw it with its upper left corner there."""
        rows, columns = self.matrix.values.shape
        wide, tall = columns * self._field, rows * self._field
        axes = canvas.axes(left + self._left, top, wide, tall, label=self.matrix.title or "matrix")
        values, colours, ends = _coloured(self.matrix.values)
        axes.imshow(values, cmap=colours, vmin=ends[0], vmax=ends[1], aspect="auto")
        axes.set_axis_off()
        for k in range(1, rows):
            axes.axhline(k - 0.5, color=PAPER, lw=1)
        for k in range(1, columns):
            axes.axvline(k - 0.5, color=PAPER, lw=1)
        field = canvas.field(left, top, *self.size, label="words")
        if max(rows, columns) <= _NUMBERED:
            self._draw_numbers(canvas, field)
        self._draw_labels(canvas, field)
        px = self.scale.letters(12)
        place = (0, self.size[1] - len(self._note) * LEADING * px)
        canvas.write(field, place, self._note, px, MUTED)

    def _draw_numbers(self, canvas: Canvas, field: Any) -> None:
        """Write the numbers in the middle of their fields."""
        px = self._letters
        for i, row in enumerate(self._fields):
            for j, (text, _, ink) in enumerate(row):
                x, y = self._left + (j + 0.5) * self._field, (i + 0.5) * self._field
                canvas.write(field, (x, y - 0.68 * px), [text], px, ink, "center")

    def _draw_labels(self, canvas: Canvas, field: Any) -> None:
        """Write the labels and titles of rows and columns."""
        px, (rows, columns) = self._letters, self._labels
        for i, label in enumerate(rows):
            y = (i + 0.5) * self._field - 0.68 * px
            canvas.write(field, (self._left - self.scale.px(8), y), [label], px, INK, "right")
        bottom = len(rows) * self._field
        for j, label in enumerate(columns):
            x = self._left + (j + 0.5) * self._field
            if self._slanted:
                canvas.write_slanted(field, (x, bottom + self.scale.px(6)), label, px)
            else:
                canvas.write(field, (x, bottom + self.scale.px(5)), [label], px, INK, "center")
        if self.matrix.column_title:
            x, y = self._left + len(columns) * self._field / 2, self._below - self.scale.px(20)
            title = [self.matrix.column_title]
            canvas.write(field, (x, bottom + y), title, px, MUTED, "center", bold=True)
        if self.matrix.row_title:
            canvas.write_upright(field, (self.scale.px(8), bottom / 2), self.matrix.row_title, px)


def fields_of(values: Array) -> list[list[Field]]:
    """Say how the fields of a matrix look.

    Parameters
    ----------
    values : ndarray (R, C)
        NaN leaves a field empty.

    Returns
    -------
    list of lists of Field
        One for each value: dark letters on light ground and light ones on dark.
    """
    from matplotlib.colors import to_hex

    shown, colours, (low, high) = _coloured(values)
    grounds = colours((shown - low) / (high - low))
    form = _form(values)
    fields: list[list[Field]] = [[] for _ in values]
    for (i, _), value in np.ndenumerate(values):
        ground = grounds[i, len(fields[i])]
        light = float(ground[:3] @ (0.299, 0.587, 0.114)) > 0.55
        ink = _FAINT if value == 0 else INK if light else PAPER
        text = form.format(float(value)).replace("-", "−") if np.isfinite(value) else ""
        fields[i].append(Field(text, to_hex(ground), ink))
    return fields


def _form(values: Array) -> str:
    """Give the form of numbers that says all of them in few letters."""
    finite = values[np.isfinite(values)]
    if values.dtype.kind in "biu" or (finite == np.rint(finite)).all():
        return "{:.0f}"
    return "{:.2f}" if np.all(np.abs(finite) < 10) else "{:.3g}"


def _coloured(values: Array) -> tuple[Array, Any, tuple[float, float]]:
    """Give what is drawn, in which colours, and of which numbers their ends are."""
    from matplotlib.colors import LinearSegmentedColormap

    shown = np.ma.masked_invalid(np.asarray(values, dtype=np.float64))
    most = float(np.abs(shown).max()) if shown.count() else 0.0
    most = most or 1.0
    below = bool(shown.count()) and float(shown.min()) < 0
    # The lightest is nought: there are as many colours below it as above.
    colours = LinearSegmentedColormap.from_list("values", (*_COLD, *_HOT) if below else _HOT)
    return shown, colours.with_extremes(bad=EMPTY), (-most if below else 0.0, most)
