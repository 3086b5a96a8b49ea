"""Rows of records."""

from __future__ import annotations

import numpy as np

from cnnviz_core.model import Array


def measured(*records: Array) -> tuple[Array, ...]:
    """Leave out the rows in which a record is NaN."""
    arrays = [np.asarray(record, dtype=np.float64) for record in records]
    unknown = [np.isnan(array).any(axis=tuple(range(1, array.ndim))) for array in arrays]
    there = ~np.any(unknown, axis=0)
    return tuple(array[there] for array in arrays)
