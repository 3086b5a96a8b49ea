"""The arithmetic of receptive fields: each reading against the loop that defines it."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError
from fractions import Fraction

import numpy as np
import pytest

from cnnviz_core.delegate import Delegate
from cnnviz_core.errors import ArrayError, MissingCapabilityError, UnknownLayerError
from cnnviz_core.inputs import OneInput
from cnnviz_core.memo import MemoModel
from cnnviz_core.model import LayerInfo, spatial
from cnnviz_core.netspec import NetSpec, Op
from cnnviz_core.receptive import input_convolutions, receptive_field, receptive_fields
from cnnviz_core.sketch import PLAIN, Axis, Sketch, Unclear, Value
from cnnviz_core.spatial import (
    NOTHING,
    SAME,
    Bins,
    Everything,
    Geometry,
    Resized,
    Step,
    Transposed,
    Window,
)
from cnnviz_core.testing.explainers import Offering
from cnnviz_core.testing.fields import assert_same_field
from cnnviz_core.testing.nets import NETS, random_input
from cnnviz_core.testing.reference import ReferenceModel

HALF = Fraction(1, 2)


class Told(Delegate):
    """A model with a geometry of our own."""

    def __init__(self, *steps, grid=None, node=-1):
        super().__init__(ReferenceModel(NETS["plain"]()))
        self.steps, self.grid, self.node = steps, grid, node % len(steps)

    @property
    def layers(self):
        return {"layer": LayerInfo("layer", "conv", "Conv", (), self.grid, path="layer")}

    def geometry(self, nodes, x=None, *, wrt="@input"):
        return Geometry(self.steps, dict.fromkeys(nodes, self.node))


def along(n, *readings, sizes):
    """A chain of readings along one axis, as a model."""
    steps = [Step("input", (n,))]
    for k, (reading, size) in enumerate(zip(readings, sizes, strict=True)):
        steps.append(Step("conv", (size,), (k,), (reading,)))
    return Told(*steps, grid=(sizes[-1],))


def window_reads(i, n, w):
    places = [i * w.stride - w.before + k * w.dilation for k in range(w.size)]
    if w.border == "nothing":
        return [p for p in places if 0 <= p < n]
    mode = {"edge": "edge", "reflect": "reflect", "symmetric": "symmetric", "wrap": "wrap"}
    padded = np.pad(np.arange(n), 3 * n, mode=mode[w.border])
    return [int(padded[p + 3 * n]) for p in places]


def transposed_reads(i, n, t):
    return [
        j for j in range(n) for k in range(t.size) if j * t.stride - t.before + k * t.dilation == i
    ]


def resized_reads(i, n, r):
    place = (i + r.shift) * r.scale
    if r.method == "nearest":
        found = [math.floor(place)]
    elif r.method == "round":
        found = [math.floor(place + HALF)]
    else:
        place -= r.shift
        below = math.floor(place)
        reach = {"linear": (0, 1), "cubic": (-1, 2)}[r.method]
        found = [below] if place == below else [below + k for k in range(reach[0], reach[1] + 1)]
    return [min(max(p, 0), n - 1) for p in found]


READINGS = [
    (window_reads, SAME),
    (window_reads, Window(3, 2, 1, 1)),
    (window_reads, Window(3, 1, 3, 4)),
    (window_reads, Window(2, 3, 2, -1)),
    (window_reads, Window(5, 1, 1, 2, "reflect")),
    (window_reads, Window(4, 2, 1, 3, "edge")),
    (window_reads, Window(3, 1, 1, 2, "symmetric")),
    (window_reads, Window(1, 1, 1, 4, "wrap")),
    (transposed_reads, Transposed(3, 2, 1, 1)),
    (transposed_reads, Transposed(2, 3)),
    (transposed_reads, Transposed(3, 2, 2, 2)),
    (transposed_reads, Transposed(4, 1, 1, 0)),
    (resized_reads, Resized("nearest", HALF, Fraction(0))),
    (resized_reads, Resized("nearest", Fraction(7, 5))),
    (resized_reads, Resized("round", Fraction(6, 11), Fraction(0))),
    (resized_reads, Resized("linear", HALF)),
    (resized_reads, Resized("linear", Fraction(7, 12), Fraction(0))),
    (resized_reads, Resized("linear", Fraction(6, 13), Fraction(0))),
    (resized_reads, Resized("cubic", Fraction(2, 3))),
    (resized_reads, Resized("cubic", HALF, Fraction(0))),
    (lambda i, n, _: range(n), Everything()),
    (lambda i, n, _: range(i * n // 9, math.ceil((i + 1) * n / 9)), Bins()),
]


def named(value):
    """Name a case alike in every process: the text of a function has its address."""
    return getattr(value, "__name__", None) or repr(value)[:50]


@pytest.mark.parametrize(("reads", "reading"), READINGS, ids=named)
def test_a_reading_reads_what_its_definition_says(reads, reading):
    n, size = 7, 9
    rng = np.random.default_rng(0)
    first = rng.integers(0, 50, n)
    last = first + rng.integers(0, 9, n)
    first[3], last[3] = NOTHING, -NOTHING  # a position that sees nothing
    low, high = reading.seen(first, last, size)
    for i in range(size):
        read = [int(p) for p in reads(i, n, reading)]
        assert low[i] == min((first[p] for p in read), default=NOTHING)
        assert high[i] == max((last[p] for p in read), default=-NOTHING)


@pytest.mark.parametrize(
    ("reads", "reading"),
    [case for case in READINGS if case[1] != Everything()],
    ids=named,
)
def test_the_reach_is_what_is_read_far_from_the_borders(reads, reading):
    n = 5000
    size = 9 if isinstance(reading, Bins) else n
    at = np.arange(3) + size // 5
    low, high = reading.reach(at, at, size, n)
    for i, a, b in zip(at, low, high, strict=True):
        read = [int(p) for p in reads(int(i), n, reading)]
        if read:
            assert (min(read), max(read)) == (a, b)
        else:  # between the places of a sparse enlargement
            assert a > b


def test_sizes_and_strides_follow_the_textbook():
    """Araujo et al., equations 1 and 2: size += (k - 1) * stride; stride *= s."""
    rng = np.random.default_rng(1)
    for _ in range(30):
        size, stride, start, n = 1, 1, 0, 400
        readings, sizes = [], []
        for _ in range(6):
            k, s, before = int(rng.integers(1, 6)), int(rng.integers(1, 3)), int(rng.integers(0, 3))
            size += (k - 1) * stride
            start -= before * stride
            stride *= s
            n = (n + 2 * before - k) // s + 1
            readings.append(Window(k, s, 1, before))
            sizes.append(n)
        field = receptive_field(along(400, *readings, sizes=sizes), "layer")
        assert (field.size, field.stride, field.start) == ((size,), (stride,), (start,))
        middle = field.middle[0]
        assert field.centre(field.middle) == (start + middle * stride + size / 2,)


def test_holes_are_no_pixels():
    """A dilated window at a border sees from its first place within, not from the border."""
    field = receptive_field(along(8, Window(2, 1, 4, 3), sizes=(10,)), "layer")
    assert field.box((0,)) == ((1, 2),)
    assert field.box((3,)) == ((0, 5),)
    assert field.unbounded[0][0].tolist() == [-3, 2]


def test_a_position_in_the_padding_sees_nothing():
    field = receptive_field(along(4, Window(1, 1, 1, 2), sizes=(8,)), "layer")
    assert [field.box((k,))[0] for k in (0, 1, 2, 5, 7)] == [(0, 0), (0, 0), (0, 1), (3, 4), (0, 0)]
    assert field.start == (-2,)
    assert field.size == (1,)


def test_a_sparse_enlargement_sees_nothing_between():
    field = receptive_field(along(4, Transposed(1, 3), sizes=(10,)), "layer")
    assert [field.box((k,))[0] for k in range(4)] == [(0, 1), (0, 0), (0, 0), (1, 2)]
    assert field.stride == (Fraction(1, 3),)
    assert field.size == (1,)


def test_branches_are_united():
    steps = (
        Step("input", (9,)),
        Step("conv", (9,), (0,), (Window(5, 1, 1, 2),)),
        Step("conv", (9,), (0,), (Window(3, 1, 1, 0),)),
        Step("same", (9,), (1, 2, 0), (SAME,)),
    )
    field = receptive_field(Told(*steps, grid=(9,)), "layer")
    assert field.size == (5,)
    assert field.box((4,)) == ((2, 7),)
    assert field.box((8,)) == ((6, 9),)


def test_a_layer_that_is_made_of_what_has_no_places_sees_all_of_it():
    steps = (Step("input", (9,)), Step("mix", (1,), (0,), (Everything(),)))
    field = receptive_field(Told(*steps, grid=(4,)), "layer")
    assert field.grid == (4,)
    assert field.whole
    assert field.stride == (0,)


def gated(kind="mix", understood=True, keep=False):
    size = 9 if keep else 1
    return Told(
        Step("input", (9,)),
        Step("conv", (9,), (0,), (Window(3, 1, 1, 1),)),
        Step(kind, (size,), (1,), (Everything(),), "mean", understood),
        Step("same", (9,), (1, 2), (SAME,)),
        grid=(9,),
    )


def test_means_can_be_left_out_where_there_is_another_way():
    whole, local = (receptive_field(gated(), "layer", local=local) for local in (False, True))
    assert whole.whole
    assert whole.size == (11,)
    assert not whole.by_means
    assert local.size == (3,)
    assert local.by_means
    mean = Told(Step("input", (9,)), Step("mix", (1,), (0,), (Everything(),)), grid=(1,))
    assert_same_field(receptive_field(mean, "layer", local=True), receptive_field(mean, "layer"))


def test_attention_and_the_unknown_are_not_left_out():
    for model in (gated(keep=True), gated(understood=False)):
        assert receptive_field(model, "layer", local=True).whole
    assert receptive_field(gated(understood=False), "layer").through == ("mean",)
    assert receptive_field(gated(), "layer").exact


def test_positions_and_frames_are_checked():
    field = receptive_field(ReferenceModel(NETS["plain"]()), "conv2")
    assert field.frame((2, 1)) == (0, 1, 7, 9)
    assert field.box((-1, -1)) == field.box((5, 3))
    for wrong in ((6, 0), (0,), (0, -5)):
        with pytest.raises(ArrayError, match="conv2"):
            field.box(wrong)
        with pytest.raises(ArrayError, match="conv2"):
            field.centre(wrong)
    with pytest.raises(ArrayError, match="picture"):
        receptive_field(ReferenceModel(NETS["signal"]()), "conv2").frame((0,))
    with pytest.raises(FrozenInstanceError):
        field.size = (1, 1)


def test_several_layers_at_once_are_what_each_is_alone():
    model = ReferenceModel(NETS["residual"]())
    names = ["conv2b", "stem", "relu@1"]
    for name, field in zip(names, receptive_fields(model, names), strict=True):
        assert_same_field(field, receptive_field(model, name))
    every = receptive_fields(model)
    assert [field.layer for field in every] == [n for n, i in model.layers.items() if i.grid]


def test_layers_are_found_as_everywhere():
    model = ReferenceModel(NETS["residual"]())
    assert receptive_field(model).layer == "relu@2"
    assert receptive_field(model, "conv2*").layer == "conv2b"
    assert receptive_field(model, "@input").size == (1, 1)
    assert receptive_field(model, "@logits").whole
    with pytest.raises(UnknownLayerError, match="stem"):
        receptive_field(model, "stam")


def test_an_input_is_checked():
    model = ReferenceModel(NETS["plain"]())
    with pytest.raises(ArrayError):
        receptive_field(model, "conv2", np.zeros((1, 12, 9, 4), np.float32))


# ---------------------------------------------------------------- models that stand for others


def test_stand_ins_pass_it_on():
    model = ReferenceModel(NETS["two_inputs"]())
    given = random_input(NETS["two_inputs"](), 1)
    free = OneInput(model, "image", {"vector": given["vector"]})
    expected = receptive_field(model, "conv")
    for other in (free, MemoModel(free, given["image"]), Delegate(model)):
        assert_same_field(receptive_field(other, "conv"), expected)
    assert_same_field(receptive_field(free, "conv", given["image"]), expected)


def test_a_model_without_geometry_is_an_error_that_says_so():
    model = ReferenceModel(NETS["plain"]())
    with pytest.raises(MissingCapabilityError, match="geometry"):
        spatial(Offering(model, frozenset({"gradient"})))
    with pytest.raises(MissingCapabilityError, match="declared"):
        Offering(model, frozenset({"gradient"})).geometry(["conv1"])
    assert receptive_field(Offering(model, frozenset({"geometry"})), "conv1").size == (3, 3)


def test_convolutions_of_the_picture():
    weights = {f"{name}.weight": np.ones((1, 1, 3, 3)) for name in "abcd"}
    ops = (
        Op("norm", "relu", ("image",)),
        Op("a", "conv", ("norm",)),
        Op("b", "conv", ("image",)),
        Op("sum", "add", ("a", "norm")),
        Op("c", "conv", ("sum",)),
        Op("pool", "avgpool", ("image",)),
        Op("d", "conv", ("pool",)),
    )
    model = ReferenceModel(NetSpec({"image": (4, 4, 3)}, ops, weights))
    assert [info.name for info in input_convolutions(model)] == ["a", "b"]


def test_without_geometry_it_is_the_first_convolution_with_as_many_channels():
    model = ReferenceModel(NETS["plain"]())
    mute = Offering(model, model.capabilities - {"geometry"})
    assert [info.name for info in input_convolutions(mute)] == ["conv1"]
    swish = ReferenceModel(NETS["depthwise"]())
    mute = Offering(swish, swish.capabilities - {"geometry"})
    assert [info.name for info in input_convolutions(mute)] == ["expand"]


# ---------------------------------------------------------------- following axes


def sketched(shape=(1, 6, 8, 4)):
    return Sketch.of_input(shape, channels_first=False)


@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        ((1, 48, 4), (PLAIN, Axis((0, 1)), PLAIN)),
        ((6, 8, 4), (Axis((0,)), Axis((1,)), PLAIN)),
        ((48, 2, 2), (Axis((0, 1)), PLAIN, PLAIN)),
        ((1, 192), (PLAIN, Axis((0, 1), each=4))),
        ((1, 6, 32), (PLAIN, Axis((0,)), Axis((1,), each=4))),
        ((1, 6, 16, 2), (PLAIN, Axis((0,)), Axis((1,), each=2), PLAIN)),
        ((1, 6, 1, 8, 2, 2), (PLAIN, Axis((0,)), PLAIN, Axis((1,)), PLAIN, PLAIN)),
    ],
)
def test_reshaping_there_and_back(shape, layout):
    sketch, x = sketched()
    there = sketch.reshaped(x, shape)
    assert there.layout == layout
    assert sketch.reshaped(there, x.shape) == x
    assert len(sketch.steps) == 1


def test_cutting_makes_groups_and_joining_spreads_them():
    sketch, x = sketched((1, 6, 8, 4))
    cut = sketch.reshaped(x, (1, 2, 3, 8, 4))
    assert cut.layout[1:3] == (Axis((0,)), PLAIN)
    assert sketch.steps[cut.step].grid == (2, 8)
    back = sketch.settled(sketch.reshaped(cut, (1, 6, 8, 4)))
    assert back.layout == x.layout
    geometry = sketch.geometry({"layer": back})
    field = receptive_field(Told(*geometry.steps, grid=(6, 8), node=back.step), "layer")
    assert field.box((1, 5)) == ((0, 3), (5, 6))
    assert field.box((5, 0)) == ((3, 6), (0, 1))


def test_what_cannot_be_followed_is_unclear():
    sketch, x = sketched((1, 6, 8, 4))
    with pytest.raises(Unclear):
        sketch.reshaped(sketch.permuted(x, (0, 1, 3, 2)), (1, 6 * 4 * 8))
    with pytest.raises(Unclear):
        sketch.reshaped(x, (1, 4, 48))
    rows, columns = (Value(0, (8, 8), (Axis((k,)), PLAIN)) for k in (0, 1))
    with pytest.raises(Unclear):
        sketch.pointwise([rows, columns], (8, 8))
    upright, lying = (
        Value(0, shape, layout)
        for shape, layout in (((6, 1), (Axis((0,)), PLAIN)), ((1, 6), (PLAIN, Axis((0,)))))
    )
    with pytest.raises(Unclear):  # all pairs of rows
        sketch.pointwise([upright, lying], (6, 6))
    assert sketch.unclear([x], (3,), "strange").layout == (PLAIN,)
    assert not sketch.steps[-1].understood


def test_tokens_before_the_places_are_put_on_and_taken_off():
    sketch, x = sketched()
    tokens = sketch.reshaped(x, (1, 48, 4))
    more = sketch.joined([(tokens, 2)], 1, (1, 50, 4), "cat")
    assert more.layout[1] == Axis((0, 1), before=2)
    assert sketch.cut(more, 1, 2, 48) == tokens
    assert sketch.cut(more, 1, 1, 49).layout[1].before == 1
    first = sketch.cut(more, 1, 0, 1)
    assert sketch.steps[first.step].grid == (1, 1)
    with pytest.raises(Unclear):
        sketch.cut(more, 1, 10, 5)
