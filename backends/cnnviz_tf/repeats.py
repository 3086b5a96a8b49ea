"""Where a graph can be parted, so that the rows of a batch that are equal are computed once.

A batch in which a sample is explained for several classes, or has many values put in the place of a
layer's, holds the same rows again and again.  Up to the nodes by which the rows come to differ
their values are equal too.  So these are computed for the distinct rows, repeated where what
follows reads them, and only what follows is computed for every row.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import numpy as np
import tensorflow as tf

from cnnviz_core.blended import Batch, Blended
from cnnviz_core.model import Array
from cnnviz_core.repeated import repeated_rows
from cnnviz_tf.kinds import REDUCTIONS, may_vary

__all__ = ["earliest", "repeats_of", "shared_tensors"]

_NORMS: Final = frozenset({"FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"})


def repeats_of(inputs: Mapping[str, Batch]) -> tuple[dict[str, Array], Array] | None:
    """Find the distinct rows of a batch.

    Parameters
    ----------
    inputs : mapping of str to (ndarray or Blended)
        Every input, (N, ...).

    Returns
    -------
    distinct : dict of str to ndarray
        Every input's rows without the repeated ones, (D, ...); two are different where some input
        is.
    row_of : ndarray (N,) of int
        For each row of the batch its place in these.

    None in the place of both if no row is another's equal, or the batch is only described.
    """
    arrays: dict[str, Array] = {}
    for name, batch in inputs.items():
        if isinstance(batch, Blended):
            return None
        arrays[name] = batch
    places = [repeated_rows(array)[1] for array in arrays.values()]
    first, row_of = repeated_rows(np.stack(places, axis=1))
    if len(first) == len(row_of):
        return None
    return {name: array[first] for name, array in arrays.items()}, row_of


def earliest(tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """Pick those of some tensors that depend on no other of them.

    Parameters
    ----------
    tensors : sequence of tf.Tensor
        Of one graph.

    Returns
    -------
    list of tf.Tensor
    """
    after = _after(tensors)
    return [tensor for tensor in tensors if tensor.op not in after]


def shared_tensors(
    fetches: Iterable[tf.Tensor],
    inputs: Iterable[tf.Tensor],
    *,
    ends: Iterable[tf.Tensor] = (),
    given: Iterable[tf.Tensor] = (),
) -> list[tf.Tensor] | None:
    """Find the tensors that depend on the inputs alone and from which the rest is computed.

    Sizes that the rest asks for are no such tensors: it reads them of one that has all rows.

    Parameters
    ----------
    fetches : iterable of tf.Tensor
        What is computed.
    inputs : iterable of tf.Tensor
        The network's inputs.
    ends : iterable of tf.Tensor
        Where differentiation begins: from here on rows may differ.
    given : iterable of tf.Tensor
        Tensors of which the value is given for every row, and not computed.

    Returns
    -------
    list of tf.Tensor, or None
        None if the graph cannot be parted there: nothing is shared, samples do not go through it
        one by one, or their number is fixed.
    """
    inputs, ends, given = list(inputs), list(ends), list(given)
    found = {tensor.ref(): tensor for tensor in ends}
    cut = {*found, *(tensor.ref() for tensor in given)}
    differing, data = _after([*ends, *given]), _after(inputs) | {tensor.op for tensor in inputs}
    stack = list(fetches)
    while stack:
        tensor = stack.pop()
        if tensor.ref() in cut:
            continue
        cut.add(tensor.ref())
        if tensor.op in data and tensor.op not in differing and tensor.dtype.is_floating:
            found[tensor.ref()] = tensor
        else:
            stack += tensor.op.inputs
    shared = list(found.values())
    nothing = any(tensor is end for tensor in inputs for end in ends)
    if nothing or not all(map(_has_free_batch, shared)):
        return None
    return None if any(map(_mixes_samples, _before(shared, data))) else shared


def _after(tensors: Iterable[tf.Tensor]) -> set[tf.Operation]:
    """Collect the operations that depend on some of the tensors."""
    found: set[tf.Operation] = set()
    stack = list(tensors)
    while stack:
        new = set(stack.pop().consumers()) - found
        found |= new
        stack += [output for op in new for output in op.outputs]
    return found


def _before(tensors: Iterable[tf.Tensor], among: set[tf.Operation]) -> set[tf.Operation]:
    """Collect the operations, among some, on which tensors depend."""
    found: set[tf.Operation] = set()
    stack = [tensor.op for tensor in tensors]
    while stack:
        op = stack.pop()
        if op in among and op not in found:
            found.add(op)
            stack += [tensor.op for tensor in op.inputs]
    return found


def _has_free_batch(tensor: tf.Tensor) -> bool:
    """Tell whether a tensor may have any number of rows."""
    return bool(tensor.shape.rank) and tensor.shape[0] is None


def _mixes_samples(op: tf.Operation) -> bool:
    """Tell whether what an operation makes of a sample may depend on the others, or on chance."""
    if op.type in _NORMS:
        return bool(op.get_attr("is_training"))
    if op.type in REDUCTIONS and op.inputs[0].dtype.is_floating:
        axes, rank = tf.get_static_value(op.inputs[1]), op.inputs[0].shape.rank
        return axes is None or rank is None or 0 in axes.reshape(-1) % max(rank, 1)
    return may_vary(op)
