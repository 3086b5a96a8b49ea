"""LIME: a linear model, fitted to the scores around a sample, of which segments are shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from cnnviz_core.explainer import Maps
from cnnviz_core.model import Array, Model
from cnnviz_core.pace import BatchSize
from cnnviz_core.parameters import Help, Range
from cnnviz_core.sampling import Refit, Tolerance, by_target, check_points, sampled
from cnnviz_core.targets import Target
from cnnviz_perturbation.coalitions import Game, Hidden, Setting, explain_segments
from cnnviz_perturbation.segmenting import Segmentation

__all__ = ["LIME"]


@dataclass(frozen=True)
class LIME:
    """Coefficients of a linear model of the score around the sample.

    The sample is scored whole and with each of its K segments shown or hidden by the toss of a
    coin, and to the scores a linear model of the K zeros and ones is fitted, by ridge regression
    with an intercept.  What is nearer to the whole sample counts more: with d the cosine distance
    of the zeros and ones to all ones, ``1 - sqrt(shown / K)``, a sample weighs
    ``sqrt(exp(-d^2 / kernel_width^2))``, as in the authors' program for pictures.

    Parameters
    ----------
    segments : int
        How many segments are wanted.
    segmentation : {"slic", "felzenszwalb", "quickshift", "grid"} or ndarray of int
        How a sample is divided, or the number of each pixel's segment.
    samples : int
        How many samples the linear model is fitted to, the whole one among them.
    kernel_width : float
        How far around the sample: the distance at which a sample weighs 0.61.
    alpha : float
        The penalty of the squared coefficients; 0 is least squares.
    features : int or None
        How many segments the linear model may use, chosen by the path of the lasso as in the
        paper's K-LASSO and then fitted anew; None is all of them.
    fill : float, "mean", "blur", "noise", "segment-mean" or ndarray
        What is shown in the place of a segment: a value in the network's own input range, the
        sample's mean colour, the sample blurred, noise of its channels' mean and spread, the
        segment's own mean colour (the authors' choice), or an array that broadcasts to a sample.
    tolerance : float or None
        Stop as soon as the largest standard error of a map is at most this share of the map's
        range, and not before 100 samples; None takes all samples.  Of fewer samples the penalty
        makes the coefficients somewhat smaller.
    seed : int
        Of all draws.  Every sample of a batch gets the same ones.
    batch_size : int or "auto"
        How many samples go through the network at once; "auto" measures what pays.

    References
    ----------
    Ribeiro, Singh & Guestrin, "'Why should I trust you?': Explaining the predictions of any
    classifier", KDD 2016, section 3.4 and algorithm 1.
    """

    segments: Annotated[int, Range(1), Help("segments wanted")] = 50
    segmentation: Annotated[
        Segmentation, Help("how a sample is divided, or the number of each pixel's segment")
    ] = "slic"
    samples: Annotated[int, Range(2), Help("samples that the linear model is fitted to")] = 1000
    kernel_width: Annotated[
        float, Range(0, open_low=True), Help("cosine distance at which a sample weighs 0.61")
    ] = 0.25
    alpha: Annotated[float, Range(0), Help("penalty of the squared coefficients")] = 1.0
    features: Annotated[
        int | None, Range(1), Help("segments that the linear model may use; none: all of them")
    ] = None
    fill: Annotated[Hidden, Help("what is shown in the place of a segment")] = "mean"
    tolerance: Tolerance = None
    seed: Annotated[int, Range(0), Help("of all draws")] = 0
    batch_size: Annotated[
        BatchSize, Range(1), Help("samples that go through the network at once")
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
            With the raw map (N, H, W): at each pixel its segment's coefficient, in units of the
            score.  Extras: "intercept" (N,), the linear model's score of the fill alone; "r2" (N,),
            the share of the scores' weighted variance that the linear model explains;
            "standard_error" (N, H, W), how far the coefficient would scatter under other draws, by
            the jackknife: the regression without each sample in turn, on the segments that were
            chosen (0 for others; NaN without more samples than coefficients); "samples" (N,), to
            how many the linear model was fitted; "history" (N, 32, 2), for
            `cnnviz_core.sampling.convergence`; and "segments" (N, H, W), the number of each pixel's
            segment.

        Raises
        ------
        ArrayError
            If the samples cannot be divided as asked.
        """
        setting = Setting(
            "lime", self.segments, self.segmentation, self.fill, self.seed, self.batch_size
        )
        return explain_segments(model, x, targets, setting, self._fitted)

    def passes(self, model: Model, x: Array) -> int:
        """Give the forward passes for one sample; with a tolerance the most there can be."""
        return self.samples

    def _fitted(self, game: Game) -> Mapping[str, Array]:
        """Fit a linear model for each target."""
        rng = np.random.default_rng(self.seed)
        kept = rng.integers(0, 2, (self.samples, game.players)).astype(bool)
        kept[0] = True
        distance = 1 - np.sqrt(kept.mean(1))
        weights = np.sqrt(np.exp(-(distance**2) / self.kernel_width**2))
        z = kept.astype(float)
        found = sampled(
            game.scored(kept),
            Refit(by_target(lambda y: self._fit(z[: len(y)], y, weights[: len(y)]))),
            # Of no more samples than coefficients no standard error is known.
            check_points(self.samples, first=max(16, game.players + 2)),
            self.tolerance,
        )
        return found.named(game.whole.dtype)

    def _fit(self, z: Array, y: Array, weights: Array) -> dict[str, Array]:
        """Fit one target's linear model, and say how well and how surely."""
        from sklearn.linear_model import Ridge
        from sklearn.metrics import r2_score

        middle, mean = np.average(z, axis=0, weights=weights), np.average(y, weights=weights)
        z, y = z - middle, y - mean
        chosen = self._chosen(z, y, weights)
        values, spread = np.zeros(z.shape[1]), np.zeros(z.shape[1])
        if chosen.any():
            model = Ridge(alpha=self.alpha, fit_intercept=False, solver="svd")
            values[chosen] = model.fit(z[:, chosen], y, sample_weight=weights).coef_
            spread[chosen] = _standard_error(z[:, chosen], y - z @ values, weights, self.alpha)
        return {
            "value": values,
            "standard_error": spread,
            "intercept": mean - middle @ values,
            "r2": r2_score(y, z @ values, sample_weight=weights),
        }

    def _chosen(self, z: Array, y: Array, weights: Array) -> Array:
        """Choose the segments that the linear model may use: (K,)."""
        if self.features is None:
            return np.ones(z.shape[1], dtype=bool)
        from sklearn.linear_model import lars_path

        root = np.sqrt(weights)
        path = lars_path(z * root[:, None], y * root, method="lasso")[2] != 0
        return path[:, np.flatnonzero(path.sum(0) <= self.features)[-1]]


def _standard_error(z: Array, residuals: Array, weights: Array, alpha: float) -> Array:
    """Give the standard errors of ridge coefficients, by leaving each sample out in turn."""
    m, k = z.shape
    inverse = np.linalg.pinv((z.T * weights) @ z + alpha * np.eye(k))
    # How far a sample determines its own fit: what it moves is seen when it is left out.
    own = weights * (1 / weights.sum() + ((z @ inverse) * z).sum(1))
    if m <= k + 1 or own.max() > 1 - 1e-6:
        return np.full(k, np.nan)
    moved = (z * (weights * residuals / (1 - own))[:, None]) @ inverse
    return np.sqrt(((moved - moved.mean(0)) ** 2).sum(0) * (m - 1) / m)
