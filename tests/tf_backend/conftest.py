"""What the tests of the TensorFlow backend share: a quiet start, and oracles in eager mode."""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

from collections.abc import Callable, Iterator

import keras
import numpy as np
import pytest
import tensorflow as tf


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    """Give every test the same random weights, and Keras' names from their beginning."""
    keras.utils.set_random_seed(0)
    yield
    keras.backend.clear_session()


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def _rectifier(derivative: Callable, forward: Callable, rule: str) -> Callable:
    """A rectifier whose backward step is the rule's, for GradientTape."""

    @tf.custom_gradient
    def rectify(x):
        def backward(g):
            gated = g if rule == "deconvnet" else g * tf.cast(derivative(x), g.dtype)
            return gated if rule == "standard" else tf.maximum(gated, 0)

        return forward(x), backward

    return rectify


@pytest.fixture
def eager_gradient(monkeypatch: pytest.MonkeyPatch) -> Callable:
    """Gradients by ``GradientTape``, with TensorFlow's rectifiers replaced where there is a rule.

    This is the independent oracle of the backend: no graph, no registered gradients.
    """
    relu, relu6, leaky = tf.nn.relu, tf.nn.relu6, tf.nn.leaky_relu

    def gradient(native, x, pick=lambda y: y, rule="standard", weights=None):
        if rule != "standard":
            monkeypatch.setattr(tf.nn, "relu", _rectifier(lambda x: x > 0, relu, rule))
            monkeypatch.setattr(
                tf.nn, "relu6", _rectifier(lambda x: (x > 0) & (x < 6), relu6, rule)
            )
            monkeypatch.setattr(
                tf.nn,
                "leaky_relu",
                lambda x, alpha=0.2, name=None: _rectifier(
                    lambda x: tf.where(x > 0, 1.0, alpha), lambda x: leaky(x, alpha), rule
                )(x),
            )
        tensor = tf.constant(x)
        with tf.GradientTape() as tape:
            tape.watch(tensor)
            value = pick(native(tensor, training=False))
            total = tf.reduce_sum(value if weights is None else value * weights)
        result = tape.gradient(total, tensor).numpy()
        monkeypatch.undo()
        return result

    return gradient
