"""One real network in both frameworks."""

from __future__ import annotations

import numpy as np
import pytest

import cnnviz
from cnnviz_core.model import INPUT
from cnnviz_core.registry import get_registry
from cnnviz_core.targets import Predicted
from support.methods import brief
from support.real import loader, photographs
from support.torchvision_ops import define

pytestmark = pytest.mark.slow

LAYERS = {
    "squeezenet1_1": ("classifier.1", "classifier_1"),
    "mobilenet_v2": ("features.18", "out_relu"),
}


@pytest.fixture(scope="module", params=list(LAYERS))
def twins(request, test_data):
    """The network on both backends, and photographs in its input space."""
    import cnnviz_tf.model
    import cnnviz_torch.model

    define()
    weights = loader(test_data)
    x = weights.preprocess(request.param, photographs(test_data, 3)[0])
    torch_twin = cnnviz_torch.model.wrap(weights.torch_model(request.param))
    keras_twin = cnnviz_tf.model.wrap(weights.keras_model(request.param))
    return request.param, torch_twin, keras_twin, x


def test_scores(twins, near):
    _, one, two, x = twins
    near("real networks, scores", two.forward(x).logits, one.forward(x).logits, 1e-4)


def test_grad_cam(twins, near):
    name, one, two, x = twins
    maps = [
        get_registry().explainer("grad-cam", layer=layer).explain(model, x, [Predicted()] * len(x))
        for model, layer in zip((one, two), LAYERS[name], strict=True)
    ]
    near("real networks, grad-cam", maps[1].raw, maps[0].raw, 1e-4)
    assert maps[0].targets == maps[1].targets


@pytest.fixture(scope="module")
def exact_twins(test_data):
    """SqueezeNet on both backends in float64, in which ties fall the same way, and a photograph."""
    import keras

    import cnnviz_tf.model
    import cnnviz_torch.model

    define()
    weights = loader(test_data)
    x = weights.preprocess("squeezenet1_1", photographs(test_data, 1)[0])
    native = weights.torch_model("squeezenet1_1").double()
    kept = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx("float64")  # of the input
    keras.config.set_dtype_policy("float64")  # of the layers
    try:
        twin = weights.keras_model("squeezenet1_1")
    finally:
        keras.config.set_floatx(kept[0])
        keras.config.set_dtype_policy(kept[1])
    return cnnviz_torch.model.wrap(native), cnnviz_tf.model.wrap(twin), x.astype(np.float64)


CHOSEN = {
    "occlusion": {"window": 64, "stride": 40},
    # On a picture of one colour every pool is a tie, which the frameworks break in different ways.
    "guided-integrated-gradients": {"baseline": "blur"},
}


@pytest.mark.parametrize("method", list(get_registry().explainers))
def test_every_method_on_a_deep_network(exact_twins, method, near):
    *models, x = exact_twins
    explainer = brief(method, **CHOSEN.get(method, {}))
    one, two = (explainer.explain(model, x, [Predicted()]) for model in models)
    near(f"SqueezeNet, float64, {method}", two.raw, one.raw, 1e-6)
    assert one.targets == two.targets


def test_saliency_is_alike(twins):
    # Ties in pooling and rectifiers flip in float32, so single pixels may differ; the whole agrees.
    _, one, two, x = twins
    gradients = [
        m.pullback(x, lambda v: np.eye(1000, dtype=v.dtype)[v.argmax(-1)]).gradients[INPUT].ravel()
        for m in (one, two)
    ]
    assert np.corrcoef(gradients)[0, 1] > 0.99


INSPECTED = {
    "filters": ("features.0", "features_0", {}),
    "features": ("features.7", "features_7", {}),
    "receptive-fields": ("features.7", "features_7", {}),
    "projections": ("features.9", "features_9", {"count": 3, "top": 1}),
    "occlusion-analysis": ("features.12", "features_12", {"window": 96, "stride": 64}),
    "invariance": ("features.5", "features_5", {"transform": "scale", "steps": 2}),
    "inversion": ("features.4", "features_4", {"steps": 3}),
    # From noise: in a picture of one colour, as class models begin with, every pool is a tie.
    "maximisation": (None, None, {"steps": 3, "objective": "class:1"}),
}


@pytest.mark.parametrize("name", list(INSPECTED))
def test_inspectors_on_a_deep_network(exact_twins, name, near):
    *models, x = exact_twins
    *layers, params = INSPECTED[name]
    found = []
    for model, layer in zip(models, layers, strict=True):
        chosen = {} if layer is None else {"layer": layer}
        images = {} if name in ("filters", "maximisation") else {"images": x, "preprocessed": True}
        network = cnnviz.wrap(model, preprocess=cnnviz.Preprocessing(size=(224, 224)))
        found.append(cnnviz.inspect(network, name, **images, **chosen, **params))
    one, two = (
        {key.removeprefix(f"{layer}/"): array for key, array in each.arrays.items()}
        for each, layer in zip(found, layers, strict=True)
    )
    assert list(one) == list(two)
    for key, expected in one.items():
        near(f"SqueezeNet, float64, {name}", two[key], expected, 1e-6)
