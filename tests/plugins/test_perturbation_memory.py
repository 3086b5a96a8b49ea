"""Black-box methods take memory for the masks of a batch, however many masks they ask about."""

from __future__ import annotations

import tracemalloc
from functools import cache

import numpy as np
import pytest

from cnnviz_core.delegate import Delegate
from cnnviz_core.errors import ParameterError
from cnnviz_core.netspec import NetSpec, Op
from cnnviz_core.parameters import parse
from cnnviz_core.registry import get_registry
from cnnviz_core.targets import ClassScore
from cnnviz_core.testing.nets import NETS, random_input
from cnnviz_core.testing.reference import ReferenceModel
from support.methods import brief

SIDE, CHANNELS = 48, 128
MASK = SIDE * SIDE * 4
SAMPLE = 3 * MASK

FEW_AND_MANY = {
    # Behind the layer after it the drops follow from the gradient.
    "ablation-cam": [
        {"channels": 32, "layer": "conv"},
        {"channels": CHANNELS, "layer": "conv"},
    ],
    "counterfactual-region": [{"cells": 3}, {"cells": 6}],
    "extremal-perturbation": [{"steps": 4}, {"steps": 90}],
    "hierarchical-occlusion": [{"samples": 40}, {"samples": 160}],
    "hsic": [{"samples": 40, "cells": 4}, {"samples": 160, "cells": 4}],
    "kernel-shap": [{"samples": 50}, {"samples": 200}],
    "lime": [{"samples": 40}, {"samples": 160}],
    "meaningful-perturbation": [{"steps": 4}, {"steps": 90}],
    "minimal-sufficient-region": [{"cells": 3}, {"cells": 6}],
    "occlusion": [{"window": 12, "stride": 8}, {"window": 12, "stride": 3}],
    "rise": [{"samples": 40}, {"samples": 160}],
    "score-cam": [{"channels": 32}, {"channels": CHANNELS}],
    "shapley-values": [{"segments": 5}, {"segments": 8}],
    "sobol": [{"samples": 4, "cells": 3}, {"samples": 16, "cells": 3}],
    "xrai": [{"steps": 40}, {"steps": 160}],
}
"""For each method what makes it ask about few masks, or a multiple of them."""

ONE_BY_ONE = {"extremal-perturbation", "meaningful-perturbation"}
"""Methods that ask about one mask of a sample at a time, in steps."""


class Counting(Delegate):
    """A model that counts the samples which go through it."""

    def __init__(self, model):
        super().__init__(model)
        self.asked = 0

    def forward(self, x, **more):
        self.asked += len(x)
        return super().forward(x, **more)

    def pullback(self, x, cotangent, **more):
        self.asked += len(x)
        return super().pullback(x, cotangent, **more)


def methods():
    """Name the methods that change their input, a batch of masks at a time."""
    specs = get_registry().explainers
    mine = [name for name in specs if get_registry().spec(name).family == "perturbation"]
    return sorted([*mine, "score-cam", "ablation-cam"])


@cache
def case():
    """Give a network that itself takes little memory, and a picture."""
    rng = np.random.default_rng(0)
    arrays = {
        "conv.weight": rng.normal(size=(8, 8, 3, CHANNELS)) / 8,
        "conv.bias": rng.normal(size=CHANNELS),
        "fc.weight": rng.normal(size=(CHANNELS, 3)),
        "fc.bias": rng.normal(size=3),
    }
    none = ((0, 0), (0, 0))
    ops = (
        Op("conv", "conv", ("image",), attrs={"stride": (8, 8), "padding": none}),
        Op("relu", "relu", ("conv",)),
        Op("gap", "gap", ("relu",)),
        Op("fc", "linear", ("gap",)),
    )
    net = NetSpec({"image": (SIDE, SIDE, 3)}, ops, arrays, "patches")
    return ReferenceModel(net), rng.random((1, SIDE, SIDE, 3)).astype(np.float32)


def explained(name, batch_size, params):
    """Count the samples that a method asks about."""
    model, x = case()
    known = {parameter.name for parameter in get_registry().parameters(name)}
    usual = {"segmentation": "grid", "segments": 16, "fill": 0.0, "cells": 7, "layer": "relu"}
    usual = {key: value for key, value in usual.items() if key in known}
    method = get_registry().explainer(name, **{**usual, **params, "batch_size": batch_size})
    counting = Counting(model)
    method.explain(counting, x, [ClassScore(1)])
    return counting.asked


def measured(name, batch_size, params):
    """Count the samples that a method asks about, and measure its memory at its most, in bytes."""
    tracemalloc.start()
    try:
        asked = explained(name, batch_size, params)
        return asked, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_every_method_is_here():
    assert methods() == sorted(FEW_AND_MANY)


@pytest.mark.parametrize("name", FEW_AND_MANY)
def test_memory_follows_the_batch_and_not_the_number_of_masks(name):
    few, many = FEW_AND_MANY[name]
    explained(name, 8, few)  # what is imported and cached
    (n, least), (m, most) = measured(name, 8, few), measured(name, 8, many)
    assert m >= 2 * n
    # A further mask is no mask in memory, but its few numbers and its score.
    assert most - least < 0.2 * MASK * (m - n)
    if name not in ONE_BY_ONE:  # a further sample in a batch is at least itself
        assert measured(name, 24, many)[1] - most > (24 - 8) * SAMPLE


# ------------------------------------------------------------------------------- the batch size


def batch_size_of(name):
    """Give a method's parameter that says how many samples go through at once, if it has one."""
    found = get_registry().parameters(name)
    return next((parameter for parameter in found if parameter.name == "batch_size"), None)


SIZED = [name for name in sorted(get_registry().explainers) if batch_size_of(name)]
MEASURED = [name for name in SIZED if "auto" in batch_size_of(name).choices]


def test_methods_that_ask_about_masks_measure_what_pays():
    assert set(FEW_AND_MANY) - ONE_BY_ONE - {"xrai"} <= set(MEASURED)


@pytest.mark.parametrize("name", SIZED)
def test_a_batch_size_is_read_from_text(name):
    parameter = batch_size_of(name)
    assert parse(parameter, "3") == 3
    for text in ("0", "-1", "many"):
        with pytest.raises(ParameterError, match="batch_size"):
            get_registry().explainer(name, batch_size=parse(parameter, text))
    if name in MEASURED:
        assert parse(parameter, "auto") == "auto"


@pytest.mark.parametrize("name", MEASURED)
def test_a_measured_batch_size_changes_nothing(name):
    net = NETS["plain"]()
    model, x = ReferenceModel(net), random_input(net, 2, seed=4)["image"]
    targets = [ClassScore(1), ClassScore(2)]
    three, auto = (brief(name, batch_size=size).explain(model, x, targets) for size in (3, "auto"))
    assert auto.raw.dtype == three.raw.dtype
    scale = np.abs(three.raw).max()
    np.testing.assert_allclose(auto.raw, three.raw, rtol=1e-4, atol=1e-5 * scale)
