"""What an inspector shows, as data: pictures in rows, curves, tables.

An inspector says what is to be seen; how it is drawn, on a page, in a notebook or in a file, is the
front door's business.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from cnnviz_core.errors import ArrayError
from cnnviz_core.model import Array

__all__ = ["Curves", "Exhibit", "Gallery", "Line", "Matrix", "Table", "Tile", "mosaic"]


def _locked(array: Array | None) -> Array | None:
    """Give a copy of an array that cannot be written to."""
    if array is None:
        return None
    copy = np.array(array)
    copy.flags.writeable = False
    return copy


@dataclass(frozen=True, eq=False)
class Tile:
    """One picture, with what lies over it.

    At least one of `pixels`, `heat` and `classes` is given.  Heat and classes may have any size;
    they are stretched over the pixels where there are any.

    Attributes
    ----------
    pixels : ndarray (H, W, 3) of uint8, optional
        A picture.
    heat : ndarray (h, w), optional
        In [0, 1], or in [-1, 1] if `signed`; drawn in colours over the pixels, or alone.
    signed, fine : bool
        Whether heat has a sign; whether it is made of single pixels.
    classes : ndarray (h, w) of int, optional
        Entries of `legend`; drawn in one colour each; negative where there is none.
    legend : tuple of str
        What the classes are called.
    boxes : tuple of (x0, y0, x1, y1)
        Half-open, in pixels of the picture; drawn as frames.
    caption : str
        Below it.
    """

    pixels: Array | None = None
    heat: Array | None = None
    signed: bool = False
    fine: bool = False
    classes: Array | None = None
    legend: tuple[str, ...] = ()
    boxes: tuple[tuple[float, float, float, float], ...] = ()
    caption: str = ""

    def __post_init__(self) -> None:
        for name in ("pixels", "heat", "classes"):
            object.__setattr__(self, name, _locked(getattr(self, name)))
        object.__setattr__(self, "legend", tuple(self.legend))
        object.__setattr__(self, "boxes", tuple(tuple(map(float, box)) for box in self.boxes))
        if self.pixels is self.heat is self.classes is None:
            raise ArrayError("a tile shows nothing", "pixels, heat or classes", "give one of them")
        if self.pixels is not None and (
            self.pixels.dtype != np.uint8 or self.pixels.shape[2:] != (3,)
        ):
            raise ArrayError(
                f"a tile's pixels are {self.pixels.dtype} of the shape {self.pixels.shape}",
                "uint8 (H, W, 3)",
                "make them with cnnviz_core.pixels.as_pixels",
            )
        if self.classes is not None and self.classes.size:
            highest = int(self.classes.max())
            if highest >= len(self.legend):
                raise ArrayError(
                    f"a tile shows class {highest}, and its legend has {len(self.legend)} entries",
                    "an entry for each class, counted from 0",
                    "complete the legend",
                )


@dataclass(frozen=True, eq=False)
class Gallery:
    """Pictures in rows.

    Attributes
    ----------
    rows : tuple of tuples of (Tile or None)
        None leaves a place empty.
    title : str
        Above it.
    column_titles, row_titles : tuple of str
        One for each column or row, or none.
    note : str
        A line below it.
    side : int
        About how many pixels the longer side of a tile takes.
    """

    rows: tuple[tuple[Tile | None, ...], ...]
    title: str = ""
    column_titles: tuple[str, ...] = ()
    row_titles: tuple[str, ...] = ()
    note: str = ""
    side: int = 192

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows", tuple(map(tuple, self.rows)))
        for name in ("column_titles", "row_titles"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        columns = max(map(len, self.rows), default=0)
        for titles, places, what in (
            (self.row_titles, len(self.rows), "rows"),
            (self.column_titles, columns, "columns"),
        ):
            if len(titles) not in (0, places):
                raise ArrayError(
                    f"a gallery of {places} {what} has {len(titles)} titles for them",
                    f"one for each of the {what}, or none",
                    "put an empty text where there is nothing to say",
                )


@dataclass(frozen=True, eq=False)
class Line:
    """One curve.

    Attributes
    ----------
    name : str
        For the legend.
    y : ndarray (K,)
        NaN leaves a gap.
    spread : ndarray (K,), optional
        Half the height of the band around it, such as a standard deviation.
    """

    name: str
    y: Array
    spread: Array | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "y", _locked(np.asarray(self.y)))
        object.__setattr__(self, "spread", _locked(self.spread))


@dataclass(frozen=True, eq=False)
class Curves:
    """Curves over a common axis, with pictures along it.

    Attributes
    ----------
    x : ndarray (K,)
        Where the curves have values.
    lines : tuple of Line
    title, x_title, y_title : str
        With units where there are any.
    y_range : tuple of float, optional
        The ends of the upright axis.
    pictures : tuple of (float, Tile)
        What the pictures look like at places of the axis.
    marks : tuple of (float, str)
        Upright lines with a word each.
    """

    x: Array
    lines: tuple[Line, ...]
    title: str = ""
    x_title: str = ""
    y_title: str = ""
    y_range: tuple[float, float] | None = None
    pictures: tuple[tuple[float, Tile], ...] = ()
    marks: tuple[tuple[float, str], ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "x", _locked(np.asarray(self.x)))
        for name in ("lines", "pictures", "marks"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        wrong = [line.name for line in self.lines if line.y.shape != self.x.shape]
        if wrong:
            raise ArrayError(
                f"the curve {wrong[0]!r} has another number of values than the axis, {len(self.x)}",
                "one value for each place of the axis",
                "put NaN where there is none",
            )


@dataclass(frozen=True, eq=False)
class Table:
    """A table.

    Attributes
    ----------
    columns : tuple of str
    rows : tuple of tuples of str
    title, note : str
        Above and below it.
    numeric : tuple of str
        The columns to be set flush right.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    title: str = ""
    note: str = ""
    numeric: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("columns", "numeric"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        object.__setattr__(self, "rows", tuple(tuple(map(str, row)) for row in self.rows))
        wrong = {len(row) for row in self.rows} - {len(self.columns)}
        if wrong:
            raise ArrayError(
                f"a table of {len(self.columns)} columns has a row of {min(wrong)} cells",
                "one cell for each column",
                "put an empty text where there is nothing to say",
            )


@dataclass(frozen=True, eq=False)
class Matrix:
    """A table of numbers, drawn as coloured fields: a confusion matrix.

    Attributes
    ----------
    values : ndarray (R, C)
    row_labels, column_labels : tuple of str
    title, row_title, column_title, note : str
    """

    values: Array
    row_labels: tuple[str, ...]
    column_labels: tuple[str, ...]
    title: str = ""
    row_title: str = ""
    column_title: str = ""
    note: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", _locked(np.asarray(self.values)))
        for name in ("row_labels", "column_labels"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.values.shape != (len(self.row_labels), len(self.column_labels)):
            raise ArrayError(
                f"a matrix {self.values.shape} has {len(self.row_labels)} row labels and "
                f"{len(self.column_labels)} column labels",
                "one label for each row and column",
                "label them all",
            )


Exhibit: TypeAlias = Gallery | Curves | Table | Matrix


def mosaic(pictures: Sequence[Array], columns: int | None = None, *, gap: int = 1) -> Array:
    """Lay small pictures side by side in one.

    Parameters
    ----------
    pictures : sequence of ndarray (h, w, 3) of uint8
        All of one size.
    columns : int, optional
        How many to a row; about a square if left out.
    gap : int
        Pixels of white between them.

    Returns
    -------
    ndarray (H, W, 3) of uint8

    Raises
    ------
    ArrayError
        If there is none, or the sizes differ.

    Examples
    --------
    >>> mosaic([np.zeros((2, 3, 3), np.uint8)] * 4, gap=1).shape
    (5, 7, 3)
    """
    shapes = {np.shape(picture) for picture in pictures}
    if len(shapes) != 1:
        raise ArrayError(
            f"pictures of the shapes {sorted(shapes)} were given" if shapes else "no picture given",
            "at least one, all of one size",
            "resize them first",
        )
    ((h, w, _),) = shapes
    columns = columns or math.ceil(math.sqrt(len(pictures)))
    rows = math.ceil(len(pictures) / columns)
    columns = min(columns, len(pictures))
    sheet = np.full((rows * (h + gap) - gap, columns * (w + gap) - gap, 3), 255, dtype=np.uint8)
    for k, picture in enumerate(pictures):
        top, left = k // columns * (h + gap), k % columns * (w + gap)
        sheet[top : top + h, left : left + w] = picture
    return sheet
