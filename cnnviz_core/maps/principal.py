"""Principal directions of the feature vectors that the positions of a grid hold."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from cnnviz_core.model import Array

__all__ = ["Projection", "centred", "leading_pairs", "project", "sign_like", "vectors_of"]

RANK = 1e-12
"""Squared singular values below this fraction of the largest are rounding, and count as zero."""
TIE = 1e-6
"""Two maps with a correlation below this say nothing about each other's sign."""


@dataclass(frozen=True)
class Projection:
    """Feature vectors projected on the direction in which they are strongest.

    Attributes
    ----------
    values : ndarray (N, ...grid, K)
        What was projected.
    means : ndarray (N, K)
        What was subtracted from each feature vector; zeros where it was not centred.
    directions : ndarray (N, K)
        Unit vectors; zeros where a sample has no direction.
    maps : ndarray (N, ...grid)
        The projections, in the type of `values`; NaN where a sample is not finite.
    shares : ndarray (N,)
        The projections' share of the sum of squares of what was projected, in [0, 1].
    """

    values: Array
    means: Array
    directions: Array
    maps: Array
    shares: Array

    def terms(self) -> Array:
        """Return each channel's part in the projections.

        Returns
        -------
        ndarray (N, ...grid, K)
            With `maps` as its sum over the last axis.
        """
        channels = (len(self.values), *(1,) * (self.values.ndim - 2), -1)
        parts = (self.values - self.means.reshape(channels)) * self.directions.reshape(channels)
        return parts.astype(self.values.dtype, copy=False)


def project(values: Array, *, centre: bool) -> Projection:
    """Project each sample's feature vectors on their first right singular vector.

    The sign of a singular vector is arbitrary.  It is chosen so that the map correlates positively
    with the sum of all channels (see `sign_like`); this is to say that the direction's components
    have a positive sum.

    Parameters
    ----------
    values : ndarray (N, ...grid, K)
        A feature vector at each position of a grid of any rank.
    centre : bool
        Whether each sample's mean feature vector is subtracted first.

    Returns
    -------
    Projection
    """
    vectors = vectors_of(values)
    samples, _, channels = vectors.shape
    means = np.zeros((samples, channels))
    directions = np.zeros((samples, channels))
    maps = np.zeros(vectors.shape[:2])
    shares = np.zeros(samples)
    for n, sample in enumerate(vectors):
        if not np.isfinite(sample).all():
            maps[n] = shares[n] = np.nan
            continue
        matrix = sample.astype(np.float64)
        if centre:
            means[n] = matrix.mean(axis=0)
            matrix = centred(matrix)
        scale = float(np.abs(matrix).max()) or 1.0
        matrix /= scale  # the squares of tiny gradients would be zero
        _, (strength,), right = leading_pairs(matrix, 1)
        direction = right[:, 0]
        directions[n] = direction * sign_like(matrix @ direction, matrix.sum(axis=1))
        maps[n] = matrix @ directions[n] * scale
        shares[n] = strength**2 / (np.sum(matrix**2) or 1.0)
    shown = maps.reshape(values.shape[:-1]).astype(values.dtype)
    return Projection(values, means, directions, shown, shares)


def vectors_of(values: Array) -> Array:
    """List the feature vectors of a grid.

    Parameters
    ----------
    values : ndarray (N, ...grid, K)
        On a grid of any rank.

    Returns
    -------
    ndarray (N, positions, K)
    """
    return values.reshape(len(values), math.prod(values.shape[1:-1]), values.shape[-1])


def centred(matrix: Array) -> Array:
    """Subtract the mean row.

    Parameters
    ----------
    matrix : ndarray (rows, columns)
        In double precision.

    Returns
    -------
    ndarray (rows, columns)
        A constant column becomes exactly zero, not the rounding of its mean.
    """
    shifted = matrix - matrix[:1]
    return shifted - shifted.mean(axis=0)


def sign_like(found: Array, reference: Array) -> float:
    """Give the sign that makes one map correlate positively with another.

    Parameters
    ----------
    found : ndarray (positions,)
        A map whose sign is arbitrary.
    reference : ndarray (positions,)
        What it shall be like.

    Returns
    -------
    float
        1 or -1.  Where the two do not correlate, the sign that makes the value of the largest
        magnitude in `found` positive.
    """
    product = float(found @ reference)
    if abs(product) <= TIE * float(np.linalg.norm(found) * np.linalg.norm(reference)):
        product = float(found[np.abs(found).argmax()])
    return -1.0 if product < 0 else 1.0


def leading_pairs(matrix: Array, count: int) -> tuple[Array, Array, Array]:
    """Compute the leading singular vectors, from the Gram matrix of the smaller side.

    Parameters
    ----------
    matrix : ndarray (rows, columns)
        Finite, in double precision, of a magnitude that can be squared.
    count : int
        How many pairs; at most as many as the matrix has rows and columns.

    Returns
    -------
    left : ndarray (rows, count)
    strengths : ndarray (count,)
        The singular values, in descending order.
    right : ndarray (columns, count)
        Where a singular value is zero, so are its vectors.
    """
    from scipy.linalg import eigh

    rows, columns = matrix.shape
    wide = rows < columns
    gram = matrix @ matrix.T if wide else matrix.T @ matrix
    size = len(gram)
    squares, vectors = eigh(gram, subset_by_index=(size - count, size - 1), check_finite=False)
    squares, vectors = squares[::-1], vectors[:, ::-1]
    present = squares > RANK * squares[0]
    vectors = vectors * present
    others = (matrix.T if wide else matrix) @ vectors
    strengths = np.linalg.norm(others, axis=0)
    others = np.divide(others, strengths, out=np.zeros_like(others), where=present)
    left, right = (vectors, others) if wide else (others, vectors)
    return left, strengths, right
