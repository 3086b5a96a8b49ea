"""A network's input values as colours: what its preprocessing makes of them."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from cnnviz.network import Network
from cnnviz_core.bounds import ENDS, asks_for_bounds
from cnnviz_core.errors import ParameterError
from cnnviz_core.explainer import Explainer
from cnnviz_core.model import Array
from cnnviz_core.pixels import PixelSpace
from cnnviz_core.preprocessing import Preprocessing

__all__ = ["bounded", "known_space", "space_of"]


def space_of(network: Network, shape: tuple[int, ...]) -> PixelSpace:
    """Find how a network's input values are colours.

    Parameters
    ----------
    network : Network
        The network.
    shape : tuple of int
        (H, W, C) of its input.

    Returns
    -------
    PixelSpace
        Where nothing is known, that of input values in [0, 1].

    Raises
    ------
    ParameterError
        If the preprocessing is a function of the user's that does not scale and shift the channels.
    """
    known = known_space(network, shape)
    return PixelSpace.identity(shape[-1]) if known is None else known


def known_space(network: Network, shape: tuple[int, ...]) -> PixelSpace | None:
    """Find how a network's input values are colours, if its preprocessing tells.

    Parameters
    ----------
    network, shape
        As for `space_of`.

    Returns
    -------
    PixelSpace or None
        None where no preprocessing is known, or it makes another number of channels.

    Raises
    ------
    ParameterError
        As by `space_of`.
    """
    how = network.preprocessing
    if isinstance(how, Preprocessing):
        space = PixelSpace.of(how)
        return space if len(space.offset) == shape[-1] else None
    return None if how is None else _probed(how, shape)


def bounded(explainer: Explainer, network: Network, shape: tuple[int, ...]) -> Explainer:
    """Tell a method that asks for them the least and the greatest values of a network's input.

    Parameters
    ----------
    explainer : Explainer
        The method; see `cnnviz_core.bounds.asks_for_bounds`.  What a user gave stays.
    network : Network
        Its preprocessing makes the values of pictures, whose colours lie between bounds.
    shape : tuple of int
        Of the input that is explained.

    Returns
    -------
    Explainer
        The same where it does not ask, or no preprocessing is known.
    """
    if not asks_for_bounds(explainer):
        return explainer
    try:
        space = known_space(network, shape)
    except ParameterError:
        return explainer  # a function that bends colours tells no bounds
    if space is None:
        return explainer
    made: Any = explainer
    filled: Explainer = dataclasses.replace(made, **dict(zip(ENDS, space.bounds(), strict=True)))
    return filled


def _probed(how: Any, shape: tuple[int, ...]) -> PixelSpace:
    """Find out what a user's function does to colours, from pictures of one colour.

    Such functions resize, crop, scale and shift; so a picture of one colour becomes one value in
    each channel, and the colours' effects add up.
    """
    height, width = shape[0], shape[1]

    def value(*colour: int) -> Array:
        pixels = np.broadcast_to(np.array(colour, dtype=np.uint8), (height, width, 3)).copy()
        x = np.asarray(how(pixels), dtype=np.float64)
        return x[x.shape[0] // 2, x.shape[1] // 2]

    black = value(0, 0, 0)
    parts = np.stack([value(255, 0, 0), value(0, 255, 0), value(0, 0, 255)]) - black
    mixed = value(51, 102, 204)
    expected = black + np.array([0.2, 0.4, 0.8]) @ parts
    reach = np.abs(parts).sum() or 1.0
    if not np.allclose(mixed, expected, atol=0.01 * reach):
        raise ParameterError(
            "the preprocessing function mixes colours in a way that cannot be undone",
            "a function that scales and shifts the channels",
            "pass preprocess=cnnviz.Preprocessing(...) instead of the function",
        )
    if np.linalg.matrix_rank(parts) < 3:
        # It makes grey of colours: what is left is one.
        return PixelSpace(parts.sum(0, keepdims=True), black)
    return PixelSpace(parts, black)
