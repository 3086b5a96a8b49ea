"""A method on noisy copies: SmoothGrad, its square, and VarGrad, of any method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import numpy as np

from cnnviz_core.explainer import Maps, passes_of
from cnnviz_core.model import Array, Model, as_float
from cnnviz_core.noise import noisy_copies
from cnnviz_core.parameters import Help, Range
from cnnviz_core.scoring import score
from cnnviz_core.targets import Target
from cnnviz_wrapper.wrapping import Wrapper, explain_copies

__all__ = ["NoiseTunnel"]


@dataclass(frozen=True)
class NoiseTunnel(Wrapper):
    """Mean, mean square or variance of a method's results on noisy copies.

    With ``M(x)`` the inner method's raw result and ``e_k`` noise, whose standard deviation is a
    fraction of the range ``max x - min x`` of each sample, the raw result is, value by value,

    - "mean": ``1/n sum_k M(x + e_k)``, of the gradient SmoothGrad;
    - "mean-square": ``1/n sum_k M(x + e_k)^2``, SmoothGrad-squared;
    - "variance": ``1/n sum_k (M(x + e_k) - mean)^2``, VarGrad; zero of a single copy.

    The targets are fixed on the sample without noise, and the scores are the sample's own.  It is
    shown as the inner method's results are; squares and variances have no sign.

    Parameters
    ----------
    of : str
        The inner method: its name, or its name and parameters, "occlusion(window=48, stride=16)".
    layer : str
        The layer that the inner method looks at, if it looks at one.
    batch_size : int
        How many noisy copies go through the network at once.
    combine : {"mean", "mean-square", "variance"}
        What is made of the copies' results.
    samples : int
        How many copies.
    noise : float
        Standard deviation of the noise, as a fraction of each sample's range.
    seed : int
        Of the noise, which is the same for every sample of a batch.

    References
    ----------
    Smilkov et al., "SmoothGrad: removing noise by adding noise", 2017: the mean.
    Hooker et al., "A benchmark for interpretability methods in deep neural networks", NeurIPS 2019:
    the mean square.  Adebayo et al., "Local explanation methods for deep neural networks lack
    sensitivity to parameter values", ICLR workshop 2018: the variance.
    Kokhlikyan et al., "Captum: a unified and generic model interpretability library for PyTorch",
    2020, has the name.
    """

    combine: Annotated[
        Literal["mean", "mean-square", "variance"], Help("what is made of the copies' results")
    ] = "mean"
    samples: Annotated[int, Range(1), Help("noisy copies")] = 25
    noise: Annotated[
        float, Range(0), Help("standard deviation of the noise, as a fraction of a sample's range")
    ] = 0.15
    seed: Annotated[int, Range(0), Help("seed of the noise")] = 0

    def passes(self, model: Model, x: Array) -> int:
        """Say how much work one sample takes.

        Parameters
        ----------
        model : Model
            The network.
        x : ndarray (N, ...)
            The batch.

        Returns
        -------
        int
            In forward passes: one for the scores, and the inner method's for each copy.
        """
        return 1 + self.samples * passes_of(self.inner, model, x)

    def explain(self, model: Model, x: Array, targets: Sequence[Target]) -> Maps:
        """Explain the targets' scores on a batch.

        Parameters
        ----------
        model : Model
            The network.
        x : ndarray (N, H, W, C)
            The batch.
        targets : sequence of Target
            One for each sample.

        Returns
        -------
        Maps
            With a raw result of the inner method's shape, without its extras.

        Raises
        ------
        CnnvizError
            As the inner method does.
        """
        inner, x = self.inner, as_float(x)
        whole = score(model, x, targets)
        copies = noisy_copies(x, self.noise, self.samples, self.seed)
        parts = explain_copies(
            inner,
            model,
            ((noisy, whole.targets) for noisy in copies),
            samples=len(x),
            total=self.samples,
            batch_size=self.batch_size,
            what=f"noise-tunnel of {self.of}",
        )
        mean: Any = 0.0
        squares: Any = 0.0
        # Welford's way: the squared distances from the mean of those seen so far.
        with np.errstate(over="ignore", invalid="ignore"):
            for k, part in enumerate(parts, 1):
                value = part.raw.astype(np.float64)
                step = value - mean
                mean = mean + step / k
                squares = squares + step * (value - mean)
            variance = squares / self.samples
            combined = {
                "mean": lambda: mean,
                "variance": lambda: variance,
                "mean-square": lambda: variance + mean**2,
            }[self.combine]()
        how = part.presentation
        return Maps(
            raw=combined.astype(part.raw.dtype),
            scores=whole.scores,
            targets=whole.targets,
            layer=part.layer,
            presentation=how if self.combine == "mean" else replace(how, sign="positive"),
            notes=part.notes,
        )
