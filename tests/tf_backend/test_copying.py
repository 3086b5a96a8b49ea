"""Copies of networks with other arrays, whatever the layers are, and the network as it was."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from cnnviz_core.errors import ArrayError, MissingCapabilityError
from cnnviz_core.model import copyable
from cnnviz_metrics.sanity import cascade, random_arrays, randomised_parts
from cnnviz_tf.capture import layer_paths
from cnnviz_tf.model import wrap

L = keras.layers
X = np.random.default_rng(0).normal(size=(2, 9, 7, 3)).astype(np.float32)


class Scaled(keras.Layer):
    """A layer without a configuration, with a variable of Keras' and one of TensorFlow's."""

    def __init__(self, function, **more):
        super().__init__(**more)
        self.function = function
        self.raw = tf.Variable(1.5)

    def build(self, shape):
        self.gain = self.add_weight(name="gain", shape=(shape[-1],), initializer="ones")

    def call(self, x):
        return self.function(x) * self.gain * self.raw


class Subclassed(keras.Model):
    """A network that only its own code knows."""

    def __init__(self):
        super().__init__()
        self.conv = L.Conv2D(4, 3, name="conv")
        self.scaled = Scaled(lambda x: x * x, name="scaled")
        self.head = L.Dense(3, name="head")

    def call(self, x, training=False):
        return self.head(tf.reduce_mean(self.scaled(self.conv(x)), (1, 2)))


def functional():
    """One of each layer that has arrays of its own kind."""
    x = keras.Input(X.shape[1:])
    y = L.Conv2D(8, 3, padding="same", name="conv")(x)
    y = L.BatchNormalization(name="bn")(y)
    y = L.DepthwiseConv2D(3, depth_multiplier=2, padding="same", name="depthwise")(y)
    y = L.SeparableConv2D(6, 3, padding="same", name="separable")(y)
    y = L.Conv2D(6, 2, groups=2, padding="same", name="grouped")(y)
    y = L.Conv2DTranspose(4, 2, strides=2, name="up")(y)
    y = L.PReLU(shared_axes=(1, 2), name="prelu")(y)
    y = L.Reshape((-1, 4), name="tokens")(y)
    y = L.MultiHeadAttention(2, 3, name="attention")(y, y)
    y = L.LayerNormalization(name="ln")(y)
    y = L.GlobalAveragePooling1D(name="gap")(y)
    return keras.Model(x, L.Dense(5, name="head")(y))


def randomly(net, seed=1):
    """Give a network's variables other values, none of which are all the same."""
    rng = np.random.default_rng(seed)
    for weight in net.weights:
        if weight.dtype == "float32":
            weight.assign(rng.uniform(0.5, 1.5, weight.shape) * rng.choice([0.2, 0.3]))
    return net


def state(net):
    """Give every byte of a network's variables."""
    return [(v.path, v.numpy().tobytes()) for v in net.variables]


def test_every_kind_of_layer():
    net = randomly(functional())
    model, before = wrap(net), state(net)
    own = model.forward(X).logits
    layers = layer_paths(net)
    filled = [path for path in layers if model.parameters(path)]
    assert len(filled) == 13
    for path in filled:
        arrays = {k: 1.5 * v for k, v in model.parameters(path).items() if k != "epsilon"}
        copy = copyable(model).copied({path: arrays})
        found = copy.parameters(path)
        for name, values in arrays.items():
            np.testing.assert_array_equal(found[name], values)
        actual = copy.forward(X).logits
        assert state(net) == before
        # The same, written by hand in Keras' own layout: all of it is a multiple.
        kept = layers[path].get_weights()
        layers[path].set_weights([1.5 * weight for weight in kept])
        np.testing.assert_array_equal(actual, model.forward(X).logits, path)
        layers[path].set_weights(kept)
        assert not np.array_equal(actual, own), path


@pytest.mark.parametrize(
    "make",
    [
        lambda: L.Conv2D(6, (2, 3), groups=2, name="conv"),
        lambda: L.Conv2DTranspose(6, (2, 3), name="conv"),
        lambda: L.DepthwiseConv2D((2, 3), depth_multiplier=2, name="conv"),
    ],
)
def test_a_kernel_comes_back_to_its_place(make):
    model = wrap(keras.Sequential([keras.Input((5, 6, 4)), make()]))
    drawn = np.random.default_rng(1).normal(size=model.parameters("conv")["weight"].shape)
    copy = copyable(model).copied({"conv": {"weight": drawn}})
    np.testing.assert_array_equal(copy.parameters("conv")["weight"], drawn.astype(np.float32))


def test_what_is_no_variable_cannot_be_changed():
    layers = [keras.Input((6,)), L.Dense(4, use_bias=False), L.BatchNormalization(scale=False)]
    net = keras.Sequential([*layers, L.Dense(2, name="head")])
    model = wrap(net)
    name = net.layers[1].name
    own, before = model.parameters(name), state(net)
    assert copyable(model).copied({name: own}).parameters(name).keys() == own.keys()
    for array in ("scale", "epsilon"):
        with pytest.raises(ArrayError, match=array):
            copyable(model).copied({"head": {"bias": np.ones(2)}, name: {array: own[array] * 2}})
    with pytest.raises(ArrayError, match="'bias'"):
        copyable(model).copied({net.layers[0].name: {"bias": np.ones(4)}})
    assert state(net) == before


def test_subclassed_models_and_layers_without_configuration():
    net = Subclassed()
    expected = net(X).numpy()
    model, before = wrap(net), state(net)
    copy = copyable(model).copied({"scaled": {"gain": np.full(4, 2, np.float32)}})
    bias = net.head.bias.numpy()
    np.testing.assert_allclose(copy.forward(X).logits - bias, 2 * (expected - bias), rtol=1e-4)
    np.testing.assert_allclose(model.forward(X).logits, expected, rtol=1e-5)
    assert state(net) == before


def test_no_memory_is_shared():
    net = Subclassed()
    net(X)
    model = wrap(net)
    copy = copyable(model).copied({})
    before = copy.forward(X).logits
    for weight in net.weights:
        weight.assign(weight.numpy() * 2)
    net.scaled.raw.assign(-1.0)
    np.testing.assert_array_equal(copy.forward(X).logits, before)
    assert not np.allclose(model.forward(X).logits, before)


def test_everything_that_a_model_offers():
    net = randomly(functional())
    model = wrap(net)
    layers = ["conv", "bn", "up", "head"]
    drawn = {layer: random_arrays(model.parameters(layer), layer) for layer in layers}
    copy = copyable(model).copied(drawn)
    assert copy.capabilities == model.capabilities
    trace = copy.forward(X, capture=["conv", "up"], replace={"bn": np.tanh})
    back = copy.pullback(X, np.cos, of="up", wrt=["conv"])
    bent = copy.curvature(X, np.cos, np.ones_like)
    shapes = {name: info.shape for name, info in copy.layers.items()}
    assert shapes == {name: info.shape for name, info in model.layers.items()}
    geometry = copy.geometry(["conv"]).nodes
    own = model.forward(X).logits
    # The network itself, with these arrays.
    for layer, arrays in drawn.items():
        names = {"weight": "kernel", "scale": "gamma", "shift": "beta"}
        for name, values in arrays.items():
            values = np.swapaxes(values, -1, -2) if layer == "up" and name == "weight" else values
            getattr(net.get_layer(layer), names.get(name, name)).assign(values)
    expected = model.forward(X, capture=["conv", "up"], replace={"bn": np.tanh})
    assert not np.allclose(expected.logits, own)
    for node, value in expected.values.items():
        np.testing.assert_array_equal(trace[node], value)
    other = model.pullback(X, np.cos, of="up", wrt=["conv"])
    np.testing.assert_array_equal(back.gradients["conv"], other.gradients["conv"])
    np.testing.assert_array_equal(bent.bend, model.curvature(X, np.cos, np.ones_like).bend)
    assert geometry == model.geometry(["conv"]).nodes


def test_a_layer_that_is_called_twice():
    shared = L.Conv2D(3, 3, padding="same", name="shared")
    x = keras.Input(X.shape[1:])
    y = L.GlobalAveragePooling2D()(shared(L.ReLU(name="relu")(shared(x))))
    net = keras.Model(x, y)
    model = wrap(net)
    drawn = random_arrays(model.parameters("shared@1"), "shared")
    copy = copyable(model).copied({"shared@1": drawn})
    for node in ("shared", "shared@0", "shared@1"):
        np.testing.assert_array_equal(copy.parameters(node)["weight"], drawn["weight"])
    actual = copy.forward(X).logits
    shared.kernel.assign(drawn["weight"])
    np.testing.assert_array_equal(actual, model.forward(X).logits)


@pytest.mark.parametrize("dtype", ["mixed_float16", "bfloat16", "float64"])
def test_arrays_come_in_the_networks_type(dtype):
    net = keras.Sequential(
        [
            keras.Input((9, 7, 3)),
            L.Conv2D(4, 3, dtype=dtype, name="conv"),
            L.GlobalAveragePooling2D(dtype=dtype),
            L.Dense(3, dtype=dtype, name="head"),
        ]
    )
    model = wrap(net)
    drawn = {"conv": random_arrays(model.parameters("conv"), "conv")}
    copy = copyable(model).copied(drawn)
    found = copy.parameters("conv")["weight"]
    np.testing.assert_allclose(found, drawn["conv"]["weight"], rtol=1e-2)
    actual = copy.forward(X).logits
    net.get_layer("conv").kernel.assign(found)
    np.testing.assert_array_equal(actual, model.forward(X).logits)


def test_the_network_is_untouched_by_a_whole_cascade():
    net = randomly(functional())
    net.compile("adam", "mse")
    flags = [layer.trainable for layer in net.layers]
    model, before = wrap(net), state(net)
    weights = [id(v) for v in net.weights]
    for copy in cascade(model, randomised_parts(model, X)):
        copy.pullback(X, np.ones_like)
    assert state(net) == before
    assert [id(v) for v in net.weights] == weights
    assert [layer.trainable for layer in net.layers] == flags
    np.testing.assert_allclose(net(X).numpy(), model.forward(X).logits, rtol=1e-5)


def test_a_copy_may_see_the_first_input():
    net = keras.Sequential(
        [keras.Input((None, None, 3)), L.Conv2D(2, 3, name="conv"), L.GlobalAveragePooling2D()]
    )
    copy = copyable(wrap(net)).copied({"conv": {"bias": np.ones(2)}})
    expected = net(X).numpy() + 1
    np.testing.assert_allclose(copy.forward(X).logits, expected, rtol=1e-5)
    assert copy.layers["conv"].shape == (7, 5, 2)


def test_exported_networks_do_not_offer_it(tmp_path):
    net = keras.Sequential([keras.Input((4,)), L.Dense(2)])
    net.export(tmp_path, verbose=False)
    model = wrap(tf.saved_model.load(str(tmp_path)))
    assert "copy" not in model.capabilities
    with pytest.raises(MissingCapabilityError, match="copy"):
        copyable(model)
    for parameters in ({}, {"dense": {}}):
        with pytest.raises(MissingCapabilityError, match="exported"):
            model.copied(parameters)
