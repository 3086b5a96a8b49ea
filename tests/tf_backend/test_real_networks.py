"""Real weights on real photographs, in Keras."""

from __future__ import annotations

import numpy as np
import pytest

import cnnviz
from cnnviz_core.registry import get_registry
from cnnviz_core.targets import Predicted
from support.real import loader, photographs, top_1

pytestmark = pytest.mark.slow


def test_imagenet_top_1_and_grad_cam_proportional_to_cam(test_data):
    from cnnviz_tf.model import wrap

    weights = loader(test_data)
    model = wrap(weights.keras_model("mobilenet_v2"))
    pixels, labels, _ = photographs(test_data, 100)
    x = weights.preprocess("mobilenet_v2", pixels)
    expected = 0.797
    assert abs(top_1(model, x, labels) - expected) < 3 * np.sqrt(expected * (1 - expected) / 100)
    targets = [Predicted()] * 4
    cam = get_registry().explainer("cam").explain(model, x[:4], targets)
    grad_cam = get_registry().explainer("grad-cam", layer=cam.layer).explain(model, x[:4], targets)
    np.testing.assert_allclose(
        grad_cam.raw * np.prod(cam.raw.shape[1:]), cam.raw, atol=1e-4 * np.abs(cam.raw).max()
    )


def test_a_keras_file_of_a_stranger(test_data):
    net = cnnviz.load(
        str(test_data / "weights" / "keras_vww96_mobilenetv1_025.keras"),
    )
    result = cnnviz.explain(
        cnnviz.wrap(
            net,
            preprocess=cnnviz.Preprocessing(size=(96, 96)),
            labels=["no person", "person"],
        ),
        test_data / "images" / "demo" / "dogs.png",
        method="grad-cam",
    )
    assert result.maps.shape == (1, 96, 96)
    assert result.target_labels[0] in ("no person", "person")
    assert 0.5 <= result.probabilities[0] <= 1


def test_an_h5_file_classifies_cifar(test_data):
    net = cnnviz.load(str(test_data / "weights" / "keras_cifar10_resnet8_mlcommons.h5"))
    names = ("airplane", "automobile", "bird", "cat", "deer")
    names += ("dog", "frog", "horse", "ship", "truck")
    net = cnnviz.wrap(net, preprocess=cnnviz.Preprocessing(scale=1.0), labels=names)
    files = sorted((test_data / "images" / "cifar10" / "png100").iterdir())
    result = cnnviz.explain(net, files, method="grad-cam")
    right = [label in f.name for label, f in zip(result.target_labels, files, strict=True)]
    assert np.mean(right) >= 0.9
