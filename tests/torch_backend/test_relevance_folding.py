"""Batch norms and zero padding belong to their convolution, however they are spelt."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cnnviz_core.model import INPUT
from cnnviz_core.rules import BackwardRule
from cnnviz_core.steps import DERIVATIVE, alpha_beta, flat
from cnnviz_torch.model import wrap
from support.torch_nets import Residual, picture, seeded
from support.torch_relevance import (
    CALM,
    FOLDING,
    RULES,
    assert_same,
    by_norm,
    conv,
    head,
    made,
    relevance_of,
    rule,
)


def columns(values):
    return values.reshape(-1, 1, 1)


def factor(n):
    return n.weight * (n.running_var + n.eps).rsqrt()


def _in_place(v, n):
    v -= columns(n.running_mean)
    v /= columns((n.running_var + n.eps).sqrt())
    v *= columns(n.weight)
    v += columns(n.bias)
    return v


NORMS = {
    "batch_norm": lambda v, n: F.batch_norm(
        v, n.running_mean, n.running_var, n.weight, n.bias, eps=n.eps
    ),
    "frozen": lambda v, n: v * columns(factor(n)) + columns(n.bias - n.running_mean * factor(n)),
    "published": lambda v, n: (
        ((v - columns(n.running_mean)) / columns((n.running_var + n.eps).sqrt()))
        * columns(n.weight)
        + columns(n.bias)
    ),
    "in place": _in_place,
    "negated": lambda v, n: columns(n.bias) - -(v - columns(n.running_mean)) * columns(factor(n)),
    "rsub": lambda v, n: (
        torch.rsub(v, columns(n.running_mean)) * columns(-factor(n)) + columns(n.bias)
    ),
    "channels last": lambda v, n: (
        (v.permute(0, 2, 3, 1) - n.running_mean) * factor(n) + n.bias
    ).permute(0, 3, 1, 2),
    "flattened": lambda v, n: n(v.flatten(2)[..., None]).reshape(v.shape),
    "with a number": lambda v, n: n(v * 2.0 / 2.0 + 0.5 - 0.5),
    "two": lambda v, n: n(
        n(v) * columns(1 / factor(n)) + columns(n.running_mean - n.bias / factor(n))
    ),
}


@pytest.mark.parametrize("name", NORMS)
def test_batch_norms_fold_in_any_spelling(name):
    x = picture()
    by_hand = by_norm(lambda v, n: n(v))
    c, n, f = by_hand.parts
    fused = made(lambda x, c, f: f(c(x).relu().mean((2, 3))), conv(), head())
    with torch.no_grad():
        fused.parts[0].weight.copy_(c.weight * factor(n).reshape(-1, 1, 1, 1))
        fused.parts[0].bias.copy_(n.bias - n.running_mean * factor(n))
        fused.parts[1].load_state_dict(f.state_dict())
    for step in FOLDING:
        assert_same(relevance_of(by_norm(NORMS[name]), x, step), relevance_of(fused, x, step))


NOT_FOLDED = {
    "read between": lambda v, n: n(v).relu() + v,
    "along places": lambda v, n: v * torch.linspace(0.1, 2, 8).double(),
    "along other channels": lambda v, n: n(v.transpose(1, 3)).transpose(1, 3),
    "of every value": lambda v, n: (
        v + torch.linspace(-1, 1, v[0].numel()).double().reshape(v[0].shape)
    ),
}


@pytest.mark.parametrize("name", NOT_FOLDED)
def test_only_constants_along_channels_are_folded(name):
    net, x = by_norm(NOT_FOLDED[name]), picture()
    alone = made(lambda x, c: c(x), conv(bias=False))
    alone.parts[0].load_state_dict(net.parts[0].state_dict())
    step = rule("alpha-beta", alpha_beta(), shared=CALM)
    whole = wrap(net).pullback(x, lambda v: v, wrt=["parts.0", INPUT], rule=step).gradients
    # What arrives at the convolution is split by its own weights alone.
    split_alone = wrap(alone).pullback(x, whole["parts.0"], rule=step).gradients
    assert_same(whole[INPUT], split_alone[INPUT])


ODD = BackwardRule("odd", {**FOLDING[0].steps, "batchnorm": DERIVATIVE})


@pytest.mark.parametrize("made_rule", [*FOLDING, ODD], ids=lambda made: made.name)
def test_values_inside_a_fold_have_the_relevance_of_its_end(made_rule):
    net, x = seeded(Residual), picture()
    model = wrap(net)
    back = model.pullback(x, lambda v: v, wrt=["conv1", "bn1", INPUT], rule=made_rule).gradients
    np.testing.assert_array_equal(back["conv1"], back["bn1"])
    np.testing.assert_array_equal(
        back[INPUT], model.pullback(x, lambda v: v, rule=made_rule).gradients[INPUT]
    )
    np.testing.assert_array_equal(
        back["conv1"],
        model.pullback(x, lambda v: v, wrt=["conv1"], rule=made_rule).gradients["conv1"],
    )


def _unpadded(x, c, f):
    return f(c(F.pad(x, (1, 1, 1, 1))).relu().mean((2, 3)))


@pytest.mark.parametrize("name", ["flat", "z-box", "alpha-beta", "w-square"])
def test_zero_padding_belongs_to_the_convolution(name):
    x = picture()
    inside = made(lambda x, c, f: f(c(x).relu().mean((2, 3))), conv(padding=1), head())
    before = made(_unpadded, conv(), head())
    layer = made(
        lambda x, p, c, f: f(c(p(x)).relu().mean((2, 3))), lambda: nn.ZeroPad2d(1), conv(), head()
    )
    expected = relevance_of(inside, x, RULES[name])
    assert_same(relevance_of(before, x, RULES[name]), expected)
    assert_same(relevance_of(layer, x, RULES[name]), expected)
    back = wrap(layer).pullback(x, lambda v: v, wrt=["parts.0", INPUT], rule=RULES[name]).gradients
    assert_same(back[INPUT], expected)
    np.testing.assert_array_equal(back["parts.0"][:, 1:-1, 1:-1], back[INPUT])
    assert not back["parts.0"][:, 0].any()


def test_padding_with_another_value_is_data():
    x = picture()
    net = made(lambda x, c, f: f(c(F.pad(x, (1, 1, 1, 1), value=2.0)).mean((2, 3))), conv(), head())
    inside = made(lambda x, c, f: f(c(x).mean((2, 3))), conv(padding=1), head())
    even = rule("flat", flat(0), shared=flat(0))
    data, border = (
        wrap(one).pullback(x, np.ones_like, rule=even).gradients[INPUT].sum()
        for one in (net, inside)
    )
    assert border == pytest.approx(2 * 4)  # samples and scores
    assert data < 0.9 * border
