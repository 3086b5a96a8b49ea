"""The example scripts that need nothing but cnnviz run, in a small setting."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
from PIL import Image

from support.examples import EXAMPLES, run

pytestmark = pytest.mark.skipif(
    not EXAMPLES.is_dir(), reason="the examples are part of the repository, not of the package"
)


@pytest.fixture(scope="module")
def colour():
    """The example that draws classes in colours, as a module."""
    path = EXAMPLES / "classes_in_colour.py"
    spec = importlib.util.spec_from_file_location("classes_in_colour", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_digits_are_found_by_grad_cam_and_not_by_the_centre(tmp_path):
    small = ["--backend", "numpy", "--limit", 4, "--resamples", 20, "--out", tmp_path]
    printed = run("digits.py", "--methods", "grad-cam,eigen-cam", *small)
    rows = {line.split("  ")[0]: line for line in printed.splitlines()}
    assert rows["grad-cam"].split()[-3:] == ["1.000", "[1.000,", "1.000]"]
    assert rows["centre-gaussian °"].split()[-3] == "0.000"
    assert "eigen-cam °" in rows
    assert "random-cam(seed=2) °" in rows
    assert (tmp_path / "leaderboard.html").is_file()


def test_classes_are_drawn_in_colour(tmp_path):
    out = tmp_path / "classes.png"
    small = ["--backend", "numpy", "--methods", "grad-cam,eigen-cam"]
    printed = run("classes_in_colour.py", *small, "--out", out)
    lines = [line.split() for line in printed.splitlines()]
    contested = {
        method: [float(line[-1]) for line in lines if line and line[0] == method]
        for method in ("grad-cam", "eigen-cam")
    }
    assert len(contested["grad-cam"]) == 3
    assert max(contested["grad-cam"]) < 0.1
    assert min(contested["eigen-cam"]) > 0.4
    assert np.asarray(Image.open(out)).std() > 10


def test_a_class_alone_has_its_colour_and_contested_places_have_both(colour):
    """Of full heat on a black picture only the colours are left, each as opaque as it may be."""
    red, blue = np.array([1.0, 0, 0]), np.array([0, 0, 1.0])
    heat = np.zeros((2, 40, 90))
    heat[0, :, :60], heat[1, :, 30:] = 1, 1
    image = colour.blended(np.zeros((40, 90, 3)), heat, np.stack([red, blue]))
    np.testing.assert_array_equal(image[:, :30], np.broadcast_to(colour.OPAQUE * red, (40, 30, 3)))
    np.testing.assert_array_equal(image[:, 60:], np.broadcast_to(colour.OPAQUE * blue, (40, 30, 3)))
    both = {tuple(pixel) for pixel in image[:, 30:60].reshape(-1, 3)}
    assert both == {tuple(colour.OPAQUE * red), tuple(colour.OPAQUE * blue)}
    share = (image[:, 30:60] == colour.OPAQUE * red).all(axis=-1).mean()
    assert share == pytest.approx(0.5, abs=0.1)
    np.testing.assert_array_equal(colour.rivals(heat)[0], [1] * 30 + [2] * 30 + [1] * 30)


def test_where_all_classes_are_faint_the_picture_is_grey(colour):
    rng = np.random.default_rng(0)
    pixels, faint = rng.random((8, 9, 3)), np.full((3, 8, 9), colour.FAINT / 2)
    image = colour.blended(pixels, faint, np.eye(3))
    assert (image == image[..., :1]).all()
    assert not colour.rivals(faint).any()
