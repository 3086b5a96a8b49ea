"""Arrays come in canonical names and layouts, proved by computing with them."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from scipy.signal import correlate2d

from cnnviz_core.errors import UnknownLayerError
from cnnviz_tf.model import wrap

L = keras.layers


def by_hand(x, weight, bias, groups):
    """A valid convolution of one sample with a kernel (kh, kw, C_in / groups, C_out)."""
    inner, filters = weight.shape[2:]
    per_group = filters // groups
    return np.stack(
        [
            bias[o]
            + sum(
                correlate2d(x[..., (o // per_group) * inner + i], weight[..., i, o], mode="valid")
                for i in range(inner)
            )
            for o in range(filters)
        ],
        -1,
    )


@pytest.mark.parametrize(
    ("layer", "groups"),
    [
        (lambda: L.Conv2D(6, (3, 2), bias_initializer="ones", name="conv"), 1),
        (lambda: L.Conv2D(6, 3, groups=2, bias_initializer="ones", name="conv"), 2),
        (lambda: L.DepthwiseConv2D(3, bias_initializer="ones", name="conv"), 4),
        (lambda: L.DepthwiseConv2D((2, 3), depth_multiplier=3, name="conv"), 4),
    ],
)
def test_convolutions(layer, groups, rng):
    net = keras.Sequential([keras.Input((7, 6, 4)), layer()])
    x = rng.normal(size=(1, 7, 6, 4)).astype(np.float32)
    model = wrap(net)
    arrays = model.parameters("conv")
    assert set(arrays) == {"weight", "bias"}
    expected = by_hand(x[0], arrays["weight"], arrays["bias"], groups)
    np.testing.assert_allclose(model.forward(x).output[0], expected, atol=1e-5)


def test_transposed_convolution(rng):
    net = keras.Sequential([keras.Input((4, 4, 2)), L.Conv2DTranspose(5, 3, name="up")])
    weight = wrap(net).parameters("up")["weight"]
    assert weight.shape == (3, 3, 2, 5)
    x = np.zeros((1, 4, 4, 2), np.float32)
    x[0, 0, 0, 1] = 1
    np.testing.assert_allclose(net(x).numpy()[0, :3, :3], weight[:, :, 1], atol=1e-6)


def test_linear_and_norm(rng):
    net = keras.Sequential(
        [
            keras.Input((6,)),
            L.Dense(4, use_bias=False, name="linear"),
            L.BatchNormalization(center=False, scale=False, epsilon=1e-3, name="norm"),
            L.LayerNormalization(name="layer_norm"),
            L.ReLU(name="relu"),
        ]
    )
    model = wrap(net)
    assert {k: v.shape for k, v in model.parameters("linear").items()} == {"weight": (6, 4)}
    norm = model.parameters("norm")
    assert {k: v.shape for k, v in norm.items()} == dict.fromkeys(
        ("scale", "shift", "mean", "variance", "epsilon"), (4,)
    )
    x = rng.normal(size=(2, 6)).astype(np.float32)
    trace = model.forward(x, capture=["linear", "norm"])
    linear = trace["linear"]
    np.testing.assert_allclose(linear, x @ model.parameters("linear")["weight"], atol=1e-5)
    expected = norm["scale"] * (linear - norm["mean"]) / np.sqrt(norm["variance"] + norm["epsilon"])
    np.testing.assert_allclose(trace["norm"], expected + norm["shift"], atol=1e-5)
    assert set(model.parameters("layer_norm")) == {"scale", "shift"}
    assert model.parameters("relu") == {}


def test_a_container_does_not_give_its_layers_arrays():
    inner = keras.Sequential([keras.Input((6,)), L.Dense(4, name="dense")], name="inner")
    x = keras.Input((6,))
    model = wrap(keras.Model(x, L.Dense(2)(inner(inner(L.Dense(6)(x)) @ np.ones((4, 6))))))
    assert model.parameters("inner@0") == {}
    one, two = model.parameters("inner/dense"), model.parameters("inner/dense@1")
    np.testing.assert_array_equal(one["weight"], two["weight"])
    with pytest.raises(UnknownLayerError, match="inner/dense"):
        model.parameters("inner/dens")


def test_arrays_are_copies(rng):
    net = keras.Sequential([keras.Input((6,)), L.Dense(4, name="linear")])
    before = net.get_weights()
    for array in wrap(net).parameters("linear").values():
        array[...] = 7
    for now, old in zip(net.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, old)


def test_half_precision_arrays_come_in_single():
    net = keras.Sequential([keras.Input((6,)), L.Dense(4, dtype="bfloat16", name="linear")])
    assert wrap(net).parameters("linear")["weight"].dtype == np.float32
