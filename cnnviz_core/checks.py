"""Checks of what crosses the ``Model`` boundary, shared by all backends."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from cnnviz_core.errors import ArrayError
from cnnviz_core.model import Array, InputInfo, Inputs

__all__ = ["check_cotangent", "check_direction", "check_inputs", "check_replacement"]


def check_inputs(inputs: Mapping[str, InputInfo], x: Inputs) -> dict[str, Array]:
    """Check a network's input, and give it as one array for each named input.

    Parameters
    ----------
    inputs : mapping of str to InputInfo
        What the network takes.
    x : ndarray (N, ...), or mapping of str to ndarray
        What it was given; one array suffices where there is one input.

    Returns
    -------
    dict of str to ndarray
        In the order of `inputs`, in the type in which the network computes, C-contiguous.

    Raises
    ------
    ArrayError
        If a name, the rank, a size or the batch does not fit, or a value is not finite.
    """
    if not isinstance(x, Mapping):
        if len(inputs) != 1:
            raise ArrayError(
                f"one array was given to a network with {len(inputs)} inputs",
                f"a mapping with the keys {', '.join(map(repr, inputs))}",
                "pass {name: array} with one array for each input",
            )
        x = {next(iter(inputs)): x}
    if set(x) != set(inputs):
        raise ArrayError(
            f"the inputs are named {sorted(x)}",
            f"the names {sorted(inputs)}",
            "pass {name: array} with exactly these names",
        )
    checked = {name: _check_array(info, x[name]) for name, info in inputs.items()}
    batches = {name: len(array) for name, array in checked.items()}
    if len(set(batches.values())) > 1:
        raise ArrayError(
            f"the inputs have different batch sizes: {batches}",
            "one batch size for all inputs",
            "give each input one row for each sample",
        )
    return checked


def _check_array(info: InputInfo, values: Array) -> Array:
    """Check one input's array."""
    array = np.asarray(values)
    if array.dtype.kind not in "fiub":
        raise ArrayError(
            f"input {info.name!r} has the type {array.dtype}",
            "real numbers",
            "convert it with numpy.asarray(x, dtype='float32')",
        )
    if info.shape is not None:
        wanted = ("N", *("any" if n is None else n for n in info.shape))
        fits = array.ndim == len(wanted) and all(
            n is None or n == m for n, m in zip(info.shape, array.shape[1:], strict=True)
        )
        if not fits:
            raise ArrayError(
                f"input {info.name!r} has the shape {array.shape}",
                f"({', '.join(map(str, wanted))}), batch first and channels last",
                _shape_remedy(info.shape, array.shape),
            )
    elif array.ndim < 2:
        raise ArrayError(
            f"input {info.name!r} has the shape {array.shape}",
            "a batch axis and at least one more",
            "add the batch axis: x[None]",
        )
    if len(array) == 0:
        raise ArrayError(
            f"input {info.name!r} holds no sample",
            "a batch of at least one",
            "pass a sample",
        )
    if not np.isfinite(array).all():
        raise ArrayError(
            f"input {info.name!r} holds {int((~np.isfinite(array)).sum())} values that are NaN or "
            "infinite",
            "finite numbers",
            "find where they come from, or replace them with numpy.nan_to_num",
        )
    return np.ascontiguousarray(array, dtype=info.dtype)


def _shape_remedy(wanted: tuple[int | None, ...], given: tuple[int, ...]) -> str:
    """Say what most likely went wrong with a shape."""
    if len(given) == len(wanted):
        return "add the batch axis: x[None]"
    if len(given) == len(wanted) + 1 and given[1] == wanted[-1] != given[-1]:
        return "move the channels last: numpy.moveaxis(x, 1, -1)"
    return "resize the input, or wrap the network with the preprocessing it was trained with"


def check_cotangent(cotangent: Array, value: Array, of: str) -> Array:
    """Check that a cotangent fits the value that it multiplies.

    Parameters
    ----------
    cotangent, value : ndarray
        Both (N, ...).
    of : str
        The node, for the message.

    Returns
    -------
    ndarray
        The cotangent, in the value's type, C-contiguous.

    Raises
    ------
    ArrayError
        If the shapes differ or a value is not finite.
    """
    return _check_like(cotangent, value, "the cotangent of", of)


def check_replacement(replacement: Array, value: Array, node: str) -> Array:
    """Check that a replacement fits the value in whose place it is put.

    Parameters
    ----------
    replacement, value : ndarray
        Both (N, ...).
    node : str
        The node, for the message.

    Returns
    -------
    ndarray
        The replacement, in the value's type, C-contiguous.

    Raises
    ------
    ArrayError
        If the shapes differ or a value is not finite.
    """
    return _check_like(replacement, value, "the replacement of", node)


def check_direction(direction: Array, value: Array, node: str) -> Array:
    """Check that a direction fits the value that moves along it; see `CurvedModel.curvature`.

    Parameters
    ----------
    direction, value : ndarray
        Both (N, ...).
    node : str
        The node, for the message.

    Returns
    -------
    ndarray
        The direction, in the value's type, C-contiguous.

    Raises
    ------
    ArrayError
        If the shapes differ or a value is not finite.
    """
    return _check_like(direction, value, "the direction at", node)


def _check_like(array: Array, value: Array, what: str, node: str) -> Array:
    """Check that `array` has the shape of `value` and is finite."""
    given = np.asarray(array)
    if given.shape != value.shape:
        raise ArrayError(
            f"{what} {node!r} has the shape {given.shape}",
            f"the shape of the value there, {value.shape}",
            "make one of that shape, or pass a function of the value",
        )
    if not np.isfinite(given).all():
        raise ArrayError(
            f"{what} {node!r} holds NaN or infinity",
            "finite numbers",
            "look at the value that it was made from",
        )
    return np.ascontiguousarray(given, dtype=value.dtype)
