"""A layer is said to be affine where the gradient tells what any step does to the logits."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from cnnviz_core.errors import UnknownLayerError
from cnnviz_torch.model import wrap


class Turned(torch.autograd.Function):
    """Hands on what it is given, and turns the gradient round."""

    @staticmethod
    def forward(ctx, x):
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient):
        return -gradient


class TurnedItself(Turned):
    """The same, of the very tensor."""

    @staticmethod
    def forward(ctx, x):
        return x


class Net(nn.Module):
    """A stem and what a test puts behind it."""

    def __init__(self, behind):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3)
        self.conv = nn.Conv2d(4, 4, 3, padding=1, groups=2)
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout()
        self.fc = nn.Linear(4, 3)
        self.behind = behind

    def forward(self, x):
        return self.behind(self, self.stem(x))

    def head(self, y):
        return self.fc(y.mean((2, 3)))


AFFINE = {
    "mean": lambda net, y: net.head(y),
    "softmax": lambda net, y: net.head(y).softmax(1),
    "adaptive": lambda net, y: net.fc(F.adaptive_avg_pool2d(y, 1).flatten(1)),
    "average": lambda net, y: net.head(F.avg_pool2d(y, 2)),
    "normalised": lambda net, y: net.head(net.norm(y)),
    "convolved": lambda net, y: net.head(net.drop(net.conv(y)) * 3 - y / 2),
    "joined": lambda net, y: net.head(torch.cat([y[:, 2:], y[:, :2] * 2], 1)),
    "product": lambda net, y: y.mean((2, 3)) @ net.fc.weight.t(),
}
OTHERS = {
    "relu": lambda net, y: net.head(y.relu()),
    "max pool": lambda net, y: net.head(F.max_pool2d(y, 2)),
    "square": lambda net, y: net.head(y * y),
    "ratio": lambda net, y: net.head(y / (1 + y.sum())),
    "gate": lambda net, y: net.head(y * torch.sigmoid(y.mean((2, 3), keepdim=True))),
    "batch norm of the batch": lambda net, y: net.head(F.batch_norm(y, None, None, training=True)),
    "detached": lambda net, y: net.head(y + y.detach()),
    "turned": lambda net, y: net.head(Turned.apply(y)),
    "turned itself": lambda net, y: net.head(TurnedItself.apply(y)),
    "rounded": lambda net, y: net.head(y.half().double()),
    "weight": lambda net, y: net.head(F.conv2d(y, y[:1, :, :3, :3].expand(4, 4, 3, 3))),
}


def model_of(behind):
    torch.manual_seed(0)
    net = Net(behind).double().eval()
    net.norm.running_mean.uniform_(-0.5, 0.5)
    net.norm.running_var.uniform_(0.5, 2)
    return wrap(net, input_shape=(7, 7, 3))


@pytest.mark.parametrize("name", AFFINE)
def test_a_layer_is_affine_and_the_gradient_gives_any_step(name):
    model = model_of(AFFINE[name])
    assert model.layers["stem"].affine
    random = np.random.default_rng(0)
    x, step = random.normal(size=(2, 7, 7, 3)), 10 * random.normal(size=(2, 5, 5, 4))
    clean = model.forward(x, capture=("stem",))
    weights = random.normal(size=clean.logits.shape)
    slope = model.pullback(x, weights, wrt=("stem",)).gradients["stem"]
    moved = model.forward(x, replace={"stem": clean["stem"] + step}).logits
    assert np.isclose((weights * (moved - clean.logits)).sum(), (slope * step).sum(), rtol=1e-10)


@pytest.mark.parametrize("name", OTHERS)
def test_others_are_not(name):
    assert not model_of(OTHERS[name]).layers["stem"].affine


def test_a_hook_that_changes_gradients_is_not_passed_over():
    net = Net(AFFINE["mean"]).eval()
    net.fc.register_full_backward_hook(lambda module, given, made: (2 * given[0],))
    assert not wrap(net, input_shape=(7, 7, 3)).layers["stem"].affine


def test_where_the_activation_counts_as_the_end_no_layer_is_affine():
    net = Net(AFFINE["softmax"]).eval()
    assert wrap(net, input_shape=(7, 7, 3)).layers["stem"].affine
    assert not wrap(net, input_shape=(7, 7, 3), activation="none").layers["stem"].affine


def test_what_cannot_be_noted_is_not_known():
    model = model_of(lambda net, y: net.head(F.dropout(y, 0.5, training=True)))
    assert not model.layers["stem"].affine
    assert not model._network.structure().cuts


def test_of_what_the_logits_do_not_depend_nothing_is_said():
    model = model_of(lambda net, y: net.head(torch.ones_like(y)))
    with pytest.raises(UnknownLayerError):
        model.pullback(np.zeros((1, 7, 7, 3)), np.cos, wrt=("stem",))


def test_no_value_outlives_the_look_at_the_network():
    net = Net(AFFINE["mean"]).eval()
    weight = weakref.ref(net.fc.weight)
    structure = wrap(net, input_shape=(7, 7, 3))._network.structure()
    del net
    gc.collect()
    assert weight() is None
    assert "stem" in structure.cuts
