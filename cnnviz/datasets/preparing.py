"""From an item to what a network is fed, with the annotation in the input's coordinates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from cnnviz.datasets.items import Item, Label, Problem
from cnnviz.network import Network
from cnnviz.preprocess import Geometry
from cnnviz.samples import Sample, samples_of
from cnnviz_core.errors import ParameterError
from cnnviz_core.maps.boxes import clip_boxes
from cnnviz_core.metric import Annotation
from cnnviz_core.model import Array
from cnnviz_core.preprocessing import Preprocessing

__all__ = ["Prepared", "annotation_of", "mask_to_input", "prepare_item"]


@dataclass(frozen=True, eq=False)
class Prepared:
    """An item, ready for a network.

    Attributes
    ----------
    sample : Sample
        What the network is fed, and where it lies in the picture.
    annotation : Annotation
        What is known of it, in the input's coordinates.
    problems : tuple of Problem
        What of the annotation the input does not show.
    """

    sample: Sample
    annotation: Annotation
    problems: tuple[Problem, ...] = ()


def prepare_item(
    item: Item, network: Network, numbers: Mapping[Label, int] | None = None
) -> Prepared:
    """Read an item's picture, and prepare it for a network.

    Parameters
    ----------
    item : Item
        One of a data set's.
    network : Network
        Its preprocessing says where boxes and masks go.  Of a function it is not known: it is
        taken to show the whole picture, if that has the input's ratio of sides.
    numbers : mapping of (str or int) to int, optional
        The network's numbers of the classes, of `classes_of`.

    Returns
    -------
    Prepared

    Raises
    ------
    ImageError
        If the picture or its mask cannot be read.
    ParameterError
        If there are boxes or a mask, the preprocessing is a function, and what it gives has
        another ratio of sides than the picture.
    """
    (sample,) = samples_of(network, item.read())
    steps = network.preprocessing
    if steps is not None and not isinstance(steps, Preprocessing):
        _check_ratio(item, sample.geometry)
    label = None if item.label is None or numbers is None else numbers.get(item.label)
    annotation, problems = annotation_of(item, sample.geometry, label)
    return Prepared(sample, annotation, problems)


def annotation_of(
    item: Item, geometry: Geometry, label: int | None = None
) -> tuple[Annotation, tuple[Problem, ...]]:
    """Bring what is known of a picture to the coordinates of a network's input.

    A box is resized and shifted as the picture is, without rounding, and cut at the input's edges.
    Each pixel of the mask takes the value of the picture's pixel on which its centre lies.

    Parameters
    ----------
    item : Item
        What is known.
    geometry : Geometry
        Where the input lies in the picture.
    label : int, optional
        The network's number of the class.

    Returns
    -------
    annotation : Annotation
        `Annotation.part` reaches beyond the picture where the input is padded.
    problems : tuple of Problem
        Boxes and masks of which the input shows nothing; they are left out.

    Raises
    ------
    ImageError
        If the mask cannot be read.
    """
    height, width = geometry.size
    problems: list[Problem] = []
    boxes = clip_boxes(geometry.boxes_to_input(item.boxes), width, height)
    boxes = boxes[(boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])]
    lost = len(item.boxes) - len(boxes)
    if lost:
        problems.append(_invisible(item, "box" if lost == 1 else f"{lost} boxes"))
    whole_mask = item.read_mask()
    mask = None if whole_mask is None else mask_to_input(whole_mask, geometry)
    if mask is not None and not (mask == 1).any():
        mask = None
        problems.append(_invisible(item, "mask"))
    x0, y0, x1, y1 = map(float, geometry.boxes_to_original(np.array([[0, 0, width, height]]))[0])
    whole = geometry == Geometry.stretched(geometry.original, geometry.size)
    annotation = Annotation(
        label=label,
        boxes=boxes,
        mask=mask,
        difficult=item.difficult,
        picture=item.size,
        part=None if whole else (x0, y0, x1, y1),
        name=item.name,
    )
    return annotation, tuple(problems)


def mask_to_input(mask: Array, geometry: Geometry) -> Array:
    """Bring a mask of the picture to the input's coordinates.

    Parameters
    ----------
    mask : ndarray (H, W)
        At the picture's size.
    geometry : Geometry
        Where the input lies in the picture.

    Returns
    -------
    ndarray (h, w)
        Of the same type; 0 where the input is padded.
    """
    places, inside = [], []
    for original, resized, offset, size in zip(
        geometry.original, geometry.resized, geometry.offset, geometry.size, strict=True
    ):
        centres = np.arange(size) + 0.5 + offset
        inside.append((centres > 0) & (centres < resized))
        places.append(np.clip(centres * (original / resized), 0, original - 1).astype(int))
    return np.where(np.logical_and.outer(*inside), mask[np.ix_(*places)], 0).astype(mask.dtype)


def _check_ratio(item: Item, geometry: Geometry) -> None:
    """Check that a function's input may show the whole picture, as far as sizes can tell."""
    (height, width), (h, w) = geometry.original, geometry.size
    if item.mask is None and not len(item.boxes):
        return
    if abs(h * width - w * height) > max(height, width):
        raise ParameterError(
            f"the preprocessing function made {w} x {h} of {item.name}, which is {width} x "
            f"{height}: where its boxes and masks lie then is not known",
            "a function that shows the whole picture in its own ratio of sides, or a description "
            "of the steps",
            "describe them: preprocess=cnnviz.Preprocessing(size=..., resize=..., mean=..., "
            "std=...)",
        )


def _invisible(item: Item, what: str) -> Problem:
    """Say that the input does not show something."""
    return Problem(
        item.id,
        f"of its {what} the network sees nothing; left out",
        "let the preprocessing show the whole picture (resize=None), or correct the annotation",
        "not visible",
    )
