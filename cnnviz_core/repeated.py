"""Which rows of a batch hold the same sample, so that what is equal is computed once."""

from __future__ import annotations

import math

import numpy as np

from cnnviz_core.model import Array

__all__ = ["repeated_rows"]

_GLANCE = 64


def repeated_rows(x: Array) -> tuple[Array, Array]:
    """Find the distinct rows of a batch, and which of them each row holds.

    Rows are the same where their bits are: the two zeros differ, since a network may tell them
    apart, and NaN is the same as itself.

    Parameters
    ----------
    x : ndarray (N, ...)
        The batch.  One that NumPy only broadcast along its first axis is not read.

    Returns
    -------
    first : ndarray (D,) of int
        The first row that holds each distinct sample, ascending.
    row_of : ndarray (N,) of int
        For each row the place of its sample in `first`, so that ``x[first][row_of]`` is `x`.
    """
    if len(x) and not x.strides[0]:
        return np.zeros(1, np.intp), np.zeros(len(x), np.intp)
    bits = _bits(x)
    # Most rows that differ do so in these few values too, and need not be read.
    glances = bits[:, :: max(1, bits.shape[1] // _GLANCE)]
    alike: dict[bytes, list[int]] = {}
    first: list[int] = []
    row_of = np.empty(len(x), np.intp)
    for row, glance in enumerate(glances):
        known = alike.setdefault(glance.tobytes(), [])
        place = next((k for k in known if np.array_equal(bits[first[k]], bits[row])), None)
        if place is None:
            place = len(first)
            known.append(place)
            first.append(row)
        row_of[row] = place
    return np.array(first, np.intp), row_of


def _bits(x: Array) -> Array:
    """Give the rows of a batch as whole numbers of the same bits: (N, values)."""
    rows = np.ascontiguousarray(x).reshape(len(x), math.prod(x.shape[1:]))
    return rows.view(f"u{min(rows.itemsize, 8)}")
