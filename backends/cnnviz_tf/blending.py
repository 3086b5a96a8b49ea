"""Making a described batch where the network computes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from cnnviz_core.blended import Batch, Blended
from cnnviz_core.mask_forms import draw
from cnnviz_core.model import Array

__all__ = ["TensorFlowArrays", "to_tensor"]


@dataclass(frozen=True)
class TensorFlowArrays:
    """Tensors, to draw masks with; see `cnnviz_core.mask_forms.MaskArrays`.

    Attributes
    ----------
    dtype : tf.DType
        Their floating-point type.
    """

    dtype: tf.DType

    def array(self, values: Array | float) -> tf.Tensor:
        """Copy an array; see `MaskArrays.array`."""
        return tf.constant(np.asarray(values, dtype=self.dtype.as_numpy_dtype))

    def take(self, values: tf.Tensor, labels: Array) -> tf.Tensor:
        """Give each position its segment's value; see `MaskArrays.take`."""
        return tf.gather(values, tf.constant(labels, tf.int64), axis=1)

    def combine(self, values: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        """Interpolate along an axis; see `MaskArrays.combine`."""
        # In single precision some devices would shorten the factors to 10 bits.
        values, weights = tf.cast(values, tf.float64), tf.cast(weights, tf.float64)
        return tf.cast(tf.matmul(values, weights, transpose_a=True), self.dtype)

    def reshape(self, values: tf.Tensor, shape: tuple[int, ...]) -> tf.Tensor:
        """Give another shape; see `MaskArrays.reshape`."""
        return tf.reshape(values, shape)

    def clip(self, values: tf.Tensor) -> tf.Tensor:
        """Bring to [0, 1] what lies outside; see `MaskArrays.clip`."""
        return tf.clip_by_value(values, 0, 1)

    def stretch(self, values: tf.Tensor) -> tf.Tensor:
        """Bring to [0, 1] by the extremes; see `MaskArrays.stretch`."""
        axes = list(range(1, values.shape.rank))
        # Halves keep the difference of two huge values from overflowing.
        above = values * 0.5 - tf.reduce_min(values, axes, keepdims=True) * 0.5
        largest = tf.reduce_max(above, axes, keepdims=True)
        return tf.where(tf.math.is_finite(largest), tf.math.divide_no_nan(above, largest), 0)


def to_tensor(batch: Batch) -> Any:
    """Copy a batch to a tensor; one that is described is made there.

    Parameters
    ----------
    batch : ndarray or Blended
        The batch, in float32 or float64.

    Returns
    -------
    tf.Tensor (n, ...)
        Of the same type.  Of a described batch exactly the sample where a mask is 1, and exactly
        the fill where it is 0.
    """
    if not isinstance(batch, Blended):
        return tf.constant(batch)
    arrays = TensorFlowArrays(tf.as_dtype(batch.dtype))
    fill = np.broadcast_to(batch.fill, batch.sample.shape)
    # One value for all channels would be several times slower to multiply by.
    channels = [*(1 for _ in batch.sample.shape), batch.sample.shape[-1]]
    keep = tf.tile(draw(batch.masks, arrays)[..., None], channels)
    return keep * arrays.array(batch.sample) + (1 - keep) * arrays.array(fill)
