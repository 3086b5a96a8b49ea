"""Rules of relevance on torch give what the NumPy reference does."""

from __future__ import annotations

import numpy as np
import pytest

from cnnviz_core.model import LOGITS, input_node
from cnnviz_core.testing.nets import NETS, random_input
from cnnviz_core.testing.reference import ReferenceModel
from cnnviz_torch.build import build
from cnnviz_torch.model import wrap
from support.torch_relevance import RULES


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
