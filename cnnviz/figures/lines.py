"""Text on figures: how wide it is as matplotlib sets it, and where its lines break."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from PIL import ImageFont

__all__ = ["LEADING", "text_width", "widest", "wrapped"]

LEADING: Final = 1.35
"""The distance between lines of text, in heights of its letters."""

# Letters are measured large, so that no rounding to pixels is in the measure.
_MEASURED = 200


@functools.lru_cache(maxsize=2)
def _font(bold: bool) -> ImageFont.FreeTypeFont:
    """Give the font in which matplotlib writes by default."""
    import matplotlib
    from PIL import ImageFont

    name = "DejaVuSans-Bold" if bold else "DejaVuSans"
    return ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/{name}.ttf", _MEASURED)


def text_width(text: str, px: float, *, bold: bool = False) -> float:
    """Measure a text.

    Parameters
    ----------
    text : str
        One line.
    px : float
        The size of its letters.
    bold : bool
        Whether they are bold.

    Returns
    -------
    float
        In the unit of `px`.
    """
    return float(_font(bold).getlength(text)) * px / _MEASURED


def widest(lines: tuple[str, ...], px: float, *, bold: bool = False) -> float:
    """Give the width of the widest line, 0 of none."""
    return max((text_width(line, px, bold=bold) for line in lines), default=0.0)


def wrapped(text: str, px: float, width: float, most: int) -> tuple[str, ...]:
    """Break a text into lines.

    Parameters
    ----------
    text : str
        With line breaks where there must be some.
    px : float
        The size of its letters.
    width : float
        Of a line, in the unit of `px`.
    most : int
        How many lines there may be; what does not fit ends in an ellipsis.

    Returns
    -------
    tuple of str
        Words longer than a line are broken, after a hyphen or the like where there is one.
    """
    lines: list[str] = []
    for paragraph in filter(None, text.split("\n")):
        line = ""
        for word in paragraph.split():
            longer = f"{line} {word}" if line else word
            if line and text_width(longer, px) > width:
                lines.append(line)
                longer = word
            while len(lines) < most and len(head := _head(longer, px, width)) < len(longer):
                lines.append(head)
                longer = longer[len(head) :]
            line = longer
        lines.append(line)
    if len(lines) > most:
        rest = _fitting(" ".join(lines[most - 1 :]), px, width - text_width("…", px))
        lines = [*lines[: most - 1], f"{rest.rstrip()}…"]
    return tuple(lines)


def _head(word: str, px: float, width: float) -> str:
    """Give as much of a word as fits into a line, up to a sign that joins its parts if it can."""
    fitting = _fitting(word, px, width)
    if fitting == word:
        return word
    joint = 1 + max(fitting.rfind(sign) for sign in "_-/.,")
    return fitting[:joint] if joint >= len(fitting) // 2 else fitting


def _fitting(line: str, px: float, width: float) -> str:
    """Give as many of the first letters as fit, at least one."""
    if text_width(line, px) <= width:
        return line
    low, high = 1, len(line)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if text_width(line[:middle], px) <= width else (low, middle)
    return line[:low]
