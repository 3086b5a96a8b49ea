"""Random subsets of a picture's cells: what their removal costs, and what a map gives them."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, TypeAlias

import numpy as np

from cnnviz_core.errors import ArrayError
from cnnviz_core.explainer import present
from cnnviz_core.maps import resize_matrix
from cnnviz_core.metric import Explained
from cnnviz_core.model import Array

__all__ = [
    "Attributed",
    "Correlation",
    "attributions",
    "cell_sums",
    "correlation",
    "subsets_of",
]

Correlation: TypeAlias = Literal["spearman", "pearson"]
"""Of ranks, or of the values themselves."""

Attributed: TypeAlias = Literal["signed", "shown"]
"""What is summed up over a subset: the method's own result with its sign, all channels together,
or the map as the method's authors show it."""


def subsets_of(cells: int, size: int, count: int, rng: np.random.Generator) -> Array:
    """Draw subsets of a size, each of which is as likely as any other.

    Parameters
    ----------
    cells : int
        Of how many cells.
    size : int
        How many of them a subset has.
    count : int
        How many subsets to draw.
    rng : numpy.random.Generator
        Draws them.

    Returns
    -------
    ndarray (count, cells) of bool
        Whether a subset has a cell.

    Examples
    --------
    >>> subsets_of(4, 3, 2, np.random.default_rng(0)).sum(axis=1).tolist()
    [3, 3]
    """
    places = rng.random((count, cells)).argsort(axis=1)
    drawn = np.zeros((count, cells), bool)
    np.put_along_axis(drawn, places[:, :size], True, axis=1)
    return drawn


def cell_sums(maps: Array, grid: tuple[int, ...]) -> Array:
    """Sum maps up over the cells of a grid.

    Parameters
    ----------
    maps : ndarray (N, *size)
        The maps.
    grid : tuple of int
        How many cells there are along each axis.  A pixel is in the cell that its centre is in; of
        a grid finer than the map some cells have none.

    Returns
    -------
    ndarray (N, *grid) of float64

    Raises
    ------
    ArrayError
        If the grid has another number of axes.

    Examples
    --------
    >>> cell_sums(np.array([[1.0, 2.0, 4.0, 8.0]]), (2,)).tolist()
    [[3.0, 12.0]]
    """
    if maps.ndim != len(grid) + 1:
        raise ArrayError(
            f"maps of the shape {maps.shape} were given for a grid {grid}",
            "(N, *size) with an axis for each of the grid's",
            "give as many cells as the maps have axes after the first",
        )
    sums = np.asarray(maps, dtype=np.float64)
    for axis, cells in enumerate(grid, 1):
        within = resize_matrix(cells, sums.shape[axis], "nearest")
        sums = np.moveaxis(np.tensordot(sums, within, (axis, 0)), -1, axis)
    return sums


def correlation(a: Array, b: Array, how: Correlation = "spearman") -> float:
    """Correlate two lists of numbers.

    Parameters
    ----------
    a, b : ndarray (M,)
        The numbers.
    how : {"spearman", "pearson"}
        Of ranks, equal numbers sharing the mean of theirs; or of the numbers themselves.

    Returns
    -------
    float
        In [-1, 1]; 0 where either are all the same.  Numbers that differ by less than 1e-12 of the
        largest are taken to be equal.

    Examples
    --------
    >>> round(correlation([1, 2, 3], [1, 4, 9]), 3), round(correlation([1, 2], [3, 3]), 3)
    (1.0, 0.0)
    """
    a, b = (_settled(np.asarray(values, dtype=np.float64)) for values in (a, b))
    if how == "spearman":
        from scipy.stats import rankdata

        a, b = rankdata(a), rankdata(b)
    a, b = a - a.mean(), b - b.mean()
    lengths = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(np.clip(a @ b / lengths, -1, 1)) if lengths > 0 else 0.0


def _settled(values: Array) -> Array:
    """Divide by the largest magnitude, and cut off what is rounding."""
    largest = np.abs(values).max(initial=0)
    return np.round(values / largest, 12) if largest > 0 else values


def attributions(explained: Explained, which: Attributed) -> Array:
    """Give the maps that are summed up over subsets.

    Parameters
    ----------
    explained : Explained
        The batch.
    which : {"signed", "shown"}
        See `Attributed`.

    Returns
    -------
    ndarray (N, *size) of float64
        At the input's size.
    """
    if which == "shown":
        return explained.shown
    how = replace(explained.maps.presentation, sign="signed", reduce="sum")
    maps, _ = present(explained.maps.raw.astype(np.float64), explained.size, how)
    return maps
