"""Checks that all map maths shares."""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any, TypeVar

import numpy as np

from cnnviz_core.errors import ArrayError, ParameterError, near
from cnnviz_core.model import Array, as_float

T = TypeVar("T")


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
