"""Deletion: how soon a score falls as the pixels go that a map ranks highest."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from cnnviz_core.exhibits import Exhibit
from cnnviz_core.fills import Fill, filling
from cnnviz_core.metric import Explained
from cnnviz_core.model import Array, Model
from cnnviz_core.pace import BatchSize
from cnnviz_core.parameters import Help, Range
from cnnviz_core.perturb import score_masked
from cnnviz_core.targets import Target
from cnnviz_metrics._curves import draw_curves, summarise_curves
from cnnviz_metrics._judging import ScoreOf, each_map, judged
from cnnviz_metrics.pixel_order import OrderMasks, step_counts

__all__ = ["Deletion", "deletion_curve"]


def deletion_curve(
    model: Model,
    sample: Array,
    target: Target,
    map: Array,
    counts: Array,
    *,
    fill: Fill = 0.0,
    seed: int = 0,
    batch_size: BatchSize = 16,
    what: str = "deletion",
) -> Array:
    """Score a sample without the pixels that a map ranks highest.

    Parameters
    ----------
    model : Model
        The network.
    sample : ndarray (*size, C)
        The sample, in the network's own value range.
    target : Target
        What is scored; resolved.
    map : ndarray (*size)
        The map, finite.  Of equal values those are deleted first that come first row by row.
    counts : ndarray (K,) of int
        How many pixels are deleted at each point of the curve, ascending; see
        `cnnviz_metrics.pixel_order.step_counts`.
    fill : float, str or ndarray
        What is shown in their place; see `cnnviz_core.fills.Fill`.
    seed : int
        For the fill "noise".
    batch_size : int or "auto"
        How many points go through the network at once.
    what : str
        What to call the work in the progress.

    Returns
    -------
    ndarray (K,)
        The scores.

    Raises
    ------
    ArrayError
        If the map is not finite or not of the sample's size, or the fill does not fit.

    References
    ----------
    Petsiuk, Das & Saenko, "RISE: Randomized input sampling for explanation of black-box models",
    BMVC 2018: deletion.
    """
    masks = OrderMasks(map, counts)
    shown = filling(sample, fill, seed)
    scores = score_masked(model, sample, [target], masks, shown, batch_size=batch_size, what=what)
    curve: Array = scores[0]
    return curve


@dataclass(frozen=True)
class Deletion:
    """Area under the score's curve as the pixels are deleted that the map ranks highest.

    The map is taken as its method shows it, at the input's size.  The score is taken after each of
    a number of steps, from the whole picture to the fill alone.  The lower the area, the more the
    first pixels mattered.  A map that is not finite is left out, and one that is the same
    everywhere deletes the pixels row by row.

    Parameters
    ----------
    steps : int
        In how many steps all pixels are deleted; the published numbers have 28.
    pixels : int or None
        How many pixels are deleted in each step instead, as 1792 (28 steps at 224 x 224) or 224.
    fill : float, "mean", "blur", "noise", "inpaint" or ndarray
        What is shown in their place; see `cnnviz_core.fills.Fill`.  The published numbers have 0,
        in the range that the network is given: for most networks the mean colour of their data set.
    score : {"probability", "target"}
        Whether the probability of the explained class is scored, or the explained score itself.
        The published numbers have the probability of the class that is predicted first.

    References
    ----------
    Petsiuk, Das & Saenko, "RISE: Randomized input sampling for explanation of black-box models",
    BMVC 2018: deletion.
    """

    steps: Annotated[int, Range(1), Help("in how many steps all pixels are deleted")] = 28
    pixels: Annotated[
        int | None, Range(1), Help("pixels deleted in each step; none: as steps says")
    ] = None
    fill: Annotated[
        Fill,
        Help(
            "shown in their place: a value, the mean colour, the blurred picture, noise, what is "
            "around continued, or an array"
        ),
    ] = 0.0
    score: ScoreOf = "probability"

    needs: ClassVar[frozenset[str]] = frozenset()

    def measure(self, explained: Explained) -> Mapping[str, Array]:
        """Measure the maps of a batch.

        Parameters
        ----------
        explained : Explained
            The batch.

        Returns
        -------
        mapping of str to ndarray
            ``curve`` (N, K + 1), the score after each of K steps, the whole picture's first.
        """
        counts = step_counts(math.prod(explained.size), self.steps, self.pixels)
        curves = np.full((len(explained), len(counts)), np.nan)
        targets = judged(explained, self.score)
        for row, map, what in each_map(explained.shown, "deletion"):
            curves[row] = deletion_curve(
                explained.model,
                explained.x[row],
                targets[row],
                map,
                counts,
                fill=self.fill,
                seed=explained.seed,
                batch_size=explained.batch_size,
                what=what,
            )
        return {"curve": curves}

    def summarise(self, records: Mapping[str, Array]) -> Mapping[str, float]:
        """Sum up the records of a data set.

        Parameters
        ----------
        records : mapping of str to ndarray
            Those of any number of pictures.

        Returns
        -------
        mapping of str to float
            ``auc``, the mean area under the curves; ``start`` and ``end``, the mean scores of the
            whole pictures and of what is left when all pixels are deleted.
        """
        return summarise_curves(records)

    def curves(self, records: Mapping[str, Array]) -> tuple[Exhibit, ...]:
        """Draw the mean curve."""
        return draw_curves(records, "Deletion", "share of the pixels deleted", self.score)

    def passes(self, model: Model, x: Array) -> int:
        """Give the forward passes for one map."""
        return len(step_counts(math.prod(x.shape[1:-1]), self.steps, self.pixels))
