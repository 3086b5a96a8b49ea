"""Relevance methods refuse operations without a step, or say which the gradient passed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cnnviz_core.delegate import Delegate
from cnnviz_core.errors import RuleError
from cnnviz_core.netspec import NetSpec, Op
from cnnviz_core.targets import ClassScore
from cnnviz_core.testing.nets import NETS
from support.relevance import case, explain


@pytest.mark.parametrize("method", ["lrp", "deep-taylor"])
def test_what_has_no_step_is_refused_or_noted(method):
    model, x = case("tokens")
    targets = [ClassScore(1)] * 2
    with pytest.raises(RuleError, match="layernorm 'norm2'"):
        explain(method, model, x, targets)
    (note,) = explain(method, model, x, targets, unknown="gradient").notes
    name = "epsilon-plus" if method == "lrp" else method
    assert note == (
        f"the gradient passed norm2, norm1, for which {name} has no step: "
        "relevance below them is not conserved"
    )


@pytest.mark.parametrize("method", ["mwp", "c-mwp"])
def test_contests_are_noted_too(method):
    model, x = case("tokens")
    targets = [ClassScore(1)] * 2
    with pytest.raises(RuleError, match="layernorm 'norm2'"):
        explain(method, model, x, targets, layer="add")
    (note,) = explain(method, model, x, targets, layer="add", unknown="gradient").notes
    assert "passed norm2, for which" in note
    assert note.endswith("relevance below it is not conserved")


@pytest.mark.parametrize("method", ["lrp", "deep-taylor", "mwp", "c-mwp"])
def test_nothing_is_noted_where_every_operation_has_its_step(method):
    model, x = case("residual")
    assert explain(method, model, x, [ClassScore(1)] * 2, unknown="gradient").notes == ()


def test_a_long_list_of_operations_is_cut_short():
    net = NETS["tokens"]()
    ops = list(net.ops)
    for k in range(4):
        ops.insert(-2, Op(f"more{k}", "layernorm", (ops[-3].name,), layer="norm2"))
    ops[-2] = replace(ops[-2], inputs=("more3",))
    model, x = case(NetSpec(net.inputs, tuple(ops), net.parameters, "normed"))
    (note,) = explain("lrp", model, x, [ClassScore(1)] * 2, unknown="gradient").notes
    assert "passed more3, more2, more1 and 3 more, for which" in note


def test_an_operation_that_is_met_twice_is_noted_once():
    class Twice(Delegate):
        def pullback(self, *args, **more):
            return replace(super().pullback(*args, **more), unruled=("Softmax", "Softmax"))

    model, x = case("plain")
    (note,) = explain("lrp", Twice(model), x, [ClassScore(1)] * 2).notes
    assert note.startswith("the gradient passed Softmax, for which")
