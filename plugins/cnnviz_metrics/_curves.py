"""The curve of a score over the pixels that have been changed: measured, summed up and drawn."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from cnnviz_core.exhibits import Curves, Exhibit, Line
from cnnviz_core.metric import Explained
from cnnviz_core.model import Array, Model
from cnnviz_core.parameters import Help, Range
from cnnviz_core.targets import Target
from cnnviz_metrics._judging import ScoreOf, each_map, judged
from cnnviz_metrics._rows import Resampled, counted, mean, measured
from cnnviz_metrics.pixel_order import curve_area, step_counts


@dataclass(frozen=True)
class PixelCurve(Resampled):
    """What the metrics have in common that change a picture's pixels in the order of its map."""

    steps: Annotated[int, Range(1), Help("in how many steps all pixels are changed")] = 28
    pixels: Annotated[
        int | None, Range(1), Help("pixels changed in each step; none: as steps says")
    ] = None
    score: ScoreOf = "probability"

    needs: ClassVar[frozenset[str]] = frozenset()
    name: ClassVar[str]
    changed: ClassVar[str]

    @abstractmethod
    def curve(
        self, explained: Explained, row: int, target: Target, map: Array, counts: Array, what: str
    ) -> Array:
        """Score a picture of a batch with ever more of its pixels changed (K + 1,)."""

    def measure(self, explained: Explained) -> Mapping[str, Array]:
        """Measure the maps of a batch.

        Parameters
        ----------
        explained : Explained
            The batch.

        Returns
        -------
        mapping of str to ndarray
            ``curve`` (N, K + 1), the score after each of K steps, with no pixel changed first.
        """
        counts = self._counts(explained.size)
        curves = np.full((len(explained), len(counts)), np.nan)
        targets = judged(explained, self.score)
        for row, map, what in each_map(explained.shown, self.name):
            curves[row] = self.curve(explained, row, targets[row], map, counts, what)
        return {"curve": curves}

    def resample(self, records: Mapping[str, Array], counts: Array) -> Mapping[str, Array]:
        """Sum up data sets in which pictures stand several times; see `resampled`.

        Parameters
        ----------
        records : mapping of str to ndarray
            Those of any number of pictures.
        counts : ndarray (R, N)
            How often each picture stands in each data set.

        Returns
        -------
        mapping of str to ndarray (R,)
            ``auc``, the mean area under the curves; ``start`` and ``end``, the mean scores with no
            pixel changed and with all.
        """
        counts, curves = counted(counts, records["curve"])
        means = mean(counts, curves)
        return {"auc": curve_area(means), "start": means[:, 0], "end": means[:, -1]}

    def curves(self, records: Mapping[str, Array]) -> tuple[Exhibit, ...]:
        """Draw the mean curve, and its standard deviation over the pictures."""
        (curves,) = measured(records["curve"])
        if not len(curves):
            return ()
        line = Line("mean and standard deviation", curves.mean(axis=0), curves.std(axis=0))
        return (
            Curves(
                np.linspace(0, 1, curves.shape[1]),
                (line,),
                title=self.name.capitalize(),
                x_title=f"share of the pixels {self.changed}",
                y_title="probability" if self.score == "probability" else "score",
                y_range=(0, 1) if self.score == "probability" else None,
            ),
        )

    def passes(self, model: Model, x: Array) -> int:
        """Give the forward passes for one map."""
        return len(self._counts(x.shape[1:-1]))

    def _counts(self, size: tuple[int, ...]) -> Array:
        """Give how many pixels of a picture are changed at each point of its curve."""
        return step_counts(math.prod(size), self.steps, self.pixels)
