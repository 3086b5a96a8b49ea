"""Deletion: how soon a score falls as the pixels go that a map ranks highest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from cnnviz_core.fills import Fill, filling
from cnnviz_core.metric import Explained
from cnnviz_core.model import Array, Model
from cnnviz_core.pace import BatchSize
from cnnviz_core.parameters import Help
from cnnviz_core.perturb import score_masked
from cnnviz_core.targets import Target
from cnnviz_metrics._curves import PixelCurve
from cnnviz_metrics.pixel_order import OrderMasks

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
class Deletion(PixelCurve):
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

    fill: Annotated[
        Fill,
        Help(
            "shown in their place: a value, the mean colour, the blurred picture, noise, what is "
            "around continued, or an array"
        ),
    ] = 0.0

    name: ClassVar[str] = "deletion"
    changed: ClassVar[str] = "deleted"

    def curve(
        self, explained: Explained, row: int, target: Target, map: Array, counts: Array, what: str
    ) -> Array:
        """Score a picture of a batch with ever more of its pixels deleted (K + 1,)."""
        return deletion_curve(
            explained.model,
            explained.x[row],
            target,
            map,
            counts,
            fill=self.fill,
            seed=explained.seed,
            batch_size=explained.batch_size,
            what=what,
        )
