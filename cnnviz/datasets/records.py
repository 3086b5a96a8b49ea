"""Annotations in plain JSON: one record for each picture."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from cnnviz.datasets.boxes import number
from cnnviz.datasets.building import Builder, Classes, Listed, Sighting
from cnnviz.datasets.folders import find_picture, folder_of, name_of, report_unlisted
from cnnviz.datasets.items import Dataset, DatasetError, Label
from cnnviz.datasets.masks import MaskFile

__all__ = ["load_json", "read_records"]

_PICTURE: Final = ("image", "picture", "file", "file_name", "filename", "path")
_LABEL: Final = ("label", "class", "category")


def load_json(path: Path) -> Any:
    """Read a JSON file.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    object

    Raises
    ------
    DatasetError
        If it cannot be read.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise DatasetError(
            f"{path} cannot be read as JSON: {error}",
            "a COCO file, or a list with a record for each picture",
            "check how it was written",
        ) from None


def read_records(
    path: Path, data: Any, images: Path | None = None, classes: Classes = None
) -> Dataset:
    """Read a list with a record for each picture.

    A record has "image", the picture's path; "label"; "boxes", a list of [x0, y0, x1, y1],
    half-open, or of {"category": ..., "box": [...], "difficult": ...}; "mask", the path of a
    picture of the object, or of category numbers; "size", [width, height] of the picture that was
    annotated; "difficult".  All but the first may be missing.  The list is the file, or its entry
    "images"; beside that "mask_categories" tells the categories' names by their numbers.

    Parameters
    ----------
    path : Path
        The file.
    data : object
        What it holds.
    images : Path, optional
        From where the pictures' and masks' paths begin; found beside the file if left out.
    classes : sequence or mapping, optional
        The classes to take.

    Returns
    -------
    Dataset

    Raises
    ------
    DatasetError
        If it holds no such list, or nothing in it can be used.
    """
    records = data.get("images") if isinstance(data, dict) else data
    if not isinstance(records, list):
        raise DatasetError(
            f"{path} holds no list of pictures",
            'a COCO file, or a list of records such as {"image": "a.jpg", "label": "cat"}',
            "write a record for each picture",
        )
    values = _values(data.get("mask_categories") if isinstance(data, dict) else None)
    whole = [each for each in records if isinstance(each, dict)]
    builder = Builder(classes, annotated=any(_annotated(each) for each in whole))
    named = [name_of(str(_get(each, _PICTURE))) for each in whole[:20]]
    folder = folder_of(path, images, named)
    pictures = []
    for i, record in enumerate(records):
        where = f"{path.name}, record {i + 1}"
        if not isinstance(record, dict) or not _get(record, _PICTURE):
            said = "it names no picture; it is left out"
            builder.report("malformed", where, said, 'give it an "image"')
            continue
        name = name_of(str(_get(record, _PICTURE)))
        listed = Listed(where, name, find_picture(folder, name))
        try:
            listed.size = _size(record.get("size"))
        except (TypeError, ValueError):
            said = f"the size is {record['size']!r}, and is not used"
            builder.report("malformed", where, said, "give [width, height]")
        listed.sightings += _sightings(where, record, builder)
        _add_masks(listed, record, folder, values, builder)
        builder.add(listed)
        pictures.append(listed)
    report_unlisted(pictures, builder)
    return builder.dataset(path.name, "records")


def _sightings(where: str, record: Mapping[str, Any], builder: Builder) -> list[Sighting]:
    """Read a picture's objects, noting those that cannot be read."""
    label, difficult = _label(record), bool(record.get("difficult", False))
    given = record.get("boxes", record.get("box"))
    if given is None or given == []:
        return [Sighting(where, label, difficult=difficult)]
    if not isinstance(given, list) or not isinstance(given[0], (list, dict)):
        given = [given]
    found = []
    for i, each in enumerate(given):
        place = f"{where}, box {i + 1}"
        own = each if isinstance(each, dict) else {"box": each}
        corners = own.get("box")
        try:
            x0, y0, x1, y1 = map(number, corners)  # type: ignore[arg-type]
            box = (x0, y0, x1, y1)
        except (TypeError, ValueError):
            said = f"the box is {corners!r}, not four numbers; it is left out"
            builder.report("malformed", place, said, "give [x0, y0, x1, y1]")
            box = None
        category = label if _label(own) is None else _label(own)
        hard = bool(own.get("difficult", difficult))
        found.append(Sighting(place, category, box, None, hard))
    return found


def _add_masks(
    listed: Listed,
    record: Mapping[str, Any],
    folder: Path,
    values: Mapping[str, int],
    builder: Builder,
) -> None:
    """Give the first object of each class its class's mask."""
    written = record.get("mask")
    if not written:
        return
    classes = dict.fromkeys((str(each.label) for each in listed.sightings), True)
    if not values and len(classes) > 1:
        said = f"the mask is of one of {', '.join(classes)}, and nothing says of which"
        remedy = 'tell the numbers of the categories in "mask_categories"'
        builder.report("mask", listed.where, f"{said}; it is left out", remedy)
        return
    for i, sighting in enumerate(listed.sightings):
        text = str(sighting.label)
        if not classes.pop(text, False):
            continue
        if values and text not in values:
            said = f"the mask's categories lack {text!r}; it has no mask"
            builder.report("mask", sighting.where, said, 'complete "mask_categories"')
            continue
        mask = MaskFile(folder / str(written), str(written), values.get(text))
        listed.sightings[i] = dataclasses.replace(sighting, mask=mask)


def _values(given: Any) -> dict[str, int]:
    """Give the values of the categories' pixels by the categories' names."""
    if not isinstance(given, dict):
        return {}
    return {str(name): int(value) for value, name in given.items() if str(value).isdecimal()}


def _annotated(record: Mapping[str, Any]) -> bool:
    """Tell whether a record says anything of its picture."""
    return bool(record.keys() & {*_LABEL, "boxes", "box", "mask"})


def _label(record: Mapping[str, Any]) -> Label | None:
    """Give a record's class."""
    label = _get(record, _LABEL)
    if isinstance(label, int) and not isinstance(label, bool):
        return label
    return str(label) if label not in (None, "") else None


def _size(given: Any) -> tuple[int, int] | None:
    """Read [width, height] as (height, width)."""
    if given is None:
        return None
    width, height = map(int, given)
    if min(width, height) < 1:
        raise ValueError
    return height, width


def _get(record: Mapping[str, Any], keys: Sequence[str]) -> Any:
    """Give what a record has under the first of some keys."""
    return next((record[key] for key in keys if key in record), None)
