"""Every rule of relevance gives the same numbers on PyTorch, on TensorFlow, and on NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from cnnviz_relevance.composites import contrastive_excitation, deep_taylor, excitation

import cnnviz_tf.build
import cnnviz_tf.model
import cnnviz_torch.build
import cnnviz_torch.model
from cnnviz_core.model import INPUT
from cnnviz_core.registry import get_registry
from cnnviz_core.testing.nets import NETS, random_input
from cnnviz_core.testing.reference import ReferenceModel

WITHOUT_STEPS = ("tokens",)
"""Networks with an operation of no kind: layer norms."""

TOLERANCE = {"float32": 1e-4, "float64": 1e-9}

RULES = {
    **{name: get_registry().rule(name) for name in get_registry().rules},
    "deep-taylor": deep_taylor(),
    "excitation": excitation(),
    "contrastive excitation": contrastive_excitation(),
}
BACKENDS = {"torch": cnnviz_torch, "tensorflow": cnnviz_tf}


@pytest.fixture(scope="module", params=list(TOLERANCE))
def dtype(request):
    return request.param


@pytest.fixture(scope="module", params=[name for name in NETS if name not in WITHOUT_STEPS])
def case(request, dtype):
    net = NETS[request.param]()
    built = {
        **{key: b.model.wrap(b.build.build(net, dtype=dtype)) for key, b in BACKENDS.items()},
        "numpy": ReferenceModel(net, dtype),
    }
    drawn = {name: x.astype(dtype) for name, x in random_input(net, 2, seed=31).items()}
    x = drawn if len(drawn) > 1 else next(iter(drawn.values()))
    for model in built.values():
        model.forward(x)
    return built, x, dtype


def bounded(rule, low=-6.0, high=6.0):
    return rule.bounded((low,), (high,)) if rule.needs_bounds else rule


@pytest.mark.parametrize("name", RULES)
def test_relevance_of_the_input(case, name, near):
    built, x, dtype = case
    rule = bounded(RULES[name])
    found = {
        key: model.pullback(x, lambda v: np.cos(v + 1), wrt=[INPUT], rule=rule).gradients[INPUT]
        for key, model in built.items()
    }
    assert found["numpy"].any()
    for other in ("torch", "tensorflow"):
        near(f"{dtype} relevance, {name}, {other}", found[other], found["numpy"], TOLERANCE[dtype])


@pytest.mark.parametrize("name", ["epsilon-plus", "epsilon-gamma-box", "contrastive excitation"])
def test_relevance_of_layers(case, name, near):
    built, x, dtype = case
    rule = bounded(RULES[name])
    layers = [
        layer
        for layer, info in built["numpy"].layers.items()
        if info.kind in ("conv", "norm", "add", "pool", "concat")
        and all(layer in model.layers for model in built.values())
    ]
    found = {
        key: model.pullback(x, lambda v: np.cos(v + 1), wrt=layers, rule=rule).gradients
        for key, model in built.items()
    }
    for layer in layers:
        for other in ("torch", "tensorflow"):
            near(
                f"{dtype} relevance of layers, {name}, {other}",
                found[other][layer],
                found["numpy"][layer],
                TOLERANCE[dtype],
            )
