"""Scoring a sample under many changes, in bounded memory: the loops under occlusion and its kin."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice

import numpy as np
import numpy.typing as npt

from cnnviz_core.errors import ArrayError
from cnnviz_core.fills import Filling
from cnnviz_core.masks import Masks, batches_of
from cnnviz_core.model import LOGITS, OUTPUT, Array, Model
from cnnviz_core.progress import advance
from cnnviz_core.targets import Target, scores_of, target_node

__all__ = ["distinct_samples", "score_masked", "score_replaced", "scored_batches"]


def scored_batches(
    model: Model,
    x: Array,
    targets: Sequence[Target],
    masks: Masks,
    fill: Filling,
    *,
    batch_size: int = 16,
    what: str = "masks",
) -> Iterator[tuple[Array, Array]]:
    """Score one sample under many masks, and hand on what was found a batch at a time.

    Where a mask is 1 the sample is kept, where it is 0 the fill is shown, and in between the two
    are blended: ``mask * x + (1 - mask) * fill``.

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
    batch_size : int
        How many masks go through the network at once.
    what : str
        What to call the work in the progress.

    Yields
    ------
    masks : ndarray (n, H, W)
        Some of the masks, in order.
    scores : ndarray (T, n)
        Each target's score under each of them.

    Raises
    ------
    ArrayError
        If the masks are not of the sample's size.
    """
    if masks.size != x.shape[:-1]:
        raise ArrayError(
            f"masks of the size {masks.size} were given for a sample of the shape {x.shape}",
            f"masks of the size {x.shape[:-1]}",
            "describe them for the sample's own size",
        )
    done = 0
    for batch in batches_of(masks, batch_size):
        scores = _scores(model, _mixed(x, batch, fill.under(batch)), targets)
        done += len(batch)
        advance(what, done, len(masks))
        yield batch, scores


def _mixed(x: Array, masks: Array, fill: Array) -> Array:
    """Blend a sample with a fill; a selection gives the same for masks of 0 and 1, and faster."""
    keep = masks.astype(x.dtype, copy=False)[..., None]
    mixed: Array
    if ((keep == 0) | (keep == 1)).all():
        mixed = np.where(keep == 1, x, fill)
    else:
        mixed = keep * x + (1 - keep) * fill
    return mixed


def score_masked(
    model: Model,
    x: Array,
    targets: Sequence[Target],
    masks: Iterable[Array],
    fill: Array,
    *,
    total: int,
    batch_size: int = 16,
    what: str = "masks",
) -> Array:
    """Score one sample under many masks.

    Where a mask is 1 the sample is kept, where it is 0 the fill is shown, and in between the two
    are blended: ``mask * x + (1 - mask) * fill``.

    Parameters
    ----------
    model : Model
        The network.
    x : ndarray (H, W, C)
        One sample, in the network's own value range; of signals (L, C), of volumes (D, H, W, C).
    targets : sequence of Target
        What is scored, all about one node; resolved.  They share the passes.
    masks : iterable of ndarray (H, W)
        In [0, 1], over all axes of `x` but the last; taken a batch at a time, never all at once.
    fill : ndarray
        What is shown in the place of the sample; broadcasts to (H, W, C).
    total : int
        How many masks there are, for the progress.
    batch_size : int
        How many masks go through the network at once.
    what : str
        What to call the work in the progress.

    Returns
    -------
    ndarray (T, total)
        Each target's score under each mask.

    Raises
    ------
    ArrayError
        If there are more or fewer masks than `total`.
    """
    fill = np.broadcast_to(np.asarray(fill, dtype=x.dtype), x.shape)

    def score(batch: list[Array]) -> Array:
        return _scores(model, _mixed(x, np.stack(batch), fill), targets)

    return _in_batches(score, masks, (len(targets), total), batch_size, x.dtype, what)


def score_replaced(
    model: Model,
    x: Array,
    targets: Sequence[Target],
    layer: str,
    values: Iterable[Array],
    *,
    total: int,
    batch_size: int = 16,
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
    values : iterable of ndarray
        Each of the layer's shape without the batch axis; taken a batch at a time.
    total : int
        How many there are, for the progress.
    batch_size : int
        How many go through the network at once.
    what : str
        What to call the work in the progress.

    Returns
    -------
    ndarray (T, total)
        Each target's score with each value.

    Raises
    ------
    ArrayError
        If there are more or fewer values than `total`.
    """

    def score(batch: list[Array]) -> Array:
        repeated = np.broadcast_to(x, (len(batch), *x.shape))
        return _scores(model, repeated, targets, {layer: np.stack(batch)})

    return _in_batches(score, values, (len(targets), total), batch_size, x.dtype, what)


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


def _in_batches(
    score: Callable[[list[Array]], Array],
    given: Iterable[Array],
    shape: tuple[int, int],
    batch_size: int,
    dtype: npt.DTypeLike,
    what: str,
) -> Array:
    """Score what comes, a batch at a time, and check that as much came as was said."""
    total = shape[1]
    scores = np.empty(shape, dtype=np.result_type(dtype, np.float32))
    stream: Iterator[Array] = iter(given)
    done = 0
    while batch := list(islice(stream, batch_size)):
        if done + len(batch) > total:
            break
        scores[:, done : done + len(batch)] = score(batch)
        done += len(batch)
        advance(what, done, total)
    if done != total or batch:
        raise ArrayError(
            f"{'more than ' if batch else ''}{done} {what} came",
            str(total),
            "count them and pass their number as total",
        )
    return scores
