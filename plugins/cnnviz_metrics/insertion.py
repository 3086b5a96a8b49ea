"""Insertion: how soon a score rises as the pixels come that a map ranks highest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Final, Literal, TypeAlias

import numpy as np

from cnnviz_core.fills import Fill, Filling, Fixed, filling
from cnnviz_core.metric import Explained
from cnnviz_core.model import Array, Model
from cnnviz_core.pace import BatchSize
from cnnviz_core.parameters import Help
from cnnviz_core.perturb import score_masked
from cnnviz_core.targets import Target
from cnnviz_metrics._curves import PixelCurve
from cnnviz_metrics.pixel_order import OrderMasks

__all__ = ["Canvas", "Insertion", "insertion_curve", "small_blur"]

Canvas: TypeAlias = Fill | Literal["small-blur"]
"""Into what pixels are inserted: a `cnnviz_core.fills.Fill`, or what `small_blur` gives."""

_SIDE: Final = 11
_SIGMA: Final = 5.0


def small_blur(sample: Array) -> Array:
    """Blur a sample as the published numbers of insertion have it.

    Parameters
    ----------
    sample : ndarray (*size, C)
        The sample.

    Returns
    -------
    ndarray (*size, C)
        Of its type: the sample with zeros around it, convolved along each axis with 11 weights.
        They are a Gaussian of the standard deviation 5 whose tails are folded back at their ends,
        so that they sum to 1.

    References
    ----------
    Petsiuk, Das & Saenko, "RISE: Randomized input sampling for explanation of black-box models",
    BMVC 2018, and the code published with it.
    """
    from scipy.ndimage import convolve1d, gaussian_filter1d

    middle = np.zeros(_SIDE)
    middle[_SIDE // 2] = 1
    weights = gaussian_filter1d(middle, _SIGMA)
    made = sample.astype(np.float64)
    for axis in range(sample.ndim - 1):
        made = convolve1d(made, weights, axis=axis, mode="constant")
    return made.astype(sample.dtype)


def _canvas(sample: Array, start: Canvas, seed: int) -> Filling:
    """Make that into which pixels are inserted."""
    if isinstance(start, str) and start == "small-blur":
        return Fixed(small_blur(sample))
    return filling(sample, start, seed)


def insertion_curve(
    model: Model,
    sample: Array,
    target: Target,
    map: Array,
    counts: Array,
    *,
    start: Canvas = "small-blur",
    seed: int = 0,
    batch_size: BatchSize = 16,
    what: str = "insertion",
) -> Array:
    """Score what a sample is to begin with and the pixels that a map ranks highest.

    Parameters
    ----------
    model : Model
        The network.
    sample : ndarray (*size, C)
        The sample, in the network's own value range.
    target : Target
        What is scored; resolved.
    map : ndarray (*size)
        The map, finite.  Of equal values those are inserted first that come first row by row.
    counts : ndarray (K,) of int
        How many pixels are inserted at each point of the curve, ascending; see
        `cnnviz_metrics.pixel_order.step_counts`.
    start : "small-blur", float, str or ndarray
        Into what they are inserted: see `Canvas`.
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
    BMVC 2018: insertion.
    """
    masks = OrderMasks(map, counts, keep=True)
    canvas = _canvas(sample, start, seed)
    scores = score_masked(model, sample, [target], masks, canvas, batch_size=batch_size, what=what)
    curve: Array = scores[0]
    return curve


@dataclass(frozen=True)
class Insertion(PixelCurve):
    """Area under the score's curve as the pixels are inserted that the map ranks highest.

    The map is taken as its method shows it, at the input's size.  The score is taken after each of
    a number of steps, from the blurred picture to the picture itself.  The higher the area, the
    more the first pixels sufficed.  A map that is not finite is left out, and one that is the same
    everywhere inserts the pixels row by row.

    Parameters
    ----------
    steps : int
        In how many steps all pixels are inserted; the published numbers have 28.
    pixels : int or None
        How many pixels are inserted in each step instead, as 1792 (28 steps at 224 x 224) or 224.
    start : "small-blur", float, "mean", "blur", "noise", "inpaint" or ndarray
        Into what they are inserted: what `small_blur` gives, as the published numbers have it, or
        one of `cnnviz_core.fills.Fill`.
    score : {"probability", "target"}
        Whether the probability of the explained class is scored, or the explained score itself.
        The published numbers have the probability of the class that is predicted first.

    References
    ----------
    Petsiuk, Das & Saenko, "RISE: Randomized input sampling for explanation of black-box models",
    BMVC 2018: insertion.
    """

    start: Annotated[
        Canvas,
        Help(
            "into what they are inserted: the picture blurred a little, a value, the mean colour, "
            "the picture blurred much, noise, what is around continued, or an array"
        ),
    ] = "small-blur"

    name: ClassVar[str] = "insertion"
    changed: ClassVar[str] = "inserted"

    def curve(
        self, explained: Explained, row: int, target: Target, map: Array, counts: Array, what: str
    ) -> Array:
        """Score a picture of a batch with ever more of its pixels inserted (K + 1,)."""
        return insertion_curve(
            explained.model,
            explained.x[row],
            target,
            map,
            counts,
            start=self.start,
            seed=explained.seed,
            batch_size=explained.batch_size,
            what=what,
        )
