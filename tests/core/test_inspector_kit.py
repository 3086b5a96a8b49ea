"""The checks for inspectors: a sound inspector passes all, and each fault is caught."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
import pytest

from cnnviz_core.exhibits import Curves, Gallery, Line, Matrix, Table, Tile
from cnnviz_core.inspector import Findings
from cnnviz_core.layers import resolve_layer
from cnnviz_core.parameters import Help
from cnnviz_core.testing.inspectors import CHECKS, parametrize_with_checks

GREY = np.full((4, 4), 0.5)
RAMP = np.arange(3.0)
TILE = Tile(heat=GREY, boxes=((0, 0, 2, 2),), caption="grey")
STILL = np.zeros((4, 6, 3), np.uint8)


def sound(x, means):
    """Show a gallery, curves, a table and a matrix as they should be."""
    names = tuple(map(str, range(len(means))))
    gap = np.append(means, np.nan)
    line = Line("mean", gap, 0 * gap)
    return (
        Gallery(((TILE, None), (Tile(heat=-GREY, signed=True),)), column_titles=("a", "b")),
        Curves(np.arange(len(gap)), (line,), pictures=((0, TILE),)),
        Table(("picture", "mean"), tuple(zip(names, map(str, means), strict=True))),
        Matrix(means[:, None], names, ("mean",)),
    )


@dataclass(frozen=True)
class Means:
    """The mean of each picture and of a layer's output for it; one fault may be built in.

    ``pictures`` (N,) and ``layer`` (N,), both in the network's own values.
    """

    fault: Annotated[str, Help("what is wrong with it")] = ""
    layer: Annotated[str, Help("the layer to look at")] = "auto"
    needs: ClassVar[frozenset[str]] = frozenset({"capture"})
    calls: ClassVar[list[int]] = []

    def inspect(self, subject):
        x = self._read(subject)
        model, fault = subject.model, self.fault
        if fault == "uses what it does not declare":
            model.parameters("conv1")
        if fault == "counts on the class" and subject.targets:
            subject.labels[subject.targets[0].index]
        if fault == "changes the network":
            model._arrays["conv1"]["weight"] *= 2
        layer = "conv1"
        if fault != "takes any layer":
            layer = resolve_layer(model, self.layer, x).name
        values = model.forward(x, capture=(layer,))[layer]
        means = values.reshape(len(x), -1).mean(1)
        if fault == "is never the same":
            self.calls.append(1)
            means = means + len(self.calls)
        if fault == "finds NaN":
            means = means * np.nan
        if fault == "depends on the batch":
            means = means * subject.batch_size
        if fault == "rounds":
            means = means.astype(np.float32)
        arrays = {"pictures": x.reshape(len(x), -1).mean(1), "layer": means}
        if fault == "is silent on an array":
            arrays["extra"] = np.ones(1)
        if fault == "gives a mapping":
            return arrays
        return Findings(
            arrays,
            sound(x, means),
            facts={"pictures": {1, 2} if fault == "has facts of Python's own" else len(x)},
            title="" if fault == "has no title" else "Means",
            frames=(STILL, STILL),
        )

    def _read(self, subject):
        fault, pictures = self.fault, subject.pictures
        if fault == "asks for the whole collection":
            return np.stack([pictures.read(i) for i in range(len(pictures))])
        if fault == "stumbles over the lack of pictures":
            return next(iter(pictures.batches(9))).x
        if fault == "writes to the pictures":
            pictures.read(0)[:] = 1
        x = pictures.all().x
        if fault == "takes one picture only":
            return x.reshape(1, *subject.shape)
        if fault == "takes several pictures only":
            x[1]
        return x


@parametrize_with_checks([Means(), Means(layer="conv1")])
def test_a_sound_inspector_passes(inspector, check):
    check(inspector)


def the_check(name):
    return next(check for check in CHECKS if check.__name__ == f"check_{name}")


@pytest.mark.parametrize(
    ("fault", "caught_by"),
    [
        ("uses what it does not declare", "declares_its_needs"),
        ("finds NaN", "findings"),
        ("is silent on an array", "findings"),
        ("has facts of Python's own", "findings"),
        ("has no title", "findings"),
        ("gives a mapping", "findings"),
        ("is never the same", "is_deterministic"),
        ("writes to the pictures", "leaves_all_as_it_was"),
        ("changes the network", "leaves_all_as_it_was"),
        ("takes one picture only", "takes_one_picture_and_several"),
        ("takes several pictures only", "takes_one_picture_and_several"),
        ("depends on the batch", "takes_one_picture_and_several"),
        ("asks for the whole collection", "leaves_out_what_cannot_be_read"),
        ("stumbles over the lack of pictures", "no_picture_is_reported"),
        ("counts on the class", "bad_target_is_reported"),
        ("rounds", "keeps_double_precision"),
        ("takes any layer", "wrong_layer_is_reported"),
    ],
)
def test_each_fault_is_caught(fault, caught_by):
    with pytest.raises(Exception):  # noqa: B017, PT011
        the_check(caught_by)(Means(fault=fault))


@dataclass(frozen=True)
class Shows:
    """Shows what it is told to."""

    exhibits: tuple[Any, ...] = ()
    frames: tuple[Any, ...] = ()
    needs: ClassVar[frozenset[str]] = frozenset()

    def inspect(self, subject):
        return Findings({}, self.exhibits, frames=self.frames)


EXHIBITS = {
    "an empty gallery": Gallery(((None,),)),
    "heat above one": Gallery(((Tile(heat=GREY * 3),),)),
    "heat below zero": Gallery(((Tile(heat=-GREY),),)),
    "heat with colours": Gallery(((Tile(heat=np.zeros((4, 4, 3))),),)),
    "half a class": Gallery(((Tile(classes=GREY, legend=("one",)),),)),
    "a box without width": Gallery(((Tile(heat=GREY, boxes=((2, 1, 2, 3),)),),)),
    "curves without a line": Curves(RAMP, ()),
    "a line of nothing": Curves(RAMP, (Line("a", RAMP * np.nan),)),
    "an infinite line": Curves(RAMP, (Line("a", np.array([0, 1, np.inf])),)),
    "an axis of nothing": Curves(RAMP * np.nan, (Line("a", RAMP),)),
    "a negative spread": Curves(RAMP, (Line("a", RAMP, -RAMP),)),
    "a short spread": Curves(RAMP, (Line("a", RAMP, RAMP[:2]),)),
    "too hot a picture": Curves(RAMP, (Line("a", RAMP),), pictures=((0, Tile(heat=GREY * 3)),)),
    "an empty table": Table(("a",), ()),
    "numbers of no column": Table(("a",), (("1",),), numeric=("b",)),
    "a matrix with gaps": Matrix(GREY * np.nan, tuple("abcd"), tuple("abcd")),
    "a text": "look!",
}


@pytest.mark.parametrize("exhibit", EXHIBITS.values(), ids=EXHIBITS)
def test_what_cannot_be_drawn_is_caught(exhibit):
    with pytest.raises(AssertionError):
        the_check("exhibits_can_be_drawn")(Shows((Gallery(((TILE,),)), exhibit)))


def test_nothing_to_be_seen_is_caught():
    with pytest.raises(AssertionError, match="nothing to be seen"):
        the_check("exhibits_can_be_drawn")(Shows())


@pytest.mark.parametrize("frames", [(STILL, STILL[:2]), (STILL / 2,)])
def test_uneven_frames_are_caught(frames):
    with pytest.raises(AssertionError, match="a frame is"):
        the_check("exhibits_can_be_drawn")(Shows((Gallery(((TILE,),)),), frames))


@dataclass
class Thawed:
    """Can be changed."""


@dataclass(frozen=True)
class Mute(Means):
    """With a parameter that nobody explains."""

    number: int = 1


@dataclass(frozen=True)
class Bound(Means):
    """With a parameter that must be given."""

    number: Annotated[int, Help("any")] = 1

    def __post_init__(self):
        if self.number == 1:
            raise ValueError("give a number")


@pytest.mark.parametrize("inspector", [Thawed(), Mute(), Bound(number=2)])
def test_a_schema_with_a_fault_is_caught(inspector):
    with pytest.raises((AssertionError, ValueError)):
        the_check("is_a_dataclass_with_a_schema")(inspector)
