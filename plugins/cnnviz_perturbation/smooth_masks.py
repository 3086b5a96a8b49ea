"""Smooth masks of few numbers: a coarse grid brought to a sample's size, with the way back.

Each kind makes masks from coarse grids, and gives with them the transposed of its derivative: what
turns the gradient of a loss by the masks into its gradient by the grids.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations_with_replacement, product
from typing import Final, NamedTuple, Protocol, TypeAlias

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


class _Turned(NamedTuple):
    """How the pixels of a cell look from a pivot, if they were seen from another one as far away.

    Called with an array (2, *pixels, M) it gives a view of it.
    """

    axes: tuple[int, ...]
    mirrored: tuple[slice, ...]

    @classmethod
    def of(cls, offset: tuple[int, ...]) -> _Turned:
        """Tell it for a pivot so many cells away, from that at the ordered distances."""
        exchanged = np.argsort(np.argsort(np.abs(offset), kind="stable"))
        mirrored = (slice(None, None, -1 if cells < 0 else 1) for cells in offset)
        axes = (0, *(exchanged + 1).tolist(), len(offset) + 1)
        return cls(axes, (slice(None), *mirrored))

    def __call__(self, values: Array) -> Array:
        """See an array so."""
        return values.transpose(self.axes)[self.mirrored]


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
        Towards 0 the smooth maximum becomes the maximum.  ``exp(1 / temperature)`` must be a number
        of the grids' type.

    Notes
    -----
    Pivots at the same distance have the same exponentials, at mirrored or exchanged pixels of their
    cells, so those of one pivot in five are made (of 15 in 81).  Pixels come first and cells last,
    in one row with zeros between them: so a look at other pivots is a shift of the whole row.

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
    def kernels(self) -> dict[tuple[int, ...], Array]:
        """The weight of a pivot at each pixel of a cell: (*pixels), by how many cells away it is.

        Distances along the axes are ordered; those of other pivots are mirrored or exchanged.
        """
        pixels = np.arange(self.spacing) - (self.spacing - 1) / 2
        found = {}
        for away in combinations_with_replacement(range(self.reach + 1), len(self.size)):
            along = np.ix_(*((pixels - self.spacing * cells) ** 2 for cells in away))
            beyond = np.maximum(np.sqrt(sum(along)) / self.width - _OFFSET, 0)
            found[away] = np.exp(-2 * beyond**2)
        return found

    def make(self, grids: Array) -> tuple[Array, Back]:
        """Make masks; see `SmoothMasks.make`."""
        row, inside = self._row(grids)
        margin = inside[0]
        inner = slice(margin, len(row) - margin)
        pixels = (self.spacing,) * len(self.size)
        # Of the shares that pivots have: their sum, and that of the shares times values.
        sums = np.zeros((2, *pixels, len(row) - 2 * margin), row.dtype)
        for around, kernel in self._kernels_of(row):
            near = kernel * row
            share = np.exp(near / self.temperature)
            terms = np.stack([share, share * near])
            for turned, shift in around:
                sums += turned(terms)[..., inner.start + shift : inner.stop + shift]
        total = sums[0]
        smooth = sums[1] / total

        def back(gradient: Array) -> Array:
            by_smooth = np.zeros_like(total)
            by_smooth[..., inside - margin] = self._in_cells(gradient)
            slopes = np.zeros((2, *pixels, len(row)), row.dtype)
            slopes[1, ..., inner] = by_smooth / total / self.temperature
            slopes[0, ..., inner] = by_smooth / total - slopes[1, ..., inner] * smooth
            by_row = np.zeros_like(row)
            for around, kernel in self._kernels_of(row):
                seen = np.zeros_like(sums)
                for turned, shift in around:
                    view = turned(seen)
                    view += slopes[..., inner.start - shift : inner.stop - shift]
                near = kernel * row[inner]
                seen[1] *= near
                seen[0] += seen[1]
                seen[0] *= np.exp(near / self.temperature)
                by_row[inner] += np.tensordot(kernel[..., 0], seen[0], len(pixels))
            return by_row[inside].reshape(grids.shape)

        return self._as_pixels(smooth[..., inside - margin]), back

    @cached_property
    def _strides(self) -> tuple[int, ...]:
        """How many places of a row it is from a cell to the next, along each axis."""
        padded = [n + self.reach for n in self.cells]
        return tuple(math.prod(padded[i + 1 :]) for i in range(len(padded)))

    def _row(self, grids: Array) -> tuple[Array, Array]:
        """Lay grids out in one row, with zeros as far as kernels reach; tell where they are."""
        behind = [(0, 0), *[(0, self.reach)] * len(self.size)]
        before = (self.reach * sum(self._strides), 0)
        row, inside = (
            np.pad(np.pad(values, behind).ravel(), before)
            for values in (grids, np.ones(grids.shape, bool))
        )
        return row, np.flatnonzero(inside)

    @cached_property
    def _around(self) -> dict[tuple[int, ...], list[tuple[_Turned, int]]]:
        """The pivots around a cell, by their ordered distances: how to see it, places of a row."""
        found = defaultdict(list)
        for offset in product(range(-self.reach, self.reach + 1), repeat=len(self.size)):
            shift = sum(o * stride for o, stride in zip(offset, self._strides, strict=True))
            found[tuple(sorted(map(abs, offset)))].append((_Turned.of(offset), shift))
        return found

    def _kernels_of(self, row: Array) -> Iterator[tuple[list[tuple[_Turned, int]], Array]]:
        """Give the pivots around a cell that are as far away, with their kernel (*pixels, 1)."""
        for away, kernel in self.kernels.items():
            yield self._around[away], kernel[..., None].astype(row.dtype)

    def _margins(self) -> list[tuple[int, int]]:
        """How far the cells stand out beyond the mask along each axis, before and after."""
        over = [self.spacing * n - m for n, m in zip(self.cells, self.size, strict=True)]
        return [(n // 2, n - n // 2) for n in over]

    def _as_pixels(self, values: Array) -> Array:
        """Lay the pixels of all cells (*pixels, N * cells) out as masks (N, *size)."""
        rank = len(self.size)
        split = values.reshape(*values.shape[:rank], -1, *self.cells)
        order = [rank, *(axis for i in range(rank) for axis in (rank + 1 + i, i))]
        laid = split.transpose(order).reshape(-1, *(self.spacing * n for n in self.cells))
        inner = (slice(b, b + n) for (b, _), n in zip(self._margins(), self.size, strict=True))
        return laid[:, *inner]

    def _in_cells(self, values: Array) -> Array:
        """Sort the pixels of masks (N, *size) into cells (*pixels, N * cells), 0 beyond."""
        rank = len(self.size)
        padded = np.pad(values, [(0, 0), *self._margins()])
        split = padded.reshape(-1, *(n for cells in self.cells for n in (cells, self.spacing)))
        order = [*range(2, 2 * rank + 1, 2), 0, *range(1, 2 * rank, 2)]
        return split.transpose(order).reshape(*(self.spacing,) * rank, -1)
