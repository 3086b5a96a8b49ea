"""The relevance of a torch network does not depend on how it is written."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from cnnviz_core.errors import MissingCapabilityError
from cnnviz_core.model import INPUT
from cnnviz_torch.model import wrap
from support.torch_nets import Residual, Vgg, native, picture, seeded
from support.torch_relevance import FOLDING, assert_same, conv, head, made, relevance_of


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
