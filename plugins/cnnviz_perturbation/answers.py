"""Answers that a sample's cells can keep or change, and the search for the cells that do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, TypeAlias

import numpy as np

from cnnviz_core.errors import TargetError
from cnnviz_core.explainer import Maps
from cnnviz_core.fills import Fill
from cnnviz_core.model import LOGITS, Array, Model
from cnnviz_core.pace import BatchSize
from cnnviz_core.scoring import score
from cnnviz_core.targets import ClassProbability, ClassScore, Target
from cnnviz_perturbation.cells import CellScores, each_scored

__all__ = [
    "Answer",
    "Criterion",
    "Lead",
    "Region",
    "answers",
    "judged",
    "one_fewer",
    "pruned",
    "region_maps",
]

Criterion: TypeAlias = Literal["score", "class"]
"""When an answer stays: "score", while the target's score keeps a share of its distance from the
score of nothing but the fill; "class", while no other class scores more."""


@dataclass(frozen=True)
class Lead:
    """The score of a class less that of the best other one; not negative where it is predicted.

    Attributes
    ----------
    index : int
        The class, counted from 0.
    """

    index: int
    of: ClassVar[str] = LOGITS

    def score(self, value: Array) -> float:
        """Return by how much the class leads."""
        return float(value[self.index] - value[self._rival(value)])

    def gradient(self, value: Array) -> Array:
        """Return 1 at the class, -1 at the best other one."""
        gradient = np.zeros_like(value)
        gradient[[self.index, self._rival(value)]] = 1, -1
        return gradient

    def resolve(self, value: Array) -> Lead:
        """Return the target itself."""
        return self

    def _rival(self, value: Array) -> int:
        """Give the best other class."""
        if value.ndim != 1 or len(value) < 2:
            raise TargetError(
                f"the output of a sample has the shape {value.shape}",
                "scores of two classes or more",
                "use criterion='score'",
            )
        others = value.copy()
        others[self.index] = -np.inf
        return int(others.argmax())


def judged(targets: Sequence[Target], criterion: Criterion) -> list[Target]:
    """Give what is to be scored: the targets, and what their answers are judged by besides.

    Parameters
    ----------
    targets : sequence of Target
        Resolved.
    criterion : {"score", "class"}
        When an answer stays.

    Returns
    -------
    list of Target
        The targets; with the criterion "class" also a `Lead` for each, in their order.

    Raises
    ------
    TargetError
        If the criterion is "class", and a target is not about one.
    """
    if criterion == "score":
        return [*targets]
    leads: list[Target] = []
    for target in targets:
        if not isinstance(target, (ClassScore, ClassProbability)):
            raise TargetError(
                f"criterion='class' was asked for with the target {target}",
                "the score or the probability of one class",
                "use criterion='score'",
            )
        leads.append(Lead(target.index))
    return [*targets, *leads]


@dataclass(frozen=True, eq=False)
class Answer:
    """What one target makes of subsets of a sample's cells.

    Attributes
    ----------
    score : callable
        From which cells are kept, an ndarray of bool (M, K), to the score (M,) that it is judged
        by.
    level : float
        The answer stays while that score, times the sign, is not below this.
    sign : float
        1, or -1 where the sample scores less than the fill; 0 where it does not give the answer to
        begin with.
    """

    score: Callable[[Array], Array]
    level: float
    sign: float

    def value(self, kept: Array) -> Array:
        """Give what is judged.

        Parameters
        ----------
        kept : ndarray of bool (M, K)
            For each subset, which of the cells are kept.

        Returns
        -------
        ndarray of float64 (M,)
        """
        return self.sign * self.score(kept)


def answers(
    scores: CellScores, number: int, criterion: Criterion, threshold: float
) -> list[Answer]:
    """Give the answers of a sample.

    Parameters
    ----------
    scores : CellScores
        The sample, scored by what `judged` gives.
    number : int
        How many targets there are.
    criterion : {"score", "class"}
        When an answer stays.
    threshold : float
        The share of its distance from that of the fill alone that a score must keep.

    Returns
    -------
    list of Answer
        One for each target.
    """
    nothing, whole = scores.ends()
    if criterion == "class":
        leads = range(number, 2 * number)
        return [Answer(scores.of(c), 0.0, float(whole[c] >= 0)) for c in leads]
    levels = nothing + threshold * (whole - nothing)
    signs = np.sign(whole - nothing)
    return [Answer(scores.of(c), signs[c] * levels[c], signs[c]) for c in range(number)]


class Region(NamedTuple):
    """Cells that a search has found for an answer.

    Attributes
    ----------
    order : ndarray (K,)
        What the map shows of each cell, without the answer's sign.
    cells : ndarray of bool (K,)
        Which cells the region is made of.
    shown : ndarray of bool (K,)
        Which cells are left for the network to judge the region by.
    found : bool
        Whether there is such a region.
    """

    order: Array
    cells: Array
    shown: Array
    found: bool


def region_maps(
    model: Model,
    x: Array,
    targets: Sequence[Target],
    search: Callable[[Answer, int], Region],
    *,
    criterion: Criterion,
    threshold: float,
    cells: int,
    fill: Fill,
    seed: int,
    batch_size: BatchSize,
    what: str,
) -> Maps:
    """Search every sample's cells for the region that an answer is about.

    Parameters
    ----------
    model : Model
        The network.
    x : ndarray (N, *size, C)
        The batch.
    targets : sequence of Target
        One for each sample.
    search : callable
        From an answer and the number of cells to a `Region`.
    criterion, threshold
        See `answers`.
    cells, fill, seed, batch_size, what
        See `cnnviz_perturbation.cells.each_scored`.

    Returns
    -------
    Maps
        With the order of a pixel's cell, times the answer's sign, as raw map (N, *size), and the
        extras "region" (N, *size) of bool, "cells" (N,), how many they are, "score" (N,), the
        target's score on what is shown, and "found" (N,) of bool.

    Raises
    ------
    ArrayError
        If the samples have no axis to cut, or a fill that is an array does not fit them.
    TargetError
        If the criterion is "class", and a target is not about one.
    """
    whole = score(model, x, targets)
    raw = np.zeros(x.shape[:-1], dtype=whole.scores.dtype)
    region = np.zeros(raw.shape, dtype=bool)
    counts, found = np.zeros(len(x), dtype=int), np.zeros(len(x), dtype=bool)
    scores = np.zeros(len(x), dtype=raw.dtype)
    for rows, scored in each_scored(
        model,
        x,
        judged(whole.targets, criterion),
        cells=cells,
        fill=fill,
        seed=seed,
        batch_size=batch_size,
        what=what,
    ):
        asked = answers(scored, len(rows), criterion, threshold)
        for k, (row, answer) in enumerate(zip(rows, asked, strict=True)):
            best = search(answer, scored.number)
            raw[row] = answer.sign * best.order[scored.cells]
            region[row] = best.cells[scored.cells]
            scores[row] = scored(best.shown[None])[0, k]
            counts[row], found[row] = best.cells.sum(), best.found
    extras = {"region": region, "cells": counts, "score": scores, "found": found}
    return Maps(raw=raw, scores=whole.scores, targets=whole.targets, extras=extras)


def pruned(
    value: Callable[[Array], Array], stays: Callable[[Array], Array], members: Array
) -> tuple[list[int], Array]:
    """Remove members of a set, those that matter least first, while its value stays acceptable.

    Each round asks about the removal of each member alone.  Of those whose removal is acceptable
    the ones that leave the largest values are removed together: at most a quarter of the set, and
    half as many again and again where their joint removal is not acceptable.  At the end no single
    member can be removed.

    Parameters
    ----------
    value : callable
        From sets, an ndarray of bool (M, K), to values (M,).
    stays : callable
        Tells of values whether they are acceptable.
    members : ndarray of bool (K,)
        The set to begin with; acceptable.

    Returns
    -------
    removed : list of int
        In the order of removal.
    rest : ndarray of bool (K,)
        Acceptable, and not without any one of its members.

    Notes
    -----
    At most ``n (n + 1) / 2 + log2(n)`` sets are asked about, n the number of members: the number
    that are removed together never grows, so joint removals fail at most ``log2(n)`` times, and one
    that succeeds saves at least a round.
    """
    rest, removed, step = members.copy(), list[int](), len(members)
    while rest.any():
        values = value(one_fewer(rest))
        order = np.argsort(-values, kind="stable")
        free = np.flatnonzero(rest)[order][stays(values[order])]
        if not len(free):
            break
        step = max(1, min(step, int(rest.sum()) // 4))
        while step > 1 and not stays(value(_without(rest, free[:step])[None]))[0]:
            step //= 2
        rest = _without(rest, free[:step])
        removed += free[:step].tolist()
    return removed, rest


def one_fewer(members: Array) -> Array:
    """Give a set without each of its members.

    Parameters
    ----------
    members : ndarray of bool (K,)
        The set.

    Returns
    -------
    ndarray of bool (M, K)
        In the order of its M members.
    """
    inside = np.flatnonzero(members)
    sets: Array = np.repeat(members[None], len(inside), axis=0)
    sets[np.arange(len(inside)), inside] = False
    return sets


def _without(members: Array, which: Array) -> Array:
    """Give a set without some of its members."""
    rest = members.copy()
    rest[which] = False
    return rest
