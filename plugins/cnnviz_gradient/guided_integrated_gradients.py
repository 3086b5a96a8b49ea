"""Guided integrated gradients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Final, Literal

import numpy as np

from cnnviz_core.explainer import Maps
from cnnviz_core.gradients import gradient_at
from cnnviz_core.model import Array, Model, as_float
from cnnviz_core.parameters import Help, Range
from cnnviz_core.progress import advance
from cnnviz_core.scoring import score
from cnnviz_core.targets import Target
from cnnviz_gradient.attributions import attributed
from cnnviz_gradient.baselines import baseline_of

__all__ = ["GuidedIntegratedGradients"]

_ALIKE: Final = 1e-9


@dataclass(frozen=True, eq=False)
class GuidedIntegratedGradients:
    """Gradients integrated along a path that moves first where the gradient is small.

    The path leads from the baseline to the picture in steps that each take away the same share of
    their L1 distance.  A step moves the values whose gradient is least in magnitude, a fraction of
    all at a time, until that share is covered; of the fraction with which it is, all values go
    the same part of their way.  No value may be further along its own way than the step's share
    plus `max_dist`, nor further behind than the step's share less `max_dist`.  The raw result sums
    each move times the mean of the gradients at its two ends.  Each sample has a path of its own.

    Parameters
    ----------
    baseline : float, "mean", "blur" or ndarray
        Where the path begins, in the network's own value range: one value everywhere, the sample's
        mean colour, the sample strongly blurred (by a fifth of its longest side, at most 50
        pixels), or an array that broadcasts to a sample's shape.
    fraction : float
        The share of all values that is selected at a time.
    max_dist : float
        How far a value may be from the straight line, as a share of its way: 0 is the straight
        line, 1 any path.
    steps : int
        How many steps there are; they follow each other.
    rule : {"trapezoid", "left"}
        Which gradient a move is multiplied with: the mean of those at its ends, or that at its
        beginning, as in the authors' code.  The path is the same.
    batch_size : int
        How many samples go through the network at once.

    Notes
    -----
    Of networks with rectifiers the path runs along kinks, for a step leaves by the side where the
    gradient is smaller.  The sum over the beginnings of the steps therefore stays one-sided however
    many steps there are, and the gap in completeness may be a third of the difference of the
    scores; that of the trapezoids is some ten times smaller, for one pass more.

    The paper bounds the path by anchors on the straight line, its authors' code by `max_dist`,
    which is done here; the defaults are that code's.

    References
    ----------
    Kapishnikov et al., "Guided integrated gradients: an adaptive path method for removing noise",
    CVPR 2021, section 4.
    """

    baseline: Annotated[
        float | Literal["mean", "blur"] | Array,
        Help("where the path begins: a value, the mean colour, the blurred picture, or an array"),
    ] = 0.0
    fraction: Annotated[float, Range(0, 1), Help("share of the values selected at a time")] = 0.25
    max_dist: Annotated[
        float, Range(0, 1), Help("how far values may be from the straight line; 0: on it, 1: free")
    ] = 0.02
    steps: Annotated[int, Range(1), Help("steps of the path")] = 200
    rule: Annotated[
        Literal["trapezoid", "left"], Help("gradients at both ends of a step, or at its beginning")
    ] = "trapezoid"
    batch_size: Annotated[int, Range(1), Help("samples that go through the network at once")] = 16

    needs: ClassVar[frozenset[str]] = frozenset({"gradient"})

    def passes(self, model: Model, x: Array) -> int:
        """Say how many forward passes one sample takes, a backward pass counted as two."""
        return 2 + 3 * (self.steps + (self.rule == "trapezoid"))

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
            ``extras["completeness_gap"]`` (N,): its sum, less the difference of the scores of
            sample and baseline.

        Raises
        ------
        ArrayError
            If a baseline that is an array does not fit a sample.
        """
        x = as_float(x)
        start = baseline_of(x, self.baseline)
        seen = score(model, x, targets)
        reference = score(model, start.astype(x.dtype), seen.targets)
        way = x - start
        # How far along its way each value is, from 0 to 1; that the whole path is about.
        along = np.zeros((len(x), way[0].size))
        lengths = np.abs(way).reshape(along.shape)
        raw, move = np.zeros(along.shape), np.zeros(along.shape)
        after = 0.5 if self.rule == "trapezoid" else 0.0

        def gradient() -> Array:
            here = (start + along.reshape(x.shape) * way).astype(x.dtype)
            found = gradient_at(model, here, seen.targets, batch_size=self.batch_size)
            return found.reshape(along.shape).astype(np.float64)

        for step in range(1, self.steps + 1):
            slopes = gradient()
            raw += after * move * slopes
            for n in range(len(x)):
                moved = self._moved(along[n], lengths[n], np.abs(slopes[n]), step)
                move[n] = moved - along[n]
                along[n] = moved
            raw += (1 - after) * move * slopes
            advance("steps of the path", step, self.steps)
        if after:
            raw += after * move * gradient()
        return attributed(seen, raw.reshape(x.shape) * way, reference.scores, x.dtype)

    def _moved(self, along: Array, lengths: Array, gradient: Array, step: int) -> Array:
        """Say how far along its way each value of a sample is after a step.

        Parameters
        ----------
        along : ndarray (P,)
            How far each is before it.
        lengths : ndarray (P,)
            The length of each value's way.
        gradient : ndarray (P,)
            The gradient's magnitudes.
        step : int
            Which step, from 1.

        Returns
        -------
        ndarray (P,)
        """
        if step == self.steps:
            return np.ones_like(along)
        share = step / self.steps
        low, high = max(share - self.max_dist, 0.0), min(share + self.max_dist, 1.0)
        moved = np.maximum(along, low)
        # What is left to cover of the step's share of the whole distance.
        left = share * lengths.sum() - moved @ lengths
        free = np.flatnonzero((moved < high) & (lengths > 0))
        at_once = int(self.fraction * (len(along) - 1)) + 1
        while len(free) and left > 0:
            slopes = gradient[free]
            rank = min(at_once, len(free)) - 1
            # Values of equal gradient go together, also where only rounding tells them apart.
            least = slopes <= np.partition(slopes, rank)[rank] * (1 + _ALIKE)
            chosen = free[least]
            room = lengths[chosen] @ (high - moved[chosen])
            moved[chosen] += min(1.0, left / room) * (high - moved[chosen])
            left -= room
            free = free[~least]
        return moved
