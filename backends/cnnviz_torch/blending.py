"""Making a described batch where the network computes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from cnnviz_core.blended import Blended
from cnnviz_core.mask_forms import draw
from cnnviz_core.model import Array

__all__ = ["TorchArrays", "blended"]


@dataclass(frozen=True)
class TorchArrays:
    """Tensors, to draw masks with; see `cnnviz_core.mask_forms.MaskArrays`.

    Attributes
    ----------
    device : torch.device
        Where they are.
    dtype : numpy.dtype
        Their floating-point type.
    """

    device: torch.device
    dtype: np.dtype[Any]

    def array(self, values: Array | float) -> torch.Tensor:
        """Copy an array; see `MaskArrays.array`."""
        return torch.from_numpy(np.array(values, dtype=self.dtype, order="C")).to(self.device)

    def take(self, values: torch.Tensor, labels: Array) -> torch.Tensor:
        """Give each position its segment's value; see `MaskArrays.take`."""
        places = torch.from_numpy(labels.astype(np.int64).ravel()).to(self.device)
        return values.index_select(1, places).reshape(-1, *labels.shape)

    def combine(self, values: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """Interpolate along an axis; see `MaskArrays.combine`."""
        return values.mT @ weights

    def reshape(self, values: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
        """Give another shape; see `MaskArrays.reshape`."""
        return values.reshape(shape)

    def clip(self, values: torch.Tensor) -> torch.Tensor:
        """Bring to [0, 1] what lies outside; see `MaskArrays.clip`."""
        return values.clamp(0, 1)

    def stretch(self, values: torch.Tensor) -> torch.Tensor:
        """Bring to [0, 1] by the extremes; see `MaskArrays.stretch`."""
        axes = tuple(range(1, values.ndim))
        # Halves keep the difference of two huge values from overflowing.
        above = values * 0.5 - values.amin(axes, keepdim=True) * 0.5
        largest = above.amax(axes, keepdim=True)
        return torch.where((largest > 0) & largest.isfinite(), above / largest, 0)


def blended(
    batch: Blended, like: torch.Tensor | None = None, *, channels_first: bool
) -> torch.Tensor:
    """Make a described batch; one sample, one fill and the description are all that is copied.

    Parameters
    ----------
    batch : Blended
        The batch, in float32 or float64; in this type it is made.
    like : Tensor, optional
        Whose type and device to take.
    channels_first : bool
        Whether to move the last axis to the second place.

    Returns
    -------
    Tensor (n, ...)
        Contiguous, of its own memory: exactly the sample where a mask is 1, and exactly the fill
        where it is 0.
    """
    device = torch.device("cpu") if like is None else like.device
    arrays = TorchArrays(device, batch.dtype)
    fill = np.asarray(batch.fill)
    parts = [batch.sample, fill.reshape((1,) * (batch.sample.ndim - fill.ndim) + fill.shape)]
    if channels_first:
        parts = [np.moveaxis(part, -1, 0) for part in parts]
    sample, other = map(arrays.array, parts)
    with torch.autocast(device.type, enabled=False):
        masks = draw(batch.masks, arrays).unsqueeze(1 if channels_first else -1)
        made = torch.lerp(other, sample, masks)
    return made if like is None else made.to(like.dtype)
