"""Relevance adds up to the score, less what biases and stabilisers take."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnviz_core.netspec import NetSpec
from cnnviz_core.registry import get_registry
from cnnviz_core.targets import ClassScore, Contrast
from cnnviz_core.testing.nets import NETS
from support.relevance import SEEDS, case, explain, total


def without_biases(net):
    """Give a network whose layers are linear, not affine."""
    arrays = {
        name: np.zeros_like(a) if name.endswith((".shift", ".mean")) else a
        for name, a in net.parameters.items()
        if not name.endswith(".bias")
    }
    return NetSpec(net.inputs, net.ops, arrays, "without_biases")


@settings(max_examples=25)
@given(seed=SEEDS, name=st.sampled_from(["plain", "residual", "branches", "smooth", "volume"]))
def test_lrp_0_of_a_piecewise_linear_network_is_gradient_times_input(seed, name):
    model, x = case(without_biases(NETS[name](seed)), seed=seed)
    targets = [Contrast(0, 1), ClassScore(2)]
    raw = explain("lrp", model, x, targets, composite="lrp-0").raw
    expected = explain("gradient-x-input", model, x, targets).raw
    np.testing.assert_allclose(raw, expected, rtol=0, atol=1e-9 * np.abs(expected).max())


@settings(max_examples=25)
@given(seed=SEEDS, name=st.sampled_from(["plain", "residual", "branches", "swish"]))
def test_without_biases_lrp_0_adds_up_to_the_score(seed, name):
    model, x = case(NETS[name](seed), seed=seed)
    targets = [Contrast(0, 1), ClassScore(2)]
    for layer in ("input", "auto"):
        maps = explain("lrp", model, x, targets, composite="lrp-0", bias=False, layer=layer)
        # Where contributions cancel out shares are large, and so is their rounding.
        reach = np.abs(maps.raw).sum()
        np.testing.assert_allclose(total(maps), maps.scores, atol=1e-9 * reach)


@settings(max_examples=25)
@given(seed=SEEDS, epsilon=st.floats(1e-6, 10), bias=st.booleans())
def test_a_layer_loses_what_it_gives_to_biases_and_to_the_stabiliser(seed, epsilon, bias):
    net = NETS["plain"](seed)
    model, x = case(net, seed=seed)
    rule = get_registry().rule("epsilon", epsilon=epsilon)
    rule = rule if bias else rule.without_bias()
    back = model.pullback(x, lambda v: v, wrt=["conv2", "pool1"], rule=rule)
    above, below = back.gradients["conv2"], back.gradients["pool1"]
    z = back.values["conv2"] - net.parameters["conv2.bias"]
    denominator = back.values["conv2"] if bias else z
    kept = above * z / (denominator + epsilon * np.where(denominator >= 0, 1, -1))
    np.testing.assert_allclose(
        below.sum((1, 2, 3)), kept.sum((1, 2, 3)), rtol=0, atol=1e-9 * np.abs(above).sum()
    )


KEEPING = ["epsilon-plus", "epsilon-plus-flat", "epsilon-gamma-box", "epsilon", "gamma", "z-plus"]
"""The others lose what they give to averages of zeros, or where no contribution is negative."""


@pytest.mark.parametrize("composite", KEEPING)
@pytest.mark.parametrize("name", ["plain", "residual", "branches", "swish"])
def test_without_biases_the_score_is_kept_but_for_the_stabiliser(name, composite):
    model, x = case(name)
    best = [ClassScore(int(c)) for c in model.forward(x).logits.argmax(-1)]
    params = {"composite": composite, "low": -6.0, "high": 6.0, "bias": False}
    maps = explain("lrp", model, x, best, **params)
    np.testing.assert_allclose(total(maps), maps.scores, rtol=1e-3)
