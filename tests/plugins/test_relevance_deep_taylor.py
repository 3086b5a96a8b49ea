"""Deep Taylor decomposition: its formula, its sign, and its sum."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnviz_core.targets import ClassScore
from cnnviz_core.testing.nets import NETS
from support.layer_matrices import Layers
from support.relevance import (
    HIGH,
    LOW,
    SEEDS,
    Z_PLUS,
    by_box,
    by_squares,
    case,
    explain,
    relevances,
    total,
)


@settings(max_examples=30)
@given(
    seed=SEEDS,
    name=st.sampled_from([*sorted({*NETS} - {"tokens", "two_inputs", "volume"})]),
    bounded=st.booleans(),
)
def test_deep_taylor_has_the_sign_of_the_score_and_no_more_than_it(seed, name, bounded):
    model, x = case(NETS[name](seed), seed=seed)
    bounds = {"low": -8.0, "high": 8.0} if bounded else {}
    maps = explain("deep-taylor", model, x, [ClassScore(0), ClassScore(2)], **bounds)
    signed = maps.raw * np.sign(maps.scores).reshape(-1, *(1,) * (x.ndim - 1))
    assert signed.min() >= -1e-12 * np.abs(maps.raw).max()
    assert (np.abs(total(maps)) <= np.abs(maps.scores) * (1 + 1e-9)).all()
    assert maps.presentation.sign == "positive"


@pytest.mark.parametrize("bounded", [False, True])
def test_deep_taylor_is_its_formula(bounded):
    model, x = case("strided")
    bounds = {"low": LOW, "high": HIGH} if bounded else {}
    raw = explain("deep-taylor", model, x, [ClassScore(2)] * 2, **bounds).raw
    for n, one in enumerate(x):
        layers = Layers(NETS["strided"](), one, biases=False)
        start = layers.values["fc2"] * np.eye(4)[2]
        steps = (Z_PLUS, Z_PLUS, by_box if bounded else by_squares)
        wanted = relevances(layers, start, *steps)["image"]
        assert wanted.max() > 1e-4
        np.testing.assert_allclose(raw[n], wanted, rtol=0, atol=1e-9 * wanted.max())
