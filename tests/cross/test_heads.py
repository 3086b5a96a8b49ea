"""Pooled copies of twins are twins, and so are they after the same training."""

from __future__ import annotations

import numpy as np
import pytest

from cnnviz.heads import fitted, pooled
from cnnviz.network import wrap
from cnnviz_core.importing import import_string
from cnnviz_core.registry import get_registry
from cnnviz_core.targets import ClassScore
from cnnviz_core.testing.nets import NETS, random_input

BACKENDS = ("torch", "tensorflow")


def natives(name, dtype="float64"):
    """Build one network in each framework."""
    return [
        import_string(get_registry().backend(backend).build)(NETS[name](), dtype=dtype)
        for backend in BACKENDS
    ]


def samples(name, n=24):
    """Draw inputs and classes."""
    (x,) = random_input(NETS[name](), n).values()
    return x, np.random.default_rng(2).integers(0, 5, n)


def answers(native, x):
    """Give the scores of a network, and its class activation maps for one class."""
    model = wrap(native, input_shape=x.shape[1:]).model
    return model.forward(x).logits, get_registry().explainer("cam").explain(
        model, x, [ClassScore(2)] * len(x)
    )


OPTIONS = {
    "drawn": {"classes": 4},
    "added": {"extra": 7, "seed": 3},
    "scores": {"start": "least-squares", "ridge_strength": 0.1},
    "classes": {"start": "least-squares", "classes": 6},
}


@pytest.mark.parametrize("name", ["plain", "residual", "depthwise"])
@pytest.mark.parametrize("option", OPTIONS)
def test_pooled_twins(name, option, near):
    x, y = samples(name)
    data = (x, y) if option == "classes" else x
    twins = [pooled(native, data=data, **OPTIONS[option]) for native in natives(name)]
    (scores, maps), (others, other_maps) = (answers(twin, x) for twin in twins)
    near("pooled networks, scores", others, scores, 1e-9)
    near("pooled networks, cam", other_maps.raw, maps.raw, 1e-9)


@pytest.mark.parametrize("train", ["head", "all"])
@pytest.mark.parametrize(("optimiser", "tolerance"), [("sgd", 1e-5), ("adam", 1e-3)])
def test_fitted_twins(train, optimiser, tolerance, near):
    data = samples("plain")
    results = []
    for native in natives("plain"):
        start = pooled(native, classes=5, extra=4)
        done = fitted(
            start, data, epochs=3, rate=0.01, batch_size=7, train=train, optimiser=optimiser,
            validation=data,
        )  # fmt: skip
        results.append((done.epochs, *answers(done.network, data[0])))
    (epochs, scores, maps), (other_epochs, others, other_maps) = results
    near(f"networks trained by {optimiser}, scores", others, scores, tolerance)
    near(f"networks trained by {optimiser}, cam", other_maps.raw, maps.raw, tolerance)
    for mine, other in zip(epochs, other_epochs, strict=True):
        assert other.loss == pytest.approx(mine.loss, rel=tolerance)
        assert other.accuracy == pytest.approx(mine.accuracy)
        assert other.validation == pytest.approx(mine.validation)
    assert epochs[-1].loss < epochs[0].loss
