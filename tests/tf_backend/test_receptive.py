"""Receptive fields of TensorFlow networks: published numbers, and gradients as the oracle."""

from __future__ import annotations

from itertools import product

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as L

from cnnviz_core.model import OUTPUT
from cnnviz_core.receptive import input_convolutions, receptive_field, receptive_fields
from cnnviz_core.testing.fields import assert_same_field, boxes_by_gradients
from cnnviz_tf.model import wrap


def inception(x):
    branches = [
        L.Conv2D(3, 1)(x),
        L.Conv2D(3, (1, 5), padding="same")(x),
        L.Conv2D(3, 3, padding="same")(L.Conv2D(3, 2, padding="same")(x)),
        L.AveragePooling2D(3, 1, padding="same")(x),
    ]
    return L.Concatenate()(branches)


def u_net(x):
    a = L.Conv2D(3, 3, padding="same", activation="tanh")(x)
    b = L.Conv2D(4, 3, padding="same", activation="tanh")(L.AveragePooling2D(3)(a))
    return L.Conv2D(2, 3)(L.Concatenate()([a, L.UpSampling2D(3)(b)]))


def excitation(x):
    y = L.Conv2D(4, 3)(x)
    gate = L.Dense(4, activation="sigmoid")(L.GlobalAveragePooling2D(keepdims=True)(y))
    return L.Multiply()([y, gate])


def residual(x):
    y = L.Conv2D(2, 3, padding="same", activation="tanh")(x)
    return L.Add()([x, L.Conv2D(2, 3, padding="same")(y)])


def attention(x):
    y = L.Reshape((9, 5))(L.Conv2D(5, 4, strides=4)(x))
    return L.Reshape((3, 3, 5))(L.Add()([y, L.MultiHeadAttention(2, 3)(y, y)]))


def patches(x):
    y = L.Dense(4)(L.LayerNormalization()(L.Reshape((9, 5))(L.Conv2D(5, 4, strides=4)(x))))
    return L.Reshape((3, 3, 4))(y)


class Crop(L.Layer):
    """Square brackets of Python."""

    def call(self, x):
        y = x[:, 1:, 2:-1, :]
        return tf.concat([y[:, ::2], y[:, 1::2, ..., tf.newaxis, :][:, :, :, 0]], axis=1)


class Pads(L.Layer):
    """Paddings by what lies on this side of the border."""

    def call(self, x):
        y = tf.pad(x, [[0, 0], [2, 1], [0, 3], [0, 0]], mode="REFLECT")
        return tf.pad(y, [[0, 0], [2, 0], [1, 1], [0, 0]], mode="SYMMETRIC")


class Resized(L.Layer):
    """A resizing of TensorFlow."""

    def __init__(self, size, method, **how):
        super().__init__()
        self.size, self.method, self.how = size, method, how

    def call(self, x):
        operation = getattr(tf.raw_ops, f"Resize{self.method}")
        return operation(images=x, size=self.size, **self.how)


class Folded(L.Layer):
    """Channels made of places."""

    def call(self, x):
        return tf.nn.space_to_depth(x, 2)


class Unfolded(L.Layer):
    """Places made of channels."""

    def call(self, x):
        return tf.nn.depth_to_space(x, 2)


def chain(*layers):
    def build(x):
        for layer in layers:
            x = layer(x)
        return x

    return build


CASES = {
    "same padding is uneven": lambda: chain(
        L.Conv2D(3, 3, strides=2, padding="same"), L.AveragePooling2D(2, 2, padding="same")
    ),
    "even kernels": lambda: chain(L.Conv2D(3, (4, 2), padding="same"), L.Conv2D(2, 2)),
    "dilated": lambda: chain(
        L.Conv2D(3, 3, dilation_rate=2, padding="same"), L.Conv2D(3, (1, 2), dilation_rate=(1, 3))
    ),
    "depthwise": lambda: chain(
        L.DepthwiseConv2D(3, strides=2, padding="same"),
        L.SeparableConv2D(3, 2),
        L.DepthwiseConv2D(2, dilation_rate=2),
    ),
    "transposed": lambda: chain(
        L.Conv2D(3, 3, strides=2, padding="same"),
        L.Conv2DTranspose(2, 3, strides=2, padding="same"),
        L.Conv2DTranspose(2, 2),
    ),
    "padding and cropping": lambda: chain(
        L.ZeroPadding2D(((1, 2), (0, 3))), L.Conv2D(2, 3), L.Cropping2D(((1, 0), (2, 1)))
    ),
    "enlarged": lambda: chain(
        L.Conv2D(3, 3, strides=2), L.UpSampling2D((2, 3)), L.Conv2D(2, 2), L.BatchNormalization()
    ),
    "enlarged, bilinear": lambda: chain(
        L.Conv2D(3, 3, strides=3), L.UpSampling2D(2, interpolation="bilinear"), L.Conv2D(2, 2)
    ),
    "bilinear, corners": lambda: chain(
        L.Conv2D(3, 3), Resized((7, 13), "Bilinear", align_corners=True)
    ),
    "bilinear, as it was": lambda: chain(L.Conv2D(3, 3), Resized((7, 13), "Bilinear")),
    "nearest, corners": lambda: chain(
        L.Conv2D(3, 3), Resized((7, 13), "NearestNeighbor", align_corners=True)
    ),
    "nearest, middles": lambda: chain(
        L.Conv2D(3, 3), Resized((7, 13), "NearestNeighbor", half_pixel_centers=True)
    ),
    "bicubic": lambda: chain(
        L.Conv2D(3, 3, strides=2), Resized((9, 7), "Bicubic", half_pixel_centers=True)
    ),
    "crops": lambda: chain(L.Conv2D(3, 2), Crop(), L.Conv2D(2, (1, 2))),
    "pads": lambda: chain(L.Conv2D(3, 2), Pads(), L.Conv2D(2, 2)),
    "blocks": lambda: chain(Folded(), L.Conv2D(8, 1), Unfolded(), L.Conv2D(2, 2)),
    "norms": lambda: chain(
        L.Conv2D(4, 3), L.LayerNormalization(), L.PReLU(), L.Dense(3), L.Activation("gelu")
    ),
    "group norm": lambda: chain(L.Conv2D(4, 3, strides=2), L.GroupNormalization(2)),
    "thresholds": lambda: chain(L.Conv2D(3, 3), L.ReLU(threshold=0.1), L.ReLU(6.0, 0.1, 0.5)),
    "residual": lambda: residual,
    "inception": lambda: chain(inception, L.Conv2D(2, 2)),
    "u-net": lambda: u_net,
    "excitation": lambda: excitation,
    "patches": lambda: patches,
    "attention": lambda: attention,
}
"""Networks on pictures of 12 by 12 with two channels."""


def model_of(build, shape=(12, 12, 2)):
    inputs = keras.Input(shape)
    net = keras.Model(inputs, build(inputs))
    rng = np.random.default_rng(0)
    net.set_weights([np.abs(w) + rng.normal(size=w.shape) * 0.3 for w in net.get_weights()])
    return wrap(net)


@pytest.mark.parametrize("name", CASES)
def test_every_position_sees_where_its_gradients_are(name):
    model = model_of(CASES[name]())
    field = receptive_field(model, OUTPUT)
    assert field.exact
    draws = 30 if name == "thresholds" else 2
    x = np.random.default_rng(0).normal(size=(draws, 12, 12, 2)).astype(np.float32)
    positions = list(product(*map(range, field.grid)))
    found = boxes_by_gradients(model, x, OUTPUT, positions)
    assert found == [field.box(position) for position in positions]


@pytest.mark.parametrize(
    "build",
    [
        lambda: chain(
            L.Conv1D(3, 3, dilation_rate=2, padding="same"),
            L.AveragePooling1D(2),
            L.Conv1DTranspose(2, 3, strides=2),
            L.UpSampling1D(2),
            L.Conv1D(2, 4, strides=3, padding="causal"),
        ),
    ],
)
def test_signals(build):
    model = model_of(build(), (30, 2))
    field = receptive_field(model, OUTPUT)
    assert field.exact
    x = np.random.default_rng(0).normal(size=(2, 30, 2)).astype(np.float32)
    positions = [(k,) for k in range(field.grid[0])]
    assert boxes_by_gradients(model, x, OUTPUT, positions) == [field.box(p) for p in positions]


def test_volumes():
    layers = chain(L.Conv3D(3, (1, 2, 3)), L.AveragePooling3D((2, 1, 2)), L.Conv3DTranspose(2, 2))
    model = model_of(layers, (6, 5, 8, 2))
    field = receptive_field(model, OUTPUT)
    assert field.exact
    assert field.size == (4, 3, 6)
    x = np.random.default_rng(0).normal(size=(2, 6, 5, 8, 2)).astype(np.float32)
    positions = list(product(*map(range, field.grid)))
    assert boxes_by_gradients(model, x, OUTPUT, positions) == [field.box(p) for p in positions]


def test_operations_that_are_not_understood_are_named_and_leave_no_pixel_out():
    class Flipped(L.Layer):
        def call(self, x):
            return tf.reverse(x, [2])

    model = model_of(chain(L.Conv2D(3, 3, name="a"), Flipped(), L.Conv2D(3, 3, name="b")))
    before, behind = receptive_fields(model, ["a", "b"])
    assert before.exact
    assert behind.whole
    assert behind.through == ("ReverseV2",)


def test_sizes_are_those_of_the_input():
    model = model_of(chain(L.Conv2D(3, 3, strides=2, padding="same", name="conv")), (None, None, 2))
    odd = receptive_field(model, "conv", np.zeros((3, 21, 30, 2), np.float32))
    assert odd.pixels == (21, 30)
    assert odd.start == (-1, 0)
    even = receptive_field(model, "conv", np.zeros((1, 30, 21, 2), np.float32))
    assert even.start == (0, -1)


def test_saved_models_tell_as_keras_does(tmp_path):
    inputs = keras.Input((12, 12, 2))
    y = L.MaxPooling2D(2)(L.Conv2D(3, 3, activation="swish")(inputs))
    net = keras.Model(inputs, L.Conv2D(3, 2, dilation_rate=2)(y))
    net.export(tmp_path / "net", verbose=False)
    saved, own = wrap(tf.saved_model.load(str(tmp_path / "net"))), wrap(net)
    assert_same_field(receptive_field(saved, OUTPUT), receptive_field(own, OUTPUT))


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (
            lambda: chain(L.Rescaling(2.0), L.Conv2D(3, 3, name="a"), L.Conv2D(3, 1, name="b")),
            ["a"],
        ),
        (lambda: chain(L.ZeroPadding2D(1), L.Conv2D(3, 3, strides=2, name="a")), ["a"]),
        (lambda: chain(L.Conv2D(3, 3, dilation_rate=2, name="a"), L.Activation("relu")), ["a"]),
        (lambda: chain(L.AveragePooling2D(2), L.Conv2D(3, 3, name="a")), []),
        (lambda: chain(Folded(), L.Conv2D(3, 3, name="a")), []),
    ],
)
def test_convolutions_of_the_picture(build, expected):
    assert [info.name for info in input_convolutions(model_of(build()))] == expected


PUBLISHED = [
    # Araujo et al. (Distill 2019), and for ResNet-50 and VGG the usual tables.
    ("VGG16", "block5_conv3", 196, 16),
    ("VGG16", "block5_pool", 212, 32),
    ("MobileNet", "conv_pw_13_relu", 315, 32),
    ("ResNet50", "conv1_conv", 7, 2),
    ("ResNet50", "conv5_block3_out", 483, 32),
    ("InceptionV3", "mixed10", 1311, 32),
]


@pytest.mark.slow
@pytest.mark.parametrize(("network", "layer", "size", "stride"), PUBLISHED)
def test_published_fields(network, layer, size, stride):
    model = wrap(getattr(keras.applications, network)(weights=None))
    field = receptive_field(model, layer)
    assert (field.size, field.stride) == ((size, size), (stride, stride))
    assert field.exact
    assert len(input_convolutions(model)) == 1
