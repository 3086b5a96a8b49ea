"""Global pooling and a linear layer in the place of a network's head, and how they are trained.

What the backends share: the arrays of such a head, its closed-form fit, and a training's settings,
whose order of the samples NumPy draws, so that every framework sees the same batches.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import numpy as np

from cnnviz_core.errors import ArrayError, ParameterError
from cnnviz_core.model import Array

__all__ = ["BODY", "EPSILON", "Epoch", "Head", "Pooling", "Training", "ridge"]

Pooling: TypeAlias = Literal["average", "max"]

BODY: Final = "body"
"""The name of the part of a pooled network that was cut from another one."""

EPSILON: Final = 1e-7
"""What Adam adds to the root of its second moment, in every framework."""


@dataclass(frozen=True)
class Head:
    """What is put behind a layer: a convolution, if any, global pooling and a linear layer.

    In a network its parts are called "conv" and "relu", where there is a kernel, "pool" and
    "linear".

    Attributes
    ----------
    pooling : {"average", "max"}
        Over all positions of the grid.
    weight : ndarray (K, C)
        From K pooled channels to the scores of C classes.
    bias : ndarray (C,)
        What is added to the scores.
    kernel : ndarray (3, ..., 3, L, K), or None
        Of a convolution of the layer's L channels, which pads with zeros so that it keeps the grid
        and is followed by a rectifier; its bias starts at zero.  None where there is none, and
        the layer's channels themselves are pooled.
    """

    pooling: Pooling
    weight: Array
    bias: Array
    kernel: Array | None = None


@dataclass(frozen=True)
class Training:
    """How a network is trained: the softmax's cross-entropy, in batches, for some epochs.

    Attributes
    ----------
    epochs : int
        How often every sample is seen.
    rate : float
        The learning rate.
    batch_size : int
        How many samples a step is made of; the last batch of an epoch may be smaller.
    seed : int
        Of the order of the samples, and of what the network itself draws.
    train : {"head", "all"}
        What is changed: what stands behind the body of a pooled network, or everything.
    optimiser : {"adam", "sgd"}
        Adam with the usual moments (0.9, 0.999), or plain gradient descent.
    """

    epochs: int
    rate: float
    batch_size: int
    seed: int
    train: Literal["head", "all"]
    optimiser: Literal["adam", "sgd"]

    def orders(self, samples: int) -> Iterator[Array]:
        """Draw an order of the samples for each epoch.

        Parameters
        ----------
        samples : int
            How many there are.

        Yields
        ------
        ndarray of int (samples,)
            A permutation.
        """
        rng = np.random.default_rng(self.seed)
        for _ in range(self.epochs):
            yield rng.permutation(samples)


@dataclass(frozen=True)
class Epoch:
    """What one epoch came to.

    Attributes
    ----------
    loss : float
        The mean cross-entropy of the samples, each as the network was before its batch.
    accuracy : float
        The share of the samples whose highest score was their class's, likewise.
    validation : float or None
        The accuracy on the validation samples after the epoch; None where there are none.
    """

    loss: float
    accuracy: float
    validation: float | None = None


def ridge(features: Array, scores: Array, strength: float) -> tuple[Array, Array]:
    """Fit a linear layer in closed form.

    It minimises ``|F W + b - S|^2 / N + strength * v * |W|^2``, where ``v`` is the mean variance of
    the features, so that the strength has no unit; the bias is not held back.

    Parameters
    ----------
    features : ndarray (N, K)
        Pooled channels.
    scores : ndarray (N, C)
        What is to come out.
    strength : float
        How much large weights are held back, at least 0; at 0 the solution of the least norm.

    Returns
    -------
    weight : ndarray (K, C)
    bias : ndarray (C,)
        Both float64.

    Raises
    ------
    ArrayError
        If the shapes do not go together, or a value is not finite.
    ParameterError
        If the strength is negative.

    References
    ----------
    Hoerl and Kennard, "Ridge regression: biased estimation for nonorthogonal problems",
    Technometrics 1970.

    Examples
    --------
    >>> features = np.array([[0.0], [1.0], [2.0]])
    >>> weight, bias = ridge(features, 3 * features + 1, 0.0)
    >>> weight.round(6).tolist(), bias.round(6).tolist()
    ([[3.0]], [1.0])
    """
    if not strength >= 0:
        raise ParameterError(
            f"the strength of the ridge is {strength!r}",
            "a number of at least 0",
            "pass 0.01, or more for few samples",
        )
    f, s = np.asarray(features, np.float64), np.asarray(scores, np.float64)
    if f.ndim != 2 or s.ndim != 2 or len(f) != len(s) or not len(f):
        raise ArrayError(
            f"features of shape {f.shape} and scores of shape {s.shape} were given",
            "(N, K) and (N, C) with N of at least 1",
            "give one row of each for every sample",
        )
    if not (np.isfinite(f).all() and np.isfinite(s).all()):
        raise ArrayError(
            "the features or the scores hold NaN or infinity",
            "finite numbers",
            "check the pictures, and the network's weights",
        )
    centre, mean = f.mean(axis=0), s.mean(axis=0)
    f, s = f - centre, s - mean
    covariance = f.T @ f / len(f)
    held = strength * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    weight = np.linalg.pinv(covariance + held, hermitian=True) @ (f.T @ s / len(f))
    return weight, mean - centre @ weight
