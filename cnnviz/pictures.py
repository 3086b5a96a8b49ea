"""Drawing: heat over a photograph, boxes, and sheets of pictures with titles and captions."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from cnnviz.colours import colourise
from cnnviz.lettering import font_for, leading, text_width, wrapped, write
from cnnviz_core.errors import ArrayError, ParameterError
from cnnviz_core.model import Array, as_float

if TYPE_CHECKING:
    from PIL import Image

__all__ = [
    "ALPHA",
    "FINE",
    "FOUND",
    "SMOOTH",
    "TRUE",
    "Cell",
    "Look",
    "Outline",
    "as_image",
    "contact_sheet",
    "darkened",
    "draw_boxes",
    "encode",
    "heat_layer",
    "overlay",
    "percent",
    "stamp",
]

ALPHA = 0.85
"""How opaque the hottest places are drawn."""
FOUND = "#3fd8ff"
"""The colour of boxes that a method found."""
TRUE = "#8cff5a"
"""The colour of boxes that are known to be right."""


class Look(NamedTuple):
    """How heat and photograph are mixed.

    Attributes
    ----------
    opaque : float
        Heat of this share of the maximum is as opaque as the maximum: colour tells them apart.
    dark, grey : float
        How much of its light and its colour the photograph loses, where `alpha` is 1.
    """

    opaque: float
    dark: float
    grey: float


SMOOTH = Look(opaque=0.6, dark=0.2, grey=0.55)
"""For maps of a layer's grid."""
FINE = Look(opaque=0.4, dark=0.65, grey=0.8)
"""For attributions to single pixels."""

# The weights of sRGB's channels in its luminance, as in the CSS filter `saturate`.
_LUMINANCE = (0.213, 0.715, 0.072, 0.0)
_INK, _MUTED, _WARNING = "#1c2128", "#59636e", "#9a5b00"
_PAPER, _EMPTY, _RULE = "#ffffff", "#f1f3f5", "#d5dae0"
_NOTE_LINES = 4


def heat_layer(
    heat: Array,
    *,
    alpha: float = ALPHA,
    colours: str | None = None,
    signed: bool = False,
    fine: bool = False,
) -> Array:
    """Make a see-through layer of a map, to lay over a photograph.

    Parameters
    ----------
    heat : ndarray (H, W)
        In [0, 1], or in [-1, 1] if `signed`.
    alpha : float
        How opaque the hottest places are, in [0, 1].  The opacity falls with the heat, so that cold
        places show the photograph.
    colours : str, optional
        The name of a colour map; see `cnnviz.colours.colourise`.
    signed : bool
        Whether the map has a sign; its magnitude is then what is opaque.
    fine : bool
        Whether the map is made of single pixels, which must be more opaque to be seen.

    Returns
    -------
    ndarray (H, W, 4) of uint8
        RGB and opacity.

    Raises
    ------
    ParameterError
        If `alpha` is not in [0, 1], or there is no such colour map.
    """
    if not 0 <= alpha <= 1:
        raise ParameterError(
            f"alpha={alpha!r} is out of range",
            "a number from 0 (only the photograph) to 1",
            f"pass alpha={ALPHA} or leave it out",
        )
    values = as_float(heat)
    look = FINE if fine else SMOOTH
    opacity = alpha * np.clip(np.abs(values) / look.opaque, 0, 1)
    rgb = colourise(values, colours, signed=signed)
    return np.concatenate([rgb, np.rint(opacity * 255).astype(np.uint8)[..., None]], axis=-1)


def overlay(
    pixels: Array,
    heat: Array,
    *,
    alpha: float = ALPHA,
    colours: str | None = None,
    signed: bool = False,
    fine: bool = False,
) -> Image.Image:
    """Lay a map over the photograph that it is about.

    The photograph is darkened and greyed a little (much, if `fine`), so that the heat stands out.

    Parameters
    ----------
    pixels : ndarray (H, W, 3) of uint8
        The photograph.
    heat : ndarray (H, W)
        In [0, 1], or in [-1, 1] if `signed`.
    alpha : float
        From 0, the photograph as it is, to 1, the hottest places hide it.
    colours, signed, fine
        See `heat_layer`.

    Returns
    -------
    PIL.Image.Image
        RGB, of the photograph's size.

    Raises
    ------
    ArrayError
        If the sizes differ.
    ParameterError
        If `alpha` is not in [0, 1], or there is no such colour map.
    """
    from PIL import Image

    if np.shape(heat) != np.shape(pixels)[:2]:
        raise ArrayError(
            f"the map has the shape {np.shape(heat)}, the picture {np.shape(pixels)}",
            "a map of the picture's size",
            "bring it there with Geometry.map_to_original",
        )
    layer = heat_layer(heat, alpha=alpha, colours=colours, signed=signed, fine=fine)
    ground = darkened(as_image(pixels), alpha, FINE if fine else SMOOTH)
    heated = Image.fromarray(layer)
    ground.paste(heated, mask=heated)
    return ground


def darkened(photo: Image.Image, alpha: float, look: Look) -> Image.Image:
    """Take light and colour from a photograph, so that heat stands out on it.

    Parameters
    ----------
    photo : PIL image
        RGB.
    alpha : float
        From 0, nothing is taken, to 1.
    look : Look
        How much.

    Returns
    -------
    PIL.Image.Image
    """
    from PIL import Image

    grey = photo.convert("L", _LUMINANCE).convert("RGB")
    ground = Image.blend(photo, grey, alpha * look.grey)
    return ground.point(lambda value: value * (1 - alpha * look.dark))


@dataclass(frozen=True)
class Outline:
    """A box to be drawn.

    Attributes
    ----------
    box : sequence of float
        (x0, y0, x1, y1), half-open, in pixels of the picture that it is drawn on.
    colour : str
        As in CSS: "#3fd8ff" or "white".
    label : str
        A word or two at its corner.
    """

    box: Sequence[float] | Array
    colour: str = FOUND
    label: str = ""


def draw_boxes(
    image: Image.Image | Array,
    boxes: Array | Sequence[Sequence[float]],
    *,
    colour: str = FOUND,
    labels: Sequence[str] = (),
) -> Image.Image:
    """Draw boxes on a picture.

    Parameters
    ----------
    image : PIL image, or ndarray (H, W, 3) of uint8
        The picture, which is left as it is.
    boxes : array_like (k, 4)
        (x0, y0, x1, y1), half-open, in pixels.
    colour : str
        As in CSS.
    labels : sequence of str
        A word or two for each box; none if empty.

    Returns
    -------
    PIL.Image.Image
        A copy with the boxes.
    """
    names = list(labels) or [""] * len(boxes)
    outlines = [Outline(box, colour, label) for box, label in zip(boxes, names, strict=True)]
    return _outlined(as_image(image).copy(), outlines)


def stamp(image: Image.Image | Array, note: str) -> Image.Image:
    """Write a warning across the foot of a picture, and frame the picture.

    Parameters
    ----------
    image : PIL image, or ndarray (H, W, 3) of uint8
        The picture, which is left as it is.
    note : str
        What to say.  A picture too small for words gets the frame only.

    Returns
    -------
    PIL.Image.Image
        A copy with the note.
    """
    from PIL import Image, ImageDraw

    noted = as_image(image).copy()
    width, height = noted.size
    px = max(11, round(min(noted.size) / 18))
    lines = wrapped(note, px, width - px, _NOTE_LINES)
    tall = round(px * 0.6) + leading(px) * len(lines)
    amber = "#ffb000"
    if " ".join(lines) == " ".join(note.split()) and 2 * tall <= height:
        strip = Image.new("RGB", (width, tall), "#14171a")
        noted.paste(
            Image.blend(noted.crop((0, height - tall, width, height)), strip, 0.8),
            (0, height - tall),
        )
        top = height - tall + round(px * 0.35)
        write(ImageDraw.Draw(noted), (width / 2, top), lines, px, amber, "ma")
    ImageDraw.Draw(noted).rectangle(
        (0, 0, width - 1, height - 1), outline=amber, width=_line(noted.size)
    )
    return noted


@dataclass(frozen=True, eq=False)
class Cell:
    """One picture of a sheet.

    Attributes
    ----------
    image : PIL image, ndarray (H, W, 3) of uint8, or None
        None leaves the place empty, but for the note.
    caption : str
        What is written under it.
    outlines : sequence of Outline
        Boxes in the picture's own pixels, drawn after it was scaled, so that they are crisp.
    note : str
        A warning, written on it.
    """

    image: Image.Image | Array | None
    caption: str = ""
    outlines: Sequence[Outline] = ()
    note: str = ""


def contact_sheet(
    rows: Sequence[Sequence[Cell | None]],
    *,
    column_titles: Sequence[str] = (),
    row_titles: Sequence[str] = (),
    headings: Mapping[int, str] | None = None,
    title: str = "",
    footer: str = "",
    cell: int = 224,
) -> Image.Image:
    """Arrange pictures in a grid, with titles and captions.

    Parameters
    ----------
    rows : sequence of sequences of (Cell or None)
        The pictures; None leaves a place empty.
    column_titles, row_titles : sequence of str
        One for each column or row, or none.
    headings : mapping of int to str, optional
        Lines above rows, to begin a block of them.
    title, footer : str
        Above and below the grid.
    cell : int
        The longer side of a picture on the sheet, in pixels.  Pictures are scaled to it; tiny ones
        keep their pixels visible.

    Returns
    -------
    PIL.Image.Image
        RGB.

    Raises
    ------
    ParameterError
        If there is no picture, or the numbers of titles and rows or columns differ.
    """
    from PIL import Image, ImageDraw

    _check_sheet(rows, column_titles, row_titles, cell)
    columns = max(len(row) for row in rows)
    grid = [[*row, *[None] * (columns - len(row))] for row in rows]
    body = max(13, round(cell / 15))
    gap, margin = max(6, round(cell / 22)), max(16, round(cell / 9))
    scaled = [[_scaled(c, cell) for c in row] for row in grid]
    widths = [
        max((p.width for row in scaled if (p := row[j])), default=0) or cell for j in range(columns)
    ]
    heights = [max((p.height for p in row if p), default=0) or cell // 2 for row in scaled]
    # Narrow columns still have room for their words.
    widths = [max(w, cell // 2) for w in widths]

    heads = [wrapped(text, body, w, 2) for text, w in zip(column_titles, widths, strict=False)]
    names = [wrapped(text, body, round(cell * 0.7), 4) for text in row_titles]
    blocks = headings or {}
    bold = round(body * 1.25)
    room = [leading(bold) + gap if i in blocks else 0 for i in range(len(grid))]
    captions = [
        [wrapped(c.caption, body - 1, w, 3) if c else [] for c, w in zip(row, widths, strict=True)]
        for row in grid
    ]
    line, small = leading(body), leading(body - 1)
    side = max((text_width(t, body) for lines in names for t in lines), default=0)
    left = margin + (side + 2 * gap if side else 0)
    width = left + sum(widths) + gap * (columns - 1) + margin
    banner = wrapped(title, round(body * 1.6), width - 2 * margin, 2)
    paragraphs = footer.count("\n") + 1
    foot = wrapped(footer, body - 1, width - 2 * margin, max(4, 3 * paragraphs))
    top = margin + len(banner) * leading(round(body * 1.6)) + (gap if banner else 0)
    below = [
        h + (small * max(map(len, c)) + gap // 2 if any(c) else 0) + gap
        for h, c in zip(heights, captions, strict=True)
    ]
    head = line * max(map(len, heads), default=0) + (gap // 2 if any(heads) else 0)
    feet = len(foot) * small + (gap if foot else 0)
    height = top + head + sum(below) + sum(room) - gap + feet + margin

    sheet = Image.new("RGB", (width, height), _PAPER)
    pen = ImageDraw.Draw(sheet)
    write(pen, (margin, margin), banner, round(body * 1.6), _INK)
    x = left
    for lines, w in zip(heads, widths, strict=False):
        write(pen, (x + w / 2, top + head - gap // 2 - line * len(lines)), lines, body, _INK, "ma")
        x += w + gap
    y = top + head
    for i, row in enumerate(grid):
        if i in blocks:
            write(pen, (margin, y), wrapped(blocks[i], bold, width - 2 * margin, 1), bold, _INK)
            y += room[i]
        if names:
            middle = y + (heights[i] - line * len(names[i])) / 2
            write(pen, (margin + side, middle), names[i], body, _INK, "ra")
        x = left
        for j, content in enumerate(row):
            if content is not None:
                picture = scaled[i][j] or _placeholder(content.note, widths[j], heights[i], body)
                sheet.paste(picture, (x + (widths[j] - picture.width) // 2, y))
                place = (x + widths[j] / 2, y + heights[i] + gap // 2)
                write(pen, place, captions[i][j], body - 1, _MUTED, "ma")
            x += widths[j] + gap
        y += below[i]
    write(pen, (margin, height - margin - len(foot) * small), foot, body - 1, _MUTED)
    return sheet


def percent(share: float) -> str:
    """Write a share as a person reads it: "55 %", and "< 1 %" for what rounds to nothing."""
    return f"{100 * share:.0f} %" if share >= 0.01 else "< 1 %"


def as_image(image: Image.Image | Array) -> Image.Image:
    """Make a PIL image (RGB) of pixels (H, W, 3) of uint8, or of another PIL image."""
    from PIL import Image

    if isinstance(image, Image.Image):
        return image.convert("RGB")
    return Image.fromarray(np.ascontiguousarray(image))


def encode(image: Image.Image, format: str = "PNG") -> bytes:
    """Encode a picture.

    Parameters
    ----------
    image : PIL image
        The picture.
    format : {"PNG", "JPEG", "WEBP"}
        All but PNG lose a little.

    Returns
    -------
    bytes
        A file's content.
    """
    buffer = io.BytesIO()
    options = {"JPEG": {"quality": 92, "subsampling": 0}, "WEBP": {"quality": 92}}
    image.save(buffer, format, **options.get(format, {}))
    return buffer.getvalue()


def _check_sheet(
    rows: Sequence[Sequence[Cell | None]],
    column_titles: Sequence[str],
    row_titles: Sequence[str],
    cell: int,
) -> None:
    """Check that the parts of a sheet fit together."""
    if not any(content is not None for row in rows for content in row):
        raise ParameterError("a sheet without pictures was asked for", "a picture", "pass one")
    columns = max(len(row) for row in rows)
    for what, titles, n in (("column", column_titles, columns), ("row", row_titles, len(rows))):
        if titles and len(titles) != n:
            raise ParameterError(
                f"{len(titles)} {what} titles were given for {n} {what}s",
                f"one title for each {what}, or none",
                "pass as many",
            )
    if cell < 32:
        raise ParameterError(
            f"cell={cell} is too small", "at least 32 pixels", "leave it out for 224"
        )


def _scaled(content: Cell | None, cell: int) -> Image.Image | None:
    """Scale a cell's picture, and draw on it what belongs there."""
    from PIL import Image

    if content is None or content.image is None:
        return None
    image = as_image(content.image)
    scale = cell / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    # A picture of a few dozen pixels shows them; anything larger is smooth.
    sampling = Image.Resampling.NEAREST if scale > 4 else Image.Resampling.LANCZOS
    picture = _outlined(image.resize(size, sampling), content.outlines, scale)
    return stamp(picture, content.note) if content.note else picture


def _placeholder(note: str, width: int, height: int, px: int) -> Image.Image:
    """Make what stands where there is no picture."""
    from PIL import Image, ImageDraw

    panel = Image.new("RGB", (width, height), _EMPTY)
    pen = ImageDraw.Draw(panel)
    pen.rectangle((0, 0, width - 1, height - 1), outline=_RULE)
    line = leading(px - 1)
    lines = wrapped(note, px - 1, width - 2 * px, max(1, (height - px) // line))
    write(pen, (width / 2, (height - line * len(lines)) / 2), lines, px - 1, _WARNING, "ma")
    return panel


def _outlined(image: Image.Image, outlines: Sequence[Outline], scale: float = 1.0) -> Image.Image:
    """Draw boxes on this very picture, whose pixels are `scale` times those of the boxes."""
    from PIL import ImageColor, ImageDraw

    pen = ImageDraw.Draw(image)
    thick = _line(image.size)
    for outline in outlines:
        x0, y0, x1, y1 = (round(v * scale) for v in outline.box)
        x1, y1 = max(x0 + 1, x1), max(y0 + 1, y1)
        # A dark rim on both sides keeps the line legible on any ground.
        pen.rectangle((x0 - 1, y0 - 1, x1, y1), outline="#101418", width=thick + 2)
        pen.rectangle((x0, y0, x1 - 1, y1 - 1), outline=outline.colour, width=thick)
        if outline.label:
            px = max(10, round(min(image.size) / 20))
            wide, tall = text_width(outline.label, px) + px // 2, round(px * 1.3)
            x = max(0, min(x0, image.width - wide))
            y = y0 - tall if y0 >= tall else y0
            pen.rectangle((x, y, x + wide - 1, y + tall - 1), fill=outline.colour)
            r, g, b = ImageColor.getrgb(outline.colour)[:3]
            ink = "black" if 0.299 * r + 0.587 * g + 0.114 * b > 128 else "white"
            font = font_for(outline.label, px)
            pen.text((x + wide / 2, y + tall / 2), outline.label, fill=ink, font=font, anchor="mm")
    return image


def _line(size: tuple[int, int]) -> int:
    """Give how thick lines are drawn on a picture of a size."""
    return math.ceil(max(size) / 150)
