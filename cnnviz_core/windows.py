"""A window that slides over a sample: the positions under occlusion and its kin."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np

from cnnviz_core.errors import ParameterError
from cnnviz_core.model import Array

__all__ = ["Windows"]


@dataclass(frozen=True)
class Windows:
    """The positions of a sliding window, the last of each axis flush with the edge.

    Every pixel is covered by at least one.  Iterating gives what each window covers, row by row, as
    a tuple of slices, one for each axis.

    Attributes
    ----------
    size : tuple of int
        The sample's positions along each axis: (H, W) of pictures, (L,) of signals, (D, H, W) of
        volumes.
    along : tuple of tuples of slice
        What the windows cover along each axis, in order.

    Examples
    --------
    >>> [(window.start, window.stop) for window in Windows.over((10,), 4, 3).along[0]]
    [(0, 4), (3, 7), (6, 10)]
    """

    size: tuple[int, ...]
    along: tuple[tuple[slice, ...], ...]

    @classmethod
    def over(
        cls, size: tuple[int, ...], window: int | None = None, stride: int | None = None
    ) -> Windows:
        """Lay windows over a sample.

        Parameters
        ----------
        size : tuple of int
            Its positions along each axis.
        window : int, optional
            The window's side along every axis; if left out, a seventh of the shortest axis (32 of
            224).  An axis that is shorter is covered whole.
        stride : int, optional
            The window's step; if left out, a quarter of the window.

        Returns
        -------
        Windows

        Raises
        ------
        ParameterError
            If the stride is larger than the window.
        """
        side = window or max(1, min(size) // 7)
        step = stride or max(1, side // 4)
        if step > side:
            raise ParameterError(
                f"stride={step} is larger than window={side}: some pixels would never be covered",
                "a stride of at most the window",
                f"pass stride={max(1, side // 4)}, or leave it out",
            )
        return cls(size, tuple(_along(extent, side, step) for extent in size))

    @property
    def grid(self) -> tuple[int, ...]:
        """How many positions there are along each axis."""
        return tuple(map(len, self.along))

    def __len__(self) -> int:
        return int(np.prod(self.grid))

    def __iter__(self) -> Iterator[tuple[slice, ...]]:
        return product(*self.along)

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
        total = np.zeros((len(values), *self.size))
        covered = np.zeros(self.size)
        for window, found in zip(self, values.T, strict=True):
            total[:, *window] += found.reshape(-1, *(1 for _ in self.size))
            covered[window] += 1
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
            np.abs(np.arange(extent)[:, None] - [(s.start + s.stop - 1) / 2 for s in along]).argmin(
                1
            )
            for extent, along in zip(self.size, self.along, strict=True)
        ]
        return values[np.ix_(*nearest)]


def _along(extent: int, side: int, step: int) -> tuple[slice, ...]:
    """Give what the windows cover along one axis."""
    side = min(side, extent)
    starts = [*range(0, extent - side, step), extent - side]
    return tuple(slice(start, start + side) for start in starts)
