"""What all map maths shares: checks, and how a batch is cut into parts."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from typing import Any, Final, TypeVar

import numpy as np

from cnnviz_core.errors import ArrayError, ParameterError, near
from cnnviz_core.model import Array, as_float

T = TypeVar("T")

CACHED: Final = 2**20
"""Bytes that stay in a core's cache while they are read and written several times."""


def checked_maps(values: Any, name: str, ranks: Container[int], form: str) -> Array:
    """Check that values are real numbers of a fitting rank, and give them in a floating type."""
    array = np.asarray(values)
    if array.dtype.kind not in "fiub":
        raise ArrayError(
            f"{name} has the type {array.dtype}",
            "real numbers",
            "convert it with numpy.asarray(values, dtype='float32')",
        )
    if array.ndim not in ranks:
        raise ArrayError(
            f"{name} has the shape {array.shape}",
            f"{form}, batch first and channels last",
            "add the batch axis of a single sample with values[None], or move the channels last "
            "with numpy.moveaxis(values, 1, -1)",
        )
    if 0 in array.shape[1:]:
        raise ArrayError(
            f"{name} has the shape {array.shape}, without a single value for a sample",
            "at least one position and one channel",
            "look at how the array was cut out",
        )
    return as_float(array)


def pick(options: Mapping[str, T], parameter: str, value: str) -> T:
    """Look an option up by its name."""
    if value not in options:
        raise ParameterError(
            f"{parameter}={value!r} is unknown",
            f"one of {', '.join(map(repr, options))}",
            f"pass {parameter}={(near(str(value), options) or list(options))[0]!r}",
        )
    return options[value]


def parts_of(maps: Array, size: int = CACHED) -> Iterator[slice]:
    """Cut a batch into parts of a size in bytes, or of one sample where that is larger."""
    step = max(1, size * len(maps) // max(1, maps.nbytes))
    return (slice(start, start + step) for start in range(0, len(maps), step))
