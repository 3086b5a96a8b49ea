"""Gradients at noisy copies of a sample, of which SmoothGrad and its kin take the moments."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

from cnnviz_core.explainer import Maps, Presentation
from cnnviz_core.gradients import gradients_at
from cnnviz_core.model import Array, Model, as_float
from cnnviz_core.noise import noisy_copies
from cnnviz_core.parameters import Help, Range
from cnnviz_core.scoring import score
from cnnviz_core.targets import Target

__all__ = ["NoisyGradients"]


@dataclass(frozen=True)
class NoisyGradients:
    """A moment of the gradients at noisy copies of each sample.

    The noise is normal, with a share of the sample's range (largest less least value) as standard
    deviation.  The draws depend on the seed and on the sample's shape alone: every sample of a
    batch gets the same, scaled to its own range.
    """

    noise: Annotated[
        float, Range(0), Help("standard deviation of the noise, as a share of the sample's range")
    ] = 0.15
    samples: Annotated[int, Range(1), Help("noisy copies of each sample")] = 25
    seed: Annotated[int, Range(0), Help("seed of the noise")] = 0
    batch_size: Annotated[int, Range(1), Help("copies that go through the network at once")] = 16

    needs: ClassVar[frozenset[str]] = frozenset({"gradient"})

    def passes(self, model: Model, x: Array) -> int:
        """Say how many forward passes one sample takes, a backward pass counted as two."""
        return 1 + 3 * self.samples

    def explain(self, model: Model, x: Array, targets: Sequence[Target]) -> Maps:
        """Explain the targets' scores on a batch.

        Parameters
        ----------
        model : Model
            The network.
        x : ndarray (N, H, W, C)
            The batch; of signals (N, L, C), of volumes (N, D, H, W, C).
        targets : sequence of Target
            One for each sample; what depends on the sample is taken from the one without noise.

        Returns
        -------
        Maps
            With a raw result of the shape of `x`; its largest magnitude over the channels shows.
        """
        x = as_float(x)
        seen = score(model, x, targets)
        gradients = gradients_at(
            model,
            noisy_copies(x, self.noise, self.samples, self.seed),
            seen.targets,
            total=self.samples,
            batch_size=self.batch_size,
            what="noisy copies",
        )
        return Maps(
            raw=self._moment(gradients, x.shape).astype(x.dtype),
            scores=seen.scores,
            targets=seen.targets,
            presentation=Presentation(sign="absolute", reduce="max-abs"),
        )

    def _moment(self, gradients: Iterator[Array], shape: tuple[int, ...]) -> Array:
        """Make the result, in float64, of the gradients at the copies."""
        raise NotImplementedError
