"""Loading networks, and recognising those of keras.applications."""

from __future__ import annotations

import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from cnnviz_core.errors import MissingBackendError, ModelSourceError
from cnnviz_tf import sources
from cnnviz_tf.model import wrap
from cnnviz_tf.published import describe
from cnnviz_tf.sources import load_application, load_keras_file, load_saved_model

# Keras converts arrays for saving in a way that NumPy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

L = keras.layers
PUBLISHED = {
    "MobileNet": keras.applications.mobilenet,
    "MobileNetV2": keras.applications.mobilenet_v2,
    "ResNet50": keras.applications.resnet,
    "DenseNet121": keras.applications.densenet,
    "MobileNetV3Small": keras.applications.mobilenet_v3,
    "EfficientNetB0": keras.applications.efficientnet,
    "Xception": keras.applications.xception,
}


def prepared(pixels, preprocessing):
    """What the described preprocessing makes of pixels, size aside."""
    if preprocessing.channels == "BGR":
        pixels = pixels[..., ::-1]
    return (pixels * preprocessing.scale - preprocessing.mean) / preprocessing.std


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_preprocessing_equals_that_of_keras(name, rng):
    described = load_application(name, weights=None)
    assert described.labels == "imagenet-1k"
    assert described.name == described.native.name
    pixels = rng.integers(0, 256, (1, 4, 5, 3)).astype(np.float64)
    np.testing.assert_allclose(
        prepared(pixels, described.preprocessing),
        PUBLISHED[name].preprocess_input(pixels.copy()),
        atol=1e-4,
    )
    size = described.native.input_shape[1:3]
    assert described.preprocessing.size == tuple(n or 224 for n in size)


def test_names_are_forgiving_and_unknown_ones_list_near_ones():
    described = load_application("mobilenet_v2", weights=None, alpha=0.35, input_shape=(96, 96, 3))
    assert described.preprocessing.size == (96, 96)
    with pytest.raises(ModelSourceError, match="ResNet50"):
        load_application("ResNet51", weights=None)


def test_other_classes_have_neither_labels_nor_preprocessing():
    described = load_application("MobileNetV2", weights=None, classes=7, alpha=0.35)
    assert (described.labels, described.preprocessing) == (None, None)
    headless = load_application("MobileNetV2", weights=None, include_top=False, alpha=0.35)
    assert (headless.labels, headless.preprocessing) == (None, None)


def test_preprocessing_left_out_is_not_claimed():
    described = load_application("MobileNetV3Small", weights=None, include_preprocessing=False)
    assert (described.labels, described.preprocessing) == (None, None)


@pytest.mark.parametrize("name", ["resnet50", "vgg16", "mobilenetv2_1.00_224", "convnext_tiny"])
def test_a_name_alone_convinces_nobody(name):
    net = keras.Sequential(
        [keras.Input((32, 32, 3)), L.GlobalAveragePooling2D(), L.Dense(1000, name="predictions")],
        name=name,
    )
    assert describe(net).labels is None
    assert describe(net).preprocessing is None
    assert describe(net).name == name


def test_anything_can_be_described():
    net = keras.Sequential([L.Dense(2)], name="vgg16")
    assert describe(net).preprocessing is None
    assert describe(tf.Module(name="vgg16")).labels is None
    assert describe(tf.function(lambda x: x)).labels is None


def test_weights_that_cannot_be_had_are_a_source_error(monkeypatch, tmp_path):
    def offline(*_, **__):
        raise Exception("URL fetch failure")  # the class that Keras raises

    monkeypatch.setattr(keras.src.utils.file_utils, "get_file", offline)
    with pytest.raises(ModelSourceError, match="weights=None"):
        load_application("MobileNetV2")
    with pytest.raises(ModelSourceError, match="no_such_option"):
        load_application("MobileNetV2", weights=None, no_such_option=1)
    with pytest.raises(ModelSourceError, match="MobileNetV2"):
        load_application("MobileNetV2", weights=str(tmp_path / "absent.h5"))


def small():
    return keras.Sequential(
        [keras.Input((6, 5, 3)), L.Conv2D(2, 3, activation="relu"), L.Flatten(), L.Dense(2)],
        name="small",
    )


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.filterwarnings("ignore:.*HDF5 file")
def test_keras_files(suffix, rng, tmp_path):
    net = small()
    path = tmp_path / f"net{suffix}"
    net.save(path)
    described = load_keras_file(path)
    x = rng.normal(size=(2, 6, 5, 3)).astype(np.float32)
    assert (described.name, described.labels, described.preprocessing) == ("small", None, None)
    np.testing.assert_allclose(wrap(described.native).forward(x).output, net(x).numpy(), atol=1e-6)


def test_files_that_hold_no_network(tmp_path):
    with pytest.raises(ModelSourceError, match="no file"):
        load_keras_file(tmp_path / "absent.keras")
    for name in ("broken.keras", "broken.h5"):
        (tmp_path / name).write_bytes(b"not a network")
        with pytest.raises(ModelSourceError, match="could not load"):
            load_keras_file(tmp_path / name)
    small().save_weights(tmp_path / "only.weights.h5")
    with pytest.raises(ModelSourceError, match="could not load"):
        load_keras_file(tmp_path / "only.weights.h5")


def test_python_code_in_a_file_needs_trust(tmp_path):
    net = keras.Sequential([keras.Input((6,)), L.Lambda(lambda t: t * 2), L.Dense(2)])
    net.save(tmp_path / "net.keras")
    with pytest.raises(ModelSourceError, match="safe_mode=False"):
        load_keras_file(tmp_path / "net.keras")
    assert load_keras_file(tmp_path / "net.keras", safe_mode=False).native.built


def test_own_layers_are_passed_in(tmp_path):
    class Own(keras.Layer):
        def call(self, x):
            return x

    keras.Sequential([keras.Input((6,)), Own()]).save(tmp_path / "net.keras")
    with pytest.raises(ModelSourceError, match="custom_objects"):
        load_keras_file(tmp_path / "net.keras")
    assert load_keras_file(tmp_path / "net.keras", custom_objects={"Own": Own}).native.built


def test_saved_models(rng, tmp_path):
    net = small()
    net.export(tmp_path / "exported", verbose=False)
    x = rng.normal(size=(2, 6, 5, 3)).astype(np.float32)
    for path in (tmp_path / "exported", tmp_path / "exported" / "saved_model.pb"):
        described = load_saved_model(path)
        assert described.name == "exported"
        output = wrap(described.native).forward(x).output
        np.testing.assert_allclose(output, net(x).numpy(), atol=1e-6)
    with pytest.raises(ModelSourceError, match="no file"):
        load_saved_model(tmp_path)
    (tmp_path / "saved_model.pb").write_bytes(b"not a network")
    with pytest.raises(ModelSourceError, match="could not load"):
        load_saved_model(tmp_path)


def test_without_the_framework_the_extra_is_named(monkeypatch, tmp_path):
    for name in ("keras", "tensorflow"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingBackendError, match=r"cnnviz\[tf\]"):
        load_application("ResNet50")
    with pytest.raises(MissingBackendError, match=r"cnnviz\[tf\]"):
        load_keras_file(tmp_path)
    with pytest.raises(MissingBackendError, match=r"cnnviz\[tf\]"):
        load_saved_model(tmp_path)


def test_the_loaders_are_those_announced():
    from cnnviz_core.importing import import_string
    from cnnviz_tf._register import cnnviz_backends

    (spec,) = cnnviz_backends()
    loaders = {
        import_string(target) for target in (*spec.sources.values(), *spec.suffixes.values())
    }
    assert loaders == {load_application, load_keras_file, load_saved_model}
    assert import_string(spec.wrap) is wrap
    assert import_string(spec.describe) is describe
    assert import_string(spec.build).__module__ == "cnnviz_tf.build"
    assert import_string(spec.accepts)(small())
    assert sources.__name__ == "cnnviz_tf.sources"


# ---------------------------------------------------------------- real networks


@pytest.mark.filterwarnings("ignore")
def test_a_trained_cifar_network(test_data, rng):
    """A file of an older Keras; accuracy on lossless pictures as the manifest says."""
    from PIL import Image

    described = load_keras_file(test_data / "weights" / "keras_cifar10_resnet8_mlcommons.h5")
    pictures = sorted((test_data / "images" / "cifar10" / "png100").iterdir())
    x = np.stack([np.asarray(Image.open(p).convert("RGB"), np.float32) for p in pictures])
    names = ["airplane", "automobile", "bird", "cat", "deer"]
    names += ["dog", "frog", "horse", "ship", "truck"]
    classes = [next(i for i, n in enumerate(names) if p.name.startswith(n)) for p in pictures]
    model = wrap(described.native)
    trace = model.forward(x)
    assert model.activation == "softmax"
    assert np.abs(trace.output.sum(1) - 1).max() < 1e-5
    assert np.abs(trace.logits.sum(1)).max() > 1e-2
    assert (trace.logits.argmax(1) == classes).mean() >= 0.9
