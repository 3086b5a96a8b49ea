"""Global sensitivity analysis of a masked sample: what Sobol indices and HSIC have in common.

A sample is cut into the cells of a coarse grid; how much of each is kept is a random input, and the
score is the output.  How the output depends on each input is the cell's importance.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from cnnviz_core.errors import ArrayError
from cnnviz_core.explainer import Maps
from cnnviz_core.fills import Fill, filling
from cnnviz_core.maps import resize
from cnnviz_core.masks import Masks
from cnnviz_core.model import Array, Model
from cnnviz_core.perturb import distinct_samples, scored_batches
from cnnviz_core.scoring import score
from cnnviz_core.targets import Target

__all__ = ["Estimate", "Upsampling", "Work", "grid_of", "sensitivity_maps"]

Estimate: TypeAlias = Callable[[Array], Mapping[str, Array]]
"""Of the scores (M,) under all masks makes an "index" (K,) for each of K cells, and whatever else
there is to say of each, by name."""

Upsampling: TypeAlias = Literal["nearest", "bilinear"]
"""How a grid of cells is brought to a sample's size."""


@dataclass(frozen=True)
class Work:
    """How a method's masks are put to a network.

    Attributes
    ----------
    fill : float, str or ndarray
        What is shown where a mask takes the sample away; one of `Fill`.
    seed : int
        For a fill that is drawn.
    batch_size : int
        How many masks go through the network at once.
    upsample : {"nearest", "bilinear"}
        How what is found of the cells is brought to the sample's size.
    what : str
        What to call the work in the progress.
    """

    fill: Fill
    seed: int
    batch_size: int
    upsample: Upsampling
    what: str


def grid_of(x: Array, cells: int) -> tuple[int, ...]:
    """Give how many cells there are along each axis of a batch's samples.

    Parameters
    ----------
    x : ndarray (N, H, W, C), (N, L, C) or (N, D, H, W, C)
        The batch.
    cells : int
        How many are wanted.

    Returns
    -------
    tuple of int
        As many as are wanted, or as an axis has positions if they are fewer.

    Raises
    ------
    ArrayError
        If the samples have no axis to be cut into cells.
    """
    if x.ndim < 3:
        raise ArrayError(
            f"a batch of the shape {x.shape} was given",
            "(N, H, W, C), or (N, L, C) or (N, D, H, W, C)",
            "pass pictures, signals or volumes",
        )
    return tuple(min(cells, extent) for extent in x.shape[1:-1])


def sensitivity_maps(
    model: Model,
    x: Array,
    targets: Sequence[Target],
    masks: Masks,
    estimate: Estimate,
    grid: tuple[int, ...],
    work: Work,
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
    masks : Masks
        The design: how much of each cell is kept, in every run.
    estimate : callable
        Makes the cells' indices of one sample's scores for one target; see `Estimate`.
    grid : tuple of int
        How many cells there are along each axis.
    work : Work
        How the masks are put to the network.

    Returns
    -------
    Maps
        With the index as raw map (N, H, W), and what else was estimated as extras of that shape.
    """
    whole = score(model, x, targets)
    found: defaultdict[str, Array] = defaultdict(lambda: np.empty((len(x), *grid)))
    for rows in distinct_samples(x):
        sample = x[rows[0]]
        batches = scored_batches(
            model,
            sample,
            [whole.targets[row] for row in rows],
            masks,
            filling(sample, work.fill, work.seed),
            batch_size=work.batch_size,
            what=f"{work.what}, picture {rows[0] + 1} of {len(x)}",
        )
        scores = np.concatenate([scores for _, scores in batches], axis=1, dtype=np.float64)
        for row, of_row in zip(rows, scores, strict=True):
            for name, values in estimate(of_row).items():
                found[name][row] = values.reshape(grid)
    shown = {
        name: resize(values, x.shape[1:-1], work.upsample).astype(whole.scores.dtype)
        for name, values in found.items()
    }
    return Maps(raw=shown.pop("index"), scores=whole.scores, targets=whole.targets, extras=shown)
