"""One inspector finds the same on PyTorch, on TensorFlow, and on the NumPy reference."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import cnnviz
import cnnviz.demo
import cnnviz_tf.build
import cnnviz_tf.model
import cnnviz_torch.build
import cnnviz_torch.model
from cnnviz.inspecting import make_inspector, run_inspector, subject_of
from cnnviz_core.registry import get_registry
from cnnviz_core.testing.reference import ReferenceModel
from support.inspectors import BRIEF

BACKENDS = {"torch": cnnviz_torch, "tensorflow": cnnviz_tf}
INSPECTORS = get_registry().inspectors

# Of pictures of 128 x 128 pixels less is enough than of the small ones of other tests.
BRIEFER = {
    **BRIEF,
    "dream": {"steps": 1, "octaves": 1},
    "maximisation": {"steps": 2, "channels": "1,5"},
    "class-model": {"steps": 2, "classes": "3;8"},
    "inversion": {"steps": 2, "layer": "relu2_1"},
    "invariance": {"steps": 1, "transform": "all"},
    "occlusion-analysis": {"window": 48, "stride": 40},
    "projections": {"count": 2, "top": 1},
}

# A step of gradient ascent makes a rounding error grow; elsewhere nothing does.
TOLERANCE = 1e-7


@pytest.fixture(scope="module")
def networks():
    """The demo network on every backend, in float64."""
    shipped = cnnviz.demo.network("numpy")
    net = cnnviz.demo.netspec()
    models = {key: b.model.wrap(b.build.build(net, dtype="float64")) for key, b in BACKENDS.items()}
    models["numpy"] = ReferenceModel(net, "float64")
    return {
        key: cnnviz.wrap(
            model, preprocess=shipped.preprocessing, labels=shipped.labels, name="digits"
        )
        for key, model in models.items()
    }


@pytest.mark.parametrize("name", list(INSPECTORS))
def test_inspectors_agree(networks, name, near):
    spec = INSPECTORS[name]
    shown = cnnviz.demo.scenes()[:2]
    # In a photograph there are fields of one colour, and each pool there is a tie, which the
    # frameworks break in different ways; so the ascent begins with noise.
    alone = spec.shown == "nothing" or name == "maximisation"
    images = None if alone else [picture for picture, _ in shown]
    truth = [0, 1] if spec.shown == "labelled pictures" else None
    found = {}
    for key, network in networks.items():
        subject = subject_of(network, images, truth=truth, batch_size=2)
        found[key] = run_inspector(
            name, make_inspector(name, "auto", BRIEFER.get(name, {})), subject, network
        )
    found = {key: shared(name, each, found.values()) for key, each in found.items()}
    one = found["torch"]
    assert one.arrays
    for other in ("tensorflow", "numpy"):
        two = found[other]
        assert two.facts == one.facts or differs_by_rounding(two.facts, one.facts)
        assert list(two.arrays) == list(one.arrays)
        for key, expected in one.arrays.items():
            if expected.dtype.kind == "f":
                finite = np.nan_to_num(expected), np.nan_to_num(two.arrays[key])
                near(f"{name}, torch and {other}", finite[1], finite[0], TOLERANCE)
                np.testing.assert_array_equal(np.isnan(expected), np.isnan(two.arrays[key]))
            else:
                np.testing.assert_array_equal(two.arrays[key], expected, err_msg=key)


def shared(name, one, all_of_them):
    """Leave out of the receptive fields the padding that only TensorFlow makes a layer of."""
    if name != "receptive-fields":
        return one
    listed = [found.facts["layers"] for found in all_of_them]
    rows = [i for i, layer in enumerate(one.facts["layers"]) if all(layer in ls for ls in listed)]
    facts = {key: [one.facts[key][i] for i in rows] for key in ("layers", "grids")}
    arrays = {key: array[rows] for key, array in one.arrays.items()}
    assert len(rows) >= 10
    return dataclasses.replace(one, facts=facts, arrays=arrays)


def differs_by_rounding(one, two):
    """Tell whether two values as JSON has them are the same but for the last digits of numbers."""
    if isinstance(one, float) and isinstance(two, float):
        return one == pytest.approx(two, rel=TOLERANCE, abs=TOLERANCE)
    if isinstance(one, (list, tuple)) and len(one) == len(two):
        return all(map(differs_by_rounding, one, two))
    if hasattr(one, "items") and list(one) == list(two):
        return all(differs_by_rounding(value, two[key]) for key, value in one.items())
    return one == two
