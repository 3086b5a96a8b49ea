"""Steps beside the usual ones: derivatives, those of rectifiers, pools and concatenations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cnnviz_core.model import INPUT
from cnnviz_core.rules import BackwardRule
from cnnviz_core.steps import DERIVATIVE, PASS, ReluStep, z_plus
from cnnviz_torch.model import wrap
from support.torch_nets import Vgg, picture, seeded
from support.torch_relevance import CALM, assert_same, by_norm, conv, made


def test_derivative_steps_give_the_gradient():
    steps = dict.fromkeys(("conv", "linear", "avgpool", "relu", "batchnorm", "maxpool"), DERIVATIVE)
    plain = BackwardRule("gradient", steps, unknown="refuse")
    for net, x in ((seeded(Vgg), picture(size=(13, 9))), (by_norm(lambda v, n: n(v)), picture())):
        model = wrap(net)
        assert_same(
            model.pullback(x, np.ones_like, rule=plain).gradients[INPUT],
            model.pullback(x, np.ones_like).gradients[INPUT],
        )
        folding = BackwardRule("gradient", {**steps, "add": CALM}, unknown="refuse")
        passed = model.pullback(x, np.ones_like, rule=folding).gradients[INPUT]
        assert_same(passed, model.pullback(x, np.ones_like).gradients[INPUT])


@pytest.mark.parametrize("gate", [False, True])
@pytest.mark.parametrize("rectify", [False, True])
def test_rectifiers_may_take_their_own_steps(gate, rectify):
    x, net = picture(), made(lambda x, c: F.leaky_relu(c(x), 0.2), conv())
    c = net.parts[0]
    top = np.random.default_rng(0).normal(size=(2, 10, 8, 8))
    step = BackwardRule("own", {"conv": z_plus(), "relu": ReluStep(gate, rectify)})
    below = top * np.where(wrap(net).forward(x).output > 0, 1, 0.2) if gate else top
    below = np.maximum(below, 0) if rectify else below
    plain = made(lambda x, c: c(x), conv())
    plain.parts[0].load_state_dict(c.state_dict())
    assert_same(
        wrap(net).pullback(x, top, rule=step).gradients[INPUT],
        wrap(plain).pullback(x, below, rule=step).gradients[INPUT],
    )


def test_max_pools_and_concatenations_follow_the_values():
    class Both(nn.Module):
        def forward(self, x):
            return torch.cat([F.max_pool2d(x, 2), -2 * F.max_pool2d(x, 2)], 1)

    x = picture()
    kinds = BackwardRule(
        "winners",
        {"maxpool": DERIVATIVE, "concat": DERIVATIVE, "batchnorm": PASS},
        unknown="refuse",
    )
    back = wrap(Both()).pullback(x, np.ones_like, rule=kinds).gradients[INPUT]
    assert back.sum() == 2 * 6 * 5 * 6
    assert set(np.unique(back)) == {0, 2}
