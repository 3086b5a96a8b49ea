"""What the operations of a forward pass were given, found by autograd's count of them."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import torch
from torch import nn
from torch.autograd.graph import Node
from torch.utils._python_dispatch import TorchDispatchMode

from cnnviz_torch.graph import operation_name

__all__ = ["Record", "Records"]

_NORM: Final = ("weight", "bias", "running_mean", "running_var")
_PAIR: Final = ("self", "other")
# Of which operations which tensors are kept: those that a step may ask for.
_KEPT: Final = {
    "convolution": ("input", "weight", "bias"),
    "linear": ("input", "weight", "bias"),
    "addmm": ("self", "mat1", "mat2"),
    "mm": ("self", "mat2"),
    "bmm": ("self", "mat2"),
    "native_batch_norm": _NORM,
    "native_batch_norm_legit": _NORM,
    "native_batch_norm_legit_no_training": _NORM,
    "cudnn_batch_norm": _NORM,
    "miopen_batch_norm": _NORM,
    "add": _PAIR,
    "sub": _PAIR,
    "rsub": _PAIR,
    "mul": _PAIR,
    "div": _PAIR,
    "mean": ("self",),
    "sum": ("self",),
    "avg_pool2d": ("self",),
    "avg_pool3d": ("self",),
    "adaptive_avg_pool2d": ("self",),
    "adaptive_avg_pool3d": ("self",),
}
_WITH_RESULT: Final = frozenset({"convolution", "linear", "addmm", "mm", "bmm"})


@dataclass(frozen=True)
class Record:
    """One operation of a forward pass.

    Attributes
    ----------
    name : str
        As ATen names it, such as "convolution", without what tells its variants apart.
    function : callable
        The operation itself.
    values : dict of str to object
        Its arguments by name, without the tensors that no step asks for; perhaps its "result".
    module : nn.Module or None
        The innermost module whose call it is part of.
    """

    name: str
    function: Callable[..., Any]
    values: dict[str, Any]
    module: nn.Module | None


@dataclass(frozen=True)
class _Signature:
    """What is to be known of an operation beforehand."""

    name: str
    arguments: tuple[str, ...]
    written: tuple[str, ...]
    kept: tuple[str, ...]


class Records(TorchDispatchMode):
    """While it is active, keeps what operations are given, whatever overwrites it later.

    Parameters
    ----------
    results : bool
        Whether to keep what convolutions and dense layers make, too.
    """

    def __init__(self, results: bool = False) -> None:
        super().__init__()
        self._results = results
        self._records: dict[int, Record] = {}
        # Of each storage that is kept, where the tensors are that share it.
        self._holders: dict[int, list[tuple[dict[str, Any], str]]] = defaultdict(list)

    def of(self, node: Node) -> Record | None:
        """Give what was noted of an operation.

        Parameters
        ----------
        node : Node
            What autograd recorded of it.

        Returns
        -------
        Record or None
            None where nothing was, or of another operation.
        """
        record = self._records.get(node._sequence_nr())
        name = operation_name(node).lower()
        return record if record and record.name.replace("_", "") == name else None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        signature = _signature(func)
        given = dict(zip(signature.arguments, args, strict=False)) | kwargs
        record = self._note(func, signature, given)
        for name in signature.written:
            self._preserve(given.get(name))
        result = func(*args, **kwargs)
        if record and self._results and signature.name in _WITH_RESULT:
            self._hold(record.values, "result", result)
        return result

    def _note(self, func: Any, signature: _Signature, given: dict[str, Any]) -> Record | None:
        """Note an operation, if autograd has made a node for it."""
        number = self._number(bool(signature.written))
        if number is None:
            return None
        record = Record(signature.name, func, {}, _calling_module())
        self._records[number] = record
        for name, value in given.items():
            if not isinstance(value, torch.Tensor):
                record.values[name] = value
            elif name in signature.kept:
                self._hold(record.values, name, value)
        return record

    def _number(self, overwrites: bool) -> int | None:
        """Give the number of the node that autograd has just made for an operation."""
        if not torch.is_grad_enabled():
            return None
        last: int = torch.autograd._get_sequence_nr() - 1
        if last not in self._records:
            return last
        # Between making the node of an operation in place and running it, autograd may clone what
        # will be overwritten, which counts.
        return last - 1 if overwrites and last - 1 not in self._records else None

    def _hold(self, values: dict[str, Any], name: str, tensor: torch.Tensor) -> None:
        """Keep a tensor."""
        values[name] = tensor
        self._holders[_storage(tensor)].append((values, name))

    def _preserve(self, tensor: Any) -> None:
        """Copy what is kept of a tensor that is about to be overwritten."""
        if isinstance(tensor, torch.Tensor):
            for values, name in self._holders.pop(_storage(tensor), ()):
                values[name] = values[name].clone()


@cache
def _signature(func: Any) -> _Signature:
    """Read an operation's schema."""
    schema = func._schema
    name = schema.name.rpartition(":")[2].strip("_")
    written = (a.name for a in schema.arguments if a.alias_info and a.alias_info.is_write)
    return _Signature(
        name, tuple(a.name for a in schema.arguments), tuple(written), _KEPT.get(name, ())
    )


def _storage(tensor: torch.Tensor) -> int:
    """Identify the memory that a tensor is in."""
    return tensor.untyped_storage().data_ptr() if tensor.layout is torch.strided else id(tensor)


def _calling_module() -> nn.Module | None:
    """Find the innermost module that is being called."""
    frame = sys._getframe(1)
    while frame.f_back is not None:
        if frame.f_code is nn.Module._call_impl.__code__:
            module: nn.Module = frame.f_locals["self"]
            return module
        frame = frame.f_back
    return None
