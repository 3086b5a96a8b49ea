"""Numbers of a data set, and how sure they are: the bootstrap over its pictures."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from cnnviz.evaluation.asking import Measure
from cnnviz.tables import Table
from cnnviz_core.errors import ParameterError
from cnnviz_core.metric import resampled
from cnnviz_core.model import Array
from cnnviz_core.progress import advance

__all__ = ["LEVEL", "Resampling", "Score", "count_measured", "matrix", "scores_of"]

LEVEL: Final = 0.95
"""How often an interval is to hold the number."""

_HELD: Final = 2**22
"""How many numbers of how often a picture was drawn are held at once: 32 MB of them."""


@dataclass(frozen=True)
class Score:
    """One number that a metric gives of a method.

    Attributes
    ----------
    method, metric : str
        Their labels.
    name : str
        What the metric calls the number.
    headline : bool
        Whether it is the metric's most important number.
    value : float
        Of all pictures; NaN where nothing could be measured.
    low, high : float
        The ends of the 95 % confidence interval, by resampling the pictures; NaN where nothing was
        resampled.
    pictures : int
        How many pictures were measured.
    best : bool
        Whether no other method's headline is better.
    close : bool
        Whether the best method's headline is not surely better: the 95 % interval of the
        difference, over the same resampled pictures, holds zero.
    """

    method: str
    metric: str
    name: str
    headline: bool
    value: float
    low: float = math.nan
    high: float = math.nan
    pictures: int = 0
    best: bool = False
    close: bool = False

    def __str__(self) -> str:
        if math.isnan(self.value):
            return "-"
        if math.isnan(self.low):
            return f"{self.value:.3f}"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True)
class Resampling:
    """Pictures drawn with replacement, again and again: the same ones each time it is gone through.

    Attributes
    ----------
    pictures : int
        How many there are.
    times : int
        How often as many are drawn.
    seed : int
        Of the draws.

    Raises
    ------
    ParameterError
        If `times` is negative.

    References
    ----------
    Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13: the interval of
    percentiles.

    Examples
    --------
    >>> draws = Resampling(pictures=4, times=2, seed=0)
    >>> (counts,) = draws.counts()
    >>> counts.sum(axis=1).tolist()
    [4.0, 4.0]
    """

    pictures: int
    times: int
    seed: int

    def __post_init__(self) -> None:
        if self.times < 0:
            raise ParameterError(
                f"resamples is {self.times}", "0 or more", "pass resamples=0 for no intervals"
            )

    def __len__(self) -> int:
        return self.times

    def counts(self) -> Iterator[Array]:
        """Draw, as many times at once as take little memory.

        Yields
        ------
        ndarray (R, pictures) of float64
            How often each picture was drawn, R times; `times` in all.
        """
        rng = np.random.default_rng(self.seed)
        at_once = max(1, _HELD // max(1, self.pictures))
        for start in range(0, self.times, at_once):
            counts = np.empty((min(at_once, self.times - start), self.pictures))
            for row in counts:
                drawn = rng.integers(0, self.pictures, self.pictures)
                row[:] = np.bincount(drawn, minlength=self.pictures)
            yield counts


def count_measured(records: Mapping[str, Array]) -> int:
    """Count the pictures on which there was something to measure.

    Parameters
    ----------
    records : mapping of str to ndarray (N, ...)
        Rows of NaN where there was not.

    Returns
    -------
    int
    """
    if not records:
        return 0
    first = next(iter(records.values()))
    there = ~np.isnan(first.astype(np.float64)).reshape(len(first), -1).all(axis=1)
    return int(there.sum())


def scores_of(
    measure: Measure, records: Mapping[str, Mapping[str, Array]], draws: Resampling
) -> list[Score]:
    """Sum up a metric for all methods, and compare them.

    Parameters
    ----------
    measure : Measure
        The metric.
    records : mapping of str to mapping of str to ndarray (N, ...)
        By method; all of the same pictures.
    draws : Resampling
        Of the same pictures.

    Returns
    -------
    list of Score
        By method, the headline first.
    """
    found: list[Score] = []
    samples: dict[str, Array] = {}
    drawn = _drawn(measure, records, draws)
    for method, own in records.items():
        pictures = count_measured(own)
        for k, (name, value) in enumerate(measure.metric.summarise(own).items()):
            sample = drawn[method].get(name, np.full(len(draws), np.nan))
            low, high = _interval(sample)
            found.append(
                Score(
                    method, measure.label, name, k == 0, float(value), low, high, pictures=pictures
                )
            )
            samples.setdefault(method, sample)
    return _ranked(found, samples, measure.higher_is_better)


def _drawn(
    measure: Measure, records: Mapping[str, Mapping[str, Array]], draws: Resampling
) -> dict[str, dict[str, Array]]:
    """Give the numbers (times,) of every method of the same resampled data sets, by their names."""
    drawn: dict[str, dict[str, Array]] = {method: {} for method in records}
    done = 0
    for counts in draws.counts():
        part = slice(done, done + len(counts))
        for method, own in records.items():
            for name, values in resampled(measure.metric, own, counts).items():
                drawn[method].setdefault(name, np.full(len(draws), np.nan))[part] = values
        done = part.stop
        advance(f"resampling {measure.label}", done, len(draws))
    return drawn


def _interval(drawn: Array) -> tuple[float, float]:
    """Give the percentiles between which numbers lie."""
    known = drawn[np.isfinite(drawn)]
    if not len(known):
        return math.nan, math.nan
    rest = (1 - LEVEL) / 2
    low, high = np.quantile(known, [rest, 1 - rest])
    return float(low), float(high)


def _ranked(
    found: list[Score], samples: Mapping[str, Array], higher_is_better: bool | None
) -> list[Score]:
    """Mark the best method, and those that may be as good."""
    heads = {s.method: s.value for s in found if s.headline and math.isfinite(s.value)}
    if higher_is_better is None or len(heads) < 2:
        return found
    top = (max if higher_is_better else min)(heads.values())
    first = next(method for method, value in heads.items() if value == top)

    def ranked(score: Score) -> Score:
        if not score.headline or score.method not in heads:
            return score
        if score.value == top:
            return replace(score, best=True)
        low, high = _interval(samples[first] - samples[score.method])
        return replace(score, close=low <= 0 <= high)

    return [ranked(score) for score in found]


def matrix(scores: Sequence[Score], methods: Sequence[str], metrics: Sequence[str]) -> Table[Score]:
    """Print scores as a table of methods and metrics.

    Parameters
    ----------
    scores : sequence of Score
        All of them.
    methods, metrics : sequence of str
        The labels, in their order.

    Returns
    -------
    Table of Score
        The records are all scores; what is printed are the headlines with their intervals: "*"
        marks the best of a metric, "~" those that may be as good.
    """
    heads: dict[tuple[str, str], Any] = {(s.method, s.metric): s for s in scores if s.headline}

    def cell(method: str, metric: str) -> str:
        score = heads.get((method, metric))
        if score is None:
            return "-"
        return f"{score}{' *' if score.best else ' ~' if score.close else ''}"

    cells = [(method, *(cell(method, metric) for metric in metrics)) for method in methods]
    return Table(scores, ("method", *metrics), cells)
