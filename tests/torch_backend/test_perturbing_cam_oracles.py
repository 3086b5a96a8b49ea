"""Score-CAM, Ablation-CAM and FullGrad against pytorch-grad-cam and captum, on small networks."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from captum.attr import LayerFeatureAblation

from support.torchvision_ops import define

define()

from pytorch_grad_cam import AblationCAM, FullGrad, ScoreCAM  # noqa: E402
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget  # noqa: E402

from cnnviz_core.registry import get_registry  # noqa: E402
from cnnviz_core.targets import ClassScore  # noqa: E402
from cnnviz_core.testing.nets import NETS, random_input  # noqa: E402
from cnnviz_core.testing.reference import ReferenceModel  # noqa: E402
from cnnviz_torch.build import build  # noqa: E402
from cnnviz_torch.model import wrap  # noqa: E402

CLASSES = [0, 2, 1]
# pytorch-grad-cam keeps scores in float32.
SINGLE = 2e-6


def case(name="plain"):
    net = NETS[name]()
    (x,) = random_input(net, 3, seed=2).values()
    x = x.astype(np.float64)
    return build(net, dtype="float64"), x, torch.from_numpy(x).permute(0, 3, 1, 2).contiguous()


def ours(method, model, x, **params):
    targets = [ClassScore(c) for c in CLASSES]
    return get_registry().explainer(method, **params).explain(model, x, targets)


def theirs(kind, network, tensor, layers, monkeypatch):
    """Run a method of pytorch-grad-cam, and keep its weights and its map before normalising."""
    kept = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        method = kind(network, layers)

    def keep(name):
        original = getattr(method, name)

        def kept_too(*args, **kwargs):
            kept[name] = original(*args, **kwargs)
            return kept[name]

        return kept_too

    for name in ("get_cam_weights", "compute_cam_per_layer"):
        monkeypatch.setattr(method, name, keep(name))
    method(tensor.clone(), [ClassifierOutputTarget(c) for c in CLASSES])
    return kept


@pytest.mark.parametrize("layer", ["conv1", "relu1"])
def test_score_cam_at_a_layer_of_the_pictures_size(layer, monkeypatch):
    # At coarser layers the masks differ: pytorch-grad-cam aligns the corners when it upsamples.
    network, x, tensor = case()
    expected = theirs(ScoreCAM, network, tensor, [network.get_submodule(layer)], monkeypatch)
    found = ours("score-cam", wrap(network), x, layer=layer)
    weights = found.extras["weights"]
    np.testing.assert_allclose(weights, expected["get_cam_weights"], rtol=SINGLE)


@pytest.mark.parametrize("layer", ["relu1", "relu2"])
def test_ablation_cam_after_a_rectifier(layer, monkeypatch):
    # Before one, where values are negative, pytorch-grad-cam puts the least value less 1e7 in the
    # place of a channel: not the paper's 0.
    network, x, tensor = case()
    expected = theirs(AblationCAM, network, tensor, [network.get_submodule(layer)], monkeypatch)
    found = ours("ablation-cam", wrap(network), x, layer=layer)
    paper = found.extras["weights"] / found.scores[:, None]
    np.testing.assert_allclose(paper, expected["get_cam_weights"], atol=SINGLE)


@pytest.mark.parametrize("layer", ["conv1", "relu1", "pool1", "conv2", "relu2"])
def test_the_drops_of_ablation_cam(layer):
    network, x, tensor = case()
    module = network.get_submodule(layer)
    found = ours("ablation-cam", wrap(network), x, layer=layer).extras["weights"]
    channels = torch.arange(found.shape[1]).reshape(1, -1, 1, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # captum speaks of the hooks that it sets
        drops = LayerFeatureAblation(network, module).attribute(
            tensor, target=torch.tensor(CLASSES), layer_baselines=0, layer_mask=channels
        )
    np.testing.assert_allclose(found, drops[:, :, 0, 0].numpy(), atol=1e-12)


def normalised():
    """Give convolutions with and without a bias, batch normalisations that have run, a pool."""
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 6, 3, padding=1),
        torch.nn.BatchNorm2d(6, eps=0.1),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(2),
        torch.nn.Conv2d(6, 5, 3, bias=False),
        torch.nn.BatchNorm2d(5),
        torch.nn.ReLU(inplace=True),
        torch.nn.Flatten(),
        torch.nn.Linear(5 * 4 * 2, 4),
    ).double()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for value in (*network.parameters(), *network.buffers()):
            if value.is_floating_point():
                value.uniform_(-0.4, 0.6, generator=generator)
        for norm in (network[1], network[5]):
            norm.running_var.abs_().add_(0.3)
    return network.eval()


@pytest.mark.parametrize("name", ["normalised", "residual"])
def test_full_grad(name, monkeypatch):
    # It scales each channel by itself, as the paper's formula reads; the authors scale layers.
    network, x, tensor = case("plain" if name == "normalised" else name)
    network = normalised() if name == "normalised" else network
    with torch.no_grad():  # so that the 1e-7 by which it divides too much does not count
        list(network.children())[-1].weight *= 1e4
    expected = theirs(FullGrad, network, tensor, [], monkeypatch)["compute_cam_per_layer"]
    found = ours("full-grad", wrap(network), x, psi="rescaled-channels")
    np.testing.assert_allclose(found.raw, expected[:, 0], rtol=SINGLE)
    np.testing.assert_allclose(found.extras["completeness_gap"], 0, atol=1e-9)


@pytest.mark.parametrize("name", ["plain", "strided", "residual", "depthwise", "branches"])
def test_full_grad_is_that_of_the_reference(name):
    network, x, _ = case(name)
    found = ours("full-grad", wrap(network), x)
    expected = ours("full-grad", ReferenceModel(NETS[name](), "float64"), x)
    np.testing.assert_allclose(found.raw, expected.raw, rtol=1e-9, atol=1e-11)
    gaps = (maps.extras["completeness_gap"] for maps in (found, expected))
    np.testing.assert_allclose(*gaps, atol=1e-11)
