"""A batch that lacks a channel in each row is carried on as one row, and nothing else tells."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from cnnviz_core.ablated import ABLATE, Ablated
from cnnviz_core.registry import get_registry
from cnnviz_core.targets import ClassProbability, ClassScore
from cnnviz_torch import ablating
from cnnviz_torch.model import wrap

N = 40
LAYER = "stem"


class Net(nn.Module):
    """A stem of seven channels on an even grid, and what a test puts behind it."""

    def __init__(self, behind, features):
        super().__init__()
        self.stem = nn.Conv2d(3, 7, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.drop = nn.Dropout()
        self.conv = nn.Conv2d(7, 4, 3)
        self.norm = nn.BatchNorm2d(7)
        self.fc = nn.Linear(features, 5)
        self.last = nn.Linear(5, 3)
        self.behind = behind

    def forward(self, x):
        return self.behind(self, self.stem(x))

    def head(self, x):
        return self.last(torch.tanh(self.fc(x)))


def unpooled(net, y):
    pooled, places = F.max_pool2d(y, 2, return_indices=True)
    return net.head(F.max_unpool2d(pooled, places, 2).flatten(1))


CARRIED = {
    "flatten": (lambda net, y: net.head(net.drop(y).flatten(1)), 252),
    "rectified": (lambda net, y: net.head(net.relu(y).view(y.size(0), -1)), 252),
    "relu6": (lambda net, y: net.head(F.relu6(y).reshape(-1, 252)), 252),
    "gelu": (lambda net, y: net.head(F.gelu(y).flatten(1)), 252),
    "pooled": (lambda net, y: net.head(F.max_pool2d(net.relu(y), 2).flatten(1)), 63),
    "padded": (
        lambda net, y: net.head(F.avg_pool2d(y, 3, 2, padding=1, ceil_mode=True).flatten(1)),
        112,
    ),
    "adaptive": (lambda net, y: net.head(F.adaptive_avg_pool2d(F.silu(y), 2).flatten(1)), 28),
    "last": (lambda net, y: net.head(y.permute(0, 2, 3, 1).contiguous().flatten(1)), 252),
    "turned": (lambda net, y: net.head(y.transpose(2, 3).flatten(1)), 252),
    "unbiased": (lambda net, y: net.last(torch.tanh(y.flatten(1) @ net.fc.weight.t())), 252),
}
MADE = {
    "convolved": (lambda net, y: net.head(net.conv(net.relu(y)).flatten(1)), 64),
    "normalised": (lambda net, y: net.head(net.norm(y).flatten(1)), 252),
    "sigmoid": (lambda net, y: net.head(torch.sigmoid(y).flatten(1)), 252),
    "clamped": (lambda net, y: net.head(y.clamp(min=0.5).flatten(1)), 252),
    "mean": (lambda net, y: net.head(y.mean((2, 3))), 7),
    "squeezed": (lambda net, y: net.head(F.adaptive_avg_pool2d(y, 1).squeeze()), 7),
    "unsqueezed": (lambda net, y: net.head(y.unsqueeze(0).squeeze(0).flatten(1)), 252),
    "added": (lambda net, y: net.head((y + F.max_pool2d(y, 3, 1, 1)).flatten(1)), 252),
    "tokens": (lambda net, y: net.head(y.flatten(2).transpose(1, 2)).mean(1), 7),
    "unpooled": (unpooled, 252),
    "swapped": (lambda net, y: net.head(y.transpose(0, 1).transpose(0, 1).flatten(1)), 252),
    "shuffled": (
        lambda net, y: net.head(y.reshape(-1, 6, 6).reshape(len(y), -1)),
        252,
    ),
    "row by row": (lambda net, y: torch.stack([net.head(row.flatten()) for row in y]), 252),
    "written to": (lambda net, y: net.head(y.mul_(2).flatten(1)), 252),
    "sorted": (lambda net, y: net.head(y.flatten(1).sort(1).values), 252),
    "the end": (lambda net, y: F.adaptive_avg_pool2d(y, 1).flatten(1), 252),
}
ALL = CARRIED | MADE


def case(name):
    torch.manual_seed(0)
    net = Net(*ALL[name]).double().eval()
    net.norm.running_mean.uniform_(-0.5, 0.5)
    x = np.random.default_rng(0).normal(size=(6, 6, 3))
    return net, x


def answers(model, x, put, capture=()):
    n = len(put)
    rows = np.broadcast_to(x, (n, *x.shape))
    return model.forward(rows, replace={LAYER: put}, capture=capture).values


@pytest.mark.parametrize("prepared", [False, True])
@pytest.mark.parametrize("name", ALL)
def test_a_described_batch_gives_what_the_batch_gives(name, prepared, monkeypatch):
    net, x = case(name)
    model = wrap(net, input_shape=(6, 6, 3))
    value = model.forward(x[None], capture=(LAYER,))[LAYER][0]
    fast = model.prepared(x[None]) if prepared else model
    for channels in (np.arange(16) % 7, np.array([3]), np.array([6, 1, 6])):
        batch = Ablated(value, channels)
        found = [answers(fast, x, batch)]
        if not prepared:
            found.append(answers(fast, x, batch, capture=tuple(model.layers)[1:]))
        monkeypatch.setenv("CNNVIZ_FAST", "0")
        right = answers(model, x, np.asarray(batch))
        monkeypatch.delenv("CNNVIZ_FAST")
        for each in found:
            for node, values in right.items():
                np.testing.assert_allclose(each[node], values, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("prepared", [False, True])
@pytest.mark.parametrize("name", ALL)
def test_where_it_can_be_carried_on_it_is_never_made(name, prepared, monkeypatch):
    net, x = case(name)
    model = wrap(net, input_shape=(6, 6, 3))
    value = model.forward(x[None], capture=(LAYER,))[LAYER][0]
    fast = model.prepared(x[None]) if prepared else model
    monkeypatch.setattr(ablating, "_MOST_BYTES", 0)
    batch = Ablated(value, np.arange(N) % 7)
    if name in CARRIED:
        answers(fast, x, batch)
    else:
        with pytest.raises(MemoryError):
            answers(fast, x, batch)
    answers(fast, x, batch[:16])


@pytest.mark.parametrize("target", [ClassScore(1), ClassProbability(2)])
@pytest.mark.parametrize("name", ["rectified", "padded", "convolved", "mean", "unpooled"])
def test_ablation_cam_is_the_same_whatever_the_batch(name, target, monkeypatch):
    net, x = case(name)
    batch = np.stack([x, x, 0.5 - x])

    def asked(**params):
        model = wrap(net, input_shape=(6, 6, 3))
        explainer = get_registry().explainer("ablation-cam", layer=LAYER, **params)
        return explainer.explain(model, batch, [target] * 3)

    found = [asked(), asked(batch_size=2), asked(batch_size="auto")]
    monkeypatch.setattr(ablating, "_FEW", 2)
    monkeypatch.setattr(ablating, "_MOST_BYTES", 0)
    found.append(asked())
    monkeypatch.setenv("CNNVIZ_FAST", "0")
    right = asked(batch_size=3)
    for each in [*found, asked()]:
        np.testing.assert_allclose(each.raw, right.raw, rtol=1e-10, atol=1e-12)


def test_a_described_batch_that_does_not_fit_is_refused():
    net, x = case("flatten")
    model = wrap(net, input_shape=(6, 6, 3))
    assert ABLATE in model.capabilities
    for value in (np.zeros((6, 6, 8)), np.full((6, 6, 7), np.nan)):
        for fast in (model, model.prepared(x[None])):
            with pytest.raises(ValueError, match="replacement"):
                answers(fast, x, Ablated(value, np.arange(5)))
