"""Along what cost grows: the scales, and what is timed at each of their places."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from benchmarks.case import CLASS, Case
from benchmarks.room import Room
from benchmarks.sections.cams import of_classes
from benchmarks.task import Task
from benchmarks.work import Work
from cnnviz_core.layers import find_layer

_LAYERS = 7
"""How many layers are looked at, from the first convolution to the last."""


@dataclass(frozen=True)
class Place:
    """A place of a scale.

    Attributes
    ----------
    at : float
    label : str
    """

    at: float
    label: str


@dataclass(frozen=True)
class Scale:
    """Something that grows.

    Attributes
    ----------
    name, title, x_title : str
    says : str
        How the numbers are to be read.
    places : tuple of int
    at : callable
        Gives what is timed at a place, from ``(room, network, place)``.
    bare : bool
        Whether the forward pass grows too, and is shown.
    log : bool
        Whether places are shown by their logarithm.
    """

    name: str
    title: str
    x_title: str
    says: str
    places: tuple[int, ...]
    at: Callable[[Room, str, int], Iterator[tuple[Place, Task]]]
    bare: bool = False
    log: bool = True

    def tasks(self, room: Room, network: str) -> Iterator[tuple[Place, Task]]:
        """Give all that is timed.

        Parameters
        ----------
        room : Room
        network : str

        Returns
        -------
        iterator of (Place, Task)
        """
        for place in self.places:
            yield from self.at(room, network, place)


def _tasks(case: Case, place: int, *methods: str) -> Iterator[tuple[Place, Task]]:
    """Time methods on a case."""
    for method in methods:
        yield Place(place, str(place)), Task(case, method, case.ours(method))


def _batch(room: Room, network: str, pictures: int) -> Iterator[tuple[Place, Task]]:
    """So many pictures at once."""
    yield from _tasks(room.case(network, Work(), pictures), pictures, "grad-cam", "saliency")


def _size(room: Room, network: str, side: int) -> Iterator[tuple[Place, Task]]:
    """A picture so high and wide."""
    window = side // 7
    case = room.case(network, Work(side=side, window=window, stride=(side - window) // 8))
    yield from _tasks(case, side, "grad-cam", "saliency")
    settings = case.work.settings("occlusion")
    task = Task(case, "occlusion", case.ours("occlusion", **settings), label="occlusion, 9 x 9")
    yield Place(side, str(side)), task


def _channels(room: Room, network: str, channels: int) -> Iterator[tuple[Place, Task]]:
    """The methods that ask of single channels, of so many of them."""
    case = room.case(network, Work())
    known = find_layer(case.model.layers, case.layer).shape[-1]
    if any(known <= place < channels for place in SCALES["channels"].places):
        return  # all of them were asked about before
    asked = min(channels, known)
    for method in ("ablation-cam", "score-cam"):
        yield Place(asked, str(asked)), Task(case, method, case.ours(method, channels=asked))


def _classes(room: Room, network: str, classes: int) -> Iterator[tuple[Place, Task]]:
    """So many classes of one picture."""
    made = room.case(network, Work())
    case = dataclasses.replace(made, classes=tuple(range(CLASS, CLASS + classes)))
    yield Place(classes, str(classes)), Task(case, "grad-cam", of_classes(case))


def _positions(room: Room, network: str, along: int) -> Iterator[tuple[Place, Task]]:
    """So many positions of the window along each side."""
    work = Work()
    stride = (work.side - work.window) // (along - 1)
    case = room.case(network, dataclasses.replace(work, stride=stride))
    ours = case.ours("occlusion", **case.work.settings("occlusion"))
    positions = case.work.positions
    yield Place(positions, str(positions)), Task(case, "occlusion", ours)


def _depth(room: Room, network: str, step: int) -> Iterator[tuple[Place, Task]]:
    """Grad-CAM at one of the convolutions, from the first to the last."""
    case = room.case(network, Work())
    layers = list(case.model.layers.values())
    convolutions = [i for i, info in enumerate(layers) if info.kind == "conv" and info.grid]
    found = convolutions[round(step * (len(convolutions) - 1) / (_LAYERS - 1))]
    depth = 100 * (found + 1) / len(layers)
    task = Task(case, "grad-cam", case.ours("grad-cam", layer=layers[found].name))
    yield Place(depth, layers[found].name), task


SCALES: Final[dict[str, Scale]] = {
    scale.name: scale
    for scale in (
        Scale(
            "batch",
            "Pictures at once",
            "pictures in the batch",
            "The unit is a plain forward pass of the same batch, so a level line is a cost in "
            "proportion to the pictures.",
            (1, 2, 4, 8, 16, 32),
            _batch,
            bare=True,
        ),
        Scale(
            "size",
            "The picture's size",
            "height and width, in pixels",
            "The unit is a plain forward pass of a picture as large. The window takes a seventh "
            "of the side; the larger the picture, the smaller the part of it that a unit sees, and "
            "what does not see the window need not be computed again.",
            (112, 224, 448, 672, 896),
            _size,
            bare=True,
        ),
        Scale(
            "channels",
            "Channels",
            "channels asked about",
            "Score-CAM runs the network once for each channel, Ablation-CAM what is behind the "
            "layer.",
            (16, 64, 256, 512, 1280),
            _channels,
        ),
        Scale(
            "classes",
            "Classes of one picture",
            "classes",
            "What is before the layer is the same for all classes, and runs once.",
            (1, 5, 20, 100),
            _classes,
        ),
        Scale(
            "positions",
            "Positions of the occluding window",
            "positions of a window of 32 pixels",
            "One forward pass for each position would be a line through as many passes as "
            "positions. From 64 passes on, of each layer only what the window reaches is computed "
            "again ([speed](speed.md)).",
            (7, 9, 13, 25),
            _positions,
        ),
        Scale(
            "depth",
            "The layer's depth",
            "layers up to this one, in %",
            "The gradient goes back no further than to the layer, and what is before it is not "
            "recorded: deep layers cost little more than the forward pass.",
            tuple(range(_LAYERS)),
            _depth,
            log=False,
        ),
    )
}
"""By name, in the order of the page."""
