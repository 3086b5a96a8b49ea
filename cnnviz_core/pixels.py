"""Between a network's input values and colours that a person can look at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from cnnviz_core.errors import ArrayError, ParameterError
from cnnviz_core.model import Array, as_float
from cnnviz_core.preprocessing import Preprocessing

__all__ = ["PixelSpace", "as_pixels"]

_ORDERS: Final = {"RGB": (0, 1, 2), "BGR": (2, 1, 0), "L": (0,)}


@dataclass(frozen=True, eq=False)
class PixelSpace:
    """How colours in [0, 1] become a network's input values: ``x = colours @ matrix + offset``.

    Attributes
    ----------
    matrix : ndarray (K, C) of float64
        With K colours (3: red, green, blue; 1: grey) and C channels of the input; of full rank.
    offset : ndarray (C,) of float64
        The input of black.

    Examples
    --------
    >>> space = PixelSpace.of(Preprocessing(scale=1 / 127.5, mean=(1.0,)))
    >>> space.to_input(np.array([[[0.0, 0.5, 1.0]]])).tolist()
    [[[-1.0, 0.0, 1.0]]]
    """

    matrix: Array
    offset: Array

    def __post_init__(self) -> None:
        matrix = np.array(self.matrix, dtype=np.float64)
        offset = np.array(self.offset, dtype=np.float64)
        if matrix.ndim != 2 or offset.shape != matrix.shape[1:] or len(matrix) > len(offset):
            raise ArrayError(
                f"a matrix {matrix.shape} and an offset {offset.shape} were given",
                "(colours, channels) and (channels,), with at most as many colours as channels",
                "give one row for each colour",
            )
        if np.linalg.matrix_rank(matrix) < len(matrix):
            raise ParameterError(
                "different colours become the same input values",
                "a preprocessing that keeps every colour apart",
                "check its scale and std",
            )
        for name, array in (("matrix", matrix), ("offset", offset)):
            array.flags.writeable = False
            object.__setattr__(self, name, array)

    @classmethod
    def of(cls, preprocessing: Preprocessing) -> PixelSpace:
        """Make the space of a preprocessing.

        Parameters
        ----------
        preprocessing : Preprocessing
            What is done to pixels of 0..255.

        Returns
        -------
        PixelSpace
        """
        order = _ORDERS[preprocessing.channels]
        n = len(order)
        std = np.broadcast_to(np.asarray(preprocessing.std, dtype=np.float64), n)
        mean = np.broadcast_to(np.asarray(preprocessing.mean, dtype=np.float64), n)
        matrix = np.zeros((n, n))
        matrix[list(order), range(n)] = 255 * preprocessing.scale / std
        return cls(matrix, -mean / std)

    @classmethod
    def identity(cls, channels: int) -> PixelSpace:
        """Make the space of a network whose input values are colours in [0, 1].

        Parameters
        ----------
        channels : int
            How many.

        Returns
        -------
        PixelSpace
        """
        return cls(np.eye(channels), np.zeros(channels))

    @property
    def colours(self) -> int:
        """How many colours there are: 3 of coloured pictures, 1 of grey ones."""
        return len(self.matrix)

    def bounds(self) -> tuple[Array, Array]:
        """Give the least and the greatest input values that a picture can have.

        Returns
        -------
        low, high : ndarray (C,) of float64
            Of each channel, over all colours in [0, 1].

        Examples
        --------
        >>> low, high = PixelSpace.of(Preprocessing(mean=(0.5,), std=(0.25,))).bounds()
        >>> low.tolist(), high.tolist()
        ([-2.0, -2.0, -2.0], [2.0, 2.0, 2.0])
        """
        low: Array = self.offset + np.minimum(self.matrix, 0).sum(0)
        high: Array = self.offset + np.maximum(self.matrix, 0).sum(0)
        return low, high

    def to_input(self, colours: Array) -> Array:
        """Make input values of colours.

        Parameters
        ----------
        colours : ndarray (..., K)
            In [0, 1].

        Returns
        -------
        ndarray (..., C)
            Of the same type.
        """
        values = as_float(colours)
        return (values @ self.matrix + self.offset).astype(values.dtype)

    def to_colours(self, x: Array) -> Array:
        """Make colours of input values.

        Parameters
        ----------
        x : ndarray (..., C)
            A network's input.

        Returns
        -------
        ndarray (..., K)
            Of the same type, not clipped: what lies outside [0, 1] is no colour of a picture.
        """
        values = as_float(x)
        return ((values - self.offset) @ np.linalg.pinv(self.matrix)).astype(values.dtype)

    def pulled(self, gradient: Array) -> Array:
        """Bring a gradient with respect to the input to one with respect to the colours.

        Parameters
        ----------
        gradient : ndarray (..., C)
            Of a score, by the input's values.

        Returns
        -------
        ndarray (..., K)
            Of the same type.
        """
        values = as_float(gradient)
        return (values @ self.matrix.T).astype(values.dtype)

    def pixels(self, x: Array) -> Array:
        """Show input values as a viewer would.

        Parameters
        ----------
        x : ndarray (..., C)
            A network's input.

        Returns
        -------
        ndarray (..., 3) of uint8
            RGB; colours outside [0, 1] are clipped.
        """
        return as_pixels(self.to_colours(x))


def as_pixels(colours: Array) -> Array:
    """Make 8-bit RGB of colours.

    Parameters
    ----------
    colours : ndarray (..., K)
        In [0, 1]; what lies outside is clipped.  Of one colour the result is grey; of two, or of
        more than three, it is grey of their mean.

    Returns
    -------
    ndarray (..., 3) of uint8
    """
    shown = np.asarray(colours)
    if shown.shape[-1] != 3:
        shown = np.repeat(shown.mean(-1, keepdims=True), 3, axis=-1)
    pixels: Array = np.rint(np.clip(shown, 0, 1) * 255).astype(np.uint8)
    return pixels
