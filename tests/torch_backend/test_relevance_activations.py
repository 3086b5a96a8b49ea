"""Activations hand relevance down unchanged, and gates get none of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cnnviz_core.model import INPUT
from cnnviz_torch.model import wrap
from support.torch_nets import picture
from support.torch_relevance import PLUS, assert_same, conv, head, made

ITSELF = {
    "silu": F.silu,
    "silu, spelt": lambda v: v * v.sigmoid(),
    "hard swish": F.hardswish,
    "hard swish, spelt": lambda v: v * F.relu6(v + 3) / 6,
    "gelu, spelt": lambda v: 0.5 * v * (1 + torch.tanh(0.8 * (v + 0.04 * v**3))),
    "prelu": lambda v: F.prelu(v, torch.full((8,), 0.1, dtype=v.dtype)),
    "tanh": torch.tanh,
    "softplus": F.softplus,
    "clamped": lambda v: v.clamp(-1, 1),
}


@pytest.mark.parametrize("name", ITSELF)
def test_activations_hand_down_all(name):
    net, x = made(lambda x, c: ITSELF[name](c(x)), conv()), picture()
    top = np.random.default_rng(0).normal(size=(2, 10, 8, 8))
    plain = made(lambda x, c: c(x), conv())
    assert_same(
        wrap(net).pullback(x, top, rule=PLUS).gradients[INPUT],
        wrap(plain).pullback(x, top, rule=PLUS).gradients[INPUT],
    )


@pytest.mark.parametrize(
    "gate", [torch.sigmoid, F.hardsigmoid, torch.tanh, lambda v: F.relu6(v + 3) / 6]
)
@pytest.mark.parametrize("turned", [False, True])
def test_gates_take_nothing(gate, turned):
    def squeezed(x, c, s, f):
        value = F.relu6(c(x))  # which is bounded, and yet no gate
        scale = gate(s(value.mean((2, 3))))[:, :, None, None]
        return f((scale * value if turned else value * scale).mean((2, 3)))

    net = made(squeezed, conv(), lambda: nn.Linear(8, 8), head())
    x = picture()
    back = wrap(net).pullback(x, lambda v: v, wrt=["parts.0", "parts.1", INPUT], rule=PLUS)
    assert not back.gradients["parts.1"].any()
    assert back.unruled == ()
    below = made(lambda x, c: F.relu6(c(x)), conv())
    relu = wrap(below).pullback(x, back.gradients["parts.0"], rule=PLUS)
    assert_same(back.gradients[INPUT], relu.gradients[INPUT])
