"""Relevance methods on the architectures of keras.applications: what they hand down adds up."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain

import keras
import numpy as np
import pytest
from keras import layers as L

from cnnviz_core.model import Array, Model
from cnnviz_core.registry import get_registry
from cnnviz_core.targets import ClassScore
from cnnviz_relevance.composites import deep_taylor, excitation
from cnnviz_tf.model import wrap

pytestmark = pytest.mark.slow

CLASSES = 5


def squeezenet(input_shape, classes, weights):
    """Make SqueezeNet 1.1: fire modules, and a convolution of single positions as its head."""

    def conv(x, channels, size=1, stride=1):
        return L.Conv2D(channels, size, stride, padding="same", activation="relu")(x)

    def fire(x, channels):
        x = conv(x, channels)
        return L.Concatenate()([conv(x, 4 * channels), conv(x, 4 * channels, 3)])

    inputs = keras.Input(input_shape)
    x = L.MaxPooling2D(3, 2)(conv(inputs, 64, 3, 2))
    x = L.MaxPooling2D(3, 2)(fire(fire(x, 16), 16))
    x = L.MaxPooling2D(3, 2)(fire(fire(x, 32), 32))
    x = fire(fire(fire(fire(x, 48), 48), 64), 64)
    return keras.Model(inputs, L.GlobalAveragePooling2D()(conv(x, classes)), name="SqueezeNet")


PLUS, BOX, SIGNS = "epsilon-plus", "epsilon-gamma-box", "epsilon-alpha2-beta1-flat"
NETWORKS = {
    "VGG16": (keras.applications.VGG16, 64, (PLUS, BOX, SIGNS)),
    "ResNet50": (keras.applications.ResNet50, 64, (PLUS,)),
    "MobileNet": (keras.applications.MobileNet, 64, (PLUS, BOX)),
    "MobileNetV2": (keras.applications.MobileNetV2, 64, (PLUS,)),
    "DenseNet121": (keras.applications.DenseNet121, 64, (PLUS,)),
    "InceptionV3": (keras.applications.InceptionV3, 128, (PLUS,)),
    "SqueezeNet": (squeezenet, 64, (PLUS, BOX)),
}
"""What makes each network, the size of its picture, and the composites that are tried.

Alpha-beta keeps relevance only where results have contributions of both signs, which those of a
depthwise convolution and of a narrow one often have not.  The deepest networks take seconds for
each rule.
"""

LINEAR_BOTTLENECKS = ("MobileNetV2",)
"""Networks with sums of values of either sign, behind which there is no rectifier."""


@dataclass(frozen=True)
class Case:
    """A network, a picture, and the class of the highest score."""

    name: str
    native: keras.Model
    model: Model
    x: Array
    best: int

    def explain(self, method, **params):
        """Explain the class; an operation without a step would be refused."""
        explainer = get_registry().explainer(method, **params)
        maps = explainer.explain(self.model, self.x, [ClassScore(self.best)])
        assert maps.notes == ()
        assert maps.scores[0] > 0
        return maps

    @property
    def stem(self):
        """The first convolution: all that reaches the picture has come by it."""
        return next(name for name, info in self.model.layers.items() if info.kind == "conv")


def calm(native, x):
    """Give a network weights that keep the size of its signals, and nothing that shifts them."""
    for layer in native.layers:
        if isinstance(layer, L.BatchNormalization):
            layer.momentum = 0.0  # so that one batch tells
        elif isinstance(layer, L.Conv2D | L.Dense):
            layer.kernel.assign(keras.initializers.HeNormal(seed=1)(layer.kernel.shape))
    native(x, training=True)
    for layer in native.layers:
        if isinstance(layer, L.BatchNormalization):
            layer.moving_mean.assign(keras.ops.zeros_like(layer.moving_mean))


def made(name):
    """Make a network in double precision, without biases, and a picture for it."""
    make, size, _ = NETWORKS[name]
    keras.utils.set_random_seed(0)
    keras.config.set_floatx("float64")
    try:
        native = make(input_shape=(size, size, 3), classes=CLASSES, weights=None)
    finally:
        keras.config.set_floatx("float32")
    x = np.random.default_rng(0).normal(size=(2, size, size, 3))
    calm(native, x)
    model = wrap(native)
    return Case(name, native, model, x[:1], int(model.forward(x[:1]).logits.argmax()))


@pytest.fixture(scope="module", params=NETWORKS)
def case(request):
    return made(request.param)


def test_lrp_adds_up_to_the_score(case):
    for composite in NETWORKS[case.name][2]:
        maps = case.explain("lrp", composite=composite, low=-5.0, high=5.0, bias=False)
        np.testing.assert_allclose(maps.raw.sum(), maps.scores[0], rtol=1e-3, err_msg=composite)


def lost_in_sums(case, rule, start):
    """Give what sums of no positive part have, where relevance goes to positive parts only.

    Below a rectifier a sum that has relevance is positive, and so is a part of it.
    """
    if case.name not in LINEAR_BOTTLENECKS:
        return 0.0
    sums = {
        layer.name: [part._keras_history.operation.name for part in layer.input]
        for layer in case.native.layers
        if isinstance(layer, L.Add)
    }
    values = case.model.forward(case.x, capture=sorted(set(chain(*sums.values()))))
    back = case.model.pullback(case.x, start, wrt=list(sums), rule=rule)
    lost = 0.0
    for name, parts in sums.items():
        nothing_positive = np.all([values[part] <= 0 for part in parts], axis=0)
        lost += back.gradients[name][nothing_positive].sum()
    return lost


def test_winning_probabilities_add_up_to_one(case):
    raw = case.explain("excitation-backprop", layer=case.stem).raw
    assert raw.min() >= 0
    lost = lost_in_sums(case, excitation(), np.eye(CLASSES)[[case.best]])
    # In MobileNetV2 a few convolutions too have results to which nothing positive contributed.
    np.testing.assert_allclose(raw.sum(), 1 - lost, rtol=0, atol=1e-4 if lost else 1e-9)


def test_a_contrast_adds_up_to_zero(case):
    raw = case.explain("contrastive-excitation-backprop").raw
    assert np.abs(raw).sum() > 1e-5
    assert abs(raw.sum()) <= 1e-9 * np.abs(raw).sum()


def test_deep_taylor_is_positive_and_adds_up_to_the_score(case):
    maps = case.explain("deep-taylor")
    assert maps.raw.min() >= 0
    start = maps.scores[:, None] * np.eye(CLASSES)[[case.best]]
    lost = lost_in_sums(case, deep_taylor(), start)
    np.testing.assert_allclose(maps.raw.sum() + lost, maps.scores[0], rtol=1e-4)
