"""The example that trains VGG16 with global average pooling runs, in a small setting."""

from __future__ import annotations

import importlib.util
import io
import sys
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

import cnnviz
from support.examples import EXAMPLES, run

pytestmark = pytest.mark.skipif(
    not EXAMPLES.is_dir(), reason="the examples are part of the repository, not of the package"
)

COLOURS = {"blue": (0, 0, 255), "green": (0, 200, 0), "red": (255, 0, 0), "white": (255, 255, 255)}


@pytest.fixture(scope="module")
def example():
    """The example as a module."""
    spec = importlib.util.spec_from_file_location("cifar10_cam", EXAMPLES / "cifar10_cam.py")
    module = sys.modules["cifar10_cam"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del sys.modules["cifar10_cam"]


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """Squares of four colours, anywhere on dark noise."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("squares") / "squares.zip"
    with zipfile.ZipFile(path, "w") as files:
        for part, count in (("train", 120), ("test", 10)):
            for name, colour in COLOURS.items():
                for i in range(count):
                    pixels = rng.integers(90, size=(32, 32, 3), dtype=np.uint8)
                    y, x = rng.integers(16, size=2)
                    pixels[y : y + 16, x : x + 16] = colour
                    encoded = io.BytesIO()
                    Image.fromarray(pixels).save(encoded, "JPEG", quality=95)
                    files.writestr(f"{part}/{name}/{i:04}.jpg", encoded.getvalue())
    return path


def numbers(printed):
    """Read the tables: the numbers of each method in the order of the columns."""
    found = {}
    for line in printed.splitlines():
        if "[" in line:
            method, values = line[:14].strip(), line[14:].replace("[", " ").replace("]", " ")
            found.setdefault(method, []).extend(float(v.strip(",")) for v in values.split()[::3])
    return found


def accuracy(printed):
    """Read the accuracy on the test pictures."""
    (line,) = (line for line in printed.splitlines() if line.startswith("accuracy"))
    return float(line.split()[-1])


def test_it_learns_and_its_maps_are_measured(archive, tmp_path):
    weights, out = tmp_path / "vgg16.pt", tmp_path / "figure.png"
    small = ["--width", 1 / 16, "--epochs", 10, "--pictures", 480, "--limit", 20]
    printed = run("cifar10_cam.py", archive, *small, "--weights", weights, "--out", out)
    assert printed.count("epoch ") == 10
    assert accuracy(printed) > 0.9
    found = numbers(printed)
    assert found["Grad-CAM"] == found["CAM, bilinear"]  # the network ends in pooling
    ways = [found[f"CAM, {way}"] for way in ("nearest", "bilinear", "bicubic")]
    assert not any(ways[i] == ways[i - 1] for i in range(3))
    pointing = 3
    assert found["CAM, bicubic"][pointing] > 0.7
    assert found["random weights"][pointing] < 0.6
    assert np.asarray(Image.open(out)).std() > 10

    again = run("cifar10_cam.py", archive, "--limit", 2, "--weights", weights, "--out", out)
    assert "epoch " not in again
    assert accuracy(again) == accuracy(printed)


def test_a_map_is_the_linear_layers_weights_on_the_features_by_bicubic_interpolation(example):
    torch.manual_seed(0)
    network = example.vgg16(5, 1 / 16, pools=3).eval()
    picture = np.random.default_rng(0).integers(256, size=(32, 32, 3), dtype=np.uint8)
    net = cnnviz.wrap(network, preprocess=example.INPUT)
    found = cnnviz.explain(net, picture, "cam", 2).shown(upsample="bicubic")

    x = torch.from_numpy(picture).permute(2, 0, 1)[None] / 127.5 - 1
    with torch.no_grad():
        features = network.features(x)
        raw = (network.linear.weight[2, :, None, None] * features).sum(1)
        maps = functional.interpolate(raw.relu()[None], size=(32, 32), mode="bicubic")[0]
        unbiased = (network(x) - network.linear.bias)[0, 2]
    assert raw.shape == (1, 4, 4)
    assert raw.max() > 0
    np.testing.assert_allclose(found.raw, raw, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found.maps, maps, rtol=1e-4, atol=1e-6)
    # The mean of the map is the score without its bias.
    assert found.raw.mean() == pytest.approx(float(unbiased), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize(("pools", "grid"), [(2, 8), (3, 4), (5, 1)])
def test_pools_leave_a_grid(example, pools, grid):
    features = example.vgg16(10, 1 / 16, pools).features.eval()
    assert sum(isinstance(layer, torch.nn.Conv2d) for layer in features) == 13
    assert features(torch.zeros(1, 3, 32, 32)).shape == (1, 32, grid, grid)


def test_at_width_1_the_convolutions_are_those_of_vgg16(example):
    """Configuration D of Simonyan and Zisserman, ICLR 2015, table 1."""
    with torch.device("meta"):
        features = example.vgg16(10, 1.0, 5).features
    convolutions = [layer for layer in features if isinstance(layer, torch.nn.Conv2d)]
    widths = [layer.out_channels for layer in convolutions]
    assert widths == [64, 64, 128, 128, *[256] * 3, *[512] * 6]
    assert {layer.kernel_size for layer in convolutions} == {(3, 3)}
    assert sum(layer.weight.numel() for layer in convolutions) == 14_710_464


def test_moved_pictures_are_windows_of_their_surroundings(example):
    rng = np.random.default_rng(0)
    pictures = rng.integers(256, size=(40, 32, 32, 3), dtype=np.uint8)
    padded = np.pad(pictures, ((0, 0), (4, 4), (4, 4), (0, 0)), constant_values=127)
    seen = set()
    for whole, one in zip(padded, example.moved(pictures, rng), strict=True):
        (where,) = (
            (y, x, turn)
            for y, x, turn in np.ndindex(9, 9, 2)
            if np.array_equal(whole[y : y + 32, x : x + 32][:, :: 1 - 2 * turn], one)
        )
        seen.add(where)
    assert len(seen) > 30
    assert {turn for _, _, turn in seen} == {0, 1}


def test_mosaics_hold_a_picture_of_each_class_where_they_say(example):
    classes = np.repeat(np.arange(6), 2)
    pictures = np.broadcast_to(classes[:, None, None, None], (12, 32, 32, 3)).astype(np.uint8)
    made = example.mosaics(pictures, classes, 50, seed=0)
    data = made.annotated()
    for whole, label, ((x0, y0, x1, y1),) in zip(*data.values(), strict=True):
        assert (whole[y0:y1, x0:x1] == label).all()
        assert (x1 - x0, y1 - y0) == (32, 32)
        assert (whole == label).all(axis=-1).sum() == 32 * 32
    assert len(np.unique(np.array(data["boxes"])[:, 0, :2], axis=0)) == 4
