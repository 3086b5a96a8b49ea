"""Smooth masks of few numbers: a coarse grid brought to a sample's size, with the way back.

Each kind makes masks from coarse grids, and gives with them the transposed of its derivative: what
turns the gradient of a loss by the masks into its gradient by the grids.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Final, Protocol, TypeAlias

import numpy as np

from cnnviz_core.blurring import blurred
from cnnviz_core.maps import resize_matrix
from cnnviz_core.model import Array

__all__ = ["Back", "Interpolated", "SmoothMasks", "SmoothMax"]

Back: TypeAlias = Callable[[Array], Array]
"""From the gradient by the masks (N, *size) to that by the coarse grids (N, *cells)."""

_OFFSET: Final = 0.5
"""Up to this share of its width the kernel of the smooth maximum is 1."""


class SmoothMasks(Protocol):
    """A way of making masks of coarse grids."""

    @property
    def cells(self) -> tuple[int, ...]:
        """The size of a coarse grid."""
        ...

    def make(self, grids: Array) -> tuple[Array, Back]:
        """Make masks.

        Parameters
        ----------
        grids : ndarray (N, *cells)
            In [0, 1].

        Returns
        -------
        masks : ndarray (N, *size)
            In [0, 1], of the same type.
        back : callable
            See `Back`.
        """
        ...


@dataclass(frozen=True)
class Interpolated:
    """Coarse grids, interpolated linearly and then blurred by a Gaussian.

    Attributes
    ----------
    cells, size : tuple of int
        The sizes of a grid and of a mask.
    sigma : float
        The Gaussian's standard deviation in pixels.

    References
    ----------
    Fong & Vedaldi, "Interpretable explanations of black boxes by meaningful perturbation", ICCV
    2017, equation 6.
    """

    cells: tuple[int, ...]
    size: tuple[int, ...]
    sigma: float

    @cached_property
    def matrices(self) -> tuple[Array, ...]:
        """For each axis the weights (size, cells), in rows that sum to 1."""
        return tuple(
            blurred(resize_matrix(old, new)[None], self.sigma)[0]
            for old, new in zip(self.cells, self.size, strict=True)
        )

    def make(self, grids: Array) -> tuple[Array, Back]:
        """Make masks; see `SmoothMasks.make`."""
        masks = _multiplied(grids, self.matrices)
        return masks, lambda gradient: _multiplied(gradient, [m.T for m in self.matrices])


def _multiplied(values: Array, matrices: Sequence[Array]) -> Array:
    """Multiply one matrix along each axis but the first."""
    for axis, matrix in enumerate(matrices, start=1):
        rows = np.moveaxis(values, axis, -1) @ matrix.T.astype(values.dtype)
        values = np.moveaxis(rows, -1, axis)
    return values


@dataclass(frozen=True)
class SmoothMax:
    """Masks whose value is the smooth maximum of pivots, each weighted by how near it is.

    With the pivots' values ``g`` on a grid of the step `spacing`, a mask is at the place ``u``
    ``sum_v a_v exp(a_v / T) / sum_v exp(a_v / T)`` of ``a_v = k(|u - v|) g_v``, over the pivots
    ``v`` around it, where ``k(d) = exp(-2 max(0, d / width - 1/2)^2)``.  Where pivots are 1 it is
    1 up to half the width away, and further out it falls off smoothly: no detail is finer than the
    kernel.

    Attributes
    ----------
    size : tuple of int
        The size of a mask.
    spacing : int
        Pixels from one pivot to the next; pivots lie in the middle of cells of this side.
    width : float
        The kernel's width in pixels.  It reaches a spacing further, and is cut off there.
    temperature : float
        Towards 0 the smooth maximum becomes the maximum.

    References
    ----------
    Fong, Patrick & Vedaldi, "Understanding deep networks via extremal perturbations and smooth
    masks", ICCV 2019, section 3.2; the kernel's constants are those of the authors' code.
    """

    size: tuple[int, ...]
    spacing: int
    width: float
    temperature: float = 0.05

    @property
    def cells(self) -> tuple[int, ...]:
        """The size of a coarse grid."""
        return tuple(math.ceil(n / self.spacing) for n in self.size)

    @property
    def reach(self) -> int:
        """How many pivots count to each side of a pixel's own cell."""
        return 1 + math.ceil(self.width / self.spacing)

    @cached_property
    def kernels(self) -> Array:
        """The weight of each pivot around a cell at each pixel in it: (*pivots, *pixels)."""
        rank, pixels = len(self.size), np.arange(self.spacing) - (self.spacing - 1) / 2
        pivots = self.spacing * np.arange(-self.reach, self.reach + 1)
        along, axes = (pixels - pivots[:, None]) ** 2, range(2 * rank)
        squares = sum(
            along.reshape([along.shape[i // rank] if i % rank == axis else 1 for i in axes])
            for axis in range(rank)
        )
        beyond = np.maximum(np.sqrt(squares) / self.width - _OFFSET, 0)
        return np.exp(-2 * beyond**2)

    def make(self, grids: Array) -> tuple[Array, Back]:
        """Make masks; see `SmoothMasks.make`."""
        kernels = self.kernels.astype(grids.dtype)
        highest = np.asarray(0, grids.dtype)
        for _, _, near in self._weighted(grids, kernels):
            highest = np.maximum(highest, near)
        total, mass = np.zeros_like(highest), np.zeros_like(highest)
        for _, _, near in self._weighted(grids, kernels):
            share = np.exp((near - highest) / self.temperature)
            total += share
            mass += share * near
        smooth = mass / total

        def back(gradient: Array) -> Array:
            by_smooth = self._in_cells(gradient) / total
            padded = np.zeros_like(self._padded(grids))
            for window, kernel, near in self._weighted(grids, kernels):
                share = np.exp((near - highest) / self.temperature)
                by_near = by_smooth * share * (1 + (near - smooth) / self.temperature)
                padded[window] += np.tensordot(by_near, kernel, len(self.size))
            inner = (slice(self.reach, -self.reach),) * len(self.size)
            return padded[:, *inner]

        return self._as_pixels(smooth), back

    def _padded(self, grids: Array) -> Array:
        """Surround grids with zeros as far as a kernel reaches."""
        return np.pad(grids, [(0, 0), *[(self.reach, self.reach)] * len(self.size)])

    def _weighted(
        self, grids: Array, kernels: Array
    ) -> Iterator[tuple[tuple[slice, ...], Array, Array]]:
        """Give for each pivot around a cell where it lies, its kernel and its weighted values."""
        padded, rank = self._padded(grids), len(self.size)
        for offset in product(range(2 * self.reach + 1), repeat=rank):
            window = tuple(slice(o, o + n) for o, n in zip(offset, self.cells, strict=True))
            pivots = padded[:, *window][(..., *[None] * rank)]
            yield (slice(None), *window), kernels[offset], pivots * kernels[offset]

    def _margins(self) -> list[tuple[int, int]]:
        """How far the cells stand out beyond the mask along each axis, before and after."""
        over = [self.spacing * n - m for n, m in zip(self.cells, self.size, strict=True)]
        return [(n // 2, n - n // 2) for n in over]

    def _as_pixels(self, values: Array) -> Array:
        """Lay the pixels of all cells (N, *cells, *pixels) out as a mask (N, *size)."""
        rank = len(self.size)
        order = [0, *(axis for i in range(1, rank + 1) for axis in (i, i + rank))]
        laid = values.transpose(order).reshape(-1, *(self.spacing * n for n in self.cells))
        inner = (slice(b, b + n) for (b, _), n in zip(self._margins(), self.size, strict=True))
        return laid[:, *inner]

    def _in_cells(self, values: Array) -> Array:
        """Sort the pixels of masks (N, *size) into their cells (N, *cells, *pixels), 0 beyond."""
        rank = len(self.size)
        padded = np.pad(values, [(0, 0), *self._margins()])
        split = padded.reshape(-1, *(n for cells in self.cells for n in (cells, self.spacing)))
        return split.transpose([0, *range(1, 2 * rank, 2), *range(2, 2 * rank + 1, 2)])
