"""A window that slides over a sample: the positions under occlusion and its kin."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from itertools import product
from typing import Literal, TypeAlias

import numpy as np

from cnnviz_core.errors import ParameterError
from cnnviz_core.model import Array

__all__ = ["Shape", "Windows"]

Shape: TypeAlias = Literal["box", "disc"]
"""What of a window counts: all of it, or the disc inscribed in it (of volumes the ball)."""


@dataclass(frozen=True)
class Windows:
    """The positions of a sliding window that together cover every pixel.

    Boxes stay within the sample, the last of each axis flush with its edge.  Discs reach over the
    edges, as corners would be left out otherwise: it is the boxes inscribed in them that stay
    within it.  Iterating gives the part of the sample that each window lies over, row by row, as a
    tuple of slices, one for each axis.

    Attributes
    ----------
    size : tuple of int
        The sample's positions along each axis: (H, W) of pictures, (L,) of signals, (D, H, W) of
        volumes.
    side : int
        The window's side along every axis.
    starts : tuple of tuples of int
        Where the windows begin along each axis, in order; before 0 where they reach over the edge.
    shape : {"box", "disc"}
        What of a window counts.

    Examples
    --------
    >>> [(window.start, window.stop) for window in Windows.over((10,), 4, 3).along[0]]
    [(0, 4), (3, 7), (6, 10)]
    """

    size: tuple[int, ...]
    side: int
    starts: tuple[tuple[int, ...], ...]
    shape: Shape = "box"

    @classmethod
    def over(
        cls,
        size: tuple[int, ...],
        window: int | None = None,
        stride: int | None = None,
        shape: Shape = "box",
    ) -> Windows:
        """Lay windows over a sample.

        Parameters
        ----------
        size : tuple of int
            Its positions along each axis.
        window : int, optional
            The window's side along every axis; if left out, a seventh of the shortest axis (32 of
            224).  An axis that is shorter is covered whole by boxes.
        stride : int, optional
            The window's step; if left out, a quarter of the window.
        shape : {"box", "disc"}
            What of a window counts.

        Returns
        -------
        Windows

        Raises
        ------
        ParameterError
            If the stride is so large that some pixels would not be covered: larger than the window,
            or for discs than the box inscribed in them.
        """
        side = window or max(1, min(size) // 7)
        step = stride or max(1, side // 4)
        inner = side if shape == "box" else _inscribed(side, len(size))
        if step > inner:
            widest = (
                f"window={side}"
                if shape == "box"
                else f"{inner}, the side of the box inscribed in a disc of window={side}"
            )
            raise ParameterError(
                f"stride={step} is larger than {widest}: some pixels would never be covered",
                f"a stride of at most {inner}",
                f"pass stride={max(1, side // 4)}, or leave it out",
            )
        beyond = (side - inner) // 2
        starts = (_starts(extent, inner, step) for extent in size)
        return cls(size, side, tuple(tuple(s - beyond for s in along) for along in starts), shape)

    @property
    def along(self) -> tuple[tuple[slice, ...], ...]:
        """What the windows lie over along each axis, in order."""
        return tuple(
            tuple(slice(max(s, 0), min(s + self.side, extent)) for s in starts)
            for extent, starts in zip(self.size, self.starts, strict=True)
        )

    @property
    def grid(self) -> tuple[int, ...]:
        """How many positions there are along each axis."""
        return tuple(map(len, self.starts))

    def __len__(self) -> int:
        return int(np.prod(self.grid))

    def __iter__(self) -> Iterator[tuple[slice, ...]]:
        return product(*self.along)

    def place(self, index: int) -> tuple[tuple[slice, ...], Array]:
        """Tell what one window covers.

        Parameters
        ----------
        index : int
            Which, in the order of iteration.

        Returns
        -------
        part : tuple of slice
            The part of the sample that the window lies over, one for each axis.
        inside : ndarray of bool
            Of the part's shape: what of it the window covers.
        """
        at = np.unravel_index(index, self.grid)
        begin = [starts[i] for starts, i in zip(self.starts, at, strict=True)]
        part = tuple(
            slice(max(b, 0), min(b + self.side, extent))
            for b, extent in zip(begin, self.size, strict=True)
        )
        if self.shape == "box":
            return part, np.ones([p.stop - p.start for p in part], dtype=bool)
        # Twice the distances from the middle are whole numbers, so that nothing is rounded.
        squares = [
            (2 * (np.arange(p.start, p.stop) - b) - (self.side - 1)) ** 2
            for p, b in zip(part, begin, strict=True)
        ]
        return part, reduce(np.add.outer, squares) <= self.side**2

    def mean(self, values: Array) -> Array:
        """Average, at each pixel, what was found under the windows that cover it.

        Parameters
        ----------
        values : ndarray (T, len(self))
            T values for each window, in the order of iteration.

        Returns
        -------
        ndarray (T, *size)
            Of the same type; summed in float64.
        """
        if self.shape == "box":
            return self._box_mean(values)
        total = np.zeros((len(values), *self.size))
        covered = np.zeros(self.size)
        for index, found in zip(range(len(self)), values.T, strict=True):
            part, inside = self.place(index)
            total[:, *part] += found.reshape(-1, *(1 for _ in self.size)) * inside
            covered[part] += inside
        return (total / covered).astype(values.dtype)

    def indicators(self) -> list[Array]:
        """Tell which positions lie in the box of each start, for each axis: (starts, extent)."""
        after = [
            np.arange(extent) - np.asarray(starts)[:, None]
            for extent, starts in zip(self.size, self.starts, strict=True)
        ]
        return [(a >= 0) & (a < self.side) for a in after]

    def _box_mean(self, values: Array) -> Array:
        """Average what was found under boxes: along each axis a product of matrices."""
        total = values.astype(np.float64).reshape(len(values), *self.grid)
        covered = np.ones(())
        for inside in self.indicators():
            # The axis in front becomes the last one, so that after all of them the order is back.
            total = np.moveaxis(total, 1, -1) @ inside.astype(np.float64)
            covered = np.multiply.outer(covered, inside.sum(0))
        return (total / covered).astype(values.dtype)

    def spread(self, values: Array) -> Array:
        """Show at each pixel what was found under the window whose middle is nearest.

        Parameters
        ----------
        values : ndarray (*grid)
            One value for each window.

        Returns
        -------
        ndarray (*size)
            Of two middles equally near, the first counts.
        """
        nearest = [
            np.abs(np.arange(extent)[:, None] - np.add(starts, (self.side - 1) / 2)).argmin(1)
            for extent, starts in zip(self.size, self.starts, strict=True)
        ]
        return values[np.ix_(*nearest)]


def _inscribed(side: int, axes: int) -> int:
    """Give the side of the largest box with a disc's middle whose corners the disc covers."""
    return next(m for m in range(side, 0, -2) if axes * (m - 1) ** 2 <= side**2)


def _starts(extent: int, side: int, step: int) -> list[int]:
    """Give where windows begin along one axis; one that is longer than the axis is centred."""
    if extent <= side:
        return [(extent - side) // 2]
    return [*range(0, extent - side, step), extent - side]
