"""What is shown where a mask takes a sample away: one enumeration for every method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

import numpy as np

from cnnviz_core.blurring import blurred, largest_sigma
from cnnviz_core.errors import ArrayError
from cnnviz_core.model import Array

__all__ = ["Fill", "Filling", "Fixed", "filling"]

Fill: TypeAlias = float | Literal["mean", "blur", "noise"] | Array
"""A value in the network's own input range; "mean", the sample's mean colour; "blur", the sample
blurred until little but its colours is left; "noise", normal noise with the mean and spread of each
of its channels; or an array that broadcasts to a sample."""


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
    axes = tuple(range(x.ndim - 1))
    if isinstance(fill, str):
        mean = x.mean(axes, dtype=np.float64)
        if fill == "mean":
            return Fixed(mean.astype(x.dtype))
        if fill == "blur":
            return Fixed(blurred(x[None], largest_sigma(x[None].shape))[0].astype(x.dtype))
        drawn = np.random.default_rng(seed).standard_normal(x.shape)
        return Fixed((mean + x.std(axes, dtype=np.float64) * drawn).astype(x.dtype))
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
