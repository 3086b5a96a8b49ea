"""What a page shows of explanations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cnnviz.colours import colourise
from cnnviz.explanation import THRESHOLD, Explanation, Normalise
from cnnviz.pages.embedding import TINY, photo_uri, pixels_uri, uri
from cnnviz.pictures import as_image, encode, heat_layer, overlay
from cnnviz.sheets import (
    COLUMNS,
    SCENE,
    Explanations,
    families_of,
    first_of,
    ground_of,
    how_run,
    is_signed,
    map_of,
    marked,
    reduced,
    seen,
    title_of,
)
from cnnviz.wording import said

__all__ = ["excerpt", "explained"]

# Pages show pictures no larger than this; heat is smooth, so that it needs fewer pixels.
_PHOTO, _HEAT, _SMALL_HEAT, _THUMBNAIL = 640, 336, 224, 280
_PAGE_SCENE = 560
_FRAGMENT_ROWS = 12


def explained(
    explanations: Explanations,
    *,
    skipped: Mapping[str, str] | None = None,
    threshold: float = THRESHOLD,
    normalise: Normalise = True,
    title: str = "",
) -> dict[str, Any]:
    """Say what a page shows of explanations.

    Parameters
    ----------
    explanations, skipped, threshold, normalise, title
        As for `cnnviz.pages.render_report`.

    Returns
    -------
    dict of str to value
        What the template "explanations.html" writes.

    Raises
    ------
    ArrayError
        If the explanations are not about the same pictures.
    """
    first = first_of(explanations)
    return {
        "template": "explanations.html",
        "title": title or title_of(first),
        "methods": [
            {"name": method, "layer": e.layer, "params": said(e.params), "notes": e.notes}
            for method, e in explanations.items()
        ],
        "samples": [_sample(explanations, i, threshold, normalise) for i in range(len(first))],
        "kind": first.kind,
        "many": len(explanations) > COLUMNS,
        "skipped": dict(skipped or {}),
        "provenance": said(first.provenance),
    }


def excerpt(explanations: Explanations, skipped: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Say what a notebook shows of explanations: the first samples, small.

    Parameters
    ----------
    explanations, skipped
        As for `cnnviz.pages.html_fragment`.

    Returns
    -------
    dict of str to value
        What the template "fragment.html" writes.

    Raises
    ------
    ArrayError
        If the explanations are not about the same pictures.
    """
    first = first_of(explanations)
    shown = range(min(len(first), _FRAGMENT_ROWS))
    samples = [
        {
            "name": first.names[i],
            "caption": seen(first, i),
            "tiny": first.kind == "picture" and max(first.pictures[i].shape) <= TINY,
            "figures": [
                {
                    "method": method,
                    "title": marked(method, e),
                    "source": _thumbnail(e, i),
                    "note": e.note(i),
                }
                for method, e in explanations.items()
            ],
        }
        for i in shown
    ]
    return {
        "samples": samples,
        "methods": how_run(explanations, {}),
        "more": len(first) - len(samples),
        "skipped": dict(skipped or {}),
    }


def _sample(
    explanations: Explanations, i: int, threshold: float, normalise: Normalise
) -> dict[str, Any]:
    """Say what a page shows of one sample."""
    first = first_of(explanations)
    ground = ground_of(first, i, _PAGE_SCENE, len(explanations) == 1)
    if first.kind == "picture":
        height, width = first.pictures[i].shape[:2]
        size = f"{width} × {height}"
        photo = photo_uri(as_image(ground), _PHOTO)
    else:
        width, height = as_image(ground).size
        *axes, channels = first.pictures[i].shape
        size = " × ".join(map(str, axes))
        if first.kind == "signal":
            size = f"{size} positions, {channels} channel{'s' if channels > 1 else ''}"
        photo = uri(encode(as_image(ground)), "png")
    return {
        "name": first.names[i],
        "width": width,
        "height": height,
        "size": size,
        "tiny": first.kind == "picture" and max(width, height) <= TINY,
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
                        most=_HEAT if len(explanations) <= COLUMNS else _SMALL_HEAT,
                    )
                    for method in methods
                ],
            )
            for family, methods in (
                families_of(explanations)
                if len(explanations) > COLUMNS
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
    _, heat = reduced(e, i, most, normalise)
    signed = is_signed(e, normalise)
    return {
        "method": method,
        "title": marked(method, e),
        "look": "fine" if e.fine else "smooth",
        "photo": "",
        "heat": pixels_uri(heat_layer(heat, alpha=1.0, signed=signed, fine=e.fine)),
        "map": pixels_uri(colourise(heat, signed=signed)) if alone else "",
        "note": e.note(i),
        "boxes": [box.tolist() for box in e[i].boxes(threshold)[0]],
    }


def _scene_figure(
    method: str, e: Explanation, i: int, threshold: float, normalise: Normalise, *, alone: bool
) -> dict[str, Any]:
    """Say what a page shows of one method on one sample that is no picture."""
    found = () if e.kind == "volume" else e[i].boxes(threshold)[0]
    scene = e.scene(i, side=_PAGE_SCENE, alpha=1.0, normalise=normalise, boxes=found)
    shown = as_image(map_of(e, i, _PAGE_SCENE, normalise)) if alone else None
    return {
        "method": method,
        "title": marked(method, e),
        "look": "plain" if e.kind == "signal" else "fine" if e.fine else "smooth",
        # Each method has slices of its own.
        "photo": uri(encode(scene.ground), "png") if e.kind == "volume" else "",
        "heat": uri(encode(scene.layer), "png"),
        "map": uri(encode(shown), "png") if shown else "",
        "note": e.note(i),
        "boxes": scene.frames,
    }


def _thumbnail(e: Explanation, i: int) -> str:
    """Give a small overlay as a data URI."""
    if e.kind != "picture":
        return uri(encode(e.scene(i, side=SCENE).overlay()), "png")
    pixels, heat = reduced(e, i, _THUMBNAIL)
    return photo_uri(overlay(pixels, heat, signed=e.signed, fine=e.fine), _THUMBNAIL)
