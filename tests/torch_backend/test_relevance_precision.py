"""Relevance of networks in single and half precision."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from cnnviz_core.model import INPUT
from cnnviz_core.steps import alpha_beta, gamma
from cnnviz_torch.model import wrap
from support.torch_nets import Residual, picture, seeded
from support.torch_relevance import RULES, assert_same, relevance_of, rule


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float32, 1e-4), (torch.bfloat16, 0.1)])
def test_other_types(dtype, rtol):
    net, x = seeded(Residual), picture()
    expected = relevance_of(net, x, RULES["z-plus"])
    other = relevance_of(seeded(Residual, dtype=dtype), x.astype(np.float32), RULES["z-plus"])
    assert other.dtype == np.float32
    assert_same(other, expected, rtol)


def test_small_denominators_are_exact_in_single_precision():
    def net(dtype):
        kernel = dict(groups=64, bias=False)
        return seeded(lambda: nn.Sequential(nn.Conv2d(64, 64, 3, **kernel)), dtype=dtype)

    x = np.abs(picture(channels=64)).astype(np.float32)
    for steps in (rule("alpha-beta", alpha_beta(epsilon=0)), rule("gamma", gamma(epsilon=0))):
        single = wrap(net(torch.float32)).pullback(x, np.ones_like, rule=steps).gradients[INPUT]
        double = wrap(net(torch.float64)).pullback(x, np.ones_like, rule=steps).gradients[INPUT]
        assert_same(single, double, 3e-6)
