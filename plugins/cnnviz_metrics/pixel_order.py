"""Pixels in the order of a map, and masks that take ever more of them away."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from cnnviz_core.errors import ArrayError
from cnnviz_core.mask_forms import Labelled, MaskForm
from cnnviz_core.model import Array

__all__ = ["OrderMasks", "curve_area", "ranks", "step_counts"]


def ranks(map: Array) -> Array:
    """Give each pixel's place in the order of a map, the highest value first.

    Parameters
    ----------
    map : ndarray (*size)
        One map, finite.

    Returns
    -------
    ndarray (*size) of int64
        From 0.  Of equal values those come first that come first row by row.

    Raises
    ------
    ArrayError
        If the map is not finite.

    Examples
    --------
    >>> ranks(np.array([[1.0, 5.0], [5.0, 7.0]])).tolist()
    [[3, 1], [2, 0]]
    """
    map = np.asarray(map)
    if not np.isfinite(map).all():
        raise ArrayError(
            "a map with NaN or infinity has no order", "finite values", "leave this map out"
        )
    order = np.argsort(-map, axis=None, kind="stable")
    found = np.empty(map.size, np.int64)
    found[order] = np.arange(map.size)
    return found.reshape(map.shape)


def step_counts(pixels: int, steps: int = 28, per_step: int | None = None) -> Array:
    """Give how many pixels are changed after each step, from none to all.

    Parameters
    ----------
    pixels : int
        How many there are.
    steps : int
        In how many steps all are changed, about as many in each.
    per_step : int, optional
        How many are changed in each step, the last of which may have fewer; then `steps` counts
        for nothing.

    Returns
    -------
    ndarray (K + 1,) of int64
        Of K steps; 0 first, `pixels` last.

    Examples
    --------
    >>> step_counts(10, 4).tolist(), step_counts(10, per_step=4).tolist()
    ([0, 2, 5, 7, 10], [0, 4, 8, 10])
    """
    if per_step is None:
        return np.arange(steps + 1) * pixels // steps
    return np.minimum(np.arange(-(-pixels // per_step) + 1) * per_step, pixels)


def curve_area(curves: Array) -> Array:
    """Give the area under curves whose points lie evenly between 0 and 1.

    Parameters
    ----------
    curves : ndarray (..., K + 1)
        Their values at the ends of K steps, at least one.

    Returns
    -------
    ndarray (...) of float64
        By the trapezoidal rule: the sum of the values, of the first and the last half, divided by
        K; between the least and the greatest of them.

    Examples
    --------
    >>> float(curve_area(np.array([1.0, 0.5, 0.0])))
    0.5
    """
    curves = np.asarray(curves, dtype=np.float64)
    ends = (curves[..., 0] + curves[..., -1]) / 2
    area: Array = (curves.sum(axis=-1) - ends) / (curves.shape[-1] - 1)
    return area


@dataclass(frozen=True, eq=False)
class OrderMasks:
    """Masks that take the highest pixels of a map away, each more of them than the one before.

    They are described by each pixel's step, so that many of them take little more memory than one.

    Attributes
    ----------
    map : ndarray (*size)
        The map, finite.
    counts : ndarray (K,) of int
        How many pixels each mask takes away, ascending.
    keep : bool
        Whether these pixels are all that is kept.

    Examples
    --------
    >>> from cnnviz_core.masks import drawn
    >>> drawn(OrderMasks(np.array([3.0, 9.0, 5.0]), np.array([0, 1, 3])), 0, 3).tolist()
    [[1.0, 1.0, 1.0], [1.0, 0.0, 1.0], [0.0, 0.0, 0.0]]
    """

    map: Array
    counts: Array
    keep: bool = False

    @property
    def size(self) -> tuple[int, ...]:
        """A sample's positions along each axis."""
        return self.map.shape

    def __len__(self) -> int:
        return len(self.counts)

    @cached_property
    def _steps(self) -> Array:
        """The first mask that names each pixel (*size); their number where none does."""
        return np.searchsorted(self.counts, ranks(self.map), side="right")

    def form(self, start: int, stop: int) -> MaskForm:
        """Describe some of the masks; see `cnnviz_core.masks.Masks.form`."""
        masks = np.arange(len(self))[start:stop, None]
        named = np.arange(len(self) + 1) <= masks
        return Labelled(self._steps, named if self.keep else ~named)
