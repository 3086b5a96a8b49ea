"""Every step splits relevance as its paper says: compared with loops over single connections."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from cnnviz_core.model import INPUT
from cnnviz_core.netspec import NetSpec, Op
from cnnviz_core.redistribution import modified, of_one
from cnnviz_core.rules import BackwardRule
from cnnviz_core.steps import (
    AS_IS,
    NEGATIVE,
    ONES,
    POSITIVE,
    SQUARES,
    LinearStep,
    Power,
    Share,
    Slopes,
    Term,
    alpha_beta,
    epsilon,
    flat,
    gamma,
    w_square,
    without_bias,
    z_box,
    z_plus,
)
from cnnviz_core.testing.operations import OPERATIONS
from cnnviz_core.testing.reference import ReferenceModel
from cnnviz_core.testing.relevance import Linear, take_step

LOW, HIGH = -2.5, 3.0
KINDS = ("linear", "conv", "add", "avgpool")


def up(v):
    return max(v, 0.0)


def down(v):
    return min(v, 0.0)


# What a paper writes: the contribution of an input, that of the bias, at a result of value `out`.


def signed(x, w, b, out):
    return x * w, b


def favoured(x, w, b, out):
    """Gamma of 0.5; nothing where the result is exactly zero."""
    if out == 0:
        return 0.0, 0.0
    own = up if out > 0 else down
    return x * w + 0.5 * own(x * w), b + 0.5 * own(b)


def supporting(x, w, b, out):
    return up(x * w), up(b)


def opposing(x, w, b, out):
    return down(x * w), down(b)


def boxed(x, w, b, out):
    return x * w - LOW * up(w) - HIGH * down(w), 0.0


def squared(x, w, b, out):
    return w * w, b * b


def even(x, w, b, out):
    return 1.0, 0.0


def magnitude(x, w, b, out):
    return abs(x * w), abs(b)


def steep_below(x, w, b, out):
    return (2 * up(x) - 3 * down(x)) * abs(w) ** 0.5 if out < 0 else 0.0, 0.0


def unbiased(formula):
    def without(x, w, b, out):
        return formula(x, w, b, out)[0], 0.0

    return without


MAGNITUDE = LinearStep((Share((Term(Power(1.0), Power(1.0), Power(1.0)),)),), 0.01)
STEEP = LinearStep(
    (
        Share(
            (
                Term(Slopes(2.0, 0.0), Power(0.5), None),
                Term(Slopes(0.0, 3.0), Power(0.5), None, sign=-1.0),
            ),
            0.7,
            "negative",
        ),
    ),
    0.01,
)
# Each step with what it is the sum of: how much of a formula's shares.
STEPS = {
    "epsilon": (epsilon(0.2), [(1.0, signed)]),
    "lrp-0": (epsilon(0.0), [(1.0, signed)]),
    "epsilon without bias": (without_bias(epsilon(0.2)), [(1.0, unbiased(signed))]),
    "gamma": (gamma(0.5, 0.1), [(1.0, favoured)]),
    "gamma without bias": (without_bias(gamma(0.5, 0.1)), [(1.0, unbiased(favoured))]),
    "alpha-beta": (alpha_beta(2.0, 1.0, 0.01), [(2.0, supporting), (-1.0, opposing)]),
    "alpha-beta of 3": (alpha_beta(3.0, 2.0, 0.0), [(3.0, supporting), (-2.0, opposing)]),
    "z-plus": (z_plus(), [(1.0, supporting)]),
    "z-plus without bias": (without_bias(z_plus(0.0)), [(1.0, unbiased(supporting))]),
    "z-box": (z_box(0.01), [(1.0, boxed)]),
    "w-square": (w_square(), [(1.0, squared)]),
    "flat": (flat(), [(1.0, even)]),
    "magnitude": (MAGNITUDE, [(1.0, magnitude)]),
    "steep below": (STEEP, [(0.7, steep_below)]),
}
CASES = [
    (name, kind)
    for name, kind in product(STEPS, KINDS)
    if name != "z-box" or kind in ("linear", "conv")  # sums and averages read no pixels
]


def spec_of(kind):
    """One operation, with what makes it hard: strides, uneven padding, dilation, groups."""
    rng = np.random.default_rng(3)
    match kind:
        case "linear":
            arrays = {"op.weight": rng.normal(size=(5, 4)), "op.bias": rng.normal(size=4)}
            return NetSpec({"x": (5,)}, (Op("op", "linear", ("x",)),), arrays)
        case "conv":
            arrays = {"op.weight": rng.normal(size=(3, 2, 1, 4)), "op.bias": rng.normal(size=4)}
            attrs = {
                "stride": (2, 1),
                "padding": ((1, 0), (2, 1)),
                "dilation": (1, 2),
                "groups": 2,
            }
            return NetSpec({"x": (5, 4, 2)}, (Op("op", "conv", ("x",), attrs=attrs),), arrays)
        case "add":
            return NetSpec({"x": (6,), "y": (6,)}, (Op("op", "add", ("x", "y")),), {})
        case _:
            attrs = {"window": (2, 3), "stride": (1, 2)}
            return NetSpec({"x": (4, 5, 2)}, (Op("op", "avgpool", ("x",), attrs=attrs),), {})


def connections(net):
    """Give, for each result, the flat index of every input that it reads, with its weight."""
    (op,) = net.ops
    sizes = [int(np.prod(shape)) for shape in net.inputs.values()]
    if op.kind == "linear":
        weight = net.parameters["op.weight"]
        return [[(i, weight[i, j]) for i in range(5)] for j in range(4)]
    if op.kind == "add":
        return [[(j, 1.0), (sizes[0] + j, 1.0)] for j in range(6)]
    (shape,) = net.inputs.values()
    window = op.attrs["window"] if op.kind == "avgpool" else (3, 2)
    pads = op.attrs.get("padding", ((0, 0), (0, 0)))
    steps = op.attrs.get("dilation", (1, 1))
    found = []
    for y, x, o in product(*map(range, net.shapes()["op"])):
        read = []
        for a, b, c in product(*map(range, (*window, shape[-1]))):
            i = y * op.attrs["stride"][0] + a * steps[0] - pads[0][0]
            j = x * op.attrs["stride"][1] + b * steps[1] - pads[1][0]
            if not (0 <= i < shape[0] and 0 <= j < shape[1]):
                continue
            if op.kind == "avgpool" and c == o:
                read.append((np.ravel_multi_index((i, j, c), shape), 1.0))
            # Of four outputs, two belong to each of the two groups of one channel.
            if op.kind == "conv" and o // 2 == c:
                weight = net.parameters["op.weight"][a, b, 0, o]
                read.append((np.ravel_multi_index((i, j, c), shape), weight))
        found.append(read)
    return found


def split_by_loops(net, values, relevance, stabiliser, shares):
    """Split relevance one connection at a time.

    An average is a sum but for a constant; the stabiliser is added to the average.
    """
    reads = connections(net)
    bias = net.parameters.get("op.bias", np.zeros(1))
    given = np.zeros(len(values))
    for j, read in enumerate(reads):
        b = bias[j % len(bias)]
        part = 1 / len(read) if net.ops[0].kind == "avgpool" else 1.0
        out = sum(values[i] * w for i, w in read) + b
        for factor, formula in shares:
            each = [part * formula(values[i], w, b, out)[0] for i, w in read]
            # A result that reads nothing but the border has only its bias.
            z = sum(each) + formula(0.0, 0.0, b, out)[1]
            z += stabiliser if z >= 0 else -stabiliser
            for (i, _), c in zip(read, each, strict=True):
                given[i] += factor * c / z * relevance[j] if z else 0.0
    return given


def drawn(net, seed=0):
    """Draw a sample of inputs of both signs, some of them zero, and relevance of both signs."""
    rng = np.random.default_rng(seed)
    x = {name: rng.normal(size=(2, *shape)) for name, shape in net.inputs.items()}
    for array in x.values():
        array[np.abs(array) < 0.2] = 0
    return x, rng.normal(size=(2, *net.shapes()["op"]))


def taking(kind, step):
    """Make the rule of one step at the one operation, which reads the input."""
    place = "first" if kind in ("conv", "linear") else "steps"
    return BackwardRule("one", **{place: {kind: step}})


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_a_step_is_its_formula(name, kind):
    step, shares = STEPS[name]
    net = spec_of(kind)
    x, relevance = drawn(net)
    rule = taking(kind, step).bounded([LOW], [HIGH])
    nodes = [f"@input:{key}" for key in x]
    found = ReferenceModel(net, "float64").pullback(x, relevance, wrt=nodes, rule=rule).gradients
    for n in range(2):
        values = np.concatenate([array[n].ravel() for array in x.values()])
        expected = split_by_loops(net, values, relevance[n].ravel(), step.epsilon, shares)
        actual = np.concatenate([found[node][n].ravel() for node in nodes])
        assert np.abs(expected).max() > 1e-3
        np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-12)


def test_bounds_of_each_channel_are_those_of_the_channels():
    net = spec_of("linear")
    x, relevance = drawn(net)
    low, high = np.linspace(-3, -2, 5), np.linspace(2, 4, 5)
    rule = taking("linear", z_box(0.0)).bounded(low, high)
    found = ReferenceModel(net, "float64").pullback(x, relevance, rule=rule).gradients[INPUT]
    w = net.parameters["op.weight"]
    ends = low[:, None] * np.maximum(w, 0) + high[:, None] * np.minimum(w, 0)
    z = x["x"][:, :, None] * w - ends
    expected = (z / z.sum(1, keepdims=True) * relevance[:, None, :]).sum(-1)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    # Between the bounds, every contribution is positive, so every share is.
    assert (z >= 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_where_denominators_vanish_nothing_is_handed_down(kind):
    net = spec_of(kind)
    _, relevance = drawn(net)
    zeros = {name: np.zeros((2, *shape)) for name, shape in net.inputs.items()}
    rule = BackwardRule("zero", {kind: without_bias(epsilon(0.0))})
    nodes = [f"@input:{key}" for key in zeros]
    found = ReferenceModel(net, "float64").pullback(zeros, relevance, wrt=nodes, rule=rule)
    for node in nodes:
        np.testing.assert_array_equal(found.gradients[node], 0)


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (epsilon(0.5), [2.0, -2.0]),  # the sign of zero is that of positive numbers
        (epsilon(0.0), [0.0, 0.0]),
        (gamma(1.0, 0.0), [0.0, 0.0]),  # zero is neither above zero nor below
        (alpha_beta(2.0, 1.0, 0.0), [2.0, -1.0]),
    ],
)
def test_contributions_that_cancel_out(step, expected):
    net = NetSpec({"x": (2,)}, (Op("op", "linear", ("x",)),), {"op.weight": np.ones((2, 1))})
    rule = BackwardRule("zero", {"linear": step})
    x = np.array([[1.0, -1.0]])
    found = ReferenceModel(net, "float64").pullback(x, np.ones((1, 1)), rule=rule).gradients[INPUT]
    np.testing.assert_array_equal(found, [expected])


class Counted(Linear):
    """An operation that counts the products that it is asked for."""

    def __init__(self, *args):
        super().__init__(*args)
        self.asked = []

    def forward(self, terms):
        self.asked += ["forward"] * len(terms)
        return super().forward(terms)

    def backward(self, terms):
        self.asked += ["backward"] * len(terms)
        return super().backward(terms)


def counted(kind, step, nonnegative):
    """Take a step at inputs that are not negative, and count."""
    net = spec_of(kind)
    x, relevance = drawn(net)
    inputs, arrays = [np.abs(array) for array in x.values()], net.of_layer("op")
    (op,) = net.ops
    value = OPERATIONS[kind].forward(inputs, arrays, op.attrs)
    operation = Counted(op, inputs, value, arrays)
    operation.nonnegative = nonnegative
    rule = taking(kind, step).bounded([LOW], [HIGH])
    return take_step(step, operation, relevance, rule), operation.asked


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_what_is_left_out_where_no_input_is_negative_changes_no_number(name, kind):
    step, _ = STEPS[name]
    plainly, much = counted(kind, step, nonnegative=False)
    quickly, less = counted(kind, step, nonnegative=True)
    for a, b in zip(quickly, plainly, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)
    assert len(less) <= len(much)


@pytest.mark.parametrize(
    ("step", "all_signs", "nonnegative"),
    [
        (epsilon(), (0, 1), (0, 1)),
        (z_plus(), (2, 2), (1, 1)),
        (alpha_beta(), (4, 4), (2, 2)),
        (gamma(), (4, 4), (2, 2)),
        (z_box(), (2, 3), (2, 3)),
        (w_square(), (1, 1), (1, 1)),
    ],
)
def test_how_much_work_a_step_is(step, all_signs, nonnegative):
    for known, (forward, backward) in ((False, all_signs), (True, nonnegative)):
        _, asked = counted("conv", step, known)
        assert asked.count("forward") == forward
        assert asked.count("backward") == backward


def test_inputs_that_are_known_not_to_be_negative_have_no_negative_part():
    """Only the part for negative ones of a term may be left out, and only without a bias."""
    biased = LinearStep((Share((Term(NEGATIVE, AS_IS, POSITIVE), Term())),), 0.1)
    plainly, _ = counted("linear", biased, nonnegative=False)
    quickly, _ = counted("linear", biased, nonnegative=True)
    np.testing.assert_allclose(quickly[0], plainly[0], rtol=1e-12)


def test_a_step_without_contributions_hands_down_zeros():
    nothing = LinearStep((Share((Term(NEGATIVE, AS_IS, None),)),))
    for known in (False, True):
        (found,), _ = counted("conv", nothing, nonnegative=known)
        assert found.shape == (2, 5, 4, 2)
        np.testing.assert_array_equal(found, 0)


class Functions:
    positive = staticmethod(lambda v: np.maximum(v, 0))
    negative = staticmethod(lambda v: np.minimum(v, 0))
    power = staticmethod(lambda v, exponent: np.abs(v) ** exponent)
    ones = staticmethod(np.ones_like)


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (AS_IS, [-2.0, 0.0, 3.0]),
        (POSITIVE, [0.0, 0.0, 3.0]),
        (NEGATIVE, [-2.0, 0.0, 0.0]),
        (Slopes(1.5, -0.5), [1.0, 0.0, 4.5]),
        (Slopes(2.0, 2.0), [-4.0, 0.0, 6.0]),
        (Slopes(0.0, 0.0), [0.0, 0.0, 0.0]),
        (SQUARES, [4.0, 0.0, 9.0]),
        (ONES, [1.0, 1.0, 1.0]),
        (Power(0.5), [2**0.5, 0.0, 3**0.5]),
    ],
)
def test_what_a_part_makes_of_values(part, expected):
    np.testing.assert_array_equal(modified(part, np.array([-2.0, 0.0, 3.0]), Functions), expected)
    assert of_one(part) == modified(part, np.array([1.0]), Functions)[0]


def test_shares_add_up_and_their_factors_scale():
    net = spec_of("linear")
    x, relevance = drawn(net)
    model = ReferenceModel(net, "float64")

    def handed(step):
        rule = BackwardRule("one", {"linear": step})
        return model.pullback(x, relevance, rule=rule).gradients[INPUT]

    one, two = epsilon(0.1).shares[0], flat().shares[0]
    both = LinearStep((replace(one, factor=0.25), replace(two, factor=0.75)), 0.1)
    expected = 0.25 * handed(LinearStep((one,), 0.1)) + 0.75 * handed(LinearStep((two,), 0.1))
    np.testing.assert_allclose(handed(both), expected, rtol=1e-12)
