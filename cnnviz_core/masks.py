"""Masks as compact descriptions: what of a sample is kept, drawn a batch at a time when needed.

A mask is 1 where a sample is kept, 0 where it is taken away, and anything between where the two are
blended.  Thousands of them at the size of a picture would fill the memory; what describes them, a
window's place or which segments are kept, does not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from cnnviz_core.errors import ArrayError
from cnnviz_core.maps import resize_matrix
from cnnviz_core.mask_forms import Affine, Drawn, Labelled, MaskForm, NumPyArrays, Separable, draw
from cnnviz_core.model import Array
from cnnviz_core.windows import Windows

__all__ = ["FeatureMasks", "GridMasks", "Masks", "SegmentMasks", "WindowMasks", "drawn"]


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

    def form(self, start: int, stop: int) -> MaskForm:
        """Describe some of the masks.

        Parameters
        ----------
        start, stop : int
            Which, as of a slice.

        Returns
        -------
        MaskForm
            Of the shape (stop - start, *size); the same ones, but for rounding, whenever they are
            asked for.  `Drawn` takes them as they are.
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

    def form(self, start: int, stop: int) -> MaskForm:
        """Describe some of the masks; see `Masks.form`."""
        asked = range(len(self))[start:stop]
        covered = self._boxes(asked) if self.windows.shape == "box" else self._discs(asked)
        return covered if self.keep else Affine(covered, -1.0, 1.0)

    def _boxes(self, asked: range) -> Separable:
        """Describe windows that are boxes: along each axis a position is in them or not."""
        at = np.unravel_index(np.arange(asked.start, asked.stop), self.windows.grid)
        indicators = self.windows.indicators()
        along = [inside[index][:, None] for inside, index in zip(indicators, at, strict=True)]
        return Separable(np.ones((len(asked), *(1 for _ in self.size)), dtype=bool), along)

    def _discs(self, asked: range) -> Drawn:
        """Draw windows that are discs."""
        covered = np.zeros((len(asked), *self.size), dtype=bool)
        for mask, index in zip(covered, asked, strict=True):
            part, inside = self.windows.place(index)
            mask[part] = inside
        return Drawn(covered)


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

    def form(self, start: int, stop: int) -> MaskForm:
        """Describe some of the masks; see `Masks.form`."""
        return Labelled(self.segments, self.kept[start:stop])


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

    def form(self, start: int, stop: int) -> MaskForm:
        """Describe some of the masks; see `Masks.form`."""
        values = self.values[start:stop]
        return Separable(values, _enlarging(values.shape[1:], self.size, self.how))


@dataclass(frozen=True, eq=False)
class FeatureMasks:
    """Masks that are feature maps, brought to a sample's size and then to [0, 1].

    A feature map that is constant keeps nothing.

    Attributes
    ----------
    features : ndarray (*grid, K)
        The feature maps of one sample, one for each mask.
    size : tuple of int
        A sample's positions along each axis, as many axes as the grid has.
    share : float
        By what each mask is multiplied.
    shift : float or ndarray (*size)
        What is added to it.
    """

    features: Array
    size: tuple[int, ...]
    share: float = 1.0
    shift: Array | float = 0.0

    def __len__(self) -> int:
        return self.features.shape[-1]

    def form(self, start: int, stop: int) -> MaskForm:
        """Describe some of the masks; see `Masks.form`."""
        values = np.moveaxis(self.features[..., start:stop], -1, 0)
        # Of a constant the interpolation's rounding would be stretched, but not of zeros.
        values = values - values.min(tuple(range(1, values.ndim)), keepdims=True)
        weights = _enlarging(values.shape[1:], self.size, "bilinear")
        seen = Separable(values, weights, stretch=True)
        plain = self.share == 1 and np.ndim(self.shift) == 0 and self.shift == 0
        return seen if plain else Affine(seen, self.share, self.shift)


def drawn(masks: Masks, start: int, stop: int, dtype: npt.DTypeLike = np.float32) -> Array:
    """Draw some of the masks described.

    Parameters
    ----------
    masks : Masks
        Their description.
    start, stop : int
        Which, as of a slice.
    dtype : dtype
        In which floating-point type.

    Returns
    -------
    ndarray (stop - start, *size)
    """
    values: Array = draw(masks.form(start, stop), NumPyArrays(dtype))
    return values


def _enlarging(
    grid: tuple[int, ...], size: tuple[int, ...], how: Literal["nearest", "bilinear"]
) -> list[Array]:
    """Give the weights that bring a grid to a size, for each axis (cells, positions)."""
    return [resize_matrix(g, extent, how).T for g, extent in zip(grid, size, strict=True)]
