"""Describing layers in the words that all frameworks share."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

import tensorflow as tf

from cnnviz_core.model import LayerInfo
from cnnviz_tf.nodes import Node
from cnnviz_tf.rules import differentiable_ops

__all__ = ["describe", "kind_of_layer", "operation_nodes"]

_KINDS: Final = {
    "conv": (
        "BaseConv",
        "BaseConvTranspose",
        "BaseDepthwiseConv",
        "BaseSeparableConv",
        "Conv",  # of tf_keras, from here on
        "DepthwiseConv",
    ),
    "linear": ("Dense", "EinsumDense"),
    "relu": ("ReLU", "LeakyReLU"),
    "activation": ("PReLU", "ELU", "Softmax", "ThresholdedReLU"),
    "pool": (
        "BasePooling",
        "BaseGlobalPooling",
        "BaseAdaptivePooling",
        "Pooling1D",
        "Pooling2D",
        "Pooling3D",
        "GlobalPooling1D",
        "GlobalPooling2D",
        "GlobalPooling3D",
    ),
    "norm": (
        "BatchNormalization",
        "BatchNormalizationBase",
        "GroupNormalization",
        "LayerNormalization",
        "Normalization",
        "RMSNormalization",
        "UnitNormalization",
    ),
    "pad": ("MaxPoolPadding", "ZeroPadding1D", "ZeroPadding2D", "ZeroPadding3D"),
    "add": ("Add",),
    "concat": ("Concatenate",),
    "reshape": ("Flatten", "Permute", "RepeatVector", "Reshape"),
    "dropout": ("AlphaDropout", "BaseRandomLayer", "Dropout", "GaussianDropout", "GaussianNoise"),
    "attention": ("Attention", "BaseDenseAttention", "GroupedQueryAttention", "MultiHeadAttention"),
}
_KIND_OF_CLASS: Final = {name: kind for kind, names in _KINDS.items() for name in names}
_RECTIFIERS: Final = frozenset({"relu", "relu6", "leaky_relu"})

_OPERATIONS: Final = {
    "conv": (
        "Conv2D",
        "Conv2DBackpropInput",
        "Conv3D",
        "Conv3DBackpropInputV2",
        "DepthwiseConv2dNative",
    ),
    "linear": ("BatchMatMulV2", "Einsum", "MatMul"),
    "relu": ("LeakyRelu", "Relu", "Relu6"),
    "activation": ("Elu", "LogSoftmax", "Selu", "Sigmoid", "Softmax", "Softplus", "Tanh"),
    "pool": ("AvgPool", "AvgPool3D", "Max", "MaxPool", "MaxPool3D", "Mean"),
    "norm": ("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"),
    "add": ("Add", "AddN", "AddV2"),
    "concat": ("ConcatV2",),
    "reshape": ("ExpandDims", "Reshape", "Squeeze", "Transpose"),
    "pad": ("MirrorPad", "Pad", "PadV2"),
    "other": ("BiasAdd", "Mul", "RealDiv", "ResizeBilinear", "Sub"),
}
_KIND_OF_OPERATION: Final = {name: kind for kind, names in _OPERATIONS.items() for name in names}
_MAX_PREFIX: Final = 8


def kind_of_layer(layer: Any) -> str:
    """Say what a Keras layer does.

    Parameters
    ----------
    layer : keras.Layer
        The layer.

    Returns
    -------
    str
        One of the words of `LayerInfo.kind`.
    """
    for cls in type(layer).__mro__:
        if cls.__module__.partition(".")[0] not in ("keras", "tf_keras", "cnnviz_tf"):
            continue
        if cls.__name__ in _KIND_OF_CLASS:
            return _KIND_OF_CLASS[cls.__name__]
        if cls.__name__ == "Activation":
            name = getattr(layer.activation, "__name__", "")
            return "relu" if name in _RECTIFIERS else "activation"
    inside = layer._flatten_layers(include_self=False, recursive=False)
    return "container" if inside else "other"


def operation_nodes(output: tf.Tensor, inputs: Sequence[tf.Tensor]) -> dict[str, Node]:
    """Take operations for layers, where a graph is all that is known of a network.

    Parameters
    ----------
    output : tf.Tensor
        The main output.
    inputs : sequence of tf.Tensor
        The placeholders of the inputs.

    Returns
    -------
    dict of str to Node
        By the operations' names without the scopes that all of them share; in the graph's order.
    """
    between = set(differentiable_ops(output, inputs))
    ops = [
        op
        for op in output.graph.get_operations()
        if op in between and op.type in _KIND_OF_OPERATION and op.outputs[0].shape.rank != 0
    ]
    shared = _shared_scope([op.name for op in ops])
    return {
        name: Node(name, _KIND_OF_OPERATION[op.type], op.type, op.outputs[0], name)
        for op in ops
        for name in [op.name[shared:]]
    }


def _shared_scope(names: list[str]) -> int:
    """Give the length of the scopes that all names begin with."""
    scopes = [name.split("/")[:-1] for name in names]
    shared = 0
    for parts in zip(*scopes, strict=False):
        if len(set(parts)) > 1:
            break
        shared += len(parts[0]) + 1
    return shared


def describe(
    nodes: Mapping[str, Node],
    shapes: Mapping[str, tuple[int, ...]],
    ranks: Sequence[int],
    affine: Collection[str],
) -> Mapping[str, LayerInfo]:
    """Describe the nodes of a graph.

    Parameters
    ----------
    nodes : mapping of str to Node
        In the order in which the calls end.
    shapes : mapping of str to tuple of int
        The shape of each node's value, without batch.
    ranks : sequence of int
        How many axes the inputs have, without batch.
    affine : collection of str
        The nodes of whose values the logits are an affine function.

    Returns
    -------
    mapping of str to LayerInfo
    """
    spatial = {rank for rank in ranks if rank >= 2}
    infos: dict[str, LayerInfo] = {}
    patches: tuple[int, ...] | None = None
    for name, node in nodes.items():
        shape = shapes[name]
        grid, prefix = None, 0
        if len(shape) in spatial:
            grid = shape[:-1]
            patches = grid if node.kind == "conv" else patches
        elif len(shape) == 2 and spatial and patches is not None:
            extra = shape[0] - math.prod(patches)
            if 0 <= extra <= _MAX_PREFIX:
                grid, prefix = patches, extra
        infos[name] = LayerInfo(
            name=name,
            kind=node.kind,
            type=node.type,
            shape=shape,
            grid=grid,
            prefix=prefix,
            path=node.path,
            call=node.call,
            calls=node.calls,
            same_as=node.same_as,
            affine=name in affine,
        )
    return MappingProxyType(infos)
