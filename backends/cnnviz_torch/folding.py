"""Constants behind a convolution or dense layer that belong to it: batch norms in any spelling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.autograd.graph import Node

from cnnviz_torch.flow import Flow, Place
from cnnviz_torch.graph import operation_name, shape_of
from cnnviz_torch.operations import Affine
from cnnviz_torch.records import Record, Records

__all__ = ["Fold", "border_of", "folded"]


@dataclass
class Fold:
    """What belongs to an operation.

    Attributes
    ----------
    behind : Affine
        The constants that scale and shift its result.
    members : list of Node
        The operations that did that.
    """

    behind: Affine = field(default_factory=Affine)
    members: list[Node] = field(default_factory=list)


def folded(node: Node, axis: int, flow: Flow, records: Records) -> Fold:
    """Find the constants behind an operation.

    Parameters
    ----------
    node : Node
        A convolution or dense layer.
    axis : int
        On which axis the channels of its result are.
    flow : Flow
        Where it is in.
    records : Records
        What operations were given.

    Returns
    -------
    Fold
    """
    fold, place = Fold(), (node, 0)
    while len(flow.takers[place]) == 1:
        taker = flow.takers[place][0]
        found = _affine(taker, place, axis, records.of(taker), flow)
        if found is not None:
            fold = Fold(fold.behind.then(*found), [*fold.members, taker])
            place = taker, 0
            continue
        moved = _moved(taker, axis, shape_of(*place))
        if moved is None:
            break
        place, axis = (taker, 0), moved
    return fold


def border_of(node: Node, flow: Flow, records: Records) -> Sequence[int]:
    """Find the zeros that are padded right before a convolution, for it alone.

    Parameters
    ----------
    node : Node
        The convolution.
    flow : Flow
        Where it is in.
    records : Records
        What operations were given.

    Returns
    -------
    sequence of int
        As `torch.nn.functional.pad` takes it; empty where there are none.
    """
    place = node.next_functions[0]
    while len(flow.takers[place]) == 1:
        below = place[0]
        if operation_name(below) == "ConstantPadNd":
            record = records.of(below)
            zeros = record is not None and record.values.get("value", 0) == 0
            border: Sequence[int] = record.values["pad"] if record is not None and zeros else ()
            return border if min(border, default=0) >= 0 else ()
        if operation_name(below) != "Clone":
            break
        place = below.next_functions[0]
    return ()


def _moved(node: Any, axis: int, shape: Sequence[int]) -> int | None:
    """Tell where an operation that only places values puts the channels' axis; None if nowhere."""
    name, after = operation_name(node), shape_of(node, 0)
    if name in ("Alias", "Clone", "ToCopy"):
        return axis
    if name in ("View", "UnsafeView", "ReshapeAlias", "Squeeze", "Unsqueeze"):
        last = axis == len(shape) - 1 and after and after[-1] == shape[-1]
        leads = after[: axis + 1] == tuple(shape[: axis + 1])
        return axis if leads else len(after) - 1 if last else None
    if name == "Permute":
        return [dim % len(shape) for dim in _signed(node._saved_dims)].index(axis)
    if name == "Transpose":
        a, b = (dim % len(shape) for dim in _signed((node._saved_dim0, node._saved_dim1)))
        return {a: b, b: a}.get(axis, axis)
    return None


def _signed(dims: Sequence[int]) -> list[int]:
    """Give numbers back their signs, which autograd does not keep."""
    return [dim - 2**64 if dim >= 2**63 else dim for dim in dims]


def _affine(
    node: Node, place: Place, axis: int, record: Record | None, flow: Flow
) -> tuple[torch.Tensor | None, torch.Tensor | None] | None:
    """Read by what an operation scales and shifts a value along an axis; None if it does not."""
    name, shape = operation_name(node), shape_of(*place)
    if flow.kinds[node] != "batchnorm" or shape_of(node, 0) != tuple(shape):
        return None
    if name == "Neg":
        return _tensor(-1), None
    if record is None:
        return None
    if "running_mean" in record.values:
        return _norm(record.values) if axis == 1 else None
    at = flow.given(node)[0]
    c = _along(_tensor(record.values["other" if at == 0 else "self"]), shape, axis)
    if c is None:
        return None
    alpha = record.values.get("alpha", 1)
    if name == "Mul":
        return c, None
    if name == "Div":
        return (1 / c, None) if record.values.get("rounding_mode") is None else None
    # Of self + alpha * other, self - alpha * other, and other - alpha * self:
    first, second = {"Add": (1, alpha), "Sub": (1, -alpha), "Rsub": (-alpha, 1)}[name]
    own, others = (first, second) if at == 0 else (second, first)
    return (None if own == 1 else _tensor(own)), others * c


def _tensor(constant: torch.Tensor | float) -> torch.Tensor:
    """Give a constant as a tensor; without axes, a number takes on the type of its partners."""
    if isinstance(constant, torch.Tensor):
        return constant
    return torch.tensor(constant, dtype=torch.float64)


def _norm(values: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Read a batch normalisation by what was seen in training."""
    eps = values.get("eps", values.get("epsilon"))
    mean, weight, bias = values["running_mean"], values.get("weight"), values.get("bias")
    scale = torch.rsqrt(values["running_var"] + eps)
    scale = scale if weight is None else scale * weight
    return scale, -mean * scale if bias is None else bias - mean * scale


def _along(constant: torch.Tensor, shape: Sequence[int], axis: int) -> torch.Tensor | None:
    """Give a constant as values along an axis; None if it differs along others."""
    if constant.numel() == 1:
        return constant.reshape(())
    own = axis - len(shape) + constant.ndim
    if own < 0 or constant.shape[own] != constant.numel():
        return None
    return constant.reshape(-1)
