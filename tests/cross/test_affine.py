"""A layer is said to be affine on every backend, or on none."""

from __future__ import annotations

import pytest

import cnnviz_tf.build
import cnnviz_tf.model
import cnnviz_torch.build
import cnnviz_torch.model
from cnnviz_core.testing.nets import NETS
from cnnviz_core.testing.reference import ReferenceModel


@pytest.mark.parametrize("name", NETS)
def test_backends_tell_the_same_layers_to_be_affine(name):
    net = NETS[name]()
    models = {
        "numpy": ReferenceModel(net),
        "torch": cnnviz_torch.model.wrap(cnnviz_torch.build.build(net)),
        "tensorflow": cnnviz_tf.model.wrap(cnnviz_tf.build.build(net)),
    }
    layers = set(models["numpy"].layers).intersection(*(m.layers for m in models.values()))
    told = {
        key: {layer for layer in layers if model.layers[layer].affine}
        for key, model in models.items()
    }
    assert told["numpy"]
    assert told["torch"] == told["numpy"]
    assert told["tensorflow"] == told["numpy"]
