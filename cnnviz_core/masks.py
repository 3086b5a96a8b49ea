"""Masks as compact descriptions: what of a sample is kept, made a batch at a time where it is used.

A mask is 1 where a sample is kept, 0 where it is taken away, and anything between where the two are
blended.  Thousands of them at the size of a picture would fill the memory; what describes them, a
window's place or which segments are kept, does not.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from cnnviz_core.errors import ArrayError
from cnnviz_core.maps import resize
from cnnviz_core.model import Array
from cnnviz_core.windows import Windows

__all__ = ["GridMasks", "Masks", "SegmentMasks", "WindowMasks", "batches_of"]


class Masks(Protocol):
    """A number of masks of one size; any class with these members will do.

    Attributes
    ----------
    size : tuple of int
        A sample's positions along each axis: (H, W) of pictures, (L,) of signals, (D, H, W) of
        volumes.
    """

    @property
    def size(self) -> tuple[int, ...]:
        """A sample's positions along each axis."""
        ...

    def __len__(self) -> int: ...

    def make(self, start: int, stop: int) -> Array:
        """Make some of the masks.

        Parameters
        ----------
        start, stop : int
            Which, as of a slice.

        Returns
        -------
        ndarray of float32 (stop - start, *size)
            In [0, 1]; the same ones, but for rounding, whenever they are asked for.
        """
        ...


@dataclass(frozen=True)
class WindowMasks:
    """Masks that take a sliding window away, or keep nothing else.

    Attributes
    ----------
    windows : Windows
        The windows, one for each mask.
    keep : bool
        Whether the window is what is kept.
    """

    windows: Windows
    keep: bool = False

    @property
    def size(self) -> tuple[int, ...]:
        """A sample's positions along each axis."""
        return self.windows.size

    def __len__(self) -> int:
        return len(self.windows)

    def make(self, start: int, stop: int) -> Array:
        """Make some of the masks; see `Masks.make`."""
        asked = range(len(self))[start:stop]
        made = np.full((len(asked), *self.size), 0 if self.keep else 1, np.float32)
        for mask, index in zip(made, asked, strict=True):
            part, inside = self.windows.place(index)
            mask[part][inside] = 1 if self.keep else 0
        return made


@dataclass(frozen=True, eq=False)
class SegmentMasks:
    """Masks that keep some of a sample's segments.

    Attributes
    ----------
    segments : ndarray of int (*size)
        The number of each position's segment, from 0.
    kept : ndarray (M, K)
        For each mask, how much of each of the K segments is kept, in [0, 1].
    """

    segments: Array
    kept: Array

    def __post_init__(self) -> None:
        if self.kept.ndim != 2 or self.segments.size == 0 or self.segments.min() < 0:
            raise ArrayError(
                f"segments of the shape {self.segments.shape} with kept ones of {self.kept.shape}",
                "a number from 0 for each position, and (masks, segments)",
                "count the segments from 0",
            )
        if self.segments.max() >= self.kept.shape[1]:
            raise ArrayError(
                f"there is a segment {int(self.segments.max())}, and {self.kept.shape[1]} are told "
                "of",
                "a column for each segment",
                "count the segments from 0",
            )

    @property
    def size(self) -> tuple[int, ...]:
        """A sample's positions along each axis."""
        return self.segments.shape

    def __len__(self) -> int:
        return len(self.kept)

    def make(self, start: int, stop: int) -> Array:
        """Make some of the masks; see `Masks.make`."""
        made: Array = self.kept[start:stop].astype(np.float32)[:, self.segments]
        return made


@dataclass(frozen=True, eq=False)
class GridMasks:
    """Masks that are coarse grids, brought to a sample's size.

    Attributes
    ----------
    values : ndarray (M, *grid)
        In [0, 1].
    size : tuple of int
        A sample's positions along each axis, as many axes as the grid has.
    how : {"nearest", "bilinear"}
        How they are resized.
    """

    values: Array
    size: tuple[int, ...]
    how: Literal["nearest", "bilinear"] = "bilinear"

    def __len__(self) -> int:
        return len(self.values)

    def make(self, start: int, stop: int) -> Array:
        """Make some of the masks; see `Masks.make`."""
        made = resize(self.values[start:stop].astype(np.float32), self.size, self.how)
        return np.clip(made, 0, 1, out=made)  # weights that sum to 1 but for their rounding


def batches_of(masks: Masks, batch_size: int) -> Iterator[Array]:
    """Make masks, a batch at a time.

    Parameters
    ----------
    masks : Masks
        Their description.
    batch_size : int
        How many at once.

    Yields
    ------
    ndarray of float32 (n, *size)
        The next ones; the last batch may be smaller.
    """
    for k in range(math.ceil(len(masks) / batch_size)):
        yield masks.make(k * batch_size, min((k + 1) * batch_size, len(masks)))
