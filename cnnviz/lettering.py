"""Text on pictures: fonts, widths, lines."""

from __future__ import annotations

import functools
import string
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import ImageDraw, ImageFont

__all__ = ["font_for", "leading", "text_width", "wrapped", "write"]

# What Pillow's own font can draw.
_PLAIN = frozenset(string.printable + "…°·“”‘’")


def font_for(text: str, px: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Give a font that can draw a text: Pillow's own, or matplotlib's for what it lacks."""
    return _plain_font(px) if set(text) <= _PLAIN else _wide_font(px)


@functools.lru_cache(maxsize=32)
def _plain_font(px: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Give Pillow's own font."""
    from PIL import ImageFont

    return ImageFont.load_default(px)


@functools.lru_cache(maxsize=32)
def _wide_font(px: int) -> ImageFont.FreeTypeFont:
    """Give a font with the letters of most alphabets, as large to the eye."""
    import matplotlib
    from PIL import ImageFont

    return ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf", px * 0.92)


def leading(px: int) -> int:
    """Give the distance between lines of text."""
    return round(px * 1.35)


def text_width(text: str, px: int) -> int:
    """Measure a text, in pixels."""
    return round(font_for(text, px).getlength(text))


def wrapped(text: str, px: int, width: int, most: int) -> list[str]:
    """Break a text into at most so many lines of a width; what does not fit ends in an ellipsis."""
    lines: list[str] = []
    for paragraph in filter(None, text.split("\n")):
        line = ""
        for word in paragraph.split():
            longer = f"{line} {word}".strip()
            if line and text_width(longer, px) > width:
                lines.append(line)
                longer = word
            line = longer
        lines.append(line)
    if len(lines) > most:
        lines = [*lines[: most - 1], " ".join(lines[most - 1 :])]
    return [_fitted(line, px, width) for line in lines]


def _fitted(line: str, px: int, width: int) -> str:
    """Cut a line to a width."""
    if text_width(line, px) <= width:
        return line
    while line and text_width(f"{line}…", px) > width:
        line = line[:-1]
    return f"{line.rstrip()}…"


def write(
    pen: ImageDraw.ImageDraw,
    place: tuple[float, float],
    lines: Sequence[str],
    px: int,
    ink: str,
    anchor: str = "la",
) -> None:
    """Write lines of text, one below the other."""
    x, y = place
    for i, line in enumerate(lines):
        pen.text((x, y + i * leading(px)), line, fill=ink, font=font_for(line, px), anchor=anchor)
