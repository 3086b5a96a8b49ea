"""Relevance methods: their formulas written plainly with matrices, and what must hold of them."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnviz_core.delegate import Delegate
from cnnviz_core.errors import (
    ParameterError,
    RuleError,
    TargetError,
    UnknownLayerError,
    UnknownMethodError,
)
from cnnviz_core.explainer import present
from cnnviz_core.model import INPUT, LOGITS
from cnnviz_core.netspec import NetSpec, Op
from cnnviz_core.registry import get_registry
from cnnviz_core.rules import GUIDED, check_steps, relevance_rule
from cnnviz_core.steps import alpha_beta
from cnnviz_core.targets import ClassScore, Contrast, Neuron, Weighted
from cnnviz_core.testing.explainers import parametrize_with_checks
from cnnviz_core.testing.nets import NETS, random_input
from cnnviz_core.testing.reference import ReferenceModel
from cnnviz_relevance.bounds import bounds_of
from cnnviz_relevance.composites import contrastive_excitation, deep_taylor, excitation

EPSILON = 1e-6
LOW, HIGH = np.array([-6.0, -5.0, -5.5]), np.array([5.0, 6.0, 5.5])
SEEDS = st.integers(0, 10_000)


def case(net, n=2, seed=5, dtype="float64"):
    net = NETS[net]() if isinstance(net, str) else net
    (x,) = random_input(net, n, seed).values()
    return ReferenceModel(net, dtype), x.astype(dtype)


def explain(method, model, x, targets, **params):
    return get_registry().explainer(method, **params).explain(model, x, targets)


def total(maps):
    return maps.raw.reshape(len(maps.raw), -1).sum(1)


# ---------------------------------------------------------------------- operations as matrices


def convolution(op, weight, shape):
    """Give the matrix (outputs, inputs) of a convolution, one pair of positions after the other."""
    size = shape[:-1]
    *window, c_in, c_out = weight.shape
    groups = op.attrs["groups"]
    grid = [
        (n + sum(pad) - d * (k - 1) - 1) // s + 1
        for n, pad, d, k, s in zip(
            size, op.attrs["padding"], op.attrs["dilation"], window, op.attrs["stride"], strict=True
        )
    ]
    matrix = np.zeros((*grid, c_out, *shape))
    block = np.zeros((*window, c_out, c_in * groups))
    for group in range(groups):
        ins = slice(group * c_in, (group + 1) * c_in)
        outs = slice(group * c_out // groups, (group + 1) * c_out // groups)
        block[..., outs, ins] = np.moveaxis(weight[..., outs], -1, -2)
    for at in product(*map(range, grid)):
        for place in product(*map(range, window)):
            read = tuple(
                i * s + k * d - pad[0]
                for i, k, s, d, pad in zip(
                    at,
                    place,
                    op.attrs["stride"],
                    op.attrs["dilation"],
                    op.attrs["padding"],
                    strict=True,
                )
            )
            if all(0 <= i < n for i, n in zip(read, size, strict=True)):
                matrix[(*at, slice(None), *read)] += block[place]
    return matrix.reshape(np.prod(matrix.shape[: len(grid) + 1]), -1)


def pool(op, x, value, average):
    """Give the matrix of a pool: of its winners, or of an average."""
    size, channels = x.shape[:-1], x.shape[-1]
    window = size if op.kind == "gap" else op.attrs["window"]
    stride = window if op.kind == "gap" else op.attrs["stride"]
    pads = op.attrs.get("padding", ((0, 0),) * len(size))
    matrix = np.zeros((*value.reshape(-1, channels).shape, *x.shape))
    grid = [1] * len(size) if op.kind == "gap" else value.shape[:-1]
    for row, at in enumerate(product(*map(range, grid))):
        seen = [
            place
            for place in product(
                *(
                    range(i * s - p[0], i * s - p[0] + k)
                    for i, s, p, k in zip(at, stride, pads, window, strict=True)
                )
            )
            if all(0 <= i < n for i, n in zip(place, size, strict=True))
        ]
        for c in range(channels):
            if average:
                for place in seen:
                    matrix[(row, c, *place, c)] = 1 / len(seen)
            else:
                matrix[(row, c, *max(seen, key=lambda place, c=c: x[(*place, c)]), c)] = 1
    return matrix.reshape(value.size, x.size)


class Layers:
    """The operations of a network that is a chain, on one sample: matrices, biases and values."""

    def __init__(self, net, x, biases=True):
        model = ReferenceModel(net, "float64")
        end = net.ops[-1].kind == "softmax"
        self.ops = net.ops[: len(net.ops) - end]
        trace = model.forward(x[None], capture=[net.node(op) for op in self.ops])
        self.values = {op.name: trace[net.node(op)][0] for op in self.ops}
        self.values[next(iter(net.inputs))] = x
        self.net, self.biases = net, biases

    def matrix(self, op, make=lambda weight: weight):
        """Give an operation's matrix, of weights that are changed first."""
        x, value = self.values[op.inputs[0]], self.values[op.name]
        if op.kind == "conv":
            return convolution(op, make(self.net.parameters[f"{op.layer}.weight"]), x.shape)
        if op.kind == "linear":
            return make(self.net.parameters[f"{op.layer}.weight"]).T
        if op.kind in ("maxpool", "avgpool", "gap"):
            return pool(op, x, value, op.kind != "maxpool")
        return np.eye(x.size)

    def bias(self, op):
        """Give the bias of every output, or zeros if biases are to take nothing."""
        bias = self.net.parameters.get(f"{op.layer}.bias", 0.0) if self.biases else 0.0
        return np.broadcast_to(bias, self.values[op.name].shape).ravel()


def divided(relevance, z):
    return np.divide(relevance, z, out=np.zeros_like(relevance), where=z != 0)


# ------------------------------------------------------------- excitation backprop, as published


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


# --------------------------------------------------------------------- rules of relevance, plainly


def split(contributions, bias, relevance, epsilon=EPSILON):
    """Split relevance in proportion to contributions (outputs, inputs)."""
    z = contributions.sum(1) + bias
    return contributions.T @ divided(relevance, z + epsilon * np.where(z >= 0, 1, -1))


def by_epsilon(layers, op, x, relevance, epsilon=EPSILON):
    return split(layers.matrix(op) * x, layers.bias(op), relevance, epsilon)


def by_sign(alpha, beta):
    def step(layers, op, x, relevance):
        c, b = layers.matrix(op) * x, layers.bias(op)
        up = split(np.maximum(c, 0), np.maximum(b, 0), relevance)
        down = split(np.minimum(c, 0), np.minimum(b, 0), relevance)
        return alpha * up - beta * down

    return step


def by_gamma(gamma):
    def step(layers, op, x, relevance):
        c, b = layers.matrix(op) * x, layers.bias(op)
        above = layers.values[op.name].ravel() > 0
        up, up_bias = (v + gamma * np.maximum(v, 0) for v in (c, b))
        down, down_bias = (v + gamma * np.minimum(v, 0) for v in (c, b))
        return split(up, up_bias, np.where(above, relevance, 0)) + split(
            down, down_bias, np.where(above, 0, relevance)
        )

    return step


def by_box(layers, op, x, relevance):
    w = layers.matrix(op)
    pixels = layers.values[op.inputs[0]]
    low, high = (np.broadcast_to(end, pixels.shape).ravel() for end in (LOW, HIGH))
    return split(w * x - np.maximum(w, 0) * low - np.minimum(w, 0) * high, 0, relevance)


def by_squares(layers, op, x, relevance):
    return split(layers.matrix(op) ** 2, layers.bias(op) ** 2, relevance)


def evenly(layers, op, x, relevance):
    return split(layers.matrix(op, np.ones_like), 0, relevance)


def lrp_0(layers, op, x, relevance):
    return by_epsilon(layers, op, x, relevance, 0)


Z_PLUS, TWO_ONE = by_sign(1, 0), by_sign(2, 1)
PLAINLY = {
    "epsilon-plus": (Z_PLUS, by_epsilon, None),
    "epsilon-plus-flat": (Z_PLUS, by_epsilon, evenly),
    "epsilon-gamma-box": (by_gamma(0.25), by_epsilon, by_box),
    "epsilon-alpha2-beta1": (TWO_ONE, by_epsilon, None),
    "epsilon-alpha2-beta1-flat": (TWO_ONE, by_epsilon, evenly),
    "lrp-0": (lrp_0, lrp_0, None),
    "epsilon": (by_epsilon, by_epsilon, None),
    "gamma": (by_gamma(0.25), by_gamma(0.25), None),
    "alpha2-beta1": (TWO_ONE, TWO_ONE, None),
    "z-plus": (Z_PLUS, Z_PLUS, None),
    "w-square": (by_squares, by_squares, None),
    "flat": (evenly, evenly, None),
}
"""Of each composite the step of convolutions, of dense layers, and of the first layer."""


def relevances(layers, relevance, conv, linear, first):
    """Give the relevance of every value of a chain."""
    found = {layers.ops[-1].name: relevance}
    for op in reversed(layers.ops):
        x = layers.values[op.inputs[0]].ravel()
        shared = lrp_0 if conv is lrp_0 else by_epsilon
        steps = {"conv": conv, "linear": linear, "gap": shared, "avgpool": shared}
        if first and op is layers.ops[0]:
            steps["conv"] = first
        step = steps.get(op.kind)
        relevance = step(layers, op, x, relevance) if step else layers.matrix(op).T @ relevance
        found[op.inputs[0]] = relevance
    return {name: given.reshape(layers.values[name].shape) for name, given in found.items()}


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


# ---------------------------------------------------------------------------------- theorems


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


@settings(max_examples=30)
@given(
    seed=SEEDS,
    name=st.sampled_from([*sorted({*NETS} - {"tokens", "two_inputs", "volume"})]),
    bounded=st.booleans(),
)
def test_deep_taylor_has_the_sign_of_the_score_and_no_more_than_it(seed, name, bounded):
    model, x = case(NETS[name](seed), seed=seed)
    bounds = {"low": -8.0, "high": 8.0} if bounded else {}
    maps = explain("deep-taylor", model, x, [ClassScore(0), ClassScore(2)], **bounds)
    signed = maps.raw * np.sign(maps.scores).reshape(-1, *(1,) * (x.ndim - 1))
    assert signed.min() >= -1e-12 * np.abs(maps.raw).max()
    assert (np.abs(total(maps)) <= np.abs(maps.scores) * (1 + 1e-9)).all()
    assert maps.presentation.sign == "positive"


@pytest.mark.parametrize("bounded", [False, True])
def test_deep_taylor_is_its_formula(bounded):
    model, x = case("strided")
    bounds = {"low": LOW, "high": HIGH} if bounded else {}
    raw = explain("deep-taylor", model, x, [ClassScore(2)] * 2, **bounds).raw
    for n, one in enumerate(x):
        layers = Layers(NETS["strided"](), one, biases=False)
        start = layers.values["fc2"] * np.eye(4)[2]
        steps = (Z_PLUS, Z_PLUS, by_box if bounded else by_squares)
        wanted = relevances(layers, start, *steps)["image"]
        assert wanted.max() > 1e-4
        np.testing.assert_allclose(raw[n], wanted, rtol=0, atol=1e-9 * wanted.max())


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


@pytest.mark.parametrize("method", ["lrp", "deep-taylor", "mwp", "c-mwp"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_type_of_the_numbers_is_kept(method, dtype):
    model, x = case("residual", dtype=dtype)
    maps = explain(method, model, x, [ClassScore(1)] * 2)
    assert maps.raw.dtype == maps.scores.dtype == dtype


# -------------------------------------------------------------------- what the methods say


@pytest.mark.parametrize("method", ["lrp", "deep-taylor"])
def test_what_has_no_step_is_refused_or_noted(method):
    model, x = case("tokens")
    targets = [ClassScore(1)] * 2
    with pytest.raises(RuleError, match="layernorm 'norm2'"):
        explain(method, model, x, targets)
    (note,) = explain(method, model, x, targets, unknown="gradient").notes
    name = "epsilon-plus" if method == "lrp" else method
    assert note == (
        f"the gradient passed norm2, norm1, for which {name} has no step: "
        "relevance below them is not conserved"
    )


@pytest.mark.parametrize("method", ["mwp", "c-mwp"])
def test_contests_are_noted_too(method):
    model, x = case("tokens")
    targets = [ClassScore(1)] * 2
    with pytest.raises(RuleError, match="layernorm 'norm2'"):
        explain(method, model, x, targets, layer="add")
    (note,) = explain(method, model, x, targets, layer="add", unknown="gradient").notes
    assert "passed norm2, for which" in note
    assert note.endswith("relevance below it is not conserved")


@pytest.mark.parametrize("method", ["lrp", "deep-taylor", "mwp", "c-mwp"])
def test_nothing_is_noted_where_every_operation_has_its_step(method):
    model, x = case("residual")
    assert explain(method, model, x, [ClassScore(1)] * 2, unknown="gradient").notes == ()


def test_a_long_list_of_operations_is_cut_short():
    net = NETS["tokens"]()
    ops = list(net.ops)
    for k in range(4):
        ops.insert(-2, Op(f"more{k}", "layernorm", (ops[-3].name,), layer="norm2"))
    ops[-2] = replace(ops[-2], inputs=("more3",))
    model, x = case(NetSpec(net.inputs, tuple(ops), net.parameters, "normed"))
    (note,) = explain("lrp", model, x, [ClassScore(1)] * 2, unknown="gradient").notes
    assert "passed more3, more2, more1 and 3 more, for which" in note


def test_an_operation_that_is_met_twice_is_noted_once():
    class Twice(Delegate):
        def pullback(self, *args, **more):
            return replace(super().pullback(*args, **more), unruled=("Softmax", "Softmax"))

    model, x = case("plain")
    (note,) = explain("lrp", Twice(model), x, [ClassScore(1)] * 2).notes
    assert note.startswith("the gradient passed Softmax, for which")


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"gamma": 0.5}, "'epsilon-plus' has no option 'gamma'"),
        ({"composite": "lrp-0", "epsilon": 0.5}, "no option 'epsilon'"),
        ({"composite": "gamma", "epsilon": 0.5}, "no option 'epsilon'"),
        ({"epsilon": -1.0}, "epsilon=-1.0 does not fit"),
        ({"composite": "epsilon-gamma-box"}, "least and the greatest value"),
        ({"composite": "epsilon-gamma-box", "low": 0.0}, "both or neither"),
        ({"composite": "epsilon-gamma-box", "low": 1.0, "high": 0.0}, "not below low"),
        ({"composite": "epsilon-gamma-box", "low": np.zeros(2), "high": 1.0}, "3 channels"),
        ({"unknown": "mark"}, "unknown='mark' does not fit"),
    ],
)
def test_parameters_that_do_not_fit(params, message):
    model, x = case("plain")
    with pytest.raises(ParameterError, match=message):
        explain("lrp", model, x, [ClassScore(1)] * 2, **params)


def test_a_composite_that_does_not_exist_is_named_beside_those_alike():
    model, x = case("plain")
    with pytest.raises(UnknownMethodError, match="epsilon-plus-flat"):
        explain("lrp", model, x, [ClassScore(1)] * 2, composite="epsilon-plus-flatt")


def test_a_rule_of_gradients_is_no_composite(monkeypatch):
    monkeypatch.setattr(type(get_registry()), "rule", lambda self, name, **options: GUIDED)
    model, x = case("plain")
    with pytest.raises(ParameterError, match="rule of gradients"):
        explain("lrp", model, x, [ClassScore(1)] * 2, composite="guided")


def test_bounds_are_one_value_or_one_for_each_channel():
    assert bounds_of(None, None, 3) is None
    assert bounds_of(-1.0, np.array([1.0, 2.0, 3.0]), 3) == ((-1.0,), (1.0, 2.0, 3.0))
    assert bounds_of(np.zeros(3), np.ones(3), 3) == ((0.0,), (1.0,))
    model, x = case("plain")
    targets = [ClassScore(1)] * 2
    params = {"composite": "epsilon-gamma-box"}
    one = explain("lrp", model, x, targets, low=-6.0, high=np.full(3, 6.0), **params)
    other = explain("lrp", model, x, targets, low=np.full(3, -6.0), high=6.0, **params)
    np.testing.assert_array_equal(one.raw, other.raw)


def dense():
    """Give a network without convolutions."""
    rng = np.random.default_rng(0)
    arrays = {"one.weight": rng.normal(size=(24, 6)), "two.weight": rng.uniform(size=(6, 3))}
    ops = (
        Op("flat", "flatten", ("image",)),
        Op("one", "linear", ("flat",)),
        Op("relu", "relu", ("one",)),
        Op("two", "linear", ("relu",)),
    )
    return NetSpec({"image": (4, 2, 3)}, ops, arrays, "dense")


def test_a_dense_layer_takes_bounds_only_where_all_channels_are_alike():
    model, x = case(dense())
    free, each, alike = (
        explain("deep-taylor", model, x, [ClassScore(1)] * 2, **bounds).raw
        for bounds in ({}, {"low": LOW, "high": HIGH}, {"low": -6.0, "high": 6.0})
    )
    np.testing.assert_array_equal(free, each)
    assert not np.allclose(free, alike)


def test_the_box_is_for_convolutions():
    model, x = case(dense())
    targets, params = [ClassScore(1)] * 2, {"low": LOW, "high": HIGH}
    box, plain = (
        explain("lrp", model, x, targets, composite=name, **params).raw
        for name in ("epsilon-gamma-box", "epsilon")
    )
    np.testing.assert_array_equal(box, plain)


def test_a_rule_may_bring_its_own_bounds(monkeypatch):
    model, x = case("plain")
    targets, own = [ClassScore(1)] * 2, get_registry().rule("epsilon-gamma-box").bounded([-6], [6])
    given = explain("lrp", model, x, targets, composite=own.name, low=-6.0, high=6.0).raw
    wider = explain("lrp", model, x, targets, composite=own.name, low=-9.0, high=9.0).raw
    monkeypatch.setattr(type(get_registry()), "rule", lambda self, name, **options: own)
    np.testing.assert_array_equal(explain("lrp", model, x, targets, composite="own").raw, given)
    changed = explain("lrp", model, x, targets, composite="own", low=-9.0, high=9.0).raw
    np.testing.assert_array_equal(changed, wider)
    assert not np.allclose(given, wider)


def test_a_layer_inside_the_network_is_one_more_need():
    make = get_registry().explainer
    assert make("lrp", layer="conv1").needs == make("lrp").needs | {"capture"}
    assert "rule:conv" in make("lrp").needs


def test_every_rule_has_steps_that_can_be_taken():
    rules = [get_registry().rule(name) for name in get_registry().rules]
    for rule in (*rules, deep_taylor(), excitation(), contrastive_excitation()):
        check_steps(rule.bounded([0], [1]) if rule.needs_bounds else rule)
        assert rule.conserves
    check_steps(deep_taylor(((0.0,), (1.0,))))


@pytest.mark.parametrize("method", ["lrp", "deep-taylor", "mwp", "c-mwp"])
def test_a_layer_without_a_grid_or_off_the_way(method):
    model, x = case("branches")
    if method != "deep-taylor":
        with pytest.raises(UnknownLayerError, match="left"):
            explain(method, model, x, [Neuron("left", (1,))] * 2, layer="right")


@parametrize_with_checks(
    [
        get_registry().explainer(method, **params)
        for method, params in [
            *(("lrp", {"composite": name, "low": -6.0, "high": 6.0}) for name in PLAINLY),
            ("lrp", {"layer": "auto"}),
            ("lrp", {"layer": "conv1", "composite": "epsilon", "epsilon": 0.1, "bias": False}),
            ("lrp", {"composite": "epsilon-gamma-box", "low": LOW, "high": HIGH, "gamma": 1.0}),
            ("lrp", {"unknown": "gradient"}),
            ("mwp", {"layer": "pool1", "unknown": "gradient"}),
            ("c-mwp", {"layer": "conv1"}),
            ("deep-taylor", {"low": LOW, "high": HIGH}),
            ("deep-taylor", {"unknown": "gradient"}),
        ]
    ]
)
def test_the_checks_with_other_parameters(explainer, check):
    check(explainer)


@pytest.mark.parametrize(
    ("spelt", "name"),
    [
        ("LRP", "lrp"),
        ("LayerwiseRelevancePropagation", "lrp"),
        ("excitation_backprop", "excitation-backprop"),
        ("contrastive_excitation_backprop", "contrastive-excitation-backprop"),
        ("cMWP", "contrastive-excitation-backprop"),
        ("MWP", "excitation-backprop"),
        ("DeepTaylor", "deep-taylor"),
        ("deep_taylor", "deep-taylor"),
    ],
)
def test_a_method_is_found_by_the_name_it_has_elsewhere(spelt, name):
    assert get_registry().spec(spelt).name == name


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
