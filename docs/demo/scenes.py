"""Digits in the wild: handwritten digits drawn on photographs.

A scene is a small crop of a photograph with up to three handwritten digits of different classes
on it, each with its class and the tight box around its ink.  A network that is told only which
digits are there can be asked where they are: weakly supervised localisation in its smallest form.

The digits are scikit-learn's, the photographs scikit-image's; both come with those packages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from skimage import data
from skimage.color import gray2rgb, hsv2rgb, rgb2lab
from skimage.filters import gaussian
from skimage.transform import AffineTransform, resize, warp
from skimage.util import img_as_float32
from sklearn.datasets import load_digits

__all__ = [
    "PHOTOGRAPHS",
    "SIZE",
    "Backdrop",
    "Box",
    "Digits",
    "Mark",
    "Photograph",
    "Scene",
    "backdrops",
    "clutter",
    "compose",
    "crop",
    "digits",
    "draw",
    "draw_scene",
    "recolour",
]

Array = NDArray[np.floating]
Box = tuple[int, int, int, int]

SIZE: Final = 128
"""Height and width of a scene, in pixels."""

_MARGIN: Final = 3
_CONTRAST: Final = 30.0
_VISIBLE: Final = 0.3
_CANVAS: Final = 96


@dataclass(frozen=True)
class Photograph:
    """A photograph of scikit-image.

    Attributes
    ----------
    credit : str
        What it shows, who gave it, and under which terms.
    held_out : bool
        Whether training never sees it.
    """

    credit: str
    held_out: bool


PHOTOGRAPHS: Final[Mapping[str, Photograph]] = MappingProxyType(
    {
        "brick": Photograph("Brick wall, CC0Textures, CC0", False),
        "camera": Photograph("Cameraman, Lav Varshney, CC0", False),
        "cell": Photograph("Cell in saline, Paul Müller and others, CC0", False),
        "coins": Photograph("Coins from Pompeii, Brooklyn Museum, no known restrictions", False),
        "grass": Photograph("Grass, linolafett, CC0", False),
        "gravel": Photograph("Gravel, CC0Textures, CC0", False),
        "hubble_deep_field": Photograph("Hubble eXtreme Deep Field, NASA, public domain", False),
        "immunohistochemistry": Photograph(
            "Colonic glands, Center for Microscopy and Molecular Imaging, no known restrictions",
            False,
        ),
        "retina": Photograph("Retina, Mikael Häggström, CC0", False),
        "astronaut": Photograph("Eileen Collins, NASA, public domain", True),
        "chelsea": Photograph("Chelsea the cat, Stefan van der Walt, CC0", True),
        "coffee": Photograph("Coffee, Rachel Michetti for Pikolo Espresso Bar, CC0", True),
        "rocket": Photograph("Falcon 9 with DSCOVR, SpaceX, public domain", True),
    }
)
"""The photographs whose terms are free, by their names in `skimage.data`."""


class Backdrop(NamedTuple):
    """A photograph in several sizes, each about 0.7 times the one before.

    Attributes
    ----------
    name : str
        Its name in `PHOTOGRAPHS`.
    sizes : tuple of ndarray
        Each (H, W, 3), float32 in 0 to 1, no side shorter than `SIZE`.
    """

    name: str
    sizes: tuple[Array, ...]


class Digits(NamedTuple):
    """Handwritten digits.

    Attributes
    ----------
    strokes : ndarray
        (N, 12, 12), about 1 on the pen's path and 0 off it.
    labels : ndarray
        (N,), 0 to 9.
    """

    strokes: Array
    labels: NDArray[np.integer]


class Mark(NamedTuple):
    """A digit in a scene: its class, and the tight box around its visible ink.

    Attributes
    ----------
    label : int
        0 to 9.
    box : tuple of int
        (x0, y0, x1, y1) in pixels, half-open.
    """

    label: int
    box: Box


class Scene(NamedTuple):
    """A picture and the digits in it.

    Attributes
    ----------
    picture : ndarray
        (H, W, 3) uint8.
    marks : tuple of Mark
        None, one or several, of different classes; their boxes do not overlap.
    photograph : str
        The name of the photograph behind them.
    """

    picture: NDArray[np.uint8]
    marks: tuple[Mark, ...]
    photograph: str


@cache
def backdrops(*, held_out: bool) -> tuple[Backdrop, ...]:
    """Load one half of the photographs.

    Parameters
    ----------
    held_out : bool
        The half that training never sees, or the other.

    Returns
    -------
    tuple of Backdrop
    """
    return tuple(
        _backdrop(name) for name, photo in PHOTOGRAPHS.items() if photo.held_out == held_out
    )


def _backdrop(name: str) -> Backdrop:
    """Load a photograph and scale it down, step by step."""
    picture = img_as_float32(getattr(data, name)())
    picture = gray2rgb(picture) if picture.ndim == 2 else picture
    short = min(picture.shape[:2])
    sides = [side for side in (512, 362, 256, 181, 128) if side < short]
    sizes = [picture] if short <= 512 else []
    for side in sides:
        shape = [round(n * side / short) for n in picture.shape[:2]]
        sizes.append(resize(picture, shape, anti_aliasing=True).astype(np.float32))
    return Backdrop(name, tuple(sizes))


@cache
def digits(*, held_out: bool) -> Digits:
    """Load one part of the handwritten digits.

    The digits follow each other writer by writer, so the last quarter is, but for one writer at
    the seam, by people whose hand training never sees.

    Parameters
    ----------
    held_out : bool
        The last quarter, or the first three.

    Returns
    -------
    Digits
    """
    bunch = load_digits()
    seam = len(bunch.target) * 3 // 4
    part = slice(seam, None) if held_out else slice(seam)
    grids = np.pad(bunch.images[part] / 16.0, ((0, 0), (2, 2), (2, 2)))
    # Unsharp masking: 8 x 8 cells blur the small holes of 6, 8 and 9; this opens them again.
    blurred = gaussian(grids, sigma=(0, 1, 1))
    return Digits(2 * grids - blurred, bunch.target[part])


def crop(rng: np.random.Generator, backdrop: Backdrop, size: int = SIZE) -> Array:
    """Cut a random window out of a photograph, at a random scale, mirrored or not.

    Parameters
    ----------
    rng : Generator
        Where the randomness comes from.
    backdrop : Backdrop
        The photograph.
    size : int
        Height and width of the window, in pixels, at most `SIZE`.

    Returns
    -------
    ndarray
        (size, size, 3), 0 to 1.
    """
    picture = backdrop.sizes[rng.integers(len(backdrop.sizes))]
    top, left = (rng.integers(n - size + 1) for n in picture.shape[:2])
    window = picture[top : top + size, left : left + size]
    return window[:, ::-1] if rng.random() < 0.5 else window


def recolour(rng: np.random.Generator, picture: Array) -> Array:
    """Give a picture other colours, so that few photographs do for many.

    Parameters
    ----------
    rng : Generator
        Where the randomness comes from.
    picture : ndarray
        (H, W, 3), 0 to 1.

    Returns
    -------
    ndarray
        (H, W, 3), 0 to 1.
    """
    mixing = rng.dirichlet((0.6, 0.6, 0.6), size=3).T
    low, high = np.sort(rng.uniform(0, 1, (2, 3)), axis=0)
    low, high = (high, low) if rng.random() < 0.3 else (low, high)
    gamma = np.exp(rng.uniform(-0.5, 0.5))
    return low + (high - low) * (picture @ mixing) ** gamma


def clutter(rng: np.random.Generator, picture: Array, other: Array, count: int) -> Array:
    """Lay shapes over a picture: discs, rings, blobs, bars and stripes.

    They teach a network that an edge, a curve or a line is not yet a digit.  Rings and bars are
    too large to be taken for a 0 or a 1.

    Parameters
    ----------
    rng : Generator
        Where the randomness comes from.
    picture : ndarray
        (H, W, 3), 0 to 1.
    other : ndarray
        (H, W, 3), 0 to 1: what about half of the shapes are cut out of.
    count : int
        How many shapes.

    Returns
    -------
    ndarray
        (H, W, 3), 0 to 1.
    """
    height, width = picture.shape[:2]
    for _ in range(count):
        y, x = np.mgrid[:height, :width] - rng.uniform(0, (height, width))[:, None, None]
        cover = _shape(rng, y, x)[..., np.newaxis]
        slope = rng.normal(0, 0.004, 2)
        shade = np.clip(rng.uniform(0, 1, 3) + (slope[0] * y + slope[1] * x)[..., None], 0, 1)
        fill = other if rng.random() < 0.5 else shade
        picture = picture + (fill - picture) * cover
    return picture


def _shape(rng: np.random.Generator, y: Array, x: Array) -> Array:
    """Say how much of each pixel a random shape around the origin covers, 0 to 1."""
    turn = rng.uniform(0, 2 * np.pi)
    u, v = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    # Each shape is a height, in pixels, above 0 inside of it.
    match rng.choice(["disc", "ring", "blob", "bar", "stripes"], p=(0.25, 0.2, 0.2, 0.2, 0.15)):
        case "disc":
            axes = np.geomspace(2, 70, 100)[rng.integers(100, size=2)]
            height = axes.min() * (1 - np.hypot(u / axes[0], v / axes[1]))
        case "ring":
            axes = rng.uniform(30, 90, 2)
            middle = axes.min() * (1 - np.hypot(u / axes[0], v / axes[1]))
            height = rng.uniform(1, 8) - np.abs(middle)
        case "blob":
            angle = np.arctan2(v, u)[..., np.newaxis] * np.arange(1, 6) + rng.uniform(0, 6.3, 5)
            outline = np.exp(np.cos(angle) @ (rng.normal(0, 0.35, 5) / np.sqrt(np.arange(1, 6))))
            height = rng.uniform(4, 40) * outline - np.hypot(u, v)
        case "bar":
            height = np.exp(rng.uniform(0, 4)) - np.abs(u) - rng.uniform(-0.15, 0.15) * v
            height = np.minimum(height, v) if rng.random() < 0.5 else height
        case _:
            period, duty = rng.uniform((4, 0.2), (24, 0.8))
            stripes = period * (duty / 2 - np.abs(u / period % 1 - 0.5))
            height = np.minimum(stripes, rng.uniform(8, 60) - np.maximum(np.abs(u), np.abs(v)))
    return np.clip(height / np.exp(rng.uniform(0, 1.5)) + 0.5, 0, 1)


def draw(rng: np.random.Generator, stroke: Array) -> Array:
    """Draw one digit as a pen would: smooth, slanted, turned, 25 to 47 pixels tall or wide.

    Parameters
    ----------
    rng : Generator
        Where the randomness comes from.
    stroke : ndarray
        (12, 12), one of `Digits.strokes`.

    Returns
    -------
    ndarray
        (h, w), how much of each pixel the ink covers, 0 to 1, cut tight around the visible ink.
    """
    cell = rng.uniform(26, 42) / 8
    form = AffineTransform(
        scale=(cell * rng.uniform(0.85, 1.15), cell),
        rotation=np.deg2rad(rng.uniform(-14, 14)),
        shear=rng.uniform(-0.25, 0.25),
    )
    y, x = np.mgrid[:_CANVAS, :_CANVAS] - (_CANVAS - 1) / 2
    column, row = form.inverse(np.stack([x.ravel(), y.ravel()], axis=1)).T.reshape(2, *x.shape)
    # No hand draws straight: bend the stroke by up to a third of a cell, in long waves.
    waves = rng.uniform(0, (1 / 3, 2 * np.pi), size=(2, 2))
    row, column = (
        row + waves[0, 0] * np.sin(column + waves[0, 1]),
        column + waves[1, 0] * np.sin(row + waves[1, 1]),
    )
    height = warp(stroke, np.stack([row, column]) + 5.5, order=3)
    edge = rng.uniform(1.2, 2.0)
    ink = np.clip((height - rng.uniform(0.42, 0.56)) * cell / edge + 0.5, 0, 1)
    rows, columns = (np.flatnonzero((ink > _VISIBLE).any(axis)) for axis in (1, 0))
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def draw_scene(
    rng: np.random.Generator, *, held_out: bool, odds: Sequence[float], size: int = SIZE
) -> Scene:
    """Draw a random scene.

    Parameters
    ----------
    rng : Generator
        Where the randomness comes from.
    held_out : bool
        Whether of held-out digits on held-out photographs, as they are.  The others are recoloured
        and cluttered, for what is learned on few photographs is to hold on any.
    odds : sequence of float
        The chances of no digit, one, two, ...
    size : int
        Height and width in pixels, at most `SIZE`.

    Returns
    -------
    Scene
    """
    photographs = backdrops(held_out=held_out)
    backdrop, other = (photographs[i] for i in rng.integers(len(photographs), size=2))
    picture = crop(rng, backdrop, size)
    if not held_out:
        picture = recolour(rng, picture) if rng.random() < 0.7 else picture
        if rng.random() < 0.8:
            count = int(rng.integers(1, 4 if size < SIZE else 7))
            picture = clutter(rng, picture, recolour(rng, crop(rng, other, size)), count)
    count = int(rng.choice(len(odds), p=odds))
    return compose(rng, backdrop.name, picture, digits(held_out=held_out), count)


def compose(
    rng: np.random.Generator, photograph: str, picture: Array, digits: Digits, count: int
) -> Scene:
    """Draw digits of different classes on a picture.

    Parameters
    ----------
    rng : Generator
        Where the randomness comes from.
    photograph : str
        The name of what lies behind them.
    picture : ndarray
        (H, W, 3), 0 to 1.
    digits : Digits
        Which to choose from.
    count : int
        How many.  Fewer are drawn where no place or no colour with enough contrast is found.

    Returns
    -------
    Scene
    """
    picture = picture.astype(np.float64)
    lab = rgb2lab(picture)
    marks: list[Mark] = []
    for label in rng.permutation(10)[:count]:
        chosen = rng.choice(np.flatnonzero(digits.labels == label))
        ink = draw(rng, digits.strokes[chosen])
        for _ in range(20):
            box = _place(rng, picture.shape, ink, [mark.box for mark in marks])
            colour = None if box is None else _colour(rng, lab, box)
            if box is not None and colour is not None:
                window = picture[box[1] : box[3], box[0] : box[2]]
                window += (colour - window) * ink[..., np.newaxis]
                marks.append(Mark(int(label), box))
                break
    return Scene((picture * 255).round().astype(np.uint8), tuple(marks), photograph)


def _place(
    rng: np.random.Generator, shape: Sequence[int], ink: Array, taken: Sequence[Box]
) -> Box | None:
    """Choose a box for the ink, apart from those taken, or None."""
    height, width = ink.shape
    x0 = int(rng.integers(_MARGIN, shape[1] - width - _MARGIN + 1))
    y0 = int(rng.integers(_MARGIN, shape[0] - height - _MARGIN + 1))
    box = (x0, y0, x0 + width, y0 + height)
    apart = all(
        x0 >= other[2] + _MARGIN
        or other[0] >= box[2] + _MARGIN
        or y0 >= other[3] + _MARGIN
        or other[1] >= box[3] + _MARGIN
        for other in taken
    )
    return box if apart else None


def _colour(rng: np.random.Generator, lab: Array, box: Box) -> Array | None:
    """Choose an ink that differs in lightness from 9 in 10 pixels around it, or None."""
    x0, y0, x1, y1 = box
    around = lab[y0 - _MARGIN : y1 + _MARGIN, x0 - _MARGIN : x1 + _MARGIN, 0].ravel()
    light = rng.uniform((0, 0.25, 0.85), (1, 1, 1), size=(24, 3))
    dark = rng.uniform((0, 0.5, 0.05), (1, 1, 0.45), size=(24, 3))
    inks = hsv2rgb(np.concatenate([light, dark, [(0, 0, 1), (0, 0, 0.05)]]))
    lightness = rgb2lab(inks)[:, 0]
    contrast = np.quantile(np.abs(lightness[:, np.newaxis] - around), 0.1, axis=1)
    good = np.flatnonzero(contrast >= _CONTRAST)
    return inks[rng.choice(good)] if len(good) else None


class Pose(NamedTuple):
    """A window on a photograph, and the seed of the digits that are drawn on it.

    Attributes
    ----------
    photograph : str
        Its name in `PHOTOGRAPHS`.
    height : int
        To how many pixels its height is scaled down.
    corner : tuple of int
        (x, y) of the window's upper left corner.
    count : int
        How many digits.
    seed : int
        Where the randomness comes from.
    """

    photograph: str
    height: int
    corner: tuple[int, int]
    count: int
    seed: int


SHOWCASE: Final = (
    Pose("chelsea", 128, (30, 0), 3, seed=19),
    Pose("coffee", 181, (60, 40), 2, seed=25),
    Pose("rocket", 128, (32, 0), 3, seed=18),
    Pose("astronaut", 128, (0, 0), 2, seed=22),
    Pose("coffee", 128, (25, 0), 3, seed=28),
    Pose("chelsea", 181, (40, 30), 2, seed=18),
    Pose("astronaut", 181, (20, 5), 3, seed=17),
    Pose("rocket", 181, (80, 53), 2, seed=20),
)
"""The scenes that ship with the demo: chosen by eye, before any network saw them."""


def showcase() -> list[Scene]:
    """Draw the scenes that ship with the demo: held-out digits on held-out photographs.

    Returns
    -------
    list of Scene
    """
    sizes = {
        (backdrop.name, len(picture)): picture
        for backdrop in backdrops(held_out=True)
        for picture in backdrop.sizes
    }
    scenes = []
    for pose in SHOWCASE:
        x, y = pose.corner
        window = sizes[pose.photograph, pose.height][y : y + SIZE, x : x + SIZE]
        rng = np.random.default_rng(pose.seed)
        chosen = digits(held_out=True)
        scenes.append(compose(rng, pose.photograph, window, chosen, pose.count))
    return scenes
