"""A layer's value without each of some channels, carried on as one value as long as that can be.

Rectifiers, pools and changes of shape do to each channel what they do to it alone.  So behind them
a batch that lacks a channel in each row is still one clean row and the entries that belong to each
channel.  The first linear map behind them is linear in these entries: what a channel adds to the
clean result is taken away from it, at the price of one row for all channels together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import torch
from torch.utils._pytree import tree_map_only

from cnnviz_core.ablated import Ablated
from cnnviz_core.checks import check_replacement, out_of_memory
from cnnviz_core.model import Replacement
from cnnviz_torch.arrays import to_tensor

__all__ = ["ablated", "check_few", "made"]

_MOST_BYTES: Final = 2**26
"""The most that a batch may take that has to be made after all, with more than a few rows."""
_FEW: Final = 16
_PART: Final = 2**22
"""How many products of weights and values are held at once."""

# fmt: off
_PRODUCTS: Final = frozenset({"addmm", "mm", "linear"})
_RESHAPING: Final = frozenset({"view", "_unsafe_view", "reshape"})
_KEEPING: Final = frozenset({"clone", "contiguous", "alias", "detach"})
_MOVING: Final = _RESHAPING | _KEEPING | {"permute", "transpose"}
_POINTWISE: Final = frozenset({
    "relu", "relu_", "hardtanh", "hardtanh_", "hardswish", "hardswish_", "silu", "silu_", "gelu",
    "leaky_relu", "leaky_relu_", "elu", "elu_", "tanh", "clamp", "clamp_min", "mish",
})
_POOLING: Final = frozenset({
    "max_pool1d", "max_pool2d", "max_pool3d", "max_pool2d_with_indices", "max_pool3d_with_indices",
    "avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d", "adaptive_avg_pool2d",
    "adaptive_avg_pool3d", "_adaptive_avg_pool2d", "_adaptive_avg_pool3d",
})
# fmt: on


def ablated(batch: Ablated, like: torch.Tensor, node: str, *, channels_first: bool) -> torch.Tensor:
    """Give a described batch as a tensor.

    Parameters
    ----------
    batch : Ablated
        The value, channels last, and the channels.
    like : Tensor (n, ...)
        The value in whose place it is put.
    node : str
        The node, for the message.
    channels_first : bool
        Whether the tensor has its channels on the second axis.

    Returns
    -------
    Tensor (n, ...)
        Made where an operation follows that needs all of it.

    Raises
    ------
    ArrayError
        If the shapes differ or a value is not finite.
    """
    shape = (like.shape[0], *like.shape[2:], like.shape[1]) if channels_first else like.shape
    one = np.broadcast_to(np.zeros((), batch.dtype), tuple(shape))
    if batch.shape != one.shape:
        check_replacement(batch, one, node)
    row = check_replacement(batch.value[None], one[:1], node)
    clean = to_tensor(row, like, channels_first=channels_first)
    axis = 1 if channels_first else clean.ndim - 1
    gone = torch.as_tensor(np.asarray(batch.channels), device=like.device)
    return _Ablation(clean, _numbers(clean, axis), gone, axis == 1 and clean.ndim > 2)


def check_few(replacement: Replacement) -> None:
    """See that what goes through all of a network is small if it is only described.

    Parameters
    ----------
    replacement : ndarray, callable or Ablated
        What is put in the place of a value.

    Raises
    ------
    OutOfMemoryError
        If it has more than a few rows.
    """
    if isinstance(replacement, Ablated) and len(replacement) > _FEW:
        raise _too_many(replacement.shape)


def made(value: torch.Tensor) -> torch.Tensor:
    """Give a value as a plain tensor, whether it is described or not."""
    return value.full() if isinstance(value, _Described) else value


class _Described(torch.Tensor):
    """A tensor that is made where an operation needs all of it."""

    def full(self) -> torch.Tensor:
        """Make it."""
        raise NotImplementedError

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        found = _carried(func._schema.name.rpartition(":")[2], func, args, kwargs)
        if found is not None:
            return found
        written = [args[i] for i, a in enumerate(func._schema.arguments) if _is_written(a)]
        args, kwargs = tree_map_only(_Described, made, (args, kwargs))
        result = func(*args, **kwargs)
        if not written:
            return result
        written[0].overwrite(result)
        return written[0]

    def overwrite(self, whole: torch.Tensor) -> None:
        """Hold other values from now on."""
        raise NotImplementedError("what is only described is written to")


class _Ablation(_Described):
    """A clean row, the channel to which each of its entries belongs, and the channels to lack.

    `pools` says whether the channels are on the second axis still, each on a grid of its own;
    `seen` whether another tensor may share its memory; `whole` is what was written over it.
    """

    clean: torch.Tensor
    owner: torch.Tensor
    gone: torch.Tensor
    pools: bool
    seen: bool
    whole: torch.Tensor | None

    @staticmethod
    def __new__(
        cls,
        clean: torch.Tensor,
        owner: torch.Tensor,
        gone: torch.Tensor,
        pools: bool,
        seen: bool = False,
    ) -> _Ablation:
        made = torch.Tensor._make_wrapper_subclass(
            cls, (len(gone), *clean.shape[1:]), dtype=clean.dtype, device=clean.device
        )
        made.clean, made.owner, made.gone, made.pools = clean, owner, gone, pools
        made.seen, made.whole = seen, None
        return made

    def full(self) -> torch.Tensor:
        """Make the batch."""
        if self.whole is not None:
            return self.whole
        n = len(self.gone)
        if n > _FEW and n * self.clean.numel() * self.clean.element_size() > _MOST_BYTES:
            raise _too_many(tuple(self.shape))
        lacks = self.owner == self.gone.view(n, *(1,) * (self.clean.ndim - 1))
        return self.clean.expand(self.shape).masked_fill(lacks, 0)

    def overwrite(self, whole: torch.Tensor) -> None:
        """Hold other values from now on, unless others would have to see them."""
        if self.seen or whole.shape != self.shape:
            raise NotImplementedError("what is only described is written to")
        self.whole = whole

    def put(self, clean: torch.Tensor, owner: torch.Tensor, pools: bool) -> _Ablation:
        """Give the same for another row."""
        return _Ablation(clean, owner, self.gone, pools)


class _Later(_Described):
    """The second result of an operation, which hardly anybody reads."""

    make: Callable[[], torch.Tensor]

    @staticmethod
    def __new__(cls, like: torch.Tensor, n: int, make: Callable[[], torch.Tensor]) -> _Later:
        made = torch.Tensor._make_wrapper_subclass(
            cls, (n, *like.shape[1:]), dtype=like.dtype, device=like.device
        )
        made.make = make
        return made

    def full(self) -> torch.Tensor:
        """Make it."""
        return self.make()


def _is_written(argument: Any) -> bool:
    """Tell whether an operation writes to an argument."""
    return argument.alias_info is not None and argument.alias_info.is_write


def _carried(name: str, func: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """Do an operation on the clean row alone; None where it needs all rows."""
    given = [arg for arg in args if isinstance(arg, _Described)]
    if len(given) != 1 or not isinstance(given[0], _Ablation) or given[0].whole is not None:
        return None
    if name in _PRODUCTS:
        return _multiplied(name, args, kwargs)
    if args[0] is not given[0]:
        return None
    for names, carry in _CARRIERS.items():
        if name in names:
            return carry(name, func, args, kwargs)
    return None


def _pointed(name: str, func: Callable[..., Any], args: Any, kwargs: Any) -> _Ablation | None:
    """Change each entry of the clean row; None where a 0 would not stay 0."""
    batch, *rest = args
    if func(batch.clean.new_zeros(1), *rest, **kwargs).item() != 0:
        return None
    clean = func(batch.clean, *rest, **kwargs)
    return batch if name.endswith("_") else batch.put(clean, batch.owner, batch.pools)


def _pooled(name: str, func: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """Pool each channel of the clean row."""
    batch, *rest = args
    if not batch.pools:
        return None
    found = func(batch.clean, *rest, **kwargs)
    values = found[0] if isinstance(found, tuple) else found
    pooled = batch.put(values, _numbers(values, 1), True)
    if not isinstance(found, tuple):
        return pooled
    before = batch.put(batch.clean.clone(), batch.owner, True)
    places = _Later(found[1], len(batch.gone), lambda: func(before.full(), *rest, **kwargs)[1])
    return pooled, places


def _moved(name: str, func: Callable[..., Any], args: Any, kwargs: Any) -> _Ablation | None:
    """Change the shape of one row as that of the batch would be; None where rows would mix."""
    batch, *rest = args
    if (name == "permute" and rest[0][0] != 0) or (name == "transpose" and 0 in rest[:2]):
        return None
    if name in _RESHAPING:
        shape = rest[0]
        if shape[0] not in (len(batch.gone), -1) or (-1 in shape[1:] and shape[0] == -1):
            return None
        if _size(shape[1:], batch.clean.numel()) != batch.clean.numel():
            return None
        clean, owner = (part.reshape(1, *shape[1:]) for part in (batch.clean, batch.owner))
    else:
        clean, owner = (func(part, *rest, **kwargs) for part in (batch.clean, batch.owner))
    moved = batch.put(clean, owner, batch.pools and name in _KEEPING)
    if name != "clone":
        batch.seen = moved.seen = True
    return moved


def _size(shape: Sequence[int], entries: int) -> int:
    """Count the entries of a shape, of which one axis may be what is left."""
    known = math.prod(n for n in shape if n != -1)
    return entries if -1 in shape and known and entries % known == 0 else known


def _numbers(clean: torch.Tensor, axis: int) -> torch.Tensor:
    """Give for each entry of a row the channel to which it belongs, laid out in memory as it is."""
    owner = torch.empty_like(clean, dtype=torch.long)
    numbers = torch.arange(clean.shape[axis], device=clean.device)
    return owner.copy_(numbers.view(-1, *(1,) * (clean.ndim - 1 - axis)))


def _multiplied(name: str, args: Any, kwargs: Any) -> torch.Tensor | None:
    """Compute a linear map: the clean result, less what each channel adds to it."""
    if kwargs:
        return None
    bias: torch.Tensor | None = None
    if name == "addmm":
        bias, batch, weight = args
    elif name == "mm":
        batch, weight = args
    else:
        batch, weight, *rest = args
        weight, bias = weight.t(), rest[0] if rest else None
    if not isinstance(batch, _Ablation) or batch.clean.ndim != 2:
        return None
    row, owner = batch.clean[0], batch.owner[0]
    clean = row @ weight if bias is None else bias + row @ weight
    return clean - _shares(row, owner, weight)[batch.gone]


def _shares(row: torch.Tensor, owner: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Compute what the entries of each channel add to a product with a matrix: (K, M)."""
    channels = int(owner.max()) + 1
    each = len(row) // channels
    blocks = torch.arange(channels, device=row.device).repeat_interleave(each)
    in_blocks = len(row) == channels * each and bool((owner == blocks).all())
    shares = row.new_empty(channels, weight.shape[1])
    step = max(1, _PART // len(row))
    for start in range(0, weight.shape[1], step):
        # A matrix is transposed where it comes from a layer: its columns are close in memory.
        products = weight[:, start : start + step].T * row
        if in_blocks:
            part = products.view(-1, channels, each).sum(2).T
        else:
            part = products.new_zeros(len(products), channels).index_add_(1, owner, products).T
        shares[:, start : start + step] = part
    return shares


_CARRIERS: Final = {_POINTWISE: _pointed, _POOLING: _pooled, _MOVING: _moved}


def _too_many(shape: tuple[int, ...]) -> Exception:
    """Say that so many rows are not to be made at once."""
    rows = np.broadcast_to(np.float32(0), shape)
    return out_of_memory({"replacement": rows}, "fewer at once take less memory")
