"""Masks of objects from files, arrays, polygons and run lengths, read when they are needed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from cnnviz_core.errors import ArrayError, ImageError
from cnnviz_core.metric import IGNORED
from cnnviz_core.model import Array

__all__ = ["Mask", "MaskArray", "MaskFile", "MaskPart", "Polygons", "Runs", "decode_runs"]


class MaskPart(Protocol):
    """What tells some of an object's pixels."""

    @property
    def size(self) -> tuple[int, int] | None:
        """Its (height, width); None where only reading tells."""
        ...

    def pixels(self) -> Array:
        """Give its pixels, (h, w) of uint8: 1, 0 or `IGNORED`."""
        ...

    def described(self) -> Any:
        """Give what makes it this one, as JSON values."""
        ...


@dataclass(frozen=True, eq=False)
class Mask:
    """The pixels of all objects of one class of a picture.

    Attributes
    ----------
    parts : tuple of MaskPart
        One or more, such as one for each object.
    """

    parts: tuple[MaskPart, ...]

    def read(self, size: tuple[int, int]) -> Array:
        """Read the mask.

        Parameters
        ----------
        size : tuple of int
            (height, width) of the picture; parts of another size are brought to it, each pixel
            taking the value on which its centre lies.

        Returns
        -------
        ndarray (H, W) of uint8
            1 where some part has the object, else `IGNORED` where some part has that, else 0.

        Raises
        ------
        ImageError
            If a file cannot be read.
        """
        ranks = np.zeros(size, np.uint8)
        for part in self.parts:
            values = _at_size(part.pixels(), size)
            rank = np.select([values == 1, values == IGNORED], [2, 1], 0)
            ranks = np.maximum(ranks, rank.astype(np.uint8))
        return np.array([0, IGNORED, 1], np.uint8)[ranks]

    def described(self) -> Any:
        """Give what makes it this one, as JSON values."""
        return [part.described() for part in self.parts]


@dataclass(frozen=True)
class MaskFile:
    """A mask in a picture's file.

    Attributes
    ----------
    path : Path
        A file of one channel, or of several alike.
    name : str
        The path as the data set has it.
    value : int or None
        The value of the object's pixels, as in a picture of categories; 255 is ignored then.  None
        for a file of one object: see `as_mask`.
    """

    path: Path
    name: str
    value: int | None = None

    @property
    def size(self) -> None:
        """Not known before the file is opened."""
        return None

    def pixels(self) -> Array:
        """Give its pixels; see `MaskPart`."""
        from PIL import Image

        try:
            with Image.open(self.path) as image:
                values = np.asarray(image)
        # Decoders raise all sorts of exceptions on damaged data.
        except Exception as error:
            raise ImageError(
                f"the mask {self.path} cannot be read: {error}",
                "a picture of one channel, such as a PNG of category numbers",
                "check the file",
            ) from None
        if values.ndim == 3:
            transparent = values.shape[2] in (2, 4)
            values = values[..., : -1 if transparent else None].max(-1)
        if self.value is None:
            return as_mask(values)
        ignored = (values == IGNORED) & (self.value != IGNORED)
        return np.select([values == self.value, ignored], [1, IGNORED], 0).astype(np.uint8)

    def described(self) -> Any:
        """Give its name, its length in bytes and its value."""
        length = self.path.stat().st_size if self.path.is_file() else None
        return [self.name, length, self.value]


@dataclass(frozen=True, eq=False)
class MaskArray:
    """A mask in memory.

    Attributes
    ----------
    values : ndarray (h, w)
        Numbers or bool; see `as_mask`.
    """

    values: Array

    @property
    def size(self) -> tuple[int, int]:
        """The array's size."""
        height, width = self.values.shape
        return height, width

    def pixels(self) -> Array:
        """Give its pixels; see `MaskPart`."""
        return as_mask(self.values)

    def described(self) -> Any:
        """Give the shape and a digest of the values."""
        return [*self.size, hashlib.sha256(self.pixels().tobytes()).hexdigest()]


@dataclass(frozen=True)
class Polygons:
    """The inside of polygons.

    Attributes
    ----------
    rings : tuple of tuple of float
        Each x, y, x, y, ... in pixels; a pixel is inside if its centre is inside one of them.
    size : tuple of int
        (height, width) of the picture.
    """

    rings: tuple[tuple[float, ...], ...]
    size: tuple[int, int]

    def pixels(self) -> Array:
        """Give its pixels; see `MaskPart`."""
        from skimage.draw import polygon

        mask = np.zeros(self.size, np.uint8)
        for ring in self.rings:
            # scikit-image has pixel centres at whole numbers.
            x, y = np.asarray(ring).reshape(-1, 2).T - 0.5
            mask[polygon(y, x, self.size)] = 1
        return mask

    def described(self) -> Any:
        """Give the corners."""
        return [*self.size, [list(ring) for ring in self.rings]]


@dataclass(frozen=True)
class Runs:
    """Run lengths, column by column, of pixels that are not the object's and that are, by turns.

    Attributes
    ----------
    counts : tuple of int
        The lengths; they add up to the number of pixels.
    size : tuple of int
        (height, width) of the picture.
    ignored : bool
        Whether the pixels are to count for nothing, as those of a crowd.
    """

    counts: tuple[int, ...]
    size: tuple[int, int]
    ignored: bool = False

    def __post_init__(self) -> None:
        if min(self.counts, default=-1) < 0 or sum(self.counts) != self.size[0] * self.size[1]:
            raise ArrayError(
                f"the run lengths add up to {sum(self.counts)}, and the picture has "
                f"{self.size[0]} x {self.size[1]} pixels",
                "lengths of 0 or more that add up to all pixels",
                "check the picture's size",
            )

    def pixels(self) -> Array:
        """Give its pixels; see `MaskPart`."""
        values = np.zeros(len(self.counts), np.uint8)
        values[1::2] = IGNORED if self.ignored else 1
        return np.repeat(values, self.counts).reshape(self.size, order="F")

    def described(self) -> Any:
        """Give the lengths."""
        return [*self.size, list(self.counts), self.ignored]


def as_mask(values: Array) -> Array:
    """Make a mask of the values of one object's file or array.

    Parameters
    ----------
    values : ndarray (h, w)
        Numbers or bool.

    Returns
    -------
    ndarray (h, w) of uint8
        1 where there is a value other than 0.  Where some of these are 255 and others not, 255 is
        `IGNORED`; a mask of 0 and 255 alone has its object at 255.
    """
    some = values != 0
    ignored = (values == IGNORED) & some
    mask = some.astype(np.uint8)
    if (some & ~ignored).any():
        mask[ignored] = IGNORED
    return mask


def decode_runs(text: str) -> tuple[int, ...]:
    """Read run lengths from the text in which COCO's tools write them.

    Each length is a number in groups of five bits, the lowest first, a character (of code 48 and
    more) a group; bit 5 says that more follow, bit 4 of the last is the sign.  From the fourth
    length on it is the difference to the length before the last.

    Parameters
    ----------
    text : str
        Such as "61X13mN000`0".

    Returns
    -------
    tuple of int

    Raises
    ------
    ArrayError
        If it is no such text.

    Examples
    --------
    >>> decode_runs("61X13mN000`0")
    (6, 1, 40, 4, 5, 4, 5, 4, 21)
    """
    counts: list[int] = []
    value = shift = 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64:
            raise _unreadable(text)
        value |= (code & 31) << shift
        shift += 5
        if not code & 32:
            value -= (1 << shift) if code & 16 else 0
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    if shift:
        raise _unreadable(text)
    return tuple(counts)


def _unreadable(text: str) -> ArrayError:
    """Say that a text holds no run lengths."""
    shown: Sequence[str] = text[:20]
    return ArrayError(
        f"{shown!r} holds no run lengths",
        "a text that COCO's tools wrote",
        "write the lengths as a list of numbers",
    )


def _at_size(mask: Array, size: tuple[int, int]) -> Array:
    """Bring a mask to another size: each pixel takes the value on which its centre lies."""
    rows, columns = (
        ((np.arange(new) + 0.5) * (old / new)).astype(int)
        for old, new in zip(mask.shape, size, strict=True)
    )
    return mask if mask.shape == size else mask[np.ix_(rows, columns)]
