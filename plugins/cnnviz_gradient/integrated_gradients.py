"""Integrated gradients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from cnnviz_core.explainer import Maps
from cnnviz_core.gradients import mean_gradient
from cnnviz_core.model import Array, Model, as_float
from cnnviz_core.parameters import Help, Range
from cnnviz_core.scoring import score
from cnnviz_core.targets import Target
from cnnviz_gradient.attributions import attributed
from cnnviz_gradient.baselines import baseline_of

__all__ = ["IntegratedGradients"]


@dataclass(frozen=True, eq=False)
class IntegratedGradients:
    """Gradients integrated along the straight line from a baseline to the picture.

    With ``y`` the target's score and ``b`` the baseline, the raw result is
    ``(x - b) * integral_0^1 dy / dx (b + t (x - b)) dt`` for each pixel and channel.  The integral
    is taken by Gauss-Legendre quadrature, which is exact where the gradient is a polynomial in
    ``t`` of a degree up to ``2 * steps - 1``.

    Parameters
    ----------
    baseline : float, "mean", "blur" or ndarray
        Where the line begins, in the network's own value range: one value everywhere, the sample's
        mean colour, the sample strongly blurred (by a fifth of its longest side, at most 50
        pixels), or an array that broadcasts to a sample's shape.
    steps : int
        How many nodes the quadrature has.
    batch_size : int
        How many points of the line go through the network at once.

    References
    ----------
    Sundararajan et al., "Axiomatic attribution for deep networks", ICML 2017, sections 3 and 5.
    """

    baseline: Annotated[
        float | Literal["mean", "blur"] | Array,
        Help("where the path begins: a value, the mean colour, the blurred picture, or an array"),
    ] = 0.0
    steps: Annotated[int, Range(1), Help("nodes of the Gauss-Legendre quadrature")] = 50
    batch_size: Annotated[int, Range(1), Help("points that go through the network at once")] = 16

    needs: ClassVar[frozenset[str]] = frozenset({"gradient"})

    def passes(self, model: Model, x: Array) -> int:
        """Say how many forward passes one sample takes, a backward pass counted as two."""
        return 2 + 3 * self.steps

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
        mean = mean_gradient(
            model, start, x, seen.targets, steps=self.steps, batch_size=self.batch_size
        )
        return attributed(seen, (x - start) * mean, reference.scores, x.dtype)
