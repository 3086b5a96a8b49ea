"""Signals and volumes through the front door."""

from __future__ import annotations

import base64
import dataclasses
import io
import pickle
import re

import numpy as np
import pytest
from PIL import Image

import cnnviz
from cnnviz.explanation import Explanation
from cnnviz.pages import render_report
from cnnviz.preprocess import Geometry
from cnnviz.sheets import sheet
from cnnviz_core.errors import ArrayError, CnnvizError, ParameterError
from cnnviz_core.explainer import Presentation
from cnnviz_core.registry import get_registry
from cnnviz_core.targets import ClassScore, Predicted
from cnnviz_core.testing.nets import NETS, random_input
from cnnviz_core.testing.reference import ReferenceModel
from support.methods import bearable

METHODS = list(get_registry().explainers)
KINDS = ("signal", "volume")
SIZES = {"signal": (41,), "volume": (7, 8, 6)}
AMBER = (255, 176, 0)


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    return request.param


def case(kind, n=2):
    """A network and a batch for it."""
    net = NETS[kind]()
    return ReferenceModel(net), random_input(net, n)[kind]


@pytest.fixture(scope="module")
def explained(kind):
    """One explanation by the grid of a layer, and one of single values."""
    model, x = case(kind)
    return [cnnviz.explain(model, x, m, preprocessed=True) for m in ("grad-cam", "saliency")]


def made(map, sample=None, **changes):
    """An explanation of one signal or volume with a given map, which is its raw result too."""
    map = np.asarray(map, np.float32)[None]
    size = map.shape[1:]
    if sample is None:
        sample = np.zeros((*size, 2)) if len(size) == 1 else np.zeros((*size, 3), np.uint8)
    given = {
        "maps": map,
        "raw": map,
        "targets": (ClassScore(0),),
        "target_labels": ("class 0",),
        "method": "grad-cam",
        "geometry": (Geometry.identity(size),),
        "pictures": (sample,),
        "names": ("sample 0",),
        "status": ("ok",),
    }
    return Explanation(**{**given, **changes})


@pytest.mark.parametrize("method", METHODS)
def test_the_front_door_adds_nothing_to_the_explainer(kind, method):
    model, x = case(kind)
    small = bearable(method)
    explainer = get_registry().explainer(method, **small)
    try:
        direct = explainer.explain(model, x, [Predicted()] * 2)
    except CnnvizError as error:
        with pytest.raises(type(error)):
            cnnviz.explain(model, x, method, preprocessed=True, **small)
        return
    e = cnnviz.explain(model, x, method, preprocessed=True, **small)
    np.testing.assert_array_equal(e.raw, direct.raw)
    assert e.maps.shape == (2, *SIZES[kind])
    assert e.fine == (e.raw.shape[:-1] == x.shape[:-1] and e.raw.ndim == x.ndim)
    assert e.kind == kind
    for i in range(2):
        heat = e.heatmap(i)
        assert heat.shape == SIZES[kind]
        assert np.abs(heat).max() <= 1
        np.testing.assert_array_equal(e.heatmap(i, normalise=False), e.maps[i])


def test_a_signal_of_three_axes_is_not_taken_for_a_picture(explained, kind):
    """A raw result (N, L, C) is fine though it has as many axes as (N, h, w)."""
    coarse, fine = explained
    assert not coarse.fine
    assert fine.fine
    assert coarse.raw.ndim == len(SIZES[kind]) + 1
    assert fine.raw.ndim == len(SIZES[kind]) + 2


def test_what_is_saved_loads_back_equal(explained, tmp_path):
    for e in explained:
        assert Explanation.load(e.save(tmp_path / "e.npz")) == e
        assert pickle.loads(pickle.dumps(e)) == e
        assert e[1] == list(e)[1]


def test_the_sample_is_kept_to_be_drawn(kind):
    model, x = case(kind)
    e = cnnviz.explain(model, x, preprocessed=True)
    if kind == "signal":
        np.testing.assert_array_equal(e.pictures[1], x[1])
    else:
        assert e.pictures[1].dtype == np.uint8
        assert e.pictures[1].shape == (*SIZES[kind], 3)
        assert (e.pictures[1].min(), e.pictures[1].max()) == (0, 255)
        assert (e.pictures[1] == e.pictures[1][..., :1]).all()


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
def test_saving_as_a_picture(explained, tmp_path, suffix):
    for e in explained:
        with Image.open(e.save(tmp_path / f"two.{suffix}")) as image:
            assert image.width > 800
        with Image.open(e[0].save(tmp_path / f"one.{suffix}")) as image:
            assert image.size == e[0].overlay().size
            if suffix == "png":
                assert np.array_equal(np.asarray(image), np.asarray(e[0].overlay()))


def test_notebooks_show_it(explained):
    for e in explained:
        assert e._repr_png_().startswith(b"\x89PNG")
        assert e[0]._repr_png_().startswith(b"\x89PNG")
        assert e._repr_html_().count("<img") == 2


def test_the_heat_changes_the_drawing(explained):
    for e in explained:
        with_heat, without = np.asarray(e.overlay()), np.asarray(e.overlay(alpha=0))
        assert (with_heat != without).any(-1).mean() > 0.05
        assert (np.asarray(e.overlay(colours="viridis")) != with_heat).any()


def test_a_map_that_shows_nothing_is_marked(explained):
    for e in explained:
        marked = dataclasses.replace(e, status=("ok", "all-zero"))
        assert (np.asarray(marked.overlay(1)) == AMBER).all(-1).any()
        assert not (np.asarray(marked.overlay(0)) == AMBER).all(-1).any()
        assert marked.note(1) in render_report({"a": marked})


def test_to_xarray(explained, kind):
    pytest.importorskip("xarray", reason="xarray is not installed")
    axes = {"signal": ("position",), "volume": ("z", "y", "x")}[kind]
    grid = {"signal": ("step",), "volume": ("slice", "row", "column")}[kind]
    coarse, fine = (e.to_xarray() for e in explained)
    assert coarse["maps"].dims == fine["maps"].dims == ("sample", *axes)
    assert coarse["raw"].dims == ("sample", *grid)
    assert fine["raw"].dims == ("sample", *axes, "channel")
    assert np.array_equal(fine["raw"].values, explained[1].raw)


def test_the_same_result_can_be_shown_in_another_way(explained, kind):
    shown = explained[1].shown(sign="signed", reduce="sum")
    np.testing.assert_allclose(shown.maps, explained[1].raw.sum(-1), rtol=1e-5, atol=1e-7)
    assert shown.maps.shape == (2, *SIZES[kind])
    assert shown.heatmap().min() < 0


# Boxes.


def test_intervals_of_signals():
    map = np.zeros(20)
    map[3:7], map[12], map[15:17] = 1, 0.9, 0.1
    e = made(map)
    assert e.boxes()[0].tolist() == [[3, 7]]
    assert e.boxes(largest=False)[0].tolist() == [[3, 7], [12, 13]]
    assert e.boxes(0.05, largest=False)[0].tolist() == [[3, 7], [15, 17], [12, 13]]
    assert made(map, status=("all-zero",)).boxes()[0].shape == (0, 2)
    assert (np.asarray(e.overlay(boxes=True)) != np.asarray(e.overlay())).any()


def test_volumes_have_no_boxes(tmp_path):
    e = made(np.ones((3, 4, 5)))
    for ask in (
        e.boxes,
        lambda: e.overlay(boxes=True),
        lambda: e.save(tmp_path / "e.png", boxes=True),
        lambda: sheet({"a": e}, boxes=True),
    ):
        with pytest.raises(ParameterError, match=r"volumes[\s\S]*heatmap\(\) >"):
            ask()
    assert not list(tmp_path.iterdir())


# Volumes.


def test_a_volume_is_cut_where_it_is_hottest():
    map = np.zeros((4, 5, 6))
    map[1, 3, 2], map[3, 0, 4] = 1, -2
    assert made(map).focus() == (3, 0, 4)
    assert made(map, status=("all-zero",)).focus() == (2, 2, 3)
    positive = made(np.maximum(map, 0))
    assert positive.focus() == (1, 3, 2)
    sample = np.random.default_rng(0).integers(0, 256, (4, 5, 6, 3), dtype=np.uint8)
    moved = np.zeros((4, 5, 6))
    moved[0, 0, 0] = 1
    one = made(np.maximum(map, 0), sample).scene().ground
    assert one.tobytes() != made(moved, sample).scene().ground.tobytes()


def test_of_pictures_the_focus_is_a_pixel(network, picture):
    e = cnnviz.explain(network, picture)
    heat = e.heatmap(normalise=False)
    assert heat[e.focus()] == heat.max()
    with pytest.raises(ParameterError, match="overlay"):
        e.scene()


# Sheets and pages.


def pictures_in(text):
    """The pictures that are in a page."""
    found = re.findall(r"data:image/(?:png|jpeg);base64,([A-Za-z0-9+/=]+)", text)
    return [Image.open(io.BytesIO(base64.b64decode(content))) for content in found]


def test_a_page_of_a_signal_has_its_boxes_where_the_heat_is():
    map = np.zeros(20)
    map[5:10] = 1
    e = made(map)
    text = render_report({"grad-cam": e})
    box = re.search(r'class="box" x="(\d+)" y="(\d+)" width="(\d+)" height="(\d+)"', text)
    x, y, width, height = (int(v) for v in box.groups())
    layer = next(image for image in pictures_in(text) if image.mode == "RGBA")
    opaque = np.asarray(layer)[..., 3] > 0
    rows, columns = np.flatnonzero(opaque.any(1)), np.flatnonzero(opaque.any(0))
    assert abs(np.array([x, x + width]) - [columns[0], columns[-1] + 1]).max() <= 1
    assert [y, y + height] == [rows[0], rows[-1] + 1]
    assert f'viewBox="0 0 {layer.width} {layer.height}"' in text
    assert "20 positions, 2 channels" in text


def test_a_page_of_volumes_shows_each_method_its_own_slices():
    one, other = np.zeros((4, 5, 6)), np.zeros((4, 5, 6))
    one[0, 1, 2], other[3, 4, 5] = 1, 1
    sample = np.random.default_rng(0).integers(0, 256, (4, 5, 6, 3), dtype=np.uint8)
    text = render_report({"a": made(one, sample), "b": made(other, sample)})
    # The volume and its two cuts, each with a layer of heat.
    found = pictures_in(text)
    assert [image.mode for image in found].count("RGB") == 3
    assert len({image.tobytes() for image in found if image.mode == "RGB"}) == 3
    assert "4 × 5 × 6" in text
    assert 'id="boxes"' not in text
    assert "<rect" not in text


@pytest.mark.parametrize("many", [False, True])
def test_several_methods_side_by_side(kind, many, tmp_path):
    model, x = case(kind)
    methods = None if many else ["grad-cam", "saliency", "occlusion"]
    c = cnnviz.compare(model, x[:1] if many else x, methods, preprocessed=True)
    assert set(c) | set(c.skipped) == set(METHODS if many else methods)
    for method in ("grad-cam", "saliency"):
        given = cnnviz.explain(model, x[: len(c[method])], method, preprocessed=True)
        np.testing.assert_allclose(c[method].raw, given.raw, rtol=1e-5, atol=1e-6)
    c.save(tmp_path / "c.html")
    c.save(tmp_path / "c.png")
    page = (tmp_path / "c.html").read_text(encoding="utf-8")
    assert page.count('class="heat"') == len(c) * len(c["grad-cam"])
    assert f"<figcaption>{kind}</figcaption>" in page
    assert kind in page


# What does not fit.


def told(model, x, **named):
    with pytest.raises(ArrayError) as info:
        cnnviz.explain(model, x, **{"preprocessed": True, **named})
    return info.value


def test_a_network_on_pictures_says_so_when_it_is_given_something_else(network):
    for shape in ((2, 41, 3), (1, 7, 8, 6, 2), (41,)):
        error = told(network, np.zeros(shape))
        assert str(shape) in error.problem
        assert "(N, 12, 9, 3)" in error.expected
        assert error.remedy == "pass pictures: that is what the network takes"
    assert "x[None]" in told(network, np.zeros((12, 9, 3))).remedy


def test_networks_on_signals_and_volumes_say_what_they_take(kind):
    model, x = case(kind)
    form = ", ".join(map(str, ("N", *x.shape[1:])))
    error = told(model, np.zeros((2, 12, 9, 3)))
    assert f"({form})" in error.expected
    assert error.remedy == f"pass {kind}s: that is what the network takes"
    assert "x[None]" in told(model, x[0]).remedy
    assert "NaN" in told(model, x * np.nan).problem
    pixels = np.zeros((30, 30, 3), np.uint8)
    error = told(model, pixels, preprocessed=False)
    assert "takes no pictures" in error.problem
    assert error.remedy == "pass it to cnnviz.explain with preprocessed=True"


def test_parts_of_another_rank_do_not_fit():
    e = made(np.ones(5))
    with pytest.raises(ArrayError, match="signals"):
        dataclasses.replace(e, raw=np.ones((1, 2, 3, 4)))
    with pytest.raises(ArrayError, match="signals"):
        dataclasses.replace(e, maps=np.ones(1), raw=np.ones(1))
    with pytest.raises(ArrayError, match="geometry of sample 0"):
        dataclasses.replace(e, geometry=(Geometry.identity((6,)),))


def test_the_presentation_of_a_raw_result_follows_its_rank():
    raw = np.zeros((1, 4, 3), np.float32)
    raw[0, 2] = 1, -5, 2
    e = made(np.zeros(4), raw=raw, presentation=Presentation(sign="absolute"))
    assert e.fine
    np.testing.assert_array_equal(e.shown(reduce="max-abs").maps, [[0, 0, 5, 0]])
