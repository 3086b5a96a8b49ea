"""Occlusion sensitivity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from cnnviz_core.explainer import Maps
from cnnviz_core.fills import Fill, filling
from cnnviz_core.masks import WindowMasks
from cnnviz_core.model import Array, Model
from cnnviz_core.pace import BatchSize
from cnnviz_core.parameters import Help, Range
from cnnviz_core.perturb import check_positions, each_sample, score_masked
from cnnviz_core.scoring import score
from cnnviz_core.targets import Target
from cnnviz_core.windows import Shape, Windows

__all__ = ["Occlusion"]


@dataclass(frozen=True)
class Occlusion:
    """Drop of the score when a window of the picture is covered.

    A window slides over the picture; where it covers it, the fill is shown instead.  The raw map at
    a pixel is the mean, over the windows that cover the pixel, of the score of the whole picture
    less its score under the window.  Every pixel is covered: the last box of a row or column lies
    flush with the edge, and discs reach over the edges.  On signals and volumes the window slides
    along their one or three axes.  Whether it is a logit or a probability that drops is a matter
    of the target, as `ClassScore` and `ClassProbability`.

    Parameters
    ----------
    window : int or None
        Side of the window along every axis, in pixels of the network's input; None is a seventh of
        the picture's shortest side (32 of 224).  An axis that is shorter is covered whole by boxes.
    stride : int or None
        Step of the window in pixels; None is a quarter of the window.  At most the window; of discs
        at most the box inscribed in one, some 0.7 of the window on pictures and 0.57 on volumes.
    shape : {"box", "disc"}
        What of the window is covered: all of it, or the disc inscribed in it (of volumes the ball),
        which has no corners that a network could take for an object's.
    fill : float, "mean", "blur", "noise", "inpaint" or ndarray
        What is shown under the window; see `cnnviz_core.fills.Fill`.
    seed : int
        For the fill "noise".
    batch_size : int or "auto"
        How many windows go through the network at once; "auto" measures what pays.

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
    shape: Annotated[Shape, Help("what is covered: the window, or the disc inscribed in it")] = (
        "box"
    )
    fill: Annotated[
        Fill,
        Help(
            "shown under the window: a value, the mean colour, the blurred picture, noise, what is "
            "around continued, or an array"
        ),
    ] = "mean"
    seed: Annotated[int, Range(0), Help("for the fill noise")] = 0
    batch_size: Annotated[
        BatchSize, Range(1), Help("windows that go through the network at once")
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
            With the raw map (N, H, W), of all axes but the last: positive where covering the pixel
            lowers the score; and in its extras ``drops`` (N, rows, columns), of as many axes: by
            how much the score drops under each window.

        Raises
        ------
        ArrayError
            If the samples have no axis for a window to slide along, or the fill does not broadcast
            to a sample.
        ParameterError
            If the stride is so large that some pixels would not be covered.
        """
        check_positions(x)
        windows = self._windows(x)
        whole = score(model, x, targets)
        raw = np.empty(x.shape[:-1], dtype=whole.scores.dtype)
        drops = np.empty((len(x), len(windows)), dtype=whole.scores.dtype)
        for rows, sample, what in each_sample(x, "occlusion"):
            covered = score_masked(
                model,
                sample,
                [whole.targets[row] for row in rows],
                WindowMasks(windows),
                filling(sample, self.fill, self.seed),
                batch_size=self.batch_size,
                what=what,
            )
            drops[rows] = whole.scores[rows, None] - covered
            raw[rows] = windows.mean(drops[rows])
        return Maps(
            raw=raw,
            scores=whole.scores,
            targets=whole.targets,
            extras={"drops": drops.reshape(-1, *windows.grid)},
        )

    def passes(self, model: Model, x: Array) -> int:
        """Give the forward passes for one sample."""
        return len(self._windows(x)) + 1

    def _windows(self, x: Array) -> Windows:
        """Lay the windows over the samples of a batch."""
        return Windows.over(x.shape[1:-1], self.window, self.stride, self.shape)
