"""Blur integrated gradients."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from cnnviz_core.blurring import Edges, blurred, largest_sigma
from cnnviz_core.explainer import Maps
from cnnviz_core.gradients import gradients_at
from cnnviz_core.model import Array, Model, as_float
from cnnviz_core.parameters import Help, Range
from cnnviz_core.scoring import score
from cnnviz_core.targets import Target
from cnnviz_gradient.attributions import attributed

__all__ = ["BlurIntegratedGradients"]


@dataclass(frozen=True)
class BlurIntegratedGradients:
    """Gradients integrated along the path from the strongly blurred picture to the picture.

    With ``y`` the target's score and ``x_s`` the picture blurred by a Gaussian of standard
    deviation ``s``, the raw result is the integral of ``-dy / dx (x_s) * dx_s / ds`` for ``s`` from
    0 to the largest blur.

    Parameters
    ----------
    max_sigma : float or None
        The largest blur, in pixels of the network's input; None is a fifth of the longest side, at
        most 50.
    steps : int
        How many steps there are from one end to the other.
    edges : {"mirror", "zero"}
        What the blur sees beyond the edges: the picture mirrored, which keeps its mean colour, or
        zeros in the network's own value range, as in the authors' code.
    batch_size : int
        How many points of the path go through the network at once.

    Notes
    -----
    The path is taken as the chain of chords between the pictures blurred by
    ``max_sigma * (k / steps) ** 2`` for ``k = 0 ... steps``: by squares, since most of what a blur
    takes away goes at small scales.  On each chord the gradient at its middle is multiplied with
    the exact difference of its ends.  So no derivative of a blur is approximated, the moves add up
    to the picture less its blurred self, and the result is complete where the score is quadratic
    along each chord.  (The authors' code takes the gradient at the beginning of equal steps of
    the standard deviation, and a finite difference of the blur there.)

    References
    ----------
    Xu, Venugopalan & Sundararajan, "Attribution in scale and space", CVPR 2020, section 3.
    """

    max_sigma: Annotated[
        float | None,
        Range(0, open_low=True),
        Help("largest blur in pixels; none: a fifth of the longest side, at most 50"),
    ] = None
    steps: Annotated[int, Range(1), Help("steps of the path")] = 50
    edges: Annotated[Edges, Help("beyond the edges: the mirrored picture, or zeros")] = "mirror"
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
            ``extras["completeness_gap"]`` (N,): its sum, less the difference of the scores of the
            sample and of the most blurred.
        """
        x = as_float(x)
        seen = score(model, x, targets)
        largest = largest_sigma(x.shape) if self.max_sigma is None else self.max_sigma
        start = blurred(x, largest, self.edges)
        reference = score(model, start.astype(x.dtype), seen.targets)
        moves: deque[Array] = deque()

        def middles() -> Iterator[Array]:
            near = x.astype(np.float64)
            for k in range(1, self.steps + 1):
                far = blurred(x, largest * (k / self.steps) ** 2, self.edges)
                moves.append(near - far)
                yield ((near + far) / 2).astype(x.dtype)
                near = far

        raw = np.zeros(x.shape)
        for gradient in gradients_at(
            model,
            middles(),
            seen.targets,
            total=self.steps,
            batch_size=self.batch_size,
            what="blurs",
        ):
            raw += moves.popleft() * gradient
        return attributed(seen, raw, reference.scores, x.dtype)
