"""A `NetSpec` as a Keras model."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from cnnviz_core.model import Array
from cnnviz_core.netspec import NetSpec, Op

__all__ = ["MaxPoolPadding", "build"]


@keras.saving.register_keras_serializable("cnnviz")
class MaxPoolPadding(keras.layers.Layer):
    """Pads the grid with the lowest number there is, which wins no maximum.

    Parameters
    ----------
    padding : tuple of tuple of int
        (before, after) for each axis of the grid, such as ((top, bottom), (left, right)).
    """

    def __init__(self, padding: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.padding = tuple(tuple(side) for side in padding)

    def call(self, x: Any) -> Any:
        """Pad (N, ...grid, C)."""
        lowest = float(np.finfo(self.compute_dtype).min)
        return keras.ops.pad(x, ((0, 0), *self.padding, (0, 0)), constant_values=lowest)

    def get_config(self) -> dict[str, Any]:
        """Give what the layer is made from."""
        return {**super().get_config(), "padding": self.padding}


def build(net: NetSpec, *, dtype: str = "float32") -> keras.Model:
    """Build a network of data as a Keras model.

    Parameters
    ----------
    net : NetSpec
        The network.  Padding becomes a layer of its own, named ``<layer>_pad``.
    dtype : {"float32", "float64"}
        The type in which it computes.

    Returns
    -------
    keras.Model
        A functional model with a layer for every layer of `net`, but for rectifiers that are to be
        functional.
    """
    values = {
        name: keras.Input(shape, name=name, dtype=dtype) for name, shape in net.inputs.items()
    }
    inputs = list(values.values())
    layers: dict[str, Any] = {}
    for op in net.ops:
        given = [values[name] for name in op.inputs]
        values[op.name] = _apply(op, given, net.of_layer(op.layer), layers, dtype)
    for name, layer in layers.items():
        if layer.weights:
            layer.set_weights(_weights(layer, net.of_layer(name)))
    return keras.Model(inputs[0] if len(inputs) == 1 else inputs, values[net.output], name=net.name)


def _apply(
    op: Op, given: list[Any], arrays: dict[str, Array], layers: dict[str, Any], dtype: str
) -> Any:
    """Apply an operation, making its layer at the first call."""
    if op.attrs.get("functional", False):
        return _rectify(op, given[0])
    padding = op.attrs.get("padding", ())
    if any(map(any, padding)):
        name = f"{op.layer}_pad"
        if name not in layers:
            layers[name] = _pad(op, {"name": name, "dtype": dtype})
        given = [layers[name](given[0])]
    if op.layer not in layers:
        layers[op.layer] = _layer(
            op, arrays, tuple(given[0].shape)[1:], {"name": op.layer, "dtype": dtype}
        )
    return layers[op.layer](given if op.kind in ("add", "concat") else given[0])


def _rectify(op: Op, x: Any) -> Any:
    """Apply a rectifier that is to be no layer."""
    match op.kind:
        case "relu6":
            return keras.ops.relu6(x)
        case "leaky_relu":
            return keras.ops.leaky_relu(x, negative_slope=op.attrs["slope"])
        case _:
            return keras.ops.relu(x)


def _of_rank(name: str, axes: int) -> Any:
    """Give the Keras layer of a name for grids of so many axes."""
    return getattr(keras.layers, f"{name}{axes}D")


def _pad(op: Op, common: dict[str, str]) -> Any:
    """Make the layer that pads for an operation."""
    padding = op.attrs["padding"]
    if op.kind == "maxpool":
        return MaxPoolPadding(padding=padding, **common)
    axes = len(padding)
    return _of_rank("ZeroPadding", axes)(padding[0] if axes == 1 else padding, **common)


def _layer(op: Op, arrays: dict[str, Array], shape: tuple[int, ...], common: dict[str, str]) -> Any:
    """Make the layer of an operation; `shape` is that of its first input, without the batch."""
    layers, axes = keras.layers, len(shape) - 1
    match op.kind:
        case "conv":
            return _convolution(op, arrays, shape[-1], common)
        case "linear":
            units = arrays["weight"].shape[-1]
            return layers.Dense(units, use_bias="bias" in arrays, **common)
        case "relu":
            return layers.ReLU(**common)
        case "relu6":
            return layers.ReLU(max_value=6, **common)
        case "leaky_relu":
            return layers.LeakyReLU(negative_slope=op.attrs["slope"], **common)
        case "maxpool":
            return _of_rank("MaxPooling", axes)(op.attrs["window"], op.attrs["stride"], **common)
        case "avgpool":
            pool = _of_rank("AveragePooling", axes)
            return pool(op.attrs["window"], op.attrs["stride"], **common)
        case "gap":
            return _of_rank("GlobalAveragePooling", axes)(**common)
        case "batchnorm":
            return layers.BatchNormalization(epsilon=op.attrs["epsilon"], **common)
        case "layernorm":
            return layers.LayerNormalization(epsilon=op.attrs["epsilon"], **common)
        case "add":
            return layers.Add(**common)
        case "concat":
            return layers.Concatenate(**common)
        case "flatten":
            return layers.Flatten(**common)
        case "tokens":
            return layers.Reshape((-1, shape[-1]), **common)
        case _:
            return layers.Activation(op.kind, **common)


def _convolution(op: Op, arrays: dict[str, Array], channels: int, common: dict[str, str]) -> Any:
    """Make a convolution; a depthwise one where every channel is a group of its own."""
    *window, _, filters = arrays["weight"].shape
    axes = len(window)
    options = {
        "strides": op.attrs["stride"],
        "dilation_rate": op.attrs["dilation"],
        "use_bias": "bias" in arrays,
        **common,
    }
    if op.attrs["groups"] == channels > 1 and axes < 3:  # Keras has no such layer for volumes
        depthwise = _of_rank("DepthwiseConv", axes)
        return depthwise(window, depth_multiplier=filters // channels, **options)
    return _of_rank("Conv", axes)(filters, window, groups=op.attrs["groups"], **options)


def _weights(layer: Any, arrays: dict[str, Array]) -> list[Array]:
    """Put a layer's arrays in Keras' order and layout."""
    if isinstance(layer, keras.layers.BatchNormalization):
        return [arrays[key] for key in ("scale", "shift", "mean", "variance")]
    if isinstance(layer, keras.layers.LayerNormalization):
        return [arrays[key] for key in ("scale", "shift")]
    return [
        array.reshape(weight.shape)
        for array, weight in zip(
            (arrays[key] for key in ("weight", "bias") if key in arrays),
            layer.weights,
            strict=True,
        )
    ]
