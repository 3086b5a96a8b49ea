"""KernelSHAP: Shapley values of segments, by a regression on sampled coalitions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb
from typing import Annotated, ClassVar

import numpy as np

from cnnviz_core.explainer import Maps
from cnnviz_core.model import Array, Model
from cnnviz_core.pace import BatchSize
from cnnviz_core.parameters import Help, Range
from cnnviz_core.sampling import LEAST, Refit, Tolerance, check_points, sampled
from cnnviz_core.targets import Target
from cnnviz_perturbation.coalitions import Game, Hidden, Setting, explain_segments
from cnnviz_perturbation.segmenting import Segmentation

__all__ = ["KernelSHAP"]


@dataclass(frozen=True)
class KernelSHAP:
    """Shapley values of a sample's segments, by a regression on sampled coalitions.

    With ``v(S)`` the score of the sample of which only the K segments of a coalition S are shown,
    the values are the coefficients of the linear model of v that minimises the squared error,
    weighted by the Shapley kernel ``(K - 1) / (C(K, |S|) |S| (K - |S|))``, among those that are
    right for no segment and for all.  Fitted to all coalitions, these are the Shapley values.

    Every coalition is scored together with its complement.  From the smallest on, the sizes of
    coalitions are enumerated as long as the budget has room for all of a size within its share of
    the kernel's weight; of the other sizes coalitions are drawn with the kernel's probabilities.
    So all are enumerated where the budget allows, and the values always sum to the score of the
    whole sample less that of the fill alone.

    What is enumerated is scored first, then what is drawn, in the order in which it was drawn.  So
    a run that stops early has still enumerated what the whole budget has room for, which is never
    more than its share of the kernel's weight, and is what a run with fewer draws would have been.

    Parameters
    ----------
    segments : int
        How many segments are wanted.
    segmentation : {"slic", "felzenszwalb", "quickshift", "grid"} or ndarray of int
        How a sample is divided, or the number of each pixel's segment.
    samples : int
        How many coalitions may be scored, none and all of the segments among them.  ``2**K`` and
        more give the exact values of K segments.  With but a few times K some values are not
        determined; of the solutions that with the least squared values is given.
    fill : float, "mean", "blur", "noise", "segment-mean" or ndarray
        What is shown in the place of a segment: a value in the network's own input range, the
        sample's mean colour, the sample blurred, noise of its channels' mean and spread, the
        segment's own mean colour, or an array that broadcasts to a sample.
    tolerance : float or None
        Stop as soon as the largest standard error of a map is at most this share of the map's
        range, and not before 100 samples, or 50 pairs, were drawn; None takes all samples.
    seed : int
        Of all draws.  Every sample of a batch gets the same ones.
    batch_size : int or "auto"
        How many coalitions go through the network at once; "auto" measures what pays.

    References
    ----------
    Lundberg & Lee, "A unified approach to interpreting model predictions", NeurIPS 2017, theorem 2.
    Covert & Lee, "Improving KernelSHAP: practical Shapley value estimation using linear
    regression", AISTATS 2021, section 4, for the pairs.
    """

    segments: Annotated[int, Range(1), Help("segments wanted")] = 50
    segmentation: Annotated[
        Segmentation, Help("how a sample is divided, or the number of each pixel's segment")
    ] = "slic"
    samples: Annotated[int, Range(2), Help("coalitions that may be scored")] = 1000
    fill: Annotated[Hidden, Help("what is shown in the place of a segment")] = "mean"
    tolerance: Tolerance = None
    seed: Annotated[int, Range(0), Help("of all draws")] = 0
    batch_size: Annotated[
        BatchSize, Range(1), Help("coalitions that go through the network at once")
    ] = 16

    needs: ClassVar[frozenset[str]] = frozenset()

    def explain(self, model: Model, x: Array, targets: Sequence[Target]) -> Maps:
        """Explain the targets' scores on a batch.

        Parameters
        ----------
        model : Model
            The network.
        x : ndarray (N, H, W, C)
            The batch; of signals (N, L, C), of volumes (N, D, H, W, C).
        targets : sequence of Target
            One for each sample.

        Returns
        -------
        Maps
            With the raw map (N, H, W): at each pixel its segment's value, in units of the score.
            Extras: "base" (N,), the score of the fill alone; "standard_error" (N, H, W), how far
            the value would scatter under other draws, by the jackknife: the regression without each
            drawn pair of coalitions in turn (0 where every coalition was scored, NaN where there
            are too few pairs to tell); "samples" (N,), how many coalitions were scored; "history"
            (N, 32, 2), for `cnnviz_core.sampling.convergence`; and "segments" (N, H, W), the number
            of each pixel's segment.

        Raises
        ------
        ArrayError
            If the samples cannot be divided as asked.
        """
        return explain_segments(model, x, targets, self._setting(), self._values)

    def passes(self, model: Model, x: Array) -> int:
        """Give the forward passes for one sample; with a tolerance the most there can be."""
        return 2 * len(self._pairs(self._setting().players(x)).kept) + 2

    def _setting(self) -> Setting:
        """Say how samples are made games of."""
        return Setting(
            "kernel-shap", self.segments, self.segmentation, self.fill, self.seed, self.batch_size
        )

    def _budget(self, players: int) -> _Budget:
        """Say which pairs of coalitions to score."""
        return _Budget.spent((self.samples - 2) // 2, players, np.random.default_rng(self.seed))

    def _pairs(self, players: int) -> _Pairs:
        """Give all pairs of coalitions."""
        budget = self._budget(players)
        return budget.after(len(budget.drawn))

    def _values(self, game: Game) -> Mapping[str, Array]:
        """Score the pairs, and fit each target's values, as often as is looked at them."""
        k = game.players
        budget = self._budget(k)
        kept = budget.kept
        both = np.stack([kept, ~kept], axis=1).reshape(-1, k)
        ends = np.repeat([[True], [False]], k, axis=1)
        draws = {2 + 2 * budget.scored(draws): draws for draws in budget.looks()}
        found = sampled(
            game.scored(np.concatenate([ends, both])),
            Refit(lambda scores: _fitted(scores, budget.after(draws[scores.shape[1]]))),
            list(draws),
            self.tolerance,
            # What is enumerated tells nothing of how far draws scatter.
            least=2 + 2 * budget.scored(LEAST // 2),
        )
        return found.named(game.whole.dtype)


def _fitted(scores: Array, pairs: _Pairs) -> Mapping[str, Array]:
    """Fit values to the scores (T, 2 + 2 P) of all segments, of none, and of each pair."""
    k = pairs.kept.shape[1]
    whole, base = scores[:, :1], scores[:, 1:2]
    shown, hidden = scores[:, 2::2][:, pairs.place], scores[:, 3::2][:, pairs.place]
    # The linear model of even values, which is right for none and for all, is taken off.
    even = (whole - base) / k
    size = pairs.kept.sum(1)
    values, spread = pairs.fit((shown - hidden) / 2 - even * (size - k / 2))
    return {"value": even + values, "standard_error": spread, "base": base[:, 0]}


@dataclass(frozen=True, eq=False)
class _Budget:
    """What a budget of pairs is spent on: those that are enumerated, then those that are drawn.

    Attributes
    ----------
    listed : ndarray of bool (E, K)
        One coalition of each pair that is enumerated.
    weights : ndarray (E,)
        What each counts in the regression.
    drawn : ndarray of bool (D, K)
        One coalition of each pair that is drawn, in order; the same may come again.
    left : float
        What all that are drawn count together.
    first : ndarray of int (F,)
        Which draws are of pairs that were not drawn before.
    """

    listed: Array
    weights: Array
    drawn: Array
    left: float
    first: Array

    @classmethod
    def spent(cls, budget: int, k: int, rng: np.random.Generator) -> _Budget:
        """Choose pairs of coalitions of k segments, at most as many as the budget says."""
        sizes = np.arange(1, k // 2 + 1)
        # The Shapley kernel times the number of pairs: of halves there are half as many.
        share = np.where(2 * sizes == k, 0.5, 1) / (sizes * (k - sizes))
        listed, weights = [np.zeros((0, k), dtype=bool)], [np.zeros(0)]
        for size in sizes.tolist():
            count = comb(k, size) // (2 if 2 * size == k else 1)
            if float(budget * share[size - 1] / share[size - 1 :].sum()) < count:
                break
            listed.append(_of_size(size, k))
            weights.append(np.full(count, share[size - 1] / count))
            budget -= count
        full = len(listed) - 1
        left, drawn = float(share[full:].sum()), np.zeros((0, k), dtype=bool)
        if full < len(sizes) and budget:
            drawn = _drawn(sizes[full:], share[full:] / left, budget, k, rng)
        first = np.sort(np.unique(drawn, axis=0, return_index=True)[1])
        return cls(np.concatenate(listed), np.concatenate(weights), drawn, left, first)

    @property
    def kept(self) -> Array:
        """One coalition of each pair, in the order in which they are scored: (P, K)."""
        return np.concatenate([self.listed, self.drawn[self.first]])

    def scored(self, draws: int) -> int:
        """Count the pairs that are scored once so many were drawn."""
        return len(self.listed) + int(np.searchsorted(self.first, draws))

    def looks(self) -> tuple[int, ...]:
        """Say after how many draws the values are looked at."""
        return check_points(len(self.drawn)) if len(self.drawn) else (0,)

    def after(self, draws: int) -> _Pairs:
        """Give the regression on what is enumerated and on the first draws."""
        enumerated = len(self.listed)
        pairs, place, times = np.unique(
            self.drawn[:draws], axis=0, return_index=True, return_counts=True
        )
        return _Pairs(
            np.concatenate([self.listed, pairs]),
            np.concatenate([self.weights, self.left * times / max(1, draws)]),
            np.concatenate([np.zeros(enumerated, dtype=np.int64), times]),
            np.concatenate([np.arange(enumerated), enumerated + self.first.searchsorted(place)]),
            self.left == 0,
        )


@dataclass(frozen=True, eq=False)
class _Pairs:
    """Coalitions, each of which stands for its complement too.

    A linear model that is right for none and for all of the segments errs by as much on a
    complement, with the other sign, but for what no linear model can fit: the part of the score
    that is even under the exchange of shown and hidden.  So only half the difference is fitted.

    Attributes
    ----------
    kept : ndarray of bool (P, K)
        One coalition of each pair.
    weights : ndarray (P,)
        What each counts in the regression.
    draws : ndarray of int (P,)
        How often each was drawn; 0 for those that were enumerated.
    place : ndarray of int (P,)
        Which place each had in the order of scoring.
    complete : bool
        Whether they are all that there are.
    """

    kept: Array
    weights: Array
    draws: Array
    place: Array
    complete: bool

    def fit(self, y: Array) -> tuple[Array, Array]:
        """Fit values (T, K) that sum to 0 to differences (T, P), and give their errors (T, K)."""
        contrasts = _contrasts(self.kept.shape[1])
        root = np.sqrt(self.weights)
        solve = contrasts.T @ np.linalg.pinv((self.kept @ contrasts.T) * root[:, None]) * root
        values = y @ solve.T
        return values, self._standard_error(solve, y - values @ self.kept.T)

    def _standard_error(self, solve: Array, residuals: Array) -> Array:
        """Give the standard errors (T, K) of the values, by leaving each draw out in turn."""
        shape = (len(residuals), len(solve))
        if self.complete:
            return np.zeros(shape)
        drawn = self.draws > 0
        times = self.draws[drawn]
        n = times.sum()
        # How far a draw determines its own fit: what it moves is seen when it is left out.
        own = (self.kept * solve.T).sum(1)[drawn] / times
        if n < 2 or own.max() > 1 - 1e-6:
            return np.full(shape, np.nan)
        moved = (residuals[:, None, drawn] / (1 - own)) * solve[:, drawn] / times
        mean = (moved * times).sum(-1, keepdims=True) / n
        return np.sqrt(((moved - mean) ** 2 * times).sum(-1) * (n - 1) / n)


def _of_size(size: int, k: int) -> Array:
    """Enumerate the pairs of which one has a given size."""
    members = np.array(list(combinations(range(k), size)))
    kept = np.zeros((len(members), k), dtype=bool)
    kept[np.arange(len(members))[:, None], members] = True
    return kept[kept[:, 0]] if 2 * size == k else kept


def _drawn(sizes: Array, chances: Array, n: int, k: int, rng: np.random.Generator) -> Array:
    """Draw pairs: their sizes by chance, and of a size each alike."""
    size = rng.choice(sizes, n, p=chances)
    rank = rng.random((n, k)).argsort(1).argsort(1)
    kept = rank < size[:, None]
    # Of halves, that with the first segment stands for both.
    return kept ^ ((2 * size == k) & ~kept[:, 0])[:, None]


def _contrasts(k: int) -> Array:
    """Give orthonormal rows (k - 1, k) that span what sums to zero."""
    from scipy.linalg import helmert

    return helmert(k) if k > 1 else np.zeros((0, 1))
