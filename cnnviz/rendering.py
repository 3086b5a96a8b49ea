"""Signals and volumes as pictures: lines over bands of heat, slices through the hottest place."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from cnnviz.lettering import text_width, write
from cnnviz.pictures import ALPHA, FINE, SMOOTH, Look, as_image, darkened, heat_layer
from cnnviz_core.errors import ArrayError
from cnnviz_core.model import Array

if TYPE_CHECKING:
    from PIL import Image, ImageDraw

__all__ = ["PLAIN", "SIDE", "Scene", "draw_signal", "draw_volume", "hottest"]

SIDE: Final = 720
"""The width of a drawing, in pixels."""
PLAIN: Final = Look(opaque=SMOOTH.opaque, dark=0.0, grey=0.0)
"""For grounds that are dark already."""

_PAPER, _PLOT, _GRID, _INK = "#14171a", "#1c2126", "#333a42", "#a9b2bb"
_HALO: Final = (12, 15, 18, 235)
_LINES: Final = ((245, 247, 249), (92, 208, 255), (128, 226, 138), (255, 164, 226))
# More channels than there are colours have a lane each; more than these are rows of a picture.
_LANES: Final = 24
_FINER: Final = 3
_CUTS: Final = ("depth", "row", "column")


@dataclass(frozen=True, eq=False)
class Scene:
    """A drawing of a sample that is no picture.

    Attributes
    ----------
    ground : PIL.Image.Image
        The sample alone, RGB.
    layer : PIL.Image.Image
        The heat, RGBA, with the lines and letters that must stay legible on it.
    look : Look
        How the ground is changed under the heat.
    alpha : float
        How much of it: from 0 to 1.
    frames : tuple of (x0, y0, x1, y1)
        Where boxes of the sample are in the drawing, in its pixels.
    """

    ground: Image.Image
    layer: Image.Image
    look: Look = PLAIN
    alpha: float = ALPHA
    frames: tuple[tuple[int, int, int, int], ...] = ()

    def overlay(self) -> Image.Image:
        """Lay the heat over the ground.

        Returns
        -------
        PIL.Image.Image
            RGB, of the ground's size.
        """
        if self.alpha == 0:
            return self.ground.copy()
        image = darkened(self.ground, self.alpha, self.look)
        image.paste(self.layer, mask=self.layer)
        return image


def draw_signal(
    values: Array,
    heat: Array,
    *,
    alpha: float = ALPHA,
    colours: str | None = None,
    signed: bool = False,
    fine: bool = False,
    intervals: Array | Sequence[Sequence[float]] = (),
    side: int = SIDE,
) -> Scene:
    """Draw a signal as lines, over bands in the colours of the heat.

    Up to four channels share an axis; up to twenty-four have a lane each, all of one scale; more
    are rows of a grey picture.  Position i takes the space from i to i + 1, and its value is drawn
    in the middle.  Of a signal with more positions than pixels each column shows the extremes.

    Parameters
    ----------
    values : ndarray (L, C)
        The signal.
    heat : ndarray (L,)
        In [0, 1], or in [-1, 1] if `signed`.
    alpha, colours, signed, fine
        See `cnnviz.pictures.heat_layer`.
    intervals : array_like (k, 2)
        From where to where boxes reach, half-open, in positions.
    side : int
        The width of the drawing, in pixels.

    Returns
    -------
    Scene

    Raises
    ------
    ArrayError
        If the numbers of positions differ.
    ParameterError
        If `alpha` is not in [0, 1], or there is no such colour map.
    """
    from PIL import Image

    if np.ndim(values) != 2 or np.shape(heat) != np.shape(values)[:1]:
        raise ArrayError(
            f"the map has the shape {np.shape(heat)}, the signal {np.shape(values)}",
            "a map (L,) of a signal (L, C)",
            "bring it there with Geometry.map_to_original",
        )
    plot = _Plot.of(np.asarray(values), side)
    lines = plot.lines()
    ground = plot.axes()
    ground.paste(lines, mask=lines)
    (x0, y0, x1, y1) = plot.area
    columns = _extremes(np.asarray(heat), x1 - x0)
    band = heat_layer(columns[None], alpha=alpha, colours=colours, signed=signed, fine=fine)
    layer = Image.new("RGBA", ground.size, (0, 0, 0, 0))
    wide = Image.fromarray(band).resize((x1 - x0, y1 - y0), Image.Resampling.NEAREST)
    layer.paste(wide, (x0, y0))
    # The lines are over the bands, and as see-through: where it is cold, the ground's own remain.
    opacity = layer.getchannel("A")
    layer.paste(lines, mask=lines)
    layer.putalpha(opacity)
    frames = [(round(plot.x(a)), y0, round(plot.x(b)), y1) for a, b in intervals]
    return Scene(ground, layer, PLAIN, alpha, tuple(frames))


@dataclass(frozen=True, eq=False)
class _Plot:
    """A signal on its axes.

    Attributes
    ----------
    values : ndarray (L, C)
    size : tuple of int
        (width, height) of the drawing.
    area : tuple of int
        (x0, y0, x1, y1) of what is inside the axes.
    px : int
        The size of letters.
    ticks : list of (float, str)
        The marks on the upright axis: the height in the drawing, and what stands there.
    """

    values: Array
    size: tuple[int, int]
    area: tuple[int, int, int, int]
    px: int
    ticks: list[tuple[float, str]]

    @classmethod
    def of(cls, values: Array, side: int) -> _Plot:
        """Make room for a signal in a drawing of a width."""
        channels = values.shape[1]
        px = max(12, round(side / 52))
        # A lane of its own for each channel needs height.
        tall = round(side * (0.42 if channels <= len(_LINES) else 0.6))
        top = round(px * (1.9 if 1 < channels <= len(_LINES) else 0.8))
        foot = tall - round(px * 1.9)
        ticks = cls._ticks(values, top, foot, px)
        left = max((text_width(text, px) for _, text in ticks), default=0) + px
        return cls(values, (side, tall), (left, top, side - px, foot), px, ticks)

    @staticmethod
    def _ticks(values: Array, top: int, foot: int, px: int) -> list[tuple[float, str]]:
        """Mark values or, where they have lanes or rows, channels."""
        channels = values.shape[1]
        if channels <= len(_LINES):
            low, high = _range(values)
            marks = _round_numbers(low, high, max(2, (foot - top) // (3 * px)))
            return [(foot - (m - low) / (high - low) * (foot - top), f"{m:.4g}") for m in marks]
        lane = (foot - top) / channels
        step = max(1, math.ceil(1.2 * px / lane))
        return [(top + (c + 0.5) * lane, str(c)) for c in range(0, channels, step)]

    def x(self, position: float) -> float:
        """Give where a position begins."""
        x0, _, x1, _ = self.area
        return x0 + position * (x1 - x0) / len(self.values)

    def axes(self) -> Image.Image:
        """Draw the ground, the axes and what stands at them."""
        from PIL import Image, ImageDraw

        image = Image.new("RGB", self.size, _PAPER)
        pen = ImageDraw.Draw(image)
        x0, y0, x1, y1 = self.area
        pen.rectangle((x0, y0, x1 - 1, y1 - 1), fill=_PLOT)
        positions, channels = self.values.shape
        for y, text in self.ticks:
            if channels <= len(_LINES):
                pen.line((x0, round(y), x1 - 1, round(y)), fill=_GRID)
            write(pen, (x0 - self.px // 2, y), [text], self.px, _INK, "rm")
        title = "position"
        room = x1 - text_width(title, self.px) - self.px
        below = y1 + self.px // 3
        write(pen, (x1, below), [title], self.px, _INK, "ra")
        most = max(2, (x1 - x0) // (5 * self.px))
        for mark in _round_numbers(0, positions - 1, most, whole=True):
            x, text = self.x(mark + 0.5), f"{mark:.0f}"
            pen.line((round(x), y1, round(x), y1 + self.px // 4), fill=_INK)
            if x + text_width(text, self.px) / 2 < room:
                write(pen, (x, below), [text], self.px, _INK, "ma")
        if 1 < channels <= len(_LINES):
            self._name_channels(pen)
        return image

    def _name_channels(self, pen: ImageDraw.ImageDraw) -> None:
        """Write which colour is which channel."""
        x = float(self.area[0])
        for channel in range(self.values.shape[1]):
            text = f"channel {channel}" if channel == 0 else str(channel)
            ink = "#{:02x}{:02x}{:02x}".format(*_LINES[channel])
            write(pen, (x, self.px // 3), [text], self.px, ink)
            x += text_width(text, self.px) + self.px

    def lines(self) -> Image.Image:
        """Draw the signal itself, on nothing."""
        from PIL import Image, ImageDraw

        channels = self.values.shape[1]
        if channels > _LANES:
            return self._raster()
        width, height = self.size
        fine = Image.new("RGBA", (width * _FINER, height * _FINER), (0, 0, 0, 0))
        pen = ImageDraw.Draw(fine)
        thick = max(1.4, width / 400) * _FINER
        for channel in reversed(range(channels)):
            points = [(x * _FINER, y * _FINER) for x, y in self._points(channel)]
            ink = _LINES[channel] if channels <= len(_LINES) else _LINES[0]
            # A dark rim on both sides keeps the line legible on any heat.
            pen.line(points, fill=_HALO, width=round(thick * 2.2), joint="curve")
            pen.line(points, fill=(*ink, 255), width=round(thick), joint="curve")
        return fine.reduce(_FINER)

    def _points(self, channel: int) -> list[tuple[float, float]]:
        """Give the corners of a channel's line."""
        x0, y0, x1, y1 = self.area
        values = self.values[:, channel].astype(np.float64)
        columns = x1 - x0
        if len(values) > 2 * columns:
            starts = np.arange(columns) * len(values) // columns
            both = [np.minimum.reduceat(values, starts), np.maximum.reduceat(values, starts)]
            shown = np.stack(both, axis=1).ravel()
            places = x0 + np.repeat(np.arange(columns) + 0.5, 2)
        else:
            shown = values
            places = x0 + (np.arange(len(values)) + 0.5) * columns / len(values)
        if len(shown) == 1:
            shown, places = shown.repeat(2), np.array([x0, x1])
        channels = self.values.shape[1]
        if channels <= len(_LINES):
            low, high = _range(self.values)
            heights = y1 - (shown - low) / (high - low) * (y1 - y0)
        else:
            lane = (y1 - y0) / channels
            scale = np.ptp(self.values.astype(np.float64), axis=0).max() or 1.0
            middle = (values.max() + values.min()) / 2
            heights = y0 + (channel + 0.5) * lane - (shown - middle) / scale * lane * 0.92
        return list(zip(places.tolist(), heights.tolist(), strict=True))

    def _raster(self) -> Image.Image:
        """Draw the channels as rows of a grey picture, which the heat may hide."""
        from PIL import Image

        x0, y0, x1, y1 = self.area
        values = self.values.T.astype(np.float64)
        low, high = values.min(), values.max()
        grey = (values - low) * (255 / (high - low) if high > low else 0.0)
        # Somewhat more than half of it stays where the heat is.
        pixels = np.stack([grey, np.full_like(grey, 150)], axis=-1).round().astype(np.uint8)
        rows = Image.fromarray(pixels, "LA").resize((x1 - x0, y1 - y0), Image.Resampling.BOX)
        whole = Image.new("RGBA", self.size, (0, 0, 0, 0))
        whole.paste(rows.convert("RGBA"), (x0, y0))
        return whole


def _range(values: Array) -> tuple[float, float]:
    """Give the range of an axis: a little more than that of the values."""
    low, high = float(values.min()), float(values.max())
    room = 0.06 * (high - low) or abs(high) or 1.0
    return low - room, high + room


def _round_numbers(low: float, high: float, most: int, *, whole: bool = False) -> list[float]:
    """Choose at most about so many round numbers in a range."""
    span = high - low
    if span <= 0:
        return [low]
    least = span / most
    power = 10.0 ** math.floor(math.log10(least))
    step = next(power * k for k in (1, 2, 5, 10) if power * k >= least * (1 - 1e-9))
    step = max(1.0, step) if whole else step
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [k * step for k in range(first, last + 1)]


def _extremes(heat: Array, columns: int) -> Array:
    """Bring a map to columns of pixels; of the positions in one the most extreme is kept."""
    if len(heat) <= columns:
        return heat[(np.arange(columns) * 2 + 1) * len(heat) // (2 * columns)]
    starts = np.arange(columns) * len(heat) // columns
    high, low = np.maximum.reduceat(heat, starts), np.minimum.reduceat(heat, starts)
    return np.where(high >= -low, high, low)


def hottest(map: Array) -> tuple[int, ...]:
    """Find where a map is largest in magnitude.

    Parameters
    ----------
    map : ndarray (D, H, W)
        Any number of axes.

    Returns
    -------
    tuple of int
        The first such place; the middle of a map that is nowhere hot or not finite.
    """
    size = np.abs(map)
    if not np.isfinite(size).all() or not size.any():
        return tuple(n // 2 for n in map.shape)
    return tuple(int(k) for k in np.unravel_index(size.argmax(), map.shape))


def draw_volume(
    voxels: Array,
    heat: Array,
    at: Sequence[int] | None = None,
    *,
    alpha: float = ALPHA,
    colours: str | None = None,
    signed: bool = False,
    fine: bool = False,
    side: int = SIDE,
) -> Scene:
    """Draw three slices through a volume, at right angles, with the heat on them.

    Small marks around each slice say where the other two cut it.

    Parameters
    ----------
    voxels : ndarray (D, H, W, 3) of uint8
        The volume.
    heat : ndarray (D, H, W)
        In [0, 1], or in [-1, 1] if `signed`.
    at : sequence of int, optional
        (depth, row, column) of the voxel in which the slices meet; the hottest if left out.
    alpha, colours, signed, fine
        See `cnnviz.pictures.heat_layer`.
    side : int
        The width of the drawing, in pixels.

    Returns
    -------
    Scene

    Raises
    ------
    ArrayError
        If the sizes differ.
    ParameterError
        If `alpha` is not in [0, 1], or there is no such colour map.
    """
    from PIL import Image, ImageDraw

    if np.ndim(heat) != 3 or np.shape(heat) != np.shape(voxels)[:3]:
        raise ArrayError(
            f"the map has the shape {np.shape(heat)}, the volume {np.shape(voxels)}",
            "a map (D, H, W) of a volume (D, H, W, 3)",
            "bring it there with Geometry.map_to_original",
        )
    place = hottest(heat) if at is None else tuple(at)
    px = max(12, round(side / 48))
    margin, head = px, 2 * px
    depth, height, width = np.shape(heat)
    scale = (side - 4 * margin) / (2 * width + height)
    scale = min(scale, side / max(height, depth))
    tall = max(1, round(scale * max(height, depth)))
    ground = Image.new("RGB", (side, head + tall + margin), _PAPER)
    layer = Image.new("RGBA", ground.size, (0, 0, 0, 0))
    inked = ImageDraw.Draw(ground), ImageDraw.Draw(layer)
    look = FINE if fine else SMOOTH
    x = (side - scale * (2 * width + height) - 2 * margin) / 2
    for axis, name in enumerate(_CUTS):
        slice_ = np.take(voxels, place[axis], axis)
        hot = np.take(heat, place[axis], axis)
        rows, columns = hot.shape
        size = (max(1, round(columns * scale)), max(1, round(rows * scale)))
        smooth = Image.Resampling.NEAREST if scale > 4 else Image.Resampling.BILINEAR
        left, top = round(x), head
        ground.paste(as_image(slice_).resize(size, smooth), (left, top))
        shown = heat_layer(hot, alpha=alpha, colours=colours, signed=signed, fine=fine)
        layer.paste(Image.fromarray(shown).resize(size, smooth), (left, top))
        others = [place[k] for k in range(3) if k != axis]
        for pen in inked:
            write(pen, (left, head - round(px * 0.7)), [f"{name} {place[axis]}"], px, _INK, "ls")
            _mark(pen, (left, top, *size), scale, others, px)
        x += columns * scale + margin
    return Scene(ground, layer, look, alpha)


def _mark(
    pen: ImageDraw.ImageDraw,
    panel: tuple[int, int, int, int],
    scale: float,
    cut: Sequence[int],
    px: int,
) -> None:
    """Mark at the rims of a slice the row and the column in which the other slices cut it."""
    left, top, width, height = panel
    long = px // 3
    x, y = (round(start + (k + 0.5) * scale) for start, k in ((left, cut[1]), (top, cut[0])))
    for end in (top - long - 1, top + height):
        pen.line((x, end, x, end + long), fill=_INK, width=2)
    for end in (left - long - 1, left + width):
        pen.line((end, y, end + long, y), fill=_INK, width=2)
