"""From what a format says of pictures to checked items: all formats meet here."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from cnnviz.datasets.boxes import Box, checked_box
from cnnviz.datasets.headers import Header, header_of
from cnnviz.datasets.items import Dataset, DatasetError, Item, Kind, Label, Problem
from cnnviz.datasets.masks import Mask, MaskFile, MaskPart
from cnnviz.images import Picture
from cnnviz_core.errors import ImageError

__all__ = ["Builder", "Classes", "Listed", "Sighting"]

Classes: TypeAlias = Sequence[Label] | Mapping[Any, Label] | None
"""The classes to take; a mapping says what they are called from then on."""


@dataclass(frozen=True, eq=False)
class Sighting:
    """What a format says of one object; any part may be missing.

    Attributes
    ----------
    where : str
        Where it says so.
    label : str, int or None
        The class.
    box : tuple of float, or None
        (x0, y0, x1, y1), half-open; not checked.
    mask : MaskPart or None
        Its pixels.
    difficult : bool
        Whether it is marked as difficult.
    """

    where: str
    label: Label | None = None
    box: Box | None = None
    mask: MaskPart | None = None
    difficult: bool = False


@dataclass(eq=False)
class Listed:
    """What a format says of one picture.

    Attributes
    ----------
    where : str
        Where it says so.
    name : str
        The picture's path as the format has it, with slashes.
    source : Path or Picture
        The picture.
    sightings : list of Sighting
        Its objects.
    size : tuple of int, or None
        (height, width) of the picture that was annotated, where the format says it.
    rescaled : bool
        Whether that may be another size than the file's: boxes are then scaled without a word.
    """

    where: str
    name: str
    source: Path | Picture
    sightings: list[Sighting] = field(default_factory=list)
    size: tuple[int, int] | None = None
    rescaled: bool = False


class Builder:
    """Checks what a format says, picture by picture, and makes items of it.

    Parameters
    ----------
    classes : sequence, mapping or None
        The classes to take; all if None.
    annotated : bool
        Whether a picture of which nothing is known is left out.

    Attributes
    ----------
    problems : list of Problem
        All that was found wrong so far; readers add theirs.
    notes : list of str
        What is good to know of how it was read.
    """

    def __init__(self, classes: Classes = None, *, annotated: bool = True) -> None:
        self.problems: list[Problem] = []
        self.notes: list[str] = []
        self._wanted = _wanted(classes)
        self._met: set[str] = set()
        self._left_out: Counter[str] = Counter()
        self._annotated = annotated
        self._items: list[Item] = []
        self._seen: set[str] = set()
        self._masks: dict[Path, Header | None] = {}

    def report(self, kind: Kind, where: str, what: str, remedy: str) -> None:
        """Note a problem.

        Parameters
        ----------
        kind, where, what, remedy : str
            As of `Problem`.
        """
        self.problems.append(Problem(where, what, remedy, kind))

    def add(self, listed: Listed) -> None:
        """Check a picture and its objects.

        Parameters
        ----------
        listed : Listed
            What the format says.
        """
        header = self._header(listed) if self._is_new(listed) else None
        if header is None:
            return
        wanted = [s for s in listed.sightings if self._takes(s)]
        if listed.sightings and not wanted:
            return
        scale = self._scale(listed, header)
        groups: dict[str, _Group] = {}
        for sighting in wanted:
            label = self._label(sighting)
            group = groups.setdefault(str(label), _Group(label))
            self._gather(group, sighting, header.size, scale)
        found = [g for g in groups.values() if g.known or not self._annotated]
        if not found:
            self.report(
                "no annotation",
                listed.where,
                f"nothing usable is said of {listed.name}; it is left out",
                "annotate it, or take it out of the list",
            )
        self._items += [group.item(listed, header.size) for group in found]

    def dataset(self, name: str, format: str) -> Dataset:
        """Give all that was added.

        Parameters
        ----------
        name : str
            What to call the data set.
        format : str
            What it was read as.

        Returns
        -------
        Dataset

        Raises
        ------
        DatasetError
            If nothing is left of it.
        """
        self._report_classes()
        if not self._items:
            raise DatasetError(
                f"nothing of {name} can be used",
                "at least one picture that can be read"
                + (", with an annotation" if self._annotated else ""),
                f"{self.problems[0].remedy}; the error's problems lists all"
                if self.problems
                else "check what was passed",
                self.problems,
            )
        items, problems, notes = tuple(self._items), tuple(self.problems), tuple(self.notes)
        return Dataset(items, problems, name, format, notes)

    def _is_new(self, listed: Listed) -> bool:
        """Note a picture that is listed a second time, under its name or another."""
        keys = {listed.name}
        if isinstance(listed.source, Path):
            keys.add(os.path.abspath(listed.source))
        if keys & self._seen:
            self.report(
                "duplicate",
                listed.where,
                f"the picture {listed.name} is listed a second time; this one is left out",
                "list each picture once",
            )
            return False
        self._seen |= keys
        return True

    def _header(self, listed: Listed) -> Header | None:
        """Find a picture's size, or note why it cannot be found."""
        if isinstance(listed.source, Picture):
            return Header(listed.source.size)
        try:
            return header_of(listed.source)
        except FileNotFoundError:
            self.report(
                "missing file",
                listed.where,
                f"there is no file {listed.source}; the picture is left out",
                "check the path, or pass images=FOLDER, the folder from which paths begin",
            )
        except ImageError as error:
            self.report("unreadable file", listed.where, error.problem, error.remedy)
        return None

    def _takes(self, sighting: Sighting) -> bool:
        """Say whether an object's class is one of those asked for."""
        if self._wanted is None:
            return True
        text = _folded(sighting.label)
        if text in self._wanted:
            self._met.add(text)
            return True
        self._left_out["" if sighting.label is None else str(sighting.label)] += 1
        return False

    def _label(self, sighting: Sighting) -> Label | None:
        """Give what an object's class is called from now on."""
        return sighting.label if self._wanted is None else self._wanted[_folded(sighting.label)]

    def _report_classes(self) -> None:
        """Note the classes that were not asked for, and those that were and are not there."""
        for label, n in sorted(self._left_out.items()):
            self.report(
                "unknown class",
                f"class {label!r}" if label else "objects without a class",
                f"{n} of them left out: not among the classes asked for",
                "add the class to classes=, if it is wanted",
            )
        for label in self._wanted or ():
            if label not in self._met:
                self.report(
                    "unknown class",
                    f"class {label!r}",
                    "it was asked for, and no object is of it",
                    "check its spelling in classes=",
                )

    def _scale(self, listed: Listed, header: Header) -> tuple[float, float] | None:
        """Find what takes (x, y) of the annotated picture to the file's; None if unknown."""
        if listed.size is None or listed.size == header.size:
            return 1.0, 1.0
        (height, width), (h, w) = header.size, listed.size
        said = f"{listed.name} is {width} x {height}, and was annotated as {w} x {h}"
        if header.turned and (w, h) == header.size:
            self.report(
                "another size",
                listed.where,
                f"{said}, lying on its side; its boxes and masks are left out",
                "save the picture upright, and annotate it so",
            )
            return None
        if not listed.rescaled:
            self.report(
                "another size",
                listed.where,
                f"{said}; its boxes and masks are scaled",
                "check that the file is the one that was annotated",
            )
        return width / w, height / h

    def _gather(
        self,
        group: _Group,
        sighting: Sighting,
        size: tuple[int, int],
        scale: tuple[float, float] | None,
    ) -> None:
        """Add what is usable of an object to its class."""
        group.difficult.append(sighting.difficult)
        if scale is None:
            return
        if sighting.box is not None:
            box = self._box(sighting, size, scale)
            if box is not None and box in group.boxes:
                self.report(
                    "duplicate",
                    sighting.where,
                    "the same box of the same class is given a second time; it is counted once",
                    "take one of the two out",
                )
            elif box is not None:
                group.boxes.append(box)
        mask = sighting.mask
        new = mask is not None and mask not in group.masks
        if mask is not None and new and self._has(mask, sighting.where, size, scale):
            group.masks.append(mask)

    def _box(
        self, sighting: Sighting, size: tuple[int, int], scale: tuple[float, float]
    ) -> Box | None:
        """Bring a box to the file's pixels, and check it; None where it is left out."""
        given = np.asarray(sighting.box, dtype=np.float64) * np.tile(scale, 2)
        box, fault = checked_box(tuple(given.tolist()), size)
        if fault is not None:
            kind, what = fault
            self.report(kind, sighting.where, what, "correct the box")
        return box

    def _has(
        self, mask: MaskPart, where: str, size: tuple[int, int], scale: tuple[float, float]
    ) -> bool:
        """Check that a mask can be read, and note where its size is another one."""
        own = mask.size
        if isinstance(mask, MaskFile):
            if mask.path not in self._masks:
                self._masks[mask.path] = self._mask_header(mask, where)
            header = self._masks[mask.path]
            if header is None:
                return False
            own = (header.size[1], header.size[0]) if header.turned else header.size
        annotated = (round(size[0] / scale[1]), round(size[1] / scale[0]))
        if own is not None and own not in (size, annotated):
            self.report(
                "mask",
                where,
                f"the mask is {own[1]} x {own[0]} for a picture of {size[1]} x {size[0]}; "
                "it is scaled",
                "check that it is the picture's",
            )
        return True

    def _mask_header(self, mask: MaskFile, where: str) -> Header | None:
        """Find a mask's size, or note why it cannot be found."""
        try:
            return header_of(mask.path)
        except (FileNotFoundError, ImageError) as error:
            what = error.problem if isinstance(error, ImageError) else f"there is no {mask.path}"
            self.report("mask", where, f"{what}; the mask is left out", "check the path")
            return None


@dataclass(eq=False)
class _Group:
    """What was found of one class in one picture."""

    label: Label | None
    boxes: list[Box] = field(default_factory=list)
    masks: list[MaskPart] = field(default_factory=list)
    difficult: list[bool] = field(default_factory=list)

    @property
    def known(self) -> bool:
        """Whether anything is known."""
        return self.label is not None or bool(self.boxes or self.masks)

    def item(self, listed: Listed, size: tuple[int, int]) -> Item:
        """Make an item of it."""
        return Item(
            id=listed.name if self.label is None else f"{listed.name}#{self.label}",
            picture=listed.source,
            size=size,
            label=self.label,
            boxes=np.array(self.boxes, dtype=np.float64).reshape(-1, 4),
            mask=Mask(tuple(self.masks)) if self.masks else None,
            difficult=all(self.difficult),
            name=listed.name,
        )


def _wanted(classes: Classes) -> dict[str, Label] | None:
    """Give the classes to take, by the form in which names are compared."""
    if classes is None:
        return None
    if isinstance(classes, str):
        classes = [classes]
    pairs = classes.items() if isinstance(classes, Mapping) else ((c, c) for c in classes)
    return {_folded(key): label for key, label in pairs}


def _folded(label: Label | None) -> str:
    """Bring a class's name to the form in which names are compared."""
    return "" if label is None else str(label).strip().casefold()
