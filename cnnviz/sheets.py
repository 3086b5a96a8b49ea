"""Explanations as sheets: pictures in rows, methods in columns."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from cnnviz.colours import colourise
from cnnviz.explanation import THRESHOLD, Explanation, Normalise
from cnnviz.listing import family_of
from cnnviz.pictures import Cell, Outline, as_image, contact_sheet, encode, overlay, percent
from cnnviz.rendering import draw_signal, draw_volume
from cnnviz.wording import said
from cnnviz_core.errors import ArrayError, ParameterError
from cnnviz_core.files import replacing
from cnnviz_core.model import Array

if TYPE_CHECKING:
    from PIL import Image

__all__ = [
    "COLUMNS",
    "IMAGE_FORMATS",
    "SCENE",
    "Explanations",
    "families_of",
    "first_of",
    "ground_of",
    "how_run",
    "is_signed",
    "map_of",
    "marked",
    "reduced",
    "seen",
    "sheet",
    "title_of",
    "write_image",
]

Explanations: TypeAlias = Mapping[str, Explanation]

IMAGE_FORMATS: Mapping[str, str] = MappingProxyType(
    {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
)
"""The suffixes of pictures that can be written, and Pillow's names of their formats."""

# More methods than these do not stand in one row; each picture then has a block of its own.
COLUMNS, _BLOCK_COLUMNS, _BLOCK_CELL = 9, 8, 168
# Drawings of signals and volumes have letters in them, which must be read.
SCENE, _BLOCK_SCENE = 400, 300


def sheet(
    explanations: Explanations,
    *,
    skipped: Mapping[str, str] | None = None,
    boxes: bool = False,
    threshold: float = THRESHOLD,
    normalise: Normalise = True,
    title: str = "",
    cell: int | None = None,
) -> Image.Image:
    """Arrange explanations in a picture: a row for each sample, a column for each method.

    Of more than nine methods each sample has a block, with a row or several for each family.

    Parameters
    ----------
    explanations : mapping of str to Explanation
        By method, all over the same samples.  A single one is shown as heat and as overlay.
    skipped : mapping of str to str, optional
        Methods that could not run, each with the reason.
    boxes : bool
        Whether to draw the box around what is hot.
    threshold : float
        For the box.
    normalise : {True, "max", "percentile", "min-max", False}
        As for `Explanation.heatmap`.
    title : str
        Above the grid.
    cell : int, optional
        The longer side of a picture on the sheet, in pixels.

    Returns
    -------
    PIL.Image.Image
        RGB.

    Raises
    ------
    ArrayError
        If the explanations are not about the same pictures.
    """
    first = first_of(explanations)
    drawn = _Drawn(boxes, threshold, normalise)
    if len(explanations) > COLUMNS:
        usual = _BLOCK_CELL if first.kind == "picture" else _BLOCK_SCENE
        return _blocks(explanations, drawn, skipped or {}, title, cell or usual)
    single = len(explanations) == 1
    names = [marked(method, e) for method, e in explanations.items()]
    titles = [first.kind, "map", *names] if single else [first.kind, *names]
    side = cell or (256 if len(titles) < 5 else 208 if len(titles) < 7 else 176)
    if first.kind != "picture":
        side = cell or SCENE
    rows = []
    for i in range(len(first)):
        row = [Cell(ground_of(first, i, side, single), seen(first, i))]
        for e in explanations.values():
            if single:
                row.append(Cell(map_of(e, i, side, normalise)))
            row.append(drawn.tile(e, i, side))
        rows.append(row)
    return contact_sheet(
        rows,
        column_titles=titles,
        row_titles=first.names,
        title=title or title_of(first),
        footer="\n".join(how_run(explanations, skipped or {})),
        cell=side,
    )


@dataclass(frozen=True)
class _Drawn:
    """How tiles of a sheet are drawn."""

    boxes: bool
    threshold: float
    normalise: Normalise

    def tile(self, e: Explanation, i: int, side: int, caption: str = "") -> Cell:
        """Draw one method on one sample."""
        if e.kind != "picture":
            found = e[i].boxes(self.threshold)[0] if self.boxes else ()
            scene = e.scene(i, side=side, normalise=self.normalise, boxes=found)
            outlines = [Outline(frame) for frame in scene.frames]
            return Cell(scene.overlay(), caption, outlines, e.note(i))
        pixels, heat = reduced(e, i, side, self.normalise)
        scale = pixels.shape[0] / e.pictures[i].shape[0]
        found = e[i].boxes(self.threshold)[0] * scale if self.boxes else ()
        image = overlay(pixels, heat, signed=is_signed(e, self.normalise), fine=e.fine)
        return Cell(image, caption, [Outline(box) for box in found], e.note(i))


def _blocks(
    explanations: Explanations,
    drawn: _Drawn,
    skipped: Mapping[str, str],
    title: str,
    side: int,
) -> Image.Image:
    """Arrange many methods: a block for each sample, in it each family from a row of its own."""
    first = first_of(explanations)
    rows: list[list[Cell | None]] = []
    families, headings = [], {}
    for i in range(len(first)):
        headings[len(rows)] = f"{first.names[i]}: {seen(first, i).replace(chr(10), '; ')}"
        for k, (family, methods) in enumerate(families_of(explanations).items()):
            picture = Cell(ground_of(first, i, side, False), first.kind) if k == 0 else None
            tiles: list[Cell | None] = [picture] if picture else []
            each = [(marked(name, explanations[name]), explanations[name]) for name in methods]
            tiles += [drawn.tile(e, i, side, caption) for caption, e in each]
            for start in range(0, len(tiles), _BLOCK_COLUMNS):
                rows.append(tiles[start : start + _BLOCK_COLUMNS])
                families.append("" if start else family)
    layers = sorted({e.layer for e in explanations.values() if e.layer}, key=len)
    about = [f"layers: {'; '.join(layers)}"] if layers else []
    return contact_sheet(
        rows,
        row_titles=families,
        headings=headings,
        title=title or title_of(first),
        footer="\n".join([*about, *_noted(explanations), *_not_run(skipped)]),
        cell=side,
    )


def write_image(image: Image.Image, path: str | os.PathLike[str]) -> None:
    """Write a picture to a file, whole or not at all.

    Parameters
    ----------
    image : PIL image
        The picture.
    path : path
        Its suffix, one of `IMAGE_FORMATS`, says in which format.

    Raises
    ------
    ParameterError
        If the suffix is another, or nothing can be written there.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in IMAGE_FORMATS:
        raise ParameterError(
            f"a picture cannot be saved as {Path(path).name!r}",
            f"a name that ends in {', '.join(IMAGE_FORMATS)}",
            "save it as .png",
        )
    with replacing(path) as file:
        file.write(encode(image, IMAGE_FORMATS[suffix]))


def first_of(explanations: Explanations) -> Explanation:
    """Give the first explanation, when all are about the same pictures."""
    names = {method: list(e.names) for method, e in explanations.items()}
    if not names or any(each != next(iter(names.values())) for each in names.values()):
        raise ArrayError(
            f"the explanations are about different pictures: {names}"
            if names
            else "no explanation was given",
            "at least one, all over the same samples",
            "make them with cnnviz.compare",
        )
    return next(iter(explanations.values()))


def ground_of(e: Explanation, i: int, side: int, focused: bool) -> Image.Image | Array:
    """Show a sample without heat; a volume where the method looks, or through its middle."""
    if e.kind == "picture":
        return e.pictures[i]
    if e.kind == "volume" and not focused:
        # No one method's slices stand for all.
        sample = e.pictures[i]
        middle = [n // 2 for n in sample.shape[:-1]]
        return draw_volume(sample, np.zeros(sample.shape[:-1]), middle, side=side).ground
    return e.scene(i, side=side).ground


def map_of(e: Explanation, i: int, side: int, normalise: Normalise) -> Image.Image | Array:
    """Show a map alone."""
    signed = is_signed(e, normalise)
    if e.kind == "picture":
        _, heat = reduced(e, i, side, normalise)
        return colourise(heat, signed=signed)
    heat = e.shown_heat(i, normalise)
    if e.kind == "signal":
        return draw_signal(heat[:, None], heat, signed=signed, fine=e.fine, side=side).overlay()
    coloured = colourise(heat, signed=signed)
    return draw_volume(coloured, np.zeros_like(heat), e.focus(i), side=side).ground


def families_of(explanations: Explanations) -> dict[str, list[str]]:
    """Group methods by family, in the order in which they come."""
    groups: dict[str, list[str]] = {}
    for method in explanations:
        groups.setdefault(family_of(method), []).append(method)
    return groups


def is_signed(e: Explanation, normalise: Normalise) -> bool:
    """Tell whether 0 is the middle of what is drawn."""
    return e.signed and normalise != "min-max"


def reduced(e: Explanation, i: int, most: int, normalise: Normalise = True) -> tuple[Array, Array]:
    """Give a picture and its heat, both made smaller where they have more pixels than are shown."""
    from PIL import Image

    picture, heat = as_image(e.pictures[i]), e.shown_heat(i, normalise)
    scale = most / max(picture.size)
    if scale < 1:
        size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        picture = picture.resize(size, Image.Resampling.LANCZOS)
        layer = Image.fromarray(heat.astype(np.float32))
        heat = np.asarray(layer.resize(size, Image.Resampling.BILINEAR))
    return np.asarray(picture), heat


def seen(e: Explanation, i: int) -> str:
    """Say what the network takes a picture for, and what is explained if that is another class."""
    asked = e.caption(i)
    if not e.predictions[i]:
        return asked
    label, share = e.predictions[i][0]
    seen = f"{label} {percent(share)}"
    return seen if label == e.target_labels[i] else f"{seen}\nexplained: {asked}"


def title_of(e: Explanation) -> str:
    """Title a page."""
    return f"What {e.provenance.get('model') or 'the network'} looks at"


def how_run(explanations: Explanations, skipped: Mapping[str, str]) -> list[str]:
    """Say how methods were run, what must be known of their maps, and which were not run."""
    lines = []
    for method, e in explanations.items():
        how = [f"layer {e.layer}"] if e.layer else []
        how += [f"{name} {value}" for name, value in said(e.params).items()]
        lines += [f"{method}: {', '.join(how)}"] if how else []
    return lines + _noted(explanations) + _not_run(skipped)


def marked(method: str, e: Explanation) -> str:
    """Write a method's name, with a mark where a reader of its maps must know something."""
    return f"{method} *" if e.notes else method


def _noted(explanations: Explanations) -> list[str]:
    """Say what a reader of the maps must know."""
    return [f"* {method}: {note}" for method, e in explanations.items() for note in e.notes]


def _not_run(skipped: Mapping[str, str]) -> list[str]:
    """Say which methods were left out, and why; those with one reason together."""
    reasons: dict[str, list[str]] = {}
    for method, reason in skipped.items():
        told = reason.removeprefix(method).strip()
        reasons.setdefault(told, []).append(method)
    return [f"not run: {', '.join(methods)}: {why}" for why, methods in reasons.items()]
