"""The pictures that excite a network are the same on PyTorch, on TensorFlow, and on NumPy."""

from __future__ import annotations

import numpy as np
import pytest

import cnnviz_tf.build
import cnnviz_tf.model
import cnnviz_torch.build
import cnnviz_torch.model
from cnnviz_core.inspector import ArrayPictures, Subject
from cnnviz_core.pixels import PixelSpace
from cnnviz_core.targets import ClassScore
from cnnviz_core.testing.nets import NETS
from cnnviz_core.testing.reference import ReferenceModel
from cnnviz_features.class_model import ClassModel
from cnnviz_features.maximisation import Maximisation


def subjects(name, **more):
    """Give a network in double precision on every backend."""
    net = NETS[name]()
    (shape,) = net.inputs.values()
    models = {
        "torch": cnnviz_torch.model.wrap(cnnviz_torch.build.build(net, dtype="float64")),
        "tensorflow": cnnviz_tf.model.wrap(cnnviz_tf.build.build(net, dtype="float64")),
        "numpy": ReferenceModel(net, "float64"),
    }
    space = PixelSpace(np.diag([4.0, 4.5, 5.0]), np.array([-2.0, -2.1, -2.2]))
    nothing = ArrayPictures(np.empty(0))
    return {key: Subject(m, nothing, space, shape, **more) for key, m in models.items()}


@pytest.mark.parametrize("net", ["plain", "residual"])
@pytest.mark.parametrize(
    ("inspector", "more"),
    [
        (Maximisation(steps=30, channels="0-1", restarts=2, diversity=1.0), {}),
        (Maximisation(steps=30, parameterisation="pixel", tv=1.0, optimiser="plain"), {}),
        (Maximisation(steps=30), {"targets": (ClassScore(1),)}),
        (ClassModel(steps=30), {}),
    ],
    ids=["channels", "pixels", "class", "class model"],
)
def test_pictures(net, inspector, more, near):
    found = {key: inspector.inspect(each) for key, each in subjects(net, **more).items()}
    for other in ("tensorflow", "numpy"):
        for name, expected in found["torch"].arrays.items():
            actual = found[other].arrays[name]
            assert actual.dtype == expected.dtype == np.float64
            near(f"float64 synthesis, torch and {other}", actual, expected, 1e-8)
        assert found[other].facts["objectives"] == found["torch"].facts["objectives"]
