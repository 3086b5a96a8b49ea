"""Annotations in COCO's JSON: pictures, categories, and objects with boxes and segmentations."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cnnviz.datasets.boxes import Box, number
from cnnviz.datasets.building import Builder, Classes, Listed, Sighting
from cnnviz.datasets.folders import find_picture, folder_of, name_of, report_unlisted
from cnnviz.datasets.items import Dataset
from cnnviz.datasets.masks import MaskPart, Polygons, Runs, decode_runs
from cnnviz_core.errors import ArrayError

__all__ = ["is_coco", "read_coco"]


def is_coco(data: Any) -> bool:
    """Tell whether what a JSON file holds is COCO's.

    Parameters
    ----------
    data : object
        What the file holds.

    Returns
    -------
    bool
    """
    return isinstance(data, dict) and all(
        isinstance(data.get(key), list) for key in ("images", "annotations")
    )


def read_coco(
    path: Path, data: Mapping[str, Any], images: Path | None = None, classes: Classes = None
) -> Dataset:
    """Read the objects of COCO's "instances" files, and of all files of this form.

    Boxes, (x, y, width, height) with the picture's corner at 0, become half-open corners.
    Polygons and run lengths become the mask.  A crowd (``iscrowd``) gives no box: its pixels are
    to be ignored.

    Parameters
    ----------
    path : Path
        The file.
    data : mapping
        What it holds: the lists "images", "annotations" and "categories".
    images : Path, optional
        From where the pictures' paths begin; found beside the file if left out.
    classes : sequence or mapping, optional
        The categories to take.

    Returns
    -------
    Dataset

    Raises
    ------
    DatasetError
        If nothing in it can be used.

    References
    ----------
    Lin et al., "Microsoft COCO: common objects in context", ECCV 2014.
    """
    builder = Builder(classes)
    categories = _categories(path, data, builder)
    pictures = _pictures(path, data, images, builder)
    seen: set[Any] = set()
    for i, annotation in enumerate(data["annotations"]):
        if not isinstance(annotation, dict):
            where = f"{path.name}, annotation number {i + 1}"
            builder.report("malformed", where, "it is no mapping; it is left out", "correct it")
            continue
        key = annotation.get("id")
        where = f"{path.name}, annotation {f'number {i + 1}' if key is None else key}"
        picture = pictures.get(_key(annotation.get("image_id")))
        category = categories.get(_key(annotation.get("category_id")))
        if _key(key) in seen and key is not None:
            said = "its id is that of another one; this one is left out"
            builder.report("duplicate", where, said, "give each annotation an id of its own")
        elif picture is None:
            said = f"there is no picture with the id {annotation.get('image_id')!r}"
            builder.report("no picture", where, f"{said}; it is left out", "list the picture")
        elif category is None:
            said = f"there is no category with the id {annotation.get('category_id')!r}"
            builder.report("unknown class", where, f"{said}; it is left out", "list the category")
        else:
            picture.sightings.append(_sighting(where, annotation, category, picture, builder))
        seen.add(_key(key))
    for listed in pictures.values():
        builder.add(listed)
    report_unlisted(pictures.values(), builder)
    return builder.dataset(path.name, "coco")


def _categories(path: Path, data: Mapping[str, Any], builder: Builder) -> dict[str, str]:
    """Give the categories' names by their ids."""
    names: dict[str, str] = {}
    for i, category in enumerate(data.get("categories", ())):
        where = f"{path.name}, category number {i + 1}"
        if not isinstance(category, dict) or "id" not in category or not category.get("name"):
            builder.report("malformed", where, "it lacks an id or a name", "give it both")
        elif _key(category["id"]) in names:
            said = f"the id {category['id']!r} is given a second time; the first name stays"
            builder.report("duplicate", where, said, "give each category an id of its own")
        else:
            names[_key(category["id"])] = str(category["name"])
    return names


def _pictures(
    path: Path, data: Mapping[str, Any], images: Path | None, builder: Builder
) -> dict[str, Listed]:
    """Give the pictures by their ids."""
    entries = [each for each in data["images"] if isinstance(each, dict)]
    named = [name_of(str(each["file_name"])) for each in entries[:20] if each.get("file_name")]
    folder = folder_of(path, images, named)
    pictures: dict[str, Listed] = {}
    for i, entry in enumerate(data["images"]):
        where = f"{path.name}, image number {i + 1}"
        if not isinstance(entry, dict) or "id" not in entry or not entry.get("file_name"):
            said = "it lacks an id or a file_name; it is left out"
            builder.report("malformed", where, said, "give it both")
        elif _key(entry["id"]) in pictures:
            said = f"the id {entry['id']!r} is given a second time; this one is left out"
            builder.report("duplicate", where, said, "give each picture an id of its own")
        else:
            name = name_of(str(entry["file_name"]))
            source = find_picture(folder, name)
            listed = Listed(f"{path.name}, image {entry['id']}", name, source)
            listed.size = _size(entry)
            pictures[_key(entry["id"])] = listed
    return pictures


def _sighting(
    where: str, annotation: Mapping[str, Any], category: str, picture: Listed, builder: Builder
) -> Sighting:
    """Read one object, noting parts of it that cannot be read."""
    crowd = bool(annotation.get("iscrowd", 0))
    box: Box | None = None
    mask: MaskPart | None = None
    try:
        box = None if crowd or "bbox" not in annotation else _box(annotation["bbox"])
    except ValueError as error:
        builder.report("malformed", where, f"{error}; the box is left out", "correct the bbox")
    try:
        if annotation.get("segmentation"):
            mask = _mask(annotation["segmentation"], picture.size, crowd)
    except (ValueError, ArrayError) as error:
        what = error.problem if isinstance(error, ArrayError) else str(error)
        builder.report("mask", where, f"{what}; the mask is left out", "correct the segmentation")
    return Sighting(where, category, box, mask, crowd)


def _box(given: Any) -> Box:
    """Read (x, y, width, height)."""
    try:
        x, y, width, height = map(number, given)
    except (TypeError, ValueError):
        raise ValueError(f"the bbox is {given!r}, not four numbers") from None
    return x, y, x + width, y + height


def _mask(given: Any, size: tuple[int, int] | None, crowd: bool) -> MaskPart:
    """Read polygons, or run lengths as a list or as text."""
    if isinstance(given, dict):
        counts: Any = given.get("counts")
        try:
            height, width = map(int, given["size"])
            lengths = decode_runs(counts) if isinstance(counts, str) else tuple(map(int, counts))
        except (KeyError, TypeError):
            raise ValueError("the segmentation has no counts, or no size") from None
        return Runs(lengths, (height, width), crowd)
    if size is None:
        raise ValueError("polygons need the picture's width and height")
    rings = tuple(_ring(each) for each in given)
    return Polygons(rings, size)


def _ring(given: Any) -> tuple[float, ...]:
    """Read one polygon."""
    try:
        ring = tuple(map(number, given))
    except (TypeError, ValueError):
        raise ValueError("a polygon is no list of numbers") from None
    if len(ring) < 6 or len(ring) % 2 or not all(map(math.isfinite, ring)):
        raise ValueError(f"a polygon has {len(ring)} numbers, or some that are not finite")
    return ring


def _size(entry: Mapping[str, Any]) -> tuple[int, int] | None:
    """Read (height, width), where both are said."""
    height, width = entry.get("height"), entry.get("width")
    if not isinstance(height, int) or not isinstance(width, int) or min(height, width) < 1:
        return None
    return height, width


def _key(value: Any) -> str:
    """Give an id in a form that can be looked up."""
    return str(value)
