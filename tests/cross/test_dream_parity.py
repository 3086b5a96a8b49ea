"""Dreams and inversions are the same on PyTorch, on TensorFlow, and on the NumPy reference."""

from __future__ import annotations

import numpy as np
import pytest

import cnnviz_tf.build
import cnnviz_tf.model
import cnnviz_torch.build
import cnnviz_torch.model
from cnnviz_core.inspector import ArrayPictures, Subject
from cnnviz_core.pixels import PixelSpace
from cnnviz_core.preprocessing import Preprocessing
from cnnviz_core.registry import get_registry
from cnnviz_core.targets import Predicted
from cnnviz_core.testing.nets import NETS
from cnnviz_core.testing.reference import ReferenceModel

SPACE = PixelSpace.of(Preprocessing(scale=1 / 255, mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3)))
DREAM = {"octaves": 3, "steps": 3}


def subjects(name, n=2, targets=()):
    """Show the same pictures to one network on every backend, in float64."""
    net = NETS[name]()
    (shape,) = net.inputs.values()
    colours = np.random.default_rng(3).uniform(0.1, 0.9, size=(n, *shape[:2], 3))
    pictures = ArrayPictures(SPACE.to_input(colours) if n else np.empty(0))
    models = {
        "torch": cnnviz_torch.model.wrap(cnnviz_torch.build.build(net, dtype="float64")),
        "tensorflow": cnnviz_tf.model.wrap(cnnviz_tf.build.build(net, dtype="float64")),
        "numpy": ReferenceModel(net, "float64"),
    }
    for model in models.values():
        model.forward(np.zeros((1, *shape)))
    return {k: Subject(m, pictures, SPACE, shape, targets) for k, m in models.items()}


@pytest.mark.parametrize("name", ["plain", "residual"])
@pytest.mark.parametrize(
    ("inspector", "params", "more"),
    [
        ("dream", {**DREAM, "tv": 0.1, "zoom_frames": 1, "frames": 4}, {}),
        ("dream", DREAM, {"targets": (Predicted(),)}),
        ("dream", DREAM, {"n": 0}),
        ("inversion", {"steps": 5, "restarts": 2, "frames": 2}, {}),
        ("inversion", {"steps": 5, "parameterisation": "pixel"}, {}),
    ],
    ids=["dream", "dream of a class", "dream of noise", "inversion", "inversion in pixels"],
)
def test_every_backend_finds_the_same(name, inspector, params, more, near):
    made = get_registry().inspector(inspector, **params)
    found = {key: made.inspect(seen) for key, seen in subjects(name, **more).items()}
    for other in ("tensorflow", "numpy"):
        assert list(found[other].arrays) == list(found["torch"].arrays)
        for array, expected in found["torch"].arrays.items():
            assert found[other].arrays[array].dtype == np.float64
            near(f"{inspector}, torch and {other}", found[other].arrays[array], expected, 1e-8)
        assert len(found[other].frames) == len(found["torch"].frames)
        for frame, expected in zip(found[other].frames, found["torch"].frames, strict=True):
            # A colour half-way between two steps of 8 bits may go either way.
            assert np.abs(frame.astype(int) - expected).max() <= 1
