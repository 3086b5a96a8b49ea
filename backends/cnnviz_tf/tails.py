"""Of which values the logits are an affine function, read off a traced graph."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

import tensorflow as tf

from cnnviz_tf import convolution
from cnnviz_tf.kinds import CONVOLUTIONS, NORMS, PLACING, PRODUCTS, SHAPES, SUMS, may_vary

__all__ = ["affine_in"]

_LINEAR: Final = SUMS | {
    *PLACING - {"Merge", "PlaceholderWithDefault", "Snapshot", "Switch"},
    *("AvgPool", "AvgPool3D", "BiasAdd", "Concat", "ConcatV2", "Mean", "Neg", "Sum"),
    *("ResizeBicubic", "ResizeBilinear"),
}
"""Affine in all that they read."""

_PRODUCTS: Final = PRODUCTS | {"Mul"}
"""Affine in each of the arguments while the others are held."""

_IN_ONE: Final = {**CONVOLUTIONS, "RealDiv": 0, **dict.fromkeys(NORMS, 0)}
"""From the type of those that are affine in one argument to its index."""

_AFFINE: Final = _LINEAR | _PRODUCTS | _IN_ONE.keys()

_GRADIENT: Final = "_gradient_op_type"
"""The attribute of operations whose derivative is not TensorFlow's own."""


def affine_in(end: tf.Tensor, starts: Mapping[str, tf.Tensor]) -> frozenset[str]:
    """Find the values of which another one is an affine function, whose slope is its gradient.

    Parameters
    ----------
    end : tf.Tensor
        The other one, such as the logits.
    starts : mapping of str to tf.Tensor
        The values by name.

    Returns
    -------
    frozenset of str
        The names of those that it is known of: all operations on the ways to the end are affine in
        what varies, and none has a gradient that someone made up, or is drawn by chance.
    """
    ways = _before([end.op], _read)
    if any(map(may_vary, {op.type: op for op in ways}.values())):
        return frozenset()
    others = {op for op in ways if not _may_be_affine(op)}
    lost = _before((needed for op in others for needed in _needed(op)), _needed)
    kept = ways - lost
    takers: dict[object, list[tf.Operation]] = {}
    for op in kept - others:
        for tensor in op.inputs:
            takers.setdefault(tensor.ref(), []).append(op)
    return frozenset(
        name
        for name, start in starts.items()
        if start.op in kept and start.dtype.is_floating and _is_affine_in(start, end, takers)
    )


def _is_affine_in(
    start: tf.Tensor, end: tf.Tensor, takers: Mapping[object, list[tf.Operation]]
) -> bool:
    """Tell whether all operations between two values are affine in what varies with the first."""
    varying, between, stack = {start.ref()}, set[tf.Operation](), [start]
    while stack:
        new = set(takers.get(stack.pop().ref(), ())) - between
        between |= new
        made = [tensor for op in new for tensor in op.outputs]
        varying.update(tensor.ref() for tensor in made)
        stack += made
    return end.ref() in varying and all(_is_affine(op, varying) for op in between)


def _is_affine(op: tf.Operation, varying: set[object]) -> bool:
    """Tell whether an operation, of a type that may be, is affine in what varies."""
    varies = [index for index, tensor in enumerate(op.inputs) if tensor.ref() in varying]
    if op.type in _PRODUCTS and len(varies) > 1:
        return False
    if op.type in _IN_ONE and varies != [_IN_ONE[op.type]]:
        return False
    kinds = {op.outputs[0].dtype, *(op.inputs[index].dtype for index in varies)}
    return len(kinds) == 1  # rounding to another type is not affine


def _may_be_affine(op: tf.Operation) -> bool:
    """Tell whether an operation is affine in some argument, and so is its gradient's slope."""
    if op.type not in _AFFINE or (op.type in NORMS and op.get_attr("is_training")):
        return False
    try:
        name = op.get_attr(_GRADIENT).decode()
    except ValueError:
        return True
    return name in convolution.CONVOLUTIONS.values()


def _before(
    ops: Iterable[tf.Operation], sources: Callable[[tf.Operation], Iterator[tf.Operation]]
) -> set[tf.Operation]:
    """Collect operations, and those from which they come."""
    found: set[tf.Operation] = set()
    stack = list(ops)
    while stack:
        op = stack.pop()
        if op not in found:
            found.add(op)
            stack += sources(op)
    return found


def _read(op: tf.Operation) -> Iterator[tf.Operation]:
    """Give the operations whose values another one reads: of some it asks for the size alone."""
    if op.type not in SHAPES:
        yield from (tensor.op for tensor in op.inputs)


def _needed(op: tf.Operation) -> Iterator[tf.Operation]:
    """Give also those that tell whether it is computed, as the branches of a condition."""
    yield from _read(op)
    yield from op.control_inputs
