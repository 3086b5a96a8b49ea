"""XRAI."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from cnnviz_core.bounds import End, bounds_of
from cnnviz_core.errors import ArrayError
from cnnviz_core.explainer import Maps
from cnnviz_core.gradients import mean_gradient
from cnnviz_core.model import Array, Model, as_float
from cnnviz_core.parameters import Help, Range
from cnnviz_core.perturb import each_sample
from cnnviz_core.scoring import score
from cnnviz_core.targets import Target
from cnnviz_perturbation.growing import grown, overlapping_segments

__all__ = ["XRAI"]


@dataclass(frozen=True, eq=False)
class XRAI:
    """Segments of the picture in the order of the attribution that they hold for their area.

    Each pixel is attributed the mean of integrated gradients from black and from white, summed over
    the channels.  The picture is cut into segments at six scales, widened by some pixels so that
    they include their edges.  The picture is then covered by segments, always by that of which the
    pixels that are not covered yet have the largest mean attribution.

    The raw map is the share of the picture that is not yet covered when a pixel's turn comes: 1 in
    the first segment, and above ``1 - p`` in those regions with which the first share ``p`` of the
    picture is covered.

    Parameters
    ----------
    low, high : float, ndarray (C,), or None
        Black and white, for all channels or for each, in the network's own value range.  None is
        what the picture's preprocessing makes of them; where none is known, the sample's least and
        largest value.
    steps : int
        Nodes of the Gauss-Legendre quadrature, for each of the two ends.
    dilation : float
        By how many pixels segments are widened, for a picture of 224 x 224; scaled with the
        picture.
    batch_size : int
        How many points of the lines go through the network at once.

    Notes
    -----
    The numbers of the segmentation (scales 50, 100, 150, 250, 500 and 1200 of values in [-1, 1], at
    least 150 pixels, at least 50 new ones) are those of the authors' code, which takes the largest
    of a pixel's channels where their sum is taken here, and brings the picture to 224 x 224 where
    here the numbers are scaled with it.

    References
    ----------
    Kapishnikov et al., "XRAI: better attributions through regions", ICCV 2019.
    """

    low: Annotated[End, Help("value of black; none is that of the preprocessing, if known")] = None
    high: Annotated[End, Help("value of white; none is that of the preprocessing, if known")] = None
    steps: Annotated[int, Range(1), Help("nodes of the quadrature, for each of the two ends")] = 50
    dilation: Annotated[
        float, Range(0), Help("pixels by which segments are widened, of a picture of 224 x 224")
    ] = 5.0
    batch_size: Annotated[int, Range(1), Help("points that go through the network at once")] = 16

    needs: ClassVar[frozenset[str]] = frozenset({"gradient"})

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
            With the raw map (N, H, W), in (0, 1], and the extras "regions" (N, H, W) of int, by
            which region in order a pixel is covered, from 0, and "density" (N, H, W), the mean
            attribution of the pixels that a region added.

        Raises
        ------
        ArrayError
            If the samples are no pictures.
        ParameterError
            If only one of the two ends is given, one does not fit the input, or no value lies
            between them.
        """
        if x.ndim != 4:
            raise ArrayError(
                f"a batch of the shape {x.shape} was given",
                "pictures, (N, H, W, C)",
                "use hierarchical-occlusion for signals and volumes",
            )
        x = as_float(x)
        whole = score(model, x, targets)
        raw = np.empty(x.shape[:-1], dtype=whole.scores.dtype)
        regions, density = np.empty(raw.shape, dtype=int), np.empty_like(raw)
        bounds = bounds_of(self.low, self.high, x.shape[-1])
        for rows, sample, what in each_sample(x, "xrai"):
            least, most = bounds or ((float(sample.min()),), (float(sample.max()),))
            ends = np.stack(np.broadcast_arrays(least, most))
            segments = overlapping_segments(_colours(sample, *ends), self.dilation)
            for row in rows:
                attribution = self._attribution(model, sample, whole.targets[row], ends, what)
                regions[row] = grown(segments, attribution)
                raw[row], density[row] = _shown(regions[row], attribution)
        extras = {"regions": regions, "density": density}
        return Maps(raw=raw, scores=whole.scores, targets=whole.targets, extras=extras)

    def passes(self, model: Model, x: Array) -> int:
        """Say how many forward passes one sample takes, a backward pass counted as two."""
        return 1 + 2 * 3 * self.steps

    def _attribution(self, model: Model, x: Array, target: Target, ends: Array, what: str) -> Array:
        """Average integrated gradients from two ends (2, C), summed over channels: (H, W)."""
        start = np.broadcast_to(ends[:, None, None], (2, *x.shape))
        mean = mean_gradient(
            model,
            start,
            np.stack([x, x]),
            [target, target],
            steps=self.steps,
            batch_size=self.batch_size,
            what=what,
        )
        attribution: Array = ((x - start) * mean).sum(axis=(0, -1)) / 2
        return attribution


def _colours(x: Array, low: Array, high: Array) -> Array:
    """Bring a sample's values to [-1, 1]."""
    spread = np.where(high == low, 1, high - low)
    colours: Array = 2 * (x - low) / spread - 1
    return colours


def _shown(regions: Array, attribution: Array) -> tuple[Array, Array]:
    """Give the share that is not covered before each pixel's region, and the region's density."""
    areas = np.bincount(regions.ravel())
    before = np.cumsum(areas) - areas
    density = np.bincount(regions.ravel(), weights=attribution.ravel()) / areas
    return (1 - before / regions.size)[regions], density[regions]
