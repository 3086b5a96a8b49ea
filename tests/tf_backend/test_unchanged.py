"""The user's network is what it was, after any call and after any exception."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from cnnviz_core.errors import RuleError
from cnnviz_core.model import INPUT
from cnnviz_core.rules import GUIDED
from cnnviz_tf.model import wrap

L = keras.layers


class Busy(keras.Layer):
    """Does to itself all that a layer may do when called."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = L.Dense(4)
        self.count = 0
        self.history = []
        self.seen = {}
        self.fail = False

    def build(self, shape):
        self.inner.build(shape)

    def call(self, x):
        self.count += 1
        self.last = x
        self.history.append(x)
        self.seen[len(self.seen)] = x
        self.add_loss(tf.reduce_sum(x))
        if self.fail:
            raise ZeroDivisionError("in the layer")
        return self.inner(x)


class Busier(keras.Model):
    def __init__(self):
        super().__init__()
        self.busy = Busy(name="busy")
        self.norm = L.BatchNormalization(name="norm")
        self.head = L.Dense(3, activity_regularizer="l2", name="head")

    def call(self, x, training=None):
        return self.head(self.norm(tf.nn.relu(self.busy(x)), training=training))


@pytest.fixture
def native(rng):
    net = Busier()
    net(rng.normal(size=(2, 5)).astype(np.float32))
    net.busy.call = net.busy.call  # somebody's own patch of an instance stays, too
    return net


def state(net):
    """All that can be seen of a network: attributes by identity, containers' contents, weights."""
    attributes = {}
    for layer in net._flatten_layers():
        for name, value in vars(layer).items():
            content = None
            if isinstance(value, dict):
                content = {k: id(v) for k, v in value.items()}
            elif isinstance(value, (list, set, tuple)):
                content = [id(v) for v in value]
            attributes[layer.name, name] = (id(value), content)
    return attributes, [w.numpy().tobytes() for w in net.weights], net.get_config


@pytest.mark.parametrize(
    "operation", ["layers", "forward", "replace", "pullback", "rule", "parameters"]
)
def test_nothing_changes(native, operation, rng):
    x = rng.normal(size=(2, 5)).astype(np.float32)
    before = state(native)[:2]
    losses = list(native.losses)
    model = wrap(native, input_shape=(5,))
    match operation:
        case "layers":
            assert list(model.layers) == ["busy/" + native.busy.inner.name, "busy", "norm", "head"]
        case "forward":
            model.forward(x, capture=["busy", "norm"])
        case "replace":
            model.forward(x, replace={"busy": np.zeros_like})
        case "pullback":
            model.pullback(x, np.ones_like, wrt=["busy", INPUT])
        case "rule":
            model.pullback(x, np.ones_like, rule=GUIDED)
        case "parameters":
            for array in model.parameters("norm").values():
                array += 1
    assert state(native)[:2] == before
    assert all(a is b for a, b in zip(native.losses, losses, strict=True))


def test_nothing_changes_when_the_network_raises(native):
    native.busy.fail = True
    before = state(native)[:2]
    with pytest.raises(ZeroDivisionError, match="in the layer"):
        wrap(native, input_shape=(5,)).forward(np.zeros((1, 5)))
    assert state(native)[:2] == before
    assert not tf.config.functions_run_eagerly()


def test_nothing_changes_when_we_raise(native, rng):
    x = rng.normal(size=(2, 5)).astype(np.float32)
    before = state(native)[:2]
    model = wrap(native, input_shape=(5,))

    def broken(value):
        raise KeyError("in the cotangent")

    with pytest.raises(KeyError, match="in the cotangent"):
        model.pullback(x, broken)
    with pytest.raises(KeyError, match="in the cotangent"):
        model.forward(x, replace={"busy": broken})
    with pytest.raises(RuleError):
        model.pullback(x, np.ones_like, wrt=["norm"], rule=GUIDED)
    assert state(native)[:2] == before
    assert np.isfinite(model.pullback(x, np.ones_like).gradients[INPUT]).all()


def test_batch_norm_and_dropout_are_in_inference(rng):
    net = keras.Sequential(
        [keras.Input((6,)), L.Dense(4), L.BatchNormalization(), L.Dropout(0.9), L.Dense(2)]
    )
    net.compile("sgd", "mse")
    x = rng.normal(size=(8, 6)).astype(np.float32)
    net.fit(x, np.zeros((8, 2)), verbose=0)
    before = [w.numpy() for w in net.weights]
    model = wrap(net)
    one, two = model.forward(x).output, model.forward(x).output
    np.testing.assert_array_equal(one, two)
    np.testing.assert_allclose(one, net(x, training=False).numpy(), atol=1e-6)
    np.testing.assert_allclose(model.forward(x[:1]).output, one[:1], atol=1e-6)
    for weight, old in zip(net.weights, before, strict=True):
        np.testing.assert_array_equal(weight.numpy(), old)


def test_new_weights_are_seen_at_once(rng):
    net = keras.Sequential([keras.Input((6,)), L.Dense(4, activation="relu"), L.Dense(2)])
    x = rng.normal(size=(2, 6)).astype(np.float32)
    model = wrap(net)
    first = model.pullback(x, np.ones_like)
    net.set_weights([w + 1 for w in net.get_weights()])
    second = model.pullback(x, np.ones_like)
    np.testing.assert_allclose(second.values["@output"], net(x).numpy(), atol=1e-5)
    assert np.abs(first.gradients[INPUT] - second.gradients[INPUT]).max() > 0.1


def test_the_callers_random_state_and_settings_stay(rng):
    net = keras.Sequential([keras.Input((6,)), L.Dropout(0.5), L.Dense(2)])
    tf.random.set_seed(3)
    expected = [tf.random.normal([2]).numpy() for _ in range(2)]
    tf.random.set_seed(3)
    options = tf.config.optimizer.get_experimental_options()
    drawn = [tf.random.normal([2]).numpy()]
    wrap(net).pullback(rng.normal(size=(2, 6)), np.ones_like)
    drawn.append(tf.random.normal([2]).numpy())
    np.testing.assert_array_equal(drawn, expected)
    assert tf.config.optimizer.get_experimental_options() == options


def test_results_are_the_callers_own(rng):
    net = keras.Sequential([keras.Input((6,)), L.Dense(4, name="first"), L.Dense(2)])
    x = rng.normal(size=(2, 6)).astype(np.float32)
    model = wrap(net)
    first = model.pullback(x, np.ones_like, wrt=["first"])
    kept = first.gradients["first"].copy()
    for array in (*first.values.values(), *first.gradients.values()):
        array += 1
    np.testing.assert_array_equal(
        model.pullback(x, np.ones_like, wrt=["first"]).gradients["first"], kept
    )
    given = x.copy()

    def spoil(value):
        value[...] = 0
        return np.ones_like(value)

    spoilt = model.pullback(x, spoil)
    np.testing.assert_allclose(spoilt.values["@output"], net(x).numpy(), atol=1e-6)
    model.forward(x, replace={"first": spoil})
    np.testing.assert_array_equal(x, given)
