"""Annotations in Pascal VOC's XML: a file for each picture."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from cnnviz.collection import entries_of
from cnnviz.datasets.boxes import Box, number
from cnnviz.datasets.building import Builder, Classes, Listed, Sighting
from cnnviz.datasets.folders import report_unlisted
from cnnviz.datasets.items import Dataset, DatasetError
from cnnviz_core.errors import ImageError

__all__ = ["has_xml", "read_voc"]


@dataclass(frozen=True)
class _File:
    """What one XML file says.

    Attributes
    ----------
    path : Path
        The file.
    where : str
        Its path from the folder of annotations.
    filename : str
        The picture's, as the file has it.
    size : tuple of int, or None
        (height, width) of the picture.
    objects : list of (str, str, tuple of float or None, bool)
        Where, class, (xmin, ymin, xmax, ymax) as written, and whether it is difficult.
    """

    path: Path
    where: str
    filename: str
    size: tuple[int, int] | None
    objects: list[tuple[str, str, Box | None, bool]]


def has_xml(folder: Path) -> bool:
    """Tell whether there are XML files in a folder or its sub-folders.

    Parameters
    ----------
    folder : Path
        A folder.

    Returns
    -------
    bool
    """
    return any(folder.rglob("*.xml"))


def read_voc(
    source: Path, images: Path | None = None, classes: Classes = None, split: str | None = None
) -> Dataset:
    """Read XML files of Pascal VOC's form.

    They count a box's pixels from 1, with the last ones inside; where some box of the data set
    begins at 0, as in ILSVRC, all are taken to count from 0, and the data set's notes say so.  A
    picture is found by its XML file's name, else by what the file calls it.

    Parameters
    ----------
    source : Path
        VOC's own folder, with "Annotations" and "JPEGImages"; a folder of XML files, with
        sub-folders or not; or one file.
    images : Path, optional
        The folder of pictures; "JPEGImages" or "images" beside or in `source` if left out, else
        where the XML files are.
    classes : sequence or mapping, optional
        The classes to take.
    split : str, optional
        The name of a list in "ImageSets/Main", of the pictures to take.

    Returns
    -------
    Dataset

    Raises
    ------
    DatasetError
        If there is no XML file or no such list, or nothing can be used.

    References
    ----------
    Everingham et al., "The PASCAL visual object classes (VOC) challenge", International Journal of
    Computer Vision 88, 2010.
    """
    builder = Builder(classes)
    folder = source / "Annotations" if (source / "Annotations").is_dir() else source
    paths = [source] if source.is_file() else sorted(folder.rglob("*.xml"))
    folder = source.parent if source.is_file() else folder
    if split is not None:
        paths = _of_split(source, folder, split, builder)
    if not paths:
        raise DatasetError(
            f"there is no XML file in {folder}", "a file for each picture", "check the folder"
        )
    files = [file for path in paths if (file := _read(path, folder, builder)) is not None]
    pictures = _Pictures(images or _images(source, folder))
    first = 0 if any(0 in box[:2] for f in files for _, _, box, _ in f.objects if box) else 1
    if first == 0:
        builder.notes.append("boxes begin at 0: all are taken to count pixels from 0, not from 1")
    listed = [_listed(file, pictures, first) for file in files]
    for each in listed:
        builder.add(each)
    if split is None:
        report_unlisted(listed, builder)
    return builder.dataset(source.name, "voc")


def _of_split(source: Path, folder: Path, split: str, builder: Builder) -> list[Path]:
    """Give the XML files of a list of pictures."""
    path = source / "ImageSets" / "Main" / f"{split}.txt"
    if not path.is_file():
        raise DatasetError(
            f"there is no list {path}",
            "the name of a file in ImageSets/Main, without .txt",
            "pass such a name as split=, or leave it out for all pictures",
        )
    names = [
        line.split()[0] for line in path.read_text(encoding="utf-8").splitlines() if line.split()
    ]
    files = [folder / f"{name}.xml" for name in names]
    for name, file in zip(names, files, strict=True):
        if not file.is_file():
            said = f"the picture {name} of {path.name} has no XML file; it is left out"
            builder.report("no annotation", str(file), said, "annotate it")
    return [file for file in files if file.is_file()]


def _images(source: Path, folder: Path) -> Path:
    """Find the folder of pictures."""
    near = [base / name for base in (source, folder.parent) for name in ("JPEGImages", "images")]
    return next((each for each in near if each.is_dir()), folder)


def _read(path: Path, folder: Path, builder: Builder) -> _File | None:
    """Read one XML file, noting what of it cannot be read."""
    where = path.relative_to(folder).as_posix()
    try:
        root = ElementTree.parse(path).getroot()
    except (OSError, ElementTree.ParseError, ValueError, LookupError) as error:
        said = f"it is no XML that can be read: {error}"
        builder.report("malformed", where, f"{said}; it is left out", "write it anew")
        return None
    objects = []
    for i, each in enumerate(root.findall("object")):
        place = f"{where}, object {i + 1}"
        name = (each.findtext("name") or "").strip()
        if not name:
            builder.report("malformed", place, "it has no name; it is left out", "name it")
            continue
        difficult = (each.findtext("difficult") or "0").strip() not in ("0", "")
        objects.append((place, name, _box(each, place, builder), difficult))
    filename = (root.findtext("filename") or "").strip()
    return _File(path, where, filename, _size(root), objects)


def _box(element: ElementTree.Element, where: str, builder: Builder) -> Box | None:
    """Read a box as it is written."""
    written = [element.findtext(f"bndbox/{name}") for name in ("xmin", "ymin", "xmax", "ymax")]
    try:
        x0, y0, x1, y1 = map(number, written)
    except ValueError:
        said = f"its box is {', '.join(map(str, written))}, not four numbers; it is left out"
        builder.report("malformed", where, said, "correct the box")
        return None
    return x0, y0, x1, y1


def _size(root: ElementTree.Element) -> tuple[int, int] | None:
    """Read (height, width), where both are said; some programs write 0."""
    written = [(root.findtext(f"size/{name}") or "").strip() for name in ("height", "width")]
    if not all(each.isdecimal() and int(each) for each in written):
        return None
    return int(written[0]), int(written[1])


class _Pictures:
    """The pictures of a folder, by their paths without suffix."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[str, list[str]] = defaultdict(list)
        try:
            entries = entries_of(folder)
        except ImageError:
            entries = []
        for entry in entries:
            self._known[os.path.splitext(entry.name)[0]].append(entry.name)

    def find(self, file: _File) -> tuple[str, Path]:
        """Give the name and the path of an XML file's picture, or where it should be."""
        stem = os.path.splitext(file.where)[0]
        named = (Path(file.where).parent / (file.filename or f"{Path(stem).name}.jpg")).as_posix()
        candidates: Sequence[str] = (
            self._known.get(stem) or self._known.get(os.path.splitext(named)[0]) or [named]
        )
        name = named if named in candidates else candidates[0]
        return name, self._folder / name


def _listed(file: _File, pictures: _Pictures, first: int) -> Listed:
    """Give what a file says of its picture, with half-open boxes."""
    sightings = []
    for where, name, box, difficult in file.objects:
        if box is not None:
            x0, y0, x1, y1 = box
            box = (x0 - first, y0 - first, x1 - first + 1, y1 - first + 1)
        sightings.append(Sighting(where, name, box, None, difficult))
    name, path = pictures.find(file)
    return Listed(file.where, name, path, sightings, file.size)
