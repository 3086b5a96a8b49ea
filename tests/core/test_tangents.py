"""The reference's second derivatives are true, and the operation is optional."""

from __future__ import annotations

import numpy as np
import pytest

from cnnviz_core.errors import ArrayError, MissingCapabilityError
from cnnviz_core.memo import MemoModel
from cnnviz_core.model import INPUT, LOGITS, OUTPUT, Model, curved, input_node
from cnnviz_core.testing.explainers import Offering
from cnnviz_core.testing.nets import NETS, random_input
from cnnviz_core.testing.operations import OPERATIONS
from cnnviz_core.testing.reference import ReferenceModel
from cnnviz_core.testing.tangents import _FORWARD, _LINEAR, _SECOND, _SYMMETRIC

CURVED = {
    "softmax_head": "softmax",
    "sigmoid_head": "sigmoid",
    "swish": "silu",
    "tokens": "layernorm",
}


def case(name, seed=4):
    net = NETS[name]()
    x = {k: v.astype(np.float64) for k, v in random_input(net, 2, seed=seed).items()}
    return ReferenceModel(net, "float64"), x


def test_every_operation_is_known():
    known = [*_LINEAR, *_SYMMETRIC, *_FORWARD]
    assert sorted(known) == sorted(OPERATIONS)
    assert set(_SECOND) <= set(known) - _LINEAR


@pytest.mark.parametrize("of", [LOGITS, OUTPUT])
@pytest.mark.parametrize("name", NETS)
def test_at_the_inputs_it_is_the_slope_of_the_pullback(name, of):
    model, x = case(name)
    rng = np.random.default_rng(5)
    cotangent = rng.normal(size=model.forward(x)[of].shape)
    for key, array in x.items():
        node, direction = input_node(key), rng.normal(size=array.shape)
        found = model.curvature(x, cotangent, direction, of=of, wrt=node)
        above, below = (
            model.pullback({**x, key: array + s * direction}, cotangent, of=of, wrt=[node])
            for s in (1e-6, -1e-6)
        )
        for mine, slope in (
            (found.tangent, above.values[of] - below.values[of]),
            (found.bend, above.gradients[node] - below.gradients[node]),
        ):
            scale = max(abs(mine).max(), 1e-3)
            np.testing.assert_allclose(mine, slope / 2e-6, rtol=0, atol=3e-7 * scale)
        assert found.bend.any() == (
            name in ("swish", "tokens") or (of == OUTPUT and name in CURVED)
        )


@pytest.mark.parametrize("name", NETS)
def test_at_every_layer_the_tangent_is_the_slope_of_the_output(name):
    model, x = case(name)
    rng = np.random.default_rng(6)
    for node, info in model.layers.items():
        if node in ("softmax", "sigmoid") or info.kind == "relu":
            continue  # max-pooling zeros has a kink
        start = model.forward(x, capture=[node])[node]
        direction = rng.normal(size=start.shape)
        found = model.curvature(x, np.ones_like, direction, of=OUTPUT, wrt=node)
        above, below = (
            model.forward(x, replace={node: start + s * direction}).output for s in (1e-6, -1e-6)
        )
        np.testing.assert_allclose(found.tangent, (above - below) / 2e-6, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    ("name", "node", "of"),
    [
        ("swish", "conv3", LOGITS),  # the skip connection around it is held fixed
        ("swish", "bn3", LOGITS),
        ("swish", "silu3", LOGITS),
        ("tokens", "add", LOGITS),
        ("softmax_head", "relu2", OUTPUT),
        ("softmax_head", "fc", OUTPUT),
        ("sigmoid_head", "fc", OUTPUT),
    ],
)
def test_at_a_layer_the_bend_is_the_second_difference_of_the_score(name, node, of):
    model, x = case(name)
    trace = model.forward(x, capture=[node])
    start, rng = trace[node], np.random.default_rng(7)
    direction, cotangent = rng.normal(size=start.shape), rng.normal(size=trace[of].shape)

    def score(moved):
        value = model.forward(x, replace={node: moved})[of]
        return (cotangent * value).reshape(len(value), -1).sum(-1)

    h, expected = 3e-4, np.zeros_like(start)
    for place in np.ndindex(start.shape[1:]):
        at = (slice(None), *place)
        step = np.zeros_like(start)
        step[at] = h
        for a, b in ((1, 1), (1, -1), (-1, 1), (-1, -1)):
            expected[at] += a * b * score(start + a * step + b * h * direction) / (4 * h * h)
    found = model.curvature(x, cotangent, direction, of=of, wrt=node).bend
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-7)
    assert found.any() == (node != "silu3")  # behind it all is linear


@pytest.mark.parametrize("name", CURVED)
def test_hessians_are_symmetric_and_tangents_adjoint(name):
    model, x = case(name)
    x = x["image"]
    rng = np.random.default_rng(8)
    u, v = rng.normal(size=(2, *x.shape))
    cotangent = rng.normal(size=model.forward(x).output.shape)
    along_u, along_v = (model.curvature(x, cotangent, d, of=OUTPUT) for d in (u, v))
    assert (u * along_v.bend).sum() == pytest.approx((v * along_u.bend).sum(), rel=1e-10)
    assert (cotangent * along_v.tangent).sum() == pytest.approx(
        (along_v.gradient * v).sum(), rel=1e-10
    )


def test_the_whole_hessian_of_a_score_needs_the_targets_own_curvature():
    # T(z) = z_0 * z_1: bend for the cotangent T', and a pullback of T'' @ tangent.
    model, x = case("swish")
    x = x["image"]
    direction = np.random.default_rng(9).normal(size=x.shape)

    def slope(z):
        gradient = np.zeros_like(z)
        gradient[:, 0], gradient[:, 1] = z[:, 1], z[:, 0]
        return gradient

    found = model.curvature(x, slope, direction)
    turned = slope(found.tangent)  # T'' swaps the first two, as the slope does
    whole = found.bend + model.pullback(x, turned).gradients[INPUT]
    above, below = (
        model.pullback(x + s * direction, slope).gradients[INPUT] for s in (1e-5, -1e-5)
    )
    np.testing.assert_allclose(whole, (above - below) / 2e-5, rtol=0, atol=1e-9)
    assert abs(whole - found.bend).max() > 1e-4


def test_a_direction_that_does_not_fit_is_an_error():
    model, x = case("plain")
    with pytest.raises(ArrayError, match="the direction at 'relu2'"):
        model.curvature(x["image"], np.ones_like, np.ones((2, 3)), wrt="relu2")


def test_float32_stays_float32():
    net = NETS["swish"]()
    found = ReferenceModel(net).curvature(random_input(net), np.ones_like, np.ones_like)
    assert {found.gradient.dtype, found.tangent.dtype, found.bend.dtype} == {np.dtype("float32")}


class Stranger:
    """A model of somebody who has never heard of curvature."""

    framework = "strange"
    capabilities = frozenset({"gradient"})
    activation = "none"
    inputs, layers = {}, {}

    def forward(self, x, *, capture=(), replace=None): ...

    def pullback(self, x, cotangent, *, of=LOGITS, wrt=(INPUT,), rule=None): ...

    def parameters(self, layer): ...


def test_a_model_without_it_is_a_model():
    assert isinstance(Stranger(), Model)
    with pytest.raises(MissingCapabilityError, match="strange model does not offer"):
        curved(Stranger())
    with pytest.raises(MissingCapabilityError, match="does not offer"):
        MemoModel(Stranger(), np.ones((1, 2))).curvature(
            np.ones((1, 2)), np.ones_like, np.ones_like
        )


def test_an_offering_lets_it_be_used_where_it_is_declared():
    net = NETS["plain"]()
    model, x = ReferenceModel(net), random_input(net)["image"]
    assert curved(model) is model
    declared = Offering(model, frozenset({"curvature", "capture"}))
    found = curved(declared).curvature(x, np.square, np.ones_like, of=OUTPUT, wrt="relu2")
    np.testing.assert_array_equal(
        found.tangent, model.curvature(x, np.square, np.ones_like, of=OUTPUT, wrt="relu2").tangent
    )
    with pytest.raises(MissingCapabilityError, match="'capture' was used"):
        Offering(model, frozenset({"curvature"})).curvature(x, np.square, np.square, wrt="relu2")
    with pytest.raises(MissingCapabilityError, match="'curvature' was used"):
        Offering(model, frozenset({"gradient"})).curvature(x, np.square, np.square)
