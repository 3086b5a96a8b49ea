"""The game that masks are optimised for, and the descent: what perturbation by gradients shares."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import numpy as np

from cnnviz_core.errors import ArrayError
from cnnviz_core.explainer import Maps, Presentation
from cnnviz_core.model import INPUT, Array, Model
from cnnviz_core.progress import advance
from cnnviz_core.scoring import Scored, score
from cnnviz_core.targets import Target, cotangent_of, scores_of, target_node

__all__ = [
    "Game",
    "Jitter",
    "Step",
    "Variant",
    "adam",
    "blended",
    "check_rank",
    "descend",
    "found",
    "momentum",
    "passes_of_game",
]

Variant: TypeAlias = Literal["delete", "preserve", "dual"]
"""Whether the evidence is what to take away so that the score falls, what to keep so that it stays,
or both at once."""

Step: TypeAlias = Callable[[Array], Array]
"""From a gradient to what is taken off the parameters; it remembers the gradients before."""

_KEEPS: Final[dict[Variant, tuple[bool, ...]]] = {
    "delete": (False,),
    "preserve": (True,),
    "dual": (True, False),
}
_ALIKE: Final = 1e-3
"""Scores that differ by less than this share of their size count as differing by it."""

_NOTHING = 1e-4
"""What is gained up to this share counts as nothing, lest rounding decide at the very ends."""


def blended(levels: Array, kept: Array) -> tuple[Array, Array]:
    """Blend a series of ever less perturbed copies of samples, by how much is kept of each place.

    Parameters
    ----------
    levels : ndarray (L, N, *size, C)
        From the wholly perturbed samples to the samples themselves, 2 levels at least.
    kept : ndarray (N, *size)
        In [0, 1]; the levels are interpolated linearly.  Of two levels this is
        ``kept * x + (1 - kept) * fill``.

    Returns
    -------
    values : ndarray (N, *size, C)
    slope : ndarray (N, *size, C)
        Their derivative by `kept`.

    References
    ----------
    Fong, Patrick & Vedaldi, ICCV 2019, section 3.2.
    """
    steps = len(levels) - 1
    at = kept * steps
    below = np.clip(np.floor(at).astype(int), 0, steps - 1)
    low, high = (
        np.take_along_axis(levels, level[None, ..., None], axis=0)[0]
        for level in (below, below + 1)
    )
    weight = (at - below)[..., None].astype(levels.dtype)
    return (1 - weight) * low + weight * high, steps * (high - low)


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

    def moved(self, levels: Array) -> Array:
        """Move samples (L, N, *size, C)."""
        for axis, by in enumerate(self.shift, start=2):
            if by:
                places = np.arange(levels.shape[axis]) - by
                levels = levels.take(places.clip(0, levels.shape[axis] - 1), axis)
        return levels


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
    levels : ndarray (L, N, *size, C)
        See `blended`.
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
        """Score the samples where only some of them is kept: (N,), by one forward pass."""
        return score(self.model, blended(self.levels, kept)[0], self.targets).scores

    def _pulled(self, kept: Array, jitter: Jitter | None) -> tuple[Array, Array]:
        """Give the scores under masks, and their gradient by what is kept."""
        levels = self.levels if jitter is None else jitter.moved(self.levels)
        x, slope = blended(levels, kept)
        if jitter is not None and jitter.noise.ndim:
            flat = self.levels[-1].reshape(len(x), -1)
            spread = (flat.max(1) - flat.min(1)).reshape(-1, *[1] * (x.ndim - 1))
            x = (x + spread * jitter.noise).astype(x.dtype)
        of = target_node(self.targets)
        scores, gradients = [], []
        for start in range(0, len(x), self.batch_size):
            rows = slice(start, start + self.batch_size)
            asked = self.targets[rows]
            back = self.model.pullback(x[rows], cotangent_of(asked), of=of, wrt=(INPUT,))
            scores.append(scores_of(asked, back.values[of]))
            gradients.append(back.gradients[INPUT])
        return np.concatenate(scores), (np.concatenate(gradients) * slope).sum(-1)


def passes_of_game(variant: Variant, steps: int) -> int:
    """Give the passes for one sample: 3 a step, or 6 of a dual game, and 4 around it."""
    return 4 + 3 * steps * len(_KEEPS[variant])


def descend(
    start: Array,
    slope: Callable[[Array, int], tuple[Array, Array]],
    step: Step,
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
    step : callable
        See `Step`.
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
    parameters, losses = start, []
    for taken in range(steps):
        loss, gradient = slope(parameters, taken)
        parameters = np.clip(parameters - step(gradient), 0, 1).astype(start.dtype)
        losses.append(loss)
        advance(what, taken + 1, steps)
    return parameters, np.stack(losses, axis=1)


def adam(rate: float, mean: float = 0.9, square: float = 0.999, epsilon: float = 1e-8) -> Step:
    """Begin steps of about `rate` in every parameter, whatever the gradient's size.

    Parameters
    ----------
    rate : float
        The size of a step.
    mean, square : float
        How much of the running means of the gradient and of its square is kept.
    epsilon : float
        Added to the root of the mean square.

    Returns
    -------
    callable
        See `Step`.

    References
    ----------
    Kingma & Ba, "Adam: a method for stochastic optimization", ICLR 2015, algorithm 1.
    """
    means: Array | float = 0.0
    squares: Array | float = 0.0
    taken = 0

    def step(gradient: Array) -> Array:
        nonlocal means, squares, taken
        taken += 1
        means = mean * means + (1 - mean) * gradient
        squares = square * squares + (1 - square) * gradient**2
        size = np.sqrt(squares / (1 - square**taken)) + epsilon
        return np.asarray(rate * means / (1 - mean**taken) / size)

    return step


def momentum(rate: float, kept: float = 0.9) -> Step:
    """Begin steps along the running mean of the gradients.

    Parameters
    ----------
    rate : float
        What the mean is multiplied by.
    kept : float
        How much of the mean is kept at each step.

    Returns
    -------
    callable
        See `Step`.
    """
    mean: Array | None = None

    def step(gradient: Array) -> Array:
        nonlocal mean
        mean = gradient if mean is None else kept * mean + (1 - kept) * gradient
        return rate * mean

    return step


def found(game: Game, seen: Scored, evidence: Array, losses: Array) -> Maps:
    """Return the evidence that a descent has found, with what becomes of the score.

    Parameters
    ----------
    game : Game
        The game that was played.
    seen : Scored
        The samples, scored.
    evidence : ndarray (N, *size)
        In [0, 1].
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


def check_rank(x: Array) -> None:
    """Check that samples have an axis along which they can be masked.

    Parameters
    ----------
    x : ndarray (N, *size, C)
        The batch.

    Raises
    ------
    ArrayError
        If they have none.
    """
    if x.ndim < 3:
        raise ArrayError(
            f"a batch of the shape {x.shape} was given",
            "(N, H, W, C), or (N, L, C) or (N, D, H, W, C)",
            "pass pictures, signals or volumes",
        )
