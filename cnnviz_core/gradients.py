"""Gradients and scores at many points: along a path, or around a sample."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import numpy as np

from cnnviz_core.model import INPUT, Array, Model
from cnnviz_core.progress import advance
from cnnviz_core.scoring import score
from cnnviz_core.targets import Target, cotangent_of, target_node

__all__ = ["gradient_at", "gradients_at", "mean_gradient", "scores_at"]


def gradient_at(
    model: Model, x: Array, targets: Sequence[Target], *, batch_size: int = 16
) -> Array:
    """Differentiate the targets' scores with respect to a batch, a few samples at a time.

    Parameters
    ----------
    model : Model
        The network.
    x : ndarray (N, ...)
        The batch.
    targets : sequence of Target
        One for each of the N samples.
    batch_size : int
        How many samples go through the network at once.

    Returns
    -------
    ndarray (N, ...)
        The gradient, of the type in which the network computes.
    """
    of = target_node(targets)
    parts = [
        model.pullback(
            x[start : start + batch_size],
            cotangent_of(targets[start : start + batch_size]),
            of=of,
            wrt=(INPUT,),
        ).gradients[INPUT]
        for start in range(0, len(x), batch_size)
    ]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


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
        Each a changed copy of the whole batch; taken as they are needed, as many at a time as fill
        a batch.
    targets : sequence of Target
        One for each of the N samples; resolved, so that they mean the same at every point.
    total : int
        How many points there are, for the progress.
    batch_size : int
        How many samples go through the network at once.
    what : str
        What to call the work in the progress.

    Yields
    ------
    ndarray (N, ...)
        For each point the gradient with respect to the input.
    """
    for x, asked, done in _stacked(points, targets, batch_size):
        gradients = gradient_at(model, x, asked, batch_size=batch_size)
        advance(what, done, total)
        yield from np.split(gradients, len(x) // len(targets))


def mean_gradient(
    model: Model,
    start: Array,
    end: Array,
    targets: Sequence[Target],
    *,
    steps: int,
    batch_size: int = 16,
    what: str = "points of the path",
) -> Array:
    """Average the gradient of the targets' scores along straight lines.

    The mean is taken by Gauss-Legendre quadrature, which is exact where the gradient along the line
    is a polynomial of a degree up to ``2 * steps - 1``.

    Parameters
    ----------
    model : Model
        The network.
    start, end : ndarray (N, ...)
        Where the lines begin and end; points between have the type of `end`.
    targets : sequence of Target
        One for each of the N lines; resolved.
    steps : int
        How many nodes the quadrature has.
    batch_size : int
        How many samples go through the network at once.
    what : str
        What to call the work in the progress.

    Returns
    -------
    ndarray of float64 (N, ...)
        Times ``end - start`` it is integrated gradients (Sundararajan et al., ICML 2017, section
        3).
    """
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    way = end - start
    gradients = gradients_at(
        model,
        ((start + (node + 1) / 2 * way).astype(end.dtype) for node in nodes),
        targets,
        total=steps,
        batch_size=batch_size,
        what=what,
    )
    mean = np.zeros(end.shape)
    for weight, gradient in zip(weights / 2, gradients, strict=True):
        mean += weight * gradient.astype(np.float64)
    return mean


def scores_at(
    model: Model,
    points: Iterable[Array],
    targets: Sequence[Target],
    *,
    total: int,
    batch_size: int = 16,
    what: str = "scores",
) -> Iterator[Array]:
    """Score many points, in bounded memory and without gradients.

    Parameters
    ----------
    model : Model
        The network.
    points : iterable of ndarray (N, ...)
        Each a changed copy of the whole batch; taken as they are needed.
    targets : sequence of Target
        One for each of the N samples; resolved.
    total : int
        How many points there are, for the progress.
    batch_size : int
        How many samples go through the network at once.
    what : str
        What to call the work in the progress.

    Yields
    ------
    ndarray (N,)
        For each point the targets' scores.
    """
    for x, asked, done in _stacked(points, targets, batch_size):
        parts = [
            score(model, x[start : start + batch_size], asked[start : start + batch_size]).scores
            for start in range(0, len(x), batch_size)
        ]
        advance(what, done, total)
        yield from np.split(np.concatenate(parts), len(x) // len(targets))


def _stacked(
    points: Iterable[Array], targets: Sequence[Target], batch_size: int
) -> Iterator[tuple[Array, list[Target], int]]:
    """Stack as many points as fill a batch, with their targets; say how many have come so far."""
    at_once = max(1, batch_size // len(targets))
    stream, done = iter(points), 0
    while chunk := list(islice(stream, at_once)):
        done += len(chunk)
        x = chunk[0] if len(chunk) == 1 else np.concatenate(chunk)
        yield x, [*targets] * len(chunk), done
