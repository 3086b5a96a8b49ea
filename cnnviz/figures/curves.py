"""Curves on figures, with pictures along their axis."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from cnnviz.figures import tiles
from cnnviz.figures.canvas import EMPTY, INK, MUTED, Canvas, Scale
from cnnviz.figures.lines import LEADING, text_width, widest, wrapped
from cnnviz_core.exhibits import Curves, Tile

__all__ = ["CurvesBlock"]

# Colours that also people with a colour blindness tell apart (Okabe and Ito, 2008).
_COLOURS: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", INK)
# More lines than colours are told apart by dashes too: their lengths, in widths of the line.
_DASHES: Final = ("-", (0, (4, 1.5)), (0, (1.2, 1.2)))
# More lines than these have an order, such as that of layers, and take their colours from a map.
_MAPPED = "viridis"
_WIDTH, _HEIGHT = 860, 320
_PICTURE, _LEAST_PICTURE = 96, 36
_LEAD, _SAMPLE = 18, 18
"""From the axes to a line's name: a thin lead, and a piece of the line as it is drawn."""


@dataclass(frozen=True, eq=False)
class CurvesBlock:
    """Curves, laid out: names at their ends, pictures below the axis."""

    curves: Curves
    scale: Scale

    @property
    def _letters(self) -> float:
        """The size of the letters."""
        return self.scale.letters(12)

    @functools.cached_property
    def _names(self) -> list[str]:
        """The lines' names, none wider than a quarter of the figure."""
        most = min(self.scale.width, self.scale.px(_WIDTH)) / 4
        return [
            next(iter(wrapped(line.name, self._letters, most, 1)), "") for line in self.curves.lines
        ]

    @functools.cached_property
    def _wide(self) -> int:
        """How wide all of it is."""
        return min(self.scale.width, self.scale.px(_WIDTH))

    @functools.cached_property
    def _plot(self) -> tuple[int, int, int]:
        """Where the axes begin, how wide and how high they are."""
        left = self.scale.px(66)
        right = widest(tuple(self._names), self._letters) + self.scale.px(_LEAD + _SAMPLE + 8)
        tall = max(self.scale.px(_HEIGHT), round(1.3 * self._letters * len(self._names)))
        return left, self._wide - left - round(right), tall

    @functools.cached_property
    def _span(self) -> tuple[float, float]:
        """The ends of the lower axis."""
        curves = self.curves
        places = [*curves.x, *(x for x, _ in curves.pictures), *(x for x, _ in curves.marks)]
        finite = [float(x) for x in places if math.isfinite(x)] or [0.0, 1.0]
        low, high = min(finite), max(finite)
        air = 0.02 * (high - low) or 0.5
        return low - air, high + air

    def _across(self, x: float) -> float:
        """Give where a place of the axis is, in pixels from its beginning."""
        low, high = self._span
        return (x - low) / (high - low) * self._plot[1]

    @functools.cached_property
    def _pictures(self) -> list[tuple[float, Tile]]:
        """The pictures that find room side by side."""
        given = [(x, tile) for x, tile in self.curves.pictures if math.isfinite(x)]
        given.sort(key=lambda pair: pair[0])
        least, shown, end = self.scale.px(_LEAST_PICTURE), [], -math.inf
        for x, tile in given:
            if self._across(x) - end >= least:
                shown.append((x, tile))
                end = self._across(x)
        return shown

    @functools.cached_property
    def _side(self) -> int:
        """How large the pictures are, that none covers another."""
        places = [self._across(x) for x, _ in self._pictures]
        apart = min(np.diff(places), default=math.inf)
        return int(min(self.scale.px(_PICTURE), apart - self.scale.px(4)))

    @functools.cached_property
    def _captions(self) -> list[tuple[str, ...]]:
        """The captions of the pictures, in lines."""
        px = self.scale.letters(10)
        return [wrapped(tile.caption, px, self._side, 2) for _, tile in self._pictures]

    @functools.cached_property
    def _marks(self) -> list[tuple[float, str, int]]:
        """The marks, and on which level above the axes their words stand."""
        ends: list[float] = []
        placed = []
        for x, word in sorted(self.curves.marks, key=lambda mark: mark[0]):
            half = text_width(word, self.scale.letters(11)) / 2
            free = (k for k, end in enumerate(ends) if end < self._across(x) - half)
            level = next(free, len(ends))
            ends[level : level + 1] = [self._across(x) + half + self.scale.px(8)]
            placed.append((x, word, level))
        return placed

    @property
    def _above(self) -> int:
        """The room for the words of the marks."""
        levels = 1 + max((level for *_, level in self._marks), default=-1)
        return round(levels * LEADING * self.scale.letters(11)) + self.scale.px(8)

    @property
    def _strip(self) -> tuple[int, int]:
        """The room below the axes for numbers, and below these for pictures."""
        numbers = self.scale.px(24)
        if not self._pictures:
            return numbers, 0
        sizes = [tiles.fitted(tile, self._side) for _, tile in self._pictures]
        lines = max(map(len, self._captions))
        words = round(lines * LEADING * self.scale.letters(10)) + self.scale.px(4) * bool(lines)
        return numbers, max(h for _, h in sizes) + words + self.scale.px(8)

    @property
    def size(self) -> tuple[int, int]:
        """Its width and height, in pixels."""
        title = self.scale.px(24) if self.curves.x_title else 0
        return self._wide, self._above + self._plot[2] + sum(self._strip) + title

    def draw(self, canvas: Canvas, left: int, top: int) -> None:
        """Draw it with its upper left corner there."""
        begin, wide, tall = self._plot
        label = self.curves.title or "curves"
        axes = canvas.axes(left + begin, top + self._above, wide, tall, label=label)
        self._prepare(canvas, axes)
        looks = _looks(len(self.curves.lines))
        dots = "o" if len(self.curves.x) < 25 else ""
        for line, look in zip(self.curves.lines, looks, strict=True):
            colour = look["color"]
            axes.plot(self.curves.x, line.y, **look, marker=dots, ms=3.5, label=line.name)
            if line.spread is not None:
                edges = (line.y - line.spread, line.y + line.spread)
                axes.fill_between(self.curves.x, *edges, color=colour, alpha=0.16, lw=0)
        if self.curves.y_range is not None:
            low, high = self.curves.y_range
            # Lines along the ends are not cut in half.
            axes.set_ylim(low - 0.012 * (high - low), high + 0.012 * (high - low))
        field = canvas.field(left, top, *self.size, label="words")
        self._draw_names(canvas, axes, field, looks)
        self._draw_marks(canvas, axes, field)
        self._draw_pictures(canvas, field)
        if self.curves.x_title:
            place = (begin + wide / 2, self.size[1] - 1.3 * self._letters)
            canvas.write(field, place, [self.curves.x_title], self._letters, MUTED, "center")

    def _prepare(self, canvas: Canvas, axes: Any) -> None:
        """Draw the axes themselves."""
        points = self._letters * 72 / canvas.dpi
        axes.set_xlim(*self._span)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color=EMPTY, lw=1)
        axes.set_axisbelow(True)
        axes.tick_params(length=3, labelsize=0.92 * points)
        axes.set_ylabel(self.curves.y_title, fontsize=points, parse_math=False, labelpad=6)
        places = [x for x, _ in self._pictures] or list(self.curves.x)
        if len(places) * self.scale.px(38) <= self._plot[1]:
            axes.set_xticks(places, [f"{x:.4g}".replace("-", "−") for x in places])

    def _draw_names(
        self, canvas: Canvas, axes: Any, field: Any, looks: Sequence[Mapping[str, Any]]
    ) -> None:
        """Write each line's name beside its end, none over another."""
        begin, wide, tall = self._plot
        low, high = axes.get_ylim()
        wanted = []
        for k, line in enumerate(self.curves.lines):
            there = np.flatnonzero(np.isfinite(line.y))
            if there.size:
                x, y = float(self.curves.x[there[-1]]), float(line.y[there[-1]])
                level = (high - min(max(y, low), high)) / (high - low) * tall
                # Lines that end together have their names in the order of their means.
                wanted.append((round(level, 1), -float(line.y[there].mean()), k, self._across(x)))
        wanted.sort()
        levels = _apart([level for level, *_ in wanted], 1.25 * self._letters, tall)
        ends = [begin + wide + self.scale.px(space) for space in (4, _LEAD, _LEAD + _SAMPLE)]
        for (y, _, k, x), level in zip(wanted, levels, strict=True):
            beside = self._above + level
            lead = (self._above + y, self._above + y, beside)
            faint = {"color": looks[k]["color"], "lw": 0.8, "alpha": 0.5}
            field.plot((begin + x, *ends[:2]), lead, **faint)
            field.plot(ends[1:], (beside, beside), **looks[k])
            place = (ends[2] + self.scale.px(5), beside - 0.68 * self._letters)
            canvas.write(field, place, [self._names[k]], self._letters)

    def _draw_marks(self, canvas: Canvas, axes: Any, field: Any) -> None:
        """Draw upright lines, with their words above the axes."""
        px = self.scale.letters(11)
        for x, word, level in self._marks:
            axes.axvline(x, color=MUTED, lw=1, ls=(0, (4, 3)))
            place = (
                self._plot[0] + self._across(x),
                self._above - self.scale.px(6) - (level + 1) * LEADING * px,
            )
            canvas.write(field, place, [word], px, MUTED, "center")

    def _draw_pictures(self, canvas: Canvas, field: Any) -> None:
        """Draw the pictures below their places."""
        begin, _, tall = self._plot
        top = self._above + tall + self._strip[0] + self.scale.px(2)
        shown = [tile for _, tile in self._pictures]
        colours, _ = tiles.class_colours(shown)
        highest = max((tiles.fitted(tile, self._side)[1] for tile in shown), default=0)
        for (x, tile), lines in zip(self._pictures, self._captions, strict=True):
            size = tiles.fitted(tile, self._side)
            middle = round(begin + self._across(x))
            canvas.draw_tile(field, tile, (middle - size[0] // 2, top), size, colours)
            px = self.scale.letters(10)
            place = (middle, top + highest + self.scale.px(3))
            canvas.write(field, place, lines, px, MUTED, "center")


def _looks(n: int) -> list[dict[str, Any]]:
    """Say how each of n lines is drawn, in matplotlib's words."""
    if n <= len(_COLOURS) * len(_DASHES):
        looks = [(colour, dashes) for dashes in _DASHES for colour in _COLOURS][:n]
    else:
        import matplotlib
        from matplotlib.colors import to_hex

        shares = np.linspace(0.2, 0.88, n)
        looks = [(to_hex(matplotlib.colormaps[_MAPPED](share)), "-") for share in shares]
    return [{"color": colour, "ls": dashes, "lw": 1.8} for colour, dashes in looks]


def _apart(wanted: list[float], least: float, room: float) -> list[float]:
    """Move sorted levels as little as needed to be so far apart and inside the room."""
    levels: list[float] = []
    for level in wanted:
        levels.append(max(level, levels[-1] + least) if levels else level)
    end = room
    for k in reversed(range(len(levels))):
        levels[k] = min(levels[k], end)
        end = levels[k] - least
    return levels
