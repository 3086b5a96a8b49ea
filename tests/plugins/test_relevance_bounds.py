"""The bounds of the input that relevance methods take, and the layers that read them."""

from __future__ import annotations

import numpy as np

from cnnviz_core.bounds import bounds_of
from cnnviz_core.netspec import NetSpec, Op
from cnnviz_core.registry import get_registry
from cnnviz_core.targets import ClassScore
from support.relevance import HIGH, LOW, case, explain


def test_bounds_are_one_value_or_one_for_each_channel():
    assert bounds_of(None, None, 3) is None
    assert bounds_of(-1.0, np.array([1.0, 2.0, 3.0]), 3) == ((-1.0,), (1.0, 2.0, 3.0))
    assert bounds_of(np.zeros(3), np.ones(3), 3) == ((0.0,), (1.0,))
    model, x = case("plain")
    targets = [ClassScore(1)] * 2
    params = {"composite": "epsilon-gamma-box"}
    one = explain("lrp", model, x, targets, low=-6.0, high=np.full(3, 6.0), **params)
    other = explain("lrp", model, x, targets, low=np.full(3, -6.0), high=6.0, **params)
    np.testing.assert_array_equal(one.raw, other.raw)


def dense():
    """Give a network without convolutions."""
    rng = np.random.default_rng(0)
    arrays = {"one.weight": rng.normal(size=(24, 6)), "two.weight": rng.uniform(size=(6, 3))}
    ops = (
        Op("flat", "flatten", ("image",)),
        Op("one", "linear", ("flat",)),
        Op("relu", "relu", ("one",)),
        Op("two", "linear", ("relu",)),
    )
    return NetSpec({"image": (4, 2, 3)}, ops, arrays, "dense")


def test_a_dense_layer_takes_bounds_only_where_all_channels_are_alike():
    model, x = case(dense())
    free, each, alike = (
        explain("deep-taylor", model, x, [ClassScore(1)] * 2, **bounds).raw
        for bounds in ({}, {"low": LOW, "high": HIGH}, {"low": -6.0, "high": 6.0})
    )
    np.testing.assert_array_equal(free, each)
    assert not np.allclose(free, alike)


def test_the_box_is_for_convolutions():
    model, x = case(dense())
    targets, params = [ClassScore(1)] * 2, {"low": LOW, "high": HIGH}
    box, plain = (
        explain("lrp", model, x, targets, composite=name, **params).raw
        for name in ("epsilon-gamma-box", "epsilon")
    )
    np.testing.assert_array_equal(box, plain)


def test_a_rule_may_bring_its_own_bounds(monkeypatch):
    model, x = case("plain")
    targets, own = [ClassScore(1)] * 2, get_registry().rule("epsilon-gamma-box").bounded([-6], [6])
    given = explain("lrp", model, x, targets, composite=own.name, low=-6.0, high=6.0).raw
    wider = explain("lrp", model, x, targets, composite=own.name, low=-9.0, high=9.0).raw
    monkeypatch.setattr(type(get_registry()), "rule", lambda self, name, **options: own)
    np.testing.assert_array_equal(explain("lrp", model, x, targets, composite="own").raw, given)
    changed = explain("lrp", model, x, targets, composite="own", low=-9.0, high=9.0).raw
    np.testing.assert_array_equal(changed, wider)
    assert not np.allclose(given, wider)
