"""The ``Inspector`` protocol: what a network has learnt, not why it gave one answer.

An explainer gives a map for each sample; an inspector looks at a network, perhaps on pictures, and
gives findings: named arrays, and exhibits that show them.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Protocol, runtime_checkable

import numpy as np

from cnnviz_core.errors import ArrayError
from cnnviz_core.exhibits import Exhibit
from cnnviz_core.labels import label_of
from cnnviz_core.model import Array, Model
from cnnviz_core.pixels import PixelSpace
from cnnviz_core.targets import Target

__all__ = ["ArrayPictures", "Batch", "Findings", "Inspector", "Pictures", "Subject"]


@dataclass(frozen=True, eq=False)
class Batch:
    """Some pictures of a collection, prepared for a network.

    Attributes
    ----------
    indices : tuple of int
        Which pictures of the collection they are.
    x : ndarray (n, H, W, C)
        In the network's own value range.
    """

    indices: tuple[int, ...]
    x: Array


class Pictures(ABC):
    """Pictures prepared for a network, read when they are needed.

    A collection may be far larger than memory: inspectors go through it by `batches` and keep what
    they must.
    """

    @property
    @abstractmethod
    def names(self) -> Sequence[str]:
        """What the pictures are called; two may have one name."""

    @property
    def truth(self) -> Sequence[int | None]:
        """The class of each picture; None where it is not known."""
        return [None] * len(self.names)

    @abstractmethod
    def read(self, index: int) -> Array | None:
        """Prepare one picture.

        Parameters
        ----------
        index : int
            Which.

        Returns
        -------
        ndarray (H, W, C), or None
            In the network's own value range, of one shape for all; None where the picture cannot be
            read, which is told in a warning once.
        """

    def original(self, index: int) -> Array | None:
        """Give one picture as it came, before it was prepared.

        Parameters
        ----------
        index : int
            Which.

        Returns
        -------
        ndarray (H, W, 3) of uint8, or None
            RGB at the picture's own size; None where there is none but the prepared one, or it
            cannot be read.
        """
        return None

    @property
    def identity(self) -> str:
        """A text that is another one for other pictures: what was found out is kept under it."""
        return json.dumps([len(self), *self.names])

    def __len__(self) -> int:
        return len(self.names)

    def batches(self, size: int, start: int = 0) -> Iterator[Batch]:
        """Go through the pictures; those that cannot be read are left out.

        Parameters
        ----------
        size : int
            How many at once, at most.
        start : int
            From which picture on.

        Yields
        ------
        Batch
            In order, never empty.
        """
        for first in range(start, len(self), size):
            chosen = range(first, min(first + size, len(self)))
            read = [(index, x) for index in chosen if (x := self.read(index)) is not None]
            if read:
                yield Batch(tuple(index for index, _ in read), np.stack([x for _, x in read]))

    def all(self) -> Batch:
        """Prepare all pictures at once: for the few that a person looks at.

        Returns
        -------
        Batch

        Raises
        ------
        ArrayError
            If there is none, or none can be read.
        """
        return self._some(max(1, len(self)))

    def first(self) -> Batch:
        """Prepare the first picture that can be read.

        Returns
        -------
        Batch
            Of one picture.

        Raises
        ------
        ArrayError
            If there is none, or none can be read.
        """
        return self._some(1)

    def _some(self, size: int) -> Batch:
        """Give the first batch."""
        found = next(self.batches(size), None)
        if found is None:
            raise ArrayError(
                "there is no picture to look at" if not len(self) else "no picture can be read",
                "at least one picture",
                "pass one, or a folder of them",
            )
        return found


@dataclass(frozen=True, eq=False)
class ArrayPictures(Pictures):
    """Prepared pictures in memory.

    Attributes
    ----------
    x : ndarray (N, H, W, C)
        In the network's own value range.
    given : tuple of str
        Their names; "picture 1" and so on where there are none.
    classes : tuple of (int or None)
        Their classes, where they are known.
    """

    x: Array
    given: tuple[str, ...] = ()
    classes: tuple[int | None, ...] = ()

    @property
    def names(self) -> Sequence[str]:
        """What they are called."""
        return self.given or tuple(f"picture {i + 1}" for i in range(len(self.x)))

    @property
    def truth(self) -> Sequence[int | None]:
        """Their classes."""
        return self.classes or super().truth

    def read(self, index: int) -> Array:
        """Give one picture."""
        return self.x[index]


@dataclass(frozen=True, eq=False)
class Subject:
    """What an inspector looks at.

    Attributes
    ----------
    model : Model
        The network.
    pictures : Pictures
        What to show it; empty for inspectors that look at the network alone.
    space : PixelSpace
        How its input values are colours.
    shape : tuple of int
        (H, W, C) of its input, which also the pictures have; (L, C) of signals, (D, H, W, C) of
        volumes.
    targets : tuple of Target
        What was asked for, one target for each picture, or one alone; empty where nothing was.
    labels : tuple of str, or None
        The names of the classes.
    name : str
        What the network is called.
    batch_size : int
        How many pictures go through it at once.
    """

    model: Model
    pictures: Pictures
    space: PixelSpace
    shape: tuple[int, ...]
    targets: tuple[Target, ...] = ()
    labels: tuple[str, ...] | None = None
    name: str = "the network"
    batch_size: int = 16

    def label(self, index: int) -> str:
        """Name a class.

        Parameters
        ----------
        index : int
            Its number.

        Returns
        -------
        str
            "class 7" where it has no name.
        """
        return label_of(index, self.labels)

    def target(self, i: int) -> Target | None:
        """Give what was asked of a picture.

        Parameters
        ----------
        i : int
            Which picture.

        Returns
        -------
        Target or None
            None where nothing was asked.
        """
        if not self.targets:
            return None
        return self.targets[i] if len(self.targets) > 1 else self.targets[0]


@dataclass(frozen=True, eq=False)
class Findings:
    """What an inspector found.

    Attributes
    ----------
    arrays : mapping of str to ndarray
        All numbers, named; the inspector's docstring gives their shapes and units.  Read-only.
    exhibits : tuple of Exhibit
        What is to be seen, the most telling first.
    facts : mapping of str to value
        What else there is to say, as JSON has it: numbers, texts, lists and mappings of these.
    title : str
        One line.
    frames : tuple of ndarray (H, W, 3) of uint8
        An animation; empty where there is none.
    """

    arrays: Mapping[str, Array]
    exhibits: tuple[Exhibit, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)
    title: str = ""
    frames: tuple[Array, ...] = ()

    def __post_init__(self) -> None:
        kept = {}
        for name, array in self.arrays.items():
            kept[name] = np.array(array)
            kept[name].flags.writeable = False
        object.__setattr__(self, "arrays", MappingProxyType(kept))
        object.__setattr__(self, "facts", MappingProxyType(dict(self.facts)))
        object.__setattr__(self, "exhibits", tuple(self.exhibits))
        object.__setattr__(self, "frames", tuple(self.frames))


@runtime_checkable
class Inspector(Protocol):
    """A way of looking into a network: a frozen dataclass whose fields are its parameters.

    Attributes
    ----------
    needs : frozenset of str
        The capabilities that a model must have (`Model.capabilities`).
    """

    @property
    def needs(self) -> frozenset[str]:
        """The capabilities that a model must have; of most inspectors a ``ClassVar``."""
        ...

    def inspect(self, subject: Subject) -> Findings:
        """Look.

        Parameters
        ----------
        subject : Subject
            The network, and what to show it.

        Returns
        -------
        Findings
        """
        ...
