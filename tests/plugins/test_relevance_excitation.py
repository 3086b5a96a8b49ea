"""Excitation backprop and its contrast: their published equations, and probabilities."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnviz_core.errors import TargetError, UnknownLayerError
from cnnviz_core.explainer import present
from cnnviz_core.netspec import NetSpec, Op
from cnnviz_core.targets import ClassScore, Contrast, Neuron, Weighted
from cnnviz_core.testing.nets import NETS
from cnnviz_core.testing.reference import ReferenceModel
from support.layer_matrices import Layers, divided
from support.relevance import SEEDS, case, explain


def excited(x, weights, p):
    """Hand down probabilities as TorchRay does: of inputs that are not negative."""
    weights = np.maximum(weights, 0)
    return x * (weights.T @ divided(p, weights @ x))


def winning(layers, index, contrast=False):
    """Give the (contrastive) marginal winning probability of every value."""
    p = {layers.ops[-1].name: np.eye(layers.values[layers.ops[-1].name].size)[index]}
    last = [op for op in layers.ops if op.kind in ("conv", "linear")][-1]
    for op in reversed(layers.ops[1:]):
        x, matrix = layers.values[op.inputs[0]].ravel(), layers.matrix(op)
        if op.kind in ("conv", "linear", "avgpool", "gap"):
            given = excited(x, matrix, p[op.name])
            if contrast and op is last:
                given = given - excited(x, -matrix, p[op.name])
        else:
            given = matrix.T @ p[op.name]
        p[op.inputs[0]] = given
    return {name: given.reshape(layers.values[name].shape) for name, given in p.items()}


@pytest.mark.parametrize(("method", "contrast"), [("excitation-backprop", False), ("c-mwp", True)])
@pytest.mark.parametrize("name", ["plain", "strided", "softmax_head"])
def test_excitation_backprop_is_its_published_equations(name, method, contrast):
    model, x = case(name)
    net = NETS[name]()
    targets = [ClassScore(1), ClassScore(3)]
    expected = [
        winning(Layers(net, one), t.index, contrast) for one, t in zip(x, targets, strict=True)
    ]
    looked = [op.name for op in net.ops[:-2] if model.layers[op.name].grid]
    assert len(looked) >= 5
    for layer in looked:
        raw = explain(method, model, x, targets, layer=layer).raw
        wanted = np.stack([p[layer].sum(-1) for p in expected])
        assert np.abs(wanted).max() > 1e-4
        np.testing.assert_allclose(raw, wanted, rtol=0, atol=1e-9)


@settings(max_examples=20)
@given(seed=SEEDS, name=st.sampled_from(["plain", "residual", "depthwise", "branches", "swish"]))
def test_the_winning_probability_is_a_probability(seed, name):
    model, x = case(NETS[name](seed), n=2, seed=seed)
    raw = explain("mwp", model, x, [ClassScore(0), ClassScore(2)]).raw
    assert raw.min() >= 0
    sums = raw.sum((1, 2))
    # At the last layer with a grid only a class that nothing excites can lose it.
    np.testing.assert_allclose(sums[sums > 1e-9], 1, atol=1e-9)
    for layer in [n for n, info in model.layers.items() if info.grid and info.kind == "conv"][1:]:
        raw = explain("mwp", model, x, [ClassScore(0), ClassScore(2)], layer=layer).raw
        assert raw.min() >= 0
        assert raw.sum((1, 2)).max() <= 1 + 1e-9


def test_a_network_of_positive_weights_loses_no_probability():
    net = NETS["strided"]()
    arrays = {name: np.abs(a) for name, a in net.parameters.items()}
    model, x = case(NetSpec(net.inputs, net.ops, arrays, "positive"))
    x = np.abs(x)
    for layer in ("conv1", "pool1", "conv2", "pool2"):
        maps = explain("mwp", model, x, [ClassScore(0), ClassScore(2)], layer=layer)
        np.testing.assert_allclose(maps.raw.sum((1, 2)), 1, atol=1e-12)


@settings(max_examples=20)
@given(seed=SEEDS, name=st.sampled_from(["plain", "residual", "branches", "swish"]))
def test_the_contrast_is_with_the_network_whose_last_weights_are_negated(seed, name):
    net = NETS[name](seed)
    arrays = {**net.parameters, "fc.weight": -net.parameters["fc.weight"]}
    opposite = ReferenceModel(NetSpec(net.inputs, net.ops, arrays, "opposite"), "float64")
    model, x = case(net, seed=seed)
    targets = [ClassScore(0), ClassScore(2)]
    for layer in ("auto", next(iter(model.layers))):
        one, other = (explain("mwp", m, x, targets, layer=layer).raw for m in (model, opposite))
        raw = explain("c-mwp", model, x, targets, layer=layer).raw
        np.testing.assert_allclose(raw, one - other, atol=1e-12)


def two_classes(seed=3):
    """Give `plain` with two classes, each the opposite of the other."""
    net = NETS["plain"](seed)
    weight = net.parameters["fc.weight"][:, :1]
    arrays = {
        **net.parameters,
        "fc.weight": np.concatenate([weight, -weight], 1),
        "fc.bias": net.parameters["fc.bias"][:2],
    }
    return NetSpec(net.inputs, net.ops, arrays, "two_classes")


@pytest.mark.parametrize("layer", ["auto", "pool1", "conv1"])
def test_of_two_opposite_classes_the_contrast_of_one_is_less_that_of_the_other(layer):
    model, x = case(two_classes())
    one, other = (explain("c-mwp", model, x, [ClassScore(k)] * 2, layer=layer).raw for k in (0, 1))
    assert np.abs(one).max() > 1e-3
    np.testing.assert_allclose(one, -other, atol=1e-15)
    of_one, of_other = (
        explain("mwp", model, x, [ClassScore(k)] * 2, layer=layer).raw for k in (0, 1)
    )
    np.testing.assert_allclose(one, of_one - of_other, atol=1e-15)


def test_the_contrast_adds_up_to_zero_and_shows_its_positive_part():
    model, x = case("plain")
    maps = explain("c-mwp", model, x, [ClassScore(0), ClassScore(1)])
    np.testing.assert_allclose(maps.raw.sum((1, 2)), 0, atol=1e-12)
    shown, _ = present(maps.raw, maps.raw.shape[1:], maps.presentation)
    np.testing.assert_array_equal(shown, np.maximum(maps.raw, 0))
    assert maps.raw.min() < 0


@pytest.mark.parametrize("method", ["mwp", "c-mwp"])
def test_what_raises_the_score_wins(method):
    model, x = case("plain")
    asked = explain(method, model, x, [Contrast(1, 3), Weighted([0, 3, 0, -1, 1])])
    first, second, third = (explain(method, model, x, [ClassScore(k)] * 2).raw for k in (1, 1, 4))
    np.testing.assert_allclose(asked.raw[0], first[0], atol=1e-15)
    np.testing.assert_allclose(asked.raw[1], 0.75 * second[1] + 0.25 * third[1], atol=1e-15)


@pytest.mark.parametrize("method", ["mwp", "c-mwp"])
def test_a_score_that_nothing_raises_has_no_winner(method):
    model, x = case("plain")
    with pytest.raises(TargetError, match="nothing raises the score of weighted sum"):
        explain(method, model, x, [ClassScore(0), Weighted(-np.ones(5))])


def ends_in_a_convolution():
    """Give a network of which a convolution makes a map for each class, as SqueezeNet has."""
    w = NETS["plain"]().parameters
    arrays = {name: w[name] for name in w if name.startswith("conv")}
    ops = (
        Op("conv1", "conv", ("image",)),
        Op("relu1", "relu", ("conv1",)),
        Op("pool1", "maxpool", ("relu1",)),
        Op("conv2", "conv", ("pool1",), attrs={"padding": ((1, 1), (1, 1))}),
        Op("relu2", "relu", ("conv2",)),
        Op("gap", "gap", ("relu2",)),
    )
    return NetSpec({"image": (12, 9, 3)}, ops, arrays, "ends_in_a_convolution")


def test_the_contrast_looks_before_the_layer_that_it_negates():
    model, x = case(ends_in_a_convolution())
    index = model.forward(x).logits.min(0).argmax()
    targets = [ClassScore(int(index))] * 2
    maps = explain("c-mwp", model, x, targets)
    assert maps.layer == "relu1"
    np.testing.assert_allclose(maps.raw.sum((1, 2)), 0, atol=1e-12)
    assert explain("mwp", model, x, targets).layer == "relu2"
    for layer in ("conv2", "relu2"):
        with pytest.raises(UnknownLayerError, match="not before 'conv2'"):
            explain("c-mwp", model, x, targets, layer=layer)


def test_a_neuron_wins_too():
    model, x = case("plain")
    targets = [Neuron("conv2", (2, 1, 4)), Neuron("conv2", (3,))]
    values = model.forward(x, capture=["conv2"])["conv2"]
    for method in ("mwp", "c-mwp"):
        maps = explain(method, model, x, targets, layer="pool1")
        scores = [t.score(v) for t, v in zip(targets, values, strict=True)]
        assert maps.scores == pytest.approx(scores)
    seen = np.argwhere(maps.raw[0])
    assert (seen.min(0) >= [1, 0]).all()
    assert (seen.max(0) <= [3, 2]).all()
    assert explain("c-mwp", model, x, targets).layer == "relu1"
    with pytest.raises(UnknownLayerError, match="not before 'conv2'"):
        explain("c-mwp", model, x, targets, layer="relu2")


def positions_classified():
    """A network whose last weights are a convolution of single positions."""
    rng = np.random.default_rng(3)
    arrays = {
        "conv1.weight": rng.normal(size=(3, 3, 3, 6)),
        "narrow.weight": rng.normal(size=(1, 1, 6, 5)),
        "wide.weight": rng.normal(size=(3, 3, 6, 5)),
        "head.weight": rng.normal(size=(1, 1, 10, 4)),
    }
    ops = (
        Op("conv1", "conv", ("image",)),
        Op("relu1", "relu", ("conv1",)),
        Op("narrow", "conv", ("relu1",)),
        Op("wide", "conv", ("relu1",), attrs={"padding": ((1, 1), (1, 1))}),
        Op("concat", "concat", ("narrow", "wide")),
        Op("relu2", "relu", ("concat",)),
        Op("head", "conv", ("relu2",)),
        Op("gap", "gap", ("head",)),
    )
    return NetSpec({"image": (9, 8, 3)}, ops, arrays, "positions")


def test_a_contrast_needs_a_window_between_the_layer_and_the_score():
    model, x = case(positions_classified())
    targets = [ClassScore(1)] * 2
    found = explain("c-mwp", model, x, targets)
    assert found.layer == "relu1"  # what the window reads, and not the branch beside it
    assert np.abs(found.raw).max() > 1e-3
    assert explain("mwp", model, x, targets, layer="relu2").raw.any()
    with pytest.raises(UnknownLayerError, match="vanishes at every position of layer 'relu2'"):
        explain("c-mwp", model, x, targets, layer="relu2")
