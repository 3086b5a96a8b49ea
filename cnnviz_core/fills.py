"""What is shown where a mask takes a sample away: one enumeration for every method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

import numpy as np

from cnnviz_core.blurring import blurred, largest_sigma
from cnnviz_core.errors import ArrayError
from cnnviz_core.model import Array

__all__ = ["Fill", "Filling", "Fixed", "Inpainted", "filling"]

Fill: TypeAlias = float | Literal["mean", "blur", "noise", "inpaint"] | Array
"""A value in the network's own input range; "mean", the sample's mean colour; "blur", the sample
blurred until little but its colours is left; "noise", normal noise with the mean and spread of each
of its channels; "inpaint", what is kept, continued smoothly into what is taken away (see
`Inpainted`); or an array that broadcasts to a sample."""


class Filling(Protocol):
    """What is shown in the place of one sample."""

    def under(self, masks: Array) -> Array:
        """Give what is shown under masks.

        Parameters
        ----------
        masks : ndarray (n, *size)
            In [0, 1].

        Returns
        -------
        ndarray
            Broadcasts to (n, *size, C).
        """
        ...


@dataclass(frozen=True, eq=False)
class Fixed:
    """The same under every mask.

    Attributes
    ----------
    values : ndarray
        Broadcasts to (*size, C).
    """

    values: Array

    def under(self, masks: Array) -> Array:
        """Give what is shown under masks; see `Filling.under`."""
        return self.values


@dataclass(frozen=True, eq=False)
class Inpainted:
    """What a mask keeps, continued smoothly into what it takes away.

    The kept colours, weighted by the mask, are averaged over ever coarser grids, each half as fine
    as the one before, until every hole has closed; on the way back, a position of which a grid
    knows nothing takes the colour interpolated from the coarser grid.  What is shown is thus always
    between the least and the greatest kept value of a channel, and near a hole's edge it is what
    lies there.  Where a mask keeps nothing at all, it is the sample's mean colour.

    Attributes
    ----------
    x : ndarray (*size, C)
        The sample.

    References
    ----------
    Gortler et al., "The Lumigraph", SIGGRAPH 1996, section 3.4.2 (push-pull).
    """

    x: Array

    def under(self, masks: Array) -> Array:
        """Give what is shown under masks; see `Filling.under`."""
        weights = masks.astype(self.x.dtype, copy=False)[..., None]
        axes = tuple(range(1, masks.ndim))
        # The blend with the sample itself, by the mask, is the caller's: the pyramid's last step.
        around = _around(self.x[None], weights)
        kept = masks.any(axes).reshape(-1, *(1 for _ in self.x.shape))
        return np.where(kept, around, _mean(self.x).astype(self.x.dtype))


def filling(x: Array, fill: Fill, seed: int = 0) -> Filling:
    """Make what is shown in the place of one sample.

    Parameters
    ----------
    x : ndarray (*size, C)
        The sample, in the network's own value range.
    fill : float, str or ndarray
        One of `Fill`.
    seed : int
        For what is drawn.

    Returns
    -------
    Filling

    Raises
    ------
    ArrayError
        If an array does not broadcast to the sample.
    """
    if isinstance(fill, str):
        if fill == "inpaint":
            return Inpainted(x)
        if fill == "mean":
            return Fixed(_mean(x).astype(x.dtype))
        if fill == "blur":
            return Fixed(blurred(x[None], largest_sigma(x[None].shape))[0].astype(x.dtype))
        spread = x.std(tuple(range(x.ndim - 1)), dtype=np.float64)
        drawn = np.random.default_rng(seed).standard_normal(x.shape)
        return Fixed((_mean(x) + spread * drawn).astype(x.dtype))
    values = np.asarray(fill, dtype=x.dtype)
    try:
        np.broadcast_to(values, x.shape)
    except ValueError:
        raise ArrayError(
            f"the fill has the shape {values.shape}",
            f"a sample's shape, {x.shape}, or one that broadcasts to it",
            "prepare it as the samples are prepared, without the batch axis",
        ) from None
    return Fixed(values)


def _mean(x: Array) -> Array:
    """Give a sample's mean colour (C,), in float64."""
    mean: Array = x.mean(tuple(range(x.ndim - 1)), dtype=np.float64)
    return mean


def _around(colours: Array, weights: Array) -> Array:
    """Give at each position the colour of what is known around it, from a grid half as fine."""
    size = weights.shape[1:-1]
    total, weight = weights * colours, weights
    for axis in range(1, len(size) + 1):
        total, weight = _halved(total, axis), _halved(weight, axis)
    known = np.divide(total, weight, out=np.zeros_like(total), where=weight > 0)
    # What is known of any of its positions is all that a coarser one can show: no need for more.
    around = _filled(known, np.minimum(weight, 1))
    for axis, extent in enumerate(size, 1):
        around = _doubled(around, extent, axis)
    return around


def _filled(colours: Array, weights: Array) -> Array:
    """Blend a grid's colours with those around, where they are not wholly known."""
    if max(weights.shape[1:-1]) == 1:
        return colours
    return weights * colours + (1 - weights) * _around(colours, weights)


def _halved(values: Array, axis: int) -> Array:
    """Sum neighbours along an axis, two by two; the last of an odd number stays alone."""
    lines = np.moveaxis(values, axis, 0)
    sums = lines[::2].copy()
    sums[: len(lines) // 2] += lines[1::2]
    return np.moveaxis(sums, 0, axis)


def _doubled(values: Array, extent: int, axis: int) -> Array:
    """Interpolate linearly along an axis of which each position stands for two of the result."""
    lines = np.moveaxis(values, axis, 0)
    last = len(lines) - 1
    near = np.arange(extent) // 2
    next_to = np.clip(near + np.where(np.arange(extent) % 2, 1, -1), 0, last)
    return np.moveaxis(0.75 * lines[near] + 0.25 * lines[next_to], 0, axis)
