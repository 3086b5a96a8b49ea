"""A program that gives what a part of a graph gives, in fewer operations.

What scales and shifts the channels behind a convolution or dense layer, such as batch
normalisation, is folded into its weight and one bias.  TensorFlow then fuses the bias and a
rectifier with the layer.  The folded weights are arguments of the program, so it is built once for
all weights that the network may have, and the network's variables are only read.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import Any, Final

import tensorflow as tf

from cnnviz_tf.folding import Folded, fold, weight_and_bias
from cnnviz_tf.kinds import Facts, may_vary, weight_index

__all__ = ["folded_arrays", "folded_layers", "rebuilt"]

_CORES: Final = frozenset({"Conv2D", "Conv3D", "DepthwiseConv2dNative", "MatMul"})
_MOVES: Final = frozenset({"BatchToSpaceND", "Squeeze"})
_PLAIN: Final = frozenset({"Add", "AddV2", "BiasAdd", "Identity", "Mul", "Neg", "RealDiv", "Sub"})
_NORMS: Final = frozenset({"FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"})
_TYPES: Final = (tf.float32, tf.float64)


def folded_layers(fetches: Sequence[tf.Tensor], facts: Facts) -> list[Folded]:
    """Find the layers into which something can be folded.

    Parameters
    ----------
    fetches : sequence of tf.Tensor
        What is computed.
    facts : Facts
        Those of the graph.

    Returns
    -------
    list of Folded
        None of them hides a tensor that is computed.  Empty where something may vary from run to
        run, so that no other program gives the same.
    """
    kept = {tensor.ref() for tensor in fetches}
    way = _before(fetches)
    if any(may_vary(op) and op.inputs for op in way):
        return []

    def takers(tensor: tf.Tensor) -> list[tf.Operation]:
        consumers = () if tensor.ref() in kept else dict.fromkeys(tensor.consumers())
        return [op for op in consumers if op in way]

    cores = [op for op in way if op.type in _CORES and weight_index(op, facts) == 1]
    return [layer for core in cores if _gains(layer := fold(core, facts, takers))]


def folded_arrays(layers: Sequence[Folded]) -> list[tf.Tensor]:
    """Add to the current graph what the weights and biases of layers are computed by.

    Parameters
    ----------
    layers : sequence of Folded
        The layers.

    Returns
    -------
    list of tf.Tensor
        Each layer's weight, and behind it its bias.
    """
    arrays: list[tf.Tensor] = []
    for layer in layers:
        weight, bias = weight_and_bias(layer)
        result = layer.core.outputs[0]
        none = tf.zeros([result.shape[-1]], result.dtype)
        arrays += [weight, none if bias is None else bias]
    return arrays


def rebuilt(
    function: Any,
    inputs: Sequence[tf.Tensor],
    fetches: Sequence[tf.Tensor],
    layers: Sequence[Folded],
    arrays: Sequence[tf.Tensor],
) -> Any:
    """Build the program.

    Parameters
    ----------
    function : tf.types.experimental.ConcreteFunction
        The traced function.
    inputs : sequence of tf.Tensor
        Its inputs.
    fetches : sequence of tf.Tensor
        What is computed.
    layers : sequence of Folded
        As from `folded_layers`.
    arrays : sequence of tf.Tensor
        As from `folded_arrays`.

    Returns
    -------
    tf.types.experimental.ConcreteFunction
        It takes the inputs and the arrays.
    """
    graph_def = function.graph.as_graph_def()
    nodes = {node.name: node for node in graph_def.node}
    names = [f"cnnviz_folded_{i}" for i in range(len(arrays))]
    for layer, weight, bias in zip(layers, names[::2], names[1::2], strict=True):
        nodes[layer.core.name].input[layer.weight] = weight
        moved, _ = _parts(layer)
        end = nodes[layer.end.op.name]
        end.Clear()
        end.name, end.op = layer.end.op.name, "BiasAdd"
        end.input.extend([moved[-1].name if moved else layer.core.name, bias])
        end.attr["T"].type = layer.end.dtype.as_datatype_enum
    _keep_needed(graph_def, nodes, fetches)
    inner = function.inputs[len(inputs) :]

    def imported(*values: tf.Tensor) -> list[tf.Tensor]:
        graph = tf.compat.v1.get_default_graph()
        keys = [*(tensor.name for tensor in inputs), *(f"{name}:0" for name in names)]
        mapped = dict(zip(keys, values, strict=True))
        needed = {node.name for node in graph_def.node}
        for tensor, captured in zip(inner, function.captured_inputs, strict=True):
            if tensor.op.name in needed:
                mapped[tensor.name] = graph.capture(captured)
        found: list[tf.Tensor] = tf.graph_util.import_graph_def(
            graph_def, input_map=mapped, return_elements=[t.name for t in fetches], name=""
        )
        return found

    specs = [tf.TensorSpec(tensor.shape, tensor.dtype) for tensor in (*inputs, *arrays)]
    return tf.compat.v1.wrap_function(imported, specs)


def _keep_needed(graph_def: Any, nodes: dict[str, Any], fetches: Sequence[tf.Tensor]) -> None:
    """Take from a graph the nodes of which nothing that is computed is made."""
    needed: set[str] = set()
    stack = [tensor.op.name for tensor in fetches]
    while stack:
        name = stack.pop()
        if name in nodes and name not in needed:
            needed.add(name)
            stack += [source.lstrip("^").partition(":")[0] for source in nodes[name].input]
    kept = [node for node in graph_def.node if node.name in needed]
    del graph_def.node[:]
    graph_def.node.extend(kept)


def _before(tensors: Sequence[tf.Tensor]) -> dict[tf.Operation, None]:
    """Collect the operations on which tensors depend, always in the same order."""
    found: dict[tf.Operation, None] = {}
    stack = [tensor.op for tensor in tensors]
    while stack:
        op = stack.pop()
        if op not in found:
            found[op] = None
            stack += [tensor.op for tensor in op.inputs]
    return found


def _parts(layer: Folded) -> tuple[list[tf.Operation], list[tf.Operation]]:
    """Part what follows a layer: what moves its values first, and what comes then."""
    moved = list(takewhile(lambda op: op.type in _MOVES, layer.after))
    return moved, list(layer.after[len(moved) :])


def _gains(layer: Folded) -> bool:
    """Tell whether something is folded into a layer that is more than a bias at its end."""
    types = [op.type for op in _parts(layer)[1]]
    if layer.channels_first or not set(types) <= _PLAIN | _NORMS:
        return False
    result = layer.core.outputs[0]
    return layer.end.dtype == result.dtype in _TYPES and types not in ([], ["BiasAdd"])
