"""Noisy linear imputation: removed pixels become weighted means of their neighbours, and noise."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import product
from typing import Any, Final

import numpy as np

from cnnviz_core.errors import ArrayError
from cnnviz_core.model import Array

__all__ = ["LinearImputation"]

_BESIDE: Final = 1 / 6
_ACROSS: Final = 1 / 12


@dataclass(frozen=True, eq=False)
class LinearImputation:
    """What is shown in the place of removed pixels: a weighted mean of what is around, and noise.

    Every removed pixel is the mean of its neighbours, removed or not, of which the four beside it
    weigh 1/6 and the four across its corners 1/12; at the edge, those that there are.  These
    equations have one solution as long as a pixel is kept, and all channels share its
    factorisation.  Where none is kept the mean colour is shown.  Then normal noise is added, since
    without it a network could learn to see what was removed.

    It is a `cnnviz_core.fills.Filling`, for masks that either keep a pixel or remove it.

    Attributes
    ----------
    sample : ndarray (H, W, C)
        The sample, in the network's own value range.
    noise : float
        The noise's standard deviation, in that range.
    seed : int
        For the noise, the same for all masks and for every sample of a shape.

    References
    ----------
    Rong et al., "A consistent and efficient evaluation strategy for attribution methods", ICML
    2022: noisy linear imputation.

    Examples
    --------
    >>> sample = np.array([[[0.0], [0.0], [3.0]]])
    >>> LinearImputation(sample, noise=0.0).under(np.array([[[1, 0, 1]]])).ravel().tolist()
    [0.0, 1.5, 3.0]
    """

    sample: Array
    noise: float = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        if self.sample.ndim != 3:
            raise ArrayError(
                f"a sample of the shape {self.sample.shape} was given to be imputed",
                "a picture, (H, W, C)",
                "fill signals and volumes in another way",
            )

    def under(self, masks: Array) -> Array:
        """Give what is shown under masks.

        Parameters
        ----------
        masks : ndarray (n, H, W)
            1 where a pixel is kept, 0 where it is removed.

        Returns
        -------
        ndarray (n, H, W, C)
            Of the sample's type; the sample itself where it is kept.
        """
        kept = np.asarray(masks) > 0.5
        return np.stack([self._imputed(mask) for mask in kept])

    @cached_property
    def _added(self) -> Array:
        """The noise at each pixel (H W, C)."""
        drawn = np.random.default_rng(self.seed).standard_normal(self.sample.shape)
        return self.noise * drawn.reshape(-1, drawn.shape[-1])

    def _imputed(self, kept: Array) -> Array:
        """Impute what one mask removes."""
        values = self.sample.reshape(-1, self.sample.shape[-1]).astype(np.float64)
        known = kept.ravel()
        if known.any():
            values[~known] = _solved(known, values, self.sample.shape[:2])
        else:
            values[:] = values.mean(axis=0)
        values[~known] += self._added[~known]
        return values.reshape(self.sample.shape).astype(self.sample.dtype)


def _solved(known: Array, values: Array, size: tuple[int, int]) -> Array:
    """Solve for the removed pixels (R, C), given which are known (H W,) and the values there."""
    from scipy.sparse.linalg import splu

    if known.all():
        return values[:0]
    removed, kept = np.flatnonzero(~known), np.flatnonzero(known)
    rows = _laplacian(*size)[removed]
    # The matrix is symmetric and diagonally dominant: no pivoting, and less fill-in.
    factors = splu(
        rows[:, removed].tocsc(),
        permc_spec="MMD_AT_PLUS_A",
        diag_pivot_thresh=0.0,
        options={"SymmetricMode": True},
    )
    solution: Array = factors.solve(-(rows[:, kept] @ values[kept]))
    return solution


@lru_cache(maxsize=2)
def _laplacian(height: int, width: int) -> Any:
    """Give the sparse matrix of a pixel's weights less those of its neighbours (H W, H W)."""
    from scipy.sparse import coo_array, csr_array, diags_array

    at = np.arange(height * width).reshape(height, width)
    rows, columns, weights = [], [], []
    for down, right in product((-1, 0, 1), repeat=2):
        if (down, right) != (0, 0):
            here = at[_inner(down, height), _inner(right, width)].ravel()
            rows.append(here)
            columns.append(at[_inner(-down, height), _inner(-right, width)].ravel())
            weights.append(np.full(len(here), _ACROSS if down and right else _BESIDE))
    places = (np.concatenate(rows), np.concatenate(columns))
    shape = (height * width, height * width)
    neighbours = csr_array(coo_array((np.concatenate(weights), places), shape=shape))
    return csr_array(diags_array(neighbours.sum(axis=1)) - neighbours)


def _inner(offset: int, extent: int) -> slice:
    """Give the positions along an axis that have one at this offset."""
    return slice(max(0, -offset), extent - max(0, offset))
