"""A matplotlib figure on which things are placed to the pixel."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from cnnviz.figures import tiles
from cnnviz.figures.lines import LEADING
from cnnviz.pictures import FOUND
from cnnviz_core.errors import ParameterError
from cnnviz_core.exhibits import Tile

__all__ = ["EMPTY", "INK", "MUTED", "PAPER", "RULE", "Block", "Canvas", "Scale", "styled"]

INK: Final = "#1c2128"
MUTED: Final = "#59636e"
PAPER: Final = "#ffffff"
EMPTY: Final = "#f1f3f5"
RULE: Final = "#d5dae0"
_RIM: Final = "#101418"

# Agg draws no picture larger than this.
_MOST = 2**16 - 1
_STYLE: Final = {
    "axes.edgecolor": RULE,
    "axes.facecolor": "none",
    "axes.labelcolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.unicode_minus": True,
    "figure.facecolor": PAPER,
    "font.family": ["DejaVu Sans"],
    "pdf.fonttype": 42,
    "savefig.facecolor": PAPER,
    "svg.fonttype": "none",
    # Names inside a file that are the same each time.
    "svg.hashsalt": "cnnviz",
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
}


@contextlib.contextmanager
def styled() -> Iterator[None]:
    """Draw, or write, as matplotlib does by default but for our colours and letters.

    What a user has set stays what it was, and does not show in our figures.
    """
    import matplotlib.style

    with matplotlib.style.context(["default", _STYLE]):
        yield


@dataclass(frozen=True)
class Scale:
    """How large things are drawn.

    Attributes
    ----------
    dpi : float
        The figure's pixels for an inch.
    width : int
        How many of its pixels there are for a block, from left to right.
    """

    dpi: float
    width: int

    def px(self, size: float) -> int:
        """Give in the figure's pixels what is as large as so many pixels at 100 dpi."""
        return round(size * self.dpi / 100)

    def noted(self, wide: int) -> int:
        """Give the width of a note's lines below what is so wide: still good to read."""
        return min(self.width, max(wide, self.px(640)))

    def letters(self, size: float) -> float:
        """Give the size of letters, in the figure's pixels, that are as large at 100 dpi."""
        return size * self.dpi / 100


class Block(Protocol):
    """Something that stands on a figure, below what came before."""

    @property
    def size(self) -> tuple[int, int]:
        """Its width and height, in pixels."""
        ...

    def draw(self, canvas: Canvas, left: int, top: int) -> None:
        """Draw it with its upper left corner there."""
        ...


class Canvas:
    """A figure whose pixels are counted from its upper left corner.

    Parameters
    ----------
    size : tuple of int
        (width, height) in pixels.
    dpi : float
        How many of them there are for an inch.
    """

    def __init__(self, size: tuple[int, int], dpi: float) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        if max(size) > _MOST:
            raise ParameterError(
                f"a figure of {size[0]} x {size[1]} pixels was asked for",
                f"at most {_MOST} pixels a side",
                "pass a smaller dpi, draw one exhibit each with figures(), or save .html or .pdf",
            )
        self.size = size
        self.dpi = dpi
        self.figure: Any = Figure(figsize=(size[0] / dpi, size[1] / dpi), dpi=dpi)
        FigureCanvasAgg(self.figure)

    def axes(self, left: float, top: float, width: float, height: float, **options: Any) -> Any:
        """Make axes that take this part of the figure.

        Parameters
        ----------
        left, top, width, height : float
            In pixels.
        **options
            For `matplotlib.figure.Figure.add_axes`.

        Returns
        -------
        matplotlib.axes.Axes
        """
        w, h = self.size
        place = (left / w, 1 - (top + height) / h, width / w, height / h)
        return self.figure.add_axes(place, **options)

    def field(self, left: float, top: float, width: float, height: float, label: str) -> Any:
        """Make bare axes whose coordinates are the figure's pixels from their upper left corner."""
        width, height = max(1, width), max(1, height)
        axes = self.axes(left, top, width, height, label=label)
        axes.set_axis_off()
        axes.set(xlim=(0, width), ylim=(height, 0), autoscale_on=False)
        return axes

    def write(
        self,
        on: Any,
        place: tuple[float, float],
        lines: Sequence[str],
        px: float,
        colour: str = INK,
        anchor: str = "left",
        *,
        bold: bool = False,
    ) -> None:
        """Write lines of text on a field, the first one below the place.

        Parameters
        ----------
        on : matplotlib.axes.Axes
            What `field` gave.
        place : tuple of float
            Where the text begins, ends or has its middle, and the upper edge of its first line.
        lines : sequence of str
            One below the other.
        px : float
            The size of the letters, in the figure's pixels.
        colour : str
            As in CSS.
        anchor : {"left", "center", "right"}
            What of the text is at the place.
        bold : bool
            Whether the letters are bold.
        """
        x, y = place
        for i, line in enumerate(lines):
            on.text(
                x,
                y + px * (1.03 + i * LEADING),
                line,
                fontsize=px * 72 / self.dpi,
                color=colour,
                ha=anchor,
                va="baseline",
                weight="bold" if bold else "normal",
                parse_math=False,
            )

    def write_slanted(self, on: Any, place: tuple[float, float], text: str, px: float) -> None:
        """Write a line that rises to its end, which has its upper right corner at the place."""
        on.text(
            *place,
            text,
            fontsize=px * 72 / self.dpi,
            ha="right",
            va="top",
            rotation=45,
            rotation_mode="anchor",
            parse_math=False,
        )

    def write_upright(self, on: Any, place: tuple[float, float], text: str, px: float) -> None:
        """Write a muted bold line from bottom to top, with its middle at the place."""
        on.text(
            *place,
            text,
            fontsize=px * 72 / self.dpi,
            color=MUTED,
            ha="center",
            va="center",
            rotation=90,
            weight="bold",
            parse_math=False,
        )

    def draw_tile(
        self,
        on: Any,
        tile: Tile,
        corner: tuple[int, int],
        size: tuple[int, int],
        colours: tiles.Colours,
    ) -> None:
        """Draw a tile of a gallery on a field, without its caption.

        Parameters
        ----------
        on : matplotlib.axes.Axes
            What `field` gave.
        tile : Tile
            With its boxes.
        corner : tuple of int
            Its upper left one, in pixels.
        size : tuple of int
            Its width and height, in pixels.
        colours : mapping of str to str
            Of the classes.
        """
        from matplotlib.image import AxesImage
        from matplotlib.patches import Rectangle

        (left, top), (width, height) = corner, size
        extent = (left, left + width, top + height, top)
        image = AxesImage(on, extent=extent, origin="upper", interpolation="none", resample=False)
        image.set_data(tiles.drawn(tile, size, colours))
        on.add_image(image)
        scale = width / tiles.shape_of(tile)[1]
        thin = max(1.0, max(size) / 150) * 72 / self.dpi
        for x0, y0, x1, y1 in tile.boxes:
            place = (left + x0 * scale, top + y0 * scale)
            sides = ((x1 - x0) * scale, (y1 - y0) * scale)
            # A dark rim on both sides keeps the line legible on any ground.
            for colour, thick in ((_RIM, 2.4 * thin), (FOUND, thin)):
                frame = Rectangle(place, *sides, fill=False, ec=colour, lw=thick, joinstyle="miter")
                on.add_patch(frame)
