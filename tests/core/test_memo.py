"""A model that remembers gives what the model gives, and asks it less often."""

from __future__ import annotations

import numpy as np
import pytest

from cnnviz_core.errors import MissingCapabilityError
from cnnviz_core.memo import MemoModel
from cnnviz_core.model import INPUT, LOGITS, OUTPUT, Model
from cnnviz_core.rules import GUIDED
from cnnviz_core.targets import ClassScore, Predicted, cotangent_of
from cnnviz_core.testing.nets import NETS, random_input
from cnnviz_core.testing.reference import ReferenceModel


class Counting(ReferenceModel):
    def __init__(self, net):
        super().__init__(net)
        self.passes = []

    def forward(self, x, **kwargs):
        self.passes.append("forward")
        return super().forward(x, **kwargs)

    def pullback(self, x, cotangent, **kwargs):
        self.passes.append("pullback")
        return super().pullback(x, cotangent, **kwargs)


@pytest.fixture
def model():
    return Counting(NETS["plain"]())


X = random_input(NETS["plain"]())["image"]


def test_it_is_a_model(model):
    memo = MemoModel(model, X)
    assert isinstance(memo, Model)
    assert memo.layers == model.layers
    assert memo.inputs == model.inputs
    np.testing.assert_array_equal(memo.parameters("fc")["bias"], model.parameters("fc")["bias"])


def test_the_same_pullback_is_computed_once(model):
    memo = MemoModel(model, X)
    targets = [ClassScore(0), ClassScore(1)]
    first = memo.pullback(X, cotangent_of(targets), wrt=["relu2"])
    again = memo.pullback(X.copy(), cotangent_of(list(targets)), wrt=["relu2"])
    assert model.passes == ["pullback"]
    np.testing.assert_array_equal(first.gradients["relu2"], again.gradients["relu2"])
    expected = ReferenceModel(NETS["plain"]()).pullback(X, cotangent_of(targets), wrt=["relu2"])
    np.testing.assert_array_equal(first.gradients["relu2"], expected.gradients["relu2"])


def test_predicted_and_its_class_share_a_pass(model):
    memo = MemoModel(model, X)
    classes = model.forward(X).logits.argmax(-1)
    model.passes.clear()
    memo.pullback(X, cotangent_of([Predicted()] * 2), wrt=["relu2"])
    memo.pullback(X, cotangent_of([ClassScore(int(c)) for c in classes]), wrt=["relu2"])
    assert model.passes == ["pullback"]


@pytest.mark.parametrize(
    "other",
    [
        {"x": X + 1},
        {"targets": [ClassScore(2)] * 2},
        {"wrt": [INPUT]},
        {"rule": GUIDED, "wrt": [INPUT]},
        {"of": "relu2", "wrt": ["relu1"]},
    ],
)
def test_anything_else_is_computed_anew(model, other):
    memo = MemoModel(model, X)
    memo.pullback(X, cotangent_of([ClassScore(0)] * 2), wrt=["relu2"])
    x = other.pop("x", X)
    cotangent = cotangent_of(other.pop("targets", [ClassScore(0)] * 2))
    if other.get("of") == "relu2":
        cotangent = np.ones_like
    answer = memo.pullback(x, cotangent, **{"wrt": ["relu2"], **other})
    assert model.passes == ["pullback", "pullback"]
    expected = ReferenceModel(NETS["plain"]()).pullback(x, cotangent, **{"wrt": ["relu2"], **other})
    for node, gradient in expected.gradients.items():
        np.testing.assert_array_equal(answer.gradients[node], gradient)


def test_forward_is_served_from_a_pullback(model):
    memo = MemoModel(model, X)
    memo.pullback(X, np.ones_like, wrt=["relu2"])
    trace = memo.forward(X, capture=["relu2"])
    assert model.passes == ["pullback"]
    np.testing.assert_array_equal(trace["relu2"], model.forward(X, capture=["relu2"])["relu2"])


def test_forward_with_replacement_is_never_remembered(model):
    memo = MemoModel(model, X)
    plain = memo.forward(X)[LOGITS]
    other = memo.forward(X, replace={"relu2": np.zeros_like})[LOGITS]
    assert not np.allclose(plain, other)
    np.testing.assert_array_equal(memo.forward(X)[LOGITS], plain)
    assert model.passes == ["forward", "forward"]


def test_what_was_asked_for_longest_ago_is_forgotten(model):
    memo = MemoModel(model, X, entries=2)
    for i in (0, 1, 2):
        memo.pullback(X, cotangent_of([ClassScore(i)] * 2), wrt=["relu2"])
    model.passes.clear()
    memo.pullback(X, cotangent_of([ClassScore(2)] * 2), wrt=["relu2"])
    assert model.passes == []
    memo.pullback(X, cotangent_of([ClassScore(0)] * 2), wrt=["relu2"])
    assert model.passes == ["pullback"]


def test_other_inputs_go_straight_through(model):
    memo = MemoModel(model, X)
    for _ in range(2):
        memo.forward(X + 1)
        memo.pullback(X + 1, np.ones_like)
        memo.forward(X[:1])
    assert model.passes == ["forward", "pullback", "forward"] * 2
    np.testing.assert_array_equal(memo.forward(X + 1).logits, model.forward(X + 1).logits)


def test_curvature_goes_straight_through(model):
    memo = MemoModel(model, X)
    ask = {"of": OUTPUT, "wrt": "relu2"}
    found = memo.curvature(X, np.square, np.ones_like, **ask)
    expected = model.curvature(X, np.square, np.ones_like, **ask)
    np.testing.assert_array_equal(found.tangent, expected.tangent)
    np.testing.assert_array_equal(found.bend, expected.bend)
    model.capabilities = model.capabilities - {"curvature"}
    with pytest.raises(MissingCapabilityError, match="curvature"):
        MemoModel(model, X).curvature(X, np.square, np.ones_like)


def test_a_batch_that_differs_in_its_last_sample_is_another(model):
    memo = MemoModel(model, X)
    other = X.copy()
    other[-1] += 1
    memo.forward(X)
    np.testing.assert_array_equal(memo.forward(other).logits, model.forward(other).logits)


def test_named_inputs_are_remembered():
    net = NETS["two_inputs"]()
    model, x = Counting(net), random_input(net)
    memo = MemoModel(model, x)
    memo.forward(dict(x))
    memo.forward(x)
    assert model.passes == ["forward"]
    memo.forward({**x, "vector": x["vector"] + 1})
    assert model.passes == ["forward"] * 2


def test_other_inputs_are_asked_of_the_model_elsewhere(model):
    """Also other values put into the batch itself; what is remembered is the model's own."""
    memo, other = MemoModel(model, X), Counting(NETS["plain"]())
    assert memo.elsewhere is model
    memo.elsewhere = other
    noisy = X + 1
    np.testing.assert_array_equal(memo.forward(noisy).logits, model.forward(noisy).logits)
    memo.pullback(noisy, np.ones_like)
    memo.forward(X, replace={"relu2": np.zeros_like})
    assert other.passes == ["forward", "pullback", "forward"]
    assert model.passes == ["forward"]
    memo.forward(X.copy())
    memo.pullback(X, np.ones_like)
    memo.forward(X, capture=["relu2"])
    assert other.passes == ["forward", "pullback", "forward"]
    assert model.passes == ["forward", "forward", "pullback", "forward"]
