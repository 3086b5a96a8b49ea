"""Results as sheets and pages: pictures in rows, methods in columns."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from cnnviz.colours import colourise
from cnnviz.explanation import THRESHOLD, Explanation, Normalise
from cnnviz.listing import family_of
from cnnviz.pictures import (
    ALPHA,
    FINE,
    SMOOTH,
    Cell,
    Outline,
    as_image,
    contact_sheet,
    encode,
    heat_layer,
    overlay,
    percent,
)
from cnnviz.rendering import draw_signal, draw_volume
from cnnviz_core.errors import ArrayError, ParameterError
from cnnviz_core.files import replacing
from cnnviz_core.model import Array

if TYPE_CHECKING:
    from PIL import Image

__all__ = [
    "IMAGE_FORMATS",
    "html_fragment",
    "render_report",
    "sheet",
    "write_image",
    "write_report",
]

Explanations: TypeAlias = Mapping[str, Explanation]

IMAGE_FORMATS: Mapping[str, str] = MappingProxyType(
    {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
)
"""The suffixes of pictures that can be written, and Pillow's names of their formats."""

# Pages show pictures no larger than this; heat is smooth, so that it needs fewer pixels.
_PHOTO, _HEAT, _SMALL_HEAT, _THUMBNAIL = 640, 336, 224, 280
# Of pictures this small the pixels are shown.
_TINY = 64
_FRAGMENT_ROWS = 12
# More methods than these do not stand in one row; each picture then has a block of its own.
_COLUMNS, _BLOCK_COLUMNS, _BLOCK_CELL = 9, 8, 168
# Drawings of signals and volumes have letters in them, which must be read.
_SCENE, _BLOCK_SCENE, _PAGE_SCENE = 400, 300, 560


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
    first = _first(explanations)
    drawn = _Drawn(boxes, threshold, normalise)
    if len(explanations) > _COLUMNS:
        usual = _BLOCK_CELL if first.kind == "picture" else _BLOCK_SCENE
        return _blocks(explanations, drawn, skipped or {}, title, cell or usual)
    single = len(explanations) == 1
    titles = [first.kind, "map", *explanations] if single else [first.kind, *explanations]
    side = cell or (256 if len(titles) < 5 else 208 if len(titles) < 7 else 176)
    if first.kind != "picture":
        side = cell or _SCENE
    rows = []
    for i in range(len(first)):
        row = [Cell(_ground(first, i, side, single), _seen(first, i))]
        for e in explanations.values():
            if single:
                row.append(Cell(_map(e, i, side, normalise)))
            row.append(drawn.tile(e, i, side))
        rows.append(row)
    return contact_sheet(
        rows,
        column_titles=titles,
        row_titles=first.names,
        title=title or _title(first),
        footer="\n".join(_footer(explanations, skipped or {})),
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
        pixels, heat = _reduced(e, i, side, self.normalise)
        scale = pixels.shape[0] / e.pictures[i].shape[0]
        found = e[i].boxes(self.threshold)[0] * scale if self.boxes else ()
        image = overlay(pixels, heat, signed=_is_signed(e, self.normalise), fine=e.fine)
        return Cell(image, caption, [Outline(box) for box in found], e.note(i))


def _blocks(
    explanations: Explanations,
    drawn: _Drawn,
    skipped: Mapping[str, str],
    title: str,
    side: int,
) -> Image.Image:
    """Arrange many methods: a block for each sample, in it each family from a row of its own."""
    first = _first(explanations)
    rows: list[list[Cell | None]] = []
    families, headings = [], {}
    for i in range(len(first)):
        headings[len(rows)] = f"{first.names[i]}: {_seen(first, i).replace(chr(10), '; ')}"
        for k, (family, methods) in enumerate(_families(explanations).items()):
            picture = Cell(_ground(first, i, side, False), first.kind) if k == 0 else None
            tiles: list[Cell | None] = [picture] if picture else []
            tiles += [drawn.tile(explanations[name], i, side, name) for name in methods]
            for start in range(0, len(tiles), _BLOCK_COLUMNS):
                rows.append(tiles[start : start + _BLOCK_COLUMNS])
                families.append("" if start else family)
    layers = sorted({e.layer for e in explanations.values() if e.layer}, key=len)
    about = [f"layers: {'; '.join(layers)}"] if layers else []
    return contact_sheet(
        rows,
        row_titles=families,
        headings=headings,
        title=title or _title(first),
        footer="\n".join([*about, *_not_run(skipped)]),
        cell=side,
    )


def _ground(e: Explanation, i: int, side: int, focused: bool) -> Image.Image | Array:
    """Show a sample without heat; a volume where the method looks, or through its middle."""
    if e.kind == "picture":
        return e.pictures[i]
    if e.kind == "volume" and not focused:
        # No one method's slices stand for all.
        sample = e.pictures[i]
        middle = [n // 2 for n in sample.shape[:-1]]
        return draw_volume(sample, np.zeros(sample.shape[:-1]), middle, side=side).ground
    return e.scene(i, side=side).ground


def _map(e: Explanation, i: int, side: int, normalise: Normalise) -> Image.Image | Array:
    """Show a map alone."""
    signed = _is_signed(e, normalise)
    if e.kind == "picture":
        _, heat = _reduced(e, i, side, normalise)
        return colourise(heat, signed=signed)
    heat = e.shown_heat(i, normalise)
    if e.kind == "signal":
        return draw_signal(heat[:, None], heat, signed=signed, fine=e.fine, side=side).overlay()
    coloured = colourise(heat, signed=signed)
    return draw_volume(coloured, np.zeros_like(heat), e.focus(i), side=side).ground


def _families(explanations: Explanations) -> dict[str, list[str]]:
    """Group methods by family, in the order in which they come."""
    groups: dict[str, list[str]] = {}
    for method in explanations:
        groups.setdefault(family_of(method), []).append(method)
    return groups


def _is_signed(e: Explanation, normalise: Normalise) -> bool:
    """Tell whether 0 is the middle of what is drawn."""
    return e.signed and normalise != "min-max"


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


def write_report(
    explanations: Explanations,
    path: str | os.PathLike[str],
    *,
    skipped: Mapping[str, str] | None = None,
    boxes: bool = True,
    threshold: float = THRESHOLD,
    normalise: Normalise = True,
    title: str = "",
) -> None:
    """Write explanations as a page that stands alone.

    Parameters
    ----------
    explanations : mapping of str to Explanation
        By method, all over the same samples.
    path : path
        The file to write.
    skipped, boxes, threshold, normalise, title
        See `render_report`.

    Raises
    ------
    ArrayError
        If the explanations are not about the same pictures.
    ParameterError
        If nothing can be written there.
    """
    page = render_report(
        explanations,
        skipped=skipped,
        boxes=boxes,
        threshold=threshold,
        normalise=normalise,
        title=title,
    )
    with replacing(path) as file:
        file.write(page.encode())


def render_report(
    explanations: Explanations,
    *,
    skipped: Mapping[str, str] | None = None,
    boxes: bool = True,
    threshold: float = THRESHOLD,
    normalise: Normalise = True,
    title: str = "",
) -> str:
    """Make a page of explanations that needs no other file and no network.

    Parameters
    ----------
    explanations : mapping of str to Explanation
        By method, all over the same samples.
    skipped : mapping of str to str, optional
        Methods that could not run, each with the reason.
    boxes : bool
        Whether the boxes around what is hot are shown at first; the reader can turn them off.
    threshold : float
        For the boxes.
    normalise : {True, "max", "percentile", "min-max", False}
        As for `Explanation.heatmap`.
    title : str
        The page's title.

    Returns
    -------
    str
        HTML.

    Raises
    ------
    ArrayError
        If the explanations are not about the same pictures.
    """
    first = _first(explanations)
    page: str = _template("report.html").render(
        title=title or _title(first),
        methods=[
            {"name": method, "layer": e.layer, "params": _said(e.params)}
            for method, e in explanations.items()
        ],
        samples=[_sample(explanations, i, threshold, normalise) for i in range(len(first))],
        kind=first.kind,
        many=len(explanations) > _COLUMNS,
        skipped=dict(skipped or {}),
        provenance=_said(first.provenance),
        alpha=ALPHA,
        looks={"smooth": SMOOTH, "fine": FINE},
        threshold=f"{100 * threshold:g}",
        boxes=boxes,
    )
    return page


def html_fragment(explanations: Explanations, *, skipped: Mapping[str, str] | None = None) -> str:
    """Make a piece of HTML for a notebook: the first samples, small.

    Parameters
    ----------
    explanations : mapping of str to Explanation
        By method, all over the same samples.
    skipped : mapping of str to str, optional
        Methods that could not run, each with the reason.

    Returns
    -------
    str
        HTML without style sheets or scripts.

    Raises
    ------
    ArrayError
        If the explanations are not about the same pictures.
    """
    first = _first(explanations)
    shown = range(min(len(first), _FRAGMENT_ROWS))
    samples = [
        {
            "name": first.names[i],
            "caption": _seen(first, i),
            "tiny": first.kind == "picture" and max(first.pictures[i].shape) <= _TINY,
            "figures": [
                {"method": method, "source": _thumbnail(e, i), "note": e.note(i)}
                for method, e in explanations.items()
            ],
        }
        for i in shown
    ]
    piece: str = _template("fragment.html").render(
        samples=samples,
        methods=_footer(explanations, {}),
        more=len(first) - len(samples),
        skipped=dict(skipped or {}),
    )
    return piece


def _first(explanations: Explanations) -> Explanation:
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


def _sample(
    explanations: Explanations, i: int, threshold: float, normalise: Normalise
) -> dict[str, Any]:
    """Say what a page shows of one sample."""
    first = _first(explanations)
    ground = _ground(first, i, _PAGE_SCENE, len(explanations) == 1)
    if first.kind == "picture":
        height, width = first.pictures[i].shape[:2]
        size = f"{width} × {height}"
        photo = _photo(as_image(ground), _PHOTO)
    else:
        width, height = as_image(ground).size
        *axes, channels = first.pictures[i].shape
        size = " × ".join(map(str, axes))
        if first.kind == "signal":
            size = f"{size} positions, {channels} channel{'s' if channels > 1 else ''}"
        photo = _uri(encode(as_image(ground)), "png")
    return {
        "name": first.names[i],
        "width": width,
        "height": height,
        "size": size,
        "tiny": first.kind == "picture" and max(width, height) <= _TINY,
        "photo": photo,
        "target": first.caption(i),
        "score": "" if first.scores is None else f"{first.scores[i]:.4g}",
        "predictions": [(label, 100 * share) for label, share in first.predictions[i]],
        "groups": [
            (
                family,
                [
                    _figure(
                        method,
                        explanations[method],
                        i,
                        threshold,
                        normalise,
                        alone=len(explanations) == 1,
                        most=_HEAT if len(explanations) <= _COLUMNS else _SMALL_HEAT,
                    )
                    for method in methods
                ],
            )
            for family, methods in (
                _families(explanations)
                if len(explanations) > _COLUMNS
                else {"": list(explanations)}
            ).items()
        ],
    }


def _figure(
    method: str,
    e: Explanation,
    i: int,
    threshold: float,
    normalise: Normalise,
    *,
    alone: bool,
    most: int,
) -> dict[str, Any]:
    """Say what a page shows of one method on one sample."""
    if e.kind != "picture":
        return _scene_figure(method, e, i, threshold, normalise, alone=alone)
    _, heat = _reduced(e, i, most, normalise)
    signed = _is_signed(e, normalise)
    return {
        "method": method,
        "look": "fine" if e.fine else "smooth",
        "photo": "",
        "heat": _data_uri(heat_layer(heat, alpha=1.0, signed=signed, fine=e.fine)),
        "map": _data_uri(colourise(heat, signed=signed)) if alone else "",
        "note": e.note(i),
        "boxes": [box.tolist() for box in e[i].boxes(threshold)[0]],
    }


def _scene_figure(
    method: str, e: Explanation, i: int, threshold: float, normalise: Normalise, *, alone: bool
) -> dict[str, Any]:
    """Say what a page shows of one method on one sample that is no picture."""
    found = () if e.kind == "volume" else e[i].boxes(threshold)[0]
    scene = e.scene(i, side=_PAGE_SCENE, alpha=1.0, normalise=normalise, boxes=found)
    shown = as_image(_map(e, i, _PAGE_SCENE, normalise)) if alone else None
    return {
        "method": method,
        "look": "plain" if e.kind == "signal" else "fine" if e.fine else "smooth",
        # Each method has slices of its own.
        "photo": _uri(encode(scene.ground), "png") if e.kind == "volume" else "",
        "heat": _uri(encode(scene.layer), "png"),
        "map": _uri(encode(shown), "png") if shown else "",
        "note": e.note(i),
        "boxes": scene.frames,
    }


def _thumbnail(e: Explanation, i: int) -> str:
    """Give a small overlay as a data URI."""
    if e.kind != "picture":
        return _uri(encode(e.scene(i, side=_SCENE).overlay()), "png")
    pixels, heat = _reduced(e, i, _THUMBNAIL)
    return _photo(overlay(pixels, heat, signed=e.signed, fine=e.fine), _THUMBNAIL)


def _reduced(e: Explanation, i: int, most: int, normalise: Normalise = True) -> tuple[Array, Array]:
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


def _seen(e: Explanation, i: int) -> str:
    """Say what the network takes a picture for, and what is explained if that is another class."""
    asked = e.caption(i)
    if not e.predictions[i]:
        return asked
    label, share = e.predictions[i][0]
    seen = f"{label} {percent(share)}"
    return seen if label == e.target_labels[i] else f"{seen}\nexplained: {asked}"


def _title(e: Explanation) -> str:
    """Title a page."""
    return f"What {e.provenance.get('model') or 'the network'} looks at"


def _footer(explanations: Explanations, skipped: Mapping[str, str]) -> list[str]:
    """Say how methods were run, where there is something to say, and which were not."""
    lines = []
    for method, e in explanations.items():
        how = [f"layer {e.layer}"] if e.layer else []
        how += [f"{name} {value}" for name, value in _said(e.params).items()]
        lines += [f"{method}: {', '.join(how)}"] if how else []
    return lines + _not_run(skipped)


def _not_run(skipped: Mapping[str, str]) -> list[str]:
    """Say which methods were left out, and why; those with one reason together."""
    reasons: dict[str, list[str]] = {}
    for method, reason in skipped.items():
        told = reason.removeprefix(method).strip()
        reasons.setdefault(told, []).append(method)
    return [f"not run: {', '.join(methods)}: {why}" for why, methods in reasons.items()]


def _said(values: Mapping[str, Any]) -> dict[str, str]:
    """Write values as they are read."""
    return {
        name: "none"
        if value is None
        else f"{value:g}"
        if isinstance(value, float)
        else described(value)
        if isinstance(value, np.ndarray)
        else str(value)
        for name, value in values.items()
    }


def described(array: Array) -> str:
    """Describe an array in a line, so that equal ones are known again.

    Parameters
    ----------
    array : ndarray
        Any.

    Returns
    -------
    str
        Its type, its shape and the first digits of a hash of its content.
    """
    digest = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
    shape = " x ".join(map(str, array.shape))
    return f"{array.dtype} array, {shape}, sha256 {digest[:12]}"


def _photo(image: Image.Image, most: int) -> str:
    """Give a photograph as a data URI, no larger than a page needs."""
    from PIL import Image

    if max(image.size) <= _TINY:
        return _uri(encode(image), "png")
    image = image.copy()
    image.thumbnail((most, most), Image.Resampling.LANCZOS)
    return _uri(encode(image, "JPEG"), "jpeg")


def _data_uri(pixels: Array) -> str:
    """Give pixels, with or without opacity, as a data URI."""
    from PIL import Image

    return _uri(encode(Image.fromarray(pixels)), "png")


def _uri(content: bytes, kind: str) -> str:
    """Give a picture's file as a data URI."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _template(name: str) -> Any:
    """Load a template."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("cnnviz", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template(name)
