"""A pooled copy of a torch network: what it computes, how it is trained, what it leaves alone."""

from __future__ import annotations

import copy
import random
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cnnviz.heads import fitted, pooled
from cnnviz_core.errors import (
    ArrayError,
    ParameterError,
    UnknownLayerError,
    UnsupportedModelError,
)
from cnnviz_core.registry import get_registry
from cnnviz_core.targets import ClassScore
from cnnviz_torch.model import wrap
from support.torch_nets import Residual, Vgg, seeded
from support.torchvision_ops import define

SHAPE = (12, 8, 3)
CUTS = [  # a network, a layer of it, and what that layer gives, by hand
    (Vgg, "auto", lambda net, x: net.features[:7](x)),
    (Vgg, "features.4", lambda net, x: net.features[:5](x)),
    (Vgg, "features", lambda net, x: net.features(x)),
    (Residual, "relu@0", lambda net, x: F.relu(net.stem(x))),
    (Residual, "conv1", lambda net, x: net.conv1(F.avg_pool2d(F.relu(net.stem(x)), 2))),
]


def batch(n=5, shape=SHAPE, seed=0):
    return np.random.default_rng(seed).normal(size=(n, *shape))


def channels_first(x):
    return torch.from_numpy(np.moveaxis(x, -1, 1).copy())


def everything(net):
    """Take down what a network holds, and the states of the random generators."""
    state = {key: value.numpy().tobytes() for key, value in net.state_dict().items()}
    flags = [module.training for module in net.modules()]
    asks = [(p.requires_grad, p.grad is None, p.data_ptr()) for p in net.parameters()]
    attributes = [sorted(vars(module)) for module in net.modules()]
    generators = torch.get_rng_state().numpy().tobytes(), random.getstate()
    return state, flags, asks, attributes, repr(generators), repr(net)


@pytest.mark.parametrize("pooling", ["average", "max"])
@pytest.mark.parametrize(("make", "layer", "by_hand"), CUTS)
def test_the_scores_are_a_linear_function_of_the_pooled_channels(make, layer, by_hand, pooling):
    net, x = seeded(make), batch()
    made = pooled(net, layer=layer, pooling=pooling, classes=3, input_shape=SHAPE, seed=4)
    with torch.no_grad():
        features = by_hand(copy.deepcopy(net), channels_first(x))
        channels = features.mean((2, 3)) if pooling == "average" else features.amax((2, 3))
        expected = channels @ made.linear.weight.T + made.linear.bias
        found = made(channels_first(x))
    assert list(dict(made.named_children())) == ["body", "pool", "flatten", "linear"]
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_the_added_convolution_keeps_the_grid_and_is_rectified():
    net, x = seeded(Vgg), batch()
    made = pooled(net, extra=9, input_shape=SHAPE)
    with torch.no_grad():
        features = net.features[:7](channels_first(x))
        inner = F.relu(F.conv2d(features, made.conv.weight, made.conv.bias, padding=1))
        expected = inner.mean((2, 3)) @ made.linear.weight.T
    assert made.conv.weight.shape == (9, 8, 3, 3)
    torch.testing.assert_close(made(channels_first(x)), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("extra", [0, 5])
def test_the_mean_of_cam_and_the_bias_are_the_score(extra):
    x, y = batch(8), np.arange(8) % 4
    made = pooled(seeded(Vgg), extra=extra, start="least-squares", data=(x, y))
    cam = get_registry().explainer("cam")
    maps = cam.explain(wrap(made, input_shape=SHAPE), x, [ClassScore(int(c)) for c in y])
    bias = made.linear.bias.detach().numpy()[y]
    assert np.abs(bias).max() > 0.01
    np.testing.assert_allclose(maps.raw.mean((1, 2)) + bias, maps.scores, rtol=1e-10, atol=1e-12)


def test_the_draws_are_those_of_the_seed():
    net = seeded(Vgg)
    first, same, other = (pooled(net, extra=4, input_shape=SHAPE, seed=s) for s in (1, 1, 2))
    for key, value in first.state_dict().items():
        assert torch.equal(value, same.state_dict()[key])
    assert not torch.equal(first.linear.weight, other.linear.weight)
    zeros = pooled(net, start="zeros", input_shape=SHAPE)
    assert not zeros.linear.weight.any()


def test_the_closed_form_is_least_squares():
    net, x = seeded(Vgg), batch(40)
    made = pooled(net, start="least-squares", data=x, ridge_strength=0.0)
    with torch.no_grad():
        channels = net.features[:7](channels_first(x)).mean((2, 3)).numpy()
        scores = net(channels_first(x)).numpy()
    columns = np.column_stack([channels, np.ones(len(x))])
    solution = np.linalg.lstsq(columns, scores, rcond=None)[0]
    np.testing.assert_allclose(made.linear.weight.detach().T, solution[:-1], rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(made.linear.bias.detach(), solution[-1], rtol=1e-6, atol=1e-8)


def test_a_network_with_such_a_head_gets_its_own_scores_back():
    body = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU())
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 4))
    net = nn.Sequential(body, head).double().eval()
    x = batch(30)
    made = pooled(net, start="least-squares", data=x, ridge_strength=0.0)
    torch.testing.assert_close(made(channels_first(x)), net(channels_first(x)))


def test_training_the_head_is_softmax_regression():
    net, x = seeded(Vgg), batch(10)
    y = np.random.default_rng(1).integers(0, 4, 10)
    start = pooled(net, input_shape=SHAPE, seed=3)
    done = fitted(start, (x, y), epochs=3, rate=0.5, batch_size=4, seed=7, optimiser="sgd")
    with torch.no_grad():
        channels = net.features[:7](channels_first(x)).mean((2, 3)).numpy()
    weight = start.linear.weight.detach().numpy().T.copy()
    bias = start.linear.bias.detach().numpy().copy()
    rng = np.random.default_rng(7)
    for epoch in done.epochs:
        order, loss, right = rng.permutation(10), 0.0, 0
        for rows in (order[:4], order[4:8], order[8:]):
            scores = channels[rows] @ weight + bias
            shares = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
            loss -= np.log(shares[range(len(rows)), y[rows]]).sum()
            right += (scores.argmax(1) == y[rows]).sum()
            slope = (shares - np.eye(4)[y[rows]]) / len(rows)
            weight -= 0.5 * channels[rows].T @ slope
            bias -= 0.5 * slope.sum(0)
        assert epoch.loss == pytest.approx(loss / 10, rel=1e-10)
        assert epoch.accuracy == right / 10
        assert epoch.validation is None
    np.testing.assert_allclose(done.network.linear.weight.detach().T, weight, rtol=1e-9)
    np.testing.assert_allclose(done.network.linear.bias.detach(), bias, rtol=1e-9)


@pytest.mark.parametrize("train", ["head", "all"])
def test_training_changes_what_it_is_to_change(train):
    x, y = batch(12), np.arange(12) % 4
    start = pooled(seeded(Residual), extra=4, classes=4, input_shape=SHAPE)
    before = everything(start)
    done = fitted(start, (x, y), epochs=2, train=train, validation=(x, y)).network
    assert everything(start) == before
    changed = {
        key.partition(".")[0]
        for key, value in done.state_dict().items()
        if not torch.equal(value, start.state_dict()[key])
    }
    assert changed == {"conv", "linear"} | ({"body"} if train == "all" else set())
    assert not any(module.training for module in done.modules())
    assert all(p.grad is None for p in done.parameters())


def test_what_is_frozen_stays():
    start = pooled(seeded(Vgg), input_shape=SHAPE)
    start.body.get_submodule("features.0").weight.requires_grad_(False)
    done = fitted(start, (batch(4), np.arange(4)), train="all", epochs=1).network
    assert torch.equal(
        done.body.get_submodule("features.0").weight, start.body.get_submodule("features.0").weight
    )
    assert not torch.equal(
        done.body.get_submodule("features.2").weight, start.body.get_submodule("features.2").weight
    )


def test_validation_is_the_accuracy_after_each_epoch():
    x, y = batch(12), np.arange(12) % 4
    start = pooled(seeded(Vgg), input_shape=SHAPE)
    done = fitted(start, (x, y), epochs=3, rate=0.1, validation=(x[:7], y[:7]))
    share = (done.network(channels_first(x[:7])).argmax(1).numpy() == y[:7]).mean()
    assert done.epochs[-1].validation == pytest.approx(share)


def test_a_training_with_dropout_can_be_repeated():
    net = seeded(Vgg)
    x, y = batch(16), np.arange(16) % 4
    runs = []
    for seed in (1, 1, 2):
        torch.rand(3)  # whatever was drawn before
        runs.append(fitted(net, (x, y), train="all", epochs=2, seed=seed))
    assert runs[0].epochs == runs[1].epochs != runs[2].epochs
    for key, value in runs[0].network.state_dict().items():
        assert torch.equal(value, runs[1].network.state_dict()[key])


def test_the_users_network_is_as_it_was():
    net, x = seeded(Vgg), batch(6)
    net.features[3].train()
    net.features[0].weight.grad = torch.ones_like(net.features[0].weight)
    before = everything(net)
    made = pooled(net, extra=3, start="least-squares", data=(x, np.arange(6) % 4))
    fitted(net, (x, np.arange(6) % 4), train="all", epochs=1, batch_size=3)
    with pytest.raises(UnsupportedModelError):
        fitted(net, (x, np.arange(6) % 4), train="head")
    assert everything(net) == before
    pointers = {p.data_ptr() for p in net.parameters()}
    assert pointers.isdisjoint(p.data_ptr() for p in made.parameters())


class Choosing(nn.Module):
    """Goes another way for brighter inputs."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        made = self.conv(x) if x.mean() > 0 else self.conv(-x)
        return self.head(made.mean((2, 3)))


class Last(nn.Module):
    """Has its channels on the last axis."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.mix = nn.Linear(4, 6)
        self.head = nn.Linear(6, 2)

    def forward(self, x):
        return self.head(self.mix(self.conv(x).permute(0, 2, 3, 1)).mean((1, 2)))


def test_networks_that_cannot_be_cut_are_refused():
    with pytest.raises(UnsupportedModelError, match="cannot trace it"):
        pooled(seeded(Choosing), input_shape=SHAPE)
    with pytest.raises(UnsupportedModelError, match="does not compute what the layer gives"):
        pooled(seeded(Last), layer="mix", input_shape=SHAPE)
    with pytest.raises(UnsupportedModelError, match="no grid of channels"):
        pooled(seeded(Vgg), layer="classifier.0", input_shape=SHAPE)
    with pytest.raises(UnknownLayerError, match="no layer 'neck'"):
        pooled(seeded(Vgg), layer="neck", input_shape=SHAPE)
    exported = torch.export.export(seeded(Vgg), (channels_first(batch(1)),))
    with pytest.raises(UnsupportedModelError, match="ExportedProgram cannot be changed"):
        pooled(exported)
    with pytest.raises(UnsupportedModelError, match="ExportedProgram cannot be changed"):
        fitted(exported, (batch(1), np.arange(1)), train="all")


def test_senseless_arguments_are_refused():
    net, x, y = seeded(Vgg), batch(4), np.arange(4)
    with pytest.raises(ParameterError, match="says too little"):
        pooled(net)
    with pytest.raises(ParameterError, match="without data"):
        pooled(net, input_shape=SHAPE, start="least-squares")
    with pytest.raises(ParameterError, match="classes=3 was given"):
        pooled(net, data=x, start="least-squares", classes=3)
    with pytest.raises(ParameterError, match="pooling is"):
        pooled(net, pooling="median")
    with pytest.raises(ParameterError, match="start is"):
        pooled(net, start="ones")
    with pytest.raises(ParameterError, match="extra=-1"):
        pooled(net, extra=-1)
    with pytest.raises(ParameterError, match="strength"):
        pooled(net, data=x, start="least-squares", ridge_strength=-1.0)
    with pytest.raises(ArrayError, match="from 0 to 4"):
        pooled(net, data=(x, y + np.array([0, 0, 0, 1])), start="least-squares")
    with pytest.raises(ArrayError, match="whole numbers"):
        fitted(net, (x, y * 1.0), train="all")
    with pytest.raises(ArrayError, match="the data is a ndarray"):
        fitted(net, x, train="all")
    with pytest.raises(ArrayError, match="from 4 to 4"):
        fitted(net, (x, y), train="all", validation=(x[:1], np.array([4])))
    with pytest.raises(ParameterError, match="epochs=0"):
        fitted(net, (x, y), train="all", epochs=0)
    with pytest.raises(ParameterError, match="the optimiser is 'lbfgs'"):
        fitted(net, (x, y), train="all", optimiser="lbfgs")
    with pytest.raises(UnsupportedModelError, match="something else than scores"):
        fitted(nn.Sequential(net, nn.Softmax(1)), (x, y), train="all")
    with pytest.raises(UnsupportedModelError, match="no backend takes"):
        pooled(lambda x: x)
    with pytest.raises(UnsupportedModelError, match="no framework's network"):
        pooled(wrap(net))


@pytest.mark.parametrize("name", ["alexnet", "squeezenet1_1", "resnet18", "googlenet"])
def test_torchvisions_networks_can_be_cut(name):
    define()
    import torchvision

    options = {"init_weights": False, "aux_logits": False} if name == "googlenet" else {}
    net = seeded(getattr(torchvision.models, name), dtype=torch.float32, weights=None, **options)
    x = batch(1, (64, 64, 3)).astype(np.float32)
    made = pooled(net, classes=7, data=x)
    maps = (
        get_registry()
        .explainer("cam")
        .explain(wrap(made, input_shape=(64, 64, 3)), x, [ClassScore(5)])
    )
    assert made(channels_first(x)).shape == (1, 7)
    np.testing.assert_allclose(maps.raw.mean(), maps.scores[0], rtol=1e-4, atol=1e-6)


def test_a_pooled_network_needs_no_cnnviz_to_run(tmp_path):
    torch.save(pooled(seeded(Vgg).features, classes=2, input_shape=SHAPE), tmp_path / "net.pt")
    code = (
        "import sys, torch; net = torch.load(sys.argv[1], weights_only=False); "
        "print(net(torch.zeros(1, 3, 12, 8).double()).shape[1], 'cnnviz' in sys.modules)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "net.pt")], capture_output=True, text=True
    )
    assert run.stdout.split() == ["2", "False"], run.stderr
