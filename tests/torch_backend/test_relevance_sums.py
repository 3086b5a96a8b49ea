"""Sums and averages split relevance among what they add up."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cnnviz_core.model import INPUT, input_node
from cnnviz_core.steps import z_plus
from cnnviz_torch.model import wrap
from support.torch_nets import picture
from support.torch_relevance import CALM, assert_same, conv, head, made, relevance_of, rule

ADDED = {
    "add": (lambda a, b: a + b, 1, 1),
    "in place": (lambda a, b: a.clone().add_(b), 1, 1),
    "alpha": (lambda a, b: torch.add(a, b, alpha=3), 1, 3),
    "sub": (lambda a, b: a - b, 1, -1),
    "sub, alpha": (lambda a, b: torch.sub(a, b, alpha=0.5), 1, -0.5),
    "rsub": (lambda a, b: torch.rsub(a, b, alpha=2), -2, 1),
}


@pytest.mark.parametrize("name", ADDED)
def test_sums_split_among_contributions(name):
    add, *factors = ADDED[name]

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.precision = nn.Parameter(torch.ones((), dtype=torch.float64))

        def forward(self, one, other):
            return add(one, other)

    rng = np.random.default_rng(0)
    x = {"one": rng.normal(size=(2, 6)), "other": rng.normal(size=(2, 6))}
    top = rng.normal(size=(2, 6))
    model = wrap(Net())
    wrt = [input_node("one"), input_node("other")]
    parts = [f * v for f, v in zip(factors, x.values(), strict=True)]
    for step, kept in ((CALM, parts), (z_plus(0.01), [np.maximum(p, 0) for p in parts])):
        z = kept[0] + kept[1]
        shares = top / (z + np.where(z >= 0, 0.01, -0.01))
        back = model.pullback(x, top, wrt=wrt, rule=rule("sum", CALM, shared=step)).gradients
        for node, part in zip(wrt, kept, strict=True):
            np.testing.assert_allclose(back[node], part * shares, rtol=1e-12, atol=1e-15)
        alone = model.pullback(x, top, wrt=wrt[:1], rule=rule("sum", CALM, shared=step))
        np.testing.assert_array_equal(alone.gradients[wrt[0]], back[wrt[0]])


def test_broadcast_sums_gather_what_they_spread():
    net = made(lambda x, c: x + x.mean((2, 3), keepdim=True), conv())
    x = picture()
    mean = x.mean((1, 2), keepdims=True)
    shares = np.ones_like(x) / (x + mean + np.where(x + mean >= 0, 0.01, -0.01))
    gathered = (mean * shares).sum((1, 2), keepdims=True)
    expected = x * shares + x * gathered / x.shape[1] / x.shape[2] / (
        mean + np.where(mean >= 0, 0.01, -0.01)
    )
    back = wrap(net).pullback(x, np.ones_like, rule=rule("sum", CALM, shared=CALM))
    np.testing.assert_allclose(back.gradients[INPUT], expected, rtol=1e-10)


AVERAGES = {
    "adaptive": lambda v: F.adaptive_avg_pool2d(v, 1).flatten(1),
    "mean": lambda v: v.mean((2, 3)),
    "two means": lambda v: v.mean(3).mean(2),
    "sum": lambda v: v.sum((-1, -2)) / 80,
    "pool": lambda v: F.avg_pool2d(v, v.shape[2:]).flatten(1),
    "flat": lambda v: v.flatten(2).mean(-1),
}


@pytest.mark.parametrize("name", AVERAGES)
def test_averages_in_any_spelling(name):
    x = picture()

    def net(average):
        return made(lambda x, c, f: f(average(c(x).relu())), conv(), head())

    shared = rule("shared", z_plus(), CALM, shared=z_plus(0))
    expected = relevance_of(net(AVERAGES["mean"]), x, shared)
    assert_same(relevance_of(net(AVERAGES[name]), x, shared), expected)
