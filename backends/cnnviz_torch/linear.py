"""What autograd recorded, read as operations that are linear in what they took."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import torch
from torch.autograd.graph import Node

from cnnviz_torch.flow import DENSE, Flow
from cnnviz_torch.folding import Fold, border_of
from cnnviz_torch.graph import derivative, operation_name, shape_of
from cnnviz_torch.operations import (
    Average,
    Bounds,
    Convolution,
    Dense,
    Linear,
    Sum,
    unpadded,
)
from cnnviz_torch.records import Record, Records

__all__ = ["linear_operation"]

_OPTIONS: Final = ("stride", "padding", "dilation", "transposed", "output_padding", "groups")
# Of the products of matrices, the arguments that hold the factors and the bias.
_FACTORS: Final = {
    "Addmm": ("mat1", "mat2", "self"),
    "Mm": ("self", "mat2", None),
    "Bmm": ("self", "mat2", None),
    "Linear": ("input", "weight", "bias"),
}


def linear_operation(
    node: Node, flow: Flow, records: Records, fold: Fold, bounds: Bounds
) -> Linear:
    """Read an operation of the kinds "conv", "linear", "add" and "avgpool".

    Parameters
    ----------
    node : Node
        The operation, of which `records` has a record.
    flow : Flow
        Where it is in.
    records : Records
        What operations were given.
    fold : Fold
        What belongs to it.
    bounds : tuple, or None
        As of `cnnviz_core.rules.BackwardRule`.

    Returns
    -------
    Linear
    """
    record = records.of(node)
    assert record is not None
    kind, values = flow.kinds[node], record.values
    if kind == "conv":
        border = border_of(node, flow, records)
        return Convolution(
            [unpadded(values["input"], border)],
            values["weight"],
            values["bias"],
            values.get("result"),
            fold.behind,
            bounds,
            [values[option] for option in _OPTIONS],
            border,
        )
    if kind == "linear":
        return _dense(node, flow, values, fold, bounds)
    if kind == "add":
        return _sum(operation_name(node), values, shape_of(node, 0))
    return _average(node, record)


def _dense(node: Node, flow: Flow, values: Mapping[str, Any], fold: Fold, bounds: Bounds) -> Dense:
    """Read a product of matrices."""
    name = operation_name(node)
    *names, third = _FACTORS[name]
    factors = [values[names[0]], values[names[1]]]
    bias = None if third is None else values.get(third)
    if name == "Linear":
        factors[1] = factors[1].mT
    left = flow.given(node)[0] != DENSE[name]
    weight, x = factors if left else reversed(factors)
    alpha, beta = values.get("alpha", 1), values.get("beta", 1)
    return Dense(
        [x],
        weight if alpha == 1 else alpha * weight,
        bias if beta == 1 or bias is None else beta * bias,
        values.get("result"),
        fold.behind,
        bounds,
        left,
    )


def _sum(name: str, values: Mapping[str, Any], shape: tuple[int, ...]) -> Sum:
    """Read a sum or difference: its contributions."""
    alpha = values.get("alpha", 1)
    factors = {"Add": (1, alpha), "Sub": (1, -alpha), "Rsub": (-alpha, 1)}[name]
    addends = zip((values["self"], values["other"]), factors, strict=True)
    return Sum([(v if factor == 1 else factor * v).expand(shape) for v, factor in addends])


def _average(node: Node, record: Record) -> Average:
    """Read a mean or a sum over places."""
    values = dict(record.values)
    x = values.pop("self")

    def transposed(arriving: torch.Tensor) -> torch.Tensor:
        (spread,) = derivative(node, [arriving])
        assert spread is not None
        return spread

    return Average([x], lambda given: record.function(given, **values), transposed)
