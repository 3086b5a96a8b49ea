"""Exhibits as arrays and JSON, for a file, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, Final

import numpy as np

from cnnviz_core.exhibits import Curves, Exhibit, Gallery, Line, Matrix, Table, Tile
from cnnviz_core.model import Array

__all__ = ["packed", "unpacked"]

_KINDS: Final = {kind.__name__: kind for kind in (Gallery, Tile, Curves, Line, Table, Matrix)}


def packed(exhibits: Sequence[Exhibit]) -> tuple[list[Any], list[Array]]:
    """Take exhibits apart.

    Parameters
    ----------
    exhibits : sequence of Exhibit
        Any.

    Returns
    -------
    values : list
        As JSON has it; an array is ``{"array": k}``, and what has fields names its kind.
    arrays : list of ndarray
        Each once, however often it is shown.
    """
    arrays: list[Array] = []
    places: dict[tuple[str, tuple[int, ...], bytes], int] = {}

    def plain(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            key = (value.dtype.str, value.shape, value.tobytes())
            if key not in places:
                places[key] = len(arrays)
                arrays.append(value)
            return {"array": places[key]}
        if is_dataclass(value):
            parts = {f.name: plain(getattr(value, f.name)) for f in fields(value)}
            return {"kind": type(value).__name__, **parts}
        if isinstance(value, (tuple, list)):
            return [plain(each) for each in value]
        return value.item() if isinstance(value, np.generic) else value

    return [plain(exhibit) for exhibit in exhibits], arrays


def unpacked(values: Sequence[Any], arrays: Sequence[Array]) -> tuple[Exhibit, ...]:
    """Put exhibits together again.

    Parameters
    ----------
    values : sequence
        As `packed` gave them.
    arrays : sequence of ndarray
        Likewise.

    Returns
    -------
    tuple of Exhibit
    """

    def whole(value: Any) -> Any:
        if isinstance(value, Mapping):
            if "array" in value:
                return arrays[value["array"]]
            parts = {name: whole(part) for name, part in value.items() if name != "kind"}
            return _KINDS[value["kind"]](**parts)
        return tuple(map(whole, value)) if isinstance(value, list) else value

    return tuple(map(whole, values))
