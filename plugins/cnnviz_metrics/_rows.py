"""Rows of records, and what is made of them where each stands a number of times."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Final

import numpy as np

from cnnviz_core.model import Array

_ROWS: Final = 4096
"""How many rows are made floating-point numbers at once."""


class Resampled(ABC):
    """A metric that sums up many data sets drawn from one; the records themselves are one of them.

    So a number has a single definition, whether of all pictures or in a bootstrap.
    """

    @abstractmethod
    def resample(self, records: Mapping[str, Array], counts: Array) -> Mapping[str, Array]:
        """Sum up data sets in which pictures stand several times; see `Metric`."""

    def summarise(self, records: Mapping[str, Array]) -> Mapping[str, float]:
        """Sum up the records of a data set.

        Parameters
        ----------
        records : mapping of str to ndarray
            Those of any number of pictures.

        Returns
        -------
        mapping of str to float
            The numbers that `resample` tells of.
        """
        once = np.ones((1, len(next(iter(records.values())))))
        return {name: float(values[0]) for name, values in self.resample(records, once).items()}


def measured(*records: Array) -> tuple[Array, ...]:
    """Leave out the rows in which a record is NaN."""
    arrays = [np.asarray(record, dtype=np.float64) for record in records]
    there = _there(arrays)
    return tuple(arrays) if there.all() else tuple(array[there] for array in arrays)


def counted(counts: Array, *records: Array) -> tuple[Array, ...]:
    """Leave out the rows in which a record is NaN, and their counts (R, n), which come first."""
    arrays = [np.asarray(record, dtype=np.float64) for record in records]
    there = _there(arrays)
    if there.all():
        return counts, *arrays
    return counts[:, there], *(array[there] for array in arrays)


def _there(arrays: list[Array]) -> Array:
    """Tell of each row whether no record of it is NaN."""
    unknown = [np.isnan(array).any(axis=tuple(range(1, array.ndim))) for array in arrays]
    return ~np.any(unknown, axis=0)


def total(counts: Array, values: Array) -> Array:
    """Sum rows (n, ...), each as often as it is counted (R, n): (R, ...)."""
    flat = values.reshape(len(values), math.prod(values.shape[1:]))
    sums = np.zeros((len(counts), flat.shape[1]))
    for start in range(0, len(flat), _ROWS):
        sums += _added(counts[:, start : start + _ROWS], flat[start : start + _ROWS])
    return sums.reshape(len(counts), *values.shape[1:])


def _added(counts: Array, rows: Array) -> Array:
    """Sum some rows; one that is infinite counts for nothing where it does not stand."""
    if rows.dtype == bool:
        # Whole numbers up to 2 ** 24 are exact in single precision, which is twice as fast.
        found: Array = counts.astype(np.float32) @ rows.astype(np.float32)
        return found
    rows = rows.astype(np.float64, copy=False)
    endless = np.isinf(rows).any(axis=1)
    if not endless.any():
        return counts @ rows
    sums: Array = counts[:, ~endless] @ rows[~endless]
    for times, row in zip(counts.T[endless], rows[endless], strict=True):
        sums[times > 0] += times[times > 0, None] * row
    return sums


def mean(counts: Array, values: Array) -> Array:
    """Average rows (n, ...), each as often as it is counted (R, n): (R, ...), NaN without any."""
    rows = counts.sum(axis=1).reshape(-1, *(1 for _ in values.shape[1:]))
    return ratio(total(counts, values), rows)


def ratio(part: Array, whole: Array) -> Array:
    """Divide; NaN where the whole is 0."""
    part, whole = np.broadcast_arrays(part, whole)
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole != 0)
