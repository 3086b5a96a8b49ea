"""Folders of pictures, without annotation or with a sub-folder for each class."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from cnnviz.collection import Entry, entries_of
from cnnviz.datasets.building import Builder, Classes, Listed, Sighting
from cnnviz.datasets.items import Dataset, DatasetError
from cnnviz.datasets.masks import MaskFile
from cnnviz_core.errors import ImageError

__all__ = [
    "find_picture",
    "folder_of",
    "is_image_folder",
    "name_of",
    "read_folder",
    "read_image_folder",
    "report_unlisted",
]

_SUFFIXES: Final = (".jpg", ".jpeg", ".png", ".JPEG", ".JPG", ".PNG", ".webp", ".bmp", ".tif")
_ASIDE: Final = frozenset({".csv", ".tsv", ".json"})


def read_folder(folder: Path, classes: Classes = None) -> Dataset:
    """Read a folder of pictures without annotation.

    Parameters
    ----------
    folder : Path
        Sub-folders count too.
    classes : sequence or mapping, optional
        The pictures have none, so that none is left where this is given.

    Returns
    -------
    Dataset

    Raises
    ------
    DatasetError
        If no picture can be used.
    """
    builder = Builder(classes, annotated=False)
    for entry in _entries(folder):
        builder.add(_listed(entry, Sighting(entry.name)))
    _report_aside(folder, builder)
    return builder.dataset(folder.name, "folder")


def read_image_folder(folder: Path, classes: Classes = None) -> Dataset:
    """Read a folder with a sub-folder for each class, called by its name, number or WordNet id.

    Parameters
    ----------
    folder : Path
        Pictures that lie in no sub-folder are left out.
    classes : sequence or mapping, optional
        The classes to take.

    Returns
    -------
    Dataset

    Raises
    ------
    DatasetError
        If no picture can be used.
    """
    builder = Builder(classes)
    entries = _entries(folder)
    for entry in entries:
        sightings = [Sighting(entry.name, entry.folder)] if entry.folder else []
        builder.add(_listed(entry, *sightings))
    filled = {entry.folder for entry in entries}
    for each in sorted(folder.iterdir()):
        if each.is_dir() and not each.name.startswith(".") and each.name not in filled:
            builder.report(
                "no picture", str(each), "the class has no picture", "add some, or take it away"
            )
    _report_aside(folder, builder)
    return builder.dataset(folder.name, "imagefolder")


def is_image_folder(folder: Path) -> bool:
    """Tell whether all pictures of a folder lie in sub-folders, of which there are several.

    Parameters
    ----------
    folder : Path
        A folder.

    Returns
    -------
    bool
    """
    folders = {entry.folder for entry in _entries(folder)}
    return "" not in folders and len(folders) > 1


def name_of(written: str) -> str:
    """Give the path that an annotation has of a picture in one form, with slashes.

    Parameters
    ----------
    written : str
        As it is written.

    Returns
    -------
    str
    """
    return posixpath.normpath(written.replace("\\", "/"))


def find_picture(folder: Path, name: str) -> Path:
    """Find a picture that an annotation names.

    Parameters
    ----------
    folder : Path
        From where paths begin.
    name : str
        A path, with or without its suffix, which may begin with the folder's own name.

    Returns
    -------
    Path
        The file, or where it should be.
    """
    path = folder / name
    if os.path.isfile(path):
        return path
    bases = [path]
    if Path(name).parts[:1] == (folder.name,):
        bases.append(folder.parent / name)
    candidates = [*bases, *(each.with_name(each.name + s) for each in bases for s in _SUFFIXES)]
    return next((each for each in candidates if os.path.isfile(each)), path)


def folder_of(file: Path, images: Path | None, names: Iterable[str]) -> Path:
    """Find the folder from which the paths of an annotation file begin.

    Parameters
    ----------
    file : Path
        The annotation file.
    images : Path or None
        The folder that the user named.
    names : iterable of str
        Some pictures' paths as the file has them.

    Returns
    -------
    Path
        The user's; else the first that has one of the pictures, of the file's folder, its
        sub-folder "images", the one called as the file (without "instances_"), and the same beside
        its folder; else the file's folder.
    """
    if images is not None:
        return images
    near = file.parent
    called = file.stem.removeprefix("instances_")
    candidates = [
        near,
        near / "images",
        near / called,
        near.parent / "images",
        near.parent / called,
    ]
    tried = list(names)

    def has_one(folder: Path) -> bool:
        return any(os.path.isfile(find_picture(folder, name)) for name in tried)

    return next(filter(has_one, candidates), near)


def report_unlisted(pictures: Iterable[Listed], builder: Builder) -> None:
    """Note the pictures that lie beside annotated ones and are not annotated.

    Parameters
    ----------
    pictures : iterable of Listed
        The annotated pictures.
    builder : Builder
        Takes the problems: one a folder.
    """
    pictures = list(pictures)
    sources = [each.source for each in pictures if isinstance(each.source, Path)]
    masks = [sighting.mask for each in pictures for sighting in each.sightings]
    beside_them = [mask.path for mask in masks if isinstance(mask, MaskFile)]
    folders = {os.path.dirname(os.path.abspath(path)) for path in sources}
    listed = {os.path.abspath(path) for path in (*sources, *beside_them)}
    for folder in sorted(folders):
        if not os.path.isdir(folder):
            continue
        try:
            beside = [entry for entry in entries_of(folder) if not entry.folder]
        except ImageError:
            continue
        rest = [e.name for e in beside if os.path.join(folder, e.name) not in listed]
        if rest:
            builder.report(
                "no annotation",
                folder,
                f"{len(rest)} pictures are not annotated and are left out, such as "
                f"{', '.join(rest[:3])}",
                "annotate them, or leave them",
            )


def _entries(folder: Path) -> list[Entry]:
    """List a folder's pictures."""
    try:
        return entries_of(folder)
    except ImageError as error:
        raise DatasetError(error.problem, error.expected, error.remedy) from None


def _listed(entry: Entry, *sightings: Sighting) -> Listed:
    """Give what is known of a picture in a folder."""
    return Listed(entry.name, entry.name, entry.source, list(sightings))


def _report_aside(folder: Path, builder: Builder) -> None:
    """Note files that may hold annotations and are not read."""
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in _ASIDE and path.is_file():
            builder.report(
                "malformed",
                str(path),
                "it lies among the pictures and is not read",
                "if it holds the annotations, pass it instead of the folder",
            )
