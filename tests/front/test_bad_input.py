"""Bad input: each has an error of its own that says what was wrong, expected, and to be done."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

import cnnviz
from cnnviz_core.errors import (
    ArrayError,
    CnnvizError,
    ImageError,
    MissingBackendError,
    ParameterError,
    UnknownClassError,
    UnknownLayerError,
    UnknownMethodError,
    UnsupportedModelError,
)


def raised(kind, *arguments, **named):
    """Run explain, and give its error, which must be complete."""
    with pytest.raises(kind) as info:
        cnnviz.explain(*arguments, **named)
    error = info.value
    assert isinstance(error, CnnvizError)
    for part in (error.problem, error.expected, error.remedy):
        assert part
        assert "\n" not in part
    return error


def test_unknown_method(network, picture):
    error = raised(UnknownMethodError, network, picture, "grad-cma")
    assert "'grad-cma'" in error.problem
    assert "occlusion" in error.expected
    assert "grad" in error.remedy


def test_unknown_layer(network, picture):
    error = raised(UnknownLayerError, network, picture, layer="conv_2")
    assert "'conv_2'" in error.problem
    assert "'conv2'" in error.expected


def test_a_layer_without_a_grid(network, picture):
    assert "gap" in raised(UnknownLayerError, network, picture, layer="gap").problem


def test_unknown_class(network, picture):
    assert "'parrot'" in raised(UnknownClassError, network, picture, target="parrot").problem


def test_a_name_that_several_classes_bear(network, picture):
    network = cnnviz.wrap(network, labels=("tiger cat", "bee", "big cat", "dog", "eel"))
    error = raised(UnknownClassError, network, picture, target="cat")
    assert "'tiger cat' (0)" in error.problem
    assert "'big cat' (2)" in error.problem


def test_class_out_of_range(network, picture):
    error = raised(UnknownClassError, network, picture, target=1000)
    assert "1000" in error.problem
    assert "0 to 4" in error.expected


def test_nan_picture(network, picture):
    floats = picture / 255
    floats[3, 4, 1] = np.nan
    raised(ImageError, network, floats)
    x = np.zeros((1, 12, 9, 3), np.float32)
    x[0, 0, 0, 0] = np.inf
    assert "NaN or infinity" in raised(ArrayError, network, x, preprocessed=True).problem


def test_floats_beyond_one(network, picture):
    raised(ImageError, network, picture.astype(np.float32))


def test_empty_list(network):
    raised(ImageError, network, [])
    raised(ArrayError, network, np.zeros((0, 12, 9, 3)), preprocessed=True)


@pytest.mark.parametrize("content", [b"", b"no picture at all", b"\x89PNG\r\n\x1a\n" + bytes(20)])
def test_corrupt_file(network, tmp_path, content):
    (tmp_path / "broken.png").write_bytes(content)
    assert "broken.png" in raised(ImageError, network, tmp_path / "broken.png").problem


def test_truncated_file(network, picture, tmp_path):
    for name in ("cut.png", "cut.jpg"):
        Image.fromarray(picture).save(tmp_path / name)
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[: len(whole) // 2])
        assert name in raised(ImageError, network, tmp_path / name).problem


def test_missing_file(network):
    assert "nowhere.png" in raised(ImageError, network, "nowhere.png").problem


def test_wrong_channel_count(network):
    raised(ImageError, network, np.zeros((8, 8, 2), np.uint8))
    error = raised(ArrayError, network, np.zeros((1, 12, 9, 4)), preprocessed=True)
    assert "(1, 12, 9, 4)" in error.problem
    grey = cnnviz.Preprocessing(size=(12, 9), channels="L")
    error = raised(ArrayError, network, np.zeros((8, 8, 3), np.uint8), preprocess=grey)
    assert "(1, 12, 9, 1)" in error.problem


def test_channels_first(network):
    error = raised(ArrayError, network, np.zeros((1, 3, 12, 9)), preprocessed=True)
    assert "(1, 3, 12, 9)" in error.problem
    assert "channels last" in error.expected


def test_no_batch_axis(network):
    error = raised(ArrayError, network, np.zeros((12, 9, 3)), preprocessed=True)
    assert "x[None]" in error.remedy


def test_wrong_size(network):
    error = raised(ArrayError, network, np.zeros((1, 13, 9, 3)), preprocessed=True)
    assert "(1, 13, 9, 3)" in error.problem
    assert "12, 9, 3" in error.expected


def test_a_function_that_prepares_wrongly(model, picture):
    raised(ParameterError, model, picture, preprocess=lambda pixels: pixels[None])
    raised(ParameterError, model, picture, preprocess=lambda pixels: "no array")


def test_several_inputs(picture):
    from cnnviz_core.testing.nets import NETS
    from cnnviz_core.testing.reference import ReferenceModel

    two = ReferenceModel(NETS["two_inputs"]())
    for given, preprocessed in ((picture, False), (np.zeros((1, 8, 10, 3)), True)):
        error = raised(ArrayError, two, given, preprocessed=preprocessed)
        assert "2 inputs" in error.problem
        assert error.remedy == "call cnnviz.explain(model, {'image': ..., 'vector': ...})"


def test_a_model_of_no_framework(picture):
    error = raised(UnsupportedModelError, {"weights": 3}, picture)
    assert "builtins.dict" in error.problem


def test_a_backend_that_is_not_installed(picture, monkeypatch):
    monkeypatch.setattr("cnnviz_core.registry.installed", lambda package: False)
    error = raised(MissingBackendError, "torchvision:resnet18", picture)
    assert "torch, which is not installed" in error.problem
    assert error.remedy == "pip install 'cnnviz[torch]'"
    error = raised(MissingBackendError, "keras:MobileNetV2", picture)
    assert error.remedy == "pip install 'cnnviz[tf]'"


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((1, 1, 3), np.uint8),
        np.full((5, 4), 200, np.uint8),
        np.full((5, 4, 1), 0.5, np.float32),
        np.full((5, 4, 4), 90, np.uint8),
    ],
    ids=["one pixel", "greyscale", "greyscale with an axis", "RGBA"],
)
def test_unusual_pictures_are_taken(network, pixels):
    e = cnnviz.explain(network, pixels)
    assert e.heatmap().shape == pixels.shape[:2]
    assert e.pictures[0].shape == (*pixels.shape[:2], 3)
    assert np.isfinite(e.heatmap()).all()
    assert e.overlay(boxes=True).size == pixels.shape[1::-1]
