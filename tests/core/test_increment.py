"""Values computed again only where a change reaches, against the whole network computed again."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnviz_core.blended import Blended
from cnnviz_core.fills import Fixed
from cnnviz_core.increment import Cut, Increment, Operation, Part, Structure, run
from cnnviz_core.increment.places import part_around, reading, reads, united
from cnnviz_core.increment.planning import MOVED
from cnnviz_core.mask_forms import Drawn, Labelled
from cnnviz_core.masks import SegmentMasks, WindowMasks
from cnnviz_core.netspec import NetSpec, Op
from cnnviz_core.perturb import score_masked
from cnnviz_core.spatial import Window
from cnnviz_core.targets import ClassScore
from cnnviz_core.testing.increment import (
    IncrementalReference,
    ReferenceArrays,
    increment_operations,
    reference_increment,
)
from cnnviz_core.testing.nets import NETS
from cnnviz_core.testing.reference import ReferenceModel
from cnnviz_core.windows import Windows

AXES = st.sampled_from([1, 2, 2, 3])
SEEDS = st.integers(0, 10**6)
READINGS = st.builds(
    Window, st.integers(1, 4), st.integers(1, 3), st.integers(1, 2), st.integers(0, 3)
)


class Growing:
    """A network that is drawn operation by operation."""

    def __init__(self, rng, axes):
        self.rng, self.axes = rng, axes
        grid = tuple(rng.integers({1: 8, 2: 6, 3: 4}[axes], {1: 24, 2: 14, 3: 8}[axes], axes))
        self.inputs = {"x": (*map(int, grid), int(rng.integers(1, 4)))}
        self.ops, self.arrays = [], {}

    def net(self, ops):
        """Give the network as far as it has grown, perhaps with other operations behind."""
        return NetSpec(self.inputs, tuple(ops), self.arrays)

    def grow(self, steps, end):
        """Add operations, and perhaps an end that has no positions."""
        while len(self.ops) < steps:
            self._try()
        last = self.ops[-1].name
        if end:
            self.ops.append(Op("end", end, (last,)))
            width = self.net(self.ops).shapes()["end"][-1]
            self.arrays["dense.weight"] = self.rng.normal(size=(width, 3))
            self.ops.append(Op("dense", "linear", ("end",)))
        return self.net(self.ops)

    def _try(self):
        shapes = self.net(self.ops).shapes() if self.ops else dict(self.inputs)
        names = list(shapes)
        source = names[self.rng.integers(max(0, len(names) - 3), len(names))]
        kinds = ["conv"] * 4 + ["maxpool", "avgpool", "relu", "silu", "layernorm", "add", "concat"]
        op = self._op(f"op{len(self.ops)}", self.rng.choice(kinds), source, shapes)
        if op is not None and min(self.net([*self.ops, op]).shapes()[op.name]) > 0:
            self.ops.append(op)

    def _op(self, name, kind, source, shapes):
        draw, axes, channels = self.rng.integers, self.axes, shapes[source][-1]
        size = draw(1, 4, axes)
        stride = tuple(map(int, draw(1, 4 if kind == "conv" else 3, axes)))
        if kind == "conv":
            groups = int(self.rng.choice([g for g in (1, 2, 3) if channels % g == 0]))
            out = groups * int(draw(1, 3))
            self.arrays[f"{name}.weight"] = self.rng.normal(size=(*size, channels // groups, out))
            self.arrays[f"{name}.bias"] = self.rng.normal(size=out)
            padding = tuple(tuple(map(int, draw(0, 3, 2))) for _ in range(axes))
            dilation = tuple(map(int, draw(1, 3, axes)))
            attrs = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
            return Op(name, kind, (source,), attrs=attrs)
        if kind in ("maxpool", "avgpool"):
            attrs = {"window": tuple(map(int, size)), "stride": stride}
            if kind == "maxpool":  # a window of nothing but padding has no maximum
                attrs["padding"] = tuple((int(draw(0, k)), int(draw(0, k))) for k in size)
            return Op(name, kind, (source,), attrs=attrs)
        if kind in ("add", "concat"):
            same = slice(None) if kind == "add" else slice(-1)
            alike = [k for k, shape in shapes.items() if shape[same] == shapes[source][same]]
            return Op(name, kind, (source, str(self.rng.choice(alike))))
        if kind == "layernorm":
            self.arrays |= {
                f"{name}.scale": self.rng.normal(size=channels),
                f"{name}.shift": np.ones(channels),
            }
        return Op(name, kind, (source,))


def grown(seed, axes, steps, end):
    """Draw a network, a sample, and boxes of many sizes in it, also at its ends."""
    rng = np.random.default_rng(seed)
    net = Growing(rng, axes).grow(steps, end)
    x = rng.normal(size=(1, *net.inputs["x"]))
    a, b = rng.integers(0, np.array(x.shape[1:-1]) + 1, (2, 5, axes))
    return net, x, np.minimum(a, b), np.maximum(a, b)


def occluded(x, starts, stops):
    """Say that boxes are taken away."""
    masks = np.ones((len(starts), *x.shape[1:-1]))
    for mask, start, stop in zip(masks, starts, stops, strict=True):
        mask[tuple(map(slice, start, stop))] = 0
    return Blended(x[0], Drawn(masks), np.full(x.shape[-1], 0.3))


def assert_close(found, expected):
    """Compare in units of the largest value."""
    np.testing.assert_allclose(
        found, expected, rtol=0, atol=1e-12 * np.abs(expected).max() + 1e-300
    )


@settings(max_examples=150, deadline=None)
@given(SEEDS, AXES, st.integers(1, 9), st.sampled_from(["gap", "flatten", None]), st.booleans())
def test_it_is_what_the_whole_network_gives(seed, axes, steps, end, always):
    net, x, starts, stops = grown(seed, axes, steps, end)
    operations = increment_operations(net)
    if always:  # then windows cost less than all, however large they are
        operations = [replace(o, work=1e9) for o in operations]
    batch, wanted = occluded(x, starts, stops), [net.output, net.ops[0].name]
    arrays = ReferenceArrays(net, {"x": x}, wanted)
    numbers = [len(net.inputs) + k for k in (len(net.ops) - 1, 0)]
    part = part_around(starts, stops, x.shape[1:-1])
    plan = Structure(operations, numbers).plan(part)
    patches = np.stack(
        [
            made[tuple(slice(s, s + e) for s, e in zip(start, part.extent, strict=True))]
            for made, start in zip(np.asarray(batch), part.starts, strict=True)
        ]
    )
    for found, expected in zip(run(plan, patches, arrays), arrays.whole(batch), strict=True):
        assert_close(found, expected)
    if always:
        windows = [k for k, o in enumerate(operations) if o.kind == "window" and k in plan.order]
        inputs = {k: plan.changes[operations[k].inputs[0]] for k in windows}
        for k in windows:
            if isinstance(inputs[k], Part):
                whole = (
                    reading(inputs[k], operations[k].along, operations[k].grid).extent
                    == operations[k].grid
                )
                assert isinstance(plan.changes[k], Part) != whole


@pytest.mark.parametrize(
    "name", [n for n in NETS if len(next(iter(NETS[n]().inputs.values()))) > 1]
)
def test_for_the_networks_of_the_kit_and_masks_of_all_kinds_too(name):
    net, rng = NETS[name](), np.random.default_rng(3)
    x = {key: rng.normal(size=(1, *shape)) for key, shape in net.inputs.items()}
    sample = next(iter(x.values()))[0]
    size = sample.shape[:-1]
    kept = np.ones((9, 12))
    kept[np.arange(8), rng.integers(0, 12, 8)] = [0, 0.5, 0, 0.2, 0, 0, 0, 0]  # the last keeps all
    for masks in (
        WindowMasks(Windows.over(size, 3, 2)),
        WindowMasks(Windows.over(size, 3, 1, "disc")),
        SegmentMasks(rng.integers(0, 12, size), kept),
        SegmentMasks(
            np.arange(sample[..., 0].size).reshape(size) * 12 // sample[..., 0].size, kept
        ),
    ):
        increment = reference_increment(net, x, [net.output])
        batch = Blended(sample, masks.form(0, len(masks)), rng.normal(size=sample.shape))
        (found,) = increment.run(batch)
        (expected,) = ReferenceArrays(net, x, [net.output]).whole(batch)
        assert_close(found, expected)


def large(channels=24):
    """A network in which work counts for more than moving values."""
    rng = np.random.default_rng(0)
    arrays = {
        "a.weight": rng.normal(size=(3, 3, 3, channels)),
        "b.weight": rng.normal(size=(3, 3, channels, channels)),
        "c.weight": rng.normal(size=(3, 3, channels, channels)),
        "dense.weight": rng.normal(size=(channels, 4)),
    }
    pad = {"padding": ((1, 1), (1, 1))}
    ops = (
        Op("a", "conv", ("x",), attrs=pad),
        Op("ra", "relu", ("a",)),
        Op("b", "conv", ("ra",), attrs=pad),
        Op("pool", "maxpool", ("b",)),
        Op("c", "conv", ("pool",), attrs=pad),
        Op("rc", "relu", ("c",)),
        Op("gap", "gap", ("rc",)),
        Op("dense", "linear", ("gap",)),
    )
    return NetSpec({"x": (24, 20, 3)}, ops, arrays), rng.normal(size=(1, 24, 20, 3))


def test_work_is_counted_as_it_is_done():
    net, x = large()
    operations = increment_operations(net)
    weights = {name: net.parameters[f"{name}.weight"].size for name in ("a", "b", "c", "dense")}
    structure = Structure(operations, [len(net.ops)])
    assert (
        structure.work
        == (weights["a"] + weights["b"]) * 480 + weights["c"] * 120 + weights["dense"]
    )
    starts, stops = np.array([[8, 4], [8, 8]]), np.array([[12, 8], [12, 12]])
    plan = structure.plan(part_around(starts, stops, (24, 20)))
    # 4 pixels are seen by 6, those by 8, these by 4 after the pool, and those by 6.
    positions = {"a": 36, "b": 64, "c": 36, "dense": 1}
    assert plan.work == sum(weights[name] * n for name, n in positions.items())
    arrays = ReferenceArrays(net, {"x": x}, ["dense"])
    run(plan, np.zeros((2, 4, 4, 3)), arrays)
    assert arrays.work == 2 * plan.work
    assert plan.cost < structure.cost / 3


@settings(max_examples=60, deadline=None)
@given(SEEDS, AXES, st.integers(1, 6))
def test_every_value_that_changes_is_computed_and_of_one_mask_no_window_more(seed, axes, steps):
    net, x, starts, stops = grown(seed, axes, steps, None)
    stops = np.maximum(stops, starts + 1).clip(None, x.shape[1:-1])
    starts = np.minimum(starts, stops - 1)
    operations = [replace(o, work=1e9) for o in increment_operations(net)]
    structure = Structure(operations, range(len(operations)))
    for start, stop in zip(starts, stops, strict=True):
        plan = structure.plan(part_around(start[None], stop[None], x.shape[1:-1]))
        fields = _reaching(net, x.shape[1:-1], start, stop)
        for k, name in enumerate(net.shapes()):
            change, changed = plan.changes[k], np.argwhere(fields[name])
            if isinstance(change, Part) and len(changed):
                assert (change.starts[0] <= changed.min(0)).all()
                assert (change.stops[0] > changed.max(0)).all()
            assert not (change == "nothing" and len(changed))


def _reaching(net, size, start, stop):
    """Mark what depends on a box, position by position."""
    marked = {"x": np.zeros(size, dtype=bool)}
    marked["x"][tuple(map(slice, start, stop))] = True
    for op, described in zip(net.ops, increment_operations(net)[1:], strict=True):
        below = [marked[name] for name in op.inputs]
        if described.kind != "window":
            marked[op.name] = np.any(below, axis=0)
            continue
        found = np.zeros(described.grid, dtype=bool)
        for place in np.ndindex(found.shape):
            for offset in np.ndindex(*(w.size for w in described.along)):
                at = tuple(
                    i * w.stride - w.before + o * w.dilation
                    for i, o, w in zip(place, offset, described.along, strict=True)
                )
                if all(0 <= a < n for a, n in zip(at, below[0].shape, strict=True)):
                    found[place] |= below[0][at]
        marked[op.name] = found
    return marked


@given(READINGS, st.integers(1, 20), st.data())
def test_the_window_of_one_axis_is_the_smallest_and_what_it_reads_suffices(window, n, data):
    span = (window.size - 1) * window.dilation + 1
    size = (n + window.before + data.draw(st.integers(0, 3)) - span) // window.stride + 1
    start = data.draw(st.integers(0, n - 1))
    stop = data.draw(st.integers(start + 1, n))
    if size < 1:
        return
    at = np.arange(size) * window.stride - window.before
    touched = np.flatnonzero((at < stop) & (at + span > start))
    part = reading(Part(np.array([[start]]), (stop - start,)), [window], (size,))
    if len(touched):
        assert (int(part.starts[0, 0]), part.extent[0]) == (
            touched[0],
            touched[-1] - touched[0] + 1,
        )
    read = reads(part, [window])
    first, last = part.starts[0, 0], part.stops[0, 0] - 1
    assert (read.starts[0, 0], read.stops[0, 0]) == (at[first], at[last] + span)


def test_windows_of_a_batch_share_one_extent_and_stay_within():
    part = part_around(np.array([[0], [7], [3], [5]]), np.array([[4], [10], [3], [12]]), (10,))
    assert part.extent == (5,)
    assert part.starts.tolist() == [[0], [5], [3], [5]]
    one, other = Part(np.array([[1], [4]]), (2,)), Part(np.array([[2], [4]]), (3,))
    both = united([one, other], (7,))
    assert (both.extent, both.starts.tolist()) == ((4,), [[1], [3]])
    assert united([one, one], (7,)) is one


@given(SEEDS, AXES)
def test_a_cut_says_where_everything_stands(seed, axes):
    rng = np.random.default_rng(seed)
    grid, wide, long = (tuple(map(int, rng.integers(1, 6, axes))) for _ in range(3))
    long = tuple(map(min, long, grid))
    window = Part(rng.integers(-2, 4, (6, axes)), wide)
    changed = Part(
        np.stack([rng.integers(0, n - e + 1, 6) for n, e in zip(grid, long, strict=True)], -1), long
    )
    clean, new = rng.normal(size=grid), rng.normal(size=(6, *long))
    cut = Cut(grid, window, changed, -7.0)
    found = np.append(clean, cut.border)[cut.rows()].reshape(6, *wide)
    for which, inside, of in cut.overlaps():
        found[which, *inside] = new[which, *of]
    for k in range(6):
        full = clean.copy()
        full[tuple(map(slice, changed.starts[k], changed.stops[k]))] = new[k]
        for place in np.ndindex(wide):
            at = window.starts[k] + place
            inside = (at >= 0).all() and (at < grid).all()
            assert found[k, *place] == (full[tuple(at)] if inside else cut.border)


CHAIN = [
    Operation("input", (32,), 2),
    Operation("window", (32,), 8, (0,), 1e4, (Window(3, 1, 1, 1),)),
    Operation("mean", (), 8, (1,)),
    Operation("whole", (), 8, (2,), 64.0),
    Operation("pointwise", (32,), 8, (1, 3)),
    Operation("window", (32,), 8, (4,), 1e4, (Window(3, 1, 1, 1),)),
]


def test_behind_squeeze_and_excite_everything_is_computed():
    part = Part(np.array([[3], [9]]), (4,))
    plan = Structure(CHAIN, [5]).plan(part)
    assert [c if isinstance(c, str) else c.extent for c in plan.changes] == [
        (4,),
        (6,),
        "everything",
        "everything",
        "everything",
        "everything",
    ]
    assert plan.work == 6 * 1e4 + 64 + 32 * 1e4


def test_a_single_position_that_has_not_changed_is_read_by_windows():
    constant = [*CHAIN[:2], Operation("input", (1,), 8), *CHAIN[3:]]
    constant[3] = replace(CHAIN[3], inputs=(2,))
    plan = Structure(constant, [5]).plan(Part(np.array([[3], [9]]), (4,)))
    assert [c if isinstance(c, str) else c.extent for c in plan.changes] == [
        (4,),
        (6,),
        "nothing",
        "nothing",
        (6,),
        (8,),
    ]
    assert 3 not in plan.order


def test_what_is_read_along_some_axes_only_is_not_cut_into_windows():
    rows = [
        Operation("input", (8, 6), 2),
        Operation("input", (8, 1), 2),
        Operation("pointwise", (8, 6), 2, (0, 1), 1e6),
    ]
    plan = Structure(rows, [2]).plan(Part(np.array([[1, 1]]), (2, 2)))
    assert plan.changes[2] == "everything"
    wide = [Operation("input", (1, 6), 2), *rows[1:]]
    plan = Structure(wide, [2]).plan(Part(np.array([[0, 1]]), (1, 2)))
    assert plan.changes[2] == "everything"


def test_what_is_moved_counts_too_once():
    chain = [
        Operation("input", (32,), 2),
        Operation("window", (32,), 8, (0,), 1e4, (Window(3, 1, 1, 1),)),
        Operation("whole", (), 5, (1,), 7.0),
        Operation("whole", (), 3, (1,), 11.0),
    ]
    plan = Structure(chain, [2, 3]).plan(Part(np.array([[3]]), (4,)))
    cut, laid = 8 * 2, 32 * 8  # what six positions read, and all that both others read
    assert plan.work == 6 * 1e4 + 7 + 11
    assert plan.cost == plan.work + MOVED * (6 * 8 + 5 + 3 + cut + laid)


def test_what_nobody_asks_for_is_not_computed():
    assert Structure(CHAIN, [2]).order == (1, 2)
    assert Structure(CHAIN, [0]).order == ()


def test_where_it_does_not_pay_the_network_is_run_in_the_plain_way(monkeypatch):
    net, x = large()
    increment = reference_increment(net, {"x": x}, ["dense"])
    labels = np.zeros((24, 20), int)
    labels[2:6, 3:7], labels[::5, ::5] = 1, 2
    small, wide = [1, 0, 1], [1, 1, 0]
    assert increment.pays(Labelled(labels, np.array([small])))
    assert not increment.pays(Labelled(labels, np.array([wide])))
    plain = []
    whole = ReferenceArrays.whole
    monkeypatch.setattr(
        ReferenceArrays, "whole", lambda self, b: plain.append(len(b)) or whole(self, b)
    )
    kept = np.array([wide, small, wide, *[small] * 12, [1, 1, 1]])
    batch = Blended(x[0], Labelled(labels, kept), np.zeros(3))
    assert increment.pays(batch.masks)
    (found,) = increment.run(batch)
    assert plain == [2]  # the others in windows, and every one at its place
    assert_close(found, whole(ReferenceArrays(net, {"x": x}, ["dense"]), batch)[0])
    increment.run(batch[:1])
    assert plain == [2, 1]


def test_in_single_precision_it_is_as_exact_as_the_plain_way():
    net, x = large()
    x = x.astype(np.float32) * 50 + 300  # so that differences of large values count
    form = WindowMasks(Windows.over((24, 20), 5, 2)).form(0, 40)
    batch = Blended(x[0], form, np.zeros(3, np.float32))
    (found,) = reference_increment(net, {"x": x}, ["dense"]).run(batch)
    exact = reference_increment(net, {"x": x.astype(np.float64)}, ["dense"])
    assert isinstance(exact, Increment)
    (expected,) = exact.run(batch.astype(np.float64))
    assert found.dtype == np.float32
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()
    assert math.isfinite(expected.max())


def test_explainers_score_masks_as_ever():
    net, x = large()
    plain, quick = (make(net, "float64") for make in (ReferenceModel, IncrementalReference))
    rng = np.random.default_rng(1)
    kept = 1.0 - (np.arange(12) == rng.integers(0, 12, (20, 1)))  # one segment taken away
    bands = np.arange(480).reshape(24, 20) // 40
    for sample in (x[0], x[0][::-1]):  # the values of the first are of no use to the second
        for masks in (
            WindowMasks(Windows.over((24, 20), 5, 3)),
            SegmentMasks(bands, kept),
            SegmentMasks(bands, rng.random((9, 12))),
        ):
            found, expected = (
                score_masked(
                    model, sample, [ClassScore(2)], masks, Fixed(np.full(3, 0.5)), batch_size=16
                )
                for model in (quick, plain)
            )
            assert_close(found, expected)
    batch = Blended(x[0], Drawn(np.zeros((2, 24, 20))), np.ones(3))
    looked = quick.forward(batch, capture=["b"], replace={"ra": np.cos})
    assert_close(
        looked["b"], plain.forward(np.asarray(batch), capture=["b"], replace={"ra": np.cos})["b"]
    )
