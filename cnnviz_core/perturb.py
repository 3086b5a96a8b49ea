"""Scoring a sample under many masks, in bounded memory: the loop under occlusion and its kin."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

import numpy as np

from cnnviz_core.errors import ArrayError
from cnnviz_core.model import LOGITS, OUTPUT, Array, Model
from cnnviz_core.progress import advance
from cnnviz_core.targets import Target, scores_of

__all__ = ["score_masked"]


def score_masked(
    model: Model,
    x: Array,
    target: Target,
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
        One sample, in the network's own value range.
    target : Target
        What is scored; resolved.
    masks : iterable of ndarray (H, W)
        In [0, 1]; taken a batch at a time, never all at once.
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
    ndarray (total,)
        The target's score under each mask.

    Raises
    ------
    ArrayError
        If there are more or fewer masks than `total`.
    """
    scores = np.empty(total, dtype=np.result_type(x.dtype, np.float32))
    stream: Iterator[Array] = iter(masks)
    done = 0
    fill = np.broadcast_to(np.asarray(fill, dtype=x.dtype), x.shape)
    node = (target.of,) if target.of not in (LOGITS, OUTPUT) else ()
    while batch := list(islice(stream, batch_size)):
        keep = np.stack(batch).astype(x.dtype, copy=False)[..., None]
        # An exact selection where the mask is 0 or 1: blending would round.
        mixed = np.where(keep == 1, x, np.where(keep == 0, fill, keep * x + (1 - keep) * fill))
        if done + len(batch) > total:
            break
        value = model.forward(mixed, capture=node)[target.of]
        scores[done : done + len(batch)] = scores_of([target] * len(batch), value)
        done += len(batch)
        advance(what, done, total)
    if done != total or batch:
        raise ArrayError(
            f"{'more than ' if batch else ''}{done} masks came",
            f"{total} masks",
            "count the masks and pass their number as total",
        )
    return scores
