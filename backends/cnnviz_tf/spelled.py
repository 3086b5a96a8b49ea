"""Functions that are spelled out in several operations: activations, normalisations."""

from __future__ import annotations

from typing import Final

import tensorflow as tf

from cnnviz_tf.kinds import ELEMENTWISE, PLACING, REDUCTIONS, SUMS, Facts

__all__ = ["Spelled", "spelled"]

_WITHIN: Final = ELEMENTWISE | PLACING | REDUCTIONS | {"StopGradient"}
"""What activations and normalisations are made of."""


class Spelled:
    """A function of one tensor that several operations compute.

    Attributes
    ----------
    root : tf.Tensor
        What it is a function of.
    kind : str or None
        "activation" where every result depends on the value at the same place only.
    op : tf.Operation
        One of its operations that says best what it is.
    """

    def __init__(self, root: tf.Tensor, kind: str | None, op: tf.Operation) -> None:
        self.root = root
        self.kind = kind
        self.op = op


def spelled(op: tf.Operation, facts: Facts, ends: set[object]) -> Spelled | None:
    """Find the function of one tensor that ends in an operation on several.

    Parameters
    ----------
    op : tf.Operation
        A sum, a product or another operation on several values that depend on the network's inputs.
    facts : Facts
        Those of its graph.
    ends : set of reference
        Tensors that are to keep a relevance of their own, so must not lie within.

    Returns
    -------
    Spelled or None
        None if there is none: the operation stands for itself.
    """
    within, frontier = [op], _by_reference(facts.data_of(op))
    while len(frontier) > 1:
        latest = max(frontier.values(), key=lambda tensor: facts.order[tensor.op])
        if latest.op.type not in _WITHIN or latest.ref() in ends or not facts.data_of(latest.op):
            return None
        within.append(latest.op)
        del frontier[latest.ref()]
        frontier |= _by_reference(facts.data_of(latest.op))
    (root,) = frontier.values()
    if all(one.type in ELEMENTWISE for one in within) and _alike(root, op.outputs[0]):
        return Spelled(root, "activation", op)
    unknown = [one for one in within if _is_unknown(one, facts)]
    shortcut = op.type in SUMS and any(tensor is root for tensor in op.inputs)
    return Spelled(root, None, unknown[-1]) if unknown and not shortcut else None


def _alike(one: tf.Tensor, other: tf.Tensor) -> bool:
    """Tell whether two tensors have the same shape."""
    return one.shape.rank is not None and one.shape.as_list() == other.shape.as_list()


def _by_reference(tensors: list[tf.Tensor]) -> dict[object, tf.Tensor]:
    """List tensors once each."""
    return {tensor.ref(): tensor for tensor in tensors}


def _is_unknown(op: tf.Operation, facts: Facts) -> bool:
    """Tell whether an operation is one that no rule can name."""
    return op.type not in PLACING and op.type != "StopGradient" and facts.kind(op) is None
