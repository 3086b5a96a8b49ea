"""Expected gradients."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np

from cnnviz_core.blurring import blurred, largest_sigma
from cnnviz_core.errors import ArrayError
from cnnviz_core.explainer import Maps
from cnnviz_core.gradients import gradients_at, scores_at
from cnnviz_core.model import Array, Model, as_float
from cnnviz_core.noise import value_range
from cnnviz_core.parameters import Help, Range
from cnnviz_core.scoring import score
from cnnviz_core.targets import Target
from cnnviz_gradient.attributions import attributed

__all__ = ["ExpectedGradients"]


@dataclass(frozen=True, eq=False)
class ExpectedGradients:
    """Integrated gradients, expected over random baselines.

    With ``y`` the target's score, the raw result is the mean over draws of a baseline ``b`` and of
    ``t``, uniform from 0 to 1, of ``(x - b) * dy / dx (b + t (x - b))``.  The draws depend on the
    seed, the sample's shape and the background alone: every sample of a batch gets the same.

    Parameters
    ----------
    background : ndarray (B, ...) or None
        Samples of which the baselines are drawn, with replacement, in the network's own value
        range, prepared as the samples are; None draws pictures by `baseline`.
    baseline : {"uniform", "normal", "blur"}
        Without a background: every value drawn evenly from the sample's own range; the sample with
        normal noise of half its range as standard deviation, cut off at its range; the sample
        blurred by a standard deviation drawn evenly up to a fifth of its longest side, at most 50
        pixels.
    noise : float
        Standard deviation of normal noise that is added to the sample at each draw, as a share of
        its range, as GradientSHAP has it; 0 adds none.
    samples : int
        How many draws there are.
    seed : int
        Of the draws.
    batch_size : int
        How many points go through the network at once.

    Notes
    -----
    The gap in completeness is that of a mean over draws: it shrinks with the root of their number.

    References
    ----------
    Erion et al., "Improving performance of deep learning models with axiomatic attribution priors
    and expected gradients", Nature Machine Intelligence 3, 2021.  Lundberg & Lee, "A unified
    approach to interpreting model predictions", NeurIPS 2017.  The random pictures: Sturmfels,
    Lundberg & Lee, "Visualizing the impact of feature attribution baselines", Distill, 2020.
    """

    background: Annotated[
        Array | None, Help("samples to draw baselines from; none: random pictures")
    ] = None
    baseline: Annotated[
        Literal["uniform", "normal", "blur"], Help("the random pictures without a background")
    ] = "uniform"
    noise: Annotated[
        float, Range(0), Help("standard deviation of noise on the sample, as a share of its range")
    ] = 0.0
    samples: Annotated[int, Range(1), Help("draws of a baseline and of a point")] = 50
    seed: Annotated[int, Range(0), Help("seed of the draws")] = 0
    batch_size: Annotated[int, Range(1), Help("points that go through the network at once")] = 16

    needs: ClassVar[frozenset[str]] = frozenset({"gradient"})

    def passes(self, model: Model, x: Array) -> int:
        """Say how many forward passes one sample takes, a backward pass counted as two."""
        return 1 + 4 * self.samples

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
            With the raw attribution of the shape of `x`, signed, and
            ``extras["completeness_gap"]`` (N,): its sum, less the difference of the sample's score
            and the mean score of the baselines that were drawn.

        Raises
        ------
        ArrayError
            If the background does not hold samples like those of the batch.
        """
        x = as_float(x)
        if self.background is not None:
            _check(self.background, x)
        seen = score(model, x, targets)
        ways: deque[Array] = deque()

        def points() -> Iterator[Array]:
            for start, end, along in self._draws(x):
                ways.append(end - start)
                yield (start + along * ways[-1]).astype(x.dtype)

        total = np.zeros(x.shape)
        for gradient in gradients_at(
            model,
            points(),
            seen.targets,
            total=self.samples,
            batch_size=self.batch_size,
            what="draws",
        ):
            total += ways.popleft() * gradient
        # The draws are made again, so that the baselines need not be kept.
        references = scores_at(
            model,
            (start.astype(x.dtype) for start, _, _ in self._draws(x)),
            seen.targets,
            total=self.samples,
            batch_size=self.batch_size,
            what="baselines",
        )
        reference = np.mean([s.astype(np.float64) for s in references], axis=0)
        return attributed(seen, total / self.samples, reference, x.dtype)

    def _draws(self, x: Array) -> Iterator[tuple[Array, Array, float]]:
        """Draw baselines, the samples with their noise, and points between."""
        rng = np.random.default_rng(self.seed)
        span = value_range(x)
        for _ in range(self.samples):
            start = self._baseline(x, span, rng)
            along = rng.uniform()
            end = x.astype(np.float64)
            if self.noise:
                end += self.noise * span * rng.normal(size=x.shape[1:])
            yield start, end, along

    def _baseline(self, x: Array, span: Array, rng: np.random.Generator) -> Array:
        """Draw a baseline for each sample."""
        if self.background is not None:
            drawn = self.background[rng.integers(len(self.background))]
            return np.broadcast_to(drawn, x.shape).astype(np.float64)
        if self.baseline == "blur":
            return blurred(x, rng.uniform(0, largest_sigma(x.shape)))
        low = x.min(axis=tuple(range(1, x.ndim)), keepdims=True).astype(np.float64)
        if self.baseline == "uniform":
            return low + span * rng.uniform(size=x.shape[1:])
        return np.clip(x + span / 2 * rng.normal(size=x.shape[1:]), low, low + span)


def _check(background: Array, x: Array) -> None:
    """Check that a background holds samples like those of a batch."""
    if background.ndim != x.ndim or background.shape[1:] != x.shape[1:] or not len(background):
        raise ArrayError(
            f"the background has the shape {background.shape}",
            f"at least one sample of the shape {x.shape[1:]}, batch first: (B, "
            f"{', '.join(map(str, x.shape[1:]))})",
            "prepare its samples as those that are explained",
        )
