"""The inspector of receptive fields."""

from __future__ import annotations

import numpy as np
import pytest

from cnnviz_core.errors import ArrayError, MissingCapabilityError, UnknownLayerError
from cnnviz_core.exhibits import Gallery, Table
from cnnviz_core.inputs import OneInput
from cnnviz_core.inspector import ArrayPictures, Subject
from cnnviz_core.netspec import NetSpec, Op
from cnnviz_core.pixels import PixelSpace
from cnnviz_core.registry import get_registry
from cnnviz_core.testing.explainers import Offering
from cnnviz_core.testing.nets import NETS
from cnnviz_core.testing.reference import ReferenceModel


def inspect(net, pictures=0, **params):
    model = ReferenceModel(NETS[net]() if isinstance(net, str) else net, "float64")
    shape = next(iter(model.inputs.values())).shape
    x = np.random.default_rng(0).uniform(size=(pictures, *shape))
    subject = Subject(model, ArrayPictures(x), PixelSpace.identity(shape[-1]), shape, name="net")
    return get_registry().inspector("receptive-fields", **params).inspect(subject)


def shown(found):
    gallery, table = found.exhibits
    assert isinstance(gallery, Gallery)
    assert isinstance(table, Table)
    return gallery, table


def test_the_numbers_are_those_of_the_layers():
    found = inspect("plain")
    assert found.facts["layers"] == ["conv1", "relu1", "pool1", "conv2", "relu2"]
    assert found.facts["grids"] == [[12, 9], [12, 9], [6, 4], [6, 4], [6, 4]]
    assert found.facts["by means"] == found.facts["not understood"] == []
    np.testing.assert_array_equal(found.arrays["sizes"], [[k, k] for k in (3, 3, 4, 8, 8)])
    np.testing.assert_array_equal(found.arrays["strides"], [[k, k] for k in (1, 1, 2, 2, 2)])
    np.testing.assert_array_equal(found.arrays["offsets"], [[-k, -k] for k in (1, 1, 1, 3, 3)])
    np.testing.assert_array_equal(found.arrays["boxes"][-1], [[3, 11], [1, 9]])
    np.testing.assert_allclose(found.arrays["shares"][-1], 64 / 108)


def test_the_table_leaves_out_what_only_hands_on():
    _, table = shown(inspect("plain"))
    assert [row[0] for row in table.rows] == ["conv1", "pool1", "conv2"]
    assert table.rows[2] == ("conv2", "conv", "6 × 4", "8", "2", "-3", "59.3%")
    assert set(table.numeric) == set(table.columns[2:])
    _, table = shown(inspect("plain", every=True))
    assert [row[0] for row in table.rows] == ["conv1", "relu1", "pool1", "conv2", "relu2"]


def test_sizes_that_differ_by_axis_are_told():
    weight = np.ones((1, 5, 3, 2))
    attrs = {"stride": (1, 2), "padding": ((0, 0), (2, 2))}
    net = NetSpec(
        {"image": (6, 8, 3)},
        (Op("conv", "conv", ("image",), attrs=attrs), Op("gap", "gap", ("conv",))),
        {"conv.weight": weight},
    )
    _, table = shown(inspect(net))
    assert table.rows == (("conv", "conv", "6 × 4", "1 × 5", "1 × 2", "0 × -2", "10.4%"),)


def test_fields_are_drawn_on_the_pictures():
    gallery, _ = shown(inspect("plain", 2))
    assert gallery.row_titles == ("picture 1", "picture 2")
    for row in gallery.rows:
        assert [tile.boxes for tile in row[1:]] == [((3, 5, 6, 8),), ((1, 3, 9, 11),)]
        assert row[0].boxes == ((3, 5, 6, 8), (1, 3, 9, 11))
        assert [tile.caption for tile in row[1:]] == ["relu1: 3 px, 8.3%", "relu2: 8 px, 59.3%"]
    assert not np.array_equal(gallery.rows[0][0].pixels, gallery.rows[1][0].pixels)


def test_without_a_picture_they_are_drawn_on_grey():
    gallery, _ = shown(inspect("plain"))
    ((first, *_),) = gallery.rows
    assert first.pixels.shape == (12, 9, 3)
    assert np.unique(first.pixels).size == 1
    assert gallery.row_titles == ()


def test_layers_can_be_chosen():
    found = inspect("residual", layer="conv1*,bn2b")
    assert found.facts["layers"] == ["conv1a", "conv1b", "bn2b"]
    gallery, table = shown(found)
    assert len(table.rows) == 3
    assert len(gallery.rows[0]) == 4
    with pytest.raises(UnknownLayerError, match="conv1a"):
        inspect("residual", layer="conv1c")


@pytest.mark.parametrize(("name", "axes"), [("signal", 1), ("volume", 3)])
def test_signals_and_volumes_have_a_table(name, axes):
    found = inspect(name)
    (table,) = found.exhibits
    assert isinstance(table, Table)
    assert found.arrays["boxes"].shape == (len(found.facts["layers"]), axes, 2)


def test_of_several_inputs_the_one_that_is_looked_at_counts():
    model = OneInput(ReferenceModel(NETS["two_inputs"]()), "image", {"vector": np.zeros((1, 4))})
    subject = Subject(model, ArrayPictures(np.empty(0)), PixelSpace.identity(3), (8, 10, 3))
    found = get_registry().inspector("receptive-fields").inspect(subject)
    assert found.facts["layers"] == ["conv", "relu1"]


def test_networks_that_do_not_tell_their_geometry_are_refused():
    model = ReferenceModel(NETS["plain"]())
    mute = Offering(model, model.capabilities - {"geometry"})
    subject = Subject(mute, ArrayPictures(np.empty(0)), PixelSpace.identity(3), (12, 9, 3))
    with pytest.raises(MissingCapabilityError, match="geometry"):
        get_registry().inspector("receptive-fields").inspect(subject)


def test_pictures_that_cannot_be_read_are_reported():
    class Unreadable(ArrayPictures):
        def read(self, index):
            return None

    model = ReferenceModel(NETS["plain"]())
    x = np.zeros((2, 12, 9, 3), np.float32)
    subject = Subject(model, Unreadable(x), PixelSpace.identity(3), (12, 9, 3))
    with pytest.raises(ArrayError, match="no picture can be read"):
        get_registry().inspector("receptive-fields").inspect(subject)
