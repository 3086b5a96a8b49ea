"""Shapley values of segments, by enumeration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import comb
from typing import Annotated, ClassVar

import numpy as np

from cnnviz_core.errors import ArrayError
from cnnviz_core.explainer import Maps
from cnnviz_core.model import Array, Model
from cnnviz_core.pace import BatchSize
from cnnviz_core.parameters import Help, Range
from cnnviz_core.targets import Target
from cnnviz_perturbation.coalitions import Game, Hidden, Setting, explain_segments
from cnnviz_perturbation.segmenting import Segmentation

__all__ = ["ShapleyValues"]

_MOST = 16


@dataclass(frozen=True)
class ShapleyValues:
    """Shapley values of a sample's segments, exactly: every coalition is scored.

    With ``v(S)`` the score of the sample of which only the K segments of a coalition S are shown,
    the value of the segment i is the mean, over all orders in which segments can be shown one after
    another, of what showing i adds to the score:
    ``sum over S without i of |S|! (K - |S| - 1)! / K! * (v(S + i) - v(S))``.  The values of all
    segments sum to the score of the whole sample less that of the fill alone.

    Parameters
    ----------
    segments : int
        How many segments are wanted, up to 16: the work doubles with each.
    segmentation : {"slic", "felzenszwalb", "quickshift", "grid"} or ndarray of int
        How a sample is divided, or the number of each pixel's segment.
    fill : float, "mean", "blur", "noise", "segment-mean" or ndarray
        What is shown in the place of a segment: a value in the network's own input range, the
        sample's mean colour, the sample blurred, noise of its channels' mean and spread, the
        segment's own mean colour, or an array that broadcasts to a sample.
    seed : int
        Of the noise, where that is the fill.
    batch_size : int or "auto"
        How many coalitions go through the network at once; "auto" measures what pays.

    References
    ----------
    Shapley, "A value for n-person games", Contributions to the Theory of Games II, 1953.
    Lundberg & Lee, "A unified approach to interpreting model predictions", NeurIPS 2017, eq. 4.
    """

    segments: Annotated[int, Range(1, _MOST), Help("segments wanted; each doubles the work")] = 8
    segmentation: Annotated[
        Segmentation, Help("how a sample is divided, or the number of each pixel's segment")
    ] = "slic"
    fill: Annotated[Hidden, Help("what is shown in the place of a segment")] = "mean"
    seed: Annotated[int, Range(0), Help("of the noise, where that is the fill")] = 0
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
            Extras: "base" (N,), the score of the fill alone, and "segments" (N, H, W), the number
            of each pixel's segment.

        Raises
        ------
        ArrayError
            If there are more than 16 segments, or the samples cannot be divided as asked.
        """
        return explain_segments(model, x, targets, self._setting(), _values)

    def passes(self, model: Model, x: Array) -> int:
        """Give the forward passes for the first sample: one for each coalition of its segments."""
        return 1 << _checked(self._setting().players(x))

    def _setting(self) -> Setting:
        """Say how samples are made games of."""
        return Setting(
            "shapley-values",
            self.segments,
            self.segmentation,
            self.fill,
            self.seed,
            self.batch_size,
        )


def _checked(players: int) -> int:
    """Check that not too many segments are to be enumerated."""
    if players > _MOST:
        raise ArrayError(
            f"the sample has {players} segments, of which {2**players} coalitions would be scored",
            f"at most {_MOST} segments, {2**_MOST} coalitions",
            "ask for fewer segments, or use kernel-shap, which samples the coalitions",
        )
    return players


def _values(game: Game) -> Mapping[str, Array]:
    """Weight the score of every coalition, for each segment by whether it is among them."""
    k = _checked(game.players)
    kept = (np.arange(1 << k)[::-1, None] >> np.arange(k) & 1).astype(bool)
    scores = np.concatenate([each for _, each in game.scored(kept)], axis=1)
    # As v(S) counts for i in S after an addition to S - i, and against i elsewhere before one.
    size = kept.sum(1)
    adds = np.array([0, *(1 / (s * comb(k, s)) for s in range(1, k + 1))])
    lacks = np.array([*(1 / ((k - s) * comb(k, s)) for s in range(k)), 0])
    weights = np.where(kept, adds[size, None], -lacks[size, None])
    value = scores.astype(np.float64) @ weights
    return {"value": value.astype(scores.dtype), "base": scores[:, -1]}
