"""Scores are found before the final softmax or sigmoid, whatever hands its result on."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from cnnviz_core.model import INPUT, LOGITS, OUTPUT
from cnnviz_tf.model import wrap

L = keras.layers
SOFTMAX = {
    "dense": lambda: [L.Dense(4, activation="softmax", name="head")],
    "layer": lambda: [L.Dense(4, name="head"), L.Softmax()],
    "activation": lambda: [L.Dense(4, name="head"), L.Activation("softmax")],
    "function": lambda: [L.Dense(4, name="head"), L.Lambda(tf.nn.softmax)],
    "log": lambda: [L.Dense(4, activation="log_softmax", name="head")],
    "ops": lambda: [L.Dense(4, name="head"), L.Lambda(keras.ops.softmax)],
    "dropout after": lambda: [L.Dense(4, activation="softmax", name="head"), L.Dropout(0.5)],
    "reshaped": lambda: [L.Dense(4, activation="softmax", name="head"), L.Reshape((2, 2))],
    "single": lambda: [L.Dense(4, name="head"), L.Activation("softmax", dtype="float32")],
}
SIGMOID = {
    "dense": lambda: [L.Dense(4, activation="sigmoid", name="head")],
    "layer": lambda: [L.Dense(4, name="head"), L.Activation("sigmoid")],
    "function": lambda: [L.Dense(4, name="head"), L.Lambda(tf.sigmoid)],
}


def network(head):
    return keras.Sequential([keras.Input((6,)), L.Dense(5, activation="relu"), *head()])


def scores(native, x):
    """What the head's kernel and bias give, by hand."""
    first = native.layers[0]
    hidden = np.maximum(x @ first.kernel.numpy() + first.bias.numpy(), 0)
    head = native.get_layer("head")
    return hidden @ head.kernel.numpy() + head.bias.numpy()


@pytest.mark.parametrize(
    ("kind", "head"),
    [*(("softmax", h) for h in SOFTMAX.values()), *(("sigmoid", h) for h in SIGMOID.values())],
)
@pytest.mark.parametrize("exported", [False, True])
def test_scores_before_the_head(kind, head, exported, rng, tmp_path):
    native = network(head)
    x = rng.normal(size=(3, 6)).astype(np.float32)
    target = native
    if exported:
        native.export(tmp_path, verbose=False)
        target = tf.saved_model.load(str(tmp_path))
    model = wrap(target)
    trace = model.forward(x)
    assert model.activation == kind
    np.testing.assert_allclose(trace.logits, scores(native, x), atol=1e-5)
    np.testing.assert_allclose(trace.output, native(x).numpy(), atol=1e-6)
    back = model.pullback(x, np.ones_like)
    np.testing.assert_array_equal(back.values[LOGITS], trace.logits)
    head_kernel, first = native.get_layer("head").kernel.numpy(), native.layers[0]
    hidden = x @ first.kernel.numpy() + first.bias.numpy()
    expected = (head_kernel.sum(1) * (hidden > 0)) @ first.kernel.numpy().T
    np.testing.assert_allclose(back.gradients[INPUT], expected, atol=1e-5)


def test_a_softmax_over_positions_of_a_map(rng):
    native = keras.Sequential(
        [keras.Input((6, 5, 3)), L.Conv2D(4, 3, name="conv"), L.Softmax(axis=-1)]
    )
    x = rng.normal(size=(2, 6, 5, 3)).astype(np.float32)
    trace = wrap(native).forward(x, capture=["conv"])
    np.testing.assert_array_equal(trace.logits, trace["conv"])


def test_raw_scores_are_their_own_logits(rng):
    native = network(lambda: [L.Dense(4, name="head")])
    x = rng.normal(size=(3, 6)).astype(np.float32)
    model = wrap(native)
    trace = model.forward(x)
    assert model.activation == "softmax"
    np.testing.assert_array_equal(trace.logits, trace.output)


def test_a_softmax_inside_the_network_is_none_of_the_heads(rng):
    native = network(lambda: [L.Dense(4, activation="softmax"), L.Dense(4, name="head")])
    trace = wrap(native).forward(rng.normal(size=(3, 6)))
    np.testing.assert_array_equal(trace.logits, trace.output)


def test_the_activation_can_be_said(rng):
    native = network(SOFTMAX["dense"])
    x = rng.normal(size=(3, 6)).astype(np.float32)
    raw = wrap(native, activation="none")
    assert raw.activation == "none"
    np.testing.assert_array_equal(raw.forward(x).logits, raw.forward(x).output)
    said = wrap(native, activation="softmax")
    np.testing.assert_allclose(said.forward(x).logits, scores(native, x), atol=1e-5)
    plain = wrap(network(lambda: [L.Dense(4)]), activation="sigmoid")
    assert plain.activation == "sigmoid"
    assert set(plain.forward(x).values) == {LOGITS, OUTPUT}
