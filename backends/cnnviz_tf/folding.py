"""Folding the constants behind a convolution or dense layer into its weight and bias.

Bias and batch normalisation reach a traced graph in many spellings: ``BiasAdd``, ``AddV2``, ``Mul``
and ``AddV2``, ``FusedBatchNormV3``, between which a signal may be squeezed or a dilated convolution
put together again.  All of them scale and shift each channel by constants.  So what they make of a
zero at one position is the shift, and their derivative there the factor.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import tensorflow as tf

from cnnviz_tf.derivative import derivative, replayed
from cnnviz_tf.kinds import CONVOLUTIONS, Facts, weight_index
from cnnviz_tf.precision import wide

__all__ = ["Folded", "fold", "through_moves", "weight_and_bias"]

_MOVES: Final = frozenset({"BatchToSpaceND", "ExpandDims", "Reshape", "Squeeze"})
_RELAYS: Final = _MOVES | {"Cast", "Identity"}
"""Operations that may stand between the constants."""

_SHIFTS: Final = frozenset({"Add", "AddV2", "BiasAdd"})
_SCALES: Final = frozenset({"Mul", "Neg", "RealDiv", "Sub"})
_NORMS: Final = frozenset({"FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"})
_PADS: Final = frozenset({"Pad", "PadV2", "SpaceToBatchND"})


@dataclass(frozen=True)
class Folded:
    """A convolution or dense layer with the operations that belong to it.

    Attributes
    ----------
    core : tf.Operation
        The convolution or product.
    data, weight : int
        The indices of its inputs.
    before : tuple of tf.Operation
        Padding with zeros right before it, with what else stands there, in order.
    after : tuple of tf.Operation
        The operations that scale and shift its result, in order.
    """

    core: tf.Operation
    data: int
    weight: int
    before: tuple[tf.Operation, ...]
    after: tuple[tf.Operation, ...]

    @property
    def input(self) -> tf.Tensor:
        """What it takes, before any padding."""
        return self.before[0].inputs[0] if self.before else self.core.inputs[self.data]

    @property
    def channels_first(self) -> bool:
        """Whether its axis of channels is before those of places."""
        return self.channel_axis == 1

    @property
    def channel_axis(self) -> int:
        """Its axis of channels: 1 or -1."""
        return _channel_axis(self.core)

    @property
    def end(self) -> tf.Tensor:
        """Its value behind the folded constants."""
        return self.after[-1].outputs[0] if self.after else self.core.outputs[0]


def fold(
    core: tf.Operation, facts: Facts, takers: Callable[[tf.Tensor], Sequence[tf.Operation]]
) -> Folded:
    """Find what belongs to a convolution or dense layer.

    Parameters
    ----------
    core : tf.Operation
        The layer's operation.
    facts : Facts
        Those of its graph.
    takers : callable
        From a tensor to the operations on the way that take it.

    Returns
    -------
    Folded
    """
    weight = weight_index(core, facts)
    assert weight is not None, core.name
    data = CONVOLUTIONS.get(core.type, 1 - weight)
    before = _before(core, data, takers) if core.type in CONVOLUTIONS else ()
    after = _after(core, facts, takers) if weight == 1 else ()
    return Folded(core, data, weight, before, after)


def weight_and_bias(folded: Folded) -> tuple[tf.Tensor, tf.Tensor | None]:
    """Compute the weight and bias that do the work of all operations of a layer.

    Parameters
    ----------
    folded : Folded
        The layer.

    Returns
    -------
    weight : tf.Tensor
        Of the shape of the layer's own.
    bias : tf.Tensor or None
        (C,); None if nothing shifts the result.
    """
    weight = wide(folded.core.inputs[folded.weight])
    constants = [op for op in folded.after if op.type not in _RELAYS]
    if not constants:
        return weight, None
    channels = folded.core.outputs[0].shape[_channel_axis(folded.core)]
    factor, shift = map(wide, _factor_and_shift(folded, channels))
    if any(op.type not in _SHIFTS for op in constants):
        weight = _scaled(folded.core, weight, factor)
    return weight, None if all(op.type in _SCALES - {"Sub"} for op in constants) else shift


def through_moves(op: tf.Operation, values: tf.Tensor) -> tf.Tensor:
    """Bring values like those behind a folded operation to the shape before it.

    Parameters
    ----------
    op : tf.Operation
        One of `Folded.after`.
    values : tf.Tensor
        Of the shape of its result.

    Returns
    -------
    tf.Tensor
        The same values, placed like what it takes.
    """
    return derivative(op, [values])[0] if op.type in _MOVES else values


def _before(
    core: tf.Operation, data: int, takers: Callable[[tf.Tensor], Sequence[tf.Operation]]
) -> tuple[tf.Operation, ...]:
    """Find the padding before a convolution, from the first operation that pads."""
    found: list[tf.Operation] = []
    tensor, taker = core.inputs[data], core
    while takers(tensor) == [taker] and _pads_zeros(tensor.op):
        taker, tensor = tensor.op, tensor.op.inputs[0]
        found.insert(0, taker)
    while found and found[0].type not in _PADS:
        del found[0]
    return tuple(found)


def _pads_zeros(op: tf.Operation) -> bool:
    """Tell whether an operation pads with zeros, or only adds an axis."""
    if op.type == "PadV2":
        value = tf.get_static_value(op.inputs[2])
        return value is not None and bool(value == 0)
    return op.type in _PADS or op.type == "ExpandDims"


def _after(
    core: tf.Operation, facts: Facts, takers: Callable[[tf.Tensor], Sequence[tf.Operation]]
) -> tuple[tf.Operation, ...]:
    """Follow what a layer gives as long as each operation only scales and shifts its channels."""
    found: list[tf.Operation] = []
    tensor, axis = core.outputs[0], _channel_axis(core)
    if tensor.shape.rank is None or tensor.shape[axis] is None:
        return ()
    while len(following := takers(tensor)) == 1 and _follows(following[0], tensor, axis, facts):
        found.append(following[0])
        tensor = found[-1].outputs[0]
    while found and found[-1].type in _RELAYS:
        del found[-1]
    return tuple(found)


def _follows(op: tf.Operation, tensor: tf.Tensor, axis: int, facts: Facts) -> bool:
    """Tell whether an operation scales or shifts channels by constants, or keeps their axis."""
    result = op.outputs[0]
    if op.type in _RELAYS:
        kept = result.shape.rank and result.shape[-1] == tensor.shape[-1]
        return op.type not in _MOVES or (axis == -1 and bool(kept))
    if op.type in _NORMS:
        return op.inputs[0] is tensor and not op.get_attr("is_training")
    if op.type == "Neg":
        return True
    if op.type not in _SHIFTS | _SCALES or len(facts.data_of(op)) != 1:
        return False
    if op.type == "BiasAdd":
        return (1 if op.get_attr("data_format") == b"NCHW" else -1) == axis
    if op.type == "RealDiv" and op.inputs[0] is not tensor:
        return False
    constant = op.inputs[1 if op.inputs[0] is tensor else 0]
    return _is_along_channels(constant.shape, tensor.shape, axis)


def _is_along_channels(constant: tf.TensorShape, shape: tf.TensorShape, axis: int) -> bool:
    """Tell whether a constant is the same at all places."""
    if not constant.is_fully_defined() or constant.rank > shape.rank:
        return False
    sizes = [1] * (shape.rank - constant.rank) + constant.as_list()
    return sizes.pop(axis) in (1, shape[axis]) and set(sizes) <= {1}


def _channel_axis(core: tf.Operation) -> int:
    """Give the axis of channels of what a layer gives."""
    first = core.type in CONVOLUTIONS and core.get_attr("data_format").startswith(b"NC")
    return 1 if first else -1


def _factor_and_shift(folded: Folded, channels: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Compute by what each channel is scaled and shifted."""
    axis, tensor = _channel_axis(folded.core), folded.core.outputs[0]
    factor = tf.ones([channels], tensor.dtype)
    shift = tf.zeros([channels], tensor.dtype)
    for op in folded.after:
        if op.type not in _RELAYS:
            position = [1] * tensor.shape.rank
            position[axis] = channels
            index = next(i for i, one in enumerate(op.inputs) if one is tensor)
            again = replayed(op, {index: tf.reshape(shift, position)})
            shift = tf.reshape(again.outputs[0], [channels])
            if op.type not in _SHIFTS:
                arriving = [tf.reshape(factor, position), *[None] * (len(op.outputs) - 1)]
                factor = tf.reshape(_turned(again, index, arriving), [channels])
        tensor = op.outputs[0]
        factor, shift = tf.cast(factor, tensor.dtype), tf.cast(shift, tensor.dtype)
    return factor, shift


def _turned(op: tf.Operation, index: int, factor: Sequence[tf.Tensor | None]) -> tf.Tensor:
    """Multiply a factor by an operation's own; by its derivative, which a plain scaling is."""
    if op.type in ("Mul", "RealDiv"):
        return replayed(op, {index: factor[0]}).outputs[0]
    return derivative(op, factor)[index]


def _scaled(core: tf.Operation, weight: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Scale what a weight gives to each channel."""
    match core.type:
        case "DepthwiseConv2dNative":
            return weight * tf.reshape(factor, tf.shape(weight)[2:])
        case "Conv2DBackpropInput" | "Conv3DBackpropInputV2":
            return weight * factor[:, None]
        case "Einsum":
            return weight * _placed(core, factor)
        case "MatMul":
            turned = core.get_attr("transpose_b")
        case "BatchMatMul" | "BatchMatMulV2" | "BatchMatMulV3":
            turned = core.get_attr("adj_y")
        case _:
            turned = False
    return weight * (factor[:, None] if turned else factor)


def _placed(core: tf.Operation, factor: tf.Tensor) -> tf.Tensor:
    """Put a factor along the axis of an Einsum's weight that becomes the last of its result."""
    terms, result = core.get_attr("equation").decode().split("->")
    letters = terms.split(",")[1].replace("...", "")
    sizes = [1] * len(letters)
    sizes[letters.index(result[-1])] = -1
    return tf.reshape(factor, sizes)
