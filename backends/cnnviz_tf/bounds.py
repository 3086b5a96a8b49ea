"""The least and greatest values that the first layers of a network can take."""

from __future__ import annotations

import tensorflow as tf

from cnnviz_core.errors import RuleError
from cnnviz_core.rules import BackwardRule
from cnnviz_tf.derivative import replayed
from cnnviz_tf.folding import Folded
from cnnviz_tf.kinds import PLACING, Facts

__all__ = ["bound_of"]


def bound_of(folded: Folded, facts: Facts, rule: BackwardRule, end: str) -> tf.Tensor:
    """Give the least or the greatest value of each element that a layer takes.

    What rescales the network's input before the layer, as some networks do, rescales its bounds.

    Parameters
    ----------
    folded : Folded
        The layer.
    facts : Facts
        Those of its graph.
    rule : BackwardRule
        The rule, with bounds.
    end : {"low", "high"}
        Which.

    Returns
    -------
    tf.Tensor
        Of the shape of what the layer takes.

    Raises
    ------
    RuleError
        If the layer does not read the network's input, or that has not as many channels.
    """
    source, path = folded.input, []
    while not facts.is_input(source):
        if not _only_rescales(source.op, facts):
            raise RuleError(
                f"the rule {rule.name!r} has bounds for {folded.core.name!r}, of whose input "
                "nothing is known",
                "a step with bounds only where the network's own input is read",
                "give such a step as first= of the rule",
            )
        path.insert(0, source.op)
        (source,) = facts.data_of(source.op)
    ends = [_filled(source, values, folded, rule) for values in rule.bounds or ()]
    for op in path:
        index = next(i for i, tensor in enumerate(op.inputs) if facts.is_data(tensor))
        ends = [replayed(op, {index: values}).outputs[0] for values in ends]
    return tf.minimum(*ends) if end == "low" else tf.maximum(*ends)


def _only_rescales(op: tf.Operation, facts: Facts) -> bool:
    """Tell whether an operation places values, or scales and shifts them by constants."""
    known = op.type in PLACING or facts.kind(op) == "batchnorm"
    return known and len(facts.data_of(op)) == 1


def _filled(
    source: tf.Tensor, values: tuple[float, ...], folded: Folded, rule: BackwardRule
) -> tf.Tensor:
    """Fill an array like the network's input with one value for each channel."""
    axis = 1 if folded.channels_first else -1
    if len(values) not in (1, source.shape[axis]):
        raise RuleError(
            f"the rule {rule.name!r} has bounds for {len(values)} channels, and the input "
            f"{source.op.name!r} has {source.shape[axis]}",
            "one bound for each channel, or one for all",
            "give a rule for this input by rule.bounded(low, high)",
        )
    sizes = [1] * source.shape.rank
    sizes[axis] = -1
    return tf.broadcast_to(tf.reshape(tf.constant(values, source.dtype), sizes), tf.shape(source))
