"""What a picture should be like besides: small, smooth, within range; penalties and gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from cnnviz_core.model import Array

__all__ = ["L2", "AlphaNorm", "Prior", "TotalVariation", "weighted"]


class Prior(Protocol):
    """A penalty of a picture's colours, with its gradient."""

    def value(self, colours: Array) -> Array:
        """Give the penalties.

        Parameters
        ----------
        colours : ndarray (N, H, W, K)

        Returns
        -------
        ndarray (N,)
            At least 0.
        """
        ...

    def gradient(self, colours: Array) -> Array:
        """Differentiate the penalties by the colours.

        Parameters
        ----------
        colours : ndarray (N, H, W, K)

        Returns
        -------
        ndarray (N, H, W, K)
            Of the same type.
        """
        ...


@dataclass(frozen=True, eq=False)
class L2:
    """The sum of the squared differences from a colour.

    Attributes
    ----------
    centre : float or ndarray (K,)
        The colour that costs nothing.

    References
    ----------
    Simonyan et al., "Deep inside convolutional networks", 2014, section 2.
    """

    centre: float | Array = 0.5

    def value(self, colours: Array) -> Array:
        """Give the sums of squares."""
        return _sums((colours - self._centre(colours)) ** 2)

    def gradient(self, colours: Array) -> Array:
        """Give twice the differences."""
        return 2 * (colours - self._centre(colours))

    def _centre(self, colours: Array) -> Array:
        return np.asarray(self.centre, dtype=colours.dtype)


@dataclass(frozen=True, eq=False)
class AlphaNorm:
    """The sum of a power of the differences from a colour: flat near it, steep far away.

    Attributes
    ----------
    alpha : float
        The power, above 1.
    centre : float or ndarray (K,)
        The colour that costs nothing.

    References
    ----------
    Mahendran & Vedaldi, "Understanding deep image representations by inverting them", CVPR 2015,
    section 3, with alpha = 6.
    """

    alpha: float = 6.0
    centre: float | Array = 0.5

    def value(self, colours: Array) -> Array:
        """Give the sums of powers."""
        return _sums(np.abs(colours - np.asarray(self.centre, colours.dtype)) ** self.alpha)

    def gradient(self, colours: Array) -> Array:
        """Give the derivative of the powers."""
        away = colours - np.asarray(self.centre, colours.dtype)
        return self.alpha * np.sign(away) * np.abs(away) ** (self.alpha - 1)


@dataclass(frozen=True)
class TotalVariation:
    """The sum of a power of the slopes between neighbouring pixels.

    With ``d`` the differences to the pixel below and ``r`` to the pixel at the right (0 at the
    rim), each pixel and colour costs ``(d^2 + r^2)^(beta / 2)``, or, if not `isotropic`,
    ``|d|^beta + |r|^beta``.

    Attributes
    ----------
    beta : float
        At least 1; 1 is the total variation itself, 2 smooths most.
    isotropic : bool
        Whether slopes count alike in all directions.

    Notes
    -----
    Where ``beta`` is below 2 and a slope is 0 the gradient is taken as 0, which is one of the
    subgradients.

    References
    ----------
    Rudin et al., "Nonlinear total variation based noise removal algorithms", Physica D 60, 1992;
    Mahendran & Vedaldi, CVPR 2015, section 3, on the power beta.
    """

    beta: float = 1.0
    isotropic: bool = True

    def value(self, colours: Array) -> Array:
        """Give the sums."""
        down, right = _slopes(colours)
        if self.isotropic:
            return _sums((down**2 + right**2) ** (self.beta / 2))
        return _sums(np.abs(down) ** self.beta + np.abs(right) ** self.beta)

    def gradient(self, colours: Array) -> Array:
        """Give the derivative of the sums."""
        down, right = _slopes(colours)
        if self.isotropic:
            steep = self.beta * _power(np.sqrt(down**2 + right**2), self.beta - 2)
            by_down, by_right = steep * down, steep * right
        else:
            by_down = self.beta * _power(np.abs(down), self.beta - 2) * down
            by_right = self.beta * _power(np.abs(right), self.beta - 2) * right
        gradient = -by_down - by_right
        gradient[:, 1:] += by_down[:, :-1]
        gradient[:, :, 1:] += by_right[:, :, :-1]
        return gradient


def weighted(*priors: tuple[float, Prior]) -> tuple[tuple[float, Prior], ...]:
    """Leave out priors that weigh nothing.

    Parameters
    ----------
    *priors : tuple of (float, Prior)
        Weights and priors.

    Returns
    -------
    tuple of (float, Prior)
    """
    return tuple((weight, prior) for weight, prior in priors if weight)


def _slopes(colours: Array) -> tuple[Array, Array]:
    """Give the differences to the next pixel along both axes, 0 at the rim."""
    down, right = np.zeros_like(colours), np.zeros_like(colours)
    down[:, :-1] = np.diff(colours, axis=1)
    right[:, :, :-1] = np.diff(colours, axis=2)
    return down, right


def _power(size: Array, exponent: float) -> Array:
    """Raise to a power, perhaps negative; 0 stays 0."""
    return np.power(size, exponent, out=np.zeros_like(size), where=size > 0)


def _sums(values: Array) -> Array:
    """Sum each picture."""
    return values.reshape(len(values), -1).sum(1)
