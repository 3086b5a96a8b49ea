"""A layer's arrays under the names and in the layouts that all frameworks share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from cnnviz_core.model import Array, as_float
from cnnviz_tf.layers import kind_of_layer

__all__ = ["arrays_of", "laid_out", "weights_of"]

_NORM: Final = {
    "gamma": "scale",
    "beta": "shift",
    "moving_mean": "mean",
    "moving_variance": "variance",
}


def weights_of(layer: Any) -> dict[str, Any]:
    """Give a Keras layer's own variables, not those of layers inside it.

    Parameters
    ----------
    layer : keras.Layer
        The layer.

    Returns
    -------
    dict of str to keras.Variable or tf.Variable
        By Keras' names, such as "kernel".
    """
    inner = {
        id(weight)
        for sublayer in layer._flatten_layers(include_self=False)
        for weight in sublayer.weights
    }
    return {
        weight.name.rpartition("/")[2].partition(":")[0]: weight
        for weight in layer.weights
        if id(weight) not in inner
    }


def arrays_of(layer: Any) -> Mapping[str, Array]:
    r"""Give a Keras layer's own arrays, not those of layers inside it.

    Parameters
    ----------
    layer : keras.Layer
        The layer.

    Returns
    -------
    dict of str to ndarray
        Copies.  A convolution has "weight" (\*kernel, C_in / groups, C_out) and "bias"; a linear
        layer "weight" (C_in, C_out) and "bias"; a normalisation "scale", "shift", "mean",
        "variance" and "epsilon" (C,).  Others keep Keras' names.
    """
    own = {name: as_float(weight.numpy()) for name, weight in weights_of(layer).items()}
    return {name: np.array(array, order="C") for name, array in laid_out(layer, own).items()}


def laid_out(layer: Any, arrays: Mapping[str, Array]) -> Mapping[str, Array]:
    """Lay out the values of a layer's variables as `arrays_of` gives them.

    Parameters
    ----------
    layer : keras.Layer
        The layer.
    arrays : mapping of str to ndarray
        The values, C-contiguous, by Keras' names.

    Returns
    -------
    mapping of str to ndarray
        Views of them, and new arrays where the layer has no variable, such as "epsilon".
    """
    match kind_of_layer(layer):
        case "conv":
            return _convolution(layer, arrays)
        case "linear" if getattr(arrays.get("kernel"), "ndim", 0) == 2:
            return _renamed(arrays, {"kernel": "weight"})
        case "norm" if "moving_mean" in arrays:
            filled = {
                "gamma": np.ones_like(arrays["moving_mean"]),
                "beta": np.zeros_like(arrays["moving_mean"]),
            }
            told = getattr(layer, "epsilon", None)
            if told is not None:
                filled["epsilon"] = np.full_like(arrays["moving_variance"], told)
            return _renamed({**filled, **arrays}, _NORM)
        case "norm":
            return _renamed(arrays, _NORM)
        case _:
            return arrays


def _renamed(arrays: Mapping[str, Array], names: Mapping[str, str]) -> dict[str, Array]:
    """Give arrays under other names."""
    return {names.get(name, name): array for name, array in arrays.items()}


def _convolution(layer: Any, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """View a convolution's kernel as (*kernel, C_in / groups, C_out)."""
    depthwise = arrays.get("depthwise_kernel") if "kernel" not in arrays else None
    if "Separable" in type(layer).__name__:
        return dict(arrays)
    kernel = arrays.get("kernel", depthwise)
    if kernel is None:
        return dict(arrays)
    if "Depthwise" in type(layer).__name__:
        kernel = kernel.reshape(*kernel.shape[:-2], 1, -1)
    elif "Transpose" in type(layer).__name__:
        kernel = np.swapaxes(kernel, -1, -2)
    rest = {k: v for k, v in arrays.items() if k not in ("kernel", "depthwise_kernel")}
    return {"weight": kernel, **rest}
