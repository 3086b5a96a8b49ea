"""Tracing a network once: one flat graph with its inputs, its output and a node for every layer."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import tensorflow as tf

from cnnviz_core.errors import ParameterError, UnsupportedModelError
from cnnviz_tf.capture import Call, recording
from cnnviz_tf.convolution import CONVOLUTIONS
from cnnviz_tf.entry import Entry
from cnnviz_tf.inline import InliningError, calls_functions, flatten
from cnnviz_tf.layers import kind_of_layer, operation_nodes
from cnnviz_tf.nodes import Node, first_floating
from cnnviz_tf.rules import OVERRIDES
from cnnviz_tf.second import MOMENTS

__all__ = ["OutputSelector", "Traced", "trace"]

OutputSelector: TypeAlias = str | int | Callable[[Any], Any] | None
"""Which of several outputs is the main one."""

_GRADIENTS: Final = {**OVERRIDES, **CONVOLUTIONS, **MOMENTS}
_TRACING: Final = threading.RLock()
"""One trace at a time: tracing sets attributes of layers, and a switch of TensorFlow's."""


@dataclass(frozen=True)
class Traced:
    """A network's graph.

    Attributes
    ----------
    function : tf.types.experimental.ConcreteFunction
        The traced function, to be pruned.
    inputs : mapping of str to tf.Tensor
        Its placeholders by input.
    nodes : mapping of str to Node
        Every call of every layer, in the order in which the calls end.
    output : tf.Tensor
        The main output.
    """

    function: Any
    inputs: Mapping[str, tf.Tensor]
    nodes: Mapping[str, Node]
    output: tf.Tensor


def trace(
    entry: Entry,
    shapes: Mapping[str, tuple[int | None, ...]],
    batch: int | None = None,
    output: OutputSelector = None,
) -> Traced:
    """Trace a network.

    Parameters
    ----------
    entry : Entry
        How it is called.
    shapes : mapping of str to tuple
        The shape of every input, without batch.
    batch : int, optional
        The only size of batches that the graph is to take; any by default.
    output : str, int or callable, optional
        Which of several outputs is the main one.

    Returns
    -------
    Traced

    Raises
    ------
    UnsupportedModelError
        If it cannot be traced, or gives no floating tensor.
    """
    specs = [
        tf.TensorSpec((batch, *shapes[name]), info.dtype) for name, info in entry.inputs.items()
    ]
    with _TRACING:
        try:
            with _functions_run_eagerly():
                function, calls, result = _wrapped(entry, specs, output)
        except tf.errors.OperatorNotAllowedInGraphError:
            # A tf.function whose Python conditions need AutoGraph: let it be a call, and inline it.
            function, calls, result = _wrapped(entry, specs, output)
    tensors = [call.tensor for call in calls]
    if calls_functions(function.graph):
        with suppress(InliningError):  # rules will say what they cannot reach; all else works
            function, (result, *tensors) = flatten(function, [result, *tensors], _GRADIENTS)
    inputs = dict(zip(entry.inputs, function.inputs, strict=False))
    nodes = (
        _layer_nodes(calls, tensors)
        if entry.root is not None
        else operation_nodes(result, list(inputs.values()))
    )
    return Traced(function, inputs, nodes, result)


def _wrapped(
    entry: Entry, specs: list[tf.TensorSpec], output: OutputSelector
) -> tuple[Any, list[Call], tf.Tensor]:
    """Trace, and record the layers' calls."""
    found: dict[str, Any] = {}

    def body(*values: tf.Tensor) -> tf.Tensor:
        graph = tf.compat.v1.get_default_graph()
        given = {
            name: tf.cast(value, entry.dtypes.get(name, value.dtype))
            for name, value in zip(entry.inputs, values, strict=True)
        }
        record = (
            nullcontext([]) if entry.root is None else recording(entry.root, entry.layers, graph)
        )
        with graph.gradient_override_map(_GRADIENTS), record as found["calls"]:
            result = entry.call(given)
        found["output"] = _main(result, output, graph)
        return found["output"]

    try:
        function = tf.compat.v1.wrap_function(body, specs)
    except tf.errors.OperatorNotAllowedInGraphError as error:
        if tf.config.functions_run_eagerly():
            raise
        raise UnsupportedModelError(
            "the network cannot be traced: its Python code decides by the value of a tensor",
            "a network that runs inside tf.function",
            "use tf.cond, tf.where or tf.while_loop in place of Python conditions on tensors",
        ) from error
    return function, found["calls"], found["output"]


@contextmanager
def _functions_run_eagerly() -> Iterator[None]:
    """Let every ``tf.function`` run its Python body, and so become part of the trace.

    A function that was traced before would not run its body again, and one that was not would
    remember ours.
    """
    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(before)


def _main(result: Any, output: OutputSelector, graph: tf.Graph) -> tf.Tensor:
    """Pick the main one of a network's outputs."""
    try:
        if callable(output):
            result = output(result)
        elif output is not None:
            result = result[output]
    except (KeyError, IndexError, TypeError) as error:
        known = list(result) if isinstance(result, Mapping) else f"{type(result).__name__}"
        raise ParameterError(
            f"the network has no output {output!r}",
            f"what it returns: {known}",
            "pass output= one of its keys, an index, or a function of what the network returns",
        ) from error
    if isinstance(result, Mapping):
        result = result.get("logits", result.get("out", result))
    tensor = first_floating(result, graph)
    if tensor is None:
        raise UnsupportedModelError(
            "the network returns no floating tensor that depends on its input",
            "scores, probabilities or features",
            "pass output=, a function that picks the tensor from what the network returns",
        )
    return tensor


def _layer_nodes(calls: list[Call], tensors: list[tf.Tensor]) -> dict[str, Node]:
    """Name the recorded calls."""
    totals: dict[str, int] = {}
    for call in calls:
        totals[call.path] = totals.get(call.path, 0) + 1
    so_far = dict.fromkeys(totals, 0)
    names: list[str] = []
    nodes: dict[str, Node] = {}
    for call, tensor in zip(calls, tensors, strict=True):
        index, total = so_far[call.path], totals[call.path]
        so_far[call.path] += 1
        names.append(call.path if total == 1 else f"{call.path}@{index}")
        nodes[names[-1]] = Node(
            name=names[-1],
            kind=kind_of_layer(call.layer),
            type=type(call.layer).__name__,
            tensor=tensor,
            path=call.path,
            call=index,
            calls=total,
            same_as=None if call.same_as is None else names[call.same_as],
        )
    return nodes
