"""Feature inversion against closed solutions, and layer by layer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio

import cnnviz
import cnnviz.demo
from cnnviz.preprocess import prepare
from cnnviz_core.errors import ArrayError, ParameterError, TargetError, UnknownLayerError
from cnnviz_core.inspector import ArrayPictures, Subject
from cnnviz_core.netspec import NetSpec, Op
from cnnviz_core.pixels import PixelSpace, as_pixels
from cnnviz_core.preprocessing import Preprocessing
from cnnviz_core.progress import listening
from cnnviz_core.registry import get_registry
from cnnviz_core.testing.inspectors import parametrize_with_checks
from cnnviz_core.testing.nets import NETS, random_input
from cnnviz_core.testing.reference import ReferenceModel
from cnnviz_features.inversion import Inversion

SPACE = PixelSpace.of(Preprocessing(scale=1 / 255, mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3)))
FREE = {"tv": 0.0, "norm": 0.0, "parameterisation": "pixel", "rate": 0.1}


def subject(net="plain", n=2, space=SPACE, **more):
    net = NETS[net]() if isinstance(net, str) else net
    (shape,) = net.inputs.values()
    colours = np.random.default_rng(3).uniform(0.2, 0.8, size=(n, *shape[:2], space.colours))
    model = ReferenceModel(net, "float64")
    return Subject(model, ArrayPictures(space.to_input(colours)), space, shape, **more)


def invert(seen, **params):
    return get_registry().inspector("inversion", **params).inspect(seen)


def pointwise(weight, bias):
    """A network of one 1 x 1 convolution, and a rectifier behind it."""
    ops = (
        Op("conv", "conv", ("image",)),
        Op("relu", "relu", ("conv",)),
        Op("gap", "gap", ("relu",)),
    )
    arrays = {"conv.weight": weight[None, None], "conv.bias": bias}
    return NetSpec({"image": (6, 5, len(weight))}, ops, arrays, "pointwise")


IDENTITY = pointwise(np.eye(3), np.zeros(3))


@parametrize_with_checks(
    [
        Inversion(steps=3),
        Inversion(steps=2, layer="conv1, fc", parameterisation="pixel", restarts=2, frames=1),
    ]
)
def test_the_conformance_kit(inspector, check):
    check(inspector)


# ------------------------------------------------------------------------------ closed solutions


def test_a_layer_that_keeps_all_gives_the_picture_back():
    rng = np.random.default_rng(1)
    rows = np.linalg.qr(rng.normal(size=(4, 3)))[0].T  # no direction of colour is nearly lost
    seen = subject(pointwise(rows, rng.normal(size=4)))
    found = invert(seen, layer="conv", steps=400, **FREE)
    colours = seen.space.to_colours(seen.pictures.x)
    np.testing.assert_allclose(found.arrays["inverted"][0], colours, atol=2e-4)
    assert (found.arrays["error"] < 1e-4).all()
    assert (found.arrays["psnr"] > 75).all()
    assert (found.arrays["correlation"] > 0.9999).all()


def test_with_the_norm_alone_the_solution_is_nearer_to_grey():
    # The derivative 2 (c - c0) / S + 4 norm (2 c - 1) / n, where S = |c0|^2, is 0.
    seen = subject(IDENTITY, space=PixelSpace.identity(3), n=1)
    given = seen.pictures.x
    found = invert(seen, layer="conv", steps=400, **{**FREE, "norm": 0.7}, alpha=2.0)
    s, n = np.square(given).sum(), given.size
    expected = (given / s + 2 * 0.7 / n) / (1 / s + 4 * 0.7 / n)
    np.testing.assert_allclose(found.arrays["inverted"][0], expected, atol=1e-4)


def test_with_the_variation_alone_the_solution_is_smoother():
    # With the power 2 the condition is linear: (1 / S + tv / n L) c = c0 / S, L the Laplacian.
    seen = subject(IDENTITY, space=PixelSpace.identity(3), n=1)
    given = seen.pictures.x[0]
    found = invert(seen, layer="conv", steps=400, **{**FREE, "tv": 1.3})
    places = list(np.ndindex(6, 5))
    laplacian = np.zeros((30, 30))
    for i, (y, x) in enumerate(places):
        for j, (v, u) in enumerate(places):
            if abs(y - v) + abs(x - u) == 1:
                laplacian[i, i] += 1
                laplacian[i, j] -= 1
    s, n = np.square(given).sum(), given.size
    solved = np.linalg.solve(np.eye(30) / s + 1.3 / n * laplacian, given.reshape(30, 3) / s)
    np.testing.assert_allclose(
        found.arrays["inverted"][0, 0], solved.reshape(given.shape), atol=1e-4
    )


def test_powers_of_the_priors():
    seen = subject(n=1)
    plain = invert(seen, layer="conv1", steps=40)
    for params in ({"alpha": 2.0, "norm": 1.0}, {"beta": 1.0}):
        other = invert(seen, layer="conv1", steps=40, **params)
        assert np.abs(other.arrays["inverted"] - plain.arrays["inverted"]).max() > 1e-3
    flat = invert(seen, layer="conv1", steps=40, tv=1e4)
    assert flat.arrays["inverted"].std((1, 2, 3)).max() < 0.01
    grey = invert(seen, layer="conv1", steps=40, norm=1e4, alpha=2.0, tv=0.0)
    np.testing.assert_allclose(grey.arrays["inverted"], 0.5, atol=0.02)


# ------------------------------------------------------------------------------ what is measured


@pytest.mark.parametrize("kind", ["fourier", "pixel"])
@pytest.mark.parametrize("name", ["plain", "residual", "depthwise"])
def test_the_error_falls(name, kind):
    found = invert(subject(name), steps=60, parameterisation=kind)
    history = found.arrays["history"]
    assert (history[..., -1] < 0.5 * history[..., 0]).all()
    assert (found.arrays["error"] < 1.05 * history[..., -1]).all()


def test_measures_are_their_formulas():
    seen = subject()
    found = invert(seen, layer="conv1, relu2", steps=5)
    assert found.facts["layers"] == ["conv1", "relu2"]
    colours = seen.space.to_colours(seen.pictures.x)
    np.testing.assert_allclose(found.arrays["picture"], colours, rtol=1e-12)
    for k, layer in enumerate(("conv1", "relu2")):
        for i in range(2):
            inverted = found.arrays["inverted"][k, i]
            both = seen.space.to_input(np.stack([colours[i], inverted]))
            a, b = seen.model.forward(both, capture=(layer,))[layer]
            error = np.linalg.norm(b - a) / np.linalg.norm(a)
            np.testing.assert_allclose(found.arrays["error"][k, i], error, rtol=1e-9)
            ratio = peak_signal_noise_ratio(colours[i], inverted, data_range=1)
            np.testing.assert_allclose(found.arrays["psnr"][k, i], ratio, rtol=1e-9)
            correlation = np.corrcoef(colours[i].ravel(), inverted.ravel())[0, 1]
            np.testing.assert_allclose(found.arrays["correlation"][k, i], correlation, rtol=1e-9)


def test_a_picture_of_one_colour_correlates_with_nothing():
    seen = subject(space=PixelSpace.identity(3), n=1)
    seen = replace(seen, pictures=ArrayPictures(np.full_like(seen.pictures.x, 0.25)))
    assert invert(seen, layer="conv1", steps=2).arrays["correlation"].tolist() == [[0.0]]


def test_deeper_layers_lose_more():
    net = cnnviz.load("demo", backend="numpy")
    picture, _ = next(iter(cnnviz.demo.scenes()))
    x = prepare(picture, net.preprocessing)[0][None]
    seen = Subject(
        net.model, ArrayPictures(x), PixelSpace.of(net.preprocessing), x.shape[1:], name="demo"
    )
    found = invert(seen, steps=12, rate=0.1)
    assert len(found.facts["layers"]) >= 3
    assert (np.diff(found.arrays["psnr"][:, 0]) < 0).all(), found.arrays["psnr"]
    assert (np.diff(found.arrays["correlation"][:, 0]) < 0).all(), found.arrays["correlation"]


# ------------------------------------------------------------------------------ what else there is


def test_each_layer_is_inverted_by_itself():
    seen = subject()
    together = invert(seen, layer="relu2, conv1", steps=4)
    assert together.facts["layers"] == ["conv1", "relu2"]
    for k, layer in enumerate(together.facts["layers"]):
        alone = invert(seen, layer=layer, steps=4)
        np.testing.assert_array_equal(
            together.arrays["inverted"][k], alone.arrays["inverted"][0], err_msg=layer
        )


def test_auto_is_one_layer_of_each_resolution():
    assert invert(subject(), steps=1).facts["layers"] == ["relu1", "relu2"]


def test_a_layer_without_a_grid():
    found = invert(subject(), layer="fc", steps=80)
    assert (found.arrays["error"] < 0.05).all()


def test_of_several_beginnings_the_best_is_kept():
    seen = subject()
    params = {"layer": "relu2", "steps": 15}
    once = invert(seen, **params).arrays["error"]
    often = [invert(seen, restarts=r, **params).arrays["error"] for r in (2, 3, 5)]
    for more, fewer in zip(often, [once, *often], strict=False):
        assert (more <= fewer + 1e-12).all()
    assert (often[-1] < once).any()


def test_the_seed_decides_and_pictures_do_not_depend_on_each_other():
    seen = subject(n=3)
    params = {"layer": "relu2", "steps": 4, "restarts": 2}
    first, again, other = (invert(seen, seed=s, **params).arrays for s in (4, 4, 5))
    for name, array in first.items():
        np.testing.assert_array_equal(again[name], array)
    assert np.abs(first["inverted"] - other["inverted"]).max() > 1e-3
    alone = replace(seen, pictures=ArrayPictures(seen.pictures.x[1:2]))
    np.testing.assert_allclose(
        invert(alone, seed=4, **params).arrays["inverted"][:, 0],
        first["inverted"][:, 1],
        rtol=1e-9,
    )


def test_grey_pictures():
    rng = np.random.default_rng(1)
    net = pointwise(rng.normal(size=(1, 4)), rng.normal(size=4))
    found = invert(subject(net, space=PixelSpace.identity(1)), layer="conv", steps=300, **FREE)
    assert found.arrays["inverted"].shape == (1, 2, 6, 5, 1)
    assert (found.arrays["error"] < 1e-3).all()
    assert found.exhibits[0].rows[0][1].pixels.shape == (6, 5, 3)


def test_frames():
    seen = subject()
    assert invert(seen, steps=3).frames == ()
    found = invert(seen, steps=3, frames=2, restarts=2)
    # The start, after 2 steps, and the end: two pictures below, two layers beside each other.
    assert [frame.shape for frame in found.frames] == [(25, 19, 3)] * 3
    np.testing.assert_array_equal(
        found.frames[-1][:12, 10:], as_pixels(found.arrays["inverted"][1, 0])
    )
    np.testing.assert_array_equal(
        found.frames[-1][13:, :9], as_pixels(found.arrays["inverted"][0, 1])
    )


def test_progress_counts_the_steps_of_each_layer():
    told = []
    with listening(lambda *event: told.append(event)):
        invert(subject(), layer="conv1, conv2", steps=2)
    assert told == [(f"inversion of {layer}", k, 2) for layer in ("conv1", "conv2") for k in (1, 2)]


def test_exhibits():
    found = invert(subject(), steps=2)
    gallery, curves = found.exhibits
    assert gallery.column_titles == ("the picture", "relu1", "relu2")
    np.testing.assert_array_equal(gallery.rows[1][0].pixels, as_pixels(found.arrays["picture"][1]))
    np.testing.assert_array_equal(
        gallery.rows[1][2].pixels, as_pixels(found.arrays["inverted"][1, 1])
    )
    assert gallery.rows[0][0].caption == "picture 1"
    error = found.arrays["error"][1, 0]
    assert gallery.rows[0][2].caption == f"error {100 * error:.2g} %"
    assert [line.name for line in curves.lines] == ["relu1", "relu2"]
    np.testing.assert_allclose(curves.lines[0].y, 100 * found.arrays["history"][0].mean(0))


def test_what_cannot_be_inverted():
    seen = subject()
    with pytest.raises(UnknownLayerError):
        invert(seen, layer="conv7")
    with pytest.raises(ArrayError, match="no picture"):
        invert(replace(seen, pictures=ArrayPictures(np.empty(0))))
    dead = pointwise(np.eye(3), np.full(3, -100.0))
    with pytest.raises(TargetError, match="all zero"):
        invert(subject(dead), layer="relu")
    for params in ({"steps": 0}, {"rate": 0.0}, {"beta": 0.5}, {"restarts": 0}, {"tv": -1.0}):
        with pytest.raises(ParameterError):
            invert(seen, **params)
    net = NETS["signal"]()
    (x,) = random_input(net).values()
    signals = Subject(ReferenceModel(net), ArrayPictures(x), PixelSpace.identity(3), x.shape[1:])
    with pytest.raises(ArrayError, match="shape"):
        invert(signals)
