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
from cnnviz_core.model import Array
from cnnviz_core.progress import advance

__all__ = ["LEVEL", "Resampling", "Score", "count_measured", "matrix", "scores_of"]

LEVEL: Final = 0.95
"""How often an interval is to hold the number."""


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
    >>> [rows.tolist() for rows in draws] == [rows.tolist() for rows in draws]
    True
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

    def __iter__(self) -> Iterator[Array]:
        rng = np.random.default_rng(self.seed)
        for _ in range(self.times):
            yield rng.integers(0, self.pictures, self.pictures)


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
    for method, own in records.items():
        values = dict(measure.metric.summarise(own))
        drawn = np.full((len(draws), len(values)), np.nan)
        for i, rows in enumerate(draws):
            again = measure.metric.summarise({name: array[rows] for name, array in own.items()})
            drawn[i] = list(again.values())
            advance(f"resampling {measure.label} of {method}", i + 1, len(draws))
        samples[method] = drawn[:, 0]
        pictures = count_measured(own)
        for k, (name, value) in enumerate(values.items()):
            low, high = _interval(drawn[:, k])
            found.append(
                Score(
                    method, measure.label, name, k == 0, float(value), low, high, pictures=pictures
                )
            )
    return _ranked(found, samples, measure.higher_is_better)


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
