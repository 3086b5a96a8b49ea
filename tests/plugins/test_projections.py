"""Projections against a plain loop: one activation, one backward pass, one crop at a time."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from cnnviz_core.errors import (
    ArrayError,
    MissingCapabilityError,
    ParameterError,
    RuleError,
    UnknownLayerError,
)
from cnnviz_core.explainer import require
from cnnviz_core.inspector import ArrayPictures, Subject
from cnnviz_core.layers import on_grid, stages
from cnnviz_core.model import INPUT
from cnnviz_core.pixels import PixelSpace
from cnnviz_core.preprocessing import Preprocessing
from cnnviz_core.progress import listening
from cnnviz_core.receptive import receptive_field
from cnnviz_core.registry import get_registry
from cnnviz_core.rules import DECONVNET, GUIDED, STANDARD
from cnnviz_core.testing.explainers import Offering
from cnnviz_core.testing.inspectors import parametrize_with_checks
from cnnviz_core.testing.nets import NETS
from cnnviz_core.testing.reference import ReferenceModel
from cnnviz_features.projections import Projections

N = 7
SPACE = PixelSpace.of(Preprocessing(mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.25), channels="BGR"))
RULES = {"deconvnet": DECONVNET, "guided": GUIDED, "gradient": STANDARD}
GREY = 128


def subject_of(name="plain", n=N, seed=2, space=SPACE, batch_size=4, needs=None):
    net = NETS[name]()
    (shape,) = net.inputs.values()
    model = ReferenceModel(net, "float64")
    colours = np.random.default_rng(seed).uniform(size=(n, *shape[:2], space.colours))
    return Subject(
        model if needs is None else Offering(model, needs),
        ArrayPictures(space.to_input(colours)),
        space,
        shape,
        name=name,
        batch_size=batch_size,
    )


def look(subject, **params):
    return get_registry().inspector("projections", **params).inspect(subject)


def whole_projection(subject, layer, channel, picture, position, rule):
    """Project one activation, alone."""
    model, x = subject.model, subject.pictures.x[picture][None]
    value = model.forward(x, capture=[layer])[layer]
    one = np.zeros_like(value)
    one[(0, *position, channel)] = value[(0, *position, channel)]
    gradient = model.pullback(x, one, of=layer, rule=rule).gradients[INPUT][0]
    return gradient @ subject.space.matrix.T


def each(found, layer):
    """Go through the activations that are shown: channel, which, and their arrays."""
    names = [name for name in found.arrays if name.startswith(f"{layer}/")]
    part = {name.removeprefix(f"{layer}/"): found.arrays[name] for name in names}
    for c, channel in enumerate(part["channels"]):
        for t in range(part["values"].shape[1]):
            yield int(channel), {name: a[c, t] for name, a in part.items() if name != "channels"}


# Of each layer the first pixel that position 0 sees, the step, and the size of the field, by hand:
# (rows, columns).  Where the field is larger than the picture, the window is the picture.
FIELDS = {
    ("plain", "relu1"): ((-1, -1), (1, 1), (3, 3)),
    ("plain", "pool1"): ((-1, -1), (2, 2), (4, 4)),
    ("plain", "conv2"): ((-3, -3), (2, 2), (8, 8)),
    ("plain", "relu2"): ((-3, -3), (2, 2), (8, 8)),
    ("strided", "relu1"): ((0, -1), (2, 2), (3, 3)),
    ("strided", "pool1"): ((-2, -1), (2, 2), (7, 7)),
    ("depthwise", "relu1"): ((0, 0), (1, 1), (1, 1)),
    ("depthwise", "bn2"): ((0, 0), (2, 2), (3, 3)),
    ("residual", "r0"): ((-1, -1), (2, 2), (3, 3)),
    ("residual", "bn1b"): ((-5, -5), (2, 2), (11, 11)),
}


def node_of(model, layer):
    """Give the layer's node: a rectifier that is called several times is named by its calls."""
    return layer if layer in model.layers else "relu@0"


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(("name", "layer"), FIELDS)
def test_projections_are_a_plain_loop(name, layer, rule):
    subject = subject_of(name)
    (low_y, low_x), (step_y, step_x), field = FIELDS[name, layer]
    layer = node_of(subject.model, layer)
    rows, columns = size = subject.shape[:2]
    found = look(subject, layer=layer, rule=rule, top=5)
    h, w = (min(a, b) for a, b in zip(field, size, strict=True))
    values = on_grid(
        subject.model.forward(subject.pictures.x, capture=[layer])[layer],
        subject.model.layers[layer],
    )
    seen = 0
    for channel, one in each(found, layer):
        at = tuple(one["positions"])
        np.testing.assert_allclose(
            one["values"], values[(one["pictures"], *at, channel)], rtol=1e-12
        )
        assert np.isclose(one["values"], values[one["pictures"], ..., channel].max())
        expected = whole_projection(subject, layer, channel, one["pictures"], at, RULES[rule])
        pixels = subject.space.pixels(subject.pictures.x[one["pictures"]])
        # A canvas with the picture in its middle, as wide around as any field reaches.
        margin = 20
        projected = np.pad(expected, ((margin, margin), (margin, margin), (0, 0)))
        y, x = at[0] * step_y + low_y, at[1] * step_x + low_x
        box = (max(x, 0), max(y, 0), min(x + field[1], columns), min(y + field[0], rows))
        np.testing.assert_array_equal(one["boxes"], box)
        canvas = np.full((rows + 2 * margin, columns + 2 * margin, 3), GREY, dtype=np.uint8)
        inside = (slice(box[1], box[3]), slice(box[0], box[2]))
        canvas[margin:-margin, margin:-margin][inside] = pixels[inside]
        top = margin + (y if field[0] <= rows else 0)
        left = margin + (x if field[1] <= columns else 0)
        window = (slice(top, top + h), slice(left, left + w))
        np.testing.assert_array_equal(one["crops"], canvas[window])
        np.testing.assert_allclose(
            one["projections"], projected[window], rtol=1e-9, atol=1e-12 * np.abs(expected).max()
        )
        seen += np.abs(expected).max() > 0
    assert seen


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("plain", ("conv1", "pool1", "relu2")),
        ("strided", ("pool1", "relu2", "pool2")),
        ("residual", ("conv1b", "relu@2")),
        ("depthwise", ("relu1", "bn3", "relu3")),
        ("branches", ("stem", "right")),
    ],
)
def test_nothing_of_a_projection_lies_outside_of_what_is_seen(name, layers, rule):
    subject = subject_of(name, n=3)
    found = look(subject, layer=",".join(layers), rule=rule, count=3)
    assert tuple(found.facts["layers"]) == layers
    for layer in layers:
        used = {"standard": STANDARD}.get(found.facts["layers"][layer]["rule"], RULES[rule])
        for channel, one in each(found, layer):
            at = tuple(one["positions"])
            whole = whole_projection(subject, layer, channel, one["pictures"], at, used)
            x0, y0, x1, y1 = one["boxes"]
            total = np.abs(whole[y0:y1, x0:x1]).sum()
            np.testing.assert_allclose(np.abs(one["projections"]).sum(), total, rtol=1e-9)
            whole[y0:y1, x0:x1] = 0
            assert not whole.any()


@pytest.mark.parametrize("rule", RULES)
def test_tokens_are_projected_from_their_places(rule):
    subject = subject_of("tokens")
    found = look(subject, layer="add", rule=rule, top=3, count=8)
    columns = subject.model.layers["add"].grid[1]
    for channel, one in each(found, "add"):
        row, column = one["positions"]
        token = (row * columns + column,)
        expected = whole_projection(subject, "add", channel, one["pictures"], token, RULES[rule])
        np.testing.assert_array_equal(
            one["boxes"], (3 * column, 3 * row, 3 * column + 3, 3 * row + 3)
        )
        x0, y0, x1, y1 = one["boxes"]
        np.testing.assert_allclose(
            one["projections"], expected[y0:y1, x0:x1], rtol=1e-9, atol=1e-13
        )


def test_a_network_without_geometry_is_cropped_to_the_projections():
    needs = Projections().needs
    assert "geometry" not in needs
    bare, told = subject_of(needs=needs), subject_of()
    found, exact = (look(subject, layer="relu2", top=4, count=8) for subject in (bare, told))
    assert found.facts["layers"]["relu2"]["cropped to"] == "the projection"
    assert exact.facts["layers"]["relu2"]["cropped to"] == "the receptive field"
    extents = []
    for (channel, one), (_, other) in zip(each(found, "relu2"), each(exact, "relu2"), strict=True):
        at = tuple(one["positions"])
        expected = whole_projection(told, "relu2", channel, one["pictures"], at, DECONVNET)
        x0, y0, x1, y1 = one["boxes"]
        rows, columns = np.nonzero(expected.any(-1))
        if len(rows):
            box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            np.testing.assert_array_equal(one["boxes"], box)
            assert (np.array(box)[:2] >= other["boxes"][:2]).all()
            assert (np.array(box)[2:] <= other["boxes"][2:]).all()
        else:
            np.testing.assert_array_equal(one["boxes"], (0, 0, 9, 12))
        extents.append((y1 - y0, x1 - x0))
        # The box lies in the middle of the window.
        h, w = one["crops"].shape[:2]
        top, left = (h - (y1 - y0)) // 2, (w - (x1 - x0)) // 2
        pixels = told.space.pixels(told.pictures.x[one["pictures"]])
        crop = np.full((h, w, 3), GREY)
        crop[top : top + y1 - y0, left : left + x1 - x0] = pixels[y0:y1, x0:x1]
        np.testing.assert_array_equal(one["crops"], crop)
        np.testing.assert_allclose(np.abs(one["projections"]).sum(), np.abs(expected).sum())
    assert found.arrays["relu2/crops"].shape[2:4] == tuple(np.max(extents, axis=0))


# ------------------------------------------------------------------------------ rules


def test_before_any_rectifier_all_rules_are_the_gradient():
    subject = subject_of()
    found = {rule: look(subject, layer="conv1, relu1", rule=rule, top=3) for rule in RULES}
    for rule in RULES:
        assert found[rule].facts["layers"]["conv1"]["rule"] == "standard"
        assert found[rule].facts["layers"]["relu1"]["rule"] == RULES[rule].name
        np.testing.assert_array_equal(
            found[rule].arrays["conv1/projections"], found["gradient"].arrays["conv1/projections"]
        )
    weight = subject.model.parameters("conv1")["weight"]
    for channel, one in each(found["deconvnet"], "conv1"):
        x0, y0, x1, y1 = one["boxes"]
        if (x1 - x0, y1 - y0) == (3, 3):
            kernel = weight[..., channel] @ SPACE.matrix.T
            np.testing.assert_allclose(one["projections"], one["values"] * kernel, rtol=1e-9)


def test_the_rules_differ_behind_rectifiers():
    subject = subject_of()
    found = [look(subject, layer="relu2", rule=rule).arrays["relu2/projections"] for rule in RULES]
    for i, one in enumerate(found):
        for other in found[i + 1 :]:
            assert not np.allclose(one, other)


class Silent(ArrayPictures):
    """Pictures of which only one may be read."""

    def batches(self, size, start=0):
        assert size == 1, "the search was begun"
        return super().batches(size, start)


@pytest.mark.parametrize("layer", ["auto", "silu1", "conv1, conv2"])
def test_a_network_without_rectifiers_is_refused_before_the_search(layer):
    subject = subject_of("swish")
    silent = replace(subject, pictures=Silent(subject.pictures.x))
    with pytest.raises(RuleError, match="would change nothing"):
        look(silent, layer=layer)
    look(subject, layer=layer, rule="gradient")


def test_the_gradient_needs_no_rule():
    assert Projections(rule="gradient").needs == {"capture", "gradient"}
    assert Projections().needs == get_registry().inspector_spec("projections").needs
    model = subject_of(needs={"capture", "gradient"}).model
    look(subject_of(needs={"capture", "gradient"}), rule="gradient")
    require(Projections(rule="gradient").needs, model, "projections")
    with pytest.raises(MissingCapabilityError, match="needs rule:relu"):
        require(Projections().needs, model, "projections")


# ------------------------------------------------------------------------------ what is shown


def test_channels_are_shown_in_the_order_in_which_they_are_named():
    found = look(subject_of(), layer="relu2", channels="5, 0,5,7", top=2)
    assert found.arrays["relu2/channels"].tolist() == [5, 0, 7]
    assert found.arrays["relu2/values"].shape == (3, 2)
    assert list(found.facts["layers"]["relu2"]["pictures"]) == ["5", "0", "7"]


@pytest.mark.parametrize("channels", ["8", "-1", "one", "1.5", "0,99"])
def test_channels_that_there_are_not_are_refused(channels):
    with pytest.raises(ParameterError, match=r"names none of layer 'relu2'[^0]*from 0 to 7"):
        look(subject_of(), layer="relu2", channels=channels)


def test_the_most_excited_channels_come_first_and_not_all_of_one_picture():
    subject = subject_of()
    everything = look(subject, layer="relu2", channels="0,1,2,3,4,5,6,7").arrays
    values = everything["relu2/values"][:, 0]
    pictures = everything["relu2/pictures"][:, 0]
    assert len(set(pictures)) < 8
    order = sorted(range(8), key=lambda c: -values[c])
    first = [c for k, c in enumerate(order) if pictures[c] not in pictures[order[:k]]]
    expected = first + [c for c in order if c not in first]
    for count in (1, 3, 8, 20):
        found = look(subject, layer="relu2", count=count).arrays["relu2/channels"]
        assert found.tolist() == expected[:count]


def test_auto_is_the_last_layer_of_each_resolution():
    found = look(subject_of(), top=2)
    assert list(found.facts["layers"]) == ["relu1", "relu2"]
    assert [gallery.title.split(":")[0] for gallery in found.exhibits] == ["relu1", "relu2"]
    with pytest.raises(UnknownLayerError, match="no spatial grid"):
        look(subject_of(), layer="fc")


def test_auto_looks_behind_no_rectifier_that_cuts_activations_off():
    subject = subject_of("strided", n=30)
    assert "relu1" in [info.name for info in stages(subject.model.layers)]
    found = look(subject)
    assert next(iter(found.facts["layers"])) == "conv1"
    assert len(np.unique(found.arrays["conv1/values"])) == found.arrays["conv1/values"].size
    faint = replace(subject, pictures=ArrayPictures(subject.pictures.x * 0.1))
    assert next(iter(look(faint).facts["layers"])) == "relu1"


@pytest.mark.parametrize("rule", RULES)
def test_before_and_behind_a_rectifier_that_cuts_nothing_off_all_is_the_same(rule):
    subject = subject_of()
    before, behind = (look(subject, layer=layer, rule=rule) for layer in ("conv2", "relu2"))
    active = behind.arrays["relu2/values"] > 0
    assert active.any(1).all()
    for part in ("values", "pictures", "positions", "crops", "projections"):
        np.testing.assert_array_equal(
            before.arrays[f"conv2/{part}"][active], behind.arrays[f"relu2/{part}"][active]
        )


def test_the_gallery_shows_squares_side_by_side():
    found = look(subject_of(), layer="relu1", count=5, top=7)
    (gallery,) = found.exhibits
    assert [len(row) for row in gallery.rows] == [4, 4, 4]
    assert gallery.rows[2][2:] == (None, None)
    assert gallery.column_titles == ("projections", "crops") * 2
    assert gallery.note.startswith("The crop of an activation is all that it sees")
    assert "3 x 3 pixels" in gallery.note
    channels, values = found.arrays["relu1/channels"], found.arrays["relu1/values"]
    tiles = [tile for row in gallery.rows for tile in row if tile is not None]
    for c, (projected, cropped) in enumerate(zip(tiles[::2], tiles[1::2], strict=True)):
        told = f"channel {channels[c]}: {values[c, 0]:.3g} to {values[c, -1]:.3g}"
        assert (projected.caption, cropped.caption) == (told, "")
        assert projected.pixels.shape == cropped.pixels.shape == (339, 339, 3)
        for t in range(7):
            y, x = t // 3 * 114, t % 3 * 114
            crop, drawn = (
                tile.pixels[y : y + 111, x : x + 111][18::37, 18::37]
                for tile in (cropped, projected)
            )
            np.testing.assert_array_equal(crop, found.arrays["relu1/crops"][c, t])
            shade = drawn.astype(float) - 127.5
            assert (shade * found.arrays["relu1/projections"][c, t] >= 0).all()
            assert np.abs(shade).max() > 120
        assert (projected.pixels[228:, 114:] == 255).all()  # there are seven


@pytest.mark.parametrize(
    ("name", "layer", "rule", "told"),
    [
        ("plain", "conv1", "deconvnet", True),
        ("plain", "relu1", "deconvnet", True),
        ("plain", "conv2", "deconvnet", False),
        ("plain", "conv2", "guided", False),
        ("depthwise", "relu3", "deconvnet", True),
        ("depthwise", "relu3", "guided", False),
        ("depthwise", "relu3", "gradient", False),
    ],
)
def test_it_is_said_where_nothing_below_remembers_the_picture(name, layer, rule, told):
    subject = subject_of(name)
    found = look(subject, layer=layer, rule=rule, top=4)
    assert ("No max pool lies below" in found.exhibits[0].note) == told
    if told:  # of one channel all are alike where they lie within the picture
        inner = {}
        for channel, one in each(found, layer):
            x0, y0, x1, y1 = one["boxes"]
            if (y1 - y0, x1 - x0) == one["crops"].shape[:2]:
                inner.setdefault(channel, []).append(one["projections"] / one["values"])
        alike = [group for group in inner.values() if len(group) > 1]
        assert alike
        for group in alike:
            np.testing.assert_allclose(group, np.broadcast_to(group[0], np.shape(group)), 1e-9)


def test_it_is_said_where_activations_are_cut_off():
    subject = subject_of("strided", n=30)
    capped, before = (look(subject, layer=layer, top=2).exhibits[0] for layer in ("relu1", "conv1"))
    assert "the layer before it tells" in capped.note
    assert capped.rows[0][0].caption.endswith(": 6 to 6")
    assert "the layer before it tells" not in before.note


def test_large_crops_are_shrunk_to_be_shown():
    import cnnviz_features.projections as module

    large = np.full((2, 300, 200, 3), 0.25)
    assert module._sized(large).shape == (2, 112, 75, 3)
    np.testing.assert_allclose(module._sized(large), 0.25)
    assert module._sized(large[:, :80, :30]).shape == (2, 80, 30, 3)
    assert module._sized(large[:, :50, :30]).shape == (2, 100, 60, 3)


def test_a_channel_that_is_never_active_is_grey():
    net = NETS["plain"]()
    bias = net.parameters["conv2.bias"].copy()
    bias[3] = -1e3
    dead = ReferenceModel(
        replace(net, parameters={**net.parameters, "conv2.bias": bias}), "float64"
    )
    for model in (dead, Offering(dead, Projections().needs)):
        found = look(replace(subject_of(), model=model), layer="relu2", channels="3", top=2)
        assert not found.arrays["relu2/projections"].any()
        np.testing.assert_array_equal(found.exhibits[0].rows[0][0].pixels[:40, :40], GREY)


def test_grey_pictures_have_projections_of_one_colour():
    from cnnviz_core.netspec import NetSpec, Op

    rng = np.random.default_rng(0)
    net = NetSpec(
        {"image": (8, 7, 1)},
        (
            Op("conv", "conv", ("image",)),
            Op("relu", "relu", ("conv",)),
            Op("gap", "gap", ("relu",)),
        ),
        {"conv.weight": rng.normal(size=(3, 3, 1, 4)), "conv.bias": rng.normal(size=4)},
        "grey",
    )
    x = rng.uniform(size=(3, 8, 7, 1))
    subject = Subject(
        ReferenceModel(net, "float64"), ArrayPictures(x), PixelSpace.identity(1), (8, 7, 1)
    )
    found = look(subject, layer="relu", top=2, count=4)
    assert found.arrays["relu/projections"].shape == (4, 2, 3, 3, 1)
    assert found.arrays["relu/crops"].shape == (4, 2, 3, 3, 3)


def test_facts_are_json_and_name_the_pictures():
    subject = subject_of()
    names = tuple(f"{k}.png" for k in range(N))
    named = replace(subject, pictures=ArrayPictures(subject.pictures.x, names))
    found = look(named, layer="relu2", channels="4", top=3)
    facts = json.loads(json.dumps(dict(found.facts)))
    (told,) = facts["layers"]["relu2"]["pictures"].values()
    assert told == [names[i] for i in found.arrays["relu2/pictures"][0]]
    field = receptive_field(subject.model, "relu2")
    assert facts["layers"]["relu2"]["receptive field"] == {
        "size": list(field.size),
        "stride": [2.0, 2.0],
        "exact": True,
    }


# ------------------------------------------------------------------------------ the search


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_batches_of_any_size_give_the_same(batch_size):
    one, other = (
        look(subject_of(batch_size=size), layer="relu1, relu2", per_picture=2)
        for size in (batch_size, 4)
    )
    for name, array in other.arrays.items():
        np.testing.assert_allclose(one.arrays[name], array, rtol=1e-9, atol=1e-13, err_msg=name)


def test_a_stopped_search_goes_on_from_its_state(tmp_path):
    class Stopped(Exception):
        pass

    def stop(what, done, total):
        if what.startswith("projections"):
            raise Stopped

    state = str(tmp_path / "search.npz")
    with listening(stop), pytest.raises(Stopped):
        look(subject_of(), state=state)
    told = []
    with listening(lambda what, done, total: told.append((what, done, total))):
        found = look(subject_of(), state=state)
    assert {what for what, _, _ in told} == {"projections, relu1", "projections, relu2"}
    assert told[-1][1] == told[-1][2]
    for name, array in look(subject_of()).arrays.items():
        np.testing.assert_array_equal(found.arrays[name], array)
    with pytest.raises(ParameterError, match="state of another search"):
        look(subject_of(), state=state, top=3)


def test_pictures_that_are_gone_after_the_search_are_reported():
    class Going(ArrayPictures):
        reads = 0

        def read(self, index):
            Going.reads += 1
            return self.x[index] if Going.reads <= N + 1 else None

    subject = subject_of()
    with pytest.raises(ArrayError, match="could be read by the search"):
        look(replace(subject, pictures=Going(subject.pictures.x)), layer="relu2")


@pytest.mark.parametrize("name", ["signal", "volume"])
def test_signals_and_volumes_are_refused(name):
    net = NETS[name]()
    (shape,) = net.inputs.values()
    x = np.zeros((2, *shape))
    subject = replace(
        subject_of(), model=ReferenceModel(net), pictures=ArrayPictures(x), shape=shape
    )
    with pytest.raises(ArrayError, match=r"pictures \(N, H, W, C\)"):
        look(subject)


@parametrize_with_checks(
    [
        Projections(),
        Projections(layer="relu2", channels="3,1", top=2, rule="guided"),
        Projections(layer="conv1, pool1, relu2", rule="gradient", per_picture=5, count=2),
    ]
)
def test_the_checks(inspector, check):
    check(inspector)
