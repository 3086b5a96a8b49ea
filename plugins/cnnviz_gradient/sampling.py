"""The gradient at many points: along a path, or around a sample."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import numpy as np

from cnnviz_core.model import INPUT, Array, Model
from cnnviz_core.progress import advance
from cnnviz_core.targets import Target, cotangent_of, target_node

__all__ = ["gradients_at"]


def gradients_at(
    model: Model,
    points: Iterable[Array],
    targets: Sequence[Target],
    *,
    total: int,
    batch_size: int = 16,
    what: str = "gradients",
) -> Iterator[Array]:
    """Differentiate the targets' scores at many points, in bounded memory.

    Parameters
    ----------
    model : Model
        The network.
    points : iterable of ndarray (N, ...)
        Each a changed copy of the whole batch; taken as they are needed.
    targets : sequence of Target
        One for each of the N samples; resolved, so that they mean the same at every point.
    total : int
        How many points there are, for the progress.
    batch_size : int
        How many samples go through the network at once; at least one point does.
    what : str
        What to call the work in the progress.

    Yields
    ------
    ndarray (N, ...)
        For each point the gradient with respect to the input.
    """
    of = target_node(targets)
    at_once = max(1, batch_size // len(targets))
    stream, done = iter(points), 0
    while chunk := list(islice(stream, at_once)):
        cotangent = cotangent_of([*targets] * len(chunk))
        x = chunk[0] if len(chunk) == 1 else np.concatenate(chunk)
        gradients = model.pullback(x, cotangent, of=of, wrt=(INPUT,)).gradients[INPUT]
        done += len(chunk)
        advance(what, done, total)
        yield from np.split(gradients, len(chunk))
