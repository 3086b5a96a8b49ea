"""Operations for which a rule of relevance has no step are refused, or named."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cnnviz_core.errors import RuleError
from cnnviz_core.model import INPUT
from cnnviz_core.rules import relevance_rule
from cnnviz_core.steps import epsilon, z_plus
from cnnviz_torch.model import wrap
from support.torch_nets import native, picture
from support.torch_relevance import PLUS, assert_same, conv, head, made

UNRULED = {
    "softmax": (lambda v: v.softmax(1), "softmax"),
    "product": (lambda v: v * v.relu(), "mul"),
    "two gates": (lambda v: v.sigmoid() * v.tanh(), "mul"),
    "quotient": (lambda v: v / (1 + v.abs()), "div"),
    "bilinear": (
        lambda v: F.interpolate(v, scale_factor=2, mode="bilinear"),
        "upsample_bilinear2d",
    ),
    "group norm": (lambda v: F.group_norm(v, 2), "native_group_norm"),
    "batch statistics": (lambda v: F.batch_norm(v, None, None, training=True), "native_batch_norm"),
    "attention": (
        lambda v: F.scaled_dot_product_attention(v, v, v),
        "scaled_dot_product_flash_attention",
    ),
    "kernel of data": (lambda v: F.conv2d(v, v[:1, :, :1, :1].expand(8, 8, 1, 1)), "convolution"),
}


class Inner(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, v):
        return self.function(v)


@pytest.mark.parametrize("name", UNRULED)
def test_operations_without_a_step_are_refused_or_marked(name):
    function, called = UNRULED[name]

    def net(x, c, inner, f):
        return f(inner(c(x)).mean((2, 3)))

    model, x = wrap(made(net, conv(), lambda: Inner(function), head())), picture()
    with pytest.raises(RuleError, match=f"no step for {called}.* 'parts.1' between '@logits'"):
        model.pullback(x, np.ones_like, rule=PLUS)
    marked = relevance_rule("plus", z_plus(), epsilon(), unknown="mark")
    back = model.pullback(x, np.ones_like, wrt=["parts.0", "parts.1"], rule=marked)
    assert len(back.unruled) == 1
    assert back.unruled[0].startswith(called)
    if name not in ("two gates", "quotient"):  # which hold activations besides
        value = native(model.forward(x, capture=["parts.0"])["parts.0"]).requires_grad_()
        arriving = native(back.gradients["parts.1"])
        (expected,) = torch.autograd.grad(function(value), value, arriving)
        assert_same(back.gradients["parts.0"], expected.movedim(1, -1).numpy())
    model.pullback(x, np.ones_like, wrt=["parts.1"], rule=PLUS)


class Own(torch.autograd.Function):
    """A user's own function of a tensor and a number, with two results."""

    @staticmethod
    def forward(ctx, number, x):
        ctx.number = number
        return x * number, x + 1

    @staticmethod
    def backward(ctx, one, other):
        return None, one * ctx.number + other


def _on_a_slice(v):
    v = v.clone()
    v[:, :2] *= 3
    return v


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (lambda v: Own.apply(3.0, v)[0] * torch.ones(1).double().exp(), "OwnBackward"),
        (_on_a_slice, "CopySlices"),
    ],
    ids=["autograd.Function", "slice in place"],
)
def test_opaque_operations_are_refused_or_marked(function, name):
    net = made(lambda x, c, f: f(function(c(x)).mean((2, 3))), conv(), head())
    model, x = wrap(net), picture()
    with pytest.raises(RuleError, match=f"operations inside '.*{name}"):
        model.pullback(x, np.ones_like, rule=PLUS)
    marked = relevance_rule("plus", z_plus(), epsilon(), unknown="mark")
    back = model.pullback(x, np.ones_like, rule=marked)
    assert back.unruled == (name.removesuffix("Backward"),)
    assert np.abs(back.gradients[INPUT]).max() > 0


def test_rules_without_effect_are_refused():
    model = wrap(made(lambda x: x.flatten(1)))
    with pytest.raises(RuleError, match="would change nothing"):
        model.pullback(picture(), np.ones_like, rule=PLUS)
