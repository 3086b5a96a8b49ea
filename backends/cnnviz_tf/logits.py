"""Finding the scores before a network's final softmax or sigmoid."""

from __future__ import annotations

from typing import Final

import tensorflow as tf

__all__ = ["scores_before"]

HEADS: Final = {"Softmax": "softmax", "LogSoftmax": "softmax", "Sigmoid": "sigmoid"}
"""From the type of the last operation to the activation that it is."""

TRANSPARENT: Final = frozenset(
    {
        "Identity",
        "IdentityN",
        "Cast",
        "Reshape",
        "Squeeze",
        "ExpandDims",
        "StopGradient",
        "Transpose",
        "EnsureShape",
    }
)
"""Operations that hand on their first input's values, in another form at most."""


def scores_before(output: tf.Tensor) -> tuple[tf.Tensor, str] | None:
    """Walk back from an output to the softmax or sigmoid that made it.

    Parameters
    ----------
    output : tf.Tensor
        The network's output, in a graph.

    Returns
    -------
    scores : tf.Tensor
        What went into the softmax or sigmoid.
    activation : str
        "softmax" or "sigmoid".

    None, in place of both, where the network does not end in one.
    """
    tensor = output
    while tensor.op.type in TRANSPARENT:
        several = tensor.op.type == "IdentityN"
        tensor = tensor.op.inputs[tensor.value_index if several else 0]
    if tensor.op.type in HEADS:
        return tensor.op.inputs[0], HEADS[tensor.op.type]
    return None
