"""The operations of a `NetSpec` along a direction: what forward and backward steps change by.

Both rest on the operations themselves.  A linear operation moves by what it makes of the direction,
without its bias; an operation whose Jacobian is symmetric moves by what its own backward step makes
of it.  The backward step of an operation with a second derivative changes by one more term.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from cnnviz_core.model import Array
from cnnviz_core.netspec import Op
from cnnviz_core.targets import probabilities
from cnnviz_core.testing.operations import OPERATIONS

__all__ = ["backward_moved", "forward_moved"]

Arrays = Mapping[str, Array]
Attrs = Mapping[str, Any]

_LINEAR: Final = frozenset(
    {"conv", "linear", "avgpool", "gap", "add", "concat", "flatten", "tokens"}
)
_SYMMETRIC: Final = frozenset(
    {"relu", "relu6", "leaky_relu", "batchnorm", "softmax", "sigmoid", "silu"}
)


def forward_moved(
    op: Op, moved: Sequence[Array], inputs: Sequence[Array], value: Array, arrays: Arrays
) -> Array:
    """Differentiate an operation in a direction.

    Parameters
    ----------
    op : Op
        The operation.
    moved : sequence of ndarray
        The direction: how each input moves, of its shape.
    inputs : sequence of ndarray
        The inputs.
    value : ndarray
        The result.
    arrays : mapping of str to ndarray
        The layer's arrays.

    Returns
    -------
    ndarray
        How the result moves, of its shape.
    """
    operation = OPERATIONS[op.kind]
    if op.kind in _LINEAR:
        without_bias = {key: array for key, array in arrays.items() if key != "bias"}
        return operation.forward(moved, without_bias, op.attrs)
    if op.kind in _SYMMETRIC:
        return operation.backward(moved[0], inputs, value, arrays, op.attrs)[0]
    return _FORWARD[op.kind](moved[0], inputs[0], arrays, op.attrs)


def backward_moved(
    op: Op,
    gradient: Array,
    bend: Array,
    moved: Sequence[Array],
    inputs: Sequence[Array],
    value: Array,
    arrays: Arrays,
) -> list[Array]:
    """Differentiate an operation's backward step in a direction.

    Parameters
    ----------
    op : Op
        The operation.
    gradient, bend : ndarray
        The gradient from above, and how it moves, of the result's shape.
    moved, inputs, value, arrays
        As in `forward_moved`.

    Returns
    -------
    list of ndarray
        How the gradient with respect to each input moves, of its shape.
    """
    # The step is linear in the gradient; how it depends on the inputs is the second term.
    parts = OPERATIONS[op.kind].backward(bend, inputs, value, arrays, op.attrs)
    if op.kind in _SECOND:
        parts = [parts[0] + _SECOND[op.kind](gradient, moved[0], inputs[0], arrays, op.attrs)]
    return parts


def _maxpool(moved: Array, x: Array, arrays: Arrays, attrs: Attrs) -> Array:
    """Take, in each window, the move of the value that wins it."""
    axes = tuple(range(1, x.ndim - 1))
    steps = (slice(None), *(slice(None, None, stride) for stride in attrs["stride"]))

    def candidates(array: Array, fill: float) -> Array:
        padded = np.pad(array, ((0, 0), *attrs["padding"], (0, 0)), constant_values=fill)
        windows = np.lib.stride_tricks.sliding_window_view(padded, attrs["window"], axes)[steps]
        return windows.reshape(*windows.shape[: x.ndim], -1)

    winner = candidates(x, -np.inf).argmax(-1)[..., None]
    return np.take_along_axis(candidates(moved, 0), winner, -1)[..., 0]


def _standard(x: Array, attrs: Attrs) -> tuple[Array, Array]:
    """Give what a layer norm scales and shifts, and the factor that it took."""
    centred = x - x.mean(-1, keepdims=True)
    factor = 1 / np.sqrt(_mean(centred, centred) + x.dtype.type(attrs["epsilon"]))
    return centred * factor, factor


def _mean(a: Array, b: Array) -> Array:
    """Give the mean of a product over the channels."""
    return np.mean(a * b, -1, keepdims=True)


def _standard_moved(moved: Array, standard: Array, factor: Array) -> Array:
    """Give how the result of `_standard` moves."""
    centred = moved - moved.mean(-1, keepdims=True)
    return factor * (centred - standard * _mean(standard, moved))


def _layernorm(moved: Array, x: Array, arrays: Arrays, attrs: Attrs) -> Array:
    return _standard_moved(moved, *_standard(x, attrs)) * arrays["scale"]


def _layernorm_second(g: Array, moved: Array, x: Array, arrays: Arrays, attrs: Attrs) -> Array:
    standard, factor = _standard(x, attrs)
    g = g * arrays["scale"]
    turned = _standard_moved(moved, standard, factor)
    factor_moved = -factor * factor * _mean(standard, moved)
    across = g - g.mean(-1, keepdims=True) - standard * _mean(g, standard)
    return factor_moved * across - factor * (
        turned * _mean(g, standard) + standard * _mean(g, turned)
    )


def _softmax_second(g: Array, moved: Array, x: Array, arrays: Arrays, attrs: Attrs) -> Array:
    p = probabilities(x, "softmax")

    def centred(values: Array) -> Array:
        return values - (p * values).sum(-1, keepdims=True)

    both = centred(g) * centred(moved)
    return p * centred(both)


def _sigmoid_second(g: Array, moved: Array, x: Array, arrays: Arrays, attrs: Attrs) -> Array:
    s = probabilities(x, "sigmoid")
    return g * moved * s * (1 - s) * (1 - 2 * s)


def _silu_second(g: Array, moved: Array, x: Array, arrays: Arrays, attrs: Attrs) -> Array:
    s = probabilities(x, "sigmoid")
    return g * moved * s * (1 - s) * (2 + x * (1 - 2 * s))


_FORWARD: Final[Mapping[str, Callable[[Array, Array, Arrays, Attrs], Array]]] = {
    "maxpool": _maxpool,
    "layernorm": _layernorm,
}
"""How a result moves: (move of the input, input, arrays, attrs) -> move."""

_SECOND: Final[Mapping[str, Callable[[Array, Array, Array, Arrays, Attrs], Array]]] = {
    "layernorm": _layernorm_second,
    "softmax": _softmax_second,
    "sigmoid": _sigmoid_second,
    "silu": _silu_second,
}
"""The second term: (gradient, move of the input, input, arrays, attrs) -> part of the bend."""
