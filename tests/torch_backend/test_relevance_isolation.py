"""Relevance leaves the network as it is, and whatever is around the network leaves relevance."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from cnnviz_core.model import INPUT
from cnnviz_torch.model import wrap
from support.torch_nets import Residual, picture, seeded
from support.torch_relevance import RULES, assert_same, conv, head, made, relevance_of


def test_nothing_of_the_network_changes():
    net, x = seeded(Residual), picture()
    net.train()
    net.bn1.eval()
    net.conv1.weight.requires_grad_(False)
    net.head.weight.grad = torch.ones_like(net.head.weight)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    modes = [module.training for module in net.modules()]
    hooks = [len(module._forward_hooks) for module in net.modules()]
    state = torch.get_rng_state()
    relevance_of(net, x)
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())
    assert [module.training for module in net.modules()] == modes
    assert [len(module._forward_hooks) for module in net.modules()] == hooks
    assert [p.requires_grad for p in net.parameters()].count(False) == 1
    assert torch.equal(net.head.weight.grad, torch.ones_like(net.head.weight))
    assert net.stem.weight.grad is None
    assert torch.equal(torch.get_rng_state(), state)


def test_frozen_weights_and_switched_off_gradients_change_nothing():
    net, x = seeded(Residual), picture()
    expected = relevance_of(net, x, RULES["gamma"])
    for parameter in net.parameters():
        parameter.requires_grad_(False)
    np.testing.assert_array_equal(relevance_of(net, x, RULES["gamma"]), expected)
    with torch.no_grad():
        np.testing.assert_array_equal(relevance_of(net, x, RULES["gamma"]), expected)
    with torch.inference_mode():
        np.testing.assert_array_equal(relevance_of(net, x, RULES["gamma"]), expected)


@pytest.mark.parametrize(
    "call",
    [
        lambda part, x: checkpoint(part, x, use_reentrant=False),
        lambda part, x: torch.no_grad()(part)(x),
    ],
    ids=["checkpoint", "no_grad"],
)
def test_parts_that_are_called_otherwise(call):
    def net(x, c, f):
        return f(c(x).mean((2, 3)))

    def part():
        return nn.Sequential(conv()(), nn.ReLU(True), nn.Conv2d(8, 8, 1), nn.ReLU())

    x = picture()
    odd = made(lambda x, c, f: net(x, lambda v: call(c, v), f), part, head())
    assert_same(relevance_of(odd, x), relevance_of(made(net, part, head()), x))


def test_users_backward_hooks_are_passed():
    net, x = seeded(lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())), picture()
    expected = relevance_of(net, x)
    handle = net[0].register_full_backward_hook(lambda *_: None)
    np.testing.assert_array_equal(relevance_of(net, x), expected)
    handle.remove()


def test_threads_do_not_disturb_each_other():
    net, x = seeded(Residual), picture()
    model = wrap(net)
    expected = {name: relevance_of(net, x, RULES[name]) for name in ("gamma", "z-plus")}
    found = {}

    def work(k, name):
        back = model.pullback(x, lambda v: v, rule=RULES[name])
        found[k] = np.array_equal(back.gradients[INPUT], expected[name])

    threads = [
        threading.Thread(target=work, args=(k, ("gamma", "z-plus")[k % 2])) for k in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == dict.fromkeys(range(6), True)
