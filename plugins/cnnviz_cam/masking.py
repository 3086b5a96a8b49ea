"""Channels weighted by what the network says of the picture seen through each of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from cnnviz_cam.observing import Observed, observe_features
from cnnviz_core.explainer import Maps
from cnnviz_core.fills import Fill, filling
from cnnviz_core.layers import resolve_layer
from cnnviz_core.masks import FeatureMasks
from cnnviz_core.model import Array, Model
from cnnviz_core.pace import BatchSize
from cnnviz_core.perturb import distinct_samples, score_masked
from cnnviz_core.targets import Target

__all__ = ["View", "channels_of", "largest", "weigh_by_views", "weighted"]


@dataclass(frozen=True)
class View:
    """One way to look at a picture through a mask.

    What the network sees is ``m * picture + (1 - m) * fill`` with ``m = share * mask + noise``.

    Attributes
    ----------
    picture : ndarray (H, W, C)
        The picture, changed or not.
    fill : float, str or ndarray
        What is shown where the mask is 0; one of `Fill`.
    share : float
        How much of the mask is used.
    noise : ndarray (H, W), or 0
        What is added to it.
    """

    picture: Array
    fill: Fill
    share: float = 1.0
    noise: Array | float = 0.0


def weigh_by_views(
    model: Model,
    x: Array,
    targets: Sequence[Target],
    views: Callable[[Array], Iterable[View]],
    number: int,
    *,
    layer: str,
    channels: int | None,
    batch_size: BatchSize,
    what: str,
) -> Maps:
    """Weight the channels of a layer by the scores of the picture seen through each of them.

    The weights are the softmax, over the channels, of the scores' means over the views.  Rows of
    one picture with several targets share the passes.

    Parameters
    ----------
    model : Model
        The network.
    x : ndarray (N, H, W, C)
        The batch.
    targets : sequence of Target
        One for each sample.
    views : callable
        From one picture (H, W, C) to the ways of looking at it; taken one at a time.
    number : int
        How many views there are.
    layer : str
        The layer, as `cnnviz_core.layers.resolve_layer` takes it.
    channels : int or None
        How many channels to ask about, those of largest variance over the positions; None is all.
        The others weigh nothing.
    batch_size : int or "auto"
        How many masks go through the network at once; "auto" measures what pays.
    what : str
        What to call the work in the progress.

    Returns
    -------
    Maps
        With the raw maps (N, ...grid) and ``extras["weights"]``, (N, K).

    Raises
    ------
    UnknownLayerError
        If the layer does not exist or has no spatial grid.
    """
    seen = observe_features(model, x, targets, layer)
    weights = np.zeros((len(x), seen.features.shape[-1]))
    for rows in distinct_samples(x):
        features = seen.features[rows[0]]
        kept = largest(features.astype(np.float64).var(axis=_grid_of(features)), channels)
        mean = np.zeros((len(rows), len(kept)))
        for i, view in enumerate(views(x[rows[0]])):
            mean += score_masked(
                model,
                view.picture,
                [seen.targets[row] for row in rows],
                FeatureMasks(features[..., kept], x.shape[1:-1], view.share, view.noise),
                filling(view.picture, view.fill),
                batch_size=batch_size,
                what=_progress(what, i, number, rows[0], len(x)),
            )
        weights[np.array(rows)[:, None], kept] = _softmax(mean / number)
    return weighted(seen, weights)


def weighted(seen: Observed, weights: Array) -> Maps:
    """Return the sum of feature maps, weighted, and the weights with it.

    Parameters
    ----------
    seen : Observed
        The feature maps.
    weights : ndarray (N, K)
        A weight for each channel.

    Returns
    -------
    Maps
        With ``extras["weights"]``.
    """
    weights = weights.astype(seen.features.dtype)
    return seen.weighted(weights, extras={"weights": weights})


def largest(values: Array, number: int | None) -> Array:
    """Find the channels with the largest values, of equal ones the first.

    Parameters
    ----------
    values : ndarray (K,)
        A value for each channel.
    number : int or None
        How many; None is all.

    Returns
    -------
    ndarray of int
        In ascending order.
    """
    return np.sort(np.argsort(-values, kind="stable")[:number])


def channels_of(model: Model, x: Array, layer: str, channels: int | None) -> int:
    """Count the channels that a method asks about.

    Parameters
    ----------
    model : Model
        The network.
    x : ndarray (N, ...)
        The batch.
    layer : str
        The layer, as `cnnviz_core.layers.resolve_layer` takes it.
    channels : int or None
        The limit.

    Returns
    -------
    int
    """
    there = resolve_layer(model, layer, x).shape[-1]
    return there if channels is None else min(channels, there)


def _grid_of(features: Array) -> tuple[int, ...]:
    """Give the axes of one sample's grid."""
    return tuple(range(features.ndim - 1))


def _softmax(scores: Array) -> Array:
    """Turn scores (T, K) into weights that sum to 1 over the channels."""
    e = np.exp(scores - scores.max(-1, keepdims=True))
    normalised: Array = e / e.sum(-1, keepdims=True)
    return normalised


def _progress(what: str, view: int, views: int, row: int, rows: int) -> str:
    """Say which pass over the channels this is."""
    part = f", view {view + 1} of {views}" if views > 1 else ""
    return f"{what}, picture {row + 1} of {rows}{part}"
