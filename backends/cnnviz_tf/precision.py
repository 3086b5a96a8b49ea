"""The precision in which relevance is computed."""

from __future__ import annotations

from typing import Final

import tensorflow as tf

__all__ = ["wide"]

_HALF: Final = (tf.float16, tf.bfloat16)


def wide(values: tf.Tensor) -> tf.Tensor:
    """Give values in single precision at least: in half of it, quotients overflow.

    Parameters
    ----------
    values : tf.Tensor
        Of any floating type.

    Returns
    -------
    tf.Tensor
        float32 in the place of half precision; otherwise the same.
    """
    return tf.cast(values, tf.float32) if values.dtype in _HALF else values
