"""Where the logits are affine in a layer, the gradient tells what ablation finds by passes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cnnviz_core.delegate import Delegate
from cnnviz_core.errors import UnknownLayerError
from cnnviz_core.explainer import passes_of
from cnnviz_core.registry import get_registry
from cnnviz_core.targets import (
    ClassProbability,
    ClassScore,
    Contrast,
    Predicted,
    Similarity,
    Weighted,
)
from cnnviz_core.testing.nets import NETS, random_input
from cnnviz_core.testing.reference import ReferenceModel

LINEAR = [ClassScore(1), Contrast(2, 0), Predicted(1)]
OTHERS = [ClassProbability(1), ClassProbability(1, "sigmoid"), Similarity(np.ones(5), "@logits")]


class Noting(Delegate):
    """Notes the rows of its passes; `without` takes abilities away."""

    def __init__(self, model, *without):
        super().__init__(model)
        self.capabilities -= set(without)
        self.forwards, self.pullbacks = [], []

    def forward(self, x, **how):
        self.forwards.append(len(x))
        return super().forward(x, **how)

    def pullback(self, x, cotangent, **how):
        self.pullbacks.append(len(x))
        return super().pullback(x, cotangent, **how)


def case(name, n=2):
    net = NETS[name]()
    x = random_input(net, n, 3)
    x = x if len(x) > 1 else next(iter(x.values())).astype("float64")
    return ReferenceModel(net, "float64"), x


def explain(model, x, targets, **params):
    return get_registry().explainer("ablation-cam", **params).explain(model, x, targets)


def affine_grids(name):
    return [
        n for n, info in ReferenceModel(NETS[name]()).layers.items() if info.affine and info.grid
    ]


AFFINE = [(name, node) for name in NETS if name != "two_inputs" for node in affine_grids(name)]


def test_there_are_such_layers_on_pictures_signals_volumes_and_tokens():
    assert {"plain", "residual", "depthwise", "signal", "volume", "tokens"} <= dict(AFFINE).keys()


@pytest.mark.parametrize("name", NETS)
def test_a_layer_is_affine_where_a_step_changes_the_logits_by_the_gradient_times_it(name):
    model, x = case(name)
    random = np.random.default_rng(0)
    for node, info in model.layers.items():
        clean = model.forward(x, capture=(node,))
        steps = [random.normal(size=clean[node].shape) * size for size in (0.1, 30.0)]
        weights = random.normal(size=clean.logits.shape)
        try:
            slope = model.pullback(x, weights, wrt=(node,)).gradients[node]
        except UnknownLayerError:  # the logits do not depend on it
            assert not info.affine
            continue
        exact = all(
            np.isclose(
                (weights * (model.forward(x, replace={node: clean[node] + d}).logits)).sum(),
                (weights * clean.logits).sum() + (slope * d).sum(),
                rtol=1e-9,
            )
            for d in steps
        )
        assert info.affine == exact, node


@pytest.mark.parametrize(("name", "layer"), AFFINE)
@pytest.mark.parametrize("channels", [None, 3])
def test_the_gradient_gives_what_passes_give(name, layer, channels):
    model, x = case(name, 1 + len(LINEAR))
    classes = model.forward(x).logits.shape[1]
    targets = [*LINEAR, Weighted(np.arange(classes) - 1.5)]
    fast, plain = Noting(model), Noting(model, "gradient")
    how = {"layer": layer, "channels": channels}
    found, asked = (explain(each, x, targets, **how) for each in (fast, plain))
    assert (fast.forwards, fast.pullbacks, plain.pullbacks) == ([], [len(x)], [])
    for key in ("raw", "scores"):
        np.testing.assert_allclose(getattr(found, key), getattr(asked, key), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found.extras["weights"], asked.extras["weights"], atol=1e-11)
    assert found.targets == asked.targets
    explainer = get_registry().explainer("ablation-cam", **how)
    assert passes_of(explainer, fast, x) == 3
    assert (
        passes_of(explainer, plain, x) == sum(plain.forwards) / len(x)
        or 0 in (asked.extras["weights"])
    )


def test_a_negative_score_keeps_its_sign():
    net = NETS["plain"]()
    low = replace(net, parameters={**net.parameters, "fc.bias": net.parameters["fc.bias"] - 50})
    model, (x,) = ReferenceModel(low, "float64"), random_input(net, 2, 3).values()
    found = explain(model, x.astype("float64"), [ClassScore(1)] * 2)
    asked = explain(Noting(model, "gradient"), x.astype("float64"), [ClassScore(1)] * 2)
    assert (found.scores < 0).all()
    np.testing.assert_allclose(found.raw, asked.raw, atol=1e-11)


@pytest.mark.parametrize("target", OTHERS, ids=str)
def test_scores_that_are_not_linear_are_found_by_passes(target):
    model, x = case("plain")
    noting = Noting(model)
    targets = [target, ClassScore(1)] if target.of == "@logits" else [target] * 2
    found = explain(noting, x, targets)
    asked = explain(Noting(model, "gradient"), x, targets)
    assert not noting.pullbacks
    np.testing.assert_array_equal(found.raw, asked.raw)


def test_a_channel_of_zeros_weighs_exactly_zero():
    model, x = case("plain")
    found = explain(model, x, [ClassScore(1)] * 2)
    dead = ~model.forward(x, capture=("relu2",))["relu2"].any((1, 2))
    assert dead.any()
    assert (found.extras["weights"][dead] == 0).all()


def test_without_fast_ways_it_asks_by_passes(monkeypatch):
    monkeypatch.setenv("CNNVIZ_FAST", "0")
    model, x = case("plain")
    noting = Noting(model)
    explain(noting, x, [ClassScore(1)] * 2)
    assert noting.forwards
    assert not noting.pullbacks
