"""Collections of pictures: files and folders, read when they are needed, and their true classes."""

from __future__ import annotations

import csv
import json
import os
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

from cnnviz.images import Picture, read_picture, read_pictures
from cnnviz.network import Network
from cnnviz.samples import samples_of
from cnnviz_core.errors import CnnvizError, ImageError, ParameterError, TargetError
from cnnviz_core.inspector import Pictures
from cnnviz_core.labels import find_class
from cnnviz_core.model import Array

__all__ = [
    "Collection",
    "Entry",
    "Truth",
    "entries_of",
    "is_truth_file",
    "truth_by_folder",
    "truth_of",
]

Truth: TypeAlias = Mapping[str, int | str] | Sequence[int | str | None] | str | os.PathLike[str]
"""True classes: by name, one for each picture, or the path of a CSV or JSON file of them."""

_SUFFIXES: Final = frozenset(
    {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}
)


@dataclass(frozen=True, eq=False)
class Entry:
    """One picture of a collection.

    Attributes
    ----------
    source : Path or Picture
        Where it is read from, or the picture itself.
    name : str
        What to call it: for a file of a folder its path from there, with slashes.
    folder : str
        For a file of a sub-folder of the folder that was given, the sub-folder's name.
    """

    source: Path | Picture
    name: str
    folder: str = ""


def entries_of(images: Any) -> list[Entry]:
    """List pictures without reading files.

    Parameters
    ----------
    images : path, PIL image, ndarray, or sequence of these
        A folder stands for all pictures in it and in its sub-folders, in the order of their paths.

    Returns
    -------
    list of Entry

    Raises
    ------
    ImageError
        If a folder holds no picture, or something is none.
    """
    several = isinstance(images, Iterable) and not hasattr(images, "__array__")
    listed = list(images) if several and not isinstance(images, (str, Picture)) else [images]
    entries: list[Entry] = []
    for each in listed:
        if isinstance(each, (str, os.PathLike)):
            path = Path(each).expanduser()
            entries += _in_folder(path) if path.is_dir() else [Entry(path, path.name)]
        else:
            entries += [Entry(picture, picture.name) for picture in read_pictures(each)]
    counted = Counter(entry.name for entry in entries)
    if len(entries) > 1 and counted["picture"] > 1:
        # Pictures without a file of their own are numbered.
        entries = [
            Entry(e.source, f"picture-{i + 1}" if e.name == "picture" else e.name, e.folder)
            for i, e in enumerate(entries)
        ]
    return entries


def _in_folder(folder: Path) -> list[Entry]:
    """List the pictures in a folder and its sub-folders."""
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in _SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
    )
    if not files:
        raise ImageError(
            f"there is no picture in the folder {folder}",
            f"files that end in {', '.join(sorted(_SUFFIXES))}",
            "check the folder's name",
        )
    return [
        Entry(path, path.relative_to(folder).as_posix(), _first_part(path.relative_to(folder)))
        for path in files
    ]


def _first_part(path: Path) -> str:
    """Give the sub-folder in which a file lies, if it lies in one."""
    return path.parts[0] if len(path.parts) > 1 else ""


class Collection(Pictures):
    """Pictures from files and elsewhere, prepared for a network when they are asked for.

    Parameters
    ----------
    network : Network
        Its preprocessing is applied.
    entries : sequence of Entry
        The pictures.
    truth : sequence of (int or None), optional
        Their classes.

    Attributes
    ----------
    failures : dict of str to ImageError
        The pictures that could not be read, so far.
    """

    def __init__(
        self, network: Network, entries: Sequence[Entry], truth: Sequence[int | None] = ()
    ) -> None:
        self._network = network
        self._dtype = next(iter(network.model.inputs.values())).dtype
        self._entries = tuple(entries)
        self._names = tuple(entry.name for entry in entries)
        self._truth = tuple(truth) or (None,) * len(self._entries)
        self._shape: tuple[int, ...] | None = None
        self.failures: dict[str, ImageError] = {}

    @property
    def names(self) -> Sequence[str]:
        """What the pictures are called."""
        return self._names

    @property
    def truth(self) -> Sequence[int | None]:
        """The class of each picture; None where it is not known."""
        return self._truth

    @property
    def identity(self) -> str:
        """A text that is another one for other pictures: their names, and the files' sizes."""
        return json.dumps([[entry.name, _size_of(entry)] for entry in self._entries])

    def read(self, index: int) -> Array | None:
        """Prepare one picture; see `Pictures.read`."""
        entry = self._entries[index]
        try:
            (sample,) = samples_of(self._network, entry.source)
        except ImageError as error:
            if entry.name not in self.failures:
                self.failures[entry.name] = error
                warnings.warn(f"left out: {error}", UserWarning, stacklevel=2)
            return None
        if self._shape not in (None, sample.x.shape):
            raise ParameterError(
                f"{entry.name} makes an input of the shape {sample.x.shape}, a picture before it "
                f"one of {self._shape}",
                "one input size for all pictures",
                "pass preprocess=cnnviz.Preprocessing(size=(height, width), ...)",
            )
        self._shape = sample.x.shape
        return sample.x.astype(self._dtype, copy=False)

    def original(self, index: int) -> Array | None:
        """Give one picture as it came; see `Pictures.original`."""
        try:
            return read_picture(self._entries[index].source).pixels
        except ImageError:
            return None


def _size_of(entry: Entry) -> list[int]:
    """Give a file's length in bytes, or the size of a picture in memory."""
    if isinstance(entry.source, Picture):
        return list(entry.source.size)
    try:
        return [entry.source.stat().st_size]
    except OSError:
        return []


def truth_of(
    names: Sequence[str], given: Truth, labels: tuple[str, ...] | None
) -> list[int | None]:
    """Read the true classes of pictures.

    Parameters
    ----------
    names : sequence of str
        What the pictures are called.
    given : mapping, sequence or path
        Classes by the pictures' names (a file's path in its folder, its name, or its name without
        suffix); one for each picture; the path of a file: CSV with the columns picture and label,
        or JSON with such a mapping.  A class is a number or a label.
    labels : tuple of str, or None
        The names of the classes.

    Returns
    -------
    list of (int or None)
        None where nothing is said.

    Raises
    ------
    ParameterError
        If the numbers differ, a file cannot be read, or nothing given fits any picture.
    TargetError
        If a class is not known.
    """
    if isinstance(given, (str, os.PathLike)):
        given = _read_truth(Path(given).expanduser())
    if isinstance(given, Mapping):
        said = [_said(name, given) for name in names]
        if names and all(each is None for each in said):
            raise ParameterError(
                f"the true classes are of {', '.join(map(repr, list(given)[:3]))}, and no picture "
                f"is called so: they are {', '.join(map(repr, names[:3]))}",
                "the pictures' names, with or without folder and suffix",
                "write for each picture its name and its class",
            )
    else:
        said = list(given)
        if len(said) != len(names):
            raise ParameterError(
                f"{len(said)} true classes were given for {len(names)} pictures",
                "one for each picture, or a mapping by name",
                "give None where a class is not known",
            )
    return [None if each is None else find_class(each, labels) for each in said]


def _said(name: str, given: Mapping[str, int | str]) -> int | str | None:
    """Look up what is said of a picture."""
    path = Path(name)
    for key in (name, path.name, path.with_suffix("").as_posix(), path.stem):
        if key in given:
            return given[key]
    return None


def truth_by_folder(entries: Sequence[Entry], labels: tuple[str, ...] | None) -> list[int | None]:
    """Take the names of the sub-folders in which pictures lie for their classes.

    Parameters
    ----------
    entries : sequence of Entry
        The pictures.
    labels : tuple of str, or None
        The names of the classes.

    Returns
    -------
    list of (int or None)
        Where every sub-folder is called by a class's label or number, that class.  Where there are
        as many sub-folders as classes, they are in the classes' order when sorted, as in the
        folders of ImageNet, called by WordNet ids.  Else None.
    """
    folders = sorted({entry.folder for entry in entries if entry.folder})
    try:
        classes = {folder: find_class(folder, labels) for folder in folders}
    except TargetError:
        complete = labels is not None and len(folders) == len(labels)
        classes = {folder: i for i, folder in enumerate(folders)} if complete else {}
    return [classes.get(entry.folder) for entry in entries]


def _read_truth(path: Path) -> Mapping[str, int | str]:
    """Read true classes from a file."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix.lower() == ".json":
            found = json.loads(text)
            if not isinstance(found, dict):
                raise ValueError("it is no mapping")
            return found
        rows = [row for row in csv.reader(text.splitlines()) if any(row)]
        if not rows or min(map(len, rows)) < 2:
            raise ValueError("it has no two columns")
    except (OSError, ValueError) as error:
        raise ParameterError(
            f"the true classes cannot be read from {path} ({error})",
            "a CSV file with a picture and its label in each line, or a JSON mapping",
            'write lines such as "cat-1.jpg,tabby"',
        ) from error
    return {row[0].strip(): row[1].strip() for row in rows}


def is_truth_file(path: str | os.PathLike[str]) -> bool:
    """Tell whether a file holds the classes of pictures, not the names of classes.

    Parameters
    ----------
    path : path
        A text file.

    Returns
    -------
    bool
        Whether each line has two columns and the first is called like a picture's file, but for a
        line of titles; or it is JSON with a mapping.
    """
    try:
        known = _read_truth(Path(path).expanduser())
    except CnnvizError:
        return False
    return any(Path(name).suffix.lower() in _SUFFIXES for name in known)
