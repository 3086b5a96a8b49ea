"""Galleries on figures: pictures in rows, with titles, captions and a legend."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

from cnnviz.figures import tiles
from cnnviz.figures.canvas import INK, MUTED, Canvas, Scale
from cnnviz.figures.lines import LEADING, text_width, widest, wrapped
from cnnviz.wording import gallery_note
from cnnviz_core.exhibits import Gallery, Tile

__all__ = ["GalleryBlock", "LegendBlock"]

_CAPTION_LINES, _TITLE_LINES, _ROW_LINES, _NOTE_LINES = 3, 2, 4, 6
# Words need so much room, whatever the pictures' size.
_NARROWEST = 64
_LEAST_SIDE = 12


@dataclass(frozen=True, eq=False)
class LegendBlock:
    """What the colours of classes mean."""

    entries: tuple[tuple[str, str], ...]
    scale: Scale

    @property
    def letters(self) -> float:
        """The size of its letters."""
        return self.scale.letters(12)

    @functools.cached_property
    def _places(self) -> tuple[list[tuple[float, float]], int, int]:
        """Where each entry stands, how wide all of it is, and how many lines it has."""
        chip, gap = self.scale.px(18), self.scale.px(18)
        x, line, width, places = 0.0, 0, 0.0, []
        for name, _ in self.entries:
            wide = chip + text_width(self._short(name), self.letters)
            if x and x + wide > self.scale.width:
                x, line = 0.0, line + 1
            places.append((x, line * self.letters * 1.6))
            x += wide + gap
            width = max(width, x - gap)
        return places, round(width), line + 1

    @property
    def size(self) -> tuple[int, int]:
        """Its width and height, in pixels."""
        _, width, lines = self._places
        return width, round(lines * self.letters * 1.6) if self.entries else 0

    def _short(self, name: str) -> str:
        """Give a name that fits into a line."""
        return next(iter(wrapped(name, self.letters, self.scale.width * 0.8, 1)), "")

    def draw(self, canvas: Canvas, left: int, top: int) -> None:
        """Draw it with its upper left corner there."""
        from matplotlib.patches import Rectangle

        if not self.entries:
            return
        field = canvas.field(left, top, *self.size, label="legend")
        chip = self.letters * 0.95
        for (name, colour), (x, y) in zip(self.entries, self._places[0], strict=True):
            field.add_patch(Rectangle((x, y + self.letters * 0.2), chip, chip, color=colour, lw=0))
            place = (x + self.scale.px(18), y)
            canvas.write(field, place, [self._short(name)], self.letters, MUTED)


@dataclass(frozen=True, eq=False)
class GalleryBlock:
    """A gallery, laid out."""

    gallery: Gallery
    scale: Scale

    @functools.cached_property
    def _grid(self) -> list[list[Tile | None]]:
        """The rows, all as long as the longest."""
        columns = max((len(row) for row in self.gallery.rows), default=0)
        return [[*row, *[None] * (columns - len(row))] for row in self.gallery.rows]

    @functools.cached_property
    def _tiles(self) -> list[Tile]:
        """All tiles."""
        return [tile for row in self._grid for tile in row if tile is not None]

    @functools.cached_property
    def _side(self) -> int:
        """How long the longer side of a tile is: what is asked for, or what there is room for."""
        columns = len(self._grid[0]) if self._grid else 1
        room = (self.scale.width - self._left - self._gap * (columns - 1)) // max(1, columns)
        return max(self.scale.px(_LEAST_SIDE), min(self.scale.px(self.gallery.side), room))

    @functools.cached_property
    def _gap(self) -> int:
        """How far tiles are apart: less where there is nothing to read between them."""
        worded = any(tile.caption for tile in self._tiles) or self.gallery.column_titles
        least = 6 if worded else 3
        return self.scale.px(max(least, round(self.gallery.side / 22)))

    @property
    def _letters(self) -> float:
        """The size of captions, which follows that of the pictures."""
        side = self._side * 100 / self.scale.dpi
        return self.scale.letters(min(14, max(10, round(side / 15))))

    @property
    def _head_letters(self) -> float:
        """The size of titles of rows and columns."""
        return self.scale.letters(min(15, max(11, round(self.gallery.side / 14))))

    @functools.cached_property
    def _row_titles(self) -> list[tuple[str, ...]]:
        """The titles of the rows, in lines."""
        width = self.scale.px(max(110, 0.7 * self.gallery.side))
        px = self._head_letters
        return [wrapped(title, px, width, _ROW_LINES) for title in self.gallery.row_titles]

    @functools.cached_property
    def _left(self) -> int:
        """The room for the titles of the rows."""
        wide = max((widest(lines, self._head_letters) for lines in self._row_titles), default=0)
        return round(wide) + self.scale.px(12) if wide else 0

    @functools.cached_property
    def _sizes(self) -> list[list[tuple[int, int]]]:
        """The width and height of each tile; (0, 0) of none."""
        return [
            [(0, 0) if tile is None else tiles.fitted(tile, self._side) for tile in row]
            for row in self._grid
        ]

    @functools.cached_property
    def _widths(self) -> list[int]:
        """The columns' widths."""
        columns = range(len(self._grid[0]) if self._grid else 0)
        worded = any(tile.caption for tile in self._tiles)
        least = min(self._side, self.scale.px(_NARROWEST)) if worded else 0
        found = [max(row[j][0] for row in self._sizes) for j in columns]
        return [max(width or self._side, least) for width in found]

    @functools.cached_property
    def _heads(self) -> list[tuple[str, ...]]:
        """The titles of the columns, in lines."""
        titles = zip(self.gallery.column_titles, self._widths, strict=False)
        return [wrapped(title, self._head_letters, w, _TITLE_LINES) for title, w in titles]

    @functools.cached_property
    def _captions(self) -> list[list[tuple[str, ...]]]:
        """The captions, in lines."""
        return [
            [
                wrapped(tile.caption, self._letters, width, _CAPTION_LINES) if tile else ()
                for tile, width in zip(row, self._widths, strict=True)
            ]
            for row in self._grid
        ]

    @functools.cached_property
    def _colours(self) -> tuple[dict[str, str], tuple[str, ...]]:
        """The colours of the classes, and which of these share one."""
        return tiles.class_colours(self._tiles)

    @functools.cached_property
    def _legend(self) -> LegendBlock:
        """What the colours of classes mean."""
        colours, others = self._colours
        entries = [(name, colour) for name, colour in colours.items() if name not in others]
        if others:
            entries.append((f"{len(others)} others", tiles.OTHER))
        return LegendBlock(tuple(entries), self.scale)

    @functools.cached_property
    def _note(self) -> tuple[str, ...]:
        """The note, in lines."""
        px = self.scale.letters(12)
        return wrapped(gallery_note(self.gallery), px, self.scale.noted(self._wide), _NOTE_LINES)

    @property
    def _wide(self) -> int:
        """How wide the grid is."""
        return self._left + sum(self._widths) + self._gap * max(0, len(self._widths) - 1)

    @property
    def _head(self) -> int:
        """The room for the titles of the columns."""
        lines = max(map(len, self._heads), default=0)
        return round(lines * LEADING * self._head_letters + self._head_letters * 0.4) * bool(lines)

    def _row_heights(self) -> list[tuple[int, int]]:
        """Give for each row the height of its pictures, and of all that belongs to it."""
        heights = []
        for sizes, captions in zip(self._sizes, self._captions, strict=True):
            picture = max((h for _, h in sizes), default=0) or self._side // 2
            lines = max(map(len, captions), default=0)
            words = round(lines * LEADING * self._letters + 0.3 * self._letters) * bool(lines)
            heights.append((picture, picture + words + self._gap))
        return heights

    @property
    def size(self) -> tuple[int, int]:
        """Its width and height, in pixels."""
        grid = self._head + sum(whole for _, whole in self._row_heights()) - self._gap
        width, legend = self._legend.size
        legend += self.scale.px(10) if legend else 0
        px = self.scale.letters(12)
        note = round(len(self._note) * LEADING * px) + self.scale.px(8) if self._note else 0
        words = round(widest(self._note, px))
        return max(self._wide, width, words), max(0, grid) + legend + note

    def draw(self, canvas: Canvas, left: int, top: int) -> None:
        """Draw it with its upper left corner there."""
        field = canvas.field(left, top, *self.size, label=self.gallery.title or "gallery")
        self._draw_heads(canvas, field)
        y = self._head
        for i, (picture, whole) in enumerate(self._row_heights()):
            if self._row_titles:
                lines, px = self._row_titles[i], self._head_letters
                place = (
                    self._left - self.scale.px(12),
                    y + (picture - len(lines) * LEADING * px) / 2,
                )
                canvas.write(field, place, lines, px, INK, "right")
            self._draw_row(canvas, field, i, y, picture)
            y += whole
        y += self.scale.px(10) - self._gap
        self._legend.draw(canvas, left, top + y)
        px = self.scale.letters(12)
        place = (0, self.size[1] - len(self._note) * LEADING * px)
        canvas.write(field, place, self._note, px, MUTED)

    def _draw_heads(self, canvas: Canvas, field: Any) -> None:
        """Write the titles of the columns, their last lines on one level."""
        px, x = self._head_letters, float(self._left)
        for lines, width in zip(self._heads, self._widths, strict=False):
            y = self._head - px * (0.4 + len(lines) * LEADING)
            canvas.write(field, (x + width / 2, y), lines, px, INK, "center")
            x += width + self._gap

    def _draw_row(self, canvas: Canvas, field: Any, i: int, y: int, tall: int) -> None:
        """Draw the tiles of a row, each in the middle of its place."""
        x = self._left
        for j, tile in enumerate(self._grid[i]):
            if tile is not None:
                size = self._sizes[i][j]
                corner = (x + (self._widths[j] - size[0]) // 2, y + (tall - size[1]) // 2)
                canvas.draw_tile(field, tile, corner, size, self._colours[0])
                place = (x + self._widths[j] / 2, y + tall + 0.3 * self._letters)
                canvas.write(field, place, self._captions[i][j], self._letters, MUTED, "center")
            x += self._widths[j] + self._gap
