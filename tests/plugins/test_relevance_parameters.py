"""Relevance methods: their parameters, names and needs, and the checks of every explainer."""

from __future__ import annotations

import numpy as np
import pytest

from cnnviz_core.errors import ParameterError, UnknownLayerError, UnknownMethodError
from cnnviz_core.registry import get_registry
from cnnviz_core.rules import GUIDED, check_steps
from cnnviz_core.targets import ClassScore, Neuron
from cnnviz_core.testing.explainers import parametrize_with_checks
from cnnviz_relevance.composites import contrastive_excitation, deep_taylor, excitation
from support.relevance import HIGH, LOW, PLAINLY, case, explain


@pytest.mark.parametrize("method", ["lrp", "deep-taylor", "mwp", "c-mwp"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_type_of_the_numbers_is_kept(method, dtype):
    model, x = case("residual", dtype=dtype)
    maps = explain(method, model, x, [ClassScore(1)] * 2)
    assert maps.raw.dtype == maps.scores.dtype == dtype


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"gamma": 0.5}, "'epsilon-plus' has no option 'gamma'"),
        ({"composite": "lrp-0", "epsilon": 0.5}, "no option 'epsilon'"),
        ({"composite": "gamma", "epsilon": 0.5}, "no option 'epsilon'"),
        ({"epsilon": -1.0}, "epsilon=-1.0 does not fit"),
        ({"composite": "epsilon-gamma-box"}, "least and the greatest value"),
        ({"composite": "epsilon-gamma-box", "low": 0.0}, "both or neither"),
        ({"composite": "epsilon-gamma-box", "low": 1.0, "high": 0.0}, "not below low"),
        ({"composite": "epsilon-gamma-box", "low": np.zeros(2), "high": 1.0}, "3 channels"),
        ({"unknown": "mark"}, "unknown='mark' does not fit"),
    ],
)
def test_parameters_that_do_not_fit(params, message):
    model, x = case("plain")
    with pytest.raises(ParameterError, match=message):
        explain("lrp", model, x, [ClassScore(1)] * 2, **params)


def test_a_composite_that_does_not_exist_is_named_beside_those_alike():
    model, x = case("plain")
    with pytest.raises(UnknownMethodError, match="epsilon-plus-flat"):
        explain("lrp", model, x, [ClassScore(1)] * 2, composite="epsilon-plus-flatt")


def test_a_rule_of_gradients_is_no_composite(monkeypatch):
    monkeypatch.setattr(type(get_registry()), "rule", lambda self, name, **options: GUIDED)
    model, x = case("plain")
    with pytest.raises(ParameterError, match="rule of gradients"):
        explain("lrp", model, x, [ClassScore(1)] * 2, composite="guided")


def test_a_layer_inside_the_network_is_one_more_need():
    make = get_registry().explainer
    assert make("lrp", layer="conv1").needs == make("lrp").needs | {"capture"}
    assert "rule:conv" in make("lrp").needs


def test_every_rule_has_steps_that_can_be_taken():
    rules = [get_registry().rule(name) for name in get_registry().rules]
    for rule in (*rules, deep_taylor(), excitation(), contrastive_excitation()):
        check_steps(rule.bounded([0], [1]) if rule.needs_bounds else rule)
        assert rule.conserves
    check_steps(deep_taylor(((0.0,), (1.0,))))


@pytest.mark.parametrize("method", ["lrp", "mwp", "c-mwp"])
def test_a_layer_off_the_way(method):
    model, x = case("branches")
    with pytest.raises(UnknownLayerError, match="left"):
        explain(method, model, x, [Neuron("left", (1,))] * 2, layer="right")


@parametrize_with_checks(
    [
        get_registry().explainer(method, **params)
        for method, params in [
            *(("lrp", {"composite": name, "low": -6.0, "high": 6.0}) for name in PLAINLY),
            ("lrp", {"layer": "auto"}),
            ("lrp", {"layer": "conv1", "composite": "epsilon", "epsilon": 0.1, "bias": False}),
            ("lrp", {"composite": "epsilon-gamma-box", "low": LOW, "high": HIGH, "gamma": 1.0}),
            ("lrp", {"unknown": "gradient"}),
            ("mwp", {"layer": "pool1", "unknown": "gradient"}),
            ("c-mwp", {"layer": "conv1"}),
            ("deep-taylor", {"low": LOW, "high": HIGH}),
            ("deep-taylor", {"unknown": "gradient"}),
        ]
    ]
)
def test_the_checks_with_other_parameters(explainer, check):
    check(explainer)


@pytest.mark.parametrize(
    ("spelt", "name"),
    [
        ("LRP", "lrp"),
        ("LayerwiseRelevancePropagation", "lrp"),
        ("excitation_backprop", "excitation-backprop"),
        ("contrastive_excitation_backprop", "contrastive-excitation-backprop"),
        ("cMWP", "contrastive-excitation-backprop"),
        ("MWP", "excitation-backprop"),
        ("DeepTaylor", "deep-taylor"),
        ("deep_taylor", "deep-taylor"),
    ],
)
def test_a_method_is_found_by_the_name_it_has_elsewhere(spelt, name):
    assert get_registry().spec(spelt).name == name
