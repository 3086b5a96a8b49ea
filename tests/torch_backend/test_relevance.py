"""Rules of relevance on torch: against the reference, dense formulas, and other spellings."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from cnnviz_core.errors import MissingCapabilityError, RuleError
from cnnviz_core.model import INPUT, LOGITS, input_node
from cnnviz_core.rules import BackwardRule, relevance_rule
from cnnviz_core.steps import (
    DERIVATIVE,
    PASS,
    ReluStep,
    alpha_beta,
    epsilon,
    flat,
    gamma,
    w_square,
    without_bias,
    z_box,
    z_plus,
)
from cnnviz_core.testing.nets import NETS, random_input
from cnnviz_core.testing.reference import ReferenceModel
from cnnviz_torch.build import build
from cnnviz_torch.model import wrap
from support.torch_nets import Residual, Vgg, native, picture, seeded
from support.torchvision_ops import define


def rule(name, *steps, unknown="mark", **places):
    return relevance_rule(name, *steps, unknown=unknown, **places)


# Where contributions of both signs cancel out, a small epsilon would magnify mere rounding.
CALM = epsilon(0.01)
RULES = {
    made.name: made
    for made in (
        rule("epsilon", CALM),
        rule("lrp-0", epsilon(0), shared=z_plus()),
        rule("gamma", gamma(), CALM, shared=gamma(1.0)),
        rule("alpha-beta", alpha_beta(), shared=CALM),
        rule("alpha-beta, no bias", without_bias(alpha_beta(3, 2)), last=without_bias(CALM)),
        rule("z-plus", z_plus(), CALM, last=gamma(0.5)),
        rule("w-square", w_square(), shared=z_plus()),
        rule("flat", flat(), last=CALM, shared=flat()),
        rule("z-box", z_plus(), first=z_box()).bounded([-5], [6]),
        rule("gamma, no bias", without_bias(gamma()), without_bias(CALM)),
    )
}
PLUS = relevance_rule("plus", z_plus(), epsilon())
FOLDING = [RULES["alpha-beta"], RULES["gamma"], RULES["epsilon"]]


def relevance_of(net, x, made=PLUS, **kwargs):
    """Give the relevance at the input, where what a network returns has itself as relevance."""
    return wrap(net).pullback(x, lambda value: value, rule=made, **kwargs).gradients[INPUT]


def assert_same(actual, expected, rtol=1e-9):
    np.testing.assert_allclose(actual, expected, rtol=0, atol=rtol * np.abs(expected).max())
    assert np.abs(expected).max() > 0


# -------------------------------------------------------------------- the reference


@pytest.mark.parametrize("name", NETS)
def test_relevance_is_that_of_the_reference(name):
    net = NETS[name]()
    reference, model = ReferenceModel(net, "float64"), wrap(build(net, dtype="float64"))
    x = {key: value.astype(float) for key, value in random_input(net).items()}
    inputs = [input_node(key) for key in net.inputs]
    layers = list(reference.layers)
    for made in RULES.values():
        for wrt, of in ((inputs, LOGITS), (layers[:-1], LOGITS), (inputs[:1], layers[-2])):
            shape = reference.forward(x, capture=[of])[of].shape
            top = np.random.default_rng(1).normal(size=shape)
            if name == "two_inputs" and of != LOGITS:
                of = "concat"
                top = np.random.default_rng(1).normal(size=(2, 12))
            expected = reference.pullback(x, top, of=of, wrt=wrt, rule=made)
            actual = model.pullback(x, top, of=of, wrt=wrt, rule=made)
            # A layer norm takes even relevance away but for rounding, so a floor is needed.
            least = 1e-6 * np.abs(top).max()
            largest = max(least, *(np.abs(expected.gradients[node]).max() for node in wrt))
            for node in wrt:
                difference = actual.gradients[node] - expected.gradients[node]
                assert np.abs(difference).max() <= 1e-9 * largest, (made.name, of, node)
            assert bool(actual.unruled) == bool(expected.unruled) == (name == "tokens")


# -------------------------------------------------------------------- dense formulas


def dense(layer, x):
    """Write a layer out as a matrix (results, inputs) and a bias, for one sample."""
    with torch.no_grad():
        shape = native(x).shape[1:]
        zero = layer(torch.zeros(1, *shape, dtype=torch.float64))
        basis = torch.eye(shape.numel(), dtype=torch.float64).reshape(-1, *shape)
        matrix = (layer(basis) - zero).flatten(1).T
    return matrix.numpy(), zero.flatten().numpy()


def split(contributions, bias, relevance, eps=1e-6):
    """Split relevance in proportion to contributions (results, inputs)."""
    z = contributions.sum(1) + bias
    return contributions.T @ (relevance / (z + np.where(z >= 0, eps, -eps)))


def formula(name, matrix, bias, x, relevance):
    """Give the relevance of the inputs by the published formulas."""
    c = matrix * x
    up, down = np.maximum(c, 0), np.minimum(c, 0)
    b_up, b_down = np.maximum(bias, 0), np.minimum(bias, 0)
    if name == "epsilon":
        return split(c, bias, relevance, 0.01)
    if name == "z-plus":
        return split(up, b_up, relevance)
    if name == "alpha-beta":
        return 2 * split(up, b_up, relevance) - split(down, b_down, relevance)
    if name == "w-square":
        return split(matrix**2, bias**2, relevance)
    if name == "z-box":
        low, high = np.full_like(x, -5), np.full_like(x, 6)
        w_up, w_down = np.maximum(matrix, 0), np.minimum(matrix, 0)
        # Zeros in the border are no inputs: they contribute nothing here.
        return split(c - w_up * low - w_down * high, bias - b_up - b_down, relevance)
    out = c.sum(1) + bias
    more = 0.25
    plus = split(c + more * up, bias + more * b_up, np.where(out > 0, relevance, 0))
    return plus + split(c + more * down, bias + more * b_down, np.where(out < 0, relevance, 0))


STEPS = {
    "epsilon": CALM,
    "z-plus": z_plus(),
    "alpha-beta": alpha_beta(),
    "gamma": gamma(),
    "w-square": w_square(),
    "z-box": z_box(),
}
LAYERS = {
    "conv1d": (lambda: nn.Conv1d(2, 4, 3, 2, 1, 2, 2), (11, 2)),
    "conv2d": (lambda: nn.Conv2d(3, 4, (3, 2), (2, 1), (1, 0)), (6, 5, 3)),
    "conv2d, grouped": (lambda: nn.Conv2d(4, 6, 3, 1, 1, groups=2, bias=False), (5, 4, 4)),
    "conv2d, many": (lambda: nn.Conv2d(12, 3, 3, padding=1), (4, 3, 12)),
    "conv2d, same": (lambda: nn.Conv2d(3, 4, (2, 4), padding="same"), (5, 6, 3)),
    "conv3d": (lambda: nn.Conv3d(2, 3, 2, (1, 2, 1)), (3, 4, 3, 2)),
    "transposed": (lambda: nn.ConvTranspose2d(4, 6, 3, 2, 1, 1, 2), (3, 4, 4)),
    "transposed 1d": (lambda: nn.ConvTranspose1d(4, 6, 3, 2), (5, 4)),
    "depthwise": (lambda: nn.Conv2d(4, 8, 3, groups=4), (5, 4, 4)),
    "linear": (lambda: nn.Linear(7, 5), (7,)),
    "linear, many": (lambda: nn.Linear(90, 5), (90,)),
    "linear, no bias": (lambda: nn.Linear(7, 5, bias=False), (7,)),
}


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("norm", [False, True], ids=["alone", "with a batch norm"])
@pytest.mark.parametrize("layer", LAYERS)
def test_layers_obey_the_formulas(layer, norm):
    make, size = LAYERS[layer]

    def net():
        layers = [make()]
        if norm:
            with torch.no_grad():
                channels = layers[0](torch.zeros(1, size[-1], *size[:-1])).shape[1]
            kinds = {1: nn.BatchNorm1d, 2: nn.BatchNorm1d, 3: nn.BatchNorm2d, 4: nn.BatchNorm3d}
            layers.append(kinds[len(size)](channels))
        return nn.Sequential(*layers)

    module = seeded(net)
    if norm:
        with torch.no_grad():
            module[1].weight[::2] *= -1
    for sign in (False, True):
        x = np.random.default_rng(2).normal(size=(1, *size))
        x = np.abs(x) if sign else x
        matrix, bias = dense(module, x)
        model = wrap(module)
        top = np.random.default_rng(3).normal(size=model.forward(x).output.shape)
        flattened = native(top).flatten().numpy()
        for name, step in STEPS.items():
            expected = formula(name, matrix, bias, native(x).flatten().numpy(), flattened)
            expected = np.moveaxis(expected.reshape(native(x).shape), 1, -1)
            made = rule(name, z_plus(), first=step).bounded([-5], [6])
            assert_same(model.pullback(x, top, rule=made).gradients[INPUT], expected)


def test_flat_spreads_evenly_inside_the_border():
    net = seeded(lambda: nn.Sequential(nn.Conv2d(1, 2, 3, padding=1)))
    expected = np.zeros((4, 5))
    for i in range(4):
        for j in range(5):
            window = expected[max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2]
            window += 2 / window.size  # of two channels
    model = wrap(net)
    back = model.pullback(np.ones((1, 4, 5, 1)), np.ones_like, rule=rule("flat", flat(0)))
    np.testing.assert_allclose(back.gradients[INPUT][0, :, :, 0], expected, rtol=1e-12)


# -------------------------------------------------------------------- spellings


class Made(nn.Module):
    """A network of a function of modules and the input."""

    def __init__(self, function, *modules):
        super().__init__()
        self.function = function
        self.parts = nn.ModuleList(modules)

    def forward(self, x):
        return self.function(x, *self.parts)


def made(function, *modules):
    """Make a network: the same weights for the same modules."""
    return seeded(lambda: Made(function, *(module() for module in modules)))


def conv(c_in=3, c_out=8, **options):
    return lambda: nn.Conv2d(c_in, c_out, 3, **options)


def norm(channels=8):
    return lambda: nn.BatchNorm2d(channels)


def head(c_in=8):
    return lambda: nn.Linear(c_in, 4)


def by_norm(spelt):
    """Make a network of a convolution, a batch norm as it is spelt, and a head."""
    return made(
        lambda x, c, n, f: f(spelt(c(x), n).relu().mean((2, 3))), conv(bias=False), norm(), head()
    )


def columns(values):
    return values.reshape(-1, 1, 1)


def factor(n):
    return n.weight * (n.running_var + n.eps).rsqrt()


def _in_place(v, n):
    v -= columns(n.running_mean)
    v /= columns((n.running_var + n.eps).sqrt())
    v *= columns(n.weight)
    v += columns(n.bias)
    return v


NORMS = {
    "batch_norm": lambda v, n: F.batch_norm(
        v, n.running_mean, n.running_var, n.weight, n.bias, eps=n.eps
    ),
    "frozen": lambda v, n: v * columns(factor(n)) + columns(n.bias - n.running_mean * factor(n)),
    "published": lambda v, n: (
        ((v - columns(n.running_mean)) / columns((n.running_var + n.eps).sqrt()))
        * columns(n.weight)
        + columns(n.bias)
    ),
    "in place": _in_place,
    "negated": lambda v, n: columns(n.bias) - -(v - columns(n.running_mean)) * columns(factor(n)),
    "rsub": lambda v, n: (
        torch.rsub(v, columns(n.running_mean)) * columns(-factor(n)) + columns(n.bias)
    ),
    "channels last": lambda v, n: (
        (v.permute(0, 2, 3, 1) - n.running_mean) * factor(n) + n.bias
    ).permute(0, 3, 1, 2),
    "flattened": lambda v, n: n(v.flatten(2)[..., None]).reshape(v.shape),
    "with a number": lambda v, n: n(v * 2.0 / 2.0 + 0.5 - 0.5),
    "two": lambda v, n: n(
        n(v) * columns(1 / factor(n)) + columns(n.running_mean - n.bias / factor(n))
    ),
}


@pytest.mark.parametrize("name", NORMS)
def test_batch_norms_fold_in_any_spelling(name):
    x = picture()
    by_hand = by_norm(lambda v, n: n(v))
    c, n, f = by_hand.parts
    fused = made(lambda x, c, f: f(c(x).relu().mean((2, 3))), conv(), head())
    with torch.no_grad():
        fused.parts[0].weight.copy_(c.weight * factor(n).reshape(-1, 1, 1, 1))
        fused.parts[0].bias.copy_(n.bias - n.running_mean * factor(n))
        fused.parts[1].load_state_dict(f.state_dict())
    for step in FOLDING:
        assert_same(relevance_of(by_norm(NORMS[name]), x, step), relevance_of(fused, x, step))


NOT_FOLDED = {
    "read between": lambda v, n: n(v).relu() + v,
    "along places": lambda v, n: v * torch.linspace(0.1, 2, 8).double(),
    "along other channels": lambda v, n: n(v.transpose(1, 3)).transpose(1, 3),
    "of every value": lambda v, n: (
        v + torch.linspace(-1, 1, v[0].numel()).double().reshape(v[0].shape)
    ),
}


@pytest.mark.parametrize("name", NOT_FOLDED)
def test_only_constants_along_channels_are_folded(name):
    net, x = by_norm(NOT_FOLDED[name]), picture()
    alone = made(lambda x, c: c(x), conv(bias=False))
    alone.parts[0].load_state_dict(net.parts[0].state_dict())
    step = rule("alpha-beta", alpha_beta(), shared=CALM)
    whole = wrap(net).pullback(x, lambda v: v, wrt=["parts.0", INPUT], rule=step).gradients
    # What arrives at the convolution is split by its own weights alone.
    split_alone = wrap(alone).pullback(x, whole["parts.0"], rule=step).gradients
    assert_same(whole[INPUT], split_alone[INPUT])


ODD = BackwardRule("odd", {**FOLDING[0].steps, "batchnorm": DERIVATIVE})


@pytest.mark.parametrize("made_rule", [*FOLDING, ODD], ids=lambda made: made.name)
def test_values_inside_a_fold_have_the_relevance_of_its_end(made_rule):
    net, x = seeded(Residual), picture()
    model = wrap(net)
    back = model.pullback(x, lambda v: v, wrt=["conv1", "bn1", INPUT], rule=made_rule).gradients
    np.testing.assert_array_equal(back["conv1"], back["bn1"])
    np.testing.assert_array_equal(
        back[INPUT], model.pullback(x, lambda v: v, rule=made_rule).gradients[INPUT]
    )
    np.testing.assert_array_equal(
        back["conv1"],
        model.pullback(x, lambda v: v, wrt=["conv1"], rule=made_rule).gradients["conv1"],
    )


def _unpadded(x, c, f):
    return f(c(F.pad(x, (1, 1, 1, 1))).relu().mean((2, 3)))


@pytest.mark.parametrize("name", ["flat", "z-box", "alpha-beta", "w-square"])
def test_zero_padding_belongs_to_the_convolution(name):
    x = picture()
    inside = made(lambda x, c, f: f(c(x).relu().mean((2, 3))), conv(padding=1), head())
    before = made(_unpadded, conv(), head())
    layer = made(
        lambda x, p, c, f: f(c(p(x)).relu().mean((2, 3))), lambda: nn.ZeroPad2d(1), conv(), head()
    )
    expected = relevance_of(inside, x, RULES[name])
    assert_same(relevance_of(before, x, RULES[name]), expected)
    assert_same(relevance_of(layer, x, RULES[name]), expected)
    back = wrap(layer).pullback(x, lambda v: v, wrt=["parts.0", INPUT], rule=RULES[name]).gradients
    assert_same(back[INPUT], expected)
    np.testing.assert_array_equal(back["parts.0"][:, 1:-1, 1:-1], back[INPUT])
    assert not back["parts.0"][:, 0].any()


def test_padding_with_another_value_is_data():
    x = picture()
    net = made(lambda x, c, f: f(c(F.pad(x, (1, 1, 1, 1), value=2.0)).mean((2, 3))), conv(), head())
    inside = made(lambda x, c, f: f(c(x).mean((2, 3))), conv(padding=1), head())
    even = rule("flat", flat(0), shared=flat(0))
    data, border = (
        wrap(one).pullback(x, np.ones_like, rule=even).gradients[INPUT].sum()
        for one in (net, inside)
    )
    assert border == pytest.approx(2 * 4)  # samples and scores
    assert data < 0.9 * border


def _tokens(v):
    return v.flatten(2).transpose(1, 2)


LINEAR = {
    "linear": lambda v, m: m(v),
    "contiguous": lambda v, m: m(v.contiguous()),
    "matmul": lambda v, m: v @ m.weight.T + m.bias,
    "matmul, in place": lambda v, m: (v @ m.weight.T).add_(m.bias),
    "einsum": lambda v, m: torch.einsum("ntc,kc->ntk", v, m.weight) + m.bias,
    "bmm": lambda v, m: torch.bmm(v, m.weight.T.expand(len(v), -1, -1)) + m.bias,
    "addmm": lambda v, m: torch.addmm(
        m.bias / 3, v.reshape(-1, 8), m.weight.T / 2, beta=3, alpha=2
    ).reshape(v.shape),
}


def by_linear(spelt):
    return made(
        lambda x, c, m, f: f(spelt(_tokens(c(x)), m).relu().mean(1)),
        conv(),
        lambda: nn.Linear(8, 8),
        head(),
    )


@pytest.mark.parametrize("name", LINEAR)
def test_dense_layers_in_any_spelling(name):
    x = picture()
    for step in FOLDING:
        expected = relevance_of(by_linear(LINEAR["linear"]), x, step)
        assert_same(relevance_of(by_linear(LINEAR[name]), x, step), expected)


def test_a_matrix_from_the_left_is_a_dense_layer():
    x = picture()

    def by_rows(v, m):
        return (m.weight @ v.transpose(1, 2)).transpose(1, 2)

    for step in FOLDING:
        expected = relevance_of(by_linear(lambda v, m: v @ m.weight.T), x, step)
        assert_same(relevance_of(by_linear(by_rows), x, step), expected)


@pytest.mark.parametrize("made_rule", FOLDING, ids=lambda made: made.name)
def test_in_place_and_functional_networks_agree(made_rule):
    x, top = picture(size=(13, 9)), lambda v: v
    one, other = (seeded(Vgg, inplace) for inplace in (True, False))
    wrt = ["features.0", "features.5", "classifier.0", INPUT]
    got, expected = (
        wrap(net).pullback(x, top, wrt=wrt, rule=made_rule).gradients for net in (one, other)
    )
    for node in wrt:
        np.testing.assert_array_equal(got[node], expected[node])


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_traced_and_exported_networks_agree():
    net, x = seeded(Residual), picture()
    expected = relevance_of(net, x)
    assert_same(relevance_of(torch.fx.symbolic_trace(net), x), expected)
    program = torch.export.export(net, (native(x),))
    assert_same(relevance_of(program, x), expected)
    assert_same(relevance_of(program.run_decompositions(), x), expected)
    traced = torch.jit.trace(net, native(x))
    part = made(lambda x: traced(x) * 1.0)
    part.traced = traced
    assert_same(relevance_of(part, x), expected)
    with pytest.raises(MissingCapabilityError, match="rule:"):
        relevance_of(traced, x)


# -------------------------------------------------------------------- sums, averages, gates


ADDED = {
    "add": (lambda a, b: a + b, 1, 1),
    "in place": (lambda a, b: a.clone().add_(b), 1, 1),
    "alpha": (lambda a, b: torch.add(a, b, alpha=3), 1, 3),
    "sub": (lambda a, b: a - b, 1, -1),
    "sub, alpha": (lambda a, b: torch.sub(a, b, alpha=0.5), 1, -0.5),
    "rsub": (lambda a, b: torch.rsub(a, b, alpha=2), -2, 1),
}


@pytest.mark.parametrize("name", ADDED)
def test_sums_split_among_contributions(name):
    add, *factors = ADDED[name]

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.precision = nn.Parameter(torch.ones((), dtype=torch.float64))

        def forward(self, one, other):
            return add(one, other)

    rng = np.random.default_rng(0)
    x = {"one": rng.normal(size=(2, 6)), "other": rng.normal(size=(2, 6))}
    top = rng.normal(size=(2, 6))
    model = wrap(Net())
    wrt = [input_node("one"), input_node("other")]
    parts = [f * v for f, v in zip(factors, x.values(), strict=True)]
    for step, kept in ((CALM, parts), (z_plus(0.01), [np.maximum(p, 0) for p in parts])):
        z = kept[0] + kept[1]
        shares = top / (z + np.where(z >= 0, 0.01, -0.01))
        back = model.pullback(x, top, wrt=wrt, rule=rule("sum", CALM, shared=step)).gradients
        for node, part in zip(wrt, kept, strict=True):
            np.testing.assert_allclose(back[node], part * shares, rtol=1e-12, atol=1e-15)
        alone = model.pullback(x, top, wrt=wrt[:1], rule=rule("sum", CALM, shared=step))
        np.testing.assert_array_equal(alone.gradients[wrt[0]], back[wrt[0]])


def test_broadcast_sums_gather_what_they_spread():
    net = made(lambda x, c: x + x.mean((2, 3), keepdim=True), conv())
    x = picture()
    mean = x.mean((1, 2), keepdims=True)
    shares = np.ones_like(x) / (x + mean + np.where(x + mean >= 0, 0.01, -0.01))
    gathered = (mean * shares).sum((1, 2), keepdims=True)
    expected = x * shares + x * gathered / x.shape[1] / x.shape[2] / (
        mean + np.where(mean >= 0, 0.01, -0.01)
    )
    back = wrap(net).pullback(x, np.ones_like, rule=rule("sum", CALM, shared=CALM))
    np.testing.assert_allclose(back.gradients[INPUT], expected, rtol=1e-10)


AVERAGES = {
    "adaptive": lambda v: F.adaptive_avg_pool2d(v, 1).flatten(1),
    "mean": lambda v: v.mean((2, 3)),
    "two means": lambda v: v.mean(3).mean(2),
    "sum": lambda v: v.sum((-1, -2)) / 80,
    "pool": lambda v: F.avg_pool2d(v, v.shape[2:]).flatten(1),
    "flat": lambda v: v.flatten(2).mean(-1),
}


@pytest.mark.parametrize("name", AVERAGES)
def test_averages_in_any_spelling(name):
    x = picture()

    def net(average):
        return made(lambda x, c, f: f(average(c(x).relu())), conv(), head())

    shared = rule("shared", z_plus(), CALM, shared=z_plus(0))
    expected = relevance_of(net(AVERAGES["mean"]), x, shared)
    assert_same(relevance_of(net(AVERAGES[name]), x, shared), expected)


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


# -------------------------------------------------------------------- what has no step


UNRULED = {
    "softmax": (lambda v: v.softmax(1), "softmax"),
    "product": (lambda v: v * v.relu(), "mul"),
    "two gates": (lambda v: v.sigmoid() * v.tanh(), "mul"),
    "quotient": (lambda v: v / (1 + v.abs()), "div"),
    "bilinear": (
        lambda v: F.interpolate(v, scale_factor=2, mode="bilinear"),
        "upsample_bilinear2d",
    ),
    "group norm": (lambda v: F.group_norm(v, 2), "native_group_norm"),
    "batch statistics": (lambda v: F.batch_norm(v, None, None, training=True), "native_batch_norm"),
    "attention": (
        lambda v: F.scaled_dot_product_attention(v, v, v),
        "scaled_dot_product_flash_attention",
    ),
    "kernel of data": (lambda v: F.conv2d(v, v[:1, :, :1, :1].expand(8, 8, 1, 1)), "convolution"),
}


class Inner(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, v):
        return self.function(v)


@pytest.mark.parametrize("name", UNRULED)
def test_operations_without_a_step_are_refused_or_marked(name):
    function, called = UNRULED[name]

    def net(x, c, inner, f):
        return f(inner(c(x)).mean((2, 3)))

    model, x = wrap(made(net, conv(), lambda: Inner(function), head())), picture()
    with pytest.raises(RuleError, match=f"no step for {called}.* 'parts.1' between '@logits'"):
        model.pullback(x, np.ones_like, rule=PLUS)
    marked = relevance_rule("plus", z_plus(), epsilon(), unknown="mark")
    back = model.pullback(x, np.ones_like, wrt=["parts.0", "parts.1"], rule=marked)
    assert len(back.unruled) == 1
    assert back.unruled[0].startswith(called)
    if name not in ("two gates", "quotient"):  # which hold activations besides
        value = native(model.forward(x, capture=["parts.0"])["parts.0"]).requires_grad_()
        arriving = native(back.gradients["parts.1"])
        (expected,) = torch.autograd.grad(function(value), value, arriving)
        assert_same(back.gradients["parts.0"], expected.movedim(1, -1).numpy())
    model.pullback(x, np.ones_like, wrt=["parts.1"], rule=PLUS)


class Own(torch.autograd.Function):
    """A user's own function of a tensor and a number, with two results."""

    @staticmethod
    def forward(ctx, number, x):
        ctx.number = number
        return x * number, x + 1

    @staticmethod
    def backward(ctx, one, other):
        return None, one * ctx.number + other


def _on_a_slice(v):
    v = v.clone()
    v[:, :2] *= 3
    return v


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (lambda v: Own.apply(3.0, v)[0] * torch.ones(1).double().exp(), "OwnBackward"),
        (_on_a_slice, "CopySlices"),
    ],
    ids=["autograd.Function", "slice in place"],
)
def test_opaque_operations_are_refused_or_marked(function, name):
    net = made(lambda x, c, f: f(function(c(x)).mean((2, 3))), conv(), head())
    model, x = wrap(net), picture()
    with pytest.raises(RuleError, match=f"operations inside '.*{name}"):
        model.pullback(x, np.ones_like, rule=PLUS)
    marked = relevance_rule("plus", z_plus(), epsilon(), unknown="mark")
    back = model.pullback(x, np.ones_like, rule=marked)
    assert back.unruled == (name.removesuffix("Backward"),)
    assert np.abs(back.gradients[INPUT]).max() > 0


def test_rules_without_effect_are_refused():
    model = wrap(made(lambda x: x.flatten(1)))
    with pytest.raises(RuleError, match="would change nothing"):
        model.pullback(picture(), np.ones_like, rule=PLUS)


def test_bounds_must_fit_the_first_layer():
    x = picture()
    bounded = rule("box", z_plus(), first=z_box()).bounded([-5, -5, -4], [6, 6, 4])
    assert relevance_of(made(lambda x, c: c(x), conv()), x, bounded).any()
    flattened = made(lambda x, f: f(x.flatten(1)), lambda: nn.Linear(360, 4))
    with pytest.raises(RuleError, match="bounds are those of 3 channels"):
        relevance_of(flattened, x, bounded)
    averaged = made(lambda x, f: f(x.mean((2, 3))), head(3))
    with pytest.raises(RuleError, match="before which there is Mean"):
        relevance_of(averaged, x, bounded)


@pytest.mark.parametrize("pad", [0, 1])
def test_bounds_are_those_of_the_networks_input(pad):
    x = np.random.default_rng(4).uniform(0, 255, (2, 12, 10, 3))
    mean, std = np.array([0.4, 0.5, 0.6]), np.array([0.2, -0.3, 0.25])

    def rescaled(x, layer):
        centre, spread = (torch.from_numpy(values)[:, None, None] for values in (mean, std))
        return layer(F.pad((x / 255 - centre) / spread, (pad,) * 4))

    whole = made(rescaled, conv())
    alone = made(lambda x, c: c(F.pad(x, (pad,) * 4)), conv())
    seen = (x / 255 - mean) / std
    ends = np.sort([-mean / std, (1 - mean) / std], axis=0)
    box = rule("box", z_plus(), first=z_box())
    found = relevance_of(whole, x, box.bounded([0], [255]))
    expected = relevance_of(alone, seen, box.bounded(*ends))
    np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-12)
    mixed = made(lambda x, c: c(torch.stack([x[:, 0] / 2, x[:, 1], x[:, 2]], dim=1)), conv())
    with pytest.raises(RuleError, match="before which there is"):
        relevance_of(mixed, x, box.bounded([0], [255]))


# -------------------------------------------------------------------- steps of other kinds


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


# -------------------------------------------------------------------- around the network


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


# -------------------------------------------------------------------- real architectures


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "leak"),
    [
        ("alexnet", 1e-3),
        ("vgg16", 1e-3),
        ("resnet18", 1e-3),
        ("resnet50", 1e-3),
        ("mobilenet_v2", 1e-3),
        ("mobilenet_v3_small", 0.1),
        ("densenet121", 1e-3),
        ("squeezenet1_1", 1e-3),
        ("inception_v3", 1e-3),
        ("googlenet", 1e-3),
        ("efficientnet_b0", 0.1),
    ],
)
def test_real_architectures_conserve(name, leak):
    try:
        define()
    except ModuleNotFoundError:
        pytest.skip("torchvision is not installed")
    import torchvision

    whole = {"init_weights": False, "aux_logits": False}
    options = whole if name in ("googlenet", "inception_v3") else {}

    def make():
        """Make a network whose batch norms keep the signal's size, and shift nothing."""
        net = torchvision.models.get_model(name, weights=None, **options)
        norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
        for module in norms:
            module.momentum = None  # so that one batch tells
        with torch.no_grad():
            net(torch.randn(2, 3, 128, 128))
        for module in norms:
            module.running_mean.zero_()
        return net

    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        net = make().double().eval()
    plus = relevance_rule("plus", z_plus(1e-9), epsilon(1e-9)).without_bias()
    x = picture(1, (128, 128))
    model = wrap(net)
    best = np.eye(1000)[[model.forward(x).logits.argmax()]]
    back = model.pullback(x, lambda scores: best * scores, rule=plus)
    assert back.unruled == ()
    assert abs(back.gradients[INPUT].sum() / back.values[LOGITS].max() - 1) < leak
