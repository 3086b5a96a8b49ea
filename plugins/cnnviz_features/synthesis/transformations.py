"""Random shifts, zooms and turns of a picture, as linear maps with exact adjoints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np

from cnnviz_core.model import Array

if TYPE_CHECKING:
    from scipy import sparse

__all__ = ["GREY", "Jitter", "Pad", "Resampling", "Rotate", "Scale", "Transformation", "draw"]

GREY: Final = 0.5
"""The colour outside a picture."""


class Transformation(Protocol):
    """A random change of where things are in a picture."""

    def matrix(self, rng: np.random.Generator, size: tuple[int, int]) -> Array:
        """Draw a change.

        Parameters
        ----------
        rng : numpy.random.Generator
            What is drawn from it does not depend on `size`.
        size : tuple of int
            (H, W) of the picture.

        Returns
        -------
        ndarray (3, 3)
            From homogeneous (row, column, 1) of a place in the changed picture, counted from the
            centre in pixels, to the place in the picture that is seen there.
        """
        ...


def _affine(
    linear: tuple[tuple[float, float], tuple[float, float]] = ((1, 0), (0, 1)),
    offset: tuple[float, float] = (0, 0),
) -> Array:
    """Make a homogeneous matrix."""
    matrix = np.eye(3)
    matrix[:2, :2] = linear
    matrix[:2, 2] = offset
    return matrix


@dataclass(frozen=True)
class Jitter:
    """Shift the picture by whole pixels.

    Attributes
    ----------
    pixels : int
        The most, in each direction of both axes; every shift is as likely.
    """

    pixels: int

    def matrix(self, rng: np.random.Generator, size: tuple[int, int]) -> Array:
        """Draw a shift."""
        down, right = rng.integers(-self.pixels, self.pixels, endpoint=True, size=2)
        return _affine(offset=(-float(down), -float(right)))


@dataclass(frozen=True)
class Scale:
    """Make the picture larger or smaller around its centre.

    Attributes
    ----------
    low, high : float
        The factor's bounds; above 0.  Above 1 the picture grows, and its rim is lost.
    """

    low: float
    high: float

    def matrix(self, rng: np.random.Generator, size: tuple[int, int]) -> Array:
        """Draw a factor."""
        factor = rng.uniform(self.low, self.high)
        return _affine(((1 / factor, 0), (0, 1 / factor)))


@dataclass(frozen=True)
class Rotate:
    """Turn the picture around its centre.

    Attributes
    ----------
    degrees : float
        The most, in either direction.
    """

    degrees: float

    def matrix(self, rng: np.random.Generator, size: tuple[int, int]) -> Array:
        """Draw an angle."""
        angle = np.deg2rad(rng.uniform(-self.degrees, self.degrees))
        sine, cosine = float(np.sin(angle)), float(np.cos(angle))
        return _affine(((cosine, -sine), (sine, cosine)))


@dataclass(frozen=True)
class Pad:
    """Make the picture smaller, so that a grey frame shows on every side; nothing is random.

    Attributes
    ----------
    pixels : int
        The frame's width at the picture's own scale.
    """

    pixels: int

    def matrix(self, rng: np.random.Generator, size: tuple[int, int]) -> Array:
        """Give the frame."""
        h, w = size
        return _affine(((1 + 2 * self.pixels / h, 0), (0, 1 + 2 * self.pixels / w)))


@dataclass(frozen=True, eq=False)
class Resampling:
    """A drawn change of pictures of one size: ``A picture + (1 - A 1) grey``.

    Attributes
    ----------
    size : tuple of int
        (H, W), which does not change.
    weights : scipy.sparse.csr_array (H W, H W)
        ``A``: each row holds the bilinear weights of the pixels seen in one place; their sum is
        below 1 where the place is beyond the picture's rim.
    """

    size: tuple[int, int]
    weights: sparse.csr_array

    @classmethod
    def of(cls, matrix: Array, size: tuple[int, int]) -> Resampling:
        """Make the resampling of a homogeneous matrix.

        Parameters
        ----------
        matrix : ndarray (3, 3)
            As `Transformation.matrix` gives it.
        size : tuple of int
            (H, W).

        Returns
        -------
        Resampling
        """
        h, w = size
        centre = np.array([(h - 1) / 2, (w - 1) / 2])
        places = np.indices(size).reshape(2, -1) - centre[:, None]
        seen = matrix[:2, :2] @ places + (matrix[:2, 2] + centre)[:, None]
        corner = np.floor(seen).astype(np.int64)
        rest = seen - corner
        rows, columns, weights = [], [], []
        for down in (0, 1):
            for right in (0, 1):
                y, x = corner[0] + down, corner[1] + right
                weight = np.abs(1 - down - rest[0]) * np.abs(1 - right - rest[1])
                inside = (y >= 0) & (y < h) & (x >= 0) & (x < w) & (weight > 0)
                rows.append(np.flatnonzero(inside))
                columns.append((y * w + x)[inside])
                weights.append(weight[inside])
        entries = (np.concatenate(weights), (np.concatenate(rows), np.concatenate(columns)))
        from scipy import sparse

        return cls(size, sparse.csr_array(entries, shape=(h * w, h * w)))

    def apply(self, pictures: Array) -> Array:
        """Change pictures.

        Parameters
        ----------
        pictures : ndarray (N, H, W, K)
            Colours.

        Returns
        -------
        ndarray (N, H, W, K)
            Of the same type; grey beyond the rim.
        """
        return self._linear(self.weights, pictures - pictures.dtype.type(GREY)) + GREY

    def adjoint(self, gradient: Array) -> Array:
        """Bring a gradient by the changed pictures to one by the pictures.

        Parameters
        ----------
        gradient : ndarray (N, H, W, K)

        Returns
        -------
        ndarray (N, H, W, K)
            Of the same type.
        """
        return self._linear(self.weights.T, gradient)

    def _linear(self, weights: sparse.sparray, pictures: Array) -> Array:
        n, h, w, k = pictures.shape
        columns = pictures.transpose(1, 2, 0, 3).reshape(h * w, n * k)
        changed = weights.astype(pictures.dtype) @ columns
        return np.ascontiguousarray(changed.reshape(h, w, n, k).transpose(2, 0, 1, 3))


def draw(
    transformations: Sequence[Transformation], rng: np.random.Generator, size: tuple[int, int]
) -> Resampling | None:
    """Draw one change: all transformations one after the other, in a single interpolation.

    Parameters
    ----------
    transformations : sequence of Transformation
        The first is applied first.
    rng : numpy.random.Generator
        What is random comes from it.
    size : tuple of int
        (H, W) of the pictures, before and after.

    Returns
    -------
    Resampling or None
        None where there are no transformations.
    """
    if not transformations:
        return None
    matrix = np.eye(3)
    for transformation in transformations:
        matrix = matrix @ transformation.matrix(rng, size)
    return Resampling.of(matrix, size)
