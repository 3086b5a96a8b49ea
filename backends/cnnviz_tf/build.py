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
        ((top, bottom), (left, right)).
    """

    def __init__(self, padding: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.padding = tuple(tuple(side) for side in padding)

    def call(self, x: Any) -> Any:
        """Pad (N, H, W, C)."""
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
            pad = MaxPoolPadding if op.kind == "maxpool" else keras.layers.ZeroPadding2D
            layers[name] = pad(padding=padding, name=name, dtype=dtype)
        given = [layers[name](given[0])]
    if op.layer not in layers:
        layers[op.layer] = _layer(
            op, arrays, given[0].shape[-1], {"name": op.layer, "dtype": dtype}
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


def _layer(op: Op, arrays: dict[str, Array], channels: int, common: dict[str, str]) -> Any:
    """Make the layer of an operation."""
    layers = keras.layers
    match op.kind:
        case "conv":
            return _convolution(op, arrays, channels, common)
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
            return layers.MaxPooling2D(op.attrs["window"], op.attrs["stride"], **common)
        case "avgpool":
            return layers.AveragePooling2D(op.attrs["window"], op.attrs["stride"], **common)
        case "gap":
            return layers.GlobalAveragePooling2D(**common)
        case "batchnorm":
            return layers.BatchNormalization(epsilon=op.attrs["epsilon"], **common)
        case "add":
            return layers.Add(**common)
        case "concat":
            return layers.Concatenate(**common)
        case "flatten":
            return layers.Flatten(**common)
        case _:
            return layers.Activation(op.kind, **common)


def _convolution(op: Op, arrays: dict[str, Array], channels: int, common: dict[str, str]) -> Any:
    """Make a convolution; a depthwise one where every channel is a group of its own."""
    *window, _, filters = arrays["weight"].shape
    options = {
        "strides": op.attrs["stride"],
        "dilation_rate": op.attrs["dilation"],
        "use_bias": "bias" in arrays,
        **common,
    }
    if op.attrs["groups"] == channels > 1:
        return keras.layers.DepthwiseConv2D(window, depth_multiplier=filters // channels, **options)
    return keras.layers.Conv2D(filters, window, groups=op.attrs["groups"], **options)


def _weights(layer: Any, arrays: dict[str, Array]) -> list[Array]:
    """Put a layer's arrays in Keras' order and layout."""
    if isinstance(layer, keras.layers.BatchNormalization):
        return [arrays[key] for key in ("scale", "shift", "mean", "variance")]
    return [
        array.reshape(weight.shape)
        for array, weight in zip(
            (arrays[key] for key in ("weight", "bias") if key in arrays),
            layer.weights,
            strict=True,
        )
    ]
