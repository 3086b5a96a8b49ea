"""Global sensitivity analysis of a masked sample: what Sobol indices and HSIC have in common.

A sample is cut into the cells of a coarse grid; how much of each is kept is a random input, and the
score is the output.  How the output depends on each input is the cell's importance.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from cnnviz_core.explainer import Maps
from cnnviz_core.fills import Fill, filling
from cnnviz_core.maps import resize
from cnnviz_core.masks import Masks
from cnnviz_core.model import Array, Model
from cnnviz_core.pace import BatchSize
from cnnviz_core.perturb import each_sample, scored_batches
from cnnviz_core.sampling import LEAST, Refit, by_target, sampled
from cnnviz_core.scoring import score
from cnnviz_core.targets import Target

__all__ = ["Design", "Upsampling", "Work", "sensitivity_maps"]

Upsampling: TypeAlias = Literal["nearest", "bilinear"]
"""How a grid of cells is brought to a sample's size."""


@dataclass(frozen=True, eq=False)
class Design:
    """Which masks there are, and what follows from the scores under them.

    Attributes
    ----------
    masks : Masks
        How much of each cell is kept, in every run.
    grid : tuple of int
        How many cells there are along each axis.
    fit : callable
        Of one sample's scores (n,) for one target, under the first n masks, makes a "value" (K,)
        for each of K cells, its "standard_error", and whatever else there is to say of each.
    points : sequence of int
        After how many samples it is fitted, the last of them all.
    each : int
        How many masks make a sample.
    least : int
        The samples before which nothing is stopped.
    """

    masks: Masks
    grid: tuple[int, ...]
    fit: Callable[[Array], Mapping[str, Array]]
    points: Sequence[int]
    each: int = 1
    least: int = LEAST


@dataclass(frozen=True)
class Work:
    """How a method's masks are put to a network.

    Attributes
    ----------
    fill : float, str or ndarray
        What is shown where a mask takes the sample away; one of `Fill`.
    seed : int
        For a fill that is drawn.
    batch_size : int or "auto"
        How many masks go through the network at once; "auto" measures what pays.
    upsample : {"nearest", "bilinear"}
        How what is found of the cells is brought to the sample's size.
    tolerance : float or None
        The largest standard error at which to stop, as a share of the range of the cells' values.
    what : str
        What to call the work in the progress.
    """

    fill: Fill
    seed: int
    batch_size: BatchSize
    upsample: Upsampling
    tolerance: float | None
    what: str


def sensitivity_maps(
    model: Model, x: Array, targets: Sequence[Target], design: Design, work: Work
) -> Maps:
    """Score every sample of a batch under the same masks, and map what follows for the cells.

    Parameters
    ----------
    model : Model
        The network.
    x : ndarray (N, H, W, C)
        The batch; of signals (N, L, C), of volumes (N, D, H, W, C).
    targets : sequence of Target
        One for each sample.
    design : Design
        The masks, and what follows from the scores under them.
    work : Work
        How the masks are put to the network.

    Returns
    -------
    Maps
        With the cells' values as raw map (N, H, W), and what else was found as extras of that
        shape, together with "samples" (N,) and "history" (N, 32, 2); see
        `cnnviz_core.sampling.Sampled`.
    """
    whole = score(model, x, targets)
    found: dict[str, Array] = {}
    for rows, sample, what in each_sample(x, work.what):
        batches = scored_batches(
            model,
            sample,
            [whole.targets[row] for row in rows],
            design.masks,
            filling(sample, work.fill, work.seed),
            batch_size=work.batch_size,
            what=what,
        )
        seen = sampled(
            batches,
            Refit(by_target(design.fit)),
            design.points,
            work.tolerance,
            each=design.each,
            least=design.least,
        )
        for name, values in seen.named().items():
            empty = np.empty((len(x), *values.shape[1:]), values.dtype)
            found.setdefault(name, empty)[rows] = values
    shown = {
        name: _shown(values, design.grid, x.shape[1:-1], work.upsample).astype(whole.scores.dtype)
        for name, values in found.items()
        if values.ndim == 2
    }
    return Maps(
        raw=shown.pop("value"),
        scores=whole.scores,
        targets=whole.targets,
        extras={**shown, "samples": found["samples"], "history": found["history"]},
    )


def _shown(values: Array, grid: tuple[int, ...], size: tuple[int, ...], how: Upsampling) -> Array:
    """Bring what was found of the cells (N, K) to the samples' size."""
    return resize(values.reshape(-1, *grid), size, how)
