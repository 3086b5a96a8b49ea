"""Faster copies of the kit's networks, beside what the kit itself asks of them."""

from __future__ import annotations

import numpy as np
import pytest

from cnnviz_core.model import LOGITS, input_node
from cnnviz_core.testing.nets import NETS, random_input
from cnnviz_torch.build import build
from cnnviz_torch.model import wrap
from cnnviz_torch.program.prepared import Prepared


@pytest.mark.parametrize("name", NETS)
def test_every_network_of_the_kit_is_prepared(name):
    model = wrap(build(NETS[name]()))
    x = random_input(NETS[name]())
    prepared = model.prepared(x)
    assert isinstance(prepared, Prepared)
    prepared.pullback(x, np.cos, wrt=[input_node(key) for key in x])
    assert prepared._is_differentiable()


@pytest.mark.parametrize("name", NETS)
def test_double_precision_agrees_to_rounding(name):
    model = wrap(build(NETS[name](), dtype="float64"))
    x = {key: array.astype(np.float64) for key, array in random_input(NETS[name](), 3).items()}
    prepared, nodes = model.prepared(x), list(model.layers)
    plain, fast = (m.forward(x, capture=nodes) for m in (model, prepared))
    asked = {"wrt": [*map(input_node, x), nodes[1], nodes[-1]], "of": LOGITS}
    if nodes[-1] in ("softmax", "sigmoid"):
        asked["wrt"].pop()
    up, down = (m.pullback(x, np.cos, **asked).gradients for m in (model, prepared))
    for node, value, found in [
        *((node, value, fast[node]) for node, value in plain.values.items()),
        *((node, value, down[node]) for node, value in up.items()),
    ]:
        assert found.dtype == np.float64
        assert np.abs(found - value).max() <= 1e-12 * max(np.abs(value).max(), 1e-300), node
