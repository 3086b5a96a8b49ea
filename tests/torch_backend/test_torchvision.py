"""Real architectures of torchvision, with random weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cnnviz_core.layers import auto_layer
from cnnviz_core.model import INPUT
from cnnviz_core.rules import GUIDED
from cnnviz_torch.model import wrap
from support.torch_nets import native, picture
from support.torchvision_ops import define

pytestmark = pytest.mark.slow

# The layer that "auto" means, the grid there, and whether there are rectifiers.
NETS = {
    "alexnet": ("features.11", (5, 3), True),
    "vgg11_bn": ("features.27", (6, 4), True),
    "resnet18": ("layer4", (3, 2), True),
    "densenet121": ("features", (3, 2), True),
    "googlenet": ("inception5b", (3, 2), True),
    "mobilenet_v2": ("features", (3, 2), True),
    "shufflenet_v2_x0_5": ("conv5", (3, 2), True),
    "squeezenet1_1": ("classifier.2", (5, 3), True),
    "efficientnet_b0": ("features", (3, 2), False),
    "convnext_tiny": ("features", (3, 2), False),
    "swin_t": ("norm", (3, 2), False),
}


@pytest.fixture(scope="module", autouse=True)
def _importable():
    try:
        define()
    except ModuleNotFoundError:
        pytest.skip("torchvision is not installed")


def made(name, **options):
    """Make a network with weights from a seed."""
    import torchvision

    if name == "googlenet":
        options = {"init_weights": False, "aux_logits": False}
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        return torchvision.models.get_model(name, weights=None, **options).eval()


@pytest.mark.parametrize("name", NETS)
def test_architectures(name):
    layer, grid, rectified = NETS[name]
    net = made(name)
    model, x = wrap(net), picture(1, (96, 64), dtype=np.float32)
    with torch.no_grad():
        expected = net(native(x)).numpy()
    np.testing.assert_array_equal(model.forward(x).output, expected)
    found = auto_layer(model.layers)
    assert (found.name, found.grid) == (layer, grid)
    one_hot = np.eye(1000, dtype=np.float32)[[7]]
    back = model.pullback(x, one_hot, wrt=[layer, INPUT])
    assert back.gradients[layer].shape == (1, *found.shape)
    leaf = native(x).requires_grad_()
    (gradient,) = torch.autograd.grad(net(leaf)[0, 7], leaf)
    assert np.array_equal(back.gradients[INPUT], gradient.movedim(1, -1).numpy())
    if rectified:
        guided = model.pullback(x, one_hot, rule=GUIDED).gradients[INPUT]
        assert not np.array_equal(guided, back.gradients[INPUT])


def test_a_vision_transformer():
    net = made("vit_b_16", image_size=64)
    model, x = wrap(net, input_shape=(64, 64, 3)), picture(1, (64, 64), dtype=np.float32)
    info = model.layers["encoder.layers.encoder_layer_11.ln_1"]
    assert (info.shape, info.grid, info.prefix) == ((17, 768), (4, 4), 1)
    with torch.no_grad():
        np.testing.assert_array_equal(model.forward(x).output, net(native(x)).numpy())
    back = model.pullback(x, np.ones_like, wrt=[info.name])
    assert back.gradients[info.name].shape == (1, 17, 768)


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("swin_t", {"features.0.0": 96, "features.1.0.norm1": 96, "features.3.1": 192}),
        ("convnext_tiny", {"features.1.0.block.0": 96, "features.1.0.block.3": 384}),
    ],
)
def test_layers_with_the_channels_last(name, layers):
    model = wrap(made(name), input_shape=(64, 32, 3))
    for layer, channels in layers.items():
        grid = (8, 4) if layer == "features.3.1" else (16, 8)
        assert (model.layers[layer].shape, model.layers[layer].grid) == ((*grid, channels), grid)
