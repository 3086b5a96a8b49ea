"""Estimates from random masks: their standard errors, when to stop, and how they converge.

What is estimated is the mean score of a sample while a position is shown: E[f M(p)] / E[M(p)], for
a score f under a random mask M.  Moments are kept, never the masks; all sums are in float64.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np

from cnnviz_core.errors import ArrayError
from cnnviz_core.exhibits import Curves, Line
from cnnviz_core.model import Array

__all__ = [
    "LEAST",
    "POINTS",
    "Estimate",
    "ProductMean",
    "RatioMean",
    "Sampled",
    "check_points",
    "convergence",
    "relative_error",
    "sampled",
]

POINTS: Final = 32
"""How many times at most an estimate is looked at."""

LEAST: Final = 100
"""The samples before which nothing is stopped: the standard error itself must be known first."""

_FIRST: Final = 16


class Estimate(Protocol):
    """A running estimate for each of T targets; any class with these members will do."""

    def add(self, masks: Array, scores: Array) -> None:
        """Take in what was found under some masks.

        Parameters
        ----------
        masks : ndarray (n, *size)
            The masks.
        scores : ndarray (T, n)
            Each target's score under each of them.
        """
        ...

    @property
    def value(self) -> Array:
        """The estimates so far: (T, *size), float64."""
        ...

    @property
    def standard_error(self) -> Array:
        """Their standard errors: (T, *size), float64; infinite where too little is known."""
        ...


class ProductMean:
    """The mean of score times mask, divided by the mask's known expectation.

    It is free of bias, and if the score does not depend on the mask at all it still varies with how
    many masks happened to show a position.  Mean and sum of squares are updated a batch at a time.

    Parameters
    ----------
    expected : float
        The expectation of a mask, the same at every position.

    References
    ----------
    Petsiuk, Das & Saenko, "RISE: Randomized input sampling for explanation of black-box models",
    BMVC 2018, equation 6.

    Chan, Golub & LeVeque, "Algorithms for computing the sample variance: analysis and
    recommendations", The American Statistician 37, 1983: the pairwise update.
    """

    def __init__(self, expected: float) -> None:
        self._expected = expected
        self._count = 0
        self._mean: Array = np.zeros(())
        self._squares: Array = np.zeros(())

    def add(self, masks: Array, scores: Array) -> None:
        """Take in what was found under some masks; see `Estimate.add`."""
        shape = (*scores.shape, *(1 for _ in masks.shape[1:]))
        products = scores.reshape(shape) * (masks.astype(np.float64) / self._expected)
        new, total = len(masks), self._count + len(masks)
        mean = products.mean(1)
        gap = mean - self._mean
        within = np.square(products - mean[:, None]).sum(1)
        self._squares = self._squares + within + gap**2 * (self._count * new / total)
        self._mean = self._mean + gap * (new / total)
        self._count = total

    @property
    def value(self) -> Array:
        """The estimates so far; see `Estimate.value`."""
        return self._mean

    @property
    def standard_error(self) -> Array:
        """Their standard errors; see `Estimate.standard_error`."""
        if self._count < 2:
            return np.full(self._mean.shape, np.inf)
        error: Array = np.sqrt(self._squares / (self._count * (self._count - 1)))
        return error


class RatioMean:
    """The mean of the scores, weighted by the masks.

    A score that does not depend on the mask gives exactly that score, and a constant added to the
    scores is added to the estimate.  Where the scores' mean is large beside their spread, as that
    of logits often is, its variance is far below `ProductMean`'s.  Its bias is of order 1 / n,
    below the standard error, which is the ratio's by the delta method:
    sqrt(n / (n - 1) sum_i M_i^2 (f_i - R)^2) / sum_i M_i.  A position that no mask showed gets the
    mean score.

    Scores are taken less each target's first one, so that little is lost where they are large and
    differ little.

    References
    ----------
    Cochran, "Sampling techniques", 3rd edition 1977, chapter 6.

    Chan, Golub & LeVeque, "Algorithms for computing the sample variance: analysis and
    recommendations", The American Statistician 37, 1983: data that are shifted.
    """

    def __init__(self) -> None:
        self._count = 0
        self._size: tuple[int, ...] = ()
        self._shift: Array = np.zeros(())
        self._score: Array = np.zeros(())
        # Sums over the masks of M, M^2, f M, f M^2 and f^2 M^2.
        self._m = self._mm = self._fm = self._fmm = self._ffmm = np.zeros(())

    def add(self, masks: Array, scores: Array) -> None:
        """Take in what was found under some masks; see `Estimate.add`."""
        if self._count == 0:
            self._size = masks.shape[1:]
            self._shift = scores[:, :1].astype(np.float64)
        f = scores - self._shift
        m = masks.reshape(len(masks), -1).astype(np.float64)
        self._score = self._score + f.sum(1, keepdims=True)
        self._m = self._m + m.sum(0)
        self._fm = self._fm + f @ m
        m *= m
        self._mm = self._mm + m.sum(0)
        self._fmm = self._fmm + f @ m
        self._ffmm = self._ffmm + f**2 @ m
        self._count += len(masks)

    @property
    def value(self) -> Array:
        """The estimates so far; see `Estimate.value`."""
        return self._laid_out(self._shift + self._ratio())

    @property
    def standard_error(self) -> Array:
        """Their standard errors; see `Estimate.standard_error`."""
        ratio = self._ratio()
        squares = self._ffmm - 2 * ratio * self._fmm + ratio**2 * self._mm
        known = self._m > 0 if self._count > 1 else np.zeros(self._m.shape, bool)
        free = self._count / max(1, self._count - 1)
        error = np.full(ratio.shape, np.inf)
        np.divide(np.sqrt(free * squares.clip(0)), self._m, out=error, where=known)
        return self._laid_out(error)

    def _ratio(self) -> Array:
        """Give the ratios of the shifted scores: (T, positions)."""
        mean = np.broadcast_to(self._score / self._count, self._fm.shape).copy()
        return np.divide(self._fm, self._m, out=mean, where=self._m > 0)

    def _laid_out(self, values: Array) -> Array:
        """Bring (T, positions) to the masks' size."""
        return values.reshape(len(values), *self._size)


@dataclass(frozen=True, eq=False)
class Sampled:
    """Estimates from a number of samples, for each of T targets.

    Attributes
    ----------
    value : ndarray (T, *size)
        In float64.
    standard_error : ndarray (T, *size)
        Of each value, in the same unit.
    samples : ndarray of int (T,)
        From how many.
    history : ndarray (T, 32, 2)
        At each check the number of samples, and the largest standard error by the range of the map;
        NaN after the last.
    """

    value: Array
    standard_error: Array
    samples: Array
    history: Array


def check_points(samples: int) -> tuple[int, ...]:
    """Say after how many samples an estimate is looked at.

    Parameters
    ----------
    samples : int
        The largest number.

    Returns
    -------
    tuple of int
        At most 32, from 16 on, each about the same factor above the one before; the last is
        `samples`.

    Examples
    --------
    >>> check_points(20)
    (16, 17, 18, 19, 20)
    """
    points = np.geomspace(min(_FIRST, samples), samples, POINTS)
    return tuple(np.unique(np.rint(points).astype(int)).tolist())


def relative_error(value: Array, standard_error: Array) -> Array:
    """Give the largest standard error of each map by the map's range.

    Parameters
    ----------
    value, standard_error : ndarray (T, *size)
        The maps.

    Returns
    -------
    ndarray (T,)
        0 for a map that is known exactly, also if it is constant; infinite for one that is not
        finite.
    """
    axes = tuple(range(1, value.ndim))
    largest = standard_error.max(axes)
    extent = value.max(axes) - value.min(axes)
    relative = np.where(largest == 0, 0, np.inf)
    return np.divide(largest, extent, out=relative, where=extent > 0)


def sampled(
    batches: Iterable[tuple[Array, Array]],
    estimate: Estimate,
    samples: int,
    tolerance: float | None = None,
) -> Sampled:
    """Let estimates run, and stop each as soon as it is stable.

    They are looked at after given numbers of samples (`check_points`), wherever batches end, so
    that the result does not depend on the size of the batches.  An estimate is stable when its
    largest standard error is at most `tolerance` times the range of its map, not before 100
    samples; it then stays as it is while those of other targets run on.

    Parameters
    ----------
    batches : iterable of (masks, scores)
        As `cnnviz_core.perturb.scored_batches` yields them; no more are asked for than needed.
    estimate : Estimate
        Fresh.
    samples : int
        How many there are.
    tolerance : float, optional
        If left out, nothing stops before the end.

    Returns
    -------
    Sampled

    Raises
    ------
    ArrayError
        If fewer samples came.
    """
    points = check_points(samples)
    found: Sampled | None = None
    for k, _ in enumerate(_looks(batches, estimate, points)):
        value, error = estimate.value, estimate.standard_error
        if found is None:
            history = np.full((len(value), POINTS, 2), np.nan)
            found = Sampled(value.copy(), error.copy(), np.zeros(len(value), int), history)
            runs = np.ones(len(value), bool)
        relative = relative_error(value, error)
        found.value[runs], found.standard_error[runs] = value[runs], error[runs]
        found.samples[runs] = points[k]
        found.history[runs, k] = np.stack(np.broadcast_arrays(points[k], relative), -1)[runs]
        if tolerance is not None and points[k] >= LEAST:
            runs &= relative > tolerance
        if points[k] == samples or not runs.any():
            return found
    raise ArrayError(
        f"fewer than {samples} samples came", str(samples), "count them, and pass their number"
    )


def _looks(
    batches: Iterable[tuple[Array, Array]], estimate: Estimate, points: Sequence[int]
) -> Iterator[None]:
    """Feed an estimate, and pause whenever it has reached one of the points."""
    done = 0
    for masks, scores in batches:
        within = [p - done for p in points if done < p <= done + len(masks)]
        start = 0
        for stop in within:
            estimate.add(masks[start:stop], scores[:, start:stop])
            yield
            start = stop
        if start < len(masks):
            estimate.add(masks[start:], scores[:, start:])
        done += len(masks)


def convergence(history: Array, names: Sequence[str] = ()) -> Curves:
    """Show how sampled maps became stable.

    Parameters
    ----------
    history : ndarray (N, K, 2)
        A sampling method's ``extras["history"]``: numbers of samples and the largest standard error
        by the map's range, NaN after the last.
    names : sequence of str, optional
        What the N maps are called; numbered if left out.

    Returns
    -------
    Curves
        A curve for each map, in percent of its range over the number of samples.

    Raises
    ------
    ArrayError
        If it is no such history, or the names are not as many.
    """
    history = np.asarray(history)
    names = tuple(names) or tuple(f"map {i + 1}" for i in range(len(history)))
    if history.ndim != 3 or history.shape[2] != 2 or len(names) != len(history):
        raise ArrayError(
            f"a history of the shape {history.shape} with {len(names)} names was given",
            "(N, K, 2), and N names or none",
            'pass extras["history"] of a method that samples',
        )
    reached = np.isfinite(history[..., 0]).any(0)
    counts, relative = np.moveaxis(history[:, reached], -1, 0)
    percent = np.where(np.isfinite(relative), 100 * relative, np.nan)
    return Curves(
        np.nanmax(counts, 0),
        tuple(Line(name, y) for name, y in zip(names, percent, strict=True)),
        title="How the maps became stable",
        x_title="samples",
        y_title="largest standard error in % of the map's range",
    )
