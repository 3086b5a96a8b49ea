"""Faster copies of the kit's networks, beside what the kit itself asks of them."""

from __future__ import annotations

import numpy as np
import pytest

from cnnviz_core.blended import Blended
from cnnviz_core.mask_forms import Drawn
from cnnviz_core.model import LOGITS, input_node
from cnnviz_core.testing.nets import NETS, random_input
from cnnviz_torch.build import build
from cnnviz_torch.model import wrap
from cnnviz_torch.program import pieces
from cnnviz_torch.program.pieces import most_at_once
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


@pytest.mark.parametrize("name", ["plain", "residual", "depthwise"])
def test_no_normalisation_is_left_where_all_follow_convolutions(name):
    """A copy that is wrong when folded would be tried unfolded, and be right, but slow."""
    prepared = wrap(build(NETS[name]())).prepared(random_input(NETS[name]()))
    assert not [call for call in prepared._program.calls if "norm" in call.name]


@pytest.fixture(params=[1, 2, 3, 7])
def in_pieces(request, monkeypatch):
    """A network, and its copy that runs so many samples at once."""
    model = wrap(build(NETS["residual"](), dtype="float64"))
    x = next(iter(random_input(NETS["residual"](), 7).values())).astype(np.float64)
    one = max(pieces._bytes_each(model.prepared(x)._fused))
    monkeypatch.setattr(pieces, "_MAPPED", (request.param + 1) * one)
    prepared = model.prepared(x)
    assert prepared._most == most_at_once(prepared._fused) == request.param
    return model, prepared, x


def test_samples_that_are_run_in_pieces_are_all_there(in_pieces):
    model, prepared, x = in_pieces
    # Values that folding took away are asked of the network itself, which has no pieces.
    nodes = [node for node in model.layers if node in prepared._program.marks]
    for n in range(1, len(x) + 1):
        plain, fast = (m.forward(x[:n], capture=nodes) for m in (model, prepared))
        for node, value in plain.values.items():
            np.testing.assert_allclose(fast[node], value, rtol=1e-10, atol=1e-12)


def test_described_batches_are_run_in_pieces(in_pieces):
    model, prepared, x = in_pieces
    masks = np.random.default_rng(3).uniform(
        0.1, 0.9, size=(7, *x.shape[1:-1])
    )  # they reach everywhere
    batch = Blended(x[0], Drawn(masks), np.zeros(x.shape[-1]))
    np.testing.assert_allclose(
        prepared.forward(batch).logits, model.forward(np.asarray(batch)).logits, rtol=1e-10
    )
