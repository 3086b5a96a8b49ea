"""Estimates from random masks: their standard errors, when to stop, and how they converge.

`ProductMean` and `RatioMean` estimate the mean score of a sample while a position is shown:
E[f M(p)] / E[M(p)], for a score f under a random mask M.  They keep moments, never the masks; all
sums are in float64.  `Refit` keeps the scores, for what is fitted to all of them at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Final, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from cnnviz_core.errors import ArrayError
from cnnviz_core.exhibits import Curves, Line
from cnnviz_core.mask_forms import MaskForm, NumPyArrays, draw
from cnnviz_core.model import Array
from cnnviz_core.parameters import Help, Range

__all__ = [
    "LEAST",
    "POINTS",
    "Estimate",
    "ProductMean",
    "RatioMean",
    "Refit",
    "Sampled",
    "Tolerance",
    "by_target",
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

Tolerance: TypeAlias = Annotated[
    float | None,
    Range(0, open_low=True),
    Help("stop at this standard error, as a share of the map's range; none: take all samples"),
]
"""The parameter of a method that may stop before it has taken all its samples."""


class Estimate(Protocol):
    """A running estimate for each of T targets; any class with these members will do."""

    def add(self, masks: MaskForm, scores: Array) -> None:
        """Take in what was found under some masks.

        Parameters
        ----------
        masks : MaskForm
            The masks (n, *size).
        scores : ndarray (T, n)
            Each target's score under each of them.
        """
        ...

    def found(self) -> Mapping[str, Array]:
        """Say what is known so far.

        Returns
        -------
        mapping of str to ndarray (T, ...)
            In float64: "value" (T, *size), the estimates; "standard_error" of the same shape,
            infinite or NaN where too little is known; and whatever else there is to say.
        """
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

    def add(self, masks: MaskForm, scores: Array) -> None:
        """Take in what was found under some masks; see `Estimate.add`."""
        m = draw(masks, NumPyArrays(scores.dtype)).astype(np.float64)
        products = scores.reshape(*scores.shape, *(1 for _ in m.shape[1:])) * (m / self._expected)
        new, total = len(m), self._count + len(m)
        mean = products.mean(1)
        gap = mean - self._mean
        within = np.square(products - mean[:, None]).sum(1)
        self._squares = self._squares + within + gap**2 * (self._count * new / total)
        self._mean = self._mean + gap * (new / total)
        self._count = total

    def found(self) -> Mapping[str, Array]:
        """Say what is known so far; see `Estimate.found`."""
        error = np.full(self._mean.shape, np.inf)
        if self._count > 1:
            error = np.sqrt(self._squares / (self._count * (self._count - 1)))
        return {"value": self._mean, "standard_error": error}


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

    def add(self, masks: MaskForm, scores: Array) -> None:
        """Take in what was found under some masks; see `Estimate.add`."""
        if self._count == 0:
            self._size = masks.shape[1:]
            self._shift = scores[:, :1].astype(np.float64)
        f = scores - self._shift
        m = draw(masks, NumPyArrays(scores.dtype)).reshape(len(masks), -1).astype(np.float64)
        self._score = self._score + f.sum(1, keepdims=True)
        self._m = self._m + m.sum(0)
        self._fm = self._fm + f @ m
        m *= m
        self._mm = self._mm + m.sum(0)
        self._fmm = self._fmm + f @ m
        self._ffmm = self._ffmm + f**2 @ m
        self._count += len(m)

    def found(self) -> Mapping[str, Array]:
        """Say what is known so far; see `Estimate.found`."""
        ratio = self._ratio()
        shown = {"value": self._shift + ratio, "standard_error": self._error(ratio)}
        return {name: values.reshape(-1, *self._size) for name, values in shown.items()}

    def _error(self, ratio: Array) -> Array:
        """Give the ratios' standard errors."""
        squares = self._ffmm - 2 * ratio * self._fmm + ratio**2 * self._mm
        known = self._m > 0 if self._count > 1 else np.zeros(self._m.shape, bool)
        free = self._count / max(1, self._count - 1)
        error = np.full(ratio.shape, np.inf)
        np.divide(np.sqrt(free * squares.clip(0)), self._m, out=error, where=known)
        return error

    def _ratio(self) -> Array:
        """Give the ratios of the shifted scores: (T, positions)."""
        mean = np.broadcast_to(self._score / self._count, self._fm.shape).copy()
        return np.divide(self._fm, self._m, out=mean, where=self._m > 0)


class Refit:
    """What is fitted anew to all scores so far, whenever it is asked for.

    The fit knows the masks in their order, so that only the scores are kept.

    Parameters
    ----------
    fit : callable
        Of the scores (T, n) under the first n masks, in float64, makes what `Estimate.found` gives.
    """

    def __init__(self, fit: Callable[[Array], Mapping[str, Array]]) -> None:
        self._fit = fit
        self._scores: list[Array] = []

    def add(self, masks: MaskForm, scores: Array) -> None:
        """Take in what was found under some masks; see `Estimate.add`."""
        self._scores.append(scores.astype(np.float64))

    def found(self) -> Mapping[str, Array]:
        """Say what is known so far; see `Estimate.found`."""
        return self._fit(np.concatenate(self._scores, axis=1))


def by_target(
    fit: Callable[[Array], Mapping[str, Array]],
) -> Callable[[Array], Mapping[str, Array]]:
    """Make of a fit to one target's scores the fit to those of several that `Refit` takes.

    Parameters
    ----------
    fit : callable
        Of scores (n,) makes arrays (...), by name.

    Returns
    -------
    callable
        Of scores (T, n) makes arrays (T, ...), by name.
    """

    def fit_all(scores: Array) -> Mapping[str, Array]:
        fits = [fit(of_one) for of_one in scores]
        return {name: np.array([each[name] for each in fits]) for name in fits[0]}

    return fit_all


@dataclass(frozen=True, eq=False)
class Sampled:
    """Estimates from a number of samples, for each of T targets.

    Attributes
    ----------
    found : mapping of str to ndarray (T, ...)
        What the estimate said of each target when that stopped; see `Estimate.found`.
    samples : ndarray of int (T,)
        From how many.
    history : ndarray (T, 32, 2)
        At each check the number of samples, and the largest standard error by the range of the map,
        infinite where it is not known; NaN after the last.
    """

    found: Mapping[str, Array]
    samples: Array
    history: Array

    def named(self, dtype: npt.DTypeLike = np.float64) -> dict[str, Array]:
        """Give everything by its name.

        Parameters
        ----------
        dtype : dtype
            The floating-point type of what was found.

        Returns
        -------
        dict of str to ndarray (T, ...)
            What was found, "samples" and "history".
        """
        found = {name: values.astype(dtype) for name, values in self.found.items()}
        return {**found, "samples": self.samples, "history": self.history}


def check_points(samples: int, first: int = _FIRST, step: int = 1) -> tuple[int, ...]:
    """Say after how many samples an estimate is looked at.

    Parameters
    ----------
    samples : int
        The largest number.
    first : int
        The smallest one.
    step : int
        Of what all but the last are multiples.

    Returns
    -------
    tuple of int
        At most 32, each about the same factor above the one before; the last is `samples`.

    Examples
    --------
    >>> check_points(20)
    (16, 17, 18, 19, 20)
    >>> check_points(100, step=20)
    (20, 40, 60, 80, 100)
    """
    points = np.rint(np.geomspace(min(first, samples), samples, POINTS) / step) * step
    points[-1] = samples
    return tuple(np.unique(points.clip(step, samples).astype(int)).tolist())


def relative_error(value: Array, standard_error: Array) -> Array:
    """Give the largest standard error of each map by the map's range.

    Parameters
    ----------
    value, standard_error : ndarray (T, *size)
        The maps.

    Returns
    -------
    ndarray (T,)
        0 for a map that is known exactly, also if it is constant; infinite for one of which not
        everything is known and finite.
    """
    axes = tuple(range(1, value.ndim))
    largest = standard_error.max(axes)
    with np.errstate(invalid="ignore"):  # of infinities
        extent = value.max(axes) - value.min(axes)
    known = np.isfinite(largest) & np.isfinite(extent)
    relative = np.where(known & (largest == 0), 0, np.inf)
    return np.divide(largest, extent, out=relative, where=known & (extent > 0))


def sampled(
    batches: Iterable[tuple[MaskForm, Array]],
    estimate: Estimate,
    points: Sequence[int],
    tolerance: float | None = None,
    *,
    each: int = 1,
    least: int = LEAST,
) -> Sampled:
    """Let estimates run, and stop each as soon as it is stable.

    They are looked at after given numbers of samples, wherever batches end, so that the result does
    not depend on the size of the batches.  An estimate is stable when its largest standard error is
    at most `tolerance` times the range of its map; it then stays as it is while those of other
    targets run on.

    Parameters
    ----------
    batches : iterable of (masks, scores)
        As `cnnviz_core.perturb.scored_batches` yields them; no more are asked for than needed.
    estimate : Estimate
        Fresh.
    points : sequence of int
        After how many samples it is looked at, in order, 32 times at most; see `check_points`.
    tolerance : float, optional
        If left out, nothing stops before the end.
    each : int
        How many masks make a sample.
    least : int
        The samples before which nothing is stopped.

    Returns
    -------
    Sampled

    Raises
    ------
    ArrayError
        If fewer samples came.
    """
    found: Sampled | None = None
    for k, _ in enumerate(_looks(batches, estimate, [each * point for point in points])):
        now = estimate.found()
        relative = relative_error(now["value"], now["standard_error"])
        if found is None:
            runs = np.ones(len(relative), bool)
            history = np.full((len(runs), POINTS, 2), np.nan)
            first = {name: values.copy() for name, values in now.items()}
            found = Sampled(first, np.zeros(len(runs), int), history)
        for name, values in now.items():
            found.found[name][runs] = values[runs]
        found.samples[runs] = points[k]
        found.history[runs, k] = np.stack(np.broadcast_arrays(points[k], relative), -1)[runs]
        if tolerance is not None and points[k] >= least:
            runs &= relative > tolerance
        if points[k] == points[-1] or not runs.any():
            return found
    needed = each * points[-1]
    raise ArrayError(
        f"fewer than {needed} masks came", str(needed), "count them, and pass their number"
    )


def _looks(
    batches: Iterable[tuple[MaskForm, Array]], estimate: Estimate, points: Sequence[int]
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
    counts = np.unique(history[..., 0][np.isfinite(history[..., 0])])
    return Curves(
        counts,
        tuple(Line(name, _percent(one, counts)) for name, one in zip(names, history, strict=True)),
        title="How the maps became stable",
        x_title="samples",
        y_title="largest standard error in % of the map's range",
    )


def _percent(history: Array, counts: Array) -> Array:
    """Read one map's curve (K, 2) at numbers of samples; between two checks it is straight."""
    at, relative = history[np.isfinite(history[:, 0])].T
    known = np.isfinite(relative)
    if not known.any():
        return np.full(len(counts), np.nan)
    curve = np.interp(counts, at[known], 100 * relative[known], left=np.nan, right=np.nan)
    return np.where(np.isin(counts, at[~known]), np.nan, curve)
