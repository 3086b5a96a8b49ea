"""What a data set is made of: items, and the problems that were found in it."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

from cnnviz.datasets.masks import Mask
from cnnviz.images import Picture, read_picture
from cnnviz_core.errors import CnnvizError, ImageError
from cnnviz_core.model import Array

__all__ = ["Dataset", "DatasetError", "Item", "Kind", "Label", "Problem"]

Label: TypeAlias = str | int
"""A class as the annotation has it: its name, or its number."""

Kind: TypeAlias = Literal[
    "another size",
    "box not finite",
    "box outside",
    "box partly outside",
    "box without area",
    "box wrong way round",
    "duplicate",
    "malformed",
    "mask",
    "missing file",
    "no annotation",
    "no picture",
    "not visible",
    "unknown class",
    "unreadable file",
]
"""The kinds of problems, by which they are counted."""

_NAMED = 3


@dataclass(frozen=True)
class Problem:
    """Something that is wrong with a data set, and what became of it.

    Attributes
    ----------
    where : str
        The line, the object or the picture.
    what : str
        What is wrong, and what was done about it.
    remedy : str
        What a person can do.
    kind : str
        One of `Kind`, for counting.
    """

    where: str
    what: str
    remedy: str
    kind: Kind = "malformed"

    def __str__(self) -> str:
        return f"{self.where}: {self.what} ({self.remedy})"


class DatasetError(CnnvizError, ValueError):
    """Nothing of a data set can be used.

    Parameters
    ----------
    problem, expected, remedy : str
        As of every `CnnvizError`.
    problems : sequence of Problem
        All that was found wrong; the first are named in the message.

    Attributes
    ----------
    problems : tuple of Problem
        All that was found wrong.
    """

    def __init__(
        self, problem: str, expected: str, remedy: str, problems: Sequence[Problem] = ()
    ) -> None:
        if problems:
            first = "; ".join(f"{each.where}: {each.what}" for each in problems[:_NAMED])
            rest = f"; and {len(problems) - _NAMED} more" if len(problems) > _NAMED else ""
            noun = "problem" if len(problems) == 1 else "problems"
            problem = f"{problem} ({len(problems)} {noun}: {first}{rest})"
        super().__init__(problem, expected, remedy)
        self.problems = tuple(problems)


@dataclass(frozen=True, eq=False)
class Item:
    """One class of one picture.

    Attributes
    ----------
    id : str
        Unique in its data set, and the same whenever the data set is opened: the picture's path as
        the data set has it, and "#" and the class, where there is one.
    picture : Path or Picture
        Where it is read from, or the picture itself.
    size : tuple of int
        (height, width) of the picture as a viewer shows it.
    label : str, int or None
        The class as annotated; None where nothing is said.
    boxes : ndarray (B, 4) of float64
        All boxes of the class, (x0, y0, x1, y1) in the picture's own pixels, half-open, within the
        picture.
    mask : Mask or None
        The class's pixels.
    difficult : bool
        Whether all objects of the class are marked as difficult, or as a crowd.
    name : str
        What to call it: the picture's path as the data set has it.
    """

    id: str
    picture: Path | Picture
    size: tuple[int, int]
    label: Label | None = None
    boxes: Array = field(default_factory=lambda: np.zeros((0, 4)))
    mask: Mask | None = None
    difficult: bool = False
    name: str = ""

    def read(self) -> Picture:
        """Read the picture.

        Returns
        -------
        Picture

        Raises
        ------
        ImageError
            If its pixels are damaged, or it has changed since the data set was opened.
        """
        picture = read_picture(self.picture, name=self.name or None)
        if picture.size != self.size:
            raise ImageError(
                f"{self.name} is {_by(picture.size)}, and was {_by(self.size)} when the data set "
                "was opened",
                "files that stay as they are, with their orientation noted before the pixels",
                "open the data set again, or save the picture upright",
            )
        return picture

    def read_mask(self) -> Array | None:
        """Read the mask.

        Returns
        -------
        ndarray (H, W) of uint8, or None
            At the picture's size: 1 where the object is, 0, or `cnnviz_core.metric.IGNORED`.

        Raises
        ------
        ImageError
            If a mask's file cannot be read.
        """
        return None if self.mask is None else self.mask.read(self.size)

    @property
    def fingerprint(self) -> str:
        """A text that is another one for another picture or annotation, wherever it lies.

        Of a picture's file its length counts, so that pixels need not be read.
        """
        if isinstance(self.picture, Picture):
            content: Any = hashlib.sha256(self.picture.pixels.tobytes()).hexdigest()
        else:
            content = self.picture.stat().st_size if self.picture.is_file() else None
        mask = None if self.mask is None else self.mask.described()
        known = [self.id, self.label, self.size, content, self.boxes.tolist(), mask, self.difficult]
        return hashlib.sha256(json.dumps(known).encode()).hexdigest()


@dataclass(frozen=True, eq=False)
class Dataset:
    """Annotated pictures, of which the pixels are read when they are needed.

    Attributes
    ----------
    items : tuple of Item
        One for each class of each picture.
    problems : tuple of Problem
        All that was found wrong when it was opened.
    name : str
        What to call it.
    format : str
        What it was read as, one of the formats of `open_dataset`.
    notes : tuple of str
        What is not wrong, and yet good to know: how it was read, where there is a choice.
    """

    items: tuple[Item, ...]
    problems: tuple[Problem, ...] = ()
    name: str = ""
    format: str = ""
    notes: tuple[str, ...] = ()

    @cached_property
    def classes(self) -> tuple[Label, ...]:
        """The classes of the items, numbers in their order, then names in theirs."""
        found = {item.label for item in self.items if item.label is not None}
        return tuple(
            sorted(found, key=lambda c: (isinstance(c, str), c if isinstance(c, int) else 0, c))
        )

    @cached_property
    def counts(self) -> dict[str, int]:
        """How many problems there are of each kind, the most frequent first."""
        return dict(Counter(problem.kind for problem in self.problems).most_common())

    @cached_property
    def fingerprint(self) -> str:
        """A text that is another one for other pictures or annotations; see `Item.fingerprint`."""
        digest = hashlib.sha256()
        for item in self.items:
            digest.update(item.fingerprint.encode())
        return digest.hexdigest()

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Item]:
        return iter(self.items)

    def __getitem__(self, index: int) -> Item:
        return self.items[index]

    def __repr__(self) -> str:
        return (
            f"<Dataset {self.name!r} ({self.format}): {len(self.items)} items, "
            f"{len(self.classes)} classes, {len(self.problems)} problems>"
        )


def _by(size: tuple[int, ...]) -> str:
    """Write (height, width) as people do."""
    return f"{size[1]} x {size[0]}"
