"""What second derivatives need beyond TensorFlow's own, which are wrong without a word in places.

- ``tf.nn.moments``, which layer norm rests on, takes the mean inside the variance for a constant.
  That is right once, since the variance is least there, and wrong twice.
- The backward step of a bilinear resizing counts as a constant; of other resizings it has no
  derivative.  All of them are linear, so the derivative of the step is the resizing itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Final

import tensorflow as tf

from cnnviz_core.errors import UnsupportedModelError
from cnnviz_tf.convolution import CONVOLUTIONS

__all__ = ["MOMENTS", "check_differentiable_twice", "twice", "without_second_derivative"]

MOMENTS: Final = {"StopGradient": "cnnviz.StopGradient"}
"""From the type of an operation of a network to the name of its registered gradient."""

_RESIZINGS: Final = {
    "ResizeBicubicGrad": tf.raw_ops.ResizeBicubic,
    "ResizeBilinearGrad": tf.raw_ops.ResizeBilinear,
    "ResizeNearestNeighborGrad": tf.raw_ops.ResizeNearestNeighbor,
}

_STEPS: Final = {kind: f"cnnviz.{kind}" for kind in _RESIZINGS}
"""From the type of an operation of a backward pass to the name of its registered gradient."""

_CONSTANTS: Final = ("FakeQuant",)
"""What the types begin with of operations whose backward step TensorFlow takes for a constant."""

_TWICE: ContextVar[bool] = ContextVar("twice", default=False)


def _resized(op: tf.Operation, gradient: tf.Tensor) -> list[tf.Tensor | None]:
    """Differentiate the backward step of a resizing with respect to the gradient from above."""
    result = _RESIZINGS[op.type](
        images=gradient,
        size=tf.shape(op.inputs[0])[1:3],
        align_corners=op.get_attr("align_corners"),
        half_pixel_centers=op.get_attr("half_pixel_centers"),
    )
    return [tf.cast(result, op.inputs[0].dtype), None]


def _constant(op: tf.Operation, gradient: tf.Tensor) -> tf.Tensor | None:
    """Differentiate what counts as a constant: not at all, but for the mean inside a variance."""
    return gradient if _TWICE.get() and _is_mean_of_variance(op) else None


def _is_mean_of_variance(op: tf.Operation) -> bool:
    """Tell whether a constant is the mean whose squared differences ``tf.nn.moments`` takes."""
    mean = op.inputs[0].op
    return mean.type == "Mean" and any(
        consumer.type == "SquaredDifference" and any(t is mean.inputs[0] for t in consumer.inputs)
        for consumer in op.outputs[0].consumers()
    )


for _names, _gradient in ((_STEPS, _resized), (MOMENTS, _constant)):
    for _name in _names.values():
        with suppress(KeyError):  # a reloaded module finds its name taken, by this very function
            tf.RegisterGradient(_name)(_gradient)


@contextmanager
def twice(graph: tf.Graph) -> Iterator[None]:
    """Let ``tf.gradients`` build, in a graph, backward passes that can be differentiated again.

    Parameters
    ----------
    graph : tf.Graph
        The graph.
    """
    token = _TWICE.set(True)
    try:
        with graph.as_default(), graph.gradient_override_map({**CONVOLUTIONS, **_STEPS}):
            yield
    finally:
        _TWICE.reset(token)


def check_differentiable_twice(ops: Iterable[tf.Operation]) -> None:
    """Check that TensorFlow takes no backward step on the way for a constant.

    Parameters
    ----------
    ops : iterable of tf.Operation
        The operations on the way.

    Raises
    ------
    UnsupportedModelError
        If it does.
    """
    for op in ops:
        if op.type.startswith(_CONSTANTS):
            raise without_second_derivative(op.type)


def without_second_derivative(what: object) -> UnsupportedModelError:
    """Make the error that an operation has no second derivative.

    Parameters
    ----------
    what : str or Exception
        The operation's type, or what TensorFlow says of it.

    Returns
    -------
    UnsupportedModelError
    """
    named = re.search(r"op type: (\w+)", str(what))
    said = named[1] if named else str(what).partition("\n")[0]
    return UnsupportedModelError(
        f"an operation of the network has no second derivative in TensorFlow: {said}",
        "operations that TensorFlow can differentiate twice",
        "use a method of first derivatives, or a layer behind that operation",
    )
