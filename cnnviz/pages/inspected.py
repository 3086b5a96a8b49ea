"""What a page shows of an inspection."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any, Final

import numpy as np

from cnnviz.animation import encode_gif
from cnnviz.exhibiting import draw, written
from cnnviz.figures import canvas, tiles
from cnnviz.figures.matrix import fields_of
from cnnviz.inspection import Inspection
from cnnviz.pages.embedding import uri
from cnnviz.pictures import as_image, draw_boxes, encode
from cnnviz.wording import gallery_note, said
from cnnviz_core.exhibits import Curves, Exhibit, Gallery, Matrix, Table, Tile

__all__ = ["glimpse", "inspected"]

# Screens often have more pixels than pages count; photographs are sharp on them.
_FINER = 1.5
# What is drawn in the ink of paper takes the page's, which is another in the dark.
_INKS: Final = {
    canvas.INK: "var(--ink)",
    canvas.MUTED: "var(--muted)",
    canvas.RULE: "var(--rule)",
    canvas.EMPTY: "var(--panel)",
}


def inspected(inspection: Inspection) -> dict[str, Any]:
    """Say what a page shows of an inspection.

    Parameters
    ----------
    inspection : Inspection
        Any.

    Returns
    -------
    dict of str to value
        What the template "inspection.html" writes.
    """
    return {
        "template": "inspection.html",
        "title": inspection.title or inspection.inspector,
        "inspector": inspection.inspector,
        "exhibits": [_exhibit(exhibit) for exhibit in inspection.exhibits],
        "animation": _animation(inspection),
        "facts": said(inspection.facts),
        "params": said(inspection.params),
        "provenance": said(inspection.provenance),
    }


def glimpse(inspection: Inspection) -> dict[str, Any]:
    """Say what a notebook shows of an inspection.

    Parameters
    ----------
    inspection : Inspection
        Any.

    Returns
    -------
    dict of str to value
        What the template "inspection_fragment.html" writes.
    """
    figure = inspection.figure()
    return {
        "figure": uri(written([figure], ".png"), "png"),
        "width": round(100 * figure.get_figwidth()),
        "title": inspection.title or inspection.inspector,
        "animation": _animation(inspection),
        "facts": said(inspection.facts),
    }


def _animation(inspection: Inspection) -> str:
    """Give the animation as a data URI; empty where there is none."""
    return uri(encode_gif(inspection.frames), "gif") if inspection.frames else ""


def _exhibit(exhibit: Exhibit) -> dict[str, Any]:
    """Say what a page shows of an exhibit."""
    if isinstance(exhibit, Gallery):
        shown = _gallery(exhibit)
    elif isinstance(exhibit, Curves):
        shown = {"kind": "curves", "note": "", "svg": _svg(replace(exhibit, title=""))}
    elif isinstance(exhibit, Matrix):
        shown = _matrix(exhibit)
    else:
        shown = _table(exhibit)
    return {"title": exhibit.title, **shown}


def _gallery(gallery: Gallery) -> dict[str, Any]:
    """Say what a page shows of a gallery."""
    given = [tile for row in gallery.rows for tile in row if tile is not None]
    colours, others = tiles.class_colours(given)
    legend = [(name, colour) for name, colour in colours.items() if name not in others]
    return {
        "kind": "gallery",
        "note": gallery_note(gallery),
        "columns": max((len(row) for row in gallery.rows), default=0),
        "column_titles": gallery.column_titles,
        "row_titles": gallery.row_titles,
        "side": gallery.side,
        "rows": [
            [None if tile is None else _tile(tile, gallery.side, colours) for tile in row]
            for row in gallery.rows
        ],
        "legend": legend + ([(f"{len(others)} others", tiles.OTHER)] if others else []),
    }


def _tile(tile: Tile, side: int, colours: tiles.Colours) -> dict[str, Any]:
    """Say what a page shows of a tile."""
    width, height = tiles.fitted(tile, side)
    bare = tile.classes is None and not tile.boxes and (tile.pixels is None or tile.heat is None)
    own = tiles.shape_of(tile)[::-1]
    tiny = tiles.is_tiny(tile)
    if tiny and bare:
        size = own
    else:
        size = tiles.fitted(tile, round(_FINER * side)) if not tiny else (2 * width, 2 * height)
    pixels = tiles.drawn(tile, size, colours)
    scale = size[0] / own[0]
    image = draw_boxes(pixels, np.array(tile.boxes) * scale) if tile.boxes else as_image(pixels)
    exact = tiny or tile.pixels is None or tile.classes is not None
    return {
        "source": uri(encode(image), "png") if exact else uri(encode(image, "JPEG"), "jpeg"),
        "width": width,
        "height": height,
        "tiny": tiny,
        "caption": tile.caption,
    }


def _matrix(matrix: Matrix) -> dict[str, Any]:
    """Say what a page shows of a matrix."""
    return {
        "kind": "matrix",
        "note": matrix.note,
        "rows": list(zip(matrix.row_labels, fields_of(matrix.values), strict=True)),
        "column_labels": matrix.column_labels,
        "row_title": matrix.row_title,
        "column_title": matrix.column_title,
    }


def _table(table: Table) -> dict[str, Any]:
    """Say what a page shows of a table."""
    return {
        "kind": "table",
        "note": table.note,
        "columns": [(column, column in table.numeric) for column in table.columns],
        "rows": [
            [
                (text, column in table.numeric)
                for text, column in zip(row, table.columns, strict=True)
            ]
            for row in table.rows
        ],
    }


def _svg(curves: Curves) -> str:
    """Draw curves as a piece of HTML whose letters and inks are the page's."""
    figure = draw([curves], dpi=100)
    figure.patch.set_visible(False)
    text = written([figure], ".svg").decode()
    svg = text[text.index("<svg") :]
    for left_out in (r"<metadata>.*?</metadata>", r"<style.*?</style>", r' xmlns(:xlink)?="[^"]*"'):
        svg = re.sub(left_out, "", svg, flags=re.DOTALL)
    # Only what is referred to keeps its name: a page must not have a name twice.
    referred = set(re.findall(r"#([\w-]+)", svg))
    svg = re.sub(r' id="([^"]+)"', lambda m: m[0] if m[1] in referred else "", svg)
    for ink, page in _INKS.items():
        svg = svg.replace(ink, page)
    return svg
