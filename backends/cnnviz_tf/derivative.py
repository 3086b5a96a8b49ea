"""Single operations of a graph: their own derivative, and the same operation on other inputs.

``tf.gradients`` walks through everything behind an operation, at every call.  For one operation its
registered gradient does, but TensorFlow has no public way to look it up: all that is known of that
is in this file, and where it is missing, or an operation calls functions, ``tf.gradients`` is used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf
from tensorflow.core.framework import attr_value_pb2

from cnnviz_tf.inline import CALLS

__all__ = ["derivative", "derivative_between", "replayed"]


def derivative(op: tf.Operation, arriving: Sequence[tf.Tensor | None]) -> list[tf.Tensor | None]:
    """Multiply by an operation's own derivative.

    Parameters
    ----------
    op : tf.Operation
        The operation.
    arriving : sequence of (tf.Tensor or None)
        What arrives at each of its outputs; None for nothing.

    Returns
    -------
    list of (tf.Tensor or None)
        What each of its inputs gets; None where it has no derivative.
    """
    function = _registered(op)
    if function is None:
        return _by_tensorflow(op, arriving)
    given = [
        tf.zeros_like(output) if one is None and output.dtype.is_floating else one
        for output, one in zip(op.outputs, arriving, strict=True)
    ]
    parts = function(op, *given)
    parts = parts if isinstance(parts, list | tuple) else [parts]
    return [None if part is None else tf.convert_to_tensor(part) for part in parts]


def derivative_between(top: tf.Tensor, bottom: tf.Tensor, arriving: tf.Tensor) -> tf.Tensor:
    """Multiply by the derivative of one tensor with respect to another that it depends on.

    Parameters
    ----------
    top, bottom : tf.Tensor
        The tensors.
    arriving : tf.Tensor
        What arrives at the first.

    Returns
    -------
    tf.Tensor
        What the second gets.
    """
    zero = tf.UnconnectedGradients.ZERO
    (part,) = tf.gradients(top, bottom, grad_ys=arriving, unconnected_gradients=zero)
    return tf.convert_to_tensor(part)


def replayed(op: tf.Operation, changed: dict[int, tf.Tensor]) -> tf.Operation:
    """Add an operation to the current graph again, with some of its inputs changed.

    Parameters
    ----------
    op : tf.Operation
        The operation.
    changed : dict of int to tf.Tensor
        From an input's index to what it takes instead, of another type perhaps.

    Returns
    -------
    tf.Operation
    """
    inputs = [changed.get(index, tensor) for index, tensor in enumerate(op.inputs)]
    attributes = {key: value for key, value in op.node_def.attr.items() if key != "_class"}
    dtypes = [tensor.dtype for tensor in op.outputs]
    for index in changed:
        name, dtype = _type_attributes(op)[index], inputs[index].dtype
        attributes[name] = attr_value_pb2.AttrValue(type=dtype.as_datatype_enum)
        for place, argument in enumerate(op.op_def.output_arg):
            dtypes[place] = dtype if argument.type_attr == name else dtypes[place]
    graph = tf.compat.v1.get_default_graph()
    return graph.create_op(op.type, inputs, dtypes, attrs=attributes)


def _type_attributes(op: tf.Operation) -> list[str]:
    """Name, for each input of an operation, the attribute that tells its type."""
    names: list[str] = []
    for argument in op.op_def.input_arg:
        count = op.get_attr(argument.number_attr) if argument.number_attr else 1
        names += [argument.type_attr] * count
    return names


def _registered(op: tf.Operation) -> Callable[..., Any] | None:
    """Look up an operation's gradient function."""
    if op.type in CALLS:
        return None
    try:
        from tensorflow.python.framework import ops

        return ops.get_gradient_function(op)
    except (ImportError, AttributeError, LookupError):
        return None


def _by_tensorflow(
    op: tf.Operation, arriving: Sequence[tf.Tensor | None]
) -> list[tf.Tensor | None]:
    """Differentiate an operation by ``tf.gradients``."""
    tops = [output for output, one in zip(op.outputs, arriving, strict=True) if one is not None]
    given = [one for one in arriving if one is not None]
    ends = [tensor for tensor in op.inputs if tensor.dtype.is_floating]
    parts = iter(tf.gradients(tops, ends, grad_ys=given, stop_gradients=ends))
    return [next(parts) if tensor.dtype.is_floating else None for tensor in op.inputs]
