"""Extremal perturbation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Final, Literal

import numpy as np

from cnnviz_core.blurring import blurred
from cnnviz_core.explainer import Maps
from cnnviz_core.fills import filling
from cnnviz_core.model import Array, Model, as_float
from cnnviz_core.optimisers import RunningMean
from cnnviz_core.parameters import Help, Range
from cnnviz_core.perturb import check_positions
from cnnviz_core.scoring import score
from cnnviz_core.targets import Target
from cnnviz_perturbation.descent import (
    Game,
    Jitter,
    descend,
    found,
    passes_of_game,
)
from cnnviz_perturbation.smooth_masks import SmoothMax

__all__ = ["ExtremalPerturbation", "area_gap"]

_AREAS: Final = (0.05, 0.1, 0.2, 0.4, 0.6, 0.8)

_STRONGEST: Final = 20 / 224
"""The strongest blur, as a share of the longest axis."""

_ALIKE: Final = 1e-4
"""Values of a mask that differ by no more count as equal, lest rounding decide which are larger."""

_FIRST: Final = 0.01
"""The weight of the area at the first step, as a share of that at the end."""


@dataclass(frozen=True, eq=False)
class ExtremalPerturbation:
    """The smooth region of a given area whose sight excites the network most, found by gradients.

    Values on a grid of pivots become a mask by a smooth maximum (`SmoothMax`), so that no mask has
    detail finer than the kernel.  Where the mask is 1 the picture is shown, where it is 0 it is
    wholly perturbed, and in between it is perturbed less.  Gradient descent with momentum minimises
    the share of the score that is missing, plus a growing weight times the mean squared difference
    of the mask's sorted values to those of a mask of ones on the given area and zeros elsewhere.
    The raw map is the mask.

    Parameters
    ----------
    area : float, "all" or ndarray (A,)
        The area, as a share of the picture.  Of several a mask is sought for each, all at once;
        "all" are 0.05, 0.1, 0.2, 0.4, 0.6 and 0.8.  The raw map is then the mean of the masks: the
        smaller the areas in which a pixel is shown, the larger.
    variant : {"preserve", "delete", "dual"}
        Whether the mask is what alone is shown, so that the score stays; what is taken away, so
        that it falls; or both at once.
    fill : float, "blur", "mean", "noise" or ndarray
        What a wholly perturbed picture is: blurred, through `levels` of ever stronger blur; or a
        value, the mean colour, noise or an array, with which the picture is blended.
    levels : int
        How many pictures from the most blurred to the sharp one, between which is interpolated; at
        most one for each pixel of the strongest blur's standard deviation (20 of 224), and one.
    spacing : int or None
        Pixels between pivots; None is a 32nd of the longest axis (7 of 224).
    width : float
        Width of the smooth maximum's kernel, in spacings.
    penalty : float
        The weight of the area at the end; it grows to that from a hundredth, by the same factor
        at each step.
    steps : int
        Steps of the descent, each one forward and one backward pass (two of each where "dual").
    rate : float
        What the running mean of the gradients is multiplied by.
    jitter : int or None
        By how many pixels the picture is moved under the mask at most, at random at each step; None
        is a 56th of the longest axis (4 of 224).
    seed : int
        For jitter and the fill "noise"; every sample gets the same draws.
    batch_size : int
        How many samples go through the network at once.

    Notes
    -----
    Scores count as shares: 0 is the score of the wholly perturbed picture, 1 that of the picture,
    so that one weight of the area fits every network and target.  The authors' code weighs it for
    logits, of which a share is about a fifteenth: from 300, by 1.0035 at each of 800 steps, to
    4900, which is 327 for shares.  It starts at a sixteenth of that at the end, so its masks shrink
    sooner; here the network has longer to say what may go first.  The area is measured over the
    picture, in the authors' code over a margin around it too; pivots lie in the middle of their
    cells, there at a corner; and instead of their mirrored views, which not every network takes for
    the same, the picture is jittered.

    Masks move until the weight of the area is near its end, so nothing is gained by stopping early.
    Differences of rounding grow on the way: on another machine a mask may differ in places, at the
    same area and about the same score.

    References
    ----------
    Fong, Patrick & Vedaldi, "Understanding deep networks via extremal perturbations and smooth
    masks", ICCV 2019, section 3, equations 2 to 5.
    """

    area: Annotated[
        float | Literal["all"] | Array,
        Range(0, 1, open_low=True, open_high=True),
        Help("the mask's share of the picture; several: an array, or all, from 0.05 to 0.8"),
    ] = 0.1
    variant: Annotated[
        Literal["preserve", "delete", "dual"],
        Help("the mask is what is shown alone, what is taken away, or both at once"),
    ] = "preserve"
    fill: Annotated[
        float | Literal["blur", "mean", "noise"] | Array,
        Help("shown outside the mask: a value, blurred picture, mean colour, noise, array"),
    ] = "blur"
    levels: Annotated[int, Range(2), Help("levels of the blur")] = 8
    spacing: Annotated[
        int | None, Range(1), Help("pixels between pivots; none: a 32nd of the longest side")
    ] = None
    width: Annotated[
        float, Range(0, open_low=True), Help("width of the mask's kernel, in spacings")
    ] = 3.0
    penalty: Annotated[float, Range(0), Help("weight of the area at the end")] = 300.0
    steps: Annotated[int, Range(1), Help("steps of the descent")] = 800
    rate: Annotated[float, Range(0, open_low=True), Help("rate of the descent")] = 0.15
    jitter: Annotated[
        int | None, Range(0), Help("pixels the picture is moved by; none: a 56th of the side")
    ] = None
    seed: Annotated[int, Range(0), Help("seed of jitter and noise")] = 0
    batch_size: Annotated[int, Range(1), Help("samples that go through the network at once")] = 16

    needs: ClassVar[frozenset[str]] = frozenset({"gradient"})

    def passes(self, model: Model, x: Array) -> int:
        """Say how many forward passes one sample takes, a backward pass counted as two."""
        return passes_of_game(self.variant, self.steps, len(self._areas()))

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
            With the raw map (N, H, W), of all axes but the last, in [0, 1], and the extras
            "score_kept" and "score_without" (N,), the scores where only the mask is shown and where
            it is taken away; "area" (N,), the mask's mean; and "loss" (N, steps), in which the area
            has the weight of its step.  Of several areas these have an axis more, (N, A) and
            (N, A, steps), and there are "masks" (N, A, H, W) and "areas" (N, A), those asked for.

        Raises
        ------
        ArrayError
            If the samples have no axis to mask, or a fill that is an array does not fit them.
        """
        x = as_float(x)
        check_positions(x)
        size, areas = x.shape[1:-1], self._areas()
        seen = score(model, x, targets)
        game = Game.of(model, seen, self._levels(x), self.variant, self.batch_size)
        game = game.repeated(len(areas))
        spacing = self.spacing or max(1, round(max(size) / 32))
        masks = SmoothMax(size, spacing, self.width * spacing)
        rng = np.random.default_rng(self.seed)
        most = max(size) // 56 if self.jitter is None else self.jitter

        def slope(grids: Array, taken: int) -> tuple[Array, Array]:
            evidence, back = masks.make(grids)
            lost, by_evidence = game.play(evidence, Jitter.draw(rng, x.shape[1:], most, 0.0))
            gap, by_gap = area_gap(evidence, np.tile(areas, len(x)))
            weight = self.penalty * _FIRST ** (1 - taken / self.steps)
            return lost + weight * gap, back(by_evidence + weight * by_gap)

        start = np.ones((len(x) * len(areas), *masks.cells), x.dtype)
        grids, losses = descend(
            start, slope, RunningMean(self.rate), self.steps, what="extremal perturbation"
        )
        maps = found(game, seen, masks.make(grids)[0], losses)
        return (
            maps if isinstance(self.area, float) else _together(maps, np.tile(areas, (len(x), 1)))
        )

    def _areas(self) -> Array:
        """Give the areas of the masks of a sample: (A,)."""
        given = _AREAS if isinstance(self.area, str) else self.area
        return np.atleast_1d(np.asarray(given, dtype=np.float64)).ravel()

    def _levels(self, x: Array) -> Array:
        """Give the batch from wholly perturbed to untouched: (L, N, *size, C)."""
        if isinstance(self.fill, str) and self.fill == "blur":
            strongest = _STRONGEST * max(x.shape[1:-1])
            # A blur by a small part of a pixel changes nothing, and would leave no gradient.
            levels = min(self.levels, 1 + math.ceil(strongest))
            sigmas = np.linspace(strongest, 0, levels)
            return np.stack([blurred(x, sigma).astype(x.dtype) for sigma in sigmas])
        nowhere = np.zeros((1, *x.shape[1:-1]))
        hidden = [filling(sample, self.fill, self.seed).under(nowhere) for sample in x]
        return np.stack([np.stack([np.broadcast_to(h, x.shape[1:]) for h in hidden]), x])


def _together(maps: Maps, areas: Array) -> Maps:
    """Put the masks of several areas (N, A) together, those of a sample in a row."""
    extras = {"masks": maps.raw, **maps.extras}
    split = {k: v.reshape(*areas.shape, *v.shape[1:]) for k, v in extras.items()}
    raw = split["masks"].mean(axis=1)
    return replace(maps, raw=raw, extras={**split, "areas": areas.astype(raw.dtype)})


def area_gap(masks: Array, area: float | Array) -> tuple[Array, Array]:
    """Measure how far masks are from being ones on a given area and zeros elsewhere.

    Parameters
    ----------
    masks : ndarray (N, *size)
        In [0, 1].
    area : float or ndarray (N,)
        The area, for all masks or for each, as a share of the positions.

    Returns
    -------
    gap : ndarray (N,)
        The mean square of the sorted values less ``(0, ..., 0, 1, ..., 1)``.
    gradient : ndarray (N, *size)
        The mean over all orders of equal values: none is preferred for where it lies.

    References
    ----------
    Fong, Patrick & Vedaldi, ICCV 2019, equation 3.
    """
    flat = masks.reshape(len(masks), -1)
    count = flat.shape[1]
    ones = np.broadcast_to(np.rint(area * count).astype(int), len(flat))
    # The least of the largest values, as many as are to be ones.
    last = [min(count - n, count - 1) for n in ones]
    least = np.stack([np.partition(row, k)[[k]] for row, k in zip(flat, last, strict=True)])
    above, tied = flat > least + _ALIKE, np.abs(flat - least) <= _ALIKE
    left = ones[:, None] - above.sum(1, keepdims=True)
    # Of equal values each counts as a one to the same part.
    part = above + tied * (left / tied.sum(1, keepdims=True))
    gap = (flat**2 - part * (2 * flat - 1)).mean(1)
    return gap, (2 / count * (flat - part)).reshape(masks.shape).astype(masks.dtype)
