"""ROAD: is a picture recognised as its pixels are removed in the order of a map, and imputed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Final, Literal, TypeAlias

import numpy as np

from cnnviz_core.exhibits import Curves, Exhibit, Line
from cnnviz_core.metric import Annotation, Explained
from cnnviz_core.model import LOGITS, Array, Model
from cnnviz_core.parameters import Help, Range
from cnnviz_core.perturb import score_masked
from cnnviz_core.targets import ClassProbability, ClassScore, Target
from cnnviz_metrics._judging import ScoreOf, each_map, judged
from cnnviz_metrics._rows import Resampled, counted, mean, measured
from cnnviz_metrics.imputation import LinearImputation
from cnnviz_metrics.pixel_order import OrderMasks

__all__ = ["ROAD", "Least", "kept_counts"]

Least: TypeAlias = Literal["removed", "kept"]
"""Of what share the curve of the least relevant pixels tells: of those that are removed, as the
paper defines it, or of those that are kept, as the code published with it does."""

_ORDERS: Final = ("most_first", "least_first")


def kept_counts(pixels: int, fractions: int = 9, least: Least = "removed") -> tuple[Array, Array]:
    """Give how many pixels are kept, those a map ranks highest first removed, and last.

    Parameters
    ----------
    pixels : int
        How many there are.
    fractions : int
        For how many shares, evenly spaced between 0 and 1 and without these.
    least : {"removed", "kept"}
        Whether a share, where the highest are removed last, is that of the pixels removed, or kept.

    Returns
    -------
    most_first, least_first : ndarray (fractions,) of int64
        How many are kept at each share.

    Examples
    --------
    >>> [counts.tolist() for counts in kept_counts(10, 4)]
    [[8, 6, 4, 2], [8, 6, 4, 2]]
    >>> kept_counts(10, 4, "kept")[1].tolist()
    [2, 4, 6, 8]
    """
    removed = np.arange(1, fractions + 1) * pixels // (fractions + 1)
    return pixels - removed, removed if least == "kept" else pixels - removed


@dataclass(frozen=True)
class _Recognised:
    """Whether a class has the highest score: 1, or 0; of equal scores the lower class wins.

    NaN where a sample has more than one score for each class.
    """

    index: int
    of: ClassVar[str] = LOGITS

    def score(self, value: Array) -> float:
        """Tell whether the class has the highest score."""
        return float(value.argmax() == self.index) if value.ndim == 1 else float("nan")

    def gradient(self, value: Array) -> Array:
        """Return zeros, for it is a step."""
        return np.zeros_like(value)

    def resolve(self, value: Array) -> Target:
        """Return the target itself."""
        return self


def _class_of(annotation: Annotation, target: Target) -> int | None:
    """Give a picture's class, or else the one that was explained; None if neither is known."""
    if annotation.label is not None:
        return annotation.label
    return target.index if isinstance(target, ClassScore | ClassProbability) else None


@dataclass(frozen=True)
class ROAD(Resampled):
    """How much sooner a class is lost if a map's highest pixels are removed first than if last.

    The map is taken as its method shows it, at the input's size.  For each of several shares the
    picture is made without this share of its pixels, the highest first and the lowest first, and
    what is missing is imputed; see `cnnviz_metrics.imputation.LinearImputation`.  The class that
    must be recognised is the picture's own, or the explained one where that is not known.  Of
    equal values in a map those count as higher that come first row by row: the code published with
    the paper orders them at random.  A map that is not finite is left out.

    Parameters
    ----------
    fractions : int
        For how many shares, evenly spaced between 0 and 1 and without these: 9 are 0.1 to 0.9.
    noise : float
        The standard deviation of the noise on what is imputed, in the range that the network is
        given.  The published numbers add it to pictures in [0, 1].
    least : {"removed", "kept"}
        Of what share the curve tells whose lowest pixels are removed first: of those removed, as
        the paper defines it, or of those kept, as the code published with it does.  The means over
        the shares are the same but for rounding.
    score : {"probability", "target"}
        Whether the probability of the explained class is scored, or the explained score itself.

    References
    ----------
    Rong et al., "A consistent and efficient evaluation strategy for attribution methods", ICML
    2022.
    """

    fractions: Annotated[int, Range(1), Help("for how many shares of the pixels")] = 9
    noise: Annotated[
        float, Range(0), Help("standard deviation of the noise, in the network's value range")
    ] = 0.01
    least: Annotated[
        Least, Help("the share that least-first curves tell of: removed (paper) or kept (its code)")
    ] = "removed"
    score: ScoreOf = "probability"

    needs: ClassVar[frozenset[str]] = frozenset()

    def measure(self, explained: Explained) -> Mapping[str, Array]:
        """Measure the maps of a batch.

        Parameters
        ----------
        explained : Explained
            The batch, of pictures.

        Returns
        -------
        mapping of str to ndarray
            ``recognised`` (N, 2, F), whether the class has the highest score (1, or 0; NaN for
            targets that are about no class), and ``score`` (N, 2, F); the highest pixels removed
            first, and the lowest, each for F shares.

        Raises
        ------
        ArrayError
            If the samples are no pictures.
        """
        shape = (len(explained), len(_ORDERS), self.fractions)
        recognised, scores = np.full(shape, np.nan), np.full(shape, np.nan)
        targets = judged(explained, self.score)
        for row, map, what in each_map(explained.shown, "ROAD"):
            asked: list[Target] = [targets[row]]
            known = _class_of(explained.annotations[row], explained.maps.targets[row])
            if known is not None and targets[row].of == LOGITS:
                asked.append(_Recognised(known))
            for order, found in enumerate(self._scored(explained, row, map, asked, what)):
                scores[row, order] = found[0]
                if len(found) > 1:
                    recognised[row, order] = found[1]
        return {"recognised": recognised, "score": scores}

    def _scored(
        self, explained: Explained, row: int, map: Array, targets: list[Target], what: str
    ) -> list[Array]:
        """Score a picture at every share (T, F), the highest pixels removed first, and last."""
        sample = explained.x[row]
        fill = LinearImputation(sample, self.noise, explained.seed)
        kept_last, kept_first = kept_counts(map.size, self.fractions, self.least)
        found = []
        for keep, counts in ((False, map.size - kept_last), (True, kept_first)):
            scores = score_masked(
                explained.model,
                sample,
                targets,
                OrderMasks(map, np.sort(counts), keep),
                fill,
                batch_size=explained.batch_size,
                what=f"{what}, {'least' if keep else 'most'} relevant first",
            )
            found.append(scores if counts[0] <= counts[-1] else scores[:, ::-1])
        return found

    def resample(self, records: Mapping[str, Array], counts: Array) -> Mapping[str, Array]:
        """Sum up data sets in which pictures stand several times; see `resampled`.

        Parameters
        ----------
        records : mapping of str to ndarray
            Those of any number of pictures.
        counts : ndarray (R, N)
            How often each picture stands in each data set.

        Returns
        -------
        mapping of str to ndarray (R,)
            Means over the pictures and the shares: ``accuracy_gap``, by how much more often the
            class is recognised where the lowest pixels are removed first than where the highest
            are, in [-1, 1]; ``accuracy_most_first`` and ``accuracy_least_first``, between which
            this is the gap; and the same of the score, ``score_gap``, ``score_most_first`` and
            ``score_least_first``.
        """
        found = {}
        for name, record in (("accuracy", "recognised"), ("score", "score")):
            known, values = counted(counts, records[record])
            most, least = mean(known, values.mean(axis=2)).T
            found[f"{name}_gap"] = least - most
            found[f"{name}_most_first"], found[f"{name}_least_first"] = most, least
        return found

    def curves(self, records: Mapping[str, Array]) -> tuple[Exhibit, ...]:
        """Draw accuracy, and the score, over the share of pixels that are removed."""
        probable = self.score == "probability"
        (recognised,), (scores,) = measured(records["recognised"]), measured(records["score"])
        drawn = (
            (recognised, "share of pictures recognised", False, (0.0, 1.0)),
            (
                scores,
                "probability" if probable else "score",
                True,
                (0.0, 1.0) if probable else None,
            ),
        )
        return tuple(
            self._drawn(values, title, spread, y_range)
            for values, title, spread, y_range in drawn
            if len(values)
        )

    def _drawn(
        self, values: Array, y_title: str, spread: bool, y_range: tuple[float, float] | None
    ) -> Curves:
        """Draw the means of values (N, 2, F), with their standard deviations where asked for."""
        names = ("most relevant first", "least relevant first")
        lines = [
            Line(name, found.mean(axis=0), found.std(axis=0) if spread else None)
            for name, found in zip(names, np.moveaxis(values, 1, 0), strict=True)
        ]
        share = "removed" if self.least == "removed" else "removed (least first: kept)"
        return Curves(
            np.arange(1, self.fractions + 1) / (self.fractions + 1),
            tuple(lines),
            title=f"ROAD: {y_title}",
            x_title=f"share of the pixels {share}",
            y_title=y_title,
            y_range=y_range,
        )

    def passes(self, model: Model, x: Array) -> int:
        """Give the forward passes for one map."""
        return len(_ORDERS) * self.fractions
