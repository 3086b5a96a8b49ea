"""Saying honestly whether a map shows anything."""

from __future__ import annotations

import numpy as np

from cnnviz_core.model import Array

__all__ = ["map_status"]


def map_status(raw: Array, shown: Array) -> list[str]:
    """Judge each map of a batch.

    Parameters
    ----------
    raw : ndarray (N, ...)
        The method's own numbers, signed.
    shown : ndarray (N, ...)
        What is shown of them, such as the positive part.

    Returns
    -------
    list of str
        For each sample: "ok"; "non-finite" if a number is NaN or infinite; "all-zero" if the raw
        numbers are; "all-negative" if they are not, but all that is shown is zero.
    """

    def judge(numbers: Array, seen: Array) -> str:
        if not np.isfinite(numbers).all():
            return "non-finite"
        if not numbers.any():
            return "all-zero"
        return "ok" if seen.any() else "all-negative"

    return [judge(numbers, seen) for numbers, seen in zip(raw, shown, strict=True)]
