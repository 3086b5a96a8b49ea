"""Checks of what crosses the ``Model`` boundary, shared by all backends."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal, overload

import numpy as np

from cnnviz_core.blended import Batch, Blended
from cnnviz_core.errors import ArrayError, OutOfMemoryError
from cnnviz_core.mask_forms import Affine, Drawn, Labelled, MaskForm, Separable
from cnnviz_core.model import Array, InputInfo, Inputs

__all__ = [
    "check_cotangent",
    "check_direction",
    "check_inputs",
    "check_parameters",
    "check_replacement",
    "no_room_for_a_copy",
    "no_variable",
    "out_of_memory",
]


@overload
def check_inputs(inputs: Mapping[str, InputInfo], x: Inputs) -> dict[str, Array]: ...


@overload
def check_inputs(
    inputs: Mapping[str, InputInfo], x: Inputs, *, blended: Literal[True]
) -> dict[str, Batch]: ...


def check_inputs(
    inputs: Mapping[str, InputInfo], x: Inputs, *, blended: bool = False
) -> Mapping[str, Batch]:
    """Check a network's input, and give it as one array for each named input.

    Parameters
    ----------
    inputs : mapping of str to InputInfo
        What the network takes.
    x : ndarray (N, ...), or mapping of str to ndarray
        What it was given; one array suffices where there is one input.
    blended : bool
        Whether a `Blended` batch is handed on as it is; otherwise the batch that it describes is
        made.

    Returns
    -------
    dict of str to ndarray, or to Blended
        In the order of `inputs`, in the type in which the network computes, C-contiguous; a sample
        that NumPy only repeats is repeated so again, and not to be written to.

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
    checked = {name: _check_batch(info, x[name], blended) for name, info in inputs.items()}
    batches = {name: len(array) for name, array in checked.items()}
    if len(set(batches.values())) > 1:
        raise ArrayError(
            f"the inputs have different batch sizes: {batches}",
            "one batch size for all inputs",
            "give each input one row for each sample",
        )
    return checked


def _check_batch(info: InputInfo, values: Batch, blended: bool) -> Batch:
    """Check one input's batch, and give it in the network's type."""
    if isinstance(values, Blended):
        _check_described(info, values)
        described = values.astype(info.dtype)
        return described if blended else np.ascontiguousarray(described)
    array = np.asarray(values)
    _check_type(info, array)
    _check_shape(info, array.shape)
    if len(array) > 1 and not array.strides[0]:  # NumPy only repeats a sample: one look suffices
        return np.broadcast_to(_check_batch(info, array[:1], blended), array.shape)
    _check_finite(info, array)
    return np.ascontiguousarray(array, dtype=info.dtype)


def _check_described(info: InputInfo, batch: Blended) -> None:
    """Check a batch that is described, without making it."""
    fill = np.asarray(batch.fill)
    parts = (batch.sample, fill, *_numbers(batch.masks))
    for part in parts:
        _check_type(info, part)
    _check_shape(info, batch.shape)
    shape = batch.sample.shape
    if batch.masks.shape[1:] != shape[:-1] or not _broadcasts(fill.shape, shape):
        raise ArrayError(
            f"input {info.name!r} is a sample of the shape {shape} under masks of the shape "
            f"{batch.masks.shape}, with a fill of the shape {fill.shape}",
            "masks of the sample's size, and a fill that broadcasts to it",
            "describe them for the sample",
        )
    for part in parts:
        _check_finite(info, part)


def _numbers(form: MaskForm) -> Iterator[Array]:
    """Go through the numbers of which masks are made."""
    match form:
        case Drawn(values) | Labelled(_, values):
            yield values
        case Separable(values, weights):
            yield values
            yield from weights
        case Affine(inner, scale, shift):
            yield from _numbers(inner)
            yield from map(np.asarray, (scale, shift))


def _broadcasts(shape: tuple[int, ...], to: tuple[int, ...]) -> bool:
    """Tell whether an array of one shape broadcasts to another."""
    axes = zip(reversed(shape), reversed(to), strict=False)
    return len(shape) <= len(to) and all(n in (1, m) for n, m in axes)


def _check_type(info: InputInfo, array: Array) -> None:
    """Check that an input is made of real numbers."""
    if array.dtype.kind not in "fiub":
        raise ArrayError(
            f"input {info.name!r} has the type {array.dtype}",
            "real numbers",
            "convert it with numpy.asarray(x, dtype='float32')",
        )


def _check_shape(info: InputInfo, shape: tuple[int, ...]) -> None:
    """Check that an input has the rank and the sizes that the network takes."""
    if info.shape is not None:
        wanted = ("N", *("any" if n is None else n for n in info.shape))
        fits = len(shape) == len(wanted) and all(
            n is None or n == m for n, m in zip(info.shape, shape[1:], strict=True)
        )
        if not fits:
            raise ArrayError(
                f"input {info.name!r} has the shape {shape}",
                f"({', '.join(map(str, wanted))}), batch first and channels last",
                _shape_remedy(info.shape, shape),
            )
    elif len(shape) < 2:
        raise ArrayError(
            f"input {info.name!r} has the shape {shape}",
            "a batch axis and at least one more",
            "add the batch axis: x[None]",
        )
    if shape[0] == 0:
        raise ArrayError(
            f"input {info.name!r} holds no sample",
            "a batch of at least one",
            "pass a sample",
        )


def _check_finite(info: InputInfo, array: Array) -> None:
    """Check that an input holds neither NaN nor infinity."""
    if not np.isfinite(array).all():
        raise ArrayError(
            f"input {info.name!r} holds {int((~np.isfinite(array)).sum())} values that are NaN or "
            "infinite",
            "finite numbers",
            "find where they come from, or replace them with numpy.nan_to_num",
        )


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


def out_of_memory(inputs: Mapping[str, Batch], said: str) -> OutOfMemoryError:
    """Say in one way for all frameworks that the memory does not suffice.

    Parameters
    ----------
    inputs : mapping of str to (ndarray or Blended)
        What the network was run with.
    said : str
        The framework's own message, of which the first line is told.

    Returns
    -------
    OutOfMemoryError
        To be raised.
    """
    shapes = " and ".join(str(batch.shape) for batch in inputs.values())
    first = next(iter(said.splitlines()), "")
    return OutOfMemoryError(
        f"the memory does not suffice to run the network with a batch of the shape {shapes}: "
        f"{first}",
        "a batch that fits",
        "pass a smaller batch_size, or batch_size='auto'",
    )


def check_parameters(
    given: Mapping[str, Array], own: Mapping[str, Array], layer: str
) -> dict[str, Array]:
    """Check arrays that a layer of a copied network is to have.

    Parameters
    ----------
    given : mapping of str to ndarray
        Some of them.
    own : mapping of str to ndarray
        What the layer has, as `Model.parameters` gives it.
    layer : str
        The layer, for the message.

    Returns
    -------
    dict of str to ndarray
        Those that differ from what the layer has.

    Raises
    ------
    ArrayError
        If the layer has no such array, the shape is another, or a value is not finite.
    """
    changed: dict[str, Array] = {}
    for name, values in given.items():
        values = np.asarray(values)
        if name not in own:
            raise ArrayError(
                f"layer {layer!r} has no array {name!r}",
                f"one of {', '.join(map(repr, own))}" if own else "none: it has no arrays",
                "name the arrays as parameters() does",
            )
        if values.shape != own[name].shape:
            raise ArrayError(
                f"{name!r} of layer {layer!r} was given the shape {values.shape}",
                f"{own[name].shape}, channels last",
                "lay it out as parameters() does",
            )
        if values.dtype.kind not in "fiub" or not np.isfinite(values).all():
            raise ArrayError(
                f"{name!r} of layer {layer!r} was given values that are no finite numbers",
                "finite numbers",
                "look for divisions by zero where it was made",
            )
        if not np.array_equal(values, own[name]):
            changed[name] = values
    return changed


def no_room_for_a_copy(detail: str) -> OutOfMemoryError:
    """Say that the memory does not suffice for a copy of a network.

    Parameters
    ----------
    detail : str
        What the framework said.

    Returns
    -------
    OutOfMemoryError
    """
    return OutOfMemoryError(
        f"the memory does not suffice for a copy of the network: {detail.strip()}",
        "room for the network's weights a second time, and for what it computes",
        "free some memory, or move the network to a device with more of it",
    )


def no_variable(layer: str, name: str) -> ArrayError:
    """Say that an array cannot be changed, since the network computes or fixes it.

    Parameters
    ----------
    layer, name : str
        Whose it is, and what `Model.parameters` calls it.

    Returns
    -------
    ArrayError
    """
    return ArrayError(
        f"{name!r} of layer {layer!r} was given other values, and it is no variable of the network",
        "the values that parameters() gives",
        "leave it out",
    )
