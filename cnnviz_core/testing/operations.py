"""The operations of a `NetSpec` and their derivatives, written plainly in NumPy.

Each operation is a pair of functions: ``forward(inputs, arrays, attrs) -> value`` and
``backward(gradient, inputs, value, arrays, attrs) -> gradients of the inputs``.  Clarity comes
before speed: this is what the backends are compared with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from cnnviz_core.model import Array
from cnnviz_core.targets import probabilities

__all__ = ["OPERATIONS", "Operation"]

Arrays = Mapping[str, Array]
Attrs = Mapping[str, Any]


class Operation(NamedTuple):
    """An operation and its vector-Jacobian product."""

    forward: Callable[[Sequence[Array], Arrays, Attrs], Array]
    backward: Callable[[Array, Sequence[Array], Array, Arrays, Attrs], list[Array]]


def _windows(
    grid: tuple[int, int], window: tuple[int, int], stride: Sequence[int], dilation: Sequence[int]
) -> Iterator[tuple[tuple[int, int], tuple[slice, slice, slice]]]:
    """Give, for each place in the window, the input positions under it for all outputs at once."""
    for i in range(window[0]):
        for j in range(window[1]):
            top, left = i * dilation[0], j * dilation[1]
            yield (
                (i, j),
                (
                    slice(None),
                    slice(top, top + stride[0] * (grid[0] - 1) + 1, stride[0]),
                    slice(left, left + stride[1] * (grid[1] - 1) + 1, stride[1]),
                ),
            )


def _pad(x: Array, padding: Any, value: float = 0.0) -> Array:
    """Pad the two spatial axes."""
    return np.pad(x, ((0, 0), *padding, (0, 0)), constant_values=value)


def _unpad(x: Array, padding: Any) -> Array:
    """Take the padding of the two spatial axes off."""
    (top, bottom), (left, right) = padding
    return x[:, top : x.shape[1] - bottom, left : x.shape[2] - right]


def _grid(
    padded: Array, window: tuple[int, int], stride: Sequence[int], dilation: Sequence[int]
) -> tuple[int, int]:
    """Work out the output's grid."""
    h, w = (
        (n - d * (k - 1) - 1) // s + 1
        for n, d, k, s in zip(padded.shape[1:3], dilation, window, stride, strict=True)
    )
    return h, w


def _grouped(kernel: Array, groups: int) -> Array:
    """Give one kernel position's weights, (C_in / G, C_out), as (G, C_in / G, C_out / G)."""
    return kernel.reshape(kernel.shape[0], groups, -1).swapaxes(0, 1)


def _conv(inputs: Sequence[Array], arrays: Arrays, attrs: Attrs) -> Array:
    weight, groups = arrays["weight"], attrs["groups"]
    x = _pad(inputs[0], attrs["padding"])
    window, stride, dilation = weight.shape[:2], attrs["stride"], attrs["dilation"]
    grid = _grid(x, window, stride, dilation)
    out = np.zeros((len(x), *grid, groups, weight.shape[-1] // groups), x.dtype)
    for (i, j), at in _windows(grid, window, stride, dilation):
        patch = x[at].reshape(len(x), *grid, groups, -1)
        out += np.einsum("nhwgi,gio->nhwgo", patch, _grouped(weight[i, j], groups), optimize=True)
    out = out.reshape(len(x), *grid, -1)
    return out + arrays["bias"] if "bias" in arrays else out


def _conv_back(
    g: Array, inputs: Sequence[Array], value: Array, arrays: Arrays, attrs: Attrs
) -> list[Array]:
    weight, groups = arrays["weight"], attrs["groups"]
    gx = np.zeros_like(_pad(inputs[0], attrs["padding"]))
    grid = (g.shape[1], g.shape[2])
    grouped = g.reshape(*g.shape[:3], groups, -1)
    for (i, j), at in _windows(grid, weight.shape[:2], attrs["stride"], attrs["dilation"]):
        kernel = _grouped(weight[i, j], groups)
        part = np.einsum("nhwgo,gio->nhwgi", grouped, kernel, optimize=True)
        gx[at] += part.reshape(*g.shape[:3], -1)
    return [_unpad(gx, attrs["padding"])]


def _linear(inputs: Sequence[Array], arrays: Arrays, attrs: Attrs) -> Array:
    out = inputs[0] @ arrays["weight"]
    return out + arrays["bias"] if "bias" in arrays else out


def _linear_back(
    g: Array, inputs: Sequence[Array], value: Array, arrays: Arrays, attrs: Attrs
) -> list[Array]:
    return [g @ arrays["weight"].T]


def _stacked(x: Array, attrs: Attrs) -> tuple[Array, tuple[int, int]]:
    """Give a max-pool's candidates, one slice for each place in the window."""
    window, stride = attrs["window"], attrs["stride"]
    grid = _grid(x, window, stride, (1, 1))
    return np.stack([x[at] for _, at in _windows(grid, window, stride, (1, 1))]), grid


def _maxpool(inputs: Sequence[Array], arrays: Arrays, attrs: Attrs) -> Array:
    return _stacked(_pad(inputs[0], attrs["padding"], -np.inf), attrs)[0].max(0)


def _maxpool_back(
    g: Array, inputs: Sequence[Array], value: Array, arrays: Arrays, attrs: Attrs
) -> list[Array]:
    x = _pad(inputs[0], attrs["padding"], -np.inf)
    candidates, grid = _stacked(x, attrs)
    winner = candidates.argmax(0)  # of equal ones the first in raster order, as frameworks do
    gx = np.zeros_like(x)
    for k, (_, at) in enumerate(_windows(grid, attrs["window"], attrs["stride"], (1, 1))):
        gx[at] += np.where(winner == k, g, 0)
    return [_unpad(gx, attrs["padding"])]


def _avgpool(inputs: Sequence[Array], arrays: Arrays, attrs: Attrs) -> Array:
    return _stacked(inputs[0], attrs)[0].mean(0)


def _avgpool_back(
    g: Array, inputs: Sequence[Array], value: Array, arrays: Arrays, attrs: Attrs
) -> list[Array]:
    gx = np.zeros_like(inputs[0])
    window = attrs["window"]
    for _, at in _windows((g.shape[1], g.shape[2]), window, attrs["stride"], (1, 1)):
        gx[at] += g / (window[0] * window[1])
    return [gx]


def _gap(inputs: Sequence[Array], arrays: Arrays, attrs: Attrs) -> Array:
    return inputs[0].mean((1, 2))


def _gap_back(
    g: Array, inputs: Sequence[Array], value: Array, arrays: Arrays, attrs: Attrs
) -> list[Array]:
    shape = inputs[0].shape
    return [np.broadcast_to(g[:, None, None] / (shape[1] * shape[2]), shape).copy()]


def _batchnorm_factor(arrays: Arrays, attrs: Attrs) -> Array:
    return arrays["scale"] / np.sqrt(
        arrays["variance"] + arrays["variance"].dtype.type(attrs["epsilon"])
    )


def _batchnorm(inputs: Sequence[Array], arrays: Arrays, attrs: Attrs) -> Array:
    return (inputs[0] - arrays["mean"]) * _batchnorm_factor(arrays, attrs) + arrays["shift"]


def _batchnorm_back(
    g: Array, inputs: Sequence[Array], value: Array, arrays: Arrays, attrs: Attrs
) -> list[Array]:
    return [g * _batchnorm_factor(arrays, attrs)]


def _relu(inputs: Sequence[Array], arrays: Arrays, attrs: Attrs) -> Array:
    return np.maximum(inputs[0], 0)


def _relu_back(
    g: Array, inputs: Sequence[Array], value: Array, arrays: Arrays, attrs: Attrs
) -> list[Array]:
    return [g * (inputs[0] > 0)]


def _relu6(inputs: Sequence[Array], arrays: Arrays, attrs: Attrs) -> Array:
    return np.clip(inputs[0], 0, 6)


def _relu6_back(
    g: Array, inputs: Sequence[Array], value: Array, arrays: Arrays, attrs: Attrs
) -> list[Array]:
    return [g * ((inputs[0] > 0) & (inputs[0] < 6))]


def _leaky(inputs: Sequence[Array], arrays: Arrays, attrs: Attrs) -> Array:
    return np.where(inputs[0] > 0, inputs[0], inputs[0] * inputs[0].dtype.type(attrs["slope"]))


def _leaky_back(
    g: Array, inputs: Sequence[Array], value: Array, arrays: Arrays, attrs: Attrs
) -> list[Array]:
    return [np.where(inputs[0] > 0, g, g * g.dtype.type(attrs["slope"]))]


def _add(inputs: Sequence[Array], arrays: Arrays, attrs: Attrs) -> Array:
    return np.sum(np.stack(inputs), axis=0)


def _add_back(
    g: Array, inputs: Sequence[Array], value: Array, arrays: Arrays, attrs: Attrs
) -> list[Array]:
    return [g.copy() for _ in inputs]


def _concat(inputs: Sequence[Array], arrays: Arrays, attrs: Attrs) -> Array:
    return np.concatenate(inputs, axis=-1)


def _concat_back(
    g: Array, inputs: Sequence[Array], value: Array, arrays: Arrays, attrs: Attrs
) -> list[Array]:
    ends = np.cumsum([x.shape[-1] for x in inputs])[:-1]
    return np.split(g, ends, axis=-1)


def _flatten(inputs: Sequence[Array], arrays: Arrays, attrs: Attrs) -> Array:
    return inputs[0].reshape(len(inputs[0]), -1)


def _flatten_back(
    g: Array, inputs: Sequence[Array], value: Array, arrays: Arrays, attrs: Attrs
) -> list[Array]:
    return [g.reshape(inputs[0].shape)]


def _softmax(inputs: Sequence[Array], arrays: Arrays, attrs: Attrs) -> Array:
    return probabilities(inputs[0], "softmax")


def _softmax_back(
    g: Array, inputs: Sequence[Array], value: Array, arrays: Arrays, attrs: Attrs
) -> list[Array]:
    return [value * (g - (g * value).sum(-1, keepdims=True))]


def _sigmoid(inputs: Sequence[Array], arrays: Arrays, attrs: Attrs) -> Array:
    return probabilities(inputs[0], "sigmoid")


def _sigmoid_back(
    g: Array, inputs: Sequence[Array], value: Array, arrays: Arrays, attrs: Attrs
) -> list[Array]:
    return [g * value * (1 - value)]


OPERATIONS: Mapping[str, Operation] = {
    "conv": Operation(_conv, _conv_back),
    "linear": Operation(_linear, _linear_back),
    "relu": Operation(_relu, _relu_back),
    "relu6": Operation(_relu6, _relu6_back),
    "leaky_relu": Operation(_leaky, _leaky_back),
    "maxpool": Operation(_maxpool, _maxpool_back),
    "avgpool": Operation(_avgpool, _avgpool_back),
    "gap": Operation(_gap, _gap_back),
    "batchnorm": Operation(_batchnorm, _batchnorm_back),
    "add": Operation(_add, _add_back),
    "concat": Operation(_concat, _concat_back),
    "flatten": Operation(_flatten, _flatten_back),
    "softmax": Operation(_softmax, _softmax_back),
    "sigmoid": Operation(_sigmoid, _sigmoid_back),
}
