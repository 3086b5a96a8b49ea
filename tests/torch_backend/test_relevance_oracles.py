"""Layer-wise relevance propagation beside zennit, composite by composite."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from cnnviz_core.model import INPUT, LOGITS
from cnnviz_core.registry import get_registry
from cnnviz_relevance.composites import excitation
from cnnviz_torch.model import wrap
from support.real import loader, photographs
from support.torch_nets import Vgg, seeded
from support.torchvision_ops import define

define()

import torchvision  # noqa: E402
from torchvision.models.mobilenetv2 import InvertedResidual  # noqa: E402
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet  # noqa: E402
from zennit import composites as zennit  # noqa: E402
from zennit.canonizers import (  # noqa: E402
    AttributeCanonizer,
    CompositeCanonizer,
    SequentialMergeBatchNorm,
)
from zennit.layer import Sum  # noqa: E402
from zennit.torchvision import ResNetCanonizer  # noqa: E402

LOW, HIGH = (-2.1, -2.0, -1.8), (2.2, 2.4, 2.6)


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)[None, :, None, None]


PEERS = {
    "epsilon-plus": zennit.EpsilonPlus,
    "epsilon-plus-flat": zennit.EpsilonPlusFlat,
    "epsilon-gamma-box": lambda **k: zennit.EpsilonGammaBox(tensor(LOW), tensor(HIGH), **k),
    "epsilon-alpha2-beta1": zennit.EpsilonAlpha2Beta1,
    "epsilon-alpha2-beta1-flat": zennit.EpsilonAlpha2Beta1Flat,
}


class InvertedResidualCanonizer(AttributeCanonizer):
    """Lets zennit see the sums of MobileNetV2."""

    def __init__(self):
        super().__init__(self._attributes)

    @classmethod
    def _attributes(cls, name, module):
        if not (isinstance(module, InvertedResidual) and module.use_res_connect):
            return None
        return {"forward": cls.summed.__get__(module), "canonizer_sum": Sum()}

    @staticmethod
    def summed(self, x):
        return self.canonizer_sum(torch.stack([x, self.conv(x)], dim=-1))

    def copy(self):
        return type(self)()


def small_resnet(block):
    """A residual network of torchvision with one block a stage, for small pictures."""
    return ResNet(block, [1, 1, 1, 1], num_classes=7)


class CifarBlock(nn.Module):
    """A block of the residual networks of CIFAR-10, with shortcuts that have no parameters."""

    def __init__(self, before, after, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.relu1, self.relu2 = nn.ReLU(), nn.ReLU()
        self.stride = stride
        self.sum = None

    def forward(self, x):
        out = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        if self.stride == 2:
            side = x.shape[1] // 2
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, side, side))
        if self.sum is not None:
            return self.relu2(self.sum(torch.stack([x, out], dim=-1)))
        out += x
        return self.relu2(out)


class CifarResNet(nn.Module):
    """A residual network of CIFAR-10; with `seen`, zennit sees its sums."""

    def __init__(self, weights, blocks=3, seen=False):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu = nn.ReLU()
        for i, width in enumerate((16, 32, 64), start=1):
            first = CifarBlock(max(width // 2, 16), width, 1 if i == 1 else 2)
            rest = (CifarBlock(width, width, 1) for _ in range(blocks - 1))
            setattr(self, f"layer{i}", nn.Sequential(first, *rest))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(64, 10)
        self.load_state_dict(weights)
        for module in self.modules():
            if seen and isinstance(module, CifarBlock):
                module.sum = Sum()

    def forward(self, x):
        x = self.layer3(self.layer2(self.layer1(self.relu(self.bn1(self.conv1(x))))))
        return self.linear(self.pool(x).flatten(1))


def ours(net, x, name, **options):
    """The relevance of the input, with all of the logits' values as relevance at the top."""
    rule = get_registry().rule(name, **options)
    rule = rule.bounded(LOW, HIGH) if rule.needs_bounds else rule
    back = wrap(net).pullback(x, lambda value: value, rule=rule)
    return back.gradients[INPUT], back.values[LOGITS]


def zennits(net, x, composite):
    """The same of zennit."""
    like = next(net.parameters())
    leaf = torch.from_numpy(x).permute(0, 3, 1, 2).contiguous().to(like.dtype).requires_grad_()
    with composite.context(net) as modified:
        out = modified(leaf)
        (relevance,) = torch.autograd.grad(out, leaf, out.detach())
    return relevance.permute(0, 2, 3, 1).numpy()


def pooled_in_sight(net):
    """Make MobileNetV2's pool, a function that zennit cannot see, a layer."""
    return nn.Sequential(net.features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), net.classifier)


def exact(net):
    """Make batch norms do nothing once zennit has merged them: it divides by sqrt(1 + eps)."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 1e-14
    return net


def compare(net, x, name, canonizers, tolerance, peer=None, **options):
    """Compare the relevance of pictures, as a share of its largest magnitude in each."""
    found, logits = ours(exact(net), x, name, **options)
    expected = zennits(exact(peer or net), x, PEERS[name](canonizers=canonizers, **options))
    assert np.abs(logits).max() > 0
    assert found.any()
    largest = np.abs(expected).max(axis=(1, 2, 3), keepdims=True)
    np.testing.assert_allclose(found / largest, expected / largest, rtol=0, atol=tolerance)


def pictures(n, size, seed=3, dtype=np.float64):
    return (
        np.random.default_rng(seed)
        .uniform(-2, 2.5, (n, size, size, 3))
        .clip(LOW, HIGH)
        .astype(dtype)
    )


@pytest.mark.parametrize("name", PEERS)
def test_a_small_vgg(name):
    net = seeded(Vgg)
    x = np.random.default_rng(0).uniform(-1.5, 2, (2, 12, 8, 3))
    compare(net, x, name, [SequentialMergeBatchNorm()], 1e-12)


@pytest.mark.parametrize("block", [BasicBlock, Bottleneck])
@pytest.mark.parametrize("name", PEERS)
def test_a_small_resnet(name, block):
    compare(seeded(small_resnet, block), pictures(2, 40), name, [ResNetCanonizer()], 1e-9)


@pytest.mark.parametrize("epsilon", [1e-3, 0.25])
def test_the_epsilon_of_dense_layers(epsilon):
    net = seeded(Vgg)
    x = np.random.default_rng(1).uniform(-1.5, 2, (2, 12, 8, 3))
    compare(net, x, "epsilon-plus", [], 1e-12, epsilon=epsilon)


@pytest.mark.parametrize("gamma", [0.05, 1.0])
def test_the_gamma_of_convolutions(gamma):
    net = seeded(small_resnet, BasicBlock)
    compare(net, pictures(1, 40), "epsilon-gamma-box", [ResNetCanonizer()], 1e-9, gamma=gamma)


def test_a_small_mobilenet():
    stages = [[1, 8, 1, 1], [6, 8, 2, 2], [6, 12, 2, 2]]
    net = seeded(
        lambda: torchvision.models.MobileNetV2(5, inverted_residual_setting=stages, width_mult=1.0)
    )
    canonizer = CompositeCanonizer((SequentialMergeBatchNorm(), InvertedResidualCanonizer()))
    for name in ("epsilon-plus", "epsilon-alpha2-beta1-flat"):
        compare(net, pictures(2, 32), name, [canonizer], 1e-9, peer=pooled_in_sight(net))


def test_excitation_backprop():
    net = seeded(Vgg)
    x = np.random.default_rng(2).uniform(0, 2, (2, 12, 8, 3))
    peer = zennit.ExcitationBackprop(stabilizer=1e-200, zero_params="bias")
    found = wrap(net).pullback(x, lambda value: value, rule=excitation()).gradients[INPUT]
    assert found.any()
    np.testing.assert_allclose(found, zennits(net, x, peer), rtol=1e-10, atol=1e-14)


@pytest.mark.slow
@pytest.mark.parametrize("name", PEERS)
@pytest.mark.parametrize("network", ["vgg16", "resnet18", "resnet50"])
def test_networks_of_torchvision(name, network):
    net = seeded(getattr(torchvision.models, network))
    compare(net, pictures(1, 64), name, [ResNetCanonizer()], 1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", PEERS)
@pytest.mark.parametrize("network", ["squeezenet1_1", "mobilenet_v2"])
def test_real_weights(name, network, test_data):
    load = loader(test_data)
    # With zeros padded by a layer of their own zennit's box and flat rules lose relevance to them.
    net = load.torch_model(network, tf_padding=False).double()
    x = load.preprocess(network, photographs(test_data, 1)[0]).astype(np.float64)
    canonizer = CompositeCanonizer((SequentialMergeBatchNorm(), InvertedResidualCanonizer()))
    peer = pooled_in_sight(net) if network == "mobilenet_v2" else net
    compare(net, x, name, [canonizer], 1e-6, peer=peer)


@pytest.mark.parametrize("name", PEERS)
def test_real_weights_of_cifar(name, test_data):
    with np.load(test_data / "weights" / "cifar10_resnet20_f32.npz") as file:
        weights = {key: torch.from_numpy(file[key]) for key in file.files}
    net, peer = (CifarResNet(weights, seen=seen).double().eval() for seen in (False, True))
    x = pictures(2, 32)
    compare(net, x, name, [SequentialMergeBatchNorm()], 1e-6, peer=peer)
