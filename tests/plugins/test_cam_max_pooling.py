"""CAM of networks that end in global max pooling and one linear layer."""

from __future__ import annotations

import numpy as np
import pytest

from cnnviz_cam.cam import CAM
from cnnviz_core.errors import UnsupportedModelError
from cnnviz_core.netspec import NetSpec, Op
from cnnviz_core.targets import ClassScore
from cnnviz_core.testing.nets import random_input
from cnnviz_core.testing.reference import ReferenceModel


def net(window):
    """A convolution, a max-pool over windows of a grid of 6 x 4, and a linear layer."""
    rng = np.random.default_rng(0)
    places = 24 // (window[0] * window[1])
    return NetSpec(
        {"image": (8, 6, 3)},
        (
            Op("conv", "conv", ("image",)),
            Op("relu", "relu", ("conv",)),
            Op("pool", "maxpool", ("relu",), attrs={"window": window, "stride": window}),
            Op("flat", "flatten", ("pool",)),
            Op("fc", "linear", ("flat",)),
        ),
        {
            "conv.weight": rng.normal(size=(3, 3, 3, 7)),
            "conv.bias": rng.normal(size=7),
            "fc.weight": rng.normal(size=(7 * places, 5)),
            "fc.bias": rng.normal(size=5),
        },
    )


def test_the_map_is_the_sum_of_the_feature_maps_by_the_weights_of_the_class():
    spec = net((6, 4))
    model = ReferenceModel(spec, "float64")
    (x,) = random_input(spec, 4).values()
    features = model.forward(x, capture=("relu",))["relu"]
    weight, bias = spec.parameters["fc.weight"][:, 3], spec.parameters["fc.bias"][3]
    maps = CAM().explain(model, x, [ClassScore(3)] * 4)
    np.testing.assert_allclose(maps.raw, features @ weight, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(maps.scores, features.max((1, 2)) @ weight + bias, rtol=1e-12)


def test_pooling_that_leaves_several_places_is_refused():
    spec = net((3, 2))
    (x,) = random_input(spec, 4).values()
    with pytest.raises(UnsupportedModelError, match="linear function neither"):
        CAM().explain(ReferenceModel(spec, "float64"), x, [ClassScore(3)] * 4)
