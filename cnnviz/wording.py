"""Values in words: parameters, facts, arrays."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from cnnviz_core.exhibits import Gallery
from cnnviz_core.model import Array

__all__ = ["described", "gallery_note", "is_short", "said", "slug", "told"]

# A page has no room for lists of a thousand numbers; the result's own object has them.
_ENTRIES = 24


def said(values: Mapping[str, Any]) -> dict[str, str]:
    """Write values as they are read.

    Parameters
    ----------
    values : mapping of str to value
        Such as parameters or facts.

    Returns
    -------
    dict of str to str
    """
    return {str(name): told(value) for name, value in values.items()}


def told(value: Any) -> str:
    """Write a value as it is read.

    Parameters
    ----------
    value : object
        As JSON has it, or an array.

    Returns
    -------
    str
        Of long lists the beginning, and how many entries more there are.

    Examples
    --------
    >>> told({"layer": "conv1", "stride": [2, 2], "share": 0.25})
    'layer: conv1, stride: 2, 2, share: 0.25'
    """
    if value is None:
        return "none"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, np.ndarray):
        return told(value.tolist()) if is_short(value) else described(value)
    if isinstance(value, Mapping):
        return _listed([f"{name}: {told(each)}" for name, each in value.items()])
    if isinstance(value, (list, tuple)):
        return _listed([told(each) for each in value])
    return str(value) or "none"


def is_short(array: Array) -> bool:
    """Tell whether an array has room in a line, as a value for each channel has.

    Parameters
    ----------
    array : ndarray
        Any.

    Returns
    -------
    bool
    """
    return array.ndim == 1 and array.size <= _ENTRIES


def _listed(parts: list[str]) -> str:
    """Write parts one after the other, as many as there is room for."""
    more = len(parts) - _ENTRIES
    return ", ".join(parts[:_ENTRIES] + ([f"and {more} more"] if more > 0 else [])) or "none"


def described(array: Array) -> str:
    """Describe an array in a line, so that equal ones are known again.

    Parameters
    ----------
    array : ndarray
        Any.

    Returns
    -------
    str
        Its type, its shape and the first digits of a hash of its content.
    """
    digest = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
    shape = " x ".join(map(str, array.shape))
    return f"{array.dtype} array, {shape}, sha256 {digest[:12]}"


def gallery_note(gallery: Gallery) -> str:
    """Give the line below a gallery, with the key of signed heat where there is any.

    Parameters
    ----------
    gallery : Gallery
        Any.

    Returns
    -------
    str
    """
    tiles = [tile for row in gallery.rows for tile in row if tile is not None]
    signed = any(tile.signed and tile.heat is not None for tile in tiles)
    key = "Orange is positive, blue negative." if signed else ""
    return " ".join(filter(None, (gallery.note, key)))


def slug(text: str) -> str:
    """Make a text fit for a file's name.

    Parameters
    ----------
    text : str
        Any.

    Returns
    -------
    str
        Empty where no character of the text fits.

    Examples
    --------
    >>> slug("Big cat (3)")
    'big-cat-3'
    """
    return re.sub(r"[^\w.]+", "-", text.casefold()).strip("-.")
