"""Networks other than picture classifiers, against a GradientTape that knows nothing of cnnviz."""

from __future__ import annotations

from dataclasses import dataclass

import keras
import numpy as np
import pytest
import tensorflow as tf

from cnnviz_core.layers import on_grid
from cnnviz_core.model import INPUT, LOGITS, OUTPUT, input_node
from cnnviz_core.registry import get_registry
from cnnviz_core.rules import GUIDED
from cnnviz_core.targets import ClassScore, Contrast, Neuron, Segment, Similarity
from cnnviz_tf.model import wrap

L = keras.layers


def explain(method, model, x, targets, **params):
    return get_registry().explainer(method, **params).explain(model, x, targets)


def by_tape(native, layers, x, total):
    """Each layer's value and a score's gradient at it; then the gradient at the input."""
    inside = [native.get_layer(layer).output for layer in layers]
    part = keras.Model(native.inputs, [*inside, native.output])
    leaf = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(leaf)
        *values, output = part(leaf, training=False)
        score = total(output)
    *gradients, at_input = (g.numpy() for g in tape.gradient(score, [*values, leaf]))
    return {n: (v.numpy(), g) for n, v, g in zip(layers, values, gradients, strict=True)}, at_input


def same(actual, expected, rtol=1e-5):
    assert actual.shape == expected.shape
    assert np.abs(expected).max() > 0
    np.testing.assert_allclose(actual, expected, rtol=0, atol=rtol * np.abs(expected).max())


def check_grad_cam_and_saliency(native, layers, x, targets, total):
    """Compare both with the tape's gradients."""
    model = wrap(native)
    seen, at_input = by_tape(native, layers, x, total)
    for layer, (value, gradient) in seen.items():
        over = tuple(range(1, value.ndim - 1))
        maps = explain("grad-cam", model, x, targets, layer=layer)
        same(maps.raw, (gradient.mean(over, keepdims=True) * value).sum(-1))
    same(explain("saliency", model, x, targets).raw, at_input)
    return model, maps


def batch(rng, native, n=2):
    return rng.normal(size=(n, *native.input_shape[1:])).astype(np.float32)


# ---------------------------------------------------------------- signals and volumes


def signal():
    x = keras.Input((37, 2))
    y = L.Conv1D(6, 5, strides=2, padding="same", use_bias=False, name="stem")(x)
    y = L.ReLU(name="relu")(L.BatchNormalization(name="norm")(y))
    y = L.MaxPooling1D(3, 2, padding="same", name="pool")(y)
    y = L.Conv1D(8, 3, dilation_rate=2, padding="same", groups=2, name="conv")(y)
    y = L.DepthwiseConv1D(3, activation="relu", name="last")(y)
    return keras.Model(x, L.Dense(4, name="head")(L.GlobalAveragePooling1D()(y)))


def volume():
    x = keras.Input((6, 9, 7, 1))
    y = L.Conv3D(4, 3, strides=(1, 2, 2), padding="same", name="stem")(x)
    y = L.MaxPooling3D((2, 1, 2), name="pool")(L.BatchNormalization(name="norm")(y))
    y = L.ReLU(name="relu")(y)
    y = L.Conv3D(6, 2, dilation_rate=(1, 2, 1), padding="same", name="conv")(y)
    y = L.AveragePooling3D((1, 2, 1), name="average")(L.ReLU(name="last")(y))
    return keras.Model(x, L.Dense(4, name="head")(L.GlobalAveragePooling3D()(y)))


@pytest.mark.parametrize(
    ("make", "grids"),
    [
        (signal, {"stem": (19,), "pool": (10,), "conv": (10,), "last": (8,)}),
        (volume, {"stem": (6, 5, 4), "pool": (3, 5, 2), "conv": (3, 5, 2), "average": (3, 2, 2)}),
    ],
)
def test_signals_and_volumes(make, grids, rng, eager_gradient):
    native = make()
    x = batch(rng, native)
    layers = ["stem", "pool", "conv", "last"]
    model, _ = check_grad_cam_and_saliency(
        native, layers, x, [ClassScore(1)] * 2, lambda y: tf.reduce_sum(y[:, 1])
    )
    for layer, grid in grids.items():
        assert model.layers[layer].grid == grid
    assert model.layers["head"].grid is None
    assert explain("grad-cam", model, x, [ClassScore(0)] * 2).layer == "last"
    guided = model.pullback(x, np.ones_like, rule=GUIDED).gradients[INPUT]
    same(guided, eager_gradient(native, x, rule="guided"))


def test_cam_of_signals_averages_to_the_score(rng):
    native = signal()
    maps = explain("cam", wrap(native), batch(rng, native), [Contrast(0, 2)] * 2)
    assert maps.layer == "last"
    bias = native.get_layer("head").get_weights()[1]
    same(maps.raw.mean(1), maps.scores - bias[0] + bias[2])


@pytest.mark.parametrize(
    "layer",
    [
        lambda: L.Conv1D(12, 4, name="conv"),
        lambda: L.Conv1D(12, 4, groups=2, name="conv"),
        lambda: L.DepthwiseConv1D(4, depth_multiplier=2, name="conv"),
        lambda: L.Conv3D(12, (2, 1, 3), name="conv"),
    ],
)
def test_convolutions_of_any_rank_give_their_kernel_first(layer, rng):
    layer = layer()
    size = layer.kernel_size
    native = keras.Sequential([keras.Input((*size, 6)), layer])
    layer.bias.assign(rng.normal(size=12))
    arrays = wrap(native).parameters("conv")
    inner = arrays["weight"].shape[-2]
    assert arrays["weight"].shape == (*size, inner, 12)
    x = batch(rng, native, 1)
    expected = np.concatenate(
        [
            np.tensordot(x[0][..., g * inner : (g + 1) * inner], weight, axes=len(size) + 1)
            for g, weight in enumerate(np.split(arrays["weight"], 6 // inner, -1))
        ]
    )
    same(native(x).numpy().ravel(), expected + arrays["bias"])


# ---------------------------------------------------------------- vision transformers


class Prefix(keras.Layer):
    """Puts learnt tokens before those of the patches."""

    def __init__(self, number, **kwargs):
        super().__init__(**kwargs)
        self.number = number

    def build(self, shape):
        self.tokens = self.add_weight(
            shape=(1, self.number, shape[-1]), initializer="random_normal", name="tokens"
        )

    def call(self, x):
        return tf.concat([tf.repeat(self.tokens, tf.shape(x)[0], 0), x], 1)


class Position(keras.Layer):
    """Adds what says where a token is."""

    def build(self, shape):
        self.table = self.add_weight(
            shape=(1, *shape[1:]), initializer="random_normal", name="table"
        )

    def call(self, x):
        return x + self.table


def vit(prefix, pooled, size=(12, 20, 3), grid=(3, 5), dim=8):
    """A small vision transformer; on pictures, or on volumes."""
    x = keras.Input(size)
    conv = {3: L.Conv2D, 4: L.Conv3D}[len(size)]
    y = conv(dim, 4, 4, name="embed")(x)
    y = L.Reshape((-1, dim), name="flat")(y)
    y = Prefix(prefix, name="prefix")(y) if prefix else y
    y = Position(name="position")(y)
    for i in (1, 2):
        z = L.LayerNormalization(name=f"norm{i}")(y)
        y = L.Add(name=f"add{i}")([y, L.MultiHeadAttention(2, 4, name=f"attention{i}")(z, z)])
        z = L.LayerNormalization(name=f"mlp_norm{i}")(y)
        z = L.Dense(dim, name=f"out{i}")(L.Dense(12, activation="gelu", name=f"in{i}")(z))
        y = L.Add(name=f"mlp_add{i}")([y, z])
    y = L.LayerNormalization(name="norm")(y)
    y = L.GlobalAveragePooling1D()(y) if pooled else y[:, 0]
    return keras.Model(x, L.Dense(5, name="head")(y))


@pytest.mark.parametrize(
    ("prefix", "pooled", "size", "grid"),
    [
        (0, True, (12, 20, 3), (3, 5)),
        (1, False, (12, 20, 3), (3, 5)),
        (5, False, (12, 20, 3), (3, 5)),
        (1, True, (20, 8, 3), (5, 2)),
        (1, False, (8, 12, 16, 1), (2, 3, 4)),
    ],
)
def test_grad_cam_on_the_tokens_of_a_vision_transformer(prefix, pooled, size, grid, rng):
    native = vit(prefix, pooled, size, grid)
    model, x = wrap(native), batch(rng, native)
    layers = ["attention1", "in1", "norm2"]
    if pooled:  # else the score depends on nothing but the class token from the last attention on
        layers += ["attention2", "norm"]
    over = tuple(range(1, 1 + len(grid)))
    seen, _ = by_tape(native, layers, x, lambda y: tf.reduce_sum(y[:, 2]))
    for layer, (value, gradient) in seen.items():
        info = model.layers[layer]
        assert (info.grid, info.prefix) == (grid, prefix), layer
        value, gradient = (a[:, prefix:].reshape(2, *grid, -1) for a in (value, gradient))
        back = model.pullback(x, lambda v: np.eye(5)[[2, 2]], wrt=[layer])
        same(on_grid(back.values[layer], info), value)
        same(on_grid(back.gradients[layer], info), gradient)
        expected = (gradient.mean(over, keepdims=True) * value).sum(-1)
        same(explain("grad-cam", model, x, [ClassScore(2)] * 2, layer=layer).raw, expected)
    assert model.layers["embed"].grid == grid
    assert model.layers["attention1"].kind == "attention"
    assert model.layers["head"].grid is None


# ---------------------------------------------------------------- dense and several outputs


def test_segmentation(rng):
    x = keras.Input((8, 12, 3))
    y = L.Conv2D(6, 3, 2, padding="same", activation="relu")(x)
    y = L.Conv2D(6, 3, padding="same", name="mid")(y)
    native = keras.Model(x, L.Conv2DTranspose(4, 2, 2, name="up")(L.ReLU()(y)))
    x = batch(rng, native)
    out = wrap(native).forward(x).logits
    assert out.shape == (2, 8, 12, 4)
    wins = out.argmax(-1) == 1
    assert 0 < wins.sum() < wins.size
    for target, regions in ((Segment(1), wins), (Segment(1, wins[0]), wins[[0, 0]])):
        model, maps = check_grad_cam_and_saliency(
            native,
            ["mid"],
            x,
            [target] * 2,
            lambda y, where=regions: tf.reduce_sum(y[..., 1] * where),
        )
        assert model.layers["up"].grid == (8, 12)
        expected = [o[r, 1].sum() for o, r in zip(out, regions, strict=True)]
        np.testing.assert_allclose(maps.scores, expected, rtol=1e-5)
        np.testing.assert_array_equal([t.mask for t in maps.targets], regions)


@dataclass(frozen=True)
class BoxScore:
    """How sure a detector is that a box holds a class: a target as a user writes one."""

    box: int
    label: int
    of: str = LOGITS

    def score(self, value):
        return float(value[self.box, 4 + self.label])

    def gradient(self, value):
        gradient = np.zeros_like(value)
        gradient[self.box, 4 + self.label] = 1
        return gradient

    def resolve(self, value):
        return self


def test_one_box_of_a_detector(rng):
    x = keras.Input((6, 8, 3))
    y = L.Activation("silu")(L.Conv2D(6, 3, 2, padding="same", name="conv")(x))
    native = keras.Model(x, L.Reshape((24, 7), name="boxes")(L.Conv2D(14, 1, name="head")(y)))
    x = batch(rng, native)
    model, maps = check_grad_cam_and_saliency(
        native, ["conv"], x, [BoxScore(5, 1), BoxScore(17, 2)], lambda y: y[0, 5, 5] + y[1, 17, 6]
    )
    out = native(x).numpy()
    same(model.forward(x).output, out)
    np.testing.assert_allclose(maps.scores, [out[0, 5, 5], out[1, 17, 6]], rtol=1e-5)
    assert model.layers["boxes"].grid is None


def test_one_step_of_a_sequence(rng):
    x = keras.Input((5, 12, 1))
    y = L.Conv2D(6, 3, padding="same", activation="relu", name="conv")(x)
    y = L.Lambda(lambda t: tf.reduce_mean(t, 1), output_shape=(12, 6))(y)
    y = L.Bidirectional(L.LSTM(5, return_sequences=True, unroll=True), name="lstm")(y)
    native = keras.Model(x, L.Dense(9, name="head")(y))
    x = batch(rng, native)
    model, maps = check_grad_cam_and_saliency(
        native,
        ["conv"],
        x,
        [Neuron(LOGITS, (7, 3))] * 2,
        lambda y: tf.reduce_sum(y[:, 7, 3]),
    )
    assert model.forward(x).logits.shape == (2, 12, 9)
    np.testing.assert_allclose(maps.scores, native(x).numpy()[:, 7, 3], rtol=1e-4)


def test_scores_for_each_step_of_a_signal(rng):
    x = keras.Input((37, 2))
    native = keras.Model(x, L.Dense(4, name="head")(L.Conv1D(6, 3, name="conv")(x)))
    model, _ = check_grad_cam_and_saliency(
        native,
        ["conv"],
        batch(rng, native),
        [Neuron(LOGITS, (7, 3))] * 2,
        lambda y: tf.reduce_sum(y[:, 7, 3]),
    )
    assert model.layers["head"].grid == (35,)


def test_an_embedding(rng):
    x = keras.Input((9, 7, 3))
    y = L.GlobalAveragePooling2D()(L.Conv2D(6, 3, activation="relu", name="conv")(x))
    native = keras.Model(x, L.UnitNormalization()(L.Dense(8)(y)))
    other = native(batch(rng, native, 1))[0]
    _, maps = check_grad_cam_and_saliency(
        native,
        ["conv"],
        batch(rng, native),
        [Similarity(other.numpy())] * 2,
        lambda y: -tf.reduce_sum(keras.losses.cosine_similarity(other[None], y)),
    )
    assert np.abs(maps.scores).max() < 1


# ---------------------------------------------------------------- several inputs


def joint():
    """A picture and a vector that says where to look."""
    image, vector = keras.Input((6, 8, 3), name="image"), keras.Input((4,), name="vector")
    y = L.Conv2D(6, 3, padding="same", activation="relu", name="conv")(image)
    gate = L.Dense(6, activation="sigmoid", name="gate")(vector)
    y = L.Multiply()([y, L.Reshape((1, 1, 6))(gate)])
    return keras.Model([image, vector], L.Dense(5)(L.GlobalAveragePooling2D()(y)))


@pytest.mark.parametrize("target", [ClassScore(3), Contrast(1, 4)])
def test_a_picture_and_a_vector(target, rng):
    native = joint()
    x = {
        "image": rng.normal(size=(2, 6, 8, 3)).astype(np.float32),
        "vector": rng.normal(size=(2, 4)).astype(np.float32),
    }
    model = wrap(native)
    outputs = [native.get_layer("conv").output, native.get_layer("gate").output, native.output]
    leaves = [tf.constant(a) for a in x.values()]
    with tf.GradientTape() as tape:
        tape.watch(leaves)
        conv, gate, y = keras.Model(native.inputs, outputs)(leaves)
        total = tf.reduce_sum(y * target.gradient(np.zeros(5, np.float32)))
    gradients = tape.gradient(total, [conv, gate, *leaves])
    nodes = ["conv", "gate", input_node("image"), input_node("vector")]
    back = model.pullback(
        x, lambda v: np.stack([target.gradient(row) for row in v]), of=target.of, wrt=nodes
    )
    for node, gradient in zip(nodes, gradients, strict=True):
        same(back.gradients[node], gradient.numpy())
    # Grad-CAM from the protocol's parts
    weights = back.gradients["conv"].mean((1, 2), keepdims=True)
    expected = (gradients[0].numpy().mean((1, 2), keepdims=True) * conv.numpy()).sum(-1)
    same((weights * back.values["conv"]).sum(-1), expected)


def test_the_first_of_several_inputs_is_the_input(rng):
    x = {"image": rng.normal(size=(2, 6, 8, 3)), "vector": np.ones((2, 4))}
    back = wrap(joint()).pullback(x, np.ones_like, of=OUTPUT, wrt=[INPUT, input_node("image")])
    np.testing.assert_array_equal(back.gradients[INPUT], back.gradients[input_node("image")])
    assert back.gradients[INPUT].shape == (2, 6, 8, 3)
