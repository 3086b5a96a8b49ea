"""Telling whether there is anything to see in a map."""

from __future__ import annotations

import math

import numpy as np

from cnnviz_core.errors import ArrayError
from cnnviz_core.maps._checks import checked_maps
from cnnviz_core.model import Array

__all__ = ["map_status"]


def map_status(raw: Array, shown: Array) -> list[str]:
    """Say of each sample whether its map shows something, and if not, why.

    Parameters
    ----------
    raw : ndarray (N, ...)
        The method's own result, signed.
    shown : ndarray (N, ...)
        What is shown of it, such as its positive part.

    Returns
    -------
    list of str
        For each sample, the first that holds of

        - "non-finite": a value is NaN or infinite;
        - "ok": a shown value is not zero;
        - "all-negative": no raw value is positive, some are negative, and these are not shown;
        - "all-zero": nothing is there.

    Raises
    ------
    ArrayError
        If the numbers of samples differ.

    Examples
    --------
    >>> import numpy as np
    >>> raw = np.array([[-1.0, 2.0], [-1.0, 0.0], [0.0, 0.0], [np.nan, 1.0]])
    >>> map_status(raw, np.maximum(raw, 0))
    ['ok', 'all-negative', 'all-zero', 'non-finite']
    """
    raw = checked_maps(raw, "raw", range(1, 33), "(N, ...)")
    shown = checked_maps(shown, "shown", range(1, 33), "(N, ...)")
    if len(raw) != len(shown):
        raise ArrayError(
            f"raw holds {len(raw)} samples and shown {len(shown)}",
            "the same samples in both",
            "pass both arrays for the whole batch",
        )
    given, seen = (m.reshape(len(m), math.prod(m.shape[1:])) for m in (raw, shown))
    highest = given.max(axis=1)
    finite = np.isfinite(given.min(axis=1)) & np.isfinite(highest) & np.isfinite(seen).all(axis=1)
    lost = np.where(given.any(axis=1) & ~(highest > 0), "all-negative", "all-zero")
    status = np.where(finite, np.where(seen.any(axis=1), "ok", lost), "non-finite")
    found: list[str] = status.tolist()
    return found
