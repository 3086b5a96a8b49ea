"""The operations of a `NetSpec` and their derivatives, written plainly in NumPy.

Each operation is a pair of functions: ``forward(inputs, arrays, attrs) -> value`` and
``backward(gradient, inputs, value, arrays, attrs) -> gradients of the inputs``.  Clarity comes
before speed: this is what the backends are compared with.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from cnnviz_core.model import Array
from cnnviz_core.targets import probabilities

__all__ = ["OPERATIONS", "Operation"]

Arrays = Mapping[str, Array]
Attrs = Mapping[str, Any]
Axes = tuple[int, ...]
"""One number for each axis of a grid."""


class Operation(NamedTuple):
    """An operation and its vector-Jacobian product."""

    forward: Callable[[Sequence[Array], Arrays, Attrs], Array]
    backward: Callable[[Array, Sequence[Array], Array, Arrays, Attrs], list[Array]]


def _windows(
    grid: Axes, window: Axes, stride: Axes, dilation: Axes
) -> Iterator[tuple[Axes, tuple[slice, ...]]]:
    """Give, for each place in the window, the input positions under it for all outputs at once."""
    for place in product(*map(range, window)):
        along = (
            slice(i * d, i * d + s * (n - 1) + 1, s)
            for i, n, s, d in zip(place, grid, stride, dilation, strict=True)
        )
        yield place, (slice(None), *along)


def _pad(x: Array, padding: Any, value: float = 0.0) -> Array:
    """Pad the spatial axes."""
    return np.pad(x, ((0, 0), *padding, (0, 0)), constant_values=value)


def _unpad(x: Array, padding: Any) -> Array:
    """Take the padding of the spatial axes off."""
    grid = (
        slice(before, n - after) for (before, after), n in zip(padding, x.shape[1:-1], strict=True)
    )
    return x[(slice(None), *grid)]


def _grid(padded: Array, window: Axes, stride: Axes, dilation: Axes) -> Axes:
    """Work out the output's grid."""
    return tuple(
        (n - d * (k - 1) - 1) // s + 1
        for n, d, k, s in zip(padded.shape[1:-1], dilation, window, stride, strict=True)
    )


def _no_dilation(window: Axes) -> Axes:
    """Give the dilation of a pool."""
    return (1,) * len(window)


def _grouped(kernel: Array, groups: int) -> Array:
    """Give one kernel position's weights, (C_in / G, C_out), as (G, C_in / G, C_out / G)."""
    return kernel.reshape(kernel.shape[0], groups, -1).swapaxes(0, 1)


def _conv(inputs: Sequence[Array], arrays: Arrays, attrs: Attrs) -> Array:
    weight, groups = arrays["weight"], attrs["groups"]
    x = _pad(inputs[0], attrs["padding"])
    window, stride, dilation = weight.shape[:-2], attrs["stride"], attrs["dilation"]
    grid = _grid(x, window, stride, dilation)
    out = np.zeros((len(x), *grid, groups, weight.shape[-1] // groups), x.dtype)
    for place, at in _windows(grid, window, stride, dilation):
        patch = x[at].reshape(len(x), *grid, groups, -1)
        out += np.einsum("...gi,gio->...go", patch, _grouped(weight[place], groups), optimize=True)
    out = out.reshape(len(x), *grid, -1)
    return out + arrays["bias"] if "bias" in arrays else out


def _conv_back(
    g: Array, inputs: Sequence[Array], value: Array, arrays: Arrays, attrs: Attrs
) -> list[Array]:
    weight, groups = arrays["weight"], attrs["groups"]
    gx = np.zeros_like(_pad(inputs[0], attrs["padding"]))
    grid = g.shape[1:-1]
    grouped = g.reshape(*g.shape[:-1], groups, -1)
    for place, at in _windows(grid, weight.shape[:-2], attrs["stride"], attrs["dilation"]):
        kernel = _grouped(weight[place], groups)
        part = np.einsum("...go,gio->...gi", grouped, kernel, optimize=True)
        gx[at] += part.reshape(*g.shape[:-1], -1)
    return [_unpad(gx, attrs["padding"])]


def _linear(inputs: Sequence[Array], arrays: Arrays, attrs: Attrs) -> Array:
    out = inputs[0] @ arrays["weight"]
    return out + arrays["bias"] if "bias" in arrays else out


def _linear_back(
    g: Array, inputs: Sequence[Array], value: Array, arrays: Arrays, attrs: Attrs
) -> list[Array]:
    return [g @ arrays["weight"].T]


def _stacked(x: Array, attrs: Attrs) -> tuple[Array, Axes]:
    """Give a pool's candidates, one slice for each place in the window."""
    window, stride = attrs["window"], attrs["stride"]
    dilation = _no_dilation(window)
    grid = _grid(x, window, stride, dilation)
    return np.stack([x[at] for _, at in _windows(grid, window, stride, dilation)]), grid


def _maxpool(inputs: Sequence[Array], arrays: Arrays, attrs: Attrs) -> Array:
    return _stacked(_pad(inputs[0], attrs["padding"], -np.inf), attrs)[0].max(0)


def _maxpool_back(
    g: Array, inputs: Sequence[Array], value: Array, arrays: Arrays, attrs: Attrs
) -> list[Array]:
    x = _pad(inputs[0], attrs["padding"], -np.inf)
    candidates, grid = _stacked(x, attrs)
    winner = candidates.argmax(0)  # of equal ones the first in raster order, as frameworks do
    gx = np.zeros_like(x)
    window = attrs["window"]
    places = _windows(grid, window, attrs["stride"], _no_dilation(window))
    for k, (_, at) in enumerate(places):
        gx[at] += np.where(winner == k, g, 0)
    return [_unpad(gx, attrs["padding"])]


def _avgpool(inputs: Sequence[Array], arrays: Arrays, attrs: Attrs) -> Array:
    return _stacked(inputs[0], attrs)[0].mean(0)


def _avgpool_back(
    g: Array, inputs: Sequence[Array], value: Array, arrays: Arrays, attrs: Attrs
) -> list[Array]:
    gx = np.zeros_like(inputs[0])
    window = attrs["window"]
    for _, at in _windows(g.shape[1:-1], window, attrs["stride"], _no_dilation(window)):
        gx[at] += g / math.prod(window)
    return [gx]


def _gap(inputs: Sequence[Array], arrays: Arrays, attrs: Attrs) -> Array:
    return inputs[0].mean(tuple(range(1, inputs[0].ndim - 1)))


def _gap_back(
    g: Array, inputs: Sequence[Array], value: Array, arrays: Arrays, attrs: Attrs
) -> list[Array]:
    n, *grid, channels = inputs[0].shape
    spread = (g / math.prod(grid)).reshape(n, *(1 for _ in grid), channels)
    return [np.broadcast_to(spread, inputs[0].shape).copy()]


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


def _standard(x: Array, attrs: Attrs) -> tuple[Array, Array]:
    """Bring the channels of each position to mean 0 and variance 1; give the scale it took too."""
    centred = x - x.mean(-1, keepdims=True)
    variance = np.mean(centred * centred, -1, keepdims=True)
    factor = 1 / np.sqrt(variance + x.dtype.type(attrs["epsilon"]))
    return centred * factor, factor


def _layernorm(inputs: Sequence[Array], arrays: Arrays, attrs: Attrs) -> Array:
    return _standard(inputs[0], attrs)[0] * arrays["scale"] + arrays["shift"]


def _layernorm_back(
    g: Array, inputs: Sequence[Array], value: Array, arrays: Arrays, attrs: Attrs
) -> list[Array]:
    standard, factor = _standard(inputs[0], attrs)
    g = g * arrays["scale"]
    along = standard * np.mean(g * standard, -1, keepdims=True)
    return [factor * (g - g.mean(-1, keepdims=True) - along)]


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


def _tokens(inputs: Sequence[Array], arrays: Arrays, attrs: Attrs) -> Array:
    return inputs[0].reshape(len(inputs[0]), -1, inputs[0].shape[-1])


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


def _silu(inputs: Sequence[Array], arrays: Arrays, attrs: Attrs) -> Array:
    return inputs[0] * probabilities(inputs[0], "sigmoid")


def _silu_back(
    g: Array, inputs: Sequence[Array], value: Array, arrays: Arrays, attrs: Attrs
) -> list[Array]:
    s = probabilities(inputs[0], "sigmoid")
    return [g * s * (1 + inputs[0] * (1 - s))]


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
    "layernorm": Operation(_layernorm, _layernorm_back),
    "add": Operation(_add, _add_back),
    "concat": Operation(_concat, _concat_back),
    "flatten": Operation(_flatten, _flatten_back),
    "tokens": Operation(_tokens, _flatten_back),
    "softmax": Operation(_softmax, _softmax_back),
    "sigmoid": Operation(_sigmoid, _sigmoid_back),
    "silu": Operation(_silu, _silu_back),
}
