"""Meaningful perturbation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Final, Literal

import numpy as np

from cnnviz_core.explainer import Maps
from cnnviz_core.fills import filling
from cnnviz_core.model import Array, Model, as_float
from cnnviz_core.optimisers import Adam
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
from cnnviz_perturbation.smooth_masks import Interpolated

__all__ = ["MeaningfulPerturbation", "total_variation"]

_PER_CELL: Final = 5 / 8
"""The mask's blur as a share of a cell's side: 5 pixels of 8."""


@dataclass(frozen=True, eq=False)
class MeaningfulPerturbation:
    """The smallest smooth region whose removal takes the score away, found by gradients.

    A coarse grid of evidence ``e`` in [0, 1] is interpolated, blurred a little, and taken away: the
    network is shown ``(1 - e) * x + e * fill``.  Adam minimises the share of the score that is left
    plus ``l1 * mean(e) + tv * TV(e)``.  Scores count as shares: 0 is the score of the fill alone, 1
    that of the picture, and nothing is gained beyond.  With `l1` of 1, evidence is therefore what
    has a larger share of the score than of the picture; with 2, twice as large a share.  The raw
    map is ``e`` at the picture's size, 1 where the evidence is.

    Parameters
    ----------
    variant : {"delete", "preserve", "dual"}
        What the evidence is: what to take away so that the score falls, what to keep so that it
        stays (the share that is missing is minimised), or both at once.
    fill : float, "mean", "blur", "noise" or ndarray
        What is shown in the place of what is taken away; see `cnnviz_core.fills.Fill`, of which an
        inpainted picture is left out, as it changes with the mask.
    cells : int
        Cells of the coarse grid along the longest axis; at most one a pixel.
    l1 : float
        The price of evidence.
    tv : float
        The price of uneven evidence.
    beta : float
        The exponent of the total variation: the larger, the more does it dislike steep edges only.
    steps : int
        Steps of Adam, each one forward and one backward pass (two of each where "dual").
    rate : float
        The size of a step, in the unit of the evidence.
    jitter : int or None
        By how many pixels the picture is moved under the mask at most, at random at each step; None
        is a 56th of the longest axis (4 of 224).
    noise : float
        Standard deviation of the noise that is added to the picture at each step, as a share of its
        range.
    seed : int
        For jitter, noise and the fill "noise"; every sample gets the same draws.
    batch_size : int
        How many samples go through the network at once.

    Notes
    -----
    The paper minimises the probability of a class, which may be asked for as the target
    (`cnnviz_core.targets.ClassProbability`); a class score is a logit, which has no end below, and
    the share makes it one of a scale.  The cells, the mask's blur (5 pixels of 224), `beta`,
    `steps` and `rate` are those of the authors' code.  Its prices are for sums over 28 x 28 cells,
    here they are for means: ``l1=0.078`` and ``tv=7.84`` are the authors' (0.0001 and 0.01 a cell),
    for a probability.

    In the place of what is taken away the authors show the picture blurred by 10 pixels of 224;
    "blur" is stronger here, as for all methods (`cnnviz_core.fills.Fill`), and a picture that was
    blurred otherwise may be given as an array.  They move the picture by 0 to 3 pixels, here it is
    moved by up to `jitter` each way; and noise, where it is asked for, they add to the mask, here
    it is added to the picture.

    It starts in the paper from a centred disk that removes most of the score; here everything is
    evidence at first, which favours no place.  The evidence shrinks until the score answers, so a
    probability that is all but 1 may be asked for too.

    References
    ----------
    Fong & Vedaldi, "Interpretable explanations of black boxes by meaningful perturbation", ICCV
    2017, sections 4.1 to 4.3 and equation 6.
    """

    variant: Annotated[
        Literal["delete", "preserve", "dual"],
        Help("evidence is what to take away, what to keep, or both at once"),
    ] = "delete"
    fill: Annotated[
        float | Literal["mean", "blur", "noise"] | Array,
        Help("shown for what is taken away: a value, mean colour, blurred picture, noise, array"),
    ] = "blur"
    cells: Annotated[int, Range(1), Help("cells of the coarse mask along the longest axis")] = 28
    l1: Annotated[float, Range(0), Help("price of evidence; 1: its share of the picture")] = 2.0
    tv: Annotated[float, Range(0), Help("price of uneven evidence")] = 1.0
    beta: Annotated[float, Range(1), Help("exponent of the total variation")] = 3.0
    steps: Annotated[int, Range(1), Help("steps of the descent")] = 300
    rate: Annotated[float, Range(0, open_low=True), Help("size of a step of Adam")] = 0.1
    jitter: Annotated[
        int | None, Range(0), Help("pixels the picture is moved by; none: a 56th of the side")
    ] = None
    noise: Annotated[float, Range(0), Help("noise at each step, as a share of the range")] = 0.0
    seed: Annotated[int, Range(0), Help("seed of jitter and noise")] = 0
    batch_size: Annotated[int, Range(1), Help("samples that go through the network at once")] = 16

    needs: ClassVar[frozenset[str]] = frozenset({"gradient"})

    def passes(self, model: Model, x: Array) -> int:
        """Say how many forward passes one sample takes, a backward pass counted as two."""
        return passes_of_game(self.variant, self.steps)

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
            "score_kept" and "score_without" (N,), the scores where only the evidence is shown and
            where it is taken away; "area" (N,), the evidence's mean; and "loss" (N, steps).

        Raises
        ------
        ArrayError
            If the samples have no axis to mask, or a fill that is an array does not fit them.
        """
        x = as_float(x)
        check_positions(x)
        size = x.shape[1:-1]
        seen = score(model, x, targets)
        hidden = np.stack([np.broadcast_to(self._fill(sample), sample.shape) for sample in x])
        game = Game.of(
            model, seen, np.stack([hidden, x]), self.variant, self.batch_size, bounded=True
        )
        side = max(size) / self.cells
        cells = tuple(min(n, max(1, round(n / side))) for n in size)
        masks = Interpolated(cells, size, _PER_CELL * max(size) / max(cells))
        rng = np.random.default_rng(self.seed)
        most = max(size) // 56 if self.jitter is None else self.jitter

        def slope(grids: Array, taken: int) -> tuple[Array, Array]:
            evidence, back = masks.make(grids)
            lost, by_evidence = game.play(evidence, Jitter.draw(rng, x.shape[1:], most, self.noise))
            uneven, by_grids = total_variation(grids, self.beta)
            price = self.l1 * grids.reshape(len(x), -1).mean(1) + self.tv * uneven
            return lost + price, back(by_evidence) + self.l1 / np.prod(cells) + self.tv * by_grids

        start = np.ones((len(x), *cells), x.dtype)
        grids, losses = descend(
            start, slope, Adam(self.rate), self.steps, what="meaningful perturbation"
        )
        return found(game, seen, masks.make(grids)[0], losses)

    def _fill(self, sample: Array) -> Array:
        """Give what is shown in the place of a sample."""
        return filling(sample, self.fill, self.seed).under(np.zeros((1, *sample.shape[:-1])))


def total_variation(grids: Array, beta: float) -> tuple[Array, Array]:
    """Measure how uneven grids are, and differentiate that.

    Parameters
    ----------
    grids : ndarray (N, *cells)
        Values.
    beta : float
        At least 1.

    Returns
    -------
    variation : ndarray (N,)
        The sum over neighbours of ``abs(difference) ** beta``, by the number of cells.
    gradient : ndarray (N, *cells)
        With 0 for the derivative of ``abs`` at 0.

    Notes
    -----
    The authors' code takes the length of both differences at a cell to that power.

    References
    ----------
    Fong & Vedaldi, ICCV 2017, equation 4.
    """
    count = grids[0].size
    variation, gradient = np.zeros(len(grids), grids.dtype), np.zeros_like(grids)
    for axis in range(1, grids.ndim):
        rise = np.diff(grids, axis=axis)
        variation += (np.abs(rise) ** beta).reshape(len(grids), -1).sum(1) / count
        push = beta * np.abs(rise) ** (beta - 1) * np.sign(rise) / count
        ends = [(1, 1) if i == axis else (0, 0) for i in range(grids.ndim)]
        gradient -= np.diff(np.pad(push, ends), axis=axis)
    return variation, gradient
