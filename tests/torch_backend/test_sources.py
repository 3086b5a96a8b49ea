"""Loading from collections and files, and what their publishers say."""

from __future__ import annotations

import sys
import types
from urllib.error import URLError

import numpy as np
import pytest
import torch
from torch import nn

from cnnviz_core.errors import MissingBackendError, ModelSourceError
from cnnviz_core.preprocessing import Preprocessing
from cnnviz_torch import sources
from cnnviz_torch._register import cnnviz_backends
from cnnviz_torch.model import wrap
from cnnviz_torch.published import describe
from support.torch_nets import Residual, native, picture, seeded
from support.torchvision_ops import define

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.fixture(scope="module")
def torchvision():
    try:
        define()
    except ModuleNotFoundError:
        pytest.skip("torchvision is not installed")
    import torchvision

    return torchvision


def test_everything_that_is_registered_exists():
    from importlib import import_module

    (spec,) = cnnviz_backends()
    strings = [spec.wrap, spec.accepts, spec.describe, spec.build]
    for string in [*strings, *spec.sources.values(), *spec.suffixes.values()]:
        module, attribute = string.split(":")
        assert callable(getattr(import_module(module), attribute))
    assert set(spec.suffixes) == {".pt2", ".pt", ".pth"}


# -------------------------------------------------------------------- torchvision


def test_random_weights_need_no_download(torchvision):
    found = sources.load_torchvision("squeezenet1_1", weights=None)
    assert not found.native.training
    assert found.preprocessing == Preprocessing((224, 224), 256, mean=MEAN, std=STD)
    assert (found.labels, found.name) == ("imagenet-1k", "squeezenet1_1")
    model = wrap(found.native, input_shape=(64, 48, 3))
    assert model.layers["features"].grid == (3, 2)
    assert model.layers["features"].same_as == "features.12"
    assert model.layers["features.12"].kind == "container"


@pytest.mark.parametrize(
    ("name", "weights", "expected"),
    [
        ("resnet18", "IMAGENET1K_V1", Preprocessing((224, 224), 256, mean=MEAN, std=STD)),
        ("inception_v3", "DEFAULT", Preprocessing((299, 299), 342, mean=MEAN, std=STD)),
        ("swin_t", "DEFAULT", Preprocessing((224, 224), 232, "bicubic", mean=MEAN, std=STD)),
        ("fcn_resnet50", "DEFAULT", Preprocessing(None, 520, mean=MEAN, std=STD)),
    ],
)
def test_published_weights(torchvision, monkeypatch, name, weights, expected):
    asked = []

    def get_model(name, weights):
        asked.append((name, weights))
        return nn.Identity()

    monkeypatch.setattr(torchvision.models, "get_model", get_model)
    found = sources.load_torchvision(name, weights=weights)
    published = torchvision.models.get_model_weights(name)[weights]
    assert asked == [(name, published)]
    assert found.preprocessing == expected
    assert found.labels == tuple(published.meta["categories"])
    assert found.name == name


def test_networks_for_other_than_pictures_have_no_preprocessing(torchvision, monkeypatch):
    monkeypatch.setattr(torchvision.models, "get_model", lambda name, weights: nn.Identity())
    for name in ("r3d_18", "ssd300_vgg16"):
        assert sources.load_torchvision(name).preprocessing is None


def test_a_failed_download_says_what_to_do(torchvision, monkeypatch):
    def get_model(name, weights):
        raise URLError("Name or service not known")

    monkeypatch.setattr(torchvision.models, "get_model", get_model)
    with pytest.raises(ModelSourceError, match="weights=None"):
        sources.load_torchvision("resnet50")


def test_unknown_names_list_the_near_ones(torchvision):
    with pytest.raises(ModelSourceError, match="'resnet50'"):
        sources.load_torchvision("resnet-50")
    with pytest.raises(ModelSourceError, match="IMAGENET1K_V2"):
        sources.load_torchvision("resnet50", weights="V7")


@pytest.mark.parametrize(
    ("error", "match"),
    [
        (ModuleNotFoundError("No module", name="torchvision"), "pip install torchvision"),
        (RuntimeError("operator torchvision::nms does not exist"), "built for the installed"),
    ],
)
def test_a_missing_or_broken_collection(monkeypatch, error, match):
    def import_module(name):
        raise error

    monkeypatch.setattr(sources.importlib, "import_module", import_module)
    with pytest.raises(MissingBackendError, match=match):
        sources.load_torchvision("resnet50")


@pytest.mark.parametrize(
    ("name", "size", "resize"),
    [("mobilenet_v2", 224, 256), ("inception_v3", 299, 342), ("densenet121", 224, 256)],
)
def test_the_preprocessing_of_a_torchvision_network_is_known(torchvision, name, size, resize):
    options = {"init_weights": False} if name == "inception_v3" else {}
    net = torchvision.models.get_model(name, weights=None, **options)
    found = describe(nn.DataParallel(net))
    assert found.preprocessing == Preprocessing((size, size), resize, mean=MEAN, std=STD)
    assert found.labels == "imagenet-1k"
    assert found.native.module is net


def test_what_is_not_known_is_not_guessed(torchvision):
    other_head = describe(torchvision.models.squeezenet1_1(num_classes=10))
    assert (other_head.preprocessing, other_head.labels) == (None, None)

    several_sizes = describe(torchvision.models.efficientnet_b0())
    assert (several_sizes.preprocessing, several_sizes.labels) == (None, "imagenet-1k")

    class Mine(torchvision.models.SqueezeNet):
        pass

    mine = describe(Mine())
    assert (mine.preprocessing, mine.labels) == (None, None)
    own = describe(nn.Sequential(nn.Linear(3, 1000)))
    assert (own.preprocessing, own.labels, own.name) == (None, None, "Sequential")


# -------------------------------------------------------------------- timm


@pytest.fixture
def timm(monkeypatch):
    """Stand in for timm, which is large: its names, its factory, its configurations."""

    class FakeNet(nn.Module):
        def __init__(self, config):
            super().__init__()
            self.pretrained_cfg = config
            self.num_classes = config["num_classes"]

    FakeNet.__module__ = "timm.models.fake"
    module = types.ModuleType("timm")
    module.config = {
        "architecture": "fakenet",
        "num_classes": 1000,
        "input_size": (3, 240, 240),
        "crop_pct": 0.95,
        "crop_mode": "center",
        "interpolation": "bicubic",
        "mean": (0.5, 0.5, 0.5),
        "std": (0.5, 0.5, 0.5),
    }
    module.asked = []
    module.list_models = lambda: ["fakenet", "resnet50"]

    def create_model(name, pretrained):
        module.asked.append((name, pretrained))
        if name == "fakenet.gone":
            raise RuntimeError("Invalid pretrained tag (gone) for fakenet.")
        return FakeNet(module.config).train()

    module.create_model = create_model
    monkeypatch.setitem(sys.modules, "timm", module)
    return module


def test_timm(timm):
    found = sources.load_timm("fakenet.in1k")
    assert timm.asked == [("fakenet.in1k", True)]
    assert not found.native.training
    half = (0.5, 0.5, 0.5)
    assert found.preprocessing == Preprocessing((240, 240), 252, "bicubic", mean=half, std=half)
    assert (found.labels, found.name) == ("imagenet-1k", "fakenet.in1k")
    assert describe(found.native).name == "fakenet"
    sources.load_timm("hf-hub:someone/fakenet", pretrained=False)
    assert timm.asked[1] == ("hf-hub:someone/fakenet", False)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"crop_mode": "squash", "input_size": (3, 200, 300)}, ((200, 300), (210, 315))),
        ({"crop_pct": None}, ((240, 240), 240)),
        ({"crop_mode": None, "interpolation": "random"}, ((240, 240), 252)),
        ({"input_size": (3, 200, 300)}, None),
        ({"crop_mode": "border"}, None),
        ({"interpolation": "hamming"}, None),
        ({"input_size": None}, None),
    ],
)
def test_timms_configurations(timm, change, expected):
    timm.config.update(change)
    found = sources.load_timm("fakenet").preprocessing
    assert (None if found is None else (found.size, found.resize)) == expected


def test_timms_configuration_of_another_head_is_not_used(timm):
    found = sources.load_timm("fakenet")
    found.native.num_classes = 10
    other = describe(found.native)
    assert (other.preprocessing, other.labels) == (None, None)
    timm.config["num_classes"] = 21843
    assert sources.load_timm("fakenet").labels is None


def test_timms_errors(timm, monkeypatch):
    with pytest.raises(ModelSourceError, match="'fakenet'"):
        sources.load_timm("fakenett")
    with pytest.raises(ModelSourceError, match="pretrained=False"):
        sources.load_timm("fakenet.gone")
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingBackendError, match="pip install timm"):
        sources.load_timm("fakenet")


# -------------------------------------------------------------------- files


def test_exported_files(tmp_path):
    net = seeded(Residual)
    path = tmp_path / "net.pt2"
    torch.export.save(torch.export.export(net, (native(picture(1)),)), path)
    found = sources.load_exported(path)
    assert found.name == "net"
    expected = wrap(net).forward(picture(1), capture=["bn1"])
    trace = wrap(found.native).forward(picture(1), capture=["bn1"])
    np.testing.assert_allclose(trace["bn1"], expected["bn1"], rtol=1e-9, atol=1e-12)
    path.write_bytes(b"no program")
    with pytest.raises(ModelSourceError, match=r"torch\.export\.save"):
        sources.load_exported(path)
    with pytest.raises(FileNotFoundError):
        sources.load_exported(tmp_path / "none.pt2")


@pytest.mark.filterwarnings("ignore:`torch.jit.(trace|save)` is deprecated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:`torch.jit.trace_method` is deprecated:DeprecationWarning")
def test_torchscript_files(tmp_path):
    net = seeded(Residual)
    path = tmp_path / "net.pt"
    torch.jit.save(torch.jit.trace(net, native(picture(1))), str(path))
    found = sources.load_torchscript(path)
    assert found.name == "net"
    a, b = (m.pullback(picture(2), np.ones_like) for m in (wrap(found.native), wrap(net)))
    np.testing.assert_allclose(a.gradients["@input"], b.gradients["@input"], rtol=1e-9, atol=1e-12)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ModelSourceError):
        sources.load_torchscript(path)


class Dangerous(nn.Linear):
    """Notes when it is unpickled."""

    unpickled = False

    def __setstate__(self, state):
        Dangerous.unpickled = True
        super().__setstate__(state)


@pytest.mark.parametrize("zipped", [True, False])
def test_pickled_networks_are_not_read(tmp_path, zipped):
    path = tmp_path / "net.pth"
    torch.save(Dangerous(2, 2), path, _use_new_zipfile_serialization=zipped)
    match = "could run any code" if zipped else "not a file that torch.jit.save wrote"
    with pytest.raises(ModelSourceError, match=match) as caught:
        sources.load_torchscript(path)
    assert "package.module:factory" in caught.value.remedy
    assert not Dangerous.unpickled


@pytest.mark.parametrize("kept", ["state dict", "checkpoint"])
def test_state_dicts_say_that_the_architecture_is_missing(tmp_path, kept):
    state = Residual().state_dict()
    path = tmp_path / "weights.pth"
    torch.save(state if kept == "state dict" else {"epoch": 3, "model": dict(state)}, path)
    with pytest.raises(ModelSourceError, match="without the architecture") as caught:
        sources.load_torchscript(path)
    assert "package.module:factory" in caught.value.remedy


def test_files_of_other_kinds(tmp_path):
    path = tmp_path / "note.pt"
    path.write_text("not a network")
    with pytest.raises(ModelSourceError, match="not a file that"):
        sources.load_torchscript(path)
    with pytest.raises(FileNotFoundError):
        sources.load_torchscript(tmp_path / "none.pt")
