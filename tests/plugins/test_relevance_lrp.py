"""Layer-wise relevance propagation: its composites by their formulas, on matrices."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

from cnnviz_core.model import INPUT, LOGITS
from cnnviz_core.registry import get_registry
from cnnviz_core.rules import relevance_rule
from cnnviz_core.steps import alpha_beta
from cnnviz_core.targets import ClassScore, Contrast, Neuron, Weighted
from cnnviz_core.testing.nets import NETS
from support.layer_matrices import Layers
from support.relevance import (
    HIGH,
    LOW,
    PLAINLY,
    SEEDS,
    Z_PLUS,
    by_box,
    by_epsilon,
    by_gamma,
    case,
    explain,
    relevances,
    total,
)


def test_every_announced_rule_is_written_plainly():
    ours = [r.name for r in get_registry().rules.values() if r.target.startswith("cnnviz_rel")]
    assert ours == list(PLAINLY)


@pytest.mark.parametrize("composite", PLAINLY)
@pytest.mark.parametrize("name", ["plain", "strided"])
def test_lrp_is_its_composite(name, composite):
    model, x = case(name)
    targets = [ClassScore(1), Contrast(2, 3)]
    expected = []
    for one, target in zip(x, targets, strict=True):
        layers = Layers(NETS[name](), one)
        value = layers.values[layers.ops[-1].name]
        expected.append(relevances(layers, target.gradient(value) * value, *PLAINLY[composite]))
    for layer in ("input", "conv1", "relu1", "pool1", "conv2"):
        params = {"composite": composite, "layer": layer, "low": LOW, "high": HIGH}
        maps = explain("lrp", model, x, targets, **params)
        wanted = np.stack([r["image"] if layer == "input" else r[layer].sum(-1) for r in expected])
        np.testing.assert_allclose(maps.raw, wanted, rtol=0, atol=1e-9 * np.abs(wanted).max())
        assert maps.layer == (None if layer == "input" else layer)
        assert maps.scores == pytest.approx(
            [t.score(v) for t, v in zip(targets, model.forward(x).logits, strict=True)]
        )


@pytest.mark.parametrize(
    ("composite", "params", "conv", "linear"),
    [
        ("epsilon", {"epsilon": 0.3}, "epsilon", "epsilon"),
        ("epsilon-plus", {"epsilon": 0.3}, "plus", "epsilon"),
        ("gamma", {"gamma": 2.0}, "gamma", "gamma"),
        ("epsilon-gamma-box", {"gamma": 2.0, "epsilon": 0.3}, "gamma", "epsilon"),
    ],
)
def test_the_parameters_of_steps(composite, params, conv, linear):
    def stabilised(layers, op, x, relevance):
        return by_epsilon(layers, op, x, relevance, 0.3)

    steps = {"epsilon": stabilised, "plus": Z_PLUS, "gamma": by_gamma(2.0)}
    first = by_box if "box" in composite else None
    model, x = case("strided")
    raw = explain("lrp", model, x[:1], [ClassScore(2)], composite=composite, low=LOW, high=HIGH)
    assert not np.allclose(raw.raw, 0)
    changed = explain(
        "lrp", model, x[:1], [ClassScore(2)], composite=composite, low=LOW, high=HIGH, **params
    )
    layers = Layers(NETS["strided"](), x[0])
    value = layers.values["fc2"] * np.eye(4)[2]
    wanted = relevances(layers, value, steps[conv], steps[linear], first)["image"]
    np.testing.assert_allclose(changed.raw[0], wanted, rtol=0, atol=1e-9 * np.abs(wanted).max())
    assert not np.allclose(changed.raw, raw.raw, atol=1e-3 * np.abs(wanted).max())


def test_alpha_1_beta_0_is_z_plus():
    model, x = case("residual")
    rule = relevance_rule("alpha1-beta0", alpha_beta(1, 0))
    found = model.pullback(x, lambda v: v, rule=rule).gradients[INPUT]
    targets = [Weighted(np.ones(5))] * 2
    np.testing.assert_array_equal(explain("lrp", model, x, targets, composite="z-plus").raw, found)
    assert get_registry().rule("alpha1-beta0") == get_registry().rule("z-plus")


@settings(max_examples=20)
@given(seed=SEEDS)
def test_gamma_tends_to_z_plus_below_positive_results(seed):
    model, x = case(NETS["plain"](seed), seed=seed)
    # Only what follows a rectifier hands relevance down; the class is one of positive score.
    logits = model.forward(x).logits
    best = [ClassScore(int(c)) for c in logits.argmax(-1)]
    keep = logits.max(-1) > 0.1
    one, other = (
        explain("lrp", model, x, best, **params).raw[keep]
        for params in ({"composite": "gamma", "gamma": 1e7}, {"composite": "z-plus"})
    )
    np.testing.assert_allclose(one, other, atol=1e-4 * np.abs(other).max(initial=1))


@pytest.mark.parametrize("composite", ["flat", "epsilon-plus-flat", "epsilon-alpha2-beta1-flat"])
@pytest.mark.parametrize("name", ["plain", "residual", "branches"])
def test_flat_is_the_same_in_every_channel(name, composite):
    model, x = case(name)
    raw = explain("lrp", model, x, [ClassScore(0)] * 2, composite=composite).raw
    np.testing.assert_allclose(raw, raw[..., :1].repeat(3, -1), rtol=1e-12)


def test_relevance_starts_as_the_gradient_times_the_value():
    model, x = case("plain")
    weights = np.array([1.0, -2.0, 0.0, 0.5, 3.0])
    maps = explain("lrp", model, x, [Weighted(weights)] * 2, composite="epsilon")
    parts = sum(
        w * explain("lrp", model, x, [ClassScore(k)] * 2, composite="epsilon").raw
        for k, w in enumerate(weights)
    )
    np.testing.assert_allclose(maps.raw, parts, atol=1e-12)


def test_a_neuron_is_explained_as_a_class_is():
    model, x = case("plain")
    targets = [Neuron("conv2", (2, 1, 4)), Neuron("conv2", (3,))]
    maps = explain("lrp", model, x, targets, composite="lrp-0", bias=False)
    np.testing.assert_allclose(total(maps), maps.scores, rtol=1e-9)
    assert not maps.raw[0, :1].any()  # it reads the rows 1 to 8
    assert maps.raw[0, 1:9].any((1, 2)).all()
    assert not maps.raw[0, 9:].any()


@pytest.mark.parametrize("layer", ["conv1", "pool1", "auto"])
def test_at_a_layer_the_channels_are_summed(layer):
    model, x = case("plain")
    maps = explain("lrp", model, x, [ClassScore(0), ClassScore(1)], layer=layer)
    node = "relu2" if layer == "auto" else layer
    rule = get_registry().rule("epsilon-plus")
    start = np.eye(5)[:2] * model.forward(x).logits
    found = model.pullback(x, start, of=LOGITS, wrt=[node], rule=rule).gradients[node]
    np.testing.assert_allclose(maps.raw, found.sum(-1), atol=1e-15)
    assert maps.layer == node
