"""Occlusion sensitivity."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Annotated, ClassVar, Literal

import numpy as np

from cnnviz_core.errors import ArrayError, ParameterError
from cnnviz_core.explainer import Maps
from cnnviz_core.model import Array, Model
from cnnviz_core.parameters import Help, Range
from cnnviz_core.perturb import distinct_samples, score_masked
from cnnviz_core.scoring import score
from cnnviz_core.targets import Target

__all__ = ["Occlusion"]


@dataclass(frozen=True)
class Occlusion:
    """Drop of the score when a window of the picture is covered.

    A window slides over the picture; where it covers it, the fill is shown instead.  The raw map at
    a pixel is the mean, over the windows that cover the pixel, of the score of the whole picture
    less its score under the window.  The last window of a row or column lies flush with the edge,
    so every pixel is covered.

    Parameters
    ----------
    window : int or None
        Side of the window in pixels of the network's input; None is a seventh of the picture's
        shorter side (32 of 224).
    stride : int or None
        Step of the window in pixels; None is a quarter of the window.
    fill : float or "mean"
        What is shown under the window: a value in the network's own input range, or the sample's
        mean colour.
    batch_size : int
        How many windows go through the network at once.

    References
    ----------
    Zeiler & Fergus, "Visualizing and understanding convolutional networks", ECCV 2014, section 4.2.
    """

    window: Annotated[
        int | None, Range(1), Help("side of the window in pixels; none: a seventh of the side")
    ] = None
    stride: Annotated[
        int | None, Range(1), Help("step of the window in pixels; none: a quarter of the window")
    ] = None
    fill: Annotated[
        float | Literal["mean"], Help("value shown under the window, or the picture's mean colour")
    ] = "mean"
    batch_size: Annotated[int, Range(1), Help("windows that go through the network at once")] = 16

    needs: ClassVar[frozenset[str]] = frozenset()

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
            With the raw map (N, H, W): positive where covering the pixel lowers the score.

        Raises
        ------
        ArrayError
            If the batch is not one of pictures.
        ParameterError
            If the stride is larger than the window.
        """
        if x.ndim != 4:
            raise ArrayError(
                f"a batch of the shape {x.shape} was given", "(N, H, W, C)", "pass pictures"
            )
        whole = score(model, x, targets)
        raw = np.empty(x.shape[:3], dtype=whole.scores.dtype)
        for rows in distinct_samples(x):
            asked = [whole.targets[row] for row in rows]
            what = f"occlusion, picture {rows[0] + 1} of {len(x)}"
            raw[rows] = self._maps(model, x[rows[0]], asked, whole.scores[rows], what)
        return Maps(raw=raw, scores=whole.scores, targets=whole.targets)

    def _maps(
        self, model: Model, x: Array, targets: Sequence[Target], whole: Array, what: str
    ) -> Array:
        """Make one sample's maps for several targets."""
        height, width = x.shape[:2]
        side = self.window or max(1, min(height, width) // 7)
        stride = self.stride or max(1, side // 4)
        if stride > side:
            raise ParameterError(
                f"stride={stride} is larger than window={side}: some pixels would never be covered",
                "a stride of at most the window",
                f"pass stride={max(1, side // 4)}, or leave it out",
            )
        tall, wide = min(side, height), min(side, width)
        corners = list(product(_starts(height, tall, stride), _starts(width, wide, stride)))

        def masks() -> Iterator[Array]:
            for i, j in corners:
                mask = np.ones((height, width), dtype=x.dtype)
                mask[i : i + tall, j : j + wide] = 0
                yield mask

        fill = x.mean((0, 1)) if self.fill == "mean" else np.asarray(self.fill)
        under = score_masked(
            model,
            x,
            targets,
            masks(),
            fill,
            total=len(corners),
            batch_size=self.batch_size,
            what=what,
        )
        drop = np.zeros((len(targets), height, width))
        covered = np.zeros((height, width))
        for (i, j), values in zip(corners, under.T, strict=True):
            drop[:, i : i + tall, j : j + wide] += (whole - values)[:, None, None]
            covered[i : i + tall, j : j + wide] += 1
        return (drop / covered).astype(under.dtype)


def _starts(size: int, window: int, stride: int) -> list[int]:
    """Give the window's positions along one axis, the last one flush with the edge."""
    last = size - window
    return [*range(0, last, stride), last]
