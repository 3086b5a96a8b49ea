"""Flattening a traced graph whose operations call functions, so that rules and layers are in sight.

Rests on two parts of TensorFlow that are not public (grappler's Python entry and the export of meta
graphs).  All of it is in this file; where TensorFlow changes them, `flatten` says so by raising
`InliningError`, and the network is used as it is, with less on offer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import tensorflow as tf
from tensorflow.core.framework import graph_pb2
from tensorflow.core.protobuf import config_pb2, meta_graph_pb2, rewriter_config_pb2

__all__ = ["InliningError", "calls_functions", "flatten"]

CALLS: Final = frozenset({"If", "PartitionedCall", "StatefulPartitionedCall", "StatelessIf"})
"""Operations that call a function once at most, so that it can stand in their place."""

_LOOPS: Final = frozenset({"StatelessWhile", "While"})
_LOWERED: Final = "_lower_using_switch_merge"
"""By this attribute conditions are spelled out; a loop must stay whole to have a gradient."""

_BARRIERS: Final = ("api_implements", "_noinline", "_XlaMustCompile")
"""Attributes by which a function or a call refuses to be inlined."""

_GRADIENT: Final = "_gradient_op_type"
_CUSTOM: Final = b"CustomGradient-"


class InliningError(Exception):
    """The graph could not be flattened."""


def calls_functions(graph: tf.Graph) -> bool:
    """Tell whether operations of a graph call functions.

    Parameters
    ----------
    graph : tf.Graph
        The graph.

    Returns
    -------
    bool
    """
    return any(op.type in CALLS for op in graph.get_operations())


def flatten(
    function: Any, keep: Sequence[tf.Tensor], overrides: dict[str, str]
) -> tuple[Any, list[tf.Tensor]]:
    """Inline the functions that a traced function calls.

    Custom gradients (``tf.custom_gradient``, as in swish) refer to tensors of the graphs that are
    dissolved here, so they give way to the derivative of what they wrap.

    Parameters
    ----------
    function : tf.types.experimental.ConcreteFunction
        What ``tf.compat.v1.wrap_function`` gave.
    keep : sequence of tf.Tensor
        Tensors of its graph to find again.
    overrides : dict of str to str
        From an operation's type to the registered gradient that it is to carry.

    Returns
    -------
    function : tf.types.experimental.ConcreteFunction
        The same function without calls, reading the same variables.
    kept : list of tf.Tensor
        The tensors in its graph that `keep` became.

    Raises
    ------
    InliningError
        If TensorFlow does not offer the means, or they fail.
    """
    try:
        flat = _inlined(function, [*function.inputs, *keep])
        for node in flat.node:
            node.device = ""
            if _GRADIENT in node.attr and node.attr[_GRADIENT].s.startswith(_CUSTOM):
                del node.attr[_GRADIENT]
            if node.op in overrides:
                node.attr[_GRADIENT].s = overrides[node.op].encode()
        return _reimported(flat, function, keep)
    except Exception as error:  # whatever a private interface may raise
        raise InliningError(f"{type(error).__name__}: {error}") from error


def _inlined(function: Any, fetches: Sequence[tf.Tensor]) -> graph_pb2.GraphDef:
    """Give a function's graph after grappler's function optimiser."""
    from tensorflow.python.grappler import tf_optimizer
    from tensorflow.python.training.saver import export_meta_graph

    graph_def = function.graph.as_graph_def()
    for body in graph_def.library.function:
        _strip(body)
        for node in body.node_def:
            _strip(node)
    for node in graph_def.node:
        _strip(node)
    meta = export_meta_graph(graph_def=graph_def, graph=function.graph)
    meta.collection_def.clear()
    names = meta_graph_pb2.CollectionDef()
    names.node_list.value.extend(t.name for t in fetches)
    meta.collection_def["train_op"].CopyFrom(names)
    config = config_pb2.ConfigProto()
    options = config.graph_options.rewrite_options
    options.min_graph_nodes = -1
    options.optimizers.append("function")
    options.function_optimization = rewriter_config_pb2.RewriterConfig.AGGRESSIVE
    return tf_optimizer.OptimizeGraph(config, meta)


def _strip(proto: Any) -> None:
    """Take away what keeps a function or a call from being inlined, and what undoes loops."""
    loop = getattr(proto, "op", "") in _LOOPS
    for name in (*_BARRIERS, *([_LOWERED] if loop else [])):
        if name in proto.attr:
            del proto.attr[name]


def _reimported(
    flat: graph_pb2.GraphDef, function: Any, keep: Sequence[tf.Tensor]
) -> tuple[Any, list[tf.Tensor]]:
    """Make a function of a flat graph, with the captures of the function that it comes from."""
    captures = function.captured_inputs
    arguments = function.inputs[: len(function.inputs) - len(captures)]
    inner = function.inputs[len(arguments) :]
    kept: list[tf.Tensor] = []

    def imported(*values: tf.Tensor) -> list[tf.Tensor]:
        graph = tf.compat.v1.get_default_graph()
        mapped = {t.name: v for t, v in zip(arguments, values, strict=True)}
        mapped |= {t.name: graph.capture(c) for t, c in zip(inner, captures, strict=True)}
        kept[:] = tf.graph_util.import_graph_def(
            flat, input_map=mapped, return_elements=[t.name for t in keep], name=""
        )
        return kept

    specs = [tf.TensorSpec(t.shape, t.dtype) for t in arguments]
    return tf.compat.v1.wrap_function(imported, specs), kept
