"""Occlusion sensitivity."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np

from cnnviz_core.errors import ArrayError
from cnnviz_core.explainer import Maps
from cnnviz_core.model import Array, Model
from cnnviz_core.parameters import Help, Range
from cnnviz_core.perturb import distinct_samples, score_masked
from cnnviz_core.scoring import score
from cnnviz_core.targets import Target
from cnnviz_core.windows import Windows

__all__ = ["Occlusion"]


@dataclass(frozen=True)
class Occlusion:
    """Drop of the score when a window of the picture is covered.

    A window slides over the picture; where it covers it, the fill is shown instead.  The raw map at
    a pixel is the mean, over the windows that cover the pixel, of the score of the whole picture
    less its score under the window.  The last window of a row or column lies flush with the edge,
    so every pixel is covered.  On signals and volumes the window slides along their one or three
    axes.

    Parameters
    ----------
    window : int or None
        Side of the window along every axis, in pixels of the network's input; None is a seventh of
        the picture's shortest side (32 of 224).  An axis that is shorter is covered whole.
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
            The batch; of signals (N, L, C), of volumes (N, D, H, W, C).
        targets : sequence of Target
            One for each sample.

        Returns
        -------
        Maps
            With the raw map (N, H, W), of all axes but the last: positive where covering the pixel
            lowers the score.

        Raises
        ------
        ArrayError
            If the samples have no axis for a window to slide along.
        ParameterError
            If the stride is larger than the window.
        """
        if x.ndim < 3:
            raise ArrayError(
                f"a batch of the shape {x.shape} was given",
                "(N, H, W, C), or (N, L, C) or (N, D, H, W, C)",
                "pass pictures, signals or volumes",
            )
        whole = score(model, x, targets)
        raw = np.empty(x.shape[:-1], dtype=whole.scores.dtype)
        for rows in distinct_samples(x):
            asked = [whole.targets[row] for row in rows]
            what = f"occlusion, picture {rows[0] + 1} of {len(x)}"
            raw[rows] = self._maps(model, x[rows[0]], asked, whole.scores[rows], what)
        return Maps(raw=raw, scores=whole.scores, targets=whole.targets)

    def passes(self, model: Model, x: Array) -> int:
        """Give the forward passes for one sample."""
        return len(self._windows(x.shape[1:-1])) + 1

    def _windows(self, grid: tuple[int, ...]) -> Windows:
        """Give what each window covers."""
        return Windows.over(grid, self.window, self.stride)

    def _maps(
        self, model: Model, x: Array, targets: Sequence[Target], whole: Array, what: str
    ) -> Array:
        """Make one sample's maps for several targets."""
        grid = x.shape[:-1]
        windows = self._windows(grid)

        def masks() -> Iterator[Array]:
            for window in windows:
                mask = np.ones(grid, dtype=x.dtype)
                mask[window] = 0
                yield mask

        fill = x.mean(tuple(range(len(grid)))) if self.fill == "mean" else np.asarray(self.fill)
        under = score_masked(
            model,
            x,
            targets,
            masks(),
            fill,
            total=len(windows),
            batch_size=self.batch_size,
            what=what,
        )
        return windows.mean(whole[:, None] - under)
