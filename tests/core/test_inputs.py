"""One input of several."""

from __future__ import annotations

import numpy as np
import pytest

from cnnviz_core.errors import ArrayError
from cnnviz_core.inputs import OneInput
from cnnviz_core.model import INPUT, Model, input_node
from cnnviz_core.registry import get_registry
from cnnviz_core.targets import ClassScore
from cnnviz_core.testing.nets import NETS, random_input
from cnnviz_core.testing.reference import ReferenceModel

NET = NETS["two_inputs"]()
MODEL = ReferenceModel(NET, "float64")
X = {name: a.astype(np.float64) for name, a in random_input(NET, 3, seed=4).items()}
HELD = {"vector": X["vector"][:1]}
BATCH = {"image": X["image"], "vector": np.repeat(HELD["vector"], 3, 0)}


def test_it_is_the_network_with_the_others_held():
    one = OneInput(MODEL, "image", HELD)
    assert isinstance(one, Model)
    assert list(one.inputs) == ["image"]
    trace, whole = (
        one.forward(X["image"], capture=["relu1"]),
        MODEL.forward(BATCH, capture=["relu1"]),
    )
    np.testing.assert_array_equal(trace.logits, whole.logits)
    np.testing.assert_array_equal(trace["relu1"], whole["relu1"])


def test_its_input_is_the_free_one():
    for free in NET.inputs:
        held = {name: X[name][:1] for name in NET.inputs if name != free}
        batch = {n: X[n] if n == free else np.repeat(held[n], 3, 0) for n in NET.inputs}
        back = OneInput(MODEL, free, held).pullback(X[free], np.cos, wrt=[INPUT, "relu2"])
        node = input_node(free)
        expected = MODEL.pullback(batch, np.cos, wrt=[node, "relu2"])
        np.testing.assert_array_equal(back.gradients[INPUT], expected.gradients[node])
        np.testing.assert_array_equal(back.gradients["relu2"], expected.gradients["relu2"])


@pytest.mark.parametrize("method", ["saliency", "grad-cam", "occlusion", "guided-backprop"])
def test_explainers_take_it(method):
    explainer = get_registry().explainer(method)
    one = OneInput(MODEL, "image", HELD)
    maps = explainer.explain(one, X["image"], [ClassScore(1)] * 3)
    assert np.abs(maps.raw).max() > 0
    other = OneInput(MODEL, "image", {"vector": X["vector"][:1] + 9})
    assert not np.allclose(
        maps.scores, explainer.explain(other, X["image"], [ClassScore(1)] * 3).scores
    )


@pytest.mark.parametrize(
    ("free", "held", "says"),
    [
        ("picture", HELD, "image"),
        ("image", {}, "vector"),
        ("image", {"vector": X["vector"]}, "one sample"),
        ("image", {"vector": X["vector"][:1], "more": X["vector"][:1]}, "vector"),
    ],
)
def test_what_does_not_fit_is_refused(free, held, says):
    with pytest.raises(ArrayError, match=says):
        OneInput(MODEL, free, held)
