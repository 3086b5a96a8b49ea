"""Boxes as annotators leave them: which can be used, and which are cut or left out."""

from __future__ import annotations

import math
from typing import Any, Final, TypeAlias

from cnnviz.datasets.items import Kind

__all__ = ["Box", "checked_box", "number"]

Box: TypeAlias = tuple[float, float, float, float]
"""(x0, y0, x1, y1), half-open."""

_SLACK: Final = 0.02
"""Pixels by which a box may leave its picture unnoticed: formats round to hundredths."""


def checked_box(box: Box, size: tuple[int, int]) -> tuple[Box | None, tuple[Kind, str] | None]:
    """Check a box.

    Parameters
    ----------
    box : tuple of float
        (x0, y0, x1, y1) in pixels of the picture, half-open.
    size : tuple of int
        (height, width) of the picture.

    Returns
    -------
    box : tuple of float, or None
        What of it lies in the picture; None if it is of no use.
    fault : (str, str), or None
        What is wrong with it: the kind of problem, and words.

    Examples
    --------
    >>> checked_box((-1.0, 0.0, 3.0, 2.0), (4, 6))[0]
    (0.0, 0.0, 3.0, 2.0)
    """
    x0, y0, x1, y1 = box
    height, width = size
    text = f"the box ({x0:g}, {y0:g}, {x1:g}, {y1:g})"
    picture = f"the picture of {width} x {height}"
    if not all(map(math.isfinite, box)):
        return None, ("box not finite", f"{text} is not finite; it is left out")
    if x1 < x0 or y1 < y0:
        return None, ("box wrong way round", f"{text} ends before it begins; it is left out")
    if x1 == x0 or y1 == y0:
        return None, ("box without area", f"{text} has no area; it is left out")
    if x1 <= 0 or y1 <= 0 or x0 >= width or y0 >= height:
        return None, ("box outside", f"{text} lies outside {picture}; it is left out")
    inside = (max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height)))
    if max(abs(was - now) for was, now in zip(box, inside, strict=True)) <= _SLACK:
        return inside, None
    return inside, ("box partly outside", f"{text} leaves {picture}; it is cut at the edge")


def number(text: Any) -> float:
    """Read a coordinate; NaN and infinity are for `checked_box` to find.

    Parameters
    ----------
    text : object
        A number, or a text of one.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If it is neither.
    """
    if isinstance(text, bool) or not isinstance(text, (str, int, float)):
        raise ValueError(f"{text!r} is no number")
    return float(text)
