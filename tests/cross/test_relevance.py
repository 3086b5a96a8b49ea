"""Every rule of relevance gives the same numbers on PyTorch, on TensorFlow, and on NumPy."""

from __future__ import annotations

import numpy as np
import pytest

import cnnviz_tf.build
import cnnviz_tf.model
import cnnviz_torch.build
import cnnviz_torch.model
from cnnviz_core.model import INPUT
from cnnviz_core.registry import get_registry
from cnnviz_core.testing.nets import NETS, random_input
from cnnviz_core.testing.reference import ReferenceModel
from cnnviz_relevance.composites import contrastive_excitation, deep_taylor, excitation

WITHOUT_STEPS = ("tokens",)
"""Networks with an operation of no kind: layer norms."""

TOLERANCE = {"float32": 1e-4, "float64": 1e-9}

RULES = {
    **{name: get_registry().rule(name) for name in get_registry().rules},
    "deep-taylor": deep_taylor(),
    "excitation": excitation(),
    "contrastive excitation": contrastive_excitation(),
}
USUAL = ("epsilon-plus", "epsilon-gamma-box", "epsilon-alpha2-beta1-flat", "contrastive excitation")
"""The rules that are compared in single precision too."""

BACKENDS = {"torch": cnnviz_torch, "tensorflow": cnnviz_tf}


@pytest.fixture(scope="module", params=[name for name in NETS if name not in WITHOUT_STEPS])
def net(request):
    return NETS[request.param]()


@pytest.fixture(scope="module")
def doubles(net):
    return case(net, "float64")


@pytest.fixture(scope="module")
def singles(net):
    return case(net, "float32")


def case(net, dtype):
    """Build a network on every backend, and draw a batch for it."""
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


def compare(built, x, dtype, name, nodes, near):
    """Compare the relevance of nodes under a rule."""
    rule = bounded(RULES[name])
    found = {
        key: model.pullback(x, lambda v: np.cos(v + 1), wrt=nodes, rule=rule).gradients
        for key, model in built.items()
    }
    for node in nodes:
        assert found["numpy"][node].any()
        for other in ("torch", "tensorflow"):
            what = f"{dtype} relevance, {name}, {other}"
            near(what, found[other][node], found["numpy"][node], TOLERANCE[dtype])


@pytest.mark.parametrize("name", RULES)
def test_relevance_of_the_input(doubles, name, near):
    compare(*doubles, name, [INPUT], near)


@pytest.mark.parametrize("name", USUAL)
def test_relevance_of_the_input_in_single_precision(singles, name, near):
    compare(*singles, name, [INPUT], near)


@pytest.mark.parametrize("name", USUAL)
def test_relevance_of_layers(doubles, name, near):
    built = doubles[0]
    layers = [
        layer
        for layer, info in built["numpy"].layers.items()
        if info.kind in ("conv", "norm", "add", "pool", "concat")
        and all(layer in model.layers for model in built.values())
    ]
    compare(*doubles, name, layers, near)
