"""One tile of a gallery as pixels: a picture, heat and classes, one over the other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import numpy as np

from cnnviz.colours import colourise
from cnnviz.pictures import overlay
from cnnviz_core.exhibits import Tile
from cnnviz_core.model import Array

__all__ = ["OTHER", "PALETTE", "Colours", "class_colours", "drawn", "fitted", "is_tiny", "shape_of"]

# Twelve colours that also people with a colour blindness tell apart, after M. Krzywinski's
# palettes for colour blindness; neighbours in the list differ most.
PALETTE: Final = (
    "#008df9",
    "#ffc33b",
    "#e20134",
    "#009f81",
    "#8400cd",
    "#ff6e3a",
    "#00c2f9",
    "#ff5aaf",
    "#00fccf",
    "#9f0162",
    "#ffb2fd",
    "#a40122",
)
"""The colours of classes, in the order in which they are given out."""
OTHER: Final = "#8b949e"
"""The colour that all further classes have in common."""

Colours = Mapping[str, str]
"""The colour of each class, by its name."""

# Pictures of at most so many pixels a side show them.
_TINY = 64
_NOTHING = (241, 243, 245)
_OVER = 0.6


def is_tiny(tile: Tile) -> bool:
    """Tell whether a tile has so few pixels that each of them is shown."""
    return max(shape_of(tile)) <= _TINY


def fitted(tile: Tile, side: int) -> tuple[int, int]:
    """Give the size at which a tile is drawn.

    Parameters
    ----------
    tile : Tile
        Any.
    side : int
        The longest its longer side may be.

    Returns
    -------
    width, height : int
        In pixels; of a tiny tile whole multiples of its own.
    """
    height, width = shape_of(tile)
    longest = max(height, width)
    if longest <= min(_TINY, side):
        times = side // longest
        return width * times, height * times
    scale = side / longest
    return max(1, round(width * scale)), max(1, round(height * scale))


def drawn(tile: Tile, size: tuple[int, int], colours: Colours) -> Array:
    """Draw a tile, but for its boxes and its caption.

    Parameters
    ----------
    tile : Tile
        Any.
    size : tuple of int
        (width, height), as `fitted` gives it.
    colours : mapping of str to str
        Of the classes.

    Returns
    -------
    ndarray (height, width, 3) of uint8
    """
    from PIL import Image

    if tile.pixels is not None:
        ground = _stretched(tile.pixels, size)
        if tile.heat is not None:
            heat = _spread(tile.heat, size, tile.fine)
            ground = np.asarray(overlay(ground, heat, signed=tile.signed, fine=tile.fine))
    elif tile.heat is not None:
        ground = _stretched(colourise(tile.heat, signed=tile.signed), size)
    else:
        ground = np.full((size[1], size[0], 3), _NOTHING, dtype=np.uint8)
    if tile.classes is None:
        return ground
    if tile.pixels is tile.heat is None:
        return _painted(ground, tile, colours, 1.0)
    # Over a grey picture the colours are those of the legend.
    grey = Image.fromarray(ground).convert("L").convert("RGB")
    return _painted(np.asarray(grey), tile, colours, _OVER)


def class_colours(tiles: Iterable[Tile]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Give each class that tiles show a colour, the most frequent first.

    Parameters
    ----------
    tiles : iterable of Tile
        What is shown together.

    Returns
    -------
    colours : dict of str to str
        By the class's name, in the order of the share of the tiles that they take.
    others : tuple of str
        The classes among them that have the colour `OTHER` in common.
    """
    shares: dict[str, float] = {}
    for tile in tiles:
        if tile.classes is not None:
            found, counts = np.unique(tile.classes[tile.classes >= 0], return_counts=True)
            for k, count in zip(found, counts, strict=True):
                name = tile.legend[int(k)]
                shares[name] = shares.get(name, 0.0) + float(count) / tile.classes.size
    names = sorted(shares, key=lambda name: -shares[name])
    own = len(names) if len(names) <= len(PALETTE) else len(PALETTE) - 1
    colours = {name: PALETTE[k] if k < own else OTHER for k, name in enumerate(names)}
    return colours, tuple(names[own:])


def shape_of(tile: Tile) -> tuple[int, int]:
    """Give a tile's own height and width."""
    for layer in (tile.pixels, tile.heat, tile.classes):
        if layer is not None:
            return layer.shape[0], layer.shape[1]
    raise AssertionError("a tile shows something")


def _stretched(pixels: Array, size: tuple[int, int]) -> Array:
    """Scale a picture: by whole multiples each pixel becomes a square, else smoothly."""
    from PIL import Image

    height, width = pixels.shape[:2]
    if size == (width, height):
        return pixels
    whole = max(height, width) <= _TINY and size[0] % width == size[1] % height == 0
    sampling = Image.Resampling.NEAREST if whole else Image.Resampling.LANCZOS
    return np.asarray(Image.fromarray(np.ascontiguousarray(pixels)).resize(size, sampling))


def _spread(heat: Array, size: tuple[int, int], fine: bool) -> Array:
    """Bring heat to the size of what it lies over; single pixels stay single ones."""
    from PIL import Image

    layer = Image.fromarray(np.asarray(heat, dtype=np.float32))
    larger = fine and layer.width <= size[0] and layer.height <= size[1]
    sampling = Image.Resampling.NEAREST if larger else Image.Resampling.BILINEAR
    return np.asarray(layer.resize(size, sampling))


def _painted(ground: Array, tile: Tile, colours: Colours, opaque: float) -> Array:
    """Paint classes over what is there."""
    from PIL import Image, ImageColor

    assert tile.classes is not None
    size = (ground.shape[1], ground.shape[0])
    table = [ImageColor.getrgb(colours.get(name, OTHER)) for name in tile.legend]
    indices = Image.fromarray(tile.classes.astype(np.int32))
    places = np.asarray(indices.resize(size, Image.Resampling.NEAREST))
    there = places >= 0
    painted = np.asarray(table)[np.where(there, places, 0)]
    mixed = np.where(there[..., None], opaque * painted + (1 - opaque) * ground, ground)
    return np.rint(mixed).astype(np.uint8)
