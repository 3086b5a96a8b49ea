"""The kernels of convolutions: their colours against the network's own responses."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cnnviz_core.errors import ParameterError, UnknownLayerError
from cnnviz_core.exhibits import Curves, Gallery
from cnnviz_core.inspector import ArrayPictures, Subject
from cnnviz_core.netspec import NetSpec, Op
from cnnviz_core.pixels import PixelSpace
from cnnviz_core.preprocessing import Preprocessing
from cnnviz_core.registry import get_registry
from cnnviz_core.testing.inspectors import parametrize_with_checks
from cnnviz_core.testing.nets import NETS
from cnnviz_core.testing.reference import ReferenceModel
from cnnviz_features._sheets import sheet
from cnnviz_features.filters import Filters

CAFFE = Preprocessing(size=(4, 5), channels="BGR", scale=1.0, mean=(103.9, 116.8, 123.7))
SCALED = Preprocessing(size=(4, 5), scale=1 / 255, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))


def one_convolution(weight, grid=None, groups=1):
    """Make a network of a single convolution, without padding."""
    *kernel, c_in, c_out = weight.shape
    shape = (*(grid or kernel), c_in * groups)
    ops = (
        Op("conv", "conv", ("image",), attrs={"groups": groups}),
        Op("gap", "gap", ("conv",)),
    )
    net = NetSpec({"image": shape}, ops, {"conv.weight": weight})
    return ReferenceModel(net, "float64"), c_out


def of_network(model, space=None, **more):
    shape = next(iter(model.inputs.values())).shape
    space = space or PixelSpace.identity(shape[-1])
    return Subject(model, ArrayPictures(np.empty(0)), space, shape, **more)


def of_net(name, dtype="float64", **more):
    return of_network(ReferenceModel(NETS[name](), dtype), **more)


def weights(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def inspect(subject, **params):
    return get_registry().inspector("filters", **params).inspect(subject)


def tiles(found):
    (gallery,) = found.exhibits
    return [tile for row in gallery.rows for tile in row if tile is not None]


@parametrize_with_checks([Filters(), Filters("conv2", order="norm"), Filters(normalise="min-max")])
def test_it_passes_the_checks_of_the_kit(inspector, check):
    check(inspector)


# ------------------------------------------------------------------------------ in colours


@pytest.mark.parametrize("how", [CAFFE, SCALED], ids=["BGR", "scaled"])
def test_a_filter_is_what_a_colour_at_a_place_changes_in_the_response(how):
    model, _ = one_convolution(weights(4, 5, 3, 2))
    space = PixelSpace.of(how)
    black = np.zeros((1, 4, 5, 3))
    without = model.forward(space.to_input(black)).output[0]
    found = inspect(of_network(model, space)).arrays["filters"]
    for place in np.ndindex(4, 5, 3):
        lit = black.copy()
        lit[0][place] = 1
        change = model.forward(space.to_input(lit)).output[0] - without
        np.testing.assert_allclose(found[:, *place], change, rtol=1e-10)


@pytest.mark.parametrize("how", [CAFFE, SCALED], ids=["BGR", "scaled"])
@pytest.mark.parametrize("normalise", ["filter", "joint", "min-max"])
def test_a_preprocessing_moved_into_the_weights_changes_no_picture(how, normalise):
    weight = weights(3, 3, 3, 6)
    space = PixelSpace.of(how)
    inside, _ = one_convolution(np.einsum("kc,hwcf->hwkf", space.matrix, weight))
    outside, _ = one_convolution(weight)
    plain = inspect(of_network(inside), normalise=normalise)
    prepared = inspect(of_network(outside, space), normalise=normalise)
    for name in ("filters", "shown"):
        np.testing.assert_allclose(prepared.arrays[name], plain.arrays[name], rtol=1e-12)
    for one, other in zip(tiles(prepared), tiles(plain), strict=True):
        np.testing.assert_array_equal(one.pixels, other.pixels)


def test_a_filter_that_answers_to_red_is_red_whatever_the_order_of_the_channels():
    weight = np.zeros((3, 3, 3, 1))
    weight[1, 1, 2] = 0.01  # the last channel of BGR
    model, _ = one_convolution(weight)
    (tile,) = tiles(inspect(of_network(model, PixelSpace.of(CAFFE))))
    assert tile.pixels[1, 1].tolist() == [255, 128, 128]
    assert (np.delete(tile.pixels.reshape(9, 3), 4, axis=0) == 128).all()


def test_grey_pictures_have_grey_filters():
    model, _ = one_convolution(weights(3, 3, 1, 4))
    space = PixelSpace.of(Preprocessing(size=(3, 3), channels="L", scale=1 / 255))
    found = inspect(of_network(model, space))
    assert found.arrays["filters"].shape == (4, 3, 3, 1)
    for tile in tiles(found):
        assert (tile.pixels == tile.pixels[..., :1]).all()


def test_grey_pictures_shown_to_a_network_of_colours_have_grey_filters():
    weight = weights(3, 3, 3, 4)
    space = PixelSpace([[1.0, 2.0, 3.0]], np.zeros(3))
    found = inspect(of_network(one_convolution(weight)[0], space)).arrays["filters"]
    expected = weight[..., 0, :] + 2 * weight[..., 1, :] + 3 * weight[..., 2, :]
    np.testing.assert_allclose(found[..., 0], np.moveaxis(expected, -1, 0), rtol=1e-12)


# ------------------------------------------------------------------------------ how they are shown


@pytest.mark.parametrize("normalise", ["filter", "joint", "min-max"])
def test_shown_is_scaled_as_asked(normalise):
    found = inspect(of_net("plain"), normalise=normalise).arrays
    kernels, shown = found["filters"], found["shown"]
    for kernel, drawn in zip(kernels, shown, strict=True):
        if normalise == "min-max":
            expected = (kernel - kernel.min()) / (kernel.max() - kernel.min())
        else:
            expected = kernel / np.abs(kernel if normalise == "filter" else kernels).max()
        np.testing.assert_allclose(drawn, expected, rtol=1e-12)


def test_of_signed_kernels_mid_grey_is_zero():
    found = inspect(of_net("plain"))
    for tile, drawn in zip(tiles(found), found.arrays["shown"], strict=True):
        np.testing.assert_array_equal(tile.pixels, np.rint((drawn + 1) / 2 * 255))


@pytest.mark.parametrize("normalise", ["filter", "joint", "min-max"])
def test_a_filter_of_zeros_is_mid_grey(normalise):
    found = inspect(of_network(one_convolution(np.zeros((3, 3, 3, 2)))[0]), normalise=normalise)
    assert all((tile.pixels == 128).all() for tile in tiles(found))


def test_by_index_filters_come_as_they_are_numbered():
    found = inspect(of_net("plain"), count=4)
    assert found.arrays["channels"].tolist() == [0, 1, 2, 3]
    assert [tile.caption for tile in tiles(found)] == ["0", "1", "2", "3"]


def test_by_norm_the_largest_come_first_and_of_equals_the_lower():
    sizes = np.array([1.0, 3.0, 2.0, 3.0])
    model, _ = one_convolution(weights(2, 2, 3, 1) * sizes)
    found = inspect(of_network(model), order="norm", count=3).arrays
    assert found["channels"].tolist() == [1, 3, 2]
    norms = [np.linalg.norm(model.parameters("conv")["weight"][..., f]) for f in range(4)]
    np.testing.assert_allclose(found["norms"], norms, rtol=1e-12)


def test_filters_without_weight_are_said_to_be_dead():
    model, _ = one_convolution(weights(3, 3, 3, 4) * np.array([1.0, 1e-5, 1.0, 0.0]))
    found = inspect(of_network(model))
    assert found.facts["dead"] == [1, 3]
    assert [tile.caption for tile in tiles(found)] == ["0", "1, dead", "2", "3, dead"]
    assert found.exhibits[0].note.endswith("of the largest norm: 1, 3.")
    assert inspect(of_net("plain")).facts["dead"] == []


def test_a_batch_norm_behind_is_not_folded_in():
    model = ReferenceModel(NETS["residual"](), "float64")
    found = inspect(of_network(model)).arrays
    weight = np.moveaxis(model.parameters("stem")["weight"], -1, 0)
    np.testing.assert_array_equal(found["kernels"], weight)
    np.testing.assert_array_equal(found["filters"], weight)


# ------------------------------------------------------------------------------ further inside


@pytest.mark.parametrize("order", ["index", "norm"])
def test_a_deeper_kernel_has_its_filters_in_rows_and_their_inputs_in_columns(order):
    model = ReferenceModel(NETS["plain"](), "float64")
    weight = model.parameters("conv2")["weight"]
    found = inspect(of_network(model), layer="conv2", count=3, inputs=4, order=order)
    rows, columns = np.arange(3), np.arange(4)
    if order == "norm":
        rows = np.argsort(-np.linalg.norm(weight.reshape(-1, 8), axis=0))[:3]
        columns = np.argsort(-np.linalg.norm(np.moveaxis(weight, 2, 0).reshape(6, -1), axis=1))[:4]
    assert found.arrays["channels"].tolist() == rows.tolist()
    assert found.arrays["inputs"].tolist() == columns.tolist()
    (gallery,) = found.exhibits
    assert gallery.row_titles == tuple(f"filter {r}" for r in rows)
    assert gallery.column_titles == tuple(f"input {c}" for c in columns)
    for f, row in zip(rows, gallery.rows, strict=True):
        top = np.abs(weight[..., columns, f]).max()
        for c, tile in zip(columns, row, strict=True):
            assert tile.signed
            np.testing.assert_allclose(tile.heat, weight[..., c, f] / top, rtol=1e-12)


def test_a_depthwise_kernel_has_a_tile_for_each_channel():
    model = ReferenceModel(NETS["depthwise"](), "float64")
    found = inspect(of_network(model), layer="depthwise", normalise="joint")
    weight = model.parameters("depthwise")["weight"][..., 0, :]
    assert [tile.caption for tile in tiles(found)] == [str(f) for f in range(12)]
    for f, tile in enumerate(tiles(found)):
        np.testing.assert_allclose(tile.heat, weight[..., f] / np.abs(weight).max(), rtol=1e-12)


def test_a_grouped_kernel_that_sees_the_picture_has_no_colours():
    model, _ = one_convolution(weights(2, 2, 1, 6), groups=3)
    found = inspect(of_network(model))
    assert found.facts["sees_picture"]
    assert found.arrays["inputs"].tolist() == [0]
    assert all(tile.heat is not None for tile in tiles(found))


def test_kernels_of_signals_are_curves():
    model = ReferenceModel(NETS["signal"](), "float64")
    found = inspect(of_network(model), count=2)
    weight = model.parameters("conv1")["weight"]
    assert len(found.exhibits) == 2
    for f, curves in enumerate(found.exhibits):
        assert isinstance(curves, Curves)
        top = np.abs(weight[..., f]).max()
        for c, line in enumerate(curves.lines):
            np.testing.assert_allclose(line.y, weight[:, c, f] / top, rtol=1e-12)


def test_kernels_of_volumes_are_laid_out_slice_by_slice():
    model = ReferenceModel(NETS["volume"](), "float64")
    found = inspect(of_network(model), layer="conv2", count=1, normalise="joint")
    weight = model.parameters("conv2")["weight"][..., :, 0]
    (gallery,) = found.exhibits
    assert gallery.column_titles[:3] == ("input 0, slice 0", "input 0, slice 1", "input 1, slice 0")
    shown = [tile.heat for tile in gallery.rows[0]]
    expected = [weight[d, ..., c] / np.abs(weight).max() for c in range(4) for d in range(2)]
    np.testing.assert_allclose(shown, expected, rtol=1e-12)


# ------------------------------------------------------------------------------ which layer


@pytest.mark.parametrize(
    ("name", "layer"),
    [("plain", "conv1"), ("residual", "stem"), ("depthwise", "expand"), ("tokens", "patches")],
)
def test_left_out_the_layer_is_the_first_that_sees_the_picture(name, layer):
    facts = inspect(of_net(name)).facts
    assert facts["layer"] == layer
    assert facts["sees_picture"]


def test_of_a_layer_called_several_times_the_kernels_are_shown_once():
    weight = weights(3, 3, 3, 3)
    attrs = {"padding": ((1, 1), (1, 1))}
    ops = (
        Op("a", "conv", ("image",), layer="conv", attrs=attrs),
        Op("b", "conv", ("a",), layer="conv", attrs=attrs),
        Op("gap", "gap", ("b",)),
    )
    model = ReferenceModel(NetSpec({"image": (5, 6, 3)}, ops, {"conv.weight": weight}), "float64")
    found = inspect(of_network(model), layer="conv").arrays["filters"]
    np.testing.assert_array_equal(found, np.moveaxis(weight, -1, 0))


@pytest.mark.parametrize("layer", ["relu1", "fc", "-1", "pool1"])
def test_a_layer_without_kernels_is_refused(layer):
    with pytest.raises(UnknownLayerError, match=r"(?s)has no kernels.*'conv1', 'conv2'"):
        inspect(of_net("plain"), layer=layer)


def test_a_network_without_a_convolution_is_refused():
    ops = (Op("flat", "flatten", ("image",)), Op("fc", "linear", ("flat",)))
    net = NetSpec({"image": (2, 2, 3)}, ops, {"fc.weight": weights(12, 2)})
    subject = of_network(ReferenceModel(net))
    with pytest.raises(UnknownLayerError, match="no convolution of the network"):
        inspect(subject)
    with pytest.raises(UnknownLayerError, match="a network with convolutions"):
        inspect(subject, layer="fc")


@pytest.mark.parametrize("params", [{"count": 0}, {"inputs": 0}, {"order": "size"}])
def test_wrong_parameters_are_refused(params):
    with pytest.raises(ParameterError):
        inspect(of_net("plain"), **params)


# ------------------------------------------------------------------------------ sheets


@pytest.mark.parametrize(
    ("n", "rows", "columns"),
    [(1, 1, 1), (32, 4, 8), (36, 6, 6), (64, 8, 8), (96, 8, 12), (7, 3, 3)],
)
def test_a_sheet_is_about_square_and_full_where_it_can_be(n, rows, columns):
    (tile,) = tiles(inspect(of_net("plain"), count=1))
    laid = sheet([replace(tile, caption=str(k)) for k in range(n)])
    assert (len(laid), {len(row) for row in laid}) == (rows, {columns})
    shown = [cell.caption for row in laid for cell in row if cell is not None]
    assert shown == [str(k) for k in range(n)]


def test_a_sheet_of_colours_is_a_gallery_with_numbers():
    (gallery,) = inspect(of_net("plain")).exhibits
    assert isinstance(gallery, Gallery)
    assert gallery.title == "All 6 filters of 3 x 3"
    assert gallery.note == "Mid-grey is zero. Each filter by its own largest weight."
