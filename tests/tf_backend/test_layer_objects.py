"""A layer given as an object is found where the network calls it."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from cnnviz_core.importing import import_string
from cnnviz_core.registry import get_registry
from cnnviz_tf.model import wrap
from cnnviz_tf.paths import path_of

L = keras.layers


def sequential():
    return keras.Sequential([keras.Input((6, 5, 3)), L.Conv2D(4, 3), L.ReLU(), L.Flatten()])


def functional():
    inputs = keras.Input((6, 5, 3))
    x = L.Conv2D(4, 3, name="conv")(inputs)
    return keras.Model(inputs, L.Add(name="add")([x, L.ReLU(name="relu")(x)]))


def nested():
    inner = keras.Sequential([keras.Input((6, 5, 3)), L.Conv2D(4, 3, name="conv")], name="inner")
    return keras.Sequential([keras.Input((6, 5, 3)), inner, L.Dense(2, name="head")], name="outer")


class Block(L.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.parts = [L.Conv2D(4, 3, name="conv"), L.ReLU(name="relu")]

    def build(self, shape):
        self.parts[0].build(shape)
        super().build(shape)

    def call(self, x):
        return self.parts[1](self.parts[0](x))


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.one, self.two = Block(name="block"), Block(name="block")
        self.head = L.Dense(2, name="head")

    def call(self, x):
        return self.head(tf.reduce_mean(self.two(self.one(x)), (1, 2)))


def subclassed():
    net = Subclassed()
    net(np.zeros((1, 6, 5, 3), np.float32))
    return net


@pytest.mark.parametrize("make", [sequential, functional, nested, subclassed])
def test_every_layer_has_its_path(make):
    net = make()
    model = wrap(net)
    layers = [
        x for x in net._flatten_layers(include_self=False) if x.name in str(list(model.layers))
    ]
    assert len({id(x) for x in layers}) >= 3
    found = {path_of(net, layer) for layer in layers}
    assert found == {info.path for info in model.layers.values()}
    for layer in layers:
        infos = [i for i in model.layers.values() if i.path == path_of(net, layer)]
        assert {info.type for info in infos} == {type(layer).__name__}


def test_the_path_leads_to_the_layers_value(rng):
    net = functional()
    x = rng.normal(size=(2, 6, 5, 3)).astype(np.float32)
    path = path_of(net, net.get_layer("conv"))
    found = wrap(net).forward(x, capture=[path])[path]
    np.testing.assert_allclose(found, net.get_layer("conv")(x), rtol=1e-5, atol=1e-6)


def test_layers_of_one_name_in_one_place_are_told_apart():
    net = subclassed()
    assert path_of(net, net.one) == "block"
    assert path_of(net, net.two) == "block_2"
    assert path_of(net, net.two.parts[0]) == "block_2/conv"
    assert {"block/conv", "block_2/conv"} <= set(wrap(net).layers)


def test_layers_of_an_inner_model():
    net = nested()
    inner = net.get_layer("inner")
    assert path_of(net, inner) == "inner"
    assert path_of(net, inner.get_layer("conv")) == "inner/conv"
    assert path_of(inner, inner.get_layer("conv")) == "conv"


def test_what_is_no_layer_of_the_network(tmp_path):
    net, twin = functional(), functional()
    conv = net.get_layer("conv")
    assert path_of(net, net) is None
    assert path_of(net, twin.get_layer("conv")) is None
    assert path_of(net, "conv") is None
    assert path_of(net, conv.kernel) is None
    net.export(tmp_path, verbose=False)
    assert path_of(tf.saved_model.load(tmp_path), conv) is None


def test_the_backend_announces_it():
    net = functional()
    spec = get_registry().backend_of(net)
    assert import_string(spec.path_of)(net, net.get_layer("conv")) == "conv"
