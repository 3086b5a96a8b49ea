"""Feature maps against a forward pass, and what is shown of them."""

from __future__ import annotations

import numpy as np
import pytest

from cnnviz_core.errors import ArrayError, ParameterError, UnknownLayerError
from cnnviz_core.exhibits import Curves
from cnnviz_core.inspector import ArrayPictures, Subject
from cnnviz_core.layers import on_grid
from cnnviz_core.netspec import NetSpec, Op
from cnnviz_core.pixels import PixelSpace
from cnnviz_core.preprocessing import Preprocessing
from cnnviz_core.registry import get_registry
from cnnviz_core.testing.inspectors import parametrize_with_checks
from cnnviz_core.testing.nets import NETS, random_input
from cnnviz_core.testing.reference import ReferenceModel
from cnnviz_features.features import FeatureMaps

NAMES = ("ant.png", "bee.png", "cat.png")


def case(name="plain", n=3, space=None, **more):
    net = NETS[name]()
    (x,) = random_input(net, n, 5).values()
    x = x.astype("float64")
    space = space or PixelSpace.identity(x.shape[-1])
    pictures = ArrayPictures(x, NAMES[:n])
    return Subject(ReferenceModel(net, "float64"), pictures, space, x.shape[1:], **more)


def values_of(subject, layer):
    model = subject.model
    values = model.forward(subject.pictures.x, capture=(layer,))[layer]
    return on_grid(values, model.layers[layer])


def inspect(subject, **params):
    return get_registry().inspector("features", **params).inspect(subject)


def tiles(gallery):
    return [tile for row in gallery.rows for tile in row if tile is not None]


@parametrize_with_checks(
    [FeatureMaps(), FeatureMaps("conv1", order="energy", common=True), FeatureMaps(channel=2)]
)
def test_it_passes_the_checks_of_the_kit(inspector, check):
    check(inspector)


# ------------------------------------------------------------------------------ the numbers


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("plain", "conv1"),
        ("plain", "pool1"),
        ("residual", "relu@1"),
        ("depthwise", "depthwise"),
        ("branches", "concat"),
        ("tokens", "add"),
        ("signal", "relu2"),
        ("volume", "relu1"),
    ],
)
@pytest.mark.parametrize("order", ["mean", "max", "energy", "index"])
@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_maps_are_those_of_a_forward_pass(name, layer, order, batch_size):
    subject = case(name, batch_size=batch_size)
    values = values_of(subject, layer)
    found = inspect(subject, layer=layer, order=order, count=4)
    assert found.arrays["maps"].shape == (*values.shape[:-1], 4)
    for value, maps, chosen in zip(
        values, found.arrays["maps"], found.arrays["channels"], strict=True
    ):
        np.testing.assert_allclose(maps, value[..., chosen], rtol=1e-12)
    assert found.facts["shape"] == list(values.shape[1:])
    assert found.facts["signed"] == bool((values < 0).any())


@pytest.mark.parametrize(
    ("order", "strength"),
    [("mean", np.mean), ("max", np.max), ("energy", lambda m: np.mean(m * m))],
)
@pytest.mark.parametrize("layer", ["conv1", "relu1"])
def test_maps_come_in_the_order_of_their_strength(order, strength, layer):
    subject = case()
    found = inspect(subject, layer=layer, order=order, count=6).arrays
    for n, value in enumerate(values_of(subject, layer)):
        strengths = [strength(value[..., c]) for c in range(6)]
        assert found["channels"][n].tolist() == sorted(range(6), key=lambda c: -strengths[c])
        np.testing.assert_allclose(found["strength"][n], sorted(strengths)[::-1], rtol=1e-12)


def test_by_index_maps_come_as_they_are_numbered():
    found = inspect(case(), layer="relu1", order="index", count=4).arrays
    assert found["channels"].tolist() == [[0, 1, 2, 3]] * 3
    np.testing.assert_allclose(found["strength"], found["maps"].mean((1, 2)), rtol=1e-12)


def test_of_equal_maps_the_lower_channel_comes_first():
    net = NETS["plain"]()
    weight = np.array(net.parameters["conv1.weight"])
    weight[..., 4] = weight[..., 1]
    bias = np.array(net.parameters["conv1.bias"])
    bias[4] = bias[1]
    changed = {**net.parameters, "conv1.weight": weight, "conv1.bias": bias}
    model = ReferenceModel(NetSpec(net.inputs, net.ops, changed), "float64")
    x = case().pictures.x
    subject = Subject(model, ArrayPictures(x), PixelSpace.identity(3), x.shape[1:])
    for channels in inspect(subject, layer="conv1").arrays["channels"].tolist():
        assert channels.index(4) == channels.index(1) + 1


def test_common_channels_are_the_strongest_over_all_pictures():
    subject = case()
    found = inspect(subject, layer="relu1", common=True, count=3).arrays
    overall = values_of(subject, "relu1").mean((0, 1, 2))
    assert found["channels"].tolist() == [np.argsort(-overall)[:3].tolist()] * 3
    own = inspect(subject, layer="relu1", count=3).arrays["channels"].tolist()
    assert own != found["channels"].tolist()


def test_left_out_the_layer_is_the_last_with_a_grid():
    assert inspect(case()).facts["layer"] == "relu2"


def test_all_maps_are_shown_where_there_are_fewer_than_asked_for():
    found = inspect(case(), layer="conv1", count=99)
    assert found.arrays["channels"].shape == (3, 6)
    assert found.exhibits[0].title == "ant.png: all 6 maps, the largest mean first"


# ------------------------------------------------------------------------------ what is seen


@pytest.mark.parametrize("normalise", ["map", "joint"])
@pytest.mark.parametrize("layer", ["conv1", "relu1"])
def test_each_picture_has_a_sheet_that_begins_with_it(normalise, layer):
    space = PixelSpace.of(Preprocessing(size=(12, 9), channels="BGR", scale=1 / 64, mean=(2.0,)))
    subject = case(space=space)
    found = inspect(subject, layer=layer, count=5, normalise=normalise)
    maps = found.arrays["maps"]
    assert len(found.exhibits) == 3
    for n, gallery in enumerate(found.exhibits):
        first, *shown = tiles(gallery)
        np.testing.assert_array_equal(first.pixels, space.pixels(subject.pictures.x[n]))
        assert (first.caption, first.heat) == (NAMES[n], None)
        for k, tile in enumerate(shown):
            top = np.abs(maps if normalise == "joint" else maps[n, ..., k]).max()
            np.testing.assert_allclose(tile.heat, maps[n, ..., k] / top, rtol=1e-12)
            assert tile.signed == (layer == "conv1")
            flat = maps[n, ..., k].ravel()
            strongest = flat[np.abs(flat).argmax()]
            assert tile.caption == f"{found.arrays['channels'][n, k]}: {strongest:.3g}"


def test_a_map_of_zeros_is_shown_as_such():
    subject = case()
    model = ReferenceModel(
        NetSpec(
            {"image": (12, 9, 3)},
            (Op("conv1", "conv", ("image",)), Op("relu1", "relu", ("conv1",))),
            {"conv1.weight": np.ones((1, 1, 3, 2))},
        )
    )
    dark = ArrayPictures(np.full((1, 12, 9, 3), -1.0, dtype=np.float32))
    found = inspect(Subject(model, dark, subject.space, subject.shape), layer="relu1")
    assert all((tile.heat == 0).all() for tile in tiles(found.exhibits[0])[1:])


def test_one_channel_is_shown_over_each_picture():
    subject = case()
    found = inspect(subject, layer="relu1", channel=4)
    assert found.arrays["channels"].tolist() == [[4], [4], [4]]
    (gallery,) = found.exhibits
    for n, (picture, over) in enumerate(gallery.rows):
        np.testing.assert_array_equal(over.pixels, picture.pixels)
        expected = values_of(subject, "relu1")[n, ..., 4]
        np.testing.assert_allclose(over.heat, expected / expected.max(), rtol=1e-12)


def test_signals_are_curves():
    subject = case("signal", n=2)
    found = inspect(subject, layer="relu1", count=3)
    signals, maps = found.exhibits[::2], found.exhibits[1::2]
    assert all(isinstance(exhibit, Curves) for exhibit in found.exhibits)
    for n in range(2):
        for c, line in enumerate(signals[n].lines):
            np.testing.assert_array_equal(line.y, subject.pictures.x[n, :, c])
        for k, line in enumerate(maps[n].lines):
            assert line.name == f"map {found.arrays['channels'][n, k]}"
            np.testing.assert_array_equal(line.y, found.arrays["maps"][n, :, k])
        # The map's twenty positions are stretched over the signal's forty-one.
        assert len(maps[n].x) == 20
        np.testing.assert_allclose(np.diff(maps[n].x), 41 / 20)
        np.testing.assert_allclose(maps[n].x.mean(), signals[n].x.mean())


def test_of_many_maps_of_a_signal_eight_are_drawn():
    found = inspect(case("signal", n=1), layer="relu3", count=8)
    assert len(found.exhibits[1].lines) == 8
    assert found.arrays["maps"].shape[-1] == 8


def test_of_volumes_the_middle_slice_is_shown():
    subject = case("volume", n=1)
    found = inspect(subject, layer="relu1", count=2)
    picture, *shown = tiles(found.exhibits[0])
    grey = subject.pictures.x[0, 3].mean(-1)
    grey = (grey - grey.min()) / (grey.max() - grey.min())
    np.testing.assert_array_equal(picture.pixels[..., 0], np.rint(grey * 255))
    maps = found.arrays["maps"][0]
    for k, tile in enumerate(shown):
        middle = maps[len(maps) // 2, ..., k]
        np.testing.assert_allclose(tile.heat, middle / maps[..., k].max(), rtol=1e-12)
    assert found.exhibits[0].note.endswith("The middle slice of each.")


# ------------------------------------------------------------------------------ what is refused


def test_a_layer_without_a_grid_is_refused():
    with pytest.raises(UnknownLayerError, match="'fc' has no spatial grid"):
        inspect(case(), layer="fc")


def test_a_channel_that_does_not_exist_is_refused():
    with pytest.raises(ParameterError, match="channel=6 is out of range"):
        inspect(case(), layer="conv1", channel=6)


@pytest.mark.parametrize("params", [{"count": 0}, {"order": "size"}, {"channel": -1}])
def test_wrong_parameters_are_refused(params):
    with pytest.raises(ParameterError):
        inspect(case(), **params)


def test_without_a_picture_there_is_nothing_to_see():
    with pytest.raises(ArrayError, match="no picture"):
        inspect(case(n=0))
