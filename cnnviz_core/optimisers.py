"""Ways of making steps of gradients: up a score, or down a loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from cnnviz_core.model import Array

__all__ = ["Adam", "Optimiser", "Plain", "RunningMean"]


class Optimiser(Protocol):
    """A way of making steps of gradients."""

    def begin(self) -> Callable[[Array], Array]:
        """Start a search.

        Returns
        -------
        callable
            From the gradient (N, ...) at one point to the step from there, of the gradient's type:
            added to the parameters it goes up, taken off it goes down.  It remembers the gradients
            before.
        """
        ...


@dataclass(frozen=True)
class Adam:
    """Steps of about `rate` in every parameter, whatever the gradient's size.

    Attributes
    ----------
    rate : float
        The size of a step.
    mean, square : float
        How much of the running means of the gradient and of its square is kept.
    epsilon : float
        Added to the root of the mean square.

    References
    ----------
    Kingma & Ba, "Adam: a method for stochastic optimization", ICLR 2015, algorithm 1.
    """

    rate: float = 0.05
    mean: float = 0.9
    square: float = 0.999
    epsilon: float = 1e-8

    def begin(self) -> Callable[[Array], Array]:
        """Start a search; see `Optimiser.begin`."""
        means: Array | float = 0.0
        squares: Array | float = 0.0
        taken = 0

        def step(gradient: Array) -> Array:
            nonlocal means, squares, taken
            taken += 1
            means = self.mean * means + (1 - self.mean) * gradient
            squares = self.square * squares + (1 - self.square) * gradient**2
            unbiased = means / (1 - self.mean**taken)
            size = np.sqrt(squares / (1 - self.square**taken)) + self.epsilon
            return (self.rate * unbiased / size).astype(gradient.dtype)

        return step


@dataclass(frozen=True)
class Plain:
    """Steps along the gradient.

    Attributes
    ----------
    rate : float
        What the gradient is multiplied by.
    momentum : float
        How much of the step before is added; 0 for none.
    normalise : bool
        Whether each picture's gradient is first divided by its root mean square, so that `rate` is
        the typical change of a parameter in one step.
    """

    rate: float = 1.0
    momentum: float = 0.0
    normalise: bool = False

    def begin(self) -> Callable[[Array], Array]:
        """Start a search; see `Optimiser.begin`."""
        before: Array | float = 0.0

        def step(gradient: Array) -> Array:
            nonlocal before
            if self.normalise:
                gradient = _normalised(gradient)
            before = self.rate * gradient + self.momentum * before
            return np.asarray(before, dtype=gradient.dtype)

        return step


@dataclass(frozen=True)
class RunningMean:
    """Steps along the running mean of the gradients, which begins with the first of them.

    Attributes
    ----------
    rate : float
        What the mean is multiplied by.
    kept : float
        How much of the mean is kept at each step.
    """

    rate: float = 1.0
    kept: float = 0.9

    def begin(self) -> Callable[[Array], Array]:
        """Start a search; see `Optimiser.begin`."""
        mean: Array | None = None

        def step(gradient: Array) -> Array:
            nonlocal mean
            mean = gradient if mean is None else self.kept * mean + (1 - self.kept) * gradient
            return self.rate * mean

        return step


def _normalised(gradient: Array) -> Array:
    """Divide each picture's gradient by its root mean square; zeros stay zeros."""
    axes = tuple(range(1, gradient.ndim))
    size = np.sqrt(np.mean(gradient**2, axis=axes, keepdims=True))
    return np.divide(gradient, size, out=np.zeros_like(gradient), where=size > 0)
