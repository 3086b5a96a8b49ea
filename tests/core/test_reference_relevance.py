"""Relevance on the reference model: nothing is lost but what is accounted for, layer by layer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnviz_core.errors import RuleError
from cnnviz_core.model import INPUT, LOGITS, input_node
from cnnviz_core.netspec import NetSpec, Op
from cnnviz_core.rules import BackwardRule, relevance_rule
from cnnviz_core.steps import (
    DERIVATIVE,
    alpha_beta,
    epsilon,
    flat,
    gamma,
    w_square,
    z_box,
    z_plus,
)
from cnnviz_core.testing.nets import NETS, random_input
from cnnviz_core.testing.operations import OPERATIONS
from cnnviz_core.testing.reference import ReferenceModel

SAME = ((1, 1), (1, 1))


# ---------------------------------------------------------------- random networks


class Builder:
    """Puts operations one behind the other, with weights of both signs."""

    def __init__(self, seed, shape):
        self.rng = np.random.default_rng(seed)
        self.shape, self.ops, self.arrays = shape, [], {}
        self.last = "image"

    def add(self, kind, *inputs, **attrs):
        name = f"{kind}{len(self.ops)}"
        inputs = inputs or (self.last,)
        if kind in ("conv", "linear"):
            self._weigh(name, kind, attrs.pop("width"), attrs.pop("bias"), attrs)
        if kind == "batchnorm":
            self._norm(name)
        self.ops.append(Op(name, kind, inputs, attrs=attrs))
        self.last = name
        self.shape = NetSpec({"image": self.given}, tuple(self.ops), self.arrays).shapes()[name]
        return name

    def _weigh(self, name, kind, width, bias, attrs):
        size = attrs.pop("size", ()) if kind == "conv" else ()
        weight = self.rng.normal(size=(*size, self.shape[-1], width))
        self.arrays[f"{name}.weight"] = weight / np.sqrt(weight[..., 0].size)
        if bias:
            self.arrays[f"{name}.bias"] = 0.3 * self.rng.normal(size=width)

    def _norm(self, name):
        channels = self.shape[-1]
        for key in ("scale", "variance"):
            self.arrays[f"{name}.{key}"] = self.rng.uniform(0.5, 1.5, channels)
        for key in ("shift", "mean"):
            self.arrays[f"{name}.{key}"] = 0.3 * self.rng.normal(size=channels)

    def net(self):
        return NetSpec({"image": self.given}, tuple(self.ops), self.arrays)


BLOCKS = ("conv", "normed", "rectified", "pooled", "averaged", "residual", "branched", "normalised")


@st.composite
def networks(draw):
    """Draw a network of two to five blocks, ending in dense layers."""
    shape = (draw(st.integers(4, 7)), draw(st.integers(4, 7)), draw(st.integers(1, 3)))
    b = Builder(draw(st.integers(0, 2**16)), shape)
    b.given = shape
    for block in draw(st.lists(st.sampled_from(BLOCKS), min_size=2, max_size=5)):
        put(draw, b, block)
    b.add(draw(st.sampled_from(["gap", "flatten"])))
    if draw(st.booleans()):
        b.add("linear", width=4, bias=draw(st.booleans()))
        b.add("relu")
    b.add("linear", width=3, bias=draw(st.booleans()))
    return b.net()


def put(draw, b, block):
    """Add one block."""

    def conv(width, **attrs):
        bias = draw(st.booleans())
        if attrs:
            return b.add("conv", width=width, bias=bias, size=(3, 3), **attrs)
        return b.add("conv", width=width, bias=bias, size=(1, 2) if b.shape[1] > 1 else (1, 1))

    def function():
        kind = draw(st.sampled_from(["relu", "relu6", "leaky_relu", "sigmoid", "silu"]))
        return b.add(kind)

    match block:
        case "conv":
            conv(draw(st.integers(1, 4)))
        case "normed":
            conv(draw(st.integers(1, 4)), padding=SAME, stride=(draw(st.integers(1, 2)), 1))
            b.add("batchnorm")
            if draw(st.booleans()):
                b.add("batchnorm")
            function()
        case "rectified":
            function()
        case "pooled" | "averaged":
            window = tuple(min(2, n) for n in b.shape[:2])
            attrs = {"window": window, "stride": (1, draw(st.integers(1, 2)))}
            b.add("maxpool" if block == "pooled" else "avgpool", **attrs)
        case "residual":
            start, width = b.last, b.shape[-1]
            conv(width, padding=SAME)
            if draw(st.booleans()):
                b.add("batchnorm")
            b.add("add", b.last, start)
            function()
        case "branched":
            start, shape = b.last, b.shape
            left = conv(draw(st.integers(1, 2)), padding=SAME)
            b.last, b.shape = start, shape
            right = conv(draw(st.integers(1, 2)), padding=SAME)
            b.add("concat", left, right)
        case "normalised":
            function()
            b.add("batchnorm")


# ---------------------------------------------------------------- what a step may lose


@dataclass
class Parts:
    """What a layer's result is made of: its value, and sums of contributions of its inputs."""

    value: np.ndarray
    bias: np.ndarray | float
    signed: np.ndarray
    supporting: np.ndarray
    squared: np.ndarray
    counted: np.ndarray

    @property
    def opposing(self):
        return self.signed - self.supporting


def up(v):
    return np.maximum(v, 0)


def down(v):
    return np.minimum(v, 0)


# For each share of a step: its factor, what the inputs contribute in sum, and what the bias does.


def all_of(parts):
    return [(1.0, parts.signed, parts.bias)]


def positive_ones(parts):
    return [(1.0, parts.supporting, up(parts.bias))]


def both_signs(parts):
    return [
        (2.0, parts.supporting, up(parts.bias)),
        (-1.0, parts.opposing, down(parts.bias)),
    ]


def favoured_ones(parts):
    above, below = parts.value > 0, parts.value < 0
    inputs = np.where(above, parts.supporting, 0) + np.where(below, parts.opposing, 0)
    bias = np.where(above, up(parts.bias), 0) + np.where(below, down(parts.bias), 0)
    some = above | below
    return [(1.0, some * parts.signed + 0.5 * inputs, some * parts.bias + 0.5 * bias)]


def squared_weights(parts):
    return [(1.0, parts.squared, parts.bias**2)]


def every_input(parts):
    return [(1.0, parts.counted, 0.0)]


STEPS = {
    "epsilon": (epsilon, all_of),
    "z-plus": (z_plus, positive_ones),
    "alpha-beta": (lambda eps: alpha_beta(2.0, 1.0, eps), both_signs),
    "gamma": (lambda eps: gamma(0.5, eps), favoured_ones),
    "w-square": (w_square, squared_weights),
    "flat": (flat, every_input),
}


def parts_of(op, value, inputs, weight, bias):
    """Work out the sums of contributions forwards; no relevance is handed down for that."""

    def applied(of_input, of_weight):
        arrays = {} if weight is None else {"weight": of_weight(weight)}
        return OPERATIONS[op.kind].forward([of_input(v) for v in inputs], arrays, op.attrs)

    return Parts(
        value,
        bias,
        signed=applied(np.positive, np.positive),
        supporting=applied(up, up) + (0 if weight is None else applied(down, down)),
        squared=applied(np.ones_like, np.square),
        counted=applied(np.ones_like, np.ones_like),
    )


def lost(shares, relevance, eps):
    """Give how much of the relevance of a layer's result reaches none of its inputs."""
    handed = 0.0
    for factor, inputs, bias in shares:
        z = inputs + bias
        z = z + np.where(z >= 0, eps, -eps)
        handed = handed + factor * np.where(z != 0, inputs / np.where(z != 0, z, 1), 0)
    return (relevance * (1 - handed)).sum()


def by_hand(net, op):
    """Give a layer's weight and bias with the normalisations behind it, and the last one's name."""
    arrays, end = net.of_layer(op.layer), op.name
    weight, bias = arrays["weight"], arrays.get("bias", 0.0)
    while len(takers := [other for other in net.ops if end in other.inputs]) == 1:
        if takers[0].kind != "batchnorm":
            break
        end, n = takers[0].name, net.of_layer(takers[0].layer)
        scale = n["scale"] / (n["variance"] + takers[0].attrs["epsilon"]) ** 0.5
        weight, bias = weight * scale, (bias - n["mean"]) * scale + n["shift"]
    return weight, bias, end


@settings(max_examples=150)
@given(networks(), st.sampled_from(list(STEPS)), st.sampled_from([0.0, 1e-6, 0.1]), st.booleans())
def test_what_is_missing_at_the_input_is_what_biases_and_stabilisers_keep(net, name, eps, biased):
    make, shares_of = STEPS[name]
    rule = relevance_rule(name, make(eps), shared=make(eps))
    rule = rule if biased else rule.without_bias()
    model = ReferenceModel(net, "float64")
    x = random_input(net, 2, seed=1)["image"].astype(np.float64)
    *inner, end = model.layers
    values = {"image": x, **model.forward(x, capture=list(model.layers)).values}
    top = np.sin(values[end] + 1)
    found = model.pullback(x, top, wrt=[INPUT, *inner], rule=rule).gradients
    relevance = {**found, end: top}
    missing, size = 0.0, np.abs(top).sum()
    for op in net.ops:
        if op.kind not in ("conv", "linear", "add", "avgpool", "gap"):
            continue
        weighted = op.kind in ("conv", "linear")
        weight, bias, end = by_hand(net, op) if weighted else (None, 0.0, op.name)
        inputs = [values[i] for i in op.inputs]
        parts = parts_of(op, values[end], inputs, weight, bias if biased else 0.0)
        missing += lost(shares_of(parts), relevance[end], eps)
        size += np.abs(relevance[end]).sum()
    assert abs(top.sum() - missing - found[INPUT].sum()) <= 1e-9 * size


# One filter of "depthwise" reads nothing but zeros somewhere, of which epsilon makes nothing.
@pytest.mark.parametrize(
    ("name", "step"),
    [
        *((name, epsilon(0.0)) for name in NETS if name not in ("tokens", "depthwise")),
        *((name, step(0.0)) for name in NETS if name != "tokens" for step in (w_square, flat)),
    ],
)
def test_without_biases_and_stabilisers_nothing_is_missing(name, step):
    net = NETS[name]()
    model = ReferenceModel(net, "float64")
    x = {k: v.astype(np.float64) for k, v in random_input(net).items()}
    rule = relevance_rule("bare", step, shared=step).without_bias()
    back = model.pullback(x, np.square, wrt=[input_node(k) for k in x], rule=rule)
    given = sum(array.sum((*range(1, array.ndim),)) for array in back.gradients.values())
    np.testing.assert_allclose(given, (back.values[LOGITS] ** 2).sum(-1), rtol=1e-9)


# ---------------------------------------------------------------- what is folded

RULES = [
    relevance_rule("epsilon", epsilon(0.01), first=z_box(0.01)).bounded([-5], [5]),
    relevance_rule("alpha-beta", alpha_beta(), epsilon(0.01), first=flat()),
    relevance_rule("gamma", gamma(), last=w_square()).without_bias(),
]


def without_norms(net):
    """Fold every normalisation into its convolution, by hand."""
    arrays, ops, gone = dict(net.parameters), [], {}
    for op in net.ops:
        if op.kind == "batchnorm" and op.name in gone:
            continue
        if op.kind == "conv":
            weight, bias, end = by_hand(net, op)
            arrays |= {f"{op.layer}.weight": weight, f"{op.layer}.bias": bias}
            gone[end] = op.name
        inputs = [gone.get(name, name) for name in op.inputs]
        ops.append(replace(op, inputs=tuple(inputs)))
    return NetSpec(net.inputs, tuple(ops), arrays)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
@pytest.mark.parametrize("name", ["residual", "depthwise", "signal", "swish"])
def test_folding_equals_the_network_that_is_folded_by_hand(name, rule):
    net = NETS[name]()
    other = without_norms(net)
    assert not any(op.kind == "batchnorm" for op in other.ops)
    x = next(iter(random_input(net).values())).astype(np.float64)
    one, two = (
        ReferenceModel(n, "float64").pullback(x, np.square, rule=rule) for n in (net, other)
    )
    np.testing.assert_allclose(two.values[LOGITS], one.values[LOGITS], rtol=1e-9)
    scale = np.abs(one.gradients[INPUT]).max()
    np.testing.assert_allclose(two.gradients[INPUT], one.gradients[INPUT], atol=1e-10 * scale)


def normed(*tail, width=3):
    """A convolution, two normalisations, and what comes behind."""
    b = Builder(5, (4, 5, 2))
    b.given = b.shape
    b.add("conv", width=width, bias=True, size=(1, 1))
    b.add("batchnorm")
    b.add("batchnorm")
    for kind, *inputs in tail:
        b.add(kind, *inputs)
    return b.net()


def test_a_chain_of_normalisations_is_folded_too():
    net = normed()
    assert len(net.ops) == 3
    weight, bias, end = by_hand(net, net.ops[0])
    assert end == "batchnorm2"
    x = random_input(net)["image"].astype(np.float64)
    model = ReferenceModel(net, "float64")
    rule = relevance_rule("epsilon", epsilon(0.01))
    back = model.pullback(x, np.ones_like, wrt=[INPUT, "conv0", "batchnorm1"], rule=rule)
    z = x @ weight[0, 0] + bias
    shares = 1 / (z + 0.01 * np.sign(z))
    np.testing.assert_allclose(back.gradients[INPUT], x * (shares @ weight[0, 0].T), rtol=1e-9)
    for node in ("conv0", "batchnorm1"):
        np.testing.assert_array_equal(back.gradients[node], 1)


def test_what_something_else_reads_too_is_not_folded():
    net = normed(("add", "conv0", "batchnorm2"))
    weight, bias = (net.parameters[f"conv0.{key}"] for key in ("weight", "bias"))
    x = random_input(net)["image"].astype(np.float64)
    rule = relevance_rule("lrp-0", epsilon(0.0), shared=epsilon(0.0))
    found = ReferenceModel(net, "float64").pullback(x, np.ones_like, rule=rule).gradients[INPUT]
    # The sum hands 1 down to both its parts together, the normalisations pass it on.
    z = x @ weight[0, 0] + bias
    np.testing.assert_allclose(found, x * ((1 / z) @ weight[0, 0].T), rtol=1e-9)


def test_a_normalisation_behind_a_rectifier_hands_down_what_it_is_given():
    net = normed(("relu",), ("batchnorm",))
    x = random_input(net)["image"].astype(np.float64)
    model = ReferenceModel(net, "float64")
    rule = relevance_rule("epsilon", epsilon())
    back = model.pullback(x, np.cos, wrt=["relu3", "batchnorm2"], rule=rule)
    for node in ("relu3", "batchnorm2"):
        np.testing.assert_array_equal(back.gradients[node], np.cos(back.values[LOGITS]))
    bare = {k: s for k, s in rule.steps.items() if k != "batchnorm"}
    with pytest.raises(RuleError, match="no step for batchnorm 'batchnorm4'"):
        model.pullback(x, np.cos, rule=BackwardRule("bare", bare, unknown="refuse"))
    marked = model.pullback(x, np.cos, rule=BackwardRule("bare", bare, unknown="mark"))
    assert marked.unruled == ("batchnorm4",)
    norm = net.of_layer("batchnorm4")
    factor = norm["scale"] / np.sqrt(norm["variance"] + 1e-5)
    found = model.pullback(x, np.cos, wrt=["relu3", INPUT], rule=BackwardRule("bare", bare))
    expected = factor * np.cos(back.values[LOGITS])
    np.testing.assert_allclose(found.gradients["relu3"], expected, rtol=1e-9)


def test_a_normalisation_needs_no_step_where_it_is_folded():
    net = NETS["residual"]()
    x = random_input(net)["image"].astype(np.float64)
    model = ReferenceModel(net, "float64")
    usual = relevance_rule("usual", epsilon(0.01))
    bare = {k: s for k, s in usual.steps.items() if k != "batchnorm"}
    rule = BackwardRule("bare", bare, unknown="refuse")
    for nodes in ([INPUT], ["conv1a"], ["conv1a", INPUT], ["bn2b", "stem"]):
        one, two = (model.pullback(x, np.square, wrt=nodes, rule=r) for r in (usual, rule))
        for node in nodes:
            np.testing.assert_array_equal(one.gradients[node], two.gradients[node])


# ---------------------------------------------------------------- places


def chained(model, x, cuts, rule):
    """Hand relevance down from cut to cut, each time from scratch."""
    arriving = np.square
    for top, bottom in pairwise(cuts):
        back = model.pullback(x, arriving, of=top, wrt=[bottom], rule=rule)
        arriving = back.gradients[bottom]
    return arriving


@pytest.mark.parametrize(
    ("name", "cuts"),
    [
        ("plain", [LOGITS, "gap", "conv2", "pool1", "conv1", INPUT]),
        ("residual", [LOGITS, "gap", "relu@2", "relu@1", "bn0", INPUT]),
        ("depthwise", [LOGITS, "grouped", "bn3", "relu2", "relu1", INPUT]),
        ("strided", [LOGITS, "fc1", "pool2", "relu1", INPUT]),
    ],
)
def test_handing_down_in_two_goes_is_handing_down_in_one(name, cuts):
    net = NETS[name]()
    x = next(iter(random_input(net).values())).astype(np.float64)
    model = ReferenceModel(net, "float64")
    rule = relevance_rule("gamma", gamma(), epsilon(0.01))
    found = chained(model, x, cuts, rule)
    whole = model.pullback(x, np.square, rule=rule).gradients[INPUT]
    np.testing.assert_allclose(found, whole, atol=1e-12 * np.abs(whole).max())


def test_the_first_layers_are_those_that_read_an_input():
    net = NETS["two_inputs"]()
    x = {k: v.astype(np.float64) for k, v in random_input(net).items()}
    model = ReferenceModel(net, "float64")
    usual, other = relevance_rule("usual", epsilon(0.01)), relevance_rule("other", flat())
    placed = relevance_rule("placed", epsilon(0.01), first=flat())
    above = model.pullback(x, np.square, wrt=["conv", "embed"], rule=usual).gradients
    for layer, name in (("conv", "image"), ("embed", "vector")):
        node = input_node(name)
        found = model.pullback(x, np.square, wrt=[node], rule=placed).gradients[node]
        expected = model.pullback(x, above[layer], of=layer, wrt=[node], rule=other).gradients[node]
        np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_a_layer_is_not_first_since_nothing_before_it_is_asked_for():
    net = NETS["plain"]()
    x = random_input(net)["image"].astype(np.float64)
    model = ReferenceModel(net, "float64")
    one, two = (
        model.pullback(
            x, np.square, wrt=["pool1"], rule=relevance_rule("r", epsilon(0.01), first=first)
        ).gradients["pool1"]
        for first in (None, flat())
    )
    np.testing.assert_array_equal(one, two)


def test_the_last_layers_are_those_nearest_to_what_is_explained():
    net = NETS["branches"]()
    x = random_input(net)["image"].astype(np.float64)
    model = ReferenceModel(net, "float64")
    placed = relevance_rule("placed", epsilon(0.01), last=flat())
    usual, other = relevance_rule("usual", epsilon(0.01)), relevance_rule("other", flat())
    for of, nodes in ((LOGITS, ["gap"]), ("concat", ["relu0"])):
        found = model.pullback(x, np.square, of=of, rule=placed).gradients[INPUT]
        (node,) = nodes
        above = model.pullback(x, np.square, of=of, wrt=nodes, rule=other).gradients[node]
        expected = model.pullback(x, above, of=node, rule=usual).gradients[INPUT]
        np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_a_layer_that_is_both_takes_the_last_ones_step():
    net = NETS["plain"]()
    x = random_input(net)["image"].astype(np.float64)
    model = ReferenceModel(net, "float64")
    both = relevance_rule("both", epsilon(0.01), first=flat(), last=w_square())
    one, two = (
        model.pullback(x, np.square, of="conv1", rule=rule).gradients[INPUT]
        for rule in (both, relevance_rule("squares", w_square()))
    )
    np.testing.assert_array_equal(one, two)


def test_activations_pass_relevance_and_pools_give_it_to_the_winner():
    net = NETS["plain"]()
    x = random_input(net)["image"].astype(np.float64)
    model = ReferenceModel(net, "float64")
    rule = relevance_rule("epsilon", epsilon(0.01))
    back = model.pullback(x, np.square, wrt=["pool1", "relu1", "conv1"], rule=rule)
    np.testing.assert_array_equal(back.gradients["conv1"], back.gradients["relu1"])
    value, found = back.values["relu1"], back.gradients["relu1"]
    windows = value[:, :12, :8].reshape(2, 6, 2, 4, 2, 6)
    winners = np.repeat(np.repeat(windows.max((2, 4)), 2, 1), 2, 2) == value[:, :12, :8]
    given = np.repeat(np.repeat(back.gradients["pool1"], 2, 1), 2, 2)
    unique = windows.max((2, 4)) > 0
    chosen = np.repeat(np.repeat(unique, 2, 1), 2, 2)
    np.testing.assert_array_equal(found[:, :12, :8][chosen], np.where(winners, given, 0)[chosen])


def test_a_derivative_among_the_steps_is_a_gradient_there():
    net = NETS["plain"]()
    x = random_input(net)["image"].astype(np.float64)
    model = ReferenceModel(net, "float64")
    usual = relevance_rule("usual", epsilon(0.01))
    rule = BackwardRule("mixed", {**usual.steps, "conv": DERIVATIVE, "relu": DERIVATIVE})
    above = model.pullback(x, np.square, wrt=["gap"], rule=usual).gradients["gap"]
    pooled = model.pullback(x, above, of="gap", wrt=["relu2"], rule=usual).gradients["relu2"]
    expected = model.pullback(x, pooled, of="relu2").gradients[INPUT]
    found = model.pullback(x, np.square, rule=rule).gradients[INPUT]
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-15)
