"""A layer is said to be affine where the gradient tells what any step does to the logits."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import cnnviz_tf.trace
from cnnviz_core.registry import get_registry
from cnnviz_core.targets import ClassScore, Contrast
from cnnviz_tf.inline import InliningError
from cnnviz_tf.model import wrap

L = keras.layers


class Net(keras.Model):
    """A stem and what a test puts behind it."""

    def __init__(self, behind, dtype="float64"):
        super().__init__(dtype=dtype)
        self.stem = L.Conv2D(4, 3, name="stem", dtype=dtype)
        self.conv = L.Conv2D(4, 3, padding="same", groups=2, dtype=dtype)
        self.depth = L.DepthwiseConv2D(3, dtype=dtype)
        self.up = L.Conv2DTranspose(4, 3, dtype=dtype)
        self.norm = L.BatchNormalization(
            moving_mean_initializer="normal", moving_variance_initializer="ones", dtype=dtype
        )
        self.drop = L.Dropout(0.5, dtype=dtype)
        self.fc = L.Dense(3, bias_initializer="normal", dtype=dtype)
        self.wide = L.Dense(3, bias_initializer="normal", dtype=dtype)
        self.weight = self.add_weight(shape=(4, 3), initializer="normal", name="weight")
        self.behind = behind

    def build(self, shape):
        self.stem.build(shape)
        for layer in (self.conv, self.depth, self.up, self.norm):
            layer.build((None, 5, 5, 4))
        self.fc.build((None, 4))
        self.wide.build((None, 100))

    def call(self, x):
        return self.behind(self, self.stem(x))

    def head(self, y):
        return self.fc(tf.reduce_mean(y, (1, 2)))


@tf.custom_gradient
def turned(x):
    return 2 * x, lambda gradient: -gradient


@tf.RegisterGradient("cnnviz.tests.Turned")
def _turned(op, gradient):
    return [-tf.broadcast_to(gradient[:, None, None], tf.shape(op.inputs[0])), None]


def overridden(y):
    names = {"Mean": "cnnviz.tests.Turned"}
    with tf.compat.v1.get_default_graph().gradient_override_map(names):
        return tf.reduce_mean(y, (1, 2))


def flat(y):
    return tf.reshape(y, [tf.shape(y)[0], 5 * 5 * 4])


def weight_of(y):
    return tf.transpose(tf.repeat(y[:1, :3, :3], 4, 0), (1, 2, 3, 0))


def fused(y, training):
    channel = tf.constant([0.5, 1, 1.5, 2])
    given = [] if training else channel
    return tf.raw_ops.FusedBatchNormV3(
        x=y, scale=channel, offset=channel, mean=given, variance=given, is_training=training
    ).y


AFFINE = {
    "mean": lambda net, y: net.head(y),
    "softmax": lambda net, y: tf.nn.softmax(net.head(y)),
    "sigmoid": lambda net, y: tf.nn.sigmoid(net.head(y)),
    "keras": lambda net, y: net.fc(L.GlobalAveragePooling2D(dtype="float64")(y)),
    "flattened": lambda net, y: net.wide(flat(y)),
    "flattened as another": lambda net, y: net.wide(
        tf.reshape(y, [tf.shape(tf.nn.relu(y))[0], 5 * 5 * 4])
    ),
    "flattened by keras": lambda net, y: net.wide(L.Flatten(dtype="float64")(y)),
    "average": lambda net, y: net.head(tf.nn.avg_pool2d(y, 2, 2, "SAME")),
    "normalised": lambda net, y: net.head(net.norm(y)),
    "convolved": lambda net, y: net.head(net.conv(y) * 3 - y / 2),
    "depthwise": lambda net, y: net.head(net.depth(y)),
    "transposed": lambda net, y: net.head(net.up(y)),
    "padded": lambda net, y: net.head(tf.pad(y, [[0, 0], [1, 2], [0, 1], [0, 0]], "REFLECT")),
    "dropped": lambda net, y: net.head(net.drop(y)),
    "joined": lambda net, y: net.head(tf.concat([y[..., 2:], y[..., :2] * 2], -1)),
    "stacked": lambda net, y: net.head(tf.add_n(tf.unstack(tf.stack([y, 2 * y, -y])))),
    "product": lambda net, y: tf.reduce_mean(y, (1, 2)) @ net.weight,
    "contracted": lambda net, y: tf.einsum("nhwc,co->no", y, net.weight),
    "times what it is held to": lambda net, y: net.head(y * tf.ones_like(y)),
    "asserted": lambda net, y: net.head(tf.debugging.assert_all_finite(y, "finite")),
}
OTHERS = {
    "relu": lambda net, y: net.head(tf.nn.relu(y)),
    "relu in one of two ways": lambda net, y: net.head(tf.nn.relu(net.conv(y)) + y),
    "max pool": lambda net, y: net.head(tf.nn.max_pool2d(y, 2, 2, "VALID")),
    "maximum": lambda net, y: net.fc(tf.reduce_max(y, (1, 2))),
    "square": lambda net, y: net.head(y * y),
    "ratio": lambda net, y: net.head(y / (1 + tf.reduce_sum(y))),
    "gate": lambda net, y: net.head(y * tf.nn.sigmoid(tf.reduce_mean(y, (1, 2), keepdims=True))),
    "attention": lambda net, y: net.fc(tf.einsum("nhwc,nhwd->nc", y, y)),
    "batch norm of the batch": lambda net, y: net.head(net.norm(y, training=True)),
    "detached": lambda net, y: net.head(y + tf.stop_gradient(y)),
    "turned": lambda net, y: net.head(turned(y)),
    "overridden": lambda net, y: net.fc(overridden(y)),
    "rounded": lambda net, y: net.head(tf.cast(tf.cast(y, tf.float32), tf.float64)),
    "weight": lambda net, y: net.head(tf.nn.conv2d(y, weight_of(y), 1, "SAME")),
    "place": lambda net, y: net.head(tf.roll(y, tf.cast(tf.reduce_sum(y), tf.int32), 1)),
    "choice": lambda net, y: net.head(tf.where(y > 0, y, 2 * y)),
    "condition": lambda net, y: (
        net.head(y) + tf.cond(tf.reduce_sum(y) > 0, lambda: np.float64(1), lambda: np.float64(2))
    ),
    "loop": lambda net, y: net.head(
        tf.while_loop(lambda i, z: i < 2, lambda i, z: (i + 1, z * 2), (0, y))[1]
    ),
    "dropped by chance": lambda net, y: net.head(net.drop(y, training=True)),
    "scaled by chance": lambda net, y: net.head(y * tf.random.uniform((), dtype=y.dtype)),
}


def model_of(behind, dtype="float64", **how):
    net = Net(behind, dtype)
    net.build((None, 7, 7, 3))
    return wrap(net, input_shape=(7, 7, 3), **how)


def is_affine(behind, dtype="float64", **how):
    return model_of(behind, dtype, **how).layers["stem"].affine


def steps_and_slopes(model, layer):
    """Give what a large step does to a weighted sum of the logits, and what the gradient says."""
    random = np.random.default_rng(0)
    x = random.normal(size=(2, 7, 7, 3))
    clean = model.forward(x, capture=(layer,))
    step = 10 * random.normal(size=clean[layer].shape)
    weights = random.normal(size=clean.logits.shape)
    slope = model.pullback(x, weights, wrt=(layer,)).gradients[layer]
    moved = model.forward(x, replace={layer: clean[layer] + step}).logits
    return (weights * (moved - clean.logits)).sum(), (slope * step).sum()


@pytest.mark.parametrize("name", AFFINE)
def test_a_layer_is_affine_and_the_gradient_gives_any_step(name):
    model = model_of(AFFINE[name])
    assert model.layers["stem"].affine
    found, expected = steps_and_slopes(model, "stem")
    assert np.isclose(found, expected, rtol=1e-10)


@pytest.mark.parametrize("name", OTHERS)
def test_others_are_not(name):
    assert not is_affine(OTHERS[name])


@pytest.mark.parametrize("training", [False, True])
def test_the_fused_batch_norm_is_affine_in_inference_only(training):
    assert is_affine(lambda net, y: net.head(fused(y, training)), "float32") != training


def test_where_the_activation_counts_as_the_end_no_layer_is_affine():
    assert is_affine(AFFINE["softmax"])
    assert not is_affine(AFFINE["softmax"], activation="none")


def test_of_what_the_logits_do_not_depend_nothing_is_said():
    assert not is_affine(lambda net, y: net.head(tf.ones_like(y)))


def test_what_a_function_hides_is_not_known(monkeypatch):
    spec = tf.TensorSpec((None, 5, 5, 4), tf.float64)
    function = tf.function(lambda y: 2 * y).get_concrete_function(spec)
    assert is_affine(lambda net, y: net.head(function(y)))

    def fail(*_):
        raise InliningError("refused")

    monkeypatch.setattr(cnnviz_tf.trace, "flatten", fail)
    assert not is_affine(lambda net, y: net.head(function(y)))


def test_of_several_branches_only_those_are_affine_that_no_other_function_passes():
    x = keras.Input((7, 7, 3), dtype="float64")
    a = L.Conv2D(4, 3, name="a", dtype="float64")(x)
    b = L.ReLU(name="b", dtype="float64")(a)
    gate = L.Activation("sigmoid", name="gate", dtype="float64")(a)
    c = L.Multiply(name="c", dtype="float64")([b, gate])
    d = L.Dense(3, name="d", dtype="float64")(L.GlobalAveragePooling2D(dtype="float64")(c))
    model = wrap(keras.Model(x, L.Softmax(name="e", dtype="float64")(d)))
    told = {name for name, info in model.layers.items() if info.affine}
    assert told - {"global_average_pooling2d"} == {"b", "gate", "c", "d"}
    for name in told:
        np.testing.assert_allclose(*steps_and_slopes(model, name), rtol=1e-10)


def transformer():
    """A small one, with the scores of a class token."""
    x = keras.Input((7, 7, 3))
    tokens = L.Reshape((9, 8))(L.Conv2D(8, 2, 2, name="patches")(x))
    attended = L.MultiHeadAttention(2, 4, name="attention")(tokens, tokens)
    tokens = L.Add(name="add")([tokens, attended])
    tokens = L.LayerNormalization(name="norm")(tokens)
    return keras.Model(x, L.Dense(3, name="fc")(tokens[:, 0]))


def test_of_a_transformer_the_tokens_behind_the_last_norm_are_affine():
    layers = wrap(transformer()).layers
    assert layers["norm"].affine
    assert not any(layers[name].affine for name in ("patches", "attention", "add"))


def mobile(head):
    """A convolutional network with the end of MobileNetV2, or another one."""
    return keras.Sequential(
        [
            keras.Input((12, 10, 3)),
            L.Conv2D(6, 3, 2, use_bias=False),
            L.BatchNormalization(),
            L.ReLU(6),
            L.DepthwiseConv2D(3, padding="same", use_bias=False),
            L.Conv2D(16, 1, use_bias=False),
            L.BatchNormalization(),
            L.ReLU(6, name="last"),
            *head,
            L.Dense(5, activation="softmax", bias_initializer="normal"),
        ]
    )


HEADS = {
    "pooled": lambda: [L.GlobalAveragePooling2D(), L.Dropout(0.2)],
    "flattened": lambda: [L.Flatten(), L.Dropout(0.5)],
    "normalised": lambda: [L.BatchNormalization(), L.AveragePooling2D(2), L.Flatten()],
    "largest": lambda: [L.GlobalMaxPooling2D()],
    "hidden": lambda: [L.Flatten(), L.Dense(8, activation="relu")],
}


@pytest.mark.parametrize("name", HEADS)
def test_ablation_by_the_gradient_is_ablation_by_passes(name, rng, monkeypatch):
    model = wrap(mobile(HEADS[name]()))
    assert model.layers["last"].affine == (name not in ("largest", "hidden"))
    x = rng.random((3, 12, 10, 3), np.float32)
    targets = [ClassScore(1), ClassScore(4), Contrast(2, 0)]
    explainer = get_registry().explainer("ablation-cam", layer="last")
    found = explainer.explain(model, x, targets)
    monkeypatch.setenv("CNNVIZ_FAST", "0")
    asked = explainer.explain(model, x, targets)
    size = np.abs(asked.raw).max()
    np.testing.assert_allclose(found.raw, asked.raw, rtol=0, atol=1e-6 * max(size, 1))
    np.testing.assert_allclose(found.extras["weights"], asked.extras["weights"], atol=1e-6)
