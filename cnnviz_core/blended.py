"""A batch of one sample under many masks, described rather than made."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from cnnviz_core.mask_forms import MaskForm, NumPyArrays, draw
from cnnviz_core.model import Array

__all__ = ["BLEND", "Batch", "Blended", "blend"]

BLEND = "blend"
"""The capability of a model whose ``forward`` takes a `Blended` batch and makes it where the
network computes."""


@dataclass(frozen=True, eq=False)
class Blended:
    """A sample under masks: ``mask * sample + (1 - mask) * fill``, once for each mask.

    It has the length and the shape of the batch that it describes, and NumPy makes that batch of it
    wherever an array is asked for (``numpy.asarray(batch)``).  A model whose `capabilities` name
    "blend" makes it on the network's own device.

    Attributes
    ----------
    sample : ndarray (*size, C)
        The sample, in the network's own value range.
    masks : MaskForm
        The masks, of the shape (n, *size).
    fill : ndarray
        What is shown where a mask is 0; broadcasts to (*size, C).
    """

    sample: Array
    masks: MaskForm
    fill: Array

    @property
    def shape(self) -> tuple[int, ...]:
        """The batch's shape, (n, *size, C)."""
        return (len(self.masks), *self.sample.shape)

    @property
    def ndim(self) -> int:
        """The batch's number of axes."""
        return self.sample.ndim + 1

    @property
    def dtype(self) -> np.dtype:
        """The sample's type."""
        return self.sample.dtype

    def __len__(self) -> int:
        return len(self.masks)

    def __getitem__(self, part: slice) -> Blended:
        return replace(self, masks=self.masks[part])

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> Array:
        if copy is False:
            raise ValueError("a described batch has to be made: it cannot be had without a copy")
        masks = draw(self.masks, NumPyArrays(self.sample.dtype))
        made = blend(self.sample, masks, self.fill)
        return made if dtype is None else made.astype(dtype, copy=False)

    def astype(self, dtype: npt.DTypeLike) -> Blended:
        """Give the same batch in another type.

        Parameters
        ----------
        dtype : dtype
            The type.

        Returns
        -------
        Blended
        """
        return replace(
            self,
            sample=np.asarray(self.sample, dtype=dtype),
            fill=np.asarray(self.fill, dtype=dtype),
        )


Batch: TypeAlias = Array | Blended
"""A batch as it is, or described."""


def blend(sample: Array, masks: Array, fill: Array) -> Array:
    """Blend a sample with a fill.

    Parameters
    ----------
    sample : ndarray (*size, C)
        The sample.
    masks : ndarray (n, *size)
        How much of it is kept at each position.
    fill : ndarray
        What is shown otherwise; broadcasts to (n, *size, C).

    Returns
    -------
    ndarray (n, *size, C)
        Of the sample's type: ``mask * sample + (1 - mask) * fill``, exactly the sample where a mask
        is 1 and exactly the fill where it is 0.
    """
    keep = masks.astype(sample.dtype, copy=False)[..., None]
    made: Array
    if ((keep == 0) | (keep == 1)).all():  # a selection gives the same, and faster
        made = np.where(keep == 1, sample, fill)
    else:
        made = keep * sample + (1 - keep) * fill
    return made
