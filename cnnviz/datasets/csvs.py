"""Annotations in CSV: a line for each box, or for each picture."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cnnviz.datasets.boxes import Box, number
from cnnviz.datasets.building import Builder, Classes, Listed, Sighting
from cnnviz.datasets.folders import find_picture, folder_of, name_of, report_unlisted
from cnnviz.datasets.items import Dataset, DatasetError
from cnnviz.datasets.masks import MaskFile

__all__ = ["read_csv"]

_NAMES: Final = {
    "image": (
        *("image", "picture", "file", "filename", "path", "filepath", "imagepath", "imagename"),
        *("imageid", "img"),
    ),
    "label": (
        *("label", "class", "category", "classname", "categoryname", "labelname", "target"),
        *("classid", "categoryid", "wnid", "synset"),
    ),
    "mask": ("mask", "maskpath", "maskfile"),
    "value": ("maskvalue", "maskid"),
    "difficult": ("difficult", "isdifficult"),
    "width": ("imagewidth", "width"),
    "height": ("imageheight", "height"),
}
"""What columns may be called: lower case, letters and digits alone."""

_CORNERS: Final = (
    ("x0", "y0", "x1", "y1"),
    ("x1", "y1", "x2", "y2"),
    ("xmin", "ymin", "xmax", "ymax"),
    ("left", "top", "right", "bottom"),
)
_EXTENTS: Final = (
    ("x", "y", "width", "height"),
    ("x", "y", "w", "h"),
    ("left", "top", "width", "height"),
    ("xmin", "ymin", "width", "height"),
)
_BARE: Final = {
    1: ("image",),
    2: ("image", "label"),
    5: ("image", "x0", "y0", "x1", "y1"),
    6: ("image", "label", "x0", "y0", "x1", "y1"),
}
"""The columns of a file without a line of titles, by their number."""

_PICTURE: Final = re.compile(r".*\.(png|jpe?g|webp|bmp|gif|tiff?|ppm|pgm)", re.IGNORECASE)
_YES: Final = frozenset({"1", "true", "yes", "y", "t"})
_NO: Final = frozenset({"", "0", "false", "no", "n", "f"})


@dataclass(frozen=True)
class _Columns:
    """Which column holds what; -1 where none does.

    Attributes
    ----------
    image, label, mask, value, difficult, width, height : int
        The columns.
    box : tuple of int
        Those of the box, or none.
    extents : bool
        Whether the box's last two numbers are its width and height.
    count : int
        How many columns there are.
    """

    image: int
    label: int
    mask: int
    value: int
    difficult: int
    width: int
    height: int
    box: tuple[int, ...]
    extents: bool
    count: int


def read_csv(path: Path, images: Path | None = None, classes: Classes = None) -> Dataset:
    """Read a CSV file.

    The columns, in any order, are: "image", the picture's path from the file's folder; "label";
    "x0", "y0", "x1", "y1", the box, half-open, or "x", "y", "width", "height"; "mask", the path of
    a picture of the object, and "mask_value", which of its values; "difficult"; "width" and
    "height" of the picture that was annotated, if the files have another size.  All but the first
    may be missing, and a cell may be empty.  Titles are found under their usual other names
    ("filename", "class", "xmin", "x_min", "left", ...); without a line of titles the columns are
    image; image, label; image and box; or image, label and box.  Lines of one picture belong
    together.

    Parameters
    ----------
    path : Path
        The file, with commas, semicolons or tabs.
    images : Path, optional
        From where the pictures' paths begin.
    classes : sequence or mapping, optional
        The classes to take.

    Returns
    -------
    Dataset

    Raises
    ------
    DatasetError
        If the file cannot be read, has no column of pictures or half of a box's columns, or
        nothing in it can be used.
    """
    lines = _lines(path)
    columns, unknown, titled = _columns(lines[0][1], path)
    builder = Builder(
        classes, annotated=columns.label >= 0 or bool(columns.box) or columns.mask >= 0
    )
    if unknown:
        builder.report(
            "malformed",
            f"{path.name}, line {lines[0][0]}",
            f"the columns {', '.join(map(repr, unknown))} are not known, and are not read",
            "rename them, if they hold annotations",
        )
    rows = []
    for line, cells in lines[titled:]:
        where = f"{path.name}, line {line}"
        cells = [cell.strip() for cell in cells]
        if len(cells) != columns.count or not cells[columns.image]:
            what = (
                "the picture's name is empty"
                if len(cells) == columns.count
                else f"there are {len(cells)} cells, not {columns.count}"
            )
            builder.report("malformed", where, f"{what}; the line is left out", "correct the line")
        else:
            rows.append((where, cells))
    _read_rows(rows, columns, path, images, builder)
    return builder.dataset(path.name, "csv")


def _lines(path: Path) -> list[tuple[int, list[str]]]:
    """Give the lines that are not empty, each with its number."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            file.seek(0)
            delimiter = max(",;\t", key=first.count)
            reader = csv.reader(file, delimiter=delimiter)
            lines = [(reader.line_num, cells) for cells in reader if any(map(str.strip, cells))]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(
            f"{path} cannot be read as CSV: {error}",
            "text in UTF-8, with a line of titles such as image,label,x0,y0,x1,y1",
            "save it anew from the program that wrote it",
        ) from None
    if not lines:
        raise DatasetError(
            f"{path} is empty", "a line for each picture or box", "check how it was written"
        )
    return lines


def _columns(header: Sequence[str], path: Path) -> tuple[_Columns, list[str], bool]:
    """Find out what the columns hold, which are not known, and whether the line has titles."""
    titles = [re.sub(r"[^a-z0-9]", "", cell.casefold()) for cell in header]
    titled = any(title in _NAMES["image"] for title in titles)
    if not titled:
        if len(header) not in _BARE or not _PICTURE.fullmatch(header[0].strip()):
            raise DatasetError(
                f"{path} has no column of pictures: its first line is {', '.join(header)}",
                "a line of titles, one of which is 'image'",
                f"or call it one of {', '.join(_NAMES['image'][1:])}",
            )
        titles = list(_BARE[len(header)])
    box, extents = _box_columns(titles, path)
    free = [title if title not in box else "" for title in titles]
    found = {key: _first(free, names) for key, names in _NAMES.items()}
    used = {*found.values(), *(titles.index(each) for each in box)}
    unknown = [header[i] for i in range(len(titles)) if i not in used]
    columns = _Columns(
        **found, box=tuple(map(titles.index, box)), extents=extents, count=len(titles)
    )
    return columns, unknown, titled


def _box_columns(titles: Sequence[str], path: Path) -> tuple[tuple[str, ...], bool]:
    """Find the titles of a box, and whether its last two numbers are its width and height."""
    for sets, extents in ((_CORNERS, False), (_EXTENTS, True)):
        for names in sets:
            if set(names) <= set(titles):
                return names, extents
    partial = {name for names in (*_CORNERS, *_EXTENTS) for name in names} - {"width", "height"}
    if partial & set(titles):
        raise DatasetError(
            f"{path} has the columns {', '.join(sorted(partial & set(titles)))} of a box alone",
            "x0, y0, x1, y1, or x, y, width, height",
            "name all four columns",
        )
    return (), False


def _first(titles: Sequence[str], names: Sequence[str]) -> int:
    """Give the column that has the first of some names; -1 if none has."""
    return next((titles.index(name) for name in names if name in titles), -1)


def _read_rows(
    rows: Sequence[tuple[str, list[str]]],
    columns: _Columns,
    path: Path,
    images: Path | None,
    builder: Builder,
) -> None:
    """Put the lines of each picture together."""
    names = [name_of(cells[columns.image]) for _, cells in rows]
    folder = folder_of(path, images, names[:20])
    pictures: dict[str, Listed] = {}
    for (where, cells), name in zip(rows, names, strict=True):
        if name not in pictures:
            pictures[name] = Listed(where, name, find_picture(folder, name), rescaled=True)
        listed = pictures[name]
        try:
            size = _size(cells, columns)
            if size is not None and listed.size not in (None, size):
                raise ValueError(f"the size of {name} is another one than in a line before")
            listed.size = size or listed.size
            listed.sightings.append(_sighting(where, cells, columns, folder))
        except (ValueError, OverflowError) as error:
            builder.report("malformed", where, f"{error}; the line is left out", "correct the line")
    for listed in pictures.values():
        builder.add(listed)
    _report_fractions(pictures, path, builder)
    report_unlisted(pictures.values(), builder)


def _sighting(where: str, cells: Sequence[str], columns: _Columns, folder: Path) -> Sighting:
    """Read what a line says of an object."""
    mask = _cell(cells, columns.mask)
    value = _cell(cells, columns.value)
    if value and not value.isdecimal():
        raise ValueError(f"mask_value is {value!r}, not a whole number")
    difficult = _cell(cells, columns.difficult).casefold()
    if difficult not in _YES | _NO:
        raise ValueError(f"difficult is {difficult!r}, neither 0 nor 1")
    return Sighting(
        where,
        _cell(cells, columns.label) or None,
        _box(cells, columns),
        MaskFile(folder / mask, mask, int(value) if value else None) if mask else None,
        difficult in _YES,
    )


def _box(cells: Sequence[str], columns: _Columns) -> Box | None:
    """Read a box, where there is one."""
    written = [cells[i] for i in columns.box]
    if not any(written):
        return None
    try:
        x0, y0, x1, y1 = map(number, written)
    except ValueError:
        raise ValueError(f"the box is {', '.join(map(repr, written))}, not four numbers") from None
    return (x0, y0, x0 + x1, y0 + y1) if columns.extents else (x0, y0, x1, y1)


def _size(cells: Sequence[str], columns: _Columns) -> tuple[int, int] | None:
    """Read (height, width) of the picture that was annotated, where it is said."""
    height, width = (_cell(cells, i) for i in (columns.height, columns.width))
    if not height or not width:
        return None
    size = (round(number(height)), round(number(width)))
    if min(size) < 1:
        raise ValueError(f"the picture is {width} x {height}")
    return size


def _cell(cells: Sequence[str], column: int) -> str:
    """Give a cell; nothing where there is no such column."""
    return cells[column] if column >= 0 else ""


def _report_fractions(pictures: dict[str, Listed], path: Path, builder: Builder) -> None:
    """Note boxes that look as if they were given as shares of the picture."""
    boxes = [
        sighting.box
        for listed in pictures.values()
        for sighting in listed.sightings
        if sighting.box is not None and listed.size is None
    ]
    if boxes and all(0 <= value <= 1 for box in boxes for value in box):
        builder.report(
            "malformed",
            path.name,
            "all boxes lie between 0 and 1, and are read as pixels",
            "if they are shares of the picture, give width and height columns of 1",
        )
