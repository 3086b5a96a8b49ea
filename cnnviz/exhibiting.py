"""Drawing exhibits: each kind as a block of a matplotlib figure, blocks below each other."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from cnnviz.figures.canvas import INK, MUTED, Block, Canvas, Scale, styled
from cnnviz.figures.curves import CurvesBlock
from cnnviz.figures.gallery import GalleryBlock
from cnnviz.figures.lines import LEADING, wrapped
from cnnviz.figures.matrix import MatrixBlock
from cnnviz.figures.table import TableBlock
from cnnviz.pictures import as_image, encode
from cnnviz_core.errors import ParameterError
from cnnviz_core.exhibits import Curves, Exhibit, Gallery, Matrix

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["DPI", "draw", "written"]

_FORMATS: Final = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
DPI: Final = 150
"""How many pixels an inch of a figure has."""

# A figure whose width nobody asked for is as wide as what it shows, but no wider than this.
_WIDEST, _NARROWEST = 19.2, 4.8
_TITLE, _HEADING, _FOOT = 19.0, 15.0, 11.5
_FOOT_LINES = 6


def draw(
    exhibits: Sequence[Exhibit],
    *,
    title: str = "",
    footer: str = "",
    width: float | None = None,
    dpi: float = DPI,
) -> Figure:
    """Draw exhibits below each other.

    Parameters
    ----------
    exhibits : sequence of Exhibit
        What is to be seen.
    title, footer : str
        Above and below all of them.
    width : float, optional
        Of the figure, in inches; as wide as what it shows if left out.
    dpi : float
        Pixels for an inch.  At this very resolution the pixels of small pictures are squares of
        whole pixels.

    Returns
    -------
    matplotlib.figure.Figure
        Not one of pyplot's: nothing need be closed.

    Raises
    ------
    ParameterError
        If the width or the resolution is not positive, or the figure would be too large.
    """
    for name, value in (("width", width), ("dpi", dpi)):
        if value is not None and not value > 0:
            raise ParameterError(
                f"{name}={value!r} is no size", "a number above 0", f"leave {name} out"
            )
    with styled():
        return _Sheet(exhibits, title, footer, width, dpi).figure()


def block_of(exhibit: Exhibit, scale: Scale) -> Block:
    """Lay out an exhibit."""
    if isinstance(exhibit, Gallery):
        return GalleryBlock(exhibit, scale)
    if isinstance(exhibit, Curves):
        return CurvesBlock(exhibit, scale)
    if isinstance(exhibit, Matrix):
        return MatrixBlock(exhibit, scale)
    return TableBlock(exhibit, scale)


class _Sheet:
    """Blocks below each other, each with a heading."""

    def __init__(
        self,
        exhibits: Sequence[Exhibit],
        title: str,
        footer: str,
        width: float | None,
        dpi: float,
    ) -> None:
        self.dpi = dpi
        self.margin = round(0.2 * dpi)
        most = round((width or _WIDEST) * dpi)
        scale = Scale(dpi, max(1, most - 2 * self.margin))
        self.scale = scale
        self.blocks = [block_of(exhibit, scale) for exhibit in exhibits]
        texts = ["" if exhibit.title == title else exhibit.title for exhibit in exhibits]
        widest_block = max((block.size[0] for block in self.blocks), default=0)
        inner = max(widest_block, round(_NARROWEST * dpi) - 2 * self.margin)
        self.inner = scale.width if width else inner
        self.title = wrapped(title, scale.letters(_TITLE), self.inner, 3)
        self.headings = [wrapped(t, scale.letters(_HEADING), self.inner, 2) for t in texts]
        self.footer = wrapped(footer, scale.letters(_FOOT), self.inner, _FOOT_LINES)

    def _tall(self, lines: Sequence[str], size: float, air: float) -> int:
        """Give the height of lines with some air below them; nothing of none."""
        return round((len(lines) * LEADING + air) * self.scale.letters(size)) if lines else 0

    def figure(self) -> Figure:
        """Draw them."""
        gap = self.scale.px(26)
        title = self._tall(self.title, _TITLE, 0.6)
        heads = [self._tall(lines, _HEADING, 0.5) for lines in self.headings]
        foot = self._tall(self.footer, _FOOT, 0)
        blocks = sum(heads) + sum(block.size[1] for block in self.blocks)
        gaps = gap * (len(self.blocks) - 1 + bool(foot))
        height = 2 * self.margin + title + blocks + max(0, gaps) + foot
        canvas = Canvas((self.inner + 2 * self.margin, max(1, height)), self.dpi)
        field = canvas.field(0, 0, *canvas.size, label="sheet")
        x = self.margin
        canvas.write(field, (x, self.margin), self.title, self.scale.letters(_TITLE), INK)
        y = self.margin + title
        for block, lines, head in zip(self.blocks, self.headings, heads, strict=True):
            canvas.write(field, (x, y), lines, self.scale.letters(_HEADING), INK)
            block.draw(canvas, x, y + head)
            y += head + block.size[1] + gap
        place = (x, canvas.size[1] - self.margin - foot)
        canvas.write(field, place, self.footer, self.scale.letters(_FOOT), MUTED)
        return canvas.figure


def written(figures: Sequence[Figure], suffix: str) -> bytes:
    """Encode figures as a file.

    Parameters
    ----------
    figures : sequence of matplotlib.figure.Figure
        As `draw` gives them; several only for ".pdf".
    suffix : {".png", ".jpg", ".jpeg", ".webp", ".svg", ".pdf"}
        Of the file.

    Returns
    -------
    bytes
        Its content: the same for the same figures, whenever it is written.
    """
    buffer = io.BytesIO()
    with styled(), warnings.catch_warnings():
        # A letter that the font lacks is drawn as a box, and is a letter in files of text.
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        if suffix == ".pdf":
            _write_pages(figures, buffer)
        elif suffix == ".svg":
            _write_svg(figures[0], buffer)
        else:
            canvas: Any = figures[0].canvas
            canvas.draw()
            image = as_image(np.asarray(canvas.buffer_rgba())[..., :3])
            buffer.write(encode(image, _FORMATS[suffix]))
    return buffer.getvalue()


def _write_pages(figures: Sequence[Figure], buffer: io.BytesIO) -> None:
    """Write figures as the pages of a PDF."""
    from matplotlib.backends.backend_pdf import PdfPages

    with PdfPages(buffer, metadata={"CreationDate": None}) as pages:
        for figure in figures:
            pages.savefig(figure, dpi=figure.dpi)


def _write_svg(figure: Figure, buffer: io.BytesIO) -> None:
    """Write a figure whose letters stay letters, also where the reader lacks their font."""
    plain = io.StringIO()
    figure.savefig(plain, format="svg", dpi=figure.dpi, metadata={"Date": None})
    alike = "'DejaVu Sans', Verdana, sans-serif"
    buffer.write(plain.getvalue().replace("'DejaVu Sans'", alike).encode())
