"""Scoring a sample under many changes, in bounded memory: the loops under occlusion and its kin."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import cast

import numpy as np

from cnnviz_core.ablated import Ablated
from cnnviz_core.blended import BLEND, Blended, blend
from cnnviz_core.errors import ArrayError
from cnnviz_core.fills import Filling, Fixed
from cnnviz_core.mask_forms import MaskForm, NumPyArrays, draw
from cnnviz_core.masks import Masks
from cnnviz_core.model import LOGITS, OUTPUT, Array, Model
from cnnviz_core.pace import BatchSize, in_pace
from cnnviz_core.progress import advance
from cnnviz_core.targets import Target, scores_of, target_node

__all__ = [
    "check_positions",
    "distinct_samples",
    "each_sample",
    "score_masked",
    "score_replaced",
    "scored_batches",
]


def scored_batches(
    model: Model,
    x: Array,
    targets: Sequence[Target],
    masks: Masks,
    fill: Filling,
    *,
    batch_size: BatchSize = 16,
    what: str = "masks",
) -> Iterator[tuple[MaskForm, Array]]:
    """Score one sample under many masks, and hand on what was found a batch at a time.

    Where a mask is 1 the sample is kept, where it is 0 the fill is shown, and in between the two
    are blended: ``mask * x + (1 - mask) * fill``.  A model that can ("blend") does this where the
    network computes.

    Parameters
    ----------
    model : Model
        The network.
    x : ndarray (H, W, C)
        One sample, in the network's own value range; of signals (L, C), of volumes (D, H, W, C).
    targets : sequence of Target
        What is scored, all about one node; resolved.  They share the passes.
    masks : Masks
        Of the size of `x` without its last axis.
    fill : Filling
        What is shown in the place of the sample.
    batch_size : int or "auto"
        How many masks go through the network at once; "auto" measures what pays.
    what : str
        What to call the work in the progress.

    Yields
    ------
    masks : MaskForm
        Some of the masks (n, H, W), in order; `cnnviz_core.mask_forms.draw` makes them.
    scores : ndarray (T, n)
        Each target's score under each of them.

    Raises
    ------
    ArrayError
        If the masks are not of the sample's size.
    MemoryError
        If the memory does not suffice for a batch of the size that was given.
    """
    x = x if x.dtype.kind == "f" else x.astype(np.float32)
    if masks.size != x.shape[:-1]:
        raise ArrayError(
            f"masks of the size {masks.size} were given for a sample of the shape {x.shape}",
            f"masks of the size {x.shape[:-1]}",
            "describe them for the sample's own size",
        )

    def work(start: int, stop: int) -> tuple[MaskForm, Array]:
        form = masks.form(start, stop)
        return form, _scores(model, _shown(model, x, form, fill), targets)

    for _, done, found in in_pace(len(masks), batch_size, x.nbytes, work):
        advance(what, done, len(masks))
        yield found


def score_masked(
    model: Model,
    x: Array,
    targets: Sequence[Target],
    masks: Masks,
    fill: Filling,
    *,
    batch_size: BatchSize = 16,
    what: str = "masks",
) -> Array:
    """Score one sample under many masks; `scored_batches` with the scores put together.

    Parameters
    ----------
    model, x, targets, masks, fill, batch_size, what
        As `scored_batches` takes them.

    Returns
    -------
    ndarray (T, len(masks))
        Each target's score under each mask.

    Raises
    ------
    ArrayError
        If the masks are not of the sample's size.
    """
    batches = scored_batches(model, x, targets, masks, fill, batch_size=batch_size, what=what)
    none = np.empty((len(targets), 0), np.float32)
    return np.concatenate([none, *(scores for _, scores in batches)], axis=1)


def _shown(model: Model, x: Array, form: MaskForm, fill: Filling) -> Array:
    """Give a sample under some masks: described where the model makes it itself, else made."""
    if not isinstance(fill, Fixed):
        masks = draw(form, NumPyArrays(x.dtype))
        return blend(x, masks, fill.under(masks))
    described = Blended(x, form, fill.values)
    # To a model that can blend it is as good as the array that it describes.
    return cast(Array, described) if BLEND in model.capabilities else np.asarray(described)


def score_replaced(
    model: Model,
    x: Array,
    targets: Sequence[Target],
    layer: str,
    values: Callable[[int, int], Array | Ablated],
    total: int,
    *,
    batch_size: BatchSize | None = 16,
    what: str = "replacements",
) -> Array:
    """Score one sample with many values in the place of a layer's.

    Parameters
    ----------
    model : Model
        The network.
    x : ndarray (H, W, C)
        One sample, in the network's own value range.
    targets : sequence of Target
        What is scored, all about one node; resolved.  They share the passes.
    layer : str
        The layer's node.
    values : callable
        From ``(start, stop)`` to these values, (stop - start, ...) of the layer's shape, or to a
        description of them for a model that can ("ablate").
    total : int
        How many there are.
    batch_size : int, "auto" or None
        How many go through the network at once; "auto" measures what pays, None is for values that
        are described: as many as the model takes.
    what : str
        What to call the work in the progress.

    Returns
    -------
    ndarray (T, total)
        Each target's score with each value.

    Raises
    ------
    ArrayError
        If the values are not of the layer's shape.
    MemoryError
        If the memory does not suffice for a batch of the size that was given.
    """

    def work(start: int, stop: int) -> Array:
        repeated = np.broadcast_to(x, (stop - start, *x.shape))
        # To a model that takes descriptions one is as good as the array that it describes.
        return _scores(model, repeated, targets, {layer: cast(Array, values(start, stop))})

    found = [np.empty((len(targets), 0), np.float32)]
    for _, done, scores in in_pace(total, batch_size, x.nbytes, work):
        advance(what, done, total)
        found.append(scores)
    return np.concatenate(found, axis=1)


def each_sample(x: Array, what: str) -> Iterator[tuple[list[int], Array, str]]:
    """Go through the distinct samples of a batch, of which each may have several targets.

    Parameters
    ----------
    x : ndarray (N, H, W, C)
        The batch; of signals (N, L, C), of volumes (N, D, H, W, C).
    what : str
        What is done with each.

    Yields
    ------
    rows : list of int
        The rows of the batch that hold the sample.
    sample : ndarray (H, W, C)
        The sample.
    what : str
        What is done, and with which sample, for the progress.

    Raises
    ------
    ArrayError
        If the samples have no positions; see `check_positions`.
    """
    check_positions(x)
    for rows in distinct_samples(x):
        yield rows, x[rows[0]], f"{what}, picture {rows[0] + 1} of {len(x)}"


def check_positions(x: Array) -> None:
    """Check that a batch's samples have an axis along which something can be taken away.

    Parameters
    ----------
    x : ndarray
        The batch.

    Raises
    ------
    ArrayError
        If it is not at least (N, L, C).
    """
    if x.ndim < 3:
        raise ArrayError(
            f"a batch of the shape {x.shape} was given",
            "(N, H, W, C), or (N, L, C) or (N, D, H, W, C)",
            "pass pictures, signals or volumes",
        )


def distinct_samples(x: Array) -> list[list[int]]:
    """Find the rows of a batch that hold the same sample, explained for several targets.

    Parameters
    ----------
    x : ndarray (N, ...)
        The batch.

    Returns
    -------
    list of list of int
        For each distinct sample its rows, in order.
    """
    rows: list[list[int]] = []
    for i, sample in enumerate(x):
        for known in rows:
            if np.array_equal(x[known[0]], sample):
                known.append(i)
                break
        else:
            rows.append([i])
    return rows


def _scores(
    model: Model, x: Array, targets: Sequence[Target], replace: Mapping[str, Array] | None = None
) -> Array:
    """Score a batch of changed samples by every target: (T, N)."""
    of = target_node(targets)
    node = () if of in (LOGITS, OUTPUT) else (of,)
    value = model.forward(x, capture=node, replace=replace)[of]
    return np.stack([scores_of([target] * len(x), value) for target in targets])
