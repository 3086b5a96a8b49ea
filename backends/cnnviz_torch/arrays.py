"""Between NumPy, channels last, and torch, channels first; the tensors in what layers return."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from cnnviz_core.model import Array

__all__ = ["floating", "main_tensor", "substitute", "to_array", "to_tensor", "version_of"]


def to_tensor(
    array: Array, like: torch.Tensor | None = None, *, channels_first: bool
) -> torch.Tensor:
    """Copy an array to a tensor.

    The tensor is contiguous, as the one that most people feed to a network: a view in channels-last
    memory would be free, but ``x.view(n, -1)`` fails on what a convolution makes of it.

    Parameters
    ----------
    array : ndarray (N, ..., C)
        Any strides; may be read-only.
    like : Tensor, optional
        Whose type and device to take.
    channels_first : bool
        Whether to move the last axis to the second place.

    Returns
    -------
    Tensor
        Of its own memory.
    """
    moved = np.moveaxis(array, -1, 1) if channels_first else array
    tensor = torch.from_numpy(np.array(moved, order="C"))
    return tensor if like is None else tensor.to(like.device, like.dtype)


def to_array(tensor: torch.Tensor, *, channels_first: bool) -> Array:
    """Copy a tensor to an array, float32 or float64.

    Parameters
    ----------
    tensor : Tensor
        On any device, recorded or not.
    channels_first : bool
        Whether to move the second axis to the last place.

    Returns
    -------
    ndarray
        C-contiguous, of its own memory.
    """
    tensor = tensor.detach()
    if tensor.dtype not in (torch.float32, torch.float64):
        tensor = tensor.float()
    if channels_first:
        tensor = tensor.movedim(1, -1)
    return np.array(tensor.numpy(force=True), order="C")


def floating(value: Any) -> Iterator[torch.Tensor]:
    """Go through the floating-point tensors in what a layer or a network returns.

    Parameters
    ----------
    value : Tensor, or tuple, list, mapping or dataclass of such
        Nested to any depth.

    Yields
    ------
    Tensor
        In their order.
    """
    if isinstance(value, torch.Tensor):
        if value.is_floating_point():
            yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from floating(item)
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from floating(item)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from floating(getattr(value, field.name))


def main_tensor(value: Any) -> torch.Tensor | None:
    """Find the first floating-point tensor in what a layer returns."""
    return next(floating(value), None)


def substitute(value: Any, old: torch.Tensor, new: torch.Tensor) -> Any:
    """Put one tensor in the place of another, wherever it stands.

    Parameters
    ----------
    value : Tensor, or tuple, list, mapping or dataclass of such
        What a layer returned; it is not changed.
    old, new : Tensor
        `old` is found by identity.

    Returns
    -------
    object
        `value` itself where `old` does not occur, else a copy of the same type.
    """
    if value is old:
        return new
    if isinstance(value, Mapping):
        items = {key: substitute(item, old, new) for key, item in value.items()}
        changed = {key: item for key, item in items.items() if item is not value[key]}
        if not changed:
            return value
        result: Any = copy.copy(value)
        for key, item in changed.items():
            result[key] = item
        return result
    if isinstance(value, (tuple, list)):
        parts = [substitute(item, old, new) for item in value]
        if all(a is b for a, b in zip(parts, value, strict=True)):
            return value
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        result = copy.copy(value)
        for field in dataclasses.fields(value):
            item = getattr(value, field.name)
            object.__setattr__(result, field.name, substitute(item, old, new))
        return result
    return value


def version_of(tensor: torch.Tensor) -> int:
    """Tell how often a tensor was overwritten; inference tensors do not say."""
    return 0 if tensor.is_inference() else tensor._version
