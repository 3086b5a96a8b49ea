"""The game that masks are optimised for, and the descent: what perturbation by gradients shares."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeAlias

import numpy as np

from cnnviz_core.explainer import Maps, Presentation
from cnnviz_core.model import INPUT, Array, Model
from cnnviz_core.optimisers import Optimiser
from cnnviz_core.progress import advance
from cnnviz_core.scoring import Scored, score
from cnnviz_core.targets import Target, cotangent_of, scores_of, target_node

__all__ = [
    "Game",
    "Jitter",
    "Variant",
    "blended",
    "descend",
    "found",
    "passes_of_game",
]

Variant: TypeAlias = Literal["delete", "preserve", "dual"]
"""Whether the evidence is what to take away so that the score falls, what to keep so that it stays,
or both at once."""

_KEEPS: Final[dict[Variant, tuple[bool, ...]]] = {
    "delete": (False,),
    "preserve": (True,),
    "dual": (True, False),
}
_ALIKE: Final = 1e-3
"""Scores that differ by less than this share of their size count as differing by it."""

_NOTHING = 1e-4
"""What is gained up to this share counts as nothing, lest rounding decide at the very ends."""


@dataclass(frozen=True, eq=False)
class Jitter:
    """How samples are moved and made noisy before one look, so that no mask fits one view only.

    Attributes
    ----------
    shift : tuple of int
        By how many positions along each axis; what comes in repeats the edge.
    noise : ndarray (*size, C)
        What is added, as a share of each sample's range.
    """

    shift: tuple[int, ...]
    noise: Array

    @classmethod
    def draw(
        cls, rng: np.random.Generator, shape: tuple[int, ...], most: int, noise: float
    ) -> Jitter:
        """Draw one for samples of the shape (*size, C): at most so far, and so much noise."""
        shift = tuple(int(n) for n in rng.integers(-most, most + 1, len(shape) - 1))
        return cls(shift, noise * rng.standard_normal(shape) if noise else np.zeros(()))

    def places(self, size: tuple[int, ...]) -> Array:
        """Tell for each position which one is seen there, counted row by row: (*size)."""
        along = (
            (np.arange(extent) - by).clip(0, extent - 1)
            for extent, by in zip(size, self.shift, strict=True)
        )
        seen: Array = np.ravel_multi_index(np.ix_(*along), size)
        return seen


def blended(levels: Array, kept: Array, jitter: Jitter | None = None) -> tuple[Array, Array]:
    """Blend a series of ever less perturbed copies of samples, by how much is kept of each place.

    Parameters
    ----------
    levels : ndarray (L, S, *size, C)
        From the wholly perturbed samples to the samples themselves, 2 levels at least.
    kept : ndarray (N, *size)
        In [0, 1], as many masks for each of the S samples, those of a sample in a row; the levels
        are interpolated linearly.  Of two levels this is ``kept * x + (1 - kept) * fill``.
    jitter : Jitter, optional
        How the samples are moved, under masks that stay in their place; its noise is left out.

    Returns
    -------
    values : ndarray (N, *size, C)
    slope : ndarray (N, *size, C)
        Their derivative by `kept`.

    References
    ----------
    Fong, Patrick & Vedaldi, ICCV 2019, section 3.2.
    """
    steps, samples, size = len(levels) - 1, levels.shape[1], kept.shape[1:]
    at = kept * steps
    below = np.clip(np.floor(at).astype(int), 0, steps - 1)
    count = math.prod(size)
    places = np.arange(count).reshape(size) if jitter is None else jitter.places(size)
    owners = np.repeat(np.arange(samples), len(kept) // samples).reshape(-1, *[1] * len(size))
    index = (below * samples + owners) * count + places
    values = levels.reshape(-1, levels.shape[-1])
    low, high = (values.take(i, axis=0) for i in (index, index + samples * count))
    weight = (at - below)[..., None].astype(levels.dtype)
    return (1 - weight) * low + weight * high, steps * (high - low)


@dataclass(frozen=True, eq=False)
class Game:
    """How much of the score is lost where evidence is hidden, or where nothing else is shown.

    Scores count as shares: 0 is the score of the wholly perturbed sample, 1 that of the sample
    itself.  So a loss means the same for a logit and for a probability, and for any network.

    Attributes
    ----------
    model : Model
        The network, which offers "gradient".
    targets : tuple of Target
        One for each of the N samples; resolved.
    levels : ndarray (L, S, *size, C)
        See `blended`; the N samples are S distinct ones.
    none, whole : ndarray of float64 (N,)
        The scores of the wholly perturbed samples, and of the samples.
    variant : {"delete", "preserve", "dual"}
        See `Variant`.
    batch_size : int
        How many samples go through the network at once.
    bounded : bool
        Whether nothing is gained by a share below 0 without the evidence, or above 1 by it.  Where
        the wholly perturbed sample scores higher than the sample, a share has no such ends.
    """

    model: Model
    targets: tuple[Target, ...]
    levels: Array
    none: Array
    whole: Array
    variant: Variant = "delete"
    batch_size: int = 16
    bounded: bool = False

    @classmethod
    def of(
        cls,
        model: Model,
        seen: Scored,
        levels: Array,
        variant: Variant,
        batch_size: int,
        bounded: bool = False,
    ) -> Game:
        """Set a game up, which takes one forward pass.

        Parameters
        ----------
        model : Model
            The network.
        seen : Scored
            The samples, scored.
        levels, variant, batch_size, bounded
            See the attributes.

        Returns
        -------
        Game
        """
        none = score(model, levels[0], seen.targets).scores
        whole = seen.scores
        return cls(
            model,
            seen.targets,
            levels,
            none.astype(np.float64),
            whole.astype(np.float64),
            variant,
            batch_size,
            bounded,
        )

    def repeated(self, times: int) -> Game:
        """Give the game of so many masks for each sample, those of a sample in a row."""
        return replace(
            self,
            targets=tuple(target for target in self.targets for _ in range(times)),
            none=np.repeat(self.none, times),
            whole=np.repeat(self.whole, times),
        )

    @property
    def unit(self) -> Array:
        """The difference between the shares 0 and 1, as a score: ndarray of float64 (N,), > 0."""
        size = np.maximum(np.abs(self.whole), np.abs(self.none))
        unit = np.maximum(np.abs(self.whole - self.none), _ALIKE * size)
        return np.where(unit > 0, unit, 1.0)

    def play(self, evidence: Array, jitter: Jitter | None = None) -> tuple[Array, Array]:
        """Look at the samples once.

        Parameters
        ----------
        evidence : ndarray (N, *size)
            In [0, 1]: 1 where evidence is said to be.
        jitter : Jitter, optional
            How the samples are moved, under evidence that stays in its place.

        Returns
        -------
        loss : ndarray of float64 (N,)
            The share of the score that is left without the evidence ("delete"), the share that is
            missing where only the evidence is shown ("preserve"), or the sum ("dual").
        gradient : ndarray (N, *size)
            Of the loss by `evidence`.
        """
        loss, gradient = np.zeros(len(evidence)), np.zeros_like(evidence)
        for keep in _KEEPS[self.variant]:
            scores, slope = self._pulled(evidence if keep else 1 - evidence, jitter)
            lost = (self.whole - scores if keep else scores - self.none) / self.unit
            counts = (lost > _NOTHING) | (not self.bounded) | (self.whole < self.none)
            loss += np.where(counts, lost, 0)
            by_score = np.where(counts, 1 / self.unit, 0).astype(evidence.dtype)
            gradient -= slope * by_score.reshape(-1, *[1] * (evidence.ndim - 1))
        return loss, gradient

    def shown(self, kept: Array) -> Array:
        """Score the samples where only some of them is kept: (N,), by one forward pass each."""
        x, _ = blended(self.levels, kept)
        return np.concatenate(
            [
                score(self.model, x[rows], self.targets[rows]).scores
                for rows in self._batches(len(x))
            ]
        )

    def _pulled(self, kept: Array, jitter: Jitter | None) -> tuple[Array, Array]:
        """Give the scores under masks, and their gradient by what is kept."""
        x, slope = blended(self.levels, kept, jitter)
        if jitter is not None and jitter.noise.ndim:
            samples = self.levels[-1]
            flat = samples.reshape(len(samples), -1)
            spread = np.repeat(flat.max(1) - flat.min(1), len(x) // len(samples))
            x = (x + spread.reshape(-1, *[1] * (x.ndim - 1)) * jitter.noise).astype(x.dtype)
        of = target_node(self.targets)
        scores, gradients = [], []
        for rows in self._batches(len(x)):
            asked = self.targets[rows]
            back = self.model.pullback(x[rows], cotangent_of(asked), of=of, wrt=(INPUT,))
            scores.append(scores_of(asked, back.values[of]))
            gradients.append(back.gradients[INPUT])
        by_kept = np.einsum("...c,...c->...", np.concatenate(gradients), slope)
        return np.concatenate(scores), by_kept

    def _batches(self, samples: int) -> Iterator[slice]:
        """Give the rows that go through the network at once."""
        for start in range(0, samples, self.batch_size):
            yield slice(start, start + self.batch_size)


def passes_of_game(variant: Variant, steps: int, masks: int = 1) -> int:
    """Give the passes for one sample: 2, and for each mask 2 and in each step 3, or 6 if dual."""
    return 2 + masks * (2 + 3 * steps * len(_KEEPS[variant]))


def descend(
    start: Array,
    slope: Callable[[Array, int], tuple[Array, Array]],
    optimiser: Optimiser,
    steps: int,
    *,
    what: str,
) -> tuple[Array, Array]:
    """Minimise losses by parameters in [0, 1], each sample's for itself.

    Parameters
    ----------
    start : ndarray (N, ...)
        Where the parameters start; left as they are.
    slope : callable
        From the parameters and the number of the step, from 0, to the losses (N,) and their
        gradient.
    optimiser : Optimiser
        How steps are made.
    steps : int
        How many; after each the parameters are clipped.
    what : str
        What the work is called in its progress.

    Returns
    -------
    parameters : ndarray (N, ...)
    losses : ndarray (N, steps)
        Before each step.
    """
    step = optimiser.begin()
    parameters, losses = start, []
    for taken in range(steps):
        loss, gradient = slope(parameters, taken)
        parameters = np.clip(parameters - step(gradient), 0, 1).astype(start.dtype)
        losses.append(loss)
        advance(what, taken + 1, steps)
    return parameters, np.stack(losses, axis=1)


def found(game: Game, seen: Scored, evidence: Array, losses: Array) -> Maps:
    """Return the evidence that a descent has found, with what becomes of the scores.

    Parameters
    ----------
    game : Game
        The game that was played.
    seen : Scored
        The samples, scored.
    evidence : ndarray (N, *size)
        In [0, 1]; may be several for each sample, those of a sample in a row.
    losses : ndarray (N, steps)
        On the way.

    Returns
    -------
    Maps
        With the extras "score_kept" and "score_without" (N,), the scores where only the evidence is
        shown and where it is taken away; "area" (N,), its mean; and "loss" (N, steps).
    """
    dtype = seen.scores.dtype
    return Maps(
        raw=evidence.astype(dtype, copy=False),
        scores=seen.scores,
        targets=seen.targets,
        presentation=Presentation(sign="positive"),
        extras={
            "score_kept": game.shown(evidence),
            "score_without": game.shown(1 - evidence),
            "area": evidence.reshape(len(evidence), -1).mean(1).astype(dtype),
            "loss": losses.astype(dtype),
        },
    )
