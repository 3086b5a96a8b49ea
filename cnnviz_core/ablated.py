"""A layer's value without each of some channels, described rather than made."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from cnnviz_core.model import Array

__all__ = ["ABLATE", "Ablated"]

ABLATE: Final = "ablate"
"""The capability of a model whose ``forward`` takes an `Ablated` as a replacement, of any length,
and says by an `OutOfMemoryError` where fewer at once would take less memory."""


@dataclass(frozen=True, eq=False)
class Ablated:
    """A sample's value at a layer, once for each of some channels, which is set to 0.

    It has the length and the shape of the batch that it describes, and NumPy makes that batch of it
    wherever an array is asked for (``numpy.asarray(batch)``).

    Attributes
    ----------
    value : ndarray (..., K)
        The sample's value.
    channels : ndarray (n,) of int
        The channels.
    """

    value: Array
    channels: Array

    @property
    def shape(self) -> tuple[int, ...]:
        """The batch's shape, (n, ..., K)."""
        return (len(self.channels), *self.value.shape)

    @property
    def ndim(self) -> int:
        """The batch's number of axes."""
        return self.value.ndim + 1

    @property
    def dtype(self) -> np.dtype:
        """The value's type."""
        return self.value.dtype

    def __len__(self) -> int:
        return len(self.channels)

    def __getitem__(self, part: slice) -> Ablated:
        return replace(self, channels=self.channels[part])

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> Array:
        if copy is False:
            raise ValueError("a described batch has to be made: it cannot be had without a copy")
        made = np.repeat(self.value[None], len(self), axis=0)
        made[np.arange(len(self)), ..., self.channels] = 0
        return made if dtype is None else made.astype(dtype, copy=False)
