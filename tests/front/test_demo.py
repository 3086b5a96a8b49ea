from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import cnnviz
from cnnviz import demo
from cnnviz.cli import main
from cnnviz.demo import run as running
from cnnviz.preprocess import Geometry
from cnnviz_core.errors import MissingBackendError

NUMPY = "numpy"


@pytest.fixture(scope="module")
def network():
    return demo.network(NUMPY)


@pytest.fixture(scope="module")
def asked():
    """Each digit of each scene: the picture, the digit, and all digits of the scene."""
    return [(picture, mark, marks) for picture, marks in demo.scenes() for mark in marks]


def test_it_is_small():
    files = [item for item in demo._DATA.iterdir() if item.is_file()]
    assert sum(len(item.read_bytes()) for item in files if item.name.endswith(".npz")) < 1_000_000
    assert sum(len(item.read_bytes()) for item in files) < 2_000_000


def test_scenes_and_their_truth():
    scenes = demo.scenes()
    assert len(scenes) >= 4
    assert len({picture.name for picture, _ in scenes}) == len(scenes)
    for picture, marks in scenes:
        assert picture.size == (128, 128)
        assert 1 <= len(marks) <= 3
        assert len({mark.label for mark in marks}) == len(marks)
        for label, (x0, y0, x1, y1) in marks:
            assert label in "0123456789"
            assert 0 <= x0 < x1 <= 128
            assert 0 <= y0 < y1 <= 128


def test_the_network_sees_the_digits(network):
    """The digits that are there come first in the network's ranking."""
    pictures = [picture for picture, _ in demo.scenes()]
    e = cnnviz.explain(network, pictures)
    assert network.model.activation == "sigmoid"
    for (_, marks), predictions in zip(demo.scenes(), e.predictions, strict=True):
        there = {mark.label for mark in marks}
        assert {label for label, _ in predictions[: len(there)]} == there


def test_the_maps_find_the_digits(network, asked):
    """Told only which digits are there, the network's maps point at each, and box most."""
    pictures, marks = [a[0] for a in asked], [a[1] for a in asked]
    e = cnnviz.explain(network, pictures, "cam", target=[mark.label for mark in marks])
    found = running.localise(e, [(mark,) for mark in marks])
    assert found.hits >= 0.9
    assert found.mean_iou >= 0.45


def test_cam_is_proportional_to_grad_cam(network, asked):
    """The network ends in global average pooling and one linear layer."""
    pictures = [a[0] for a in asked[:3]]
    cam = cnnviz.explain(network, pictures, "cam").raw
    grad_cam = cnnviz.explain(network, pictures, "grad-cam").raw
    ratio = float((cam * grad_cam).sum() / (grad_cam**2).sum())
    np.testing.assert_allclose(cam, ratio * grad_cam, atol=1e-5 * np.abs(cam).max())
    assert ratio == pytest.approx(np.prod(cam.shape[1:]), rel=1e-4)


@pytest.fixture
def short(monkeypatch):
    """The demo on one scene, by two methods."""
    scenes = demo.scenes()[:1]
    monkeypatch.setattr(running, "scenes", lambda: scenes)
    monkeypatch.setattr(running, "_METHODS", ("cam", "saliency"))
    return scenes


def test_the_sheet_has_a_row_for_each_digit(short):
    found = running.run(NUMPY)
    ((picture, marks),) = short
    assert [t[0] for t in found.truth] == list(marks)
    assert all(p is picture for p in found.pictures)
    assert found.comparison["cam"].target_labels == tuple(mark.label for mark in marks)
    sheet = running.draw(found)
    assert sheet.width >= 4 * 192
    assert sheet.height >= len(marks) * 192


def test_the_first_scene_is_asked_for_all_the_others_for_one():
    a, b, c = (picture for picture, _ in demo.scenes()[:3])
    found = running.Demo(None, (a, a, b, b, b, c), (), None)
    assert running._shown(found) == [0, 1, 2, 5]


def test_localisation_by_hand():
    """A map that is hot in one box: its overlap with the true one can be counted."""
    heat = np.zeros((1, 20, 20), np.float32)
    heat[0, 4:8, 4:12] = 1
    e = cnnviz.Explanation(
        maps=heat,
        raw=heat,
        targets=(cnnviz.ClassScore(0),),
        target_labels=("0",),
        method="by hand",
        geometry=(Geometry.identity((20, 20)),),
        pictures=(np.zeros((20, 20, 3), np.uint8),),
        names=("by hand",),
        status=("ok",),
    )
    other = demo.Mark("1", (0, 0, 2, 2))
    scores = running.localise(e, [[demo.Mark("0", (4, 4, 12, 12)), other]])
    assert scores.iou.tolist() == [0.5]
    assert (scores.mean_iou, scores.found, scores.hits) == (0.5, 1.0, 1.0)
    scores = running.localise(e, [[demo.Mark("0", (12, 4, 20, 8))]])
    assert (scores.mean_iou, scores.found, scores.hits) == (0.0, 0.0, 0.0)


def test_differences_are_relative_to_each_map(short):
    found = running.run(NUMPY)
    assert running.differences(found.comparison, found.comparison) == {"cam": 0.0, "saliency": 0.0}


@pytest.mark.parametrize("backend", ["torch", "tensorflow"])
def test_backends_agree(short, backend):
    pytest.importorskip(backend)
    there, here = running.run(backend), running.run(NUMPY)
    assert there.network.model.framework == backend
    apart = running.differences(there.comparison, here.comparison)
    assert list(apart) == ["cam", "saliency"]
    assert apart["cam"] < 1e-4
    # In float32 a tie of a rectifier may fall the other way, and move single values of a gradient;
    # tests/cross compares the backends in float64.
    assert apart["saliency"] < 5e-2


def test_the_command(short, tmp_path):
    done = CliRunner().invoke(main, ["demo", "--backend", NUMPY, "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    for word in ("numpy", "cam", "mean IoU", short[0][0].name):
        assert word in done.stdout
    with Image.open(tmp_path / "out" / "demo.png") as sheet:
        assert sheet.width > 700
    page = (tmp_path / "out" / "demo.html").read_text(encoding="utf-8")
    assert "saliency" in page
    done = CliRunner().invoke(main, ["demo", "-b", NUMPY, "-o", str(tmp_path), "--json"])
    document = json.loads(done.stdout)
    assert document["backends"] == ["numpy"]
    assert document["digits"] == len(short[0][1])
    assert set(document["localisation"]) == {"cam", "saliency"}
    assert "differences" not in document


def test_both_backends_are_compared(short, tmp_path):
    pytest.importorskip("torch")
    pytest.importorskip("tensorflow")
    done = CliRunner().invoke(main, ["demo", "-b", "both", "-o", str(tmp_path), "--json"])
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert document["backends"] == ["torch", "tensorflow"]
    assert max(document["differences"].values()) < 1e-4


def test_a_framework_that_is_not_installed(monkeypatch, tmp_path):
    monkeypatch.setattr("cnnviz_core.registry.installed", lambda package: False)
    with pytest.raises(MissingBackendError, match=r"pip install 'cnnviz\[torch\]'"):
        demo.network("torch")
    with pytest.raises(MissingBackendError, match="there is no backend 'jax'"):
        demo.network("jax")
    # Without any framework the demo still runs.
    assert demo.network().model.framework == "numpy"
