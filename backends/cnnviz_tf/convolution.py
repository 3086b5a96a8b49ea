"""The gradient of grouped convolutions, which TensorFlow lacks on CPUs.

Keras compiles grouped convolutions with XLA; in a traced graph they are plain ``Conv2D``
operations, whose backward pass TensorFlow runs on a CPU only with oneDNN and in single precision.
Their forward pass runs everywhere, and the gradient at the input is one: the gradient from above,
spread out by the stride, convolved with the kernel turned around.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Final

import tensorflow as tf

__all__ = ["CONVOLUTIONS"]

CONVOLUTIONS: Final = {"Conv2D": "cnnviz.Conv2D"}
"""From the type of the operation to the name of its registered gradient."""


def _gradient(op: tf.Operation, gradient: tf.Tensor) -> list[tf.Tensor]:
    """Differentiate a convolution with respect to its input and its kernel."""
    x, kernel = op.inputs
    attributes = {
        name: op.get_attr(name)
        for name in (
            "strides",
            "padding",
            "explicit_paddings",
            "data_format",
            "dilations",
            "use_cudnn_on_gpu",
        )
    }
    by_kernel = tf.raw_ops.Conv2DBackpropFilter(
        input=x, filter_sizes=tf.shape(kernel), out_backprop=gradient, **attributes
    )
    if _is_grouped(x, kernel, attributes["data_format"]):
        return [_grouped_input_gradient(x, kernel, gradient, attributes), by_kernel]
    by_input = tf.raw_ops.Conv2DBackpropInput(
        input_sizes=tf.shape(x), filter=kernel, out_backprop=gradient, **attributes
    )
    return [by_input, by_kernel]


def _is_grouped(x: tf.Tensor, kernel: tf.Tensor, data_format: bytes) -> bool:
    """Tell whether a convolution has more than one group, and its channels last."""
    known = x.shape.rank == 4 and x.shape[-1] is not None and kernel.shape.is_fully_defined()
    return known and data_format == b"NHWC" and x.shape[-1] != kernel.shape[2]


def _grouped_input_gradient(
    x: tf.Tensor, kernel: tf.Tensor, gradient: tf.Tensor, attributes: dict[str, Any]
) -> tf.Tensor:
    """Compute the gradient at the input as a convolution of the gradient from above."""
    _, *strides, _ = attributes["strides"]
    _, *dilations, _ = attributes["dilations"]
    height, width, inner, filters = kernel.shape
    groups = x.shape[-1] // inner
    spread = gradient
    for axis, stride in zip((1, 2), strides, strict=True):
        spread = _spread(spread, axis, stride)
    for axis, size in ((1, height), (2, width)):
        reach = dilations[axis - 1] * (size - 1)
        before = reach - _padding_before(x, axis, reach + 1, strides[axis - 1], attributes)
        spread = _placed(spread, axis, before, tf.shape(x)[axis] + reach)
    turned = tf.reshape(
        tf.reverse(kernel, [0, 1]), (height, width, inner, groups, filters // groups)
    )
    turned = tf.reshape(
        tf.transpose(turned, (0, 1, 4, 3, 2)), (height, width, filters // groups, groups * inner)
    )
    result = tf.nn.conv2d(spread, turned, 1, "VALID", dilations=dilations)
    result.set_shape(x.shape)
    return result


def _spread(values: tf.Tensor, axis: int, stride: int) -> tf.Tensor:
    """Put ``stride - 1`` zeros after each position along an axis."""
    if stride == 1:
        return values
    paddings = [[0, 0]] * (axis + 1) + [[0, stride - 1]] + [[0, 0]] * (3 - axis)
    shape = tf.tensor_scatter_nd_update(
        tf.shape(values), [[axis]], [tf.shape(values)[axis] * stride]
    )
    spread = tf.reshape(tf.pad(tf.expand_dims(values, axis + 1), paddings), shape)
    # The second derivative has to know how many channels there are.
    sizes = values.shape.as_list()
    sizes[axis] = None if sizes[axis] is None else sizes[axis] * stride
    spread.set_shape(sizes)
    return spread


def _placed(values: tf.Tensor, axis: int, before: Any, length: tf.Tensor) -> tf.Tensor:
    """Put zeros before and after along an axis, or cut positions off, to reach a length."""
    start = tf.maximum(before, 0)
    cut = tf.maximum(-before, 0)
    kept = tf.minimum(tf.shape(values)[axis] - cut, length - start)
    begin, size = [0] * 4, list(tf.unstack(tf.shape(values)))
    begin[axis], size[axis] = cut, kept
    paddings = [[0, 0]] * 4
    paddings[axis] = [start, length - start - kept]
    placed = tf.pad(tf.slice(values, begin, size), paddings)
    placed.set_shape([*values.shape[:1], None, None, *values.shape[3:]])
    return placed


def _padding_before(
    x: tf.Tensor, axis: int, window: int, stride: int, attributes: dict[str, Any]
) -> Any:
    """Give the zeros that the convolution put before the first position along an axis."""
    if attributes["padding"] == b"EXPLICIT":
        return attributes["explicit_paddings"][2 * axis]
    if attributes["padding"] == b"VALID":
        return 0
    size = tf.shape(x)[axis]
    steps = -(-size // stride)
    return tf.maximum((steps - 1) * stride + window - size, 0) // 2


for _type, _name in CONVOLUTIONS.items():
    with suppress(KeyError):  # a reloaded module finds its name taken, by this very function
        tf.RegisterGradient(_name)(_gradient)
