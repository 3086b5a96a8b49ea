"""Annotated pictures in memory."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cnnviz.datasets.building import Builder, Classes, Listed, Sighting
from cnnviz.datasets.items import Dataset, Label
from cnnviz.datasets.masks import MaskArray
from cnnviz.images import Picture, read_picture
from cnnviz_core.errors import ImageError, ParameterError

__all__ = ["dataset_of"]


def dataset_of(
    pictures: Any,
    *,
    labels: Sequence[Label | None] | None = None,
    boxes: Sequence[Any] | None = None,
    masks: Sequence[Any] | None = None,
    difficult: Sequence[bool] | None = None,
    names: Sequence[str] | None = None,
    classes: Classes = None,
    name: str = "arrays",
) -> Dataset:
    """Make a data set of pictures in memory.

    Parameters
    ----------
    pictures : sequence of pictures, or ndarray (N, H, W, C)
        What `cnnviz.explain` takes: paths, PIL images, arrays.  One that stands there several
        times, under one name, is one picture with several objects.
    labels : sequence of (str, int or None), optional
        The class of each picture.
    boxes : sequence of (array-like (B, 4) or None), optional
        The boxes of each picture, (x0, y0, x1, y1) in its pixels, half-open.
    masks : sequence of (array-like (H, W) or None), optional
        The object of each picture: 1 or True; 255 is ignored, unless there is no other value.
    difficult : sequence of bool, optional
        Whether its object is hard to see.
    names : sequence of str, optional
        What the pictures are called; "picture-1" and so on, or their paths, if left out.
    classes : sequence or mapping, optional
        The classes to take.
    name : str
        What to call the data set.

    Returns
    -------
    Dataset

    Raises
    ------
    DatasetError
        If no picture can be used.
    ParameterError
        If the numbers differ.

    Examples
    --------
    >>> import numpy as np
    >>> dataset = dataset_of(np.zeros((1, 8, 8, 3)), labels=["cat"], boxes=[[[1, 1, 5, 9]]])
    >>> dataset[0].boxes.tolist(), dataset.counts
    ([[1.0, 1.0, 5.0, 8.0]], {'box partly outside': 1})
    """
    given = list(pictures)
    each = {"labels": labels, "boxes": boxes, "masks": masks, "difficult": difficult}
    for what, values in {**each, "names": names}.items():
        if values is not None and len(values) != len(given):
            raise ParameterError(
                f"{len(values)} {what} were given for {len(given)} pictures",
                "one for each picture",
                "give None for a picture that has none",
            )
    builder = Builder(classes, annotated=any(v is not None for v in (labels, boxes, masks)))
    listed: dict[tuple[str, object], tuple[Path | Picture, list[Sighting]]] = {}
    for i, picture in enumerate(given):
        called = _name(picture, i) if names is None else names[i]
        # The same picture again, for another of its classes, is no other picture.
        key = (called, picture if isinstance(picture, (str, os.PathLike)) else id(picture))
        source = listed[key][0] if key in listed else _source(picture, called, builder)
        if source is not None:
            own = {key: None if v is None else v[i] for key, v in each.items()}
            listed.setdefault(key, (source, []))[1].extend(_sightings(called, own, builder))
    for (called, _), (source, sightings) in listed.items():
        builder.add(Listed(called, called, source, sightings))
    return builder.dataset(name, "arrays")


def _name(picture: Any, i: int) -> str:
    """Name a picture that the user has not named."""
    if isinstance(picture, (str, os.PathLike)):
        return Path(picture).as_posix()
    return picture.name if isinstance(picture, Picture) else f"picture-{i + 1}"


def _source(picture: Any, name: str, builder: Builder) -> Path | Picture | None:
    """Check a picture; None where it is none."""
    if isinstance(picture, (str, os.PathLike)):
        return Path(picture).expanduser()
    try:
        return read_picture(picture, name=name)
    except ImageError as error:
        builder.report("unreadable file", name, f"{error.problem}; it is left out", error.remedy)
        return None


def _sightings(name: str, own: dict[str, Any], builder: Builder) -> list[Sighting]:
    """Give what is said of one picture: a sighting for each box, the first with the mask."""
    label, mask = own["labels"], _mask(name, own["masks"], builder)
    if isinstance(label, np.generic):
        label = label.item()
    hard = bool(own["difficult"])
    try:
        boxes = np.asarray([] if own["boxes"] is None else own["boxes"], dtype=np.float64)
        boxes = boxes.reshape(-1, 4)
    except (TypeError, ValueError):
        said = "its boxes are no rows of four numbers; they are left out"
        builder.report("malformed", name, said, "give (x0, y0, x1, y1) for each box")
        boxes = np.zeros((0, 4))
    first = Sighting(name, label, None, mask, hard)
    return [
        first,
        *(
            Sighting(f"{name}, box {i + 1}", label, tuple(box), None, hard)
            for i, box in enumerate(boxes.tolist())
        ),
    ]


def _mask(name: str, given: Any, builder: Builder) -> MaskArray | None:
    """Check a mask; None where there is none."""
    if given is None:
        return None
    values = np.array(given)
    if values.ndim != 2 or values.dtype.kind not in "biuf" or 0 in values.shape:
        said = f"its mask is an array of {values.dtype} and the shape {values.shape}"
        builder.report("mask", name, f"{said}; it is left out", "give numbers (H, W)")
        return None
    return MaskArray(values)
