"""What `cnnviz demo` does: ask where each digit is, by several methods; compare with the truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from cnnviz.comparing import Comparison, run_methods
from cnnviz.demo import Mark, network, scenes
from cnnviz.explanation import Explanation
from cnnviz.images import Picture
from cnnviz.network import Network
from cnnviz.samples import samples_of
from cnnviz_core.maps import iou
from cnnviz_core.model import Array

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["Demo", "Localisation", "differences", "draw", "localise", "run"]

THRESHOLD: Final = 0.15
"""The share of a map's maximum above which boxes are drawn (Selvaraju et al., 2017)."""

_METHODS: Final = (
    "cam",
    "grad-cam",
    "occlusion",
    "deconvnet",
    "guided-backprop",
    "guided-grad-cam",
    "saliency",
)
"""The classics, each of a second or two."""
_PARAMETERS: Final[Mapping[str, Mapping[str, Any]]] = {"occlusion": {"window": 16, "stride": 8}}
_LARGE: Final = 0.5
_CELL: Final = 192
_FOOTER: Final = (
    "Green: the true box.  Blue: the box around what {boxed} finds, above {threshold} of its "
    "maximum.  IoU: how much the box of a method and the true one share, intersection over union.\n"
    "cam and grad-cam agree because this network ends in global average pooling and one linear "
    "layer.  The first scene is asked for each of its digits, the others for one: {rows} rows of "
    "{digits}."
)
_BOXED: Final = "cam"


@dataclass(frozen=True)
class Demo:
    """What one backend found.

    Attributes
    ----------
    network : Network
        The trained network.
    pictures : tuple of Picture
        A row for each digit: the scene.
    truth : tuple of tuple of Mark
        All digits of that scene, the one that was asked for first.
    comparison : Comparison
        Where each method sees that digit.
    """

    network: Network
    pictures: tuple[Picture, ...]
    truth: tuple[tuple[Mark, ...], ...]
    comparison: Comparison


class Localisation(NamedTuple):
    """How well a method finds the digits.

    Attributes
    ----------
    iou : ndarray (N,)
        Of each digit, the intersection over union of the box found and the true one.
    pointing : ndarray (N,) of bool
        Whether the hottest pixel lies in the true box.
    """

    iou: Array
    pointing: Array

    @property
    def mean_iou(self) -> float:
        """The mean intersection over union."""
        return float(self.iou.mean())

    @property
    def found(self) -> float:
        """The share of digits whose box overlaps the true one by at least half."""
        return float((self.iou >= _LARGE).mean())

    @property
    def hits(self) -> float:
        """The share of digits at which the hottest pixel lies."""
        return float(self.pointing.mean())


def run(backend: str | None = None) -> Demo:
    """Ask the trained network where each digit of each scene is, by the classic methods.

    Parameters
    ----------
    backend : str, optional
        As for `cnnviz.demo.network`.

    Returns
    -------
    Demo
    """
    net = network(backend)
    asked = [
        (picture, (mark, *(other for other in marks if other is not mark)))
        for picture, marks in scenes()
        for mark in marks
    ]
    pictures, truth = (tuple(part) for part in zip(*asked, strict=True))
    samples = samples_of(net, pictures)
    targets = [marks[0].label for marks in truth]
    chosen = {name: _PARAMETERS.get(name, {}) for name in _METHODS}
    return Demo(net, pictures, truth, run_methods(net, samples, chosen, targets))


def localise(explanation: Explanation, truth: Sequence[Sequence[Mark]]) -> Localisation:
    """Compare the boxes of a method with the true ones.

    Parameters
    ----------
    explanation : Explanation
        A map for each digit.
    truth : sequence of sequence of Mark
        The digits of each row's scene, the one that was asked for first.

    Returns
    -------
    Localisation
    """
    found = explanation.boxes(THRESHOLD)
    overlap, pointing = [], []
    for i, marks in enumerate(truth):
        x0, y0, x1, y1 = marks[0].box
        true = np.array([marks[0].box])
        overlap.append(float(iou(found[i], true).max()) if len(found[i]) else 0.0)
        heat = explanation.heatmap(i, normalise=False)
        y, x = np.unravel_index(heat.argmax(), heat.shape)
        pointing.append(bool(x0 <= x < x1 and y0 <= y < y1))
    return Localisation(np.array(overlap), np.array(pointing))


def differences(one: Comparison, other: Comparison) -> dict[str, float]:
    """Say how far two backends are apart.

    Parameters
    ----------
    one, other : Comparison
        Of the same scenes.

    Returns
    -------
    dict of str to float
        For each method the largest difference of the raw maps, as a fraction of the largest value
        of the same map.
    """
    apart = {}
    for method in one:
        if method in other:
            a, b = one[method].raw, other[method].raw
            axes = tuple(range(1, a.ndim))
            scale = np.maximum(np.abs(a).max(axes), np.finfo(a.dtype).tiny)
            apart[method] = float((np.abs(a - b).max(axes) / scale).max())
    return apart


def draw(demo: Demo) -> Image.Image:
    """Draw the contact sheet: rows of scenes, a column for each method.

    The first scene is asked for each of its digits, the others for one.

    Parameters
    ----------
    demo : Demo
        What was found.

    Returns
    -------
    PIL.Image.Image
    """
    from cnnviz.pictures import FOUND, TRUE, Cell, Outline, contact_sheet

    explanations = dict(demo.comparison)
    scored = {method: localise(e, demo.truth) for method, e in explanations.items()}
    boxed = _BOXED if _BOXED in explanations else next(iter(explanations))
    first, boxes = explanations[boxed], explanations[boxed].boxes(THRESHOLD)
    shown = _shown(demo)
    rows = []
    for i in shown:
        picture, marks = demo.pictures[i], demo.truth[i]
        sure = "" if first.probabilities is None else f"{first.probabilities[i]:.0%} sure"
        row = [Cell(picture.pixels, sure, [Outline(marks[0].box, TRUE, marks[0].label)])]
        for method, e in explanations.items():
            row.append(Cell(e.overlay(i), f"IoU {scored[method].iou[i]:.2f}"))
        found = [Outline(tuple(map(float, box)), FOUND) for box in boxes[i]]
        overlap = f"IoU {scored[boxed].iou[i]:.2f}"
        row.append(Cell(picture.pixels, overlap, [Outline(marks[0].box, TRUE), *found]))
        rows.append(row)
    return contact_sheet(
        rows,
        column_titles=["picture", *explanations, f"box of {boxed}"],
        row_titles=[f"where is\nthe {demo.truth[i][0].label}?" for i in shown],
        title="Digits in the wild: the network was told which digits are there, never where",
        footer=_FOOTER.format(
            boxed=boxed,
            threshold=f"{THRESHOLD:.0%}",
            rows=len(shown),
            digits=len(demo.truth),
        ),
        cell=_CELL,
    )


def _shown(demo: Demo) -> list[int]:
    """Choose the rows of the sheet: all of the first scene, and one of each other."""
    pictures = demo.pictures
    return [
        i
        for i, picture in enumerate(pictures)
        if picture is pictures[0] or picture is not pictures[i - 1]
    ]
