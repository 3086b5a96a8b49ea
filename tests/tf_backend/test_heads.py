"""A pooled copy of a Keras model: what it computes, how it is trained, what it leaves alone."""

from __future__ import annotations

import random

import keras
import numpy as np
import pytest

from cnnviz.heads import fitted, pooled
from cnnviz_core.errors import ArrayError, ParameterError, UnsupportedModelError
from cnnviz_core.registry import get_registry
from cnnviz_core.targets import ClassScore
from cnnviz_core.testing.nets import plain
from cnnviz_tf.build import build
from cnnviz_tf.model import wrap

layers = keras.layers
SHAPE = (12, 8, 3)


def sequential():
    """Two stages of a small VGG, dropout between them, and a dense layer."""
    return keras.Sequential(
        [
            keras.Input(SHAPE),
            layers.Conv2D(6, 3, padding="same", activation="relu", name="conv1"),
            layers.MaxPooling2D(name="pool1"),
            layers.Dropout(0.3),
            layers.Conv2D(8, 3, padding="same", activation="relu", name="conv2"),
            layers.MaxPooling2D(name="pool2"),
            layers.Flatten(),
            layers.Dense(4, name="scores"),
        ]
    )


def residual():
    """A sum around a convolution, a batch normalisation, and a function that is no layer."""
    given = keras.Input(SHAPE)
    x = layers.Conv2D(6, 3, padding="same", name="conv1")(given)
    y = layers.BatchNormalization(name="norm")(layers.Conv2D(6, 3, padding="same", name="conv2")(x))
    x = layers.Activation("relu", name="end")(layers.Add()([x, keras.ops.relu(y)]))
    return keras.Model(given, layers.Dense(4)(layers.Flatten()(x)))


def nested():
    """A model inside another one, behind a layer that rescales."""
    given = keras.Input(SHAPE)
    inner = sequential()
    body = keras.Model(inner.inputs[0], inner.get_layer("pool2").output, name="backbone")
    x = body(layers.Rescaling(2.0, offset=-1.0)(given))
    return keras.Model(given, layers.Dense(4)(layers.Flatten()(x)))


def repeated():
    """A layer that is called twice."""
    given = keras.Input(SHAPE)
    twice = layers.Conv2D(3, 3, padding="same", name="twice")
    return keras.Model(given, layers.Dense(4)(layers.Flatten()(twice(twice(given)))))


CUTS = [  # a model, a layer of it, and the same layer by hand
    (sequential, "auto", lambda m: keras.Model(m.inputs[0], m.get_layer("conv2").output)),
    (sequential, "pool2", lambda m: keras.Model(m.inputs[0], m.get_layer("pool2").output)),
    (residual, "auto", lambda m: keras.Model(m.inputs[0], m.get_layer("end").output)),
    (residual, "conv1", lambda m: keras.Model(m.inputs[0], m.get_layer("conv1").output)),
    (repeated, "twice@0", lambda m: keras.Sequential(m.layers[1:2])),
    (repeated, "twice@1", lambda m: keras.Sequential([m.layers[1]] * 2)),
    (nested, "backbone", lambda m: keras.Sequential(m.layers[1:3])),
    (
        nested,
        "backbone/conv2",
        lambda m: keras.Sequential([m.layers[1], *m.get_layer("backbone").layers[1:5]]),
    ),
]


def batch(n=5, seed=0):
    return np.random.default_rng(seed).normal(size=(n, *SHAPE)).astype(np.float32)


def numbers(tensor):
    return tensor.numpy()


def everything(model):
    """Take down what a model holds, and the state of Python's random generator."""
    arrays = [numbers(variable).tobytes() for variable in model.variables]
    trainable = [layer.trainable for layer in model._flatten_layers()]
    attributes = [sorted(vars(layer)) for layer in model._flatten_layers()]
    calls = [len(layer._inbound_nodes) for layer in model._flatten_layers(include_self=False)]
    return arrays, trainable, attributes, calls, repr(model.get_config()), random.getstate()


@pytest.mark.parametrize("pooling", ["average", "max"])
@pytest.mark.parametrize(("make", "layer", "by_hand"), CUTS)
def test_the_scores_are_a_linear_function_of_the_pooled_channels(make, layer, by_hand, pooling):
    model, x = make(), batch()
    made = pooled(model, layer=layer, pooling=pooling, classes=3, seed=4)
    features = numbers(by_hand(model)(x, training=False))
    channels = features.mean((1, 2)) if pooling == "average" else features.max((1, 2))
    weight, bias = made.get_layer("linear").get_weights()
    assert [layer.name for layer in made.layers] == ["body", "pool", "linear"]
    assert weight.shape == (features.shape[-1], 3)
    np.testing.assert_allclose(numbers(made(x)), channels @ weight + bias, rtol=1e-4, atol=1e-5)


def test_the_added_convolution_keeps_the_grid_and_is_rectified():
    model, x = sequential(), batch()
    made = pooled(model, extra=9)
    kernel, shift = made.get_layer("conv").get_weights()
    assert kernel.shape == (3, 3, 8, 9)
    features = keras.Model(model.inputs[0], model.get_layer("conv2").output)(x)
    inner = keras.ops.relu(keras.ops.conv(features, kernel, padding="same") + shift)
    expected = numbers(inner).mean((1, 2)) @ made.get_layer("linear").get_weights()[0]
    np.testing.assert_allclose(numbers(made(x)), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("extra", [0, 5])
def test_the_mean_of_cam_and_the_bias_are_the_score(extra):
    x, y = batch(8), np.arange(8) % 4
    made = pooled(sequential(), extra=extra, start="least-squares", data=(x, y))
    cam = get_registry().explainer("cam")
    maps = cam.explain(wrap(made), x, [ClassScore(int(c)) for c in y])
    bias = made.get_layer("linear").get_weights()[1][y]
    assert np.abs(bias).max() > 0.01
    np.testing.assert_allclose(maps.raw.mean((1, 2)) + bias, maps.scores, rtol=1e-4, atol=1e-5)


def test_the_closed_form_is_least_squares():
    model, x = sequential(), batch(60)
    made = pooled(model, start="least-squares", data=x, ridge_strength=0.0)
    features = numbers(keras.Model(model.inputs[0], model.get_layer("conv2").output)(x))
    columns = np.column_stack([features.mean((1, 2), dtype=np.float64), np.ones(len(x))])
    solution = np.linalg.lstsq(columns, numbers(model(x)), rcond=None)[0]
    weight, bias = made.get_layer("linear").get_weights()
    np.testing.assert_allclose(weight, solution[:-1], rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(bias, solution[-1], rtol=1e-3, atol=1e-3)


def test_training_the_head_is_softmax_regression():
    model, x = sequential(), batch(10)
    y = np.random.default_rng(1).integers(0, 4, 10)
    start = pooled(model, seed=3)
    done = fitted(start, (x, y), epochs=3, rate=0.5, batch_size=4, seed=7, optimiser="sgd")
    features = keras.Model(model.inputs[0], model.get_layer("conv2").output)(x)
    channels = numbers(features).mean((1, 2), dtype=np.float64)
    weight, bias = (a.astype(np.float64) for a in start.get_layer("linear").get_weights())
    rng = np.random.default_rng(7)
    for epoch in done.epochs:
        order, loss, right = rng.permutation(10), 0.0, 0
        for rows in (order[:4], order[4:8], order[8:]):
            scores = channels[rows] @ weight + bias
            shares = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
            loss -= np.log(shares[range(len(rows)), y[rows]]).sum()
            right += (scores.argmax(1) == y[rows]).sum()
            slope = (shares - np.eye(4)[y[rows]]) / len(rows)
            weight -= 0.5 * channels[rows].T @ slope
            bias -= 0.5 * slope.sum(0)
        assert epoch.loss == pytest.approx(loss / 10, rel=1e-5)
        assert epoch.accuracy == pytest.approx(right / 10)
        assert epoch.validation is None
    found = done.network.get_layer("linear").get_weights()
    np.testing.assert_allclose(found[0], weight, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found[1], bias, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("train", ["head", "all"])
def test_training_changes_what_it_is_to_change(train):
    x, y = batch(12), np.arange(12) % 4
    start = pooled(residual(), extra=4)
    before = everything(start)
    done = fitted(start, (x, y), epochs=2, train=train, validation=(x[:7], y[:7]))
    assert everything(start) == before
    changed = {
        new.name
        for new, old in zip(done.network.layers, start.layers, strict=True)
        if any((a != b).any() for a, b in zip(new.get_weights(), old.get_weights(), strict=True))
    }
    assert changed == {"conv", "linear"} | ({"body"} if train == "all" else set())
    share = (numbers(done.network(x[:7])).argmax(1) == y[:7]).mean()
    assert done.epochs[-1].validation == pytest.approx(share)


def test_what_is_frozen_stays():
    model = sequential()
    model.get_layer("conv1").trainable = False
    start = pooled(model)
    done = fitted(start, (batch(4), np.arange(4)), train="all", epochs=1).network
    for name, same in (("conv1", True), ("conv2", False)):
        old, new = (n.get_layer("body").get_layer(name).get_weights()[0] for n in (start, done))
        assert np.array_equal(old, new) == same


@pytest.mark.parametrize("make", [sequential, lambda: pooled(sequential())])
def test_a_training_with_dropout_can_be_repeated(make):
    model = make()
    x, y = batch(16), np.arange(16) % 4
    runs = []
    for seed in (1, 1, 2):
        random.random()  # whatever was drawn before
        runs.append(fitted(model, (x, y), train="all", epochs=2, seed=seed))
    assert runs[0].epochs == runs[1].epochs != runs[2].epochs
    for a, b in zip(*(run.network.get_weights() for run in runs[:2]), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("make", [sequential, residual, nested])
def test_the_users_model_is_as_it_was(make):
    model, x, y = make(), batch(6), np.arange(6) % 4
    model(x)
    before = everything(model)
    made = pooled(model, extra=3, start="least-squares", data=(x, y))
    fitted(model, (x, y), train="all", epochs=1, batch_size=3)
    with pytest.raises(UnsupportedModelError, match="no head of ours"):
        fitted(model, (x, y), train="head")
    assert everything(model) == before
    own = {id(variable) for variable in model.variables}
    assert own.isdisjoint(id(variable) for variable in made.variables)


class Own(keras.Model):
    """A model by subclassing."""

    def __init__(self):
        super().__init__()
        self.conv = layers.Conv2D(4, 3)
        self.head = layers.Dense(4)

    def call(self, x):
        return self.head(keras.ops.mean(self.conv(x), (1, 2)))


def test_models_that_cannot_be_cut_are_refused():
    own = Own()
    own(batch())
    with pytest.raises(UnsupportedModelError, match="cannot be copied"):
        pooled(own, data=batch())
    given = keras.Input(SHAPE)
    inner = keras.Sequential([given, layers.Conv2D(3, 3, padding="same", name="conv")], name="two")
    twice = keras.Model(given, layers.Dense(4)(layers.Flatten()(inner(inner(given)))))
    with pytest.raises(UnsupportedModelError, match="'two' is called 2 times"):
        pooled(twice, layer="two/conv@1")
    ended = keras.Sequential([sequential(), layers.Softmax()])
    with pytest.raises(UnsupportedModelError, match="something else than scores"):
        fitted(ended, (batch(4), np.arange(4)), train="all")
    with pytest.raises(ParameterError, match="without data"):
        pooled(sequential(), start="least-squares")
    with pytest.raises(ArrayError, match="expected"):
        pooled(sequential(), data=batch()[:, :6])


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_a_saved_copy_is_the_same(tmp_path):
    made, x = pooled(nested(), extra=4), batch()
    made.save(tmp_path / "net.keras")
    again = keras.saving.load_model(tmp_path / "net.keras")
    np.testing.assert_array_equal(numbers(again(x)), numbers(made(x)))


def test_double_precision_stays():
    made = pooled(build(plain(), dtype="float64"))
    assert {variable.dtype for variable in made.weights} == {"float64"}
