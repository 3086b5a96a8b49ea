"""One real network in both frameworks."""

from __future__ import annotations

import numpy as np
import pytest

from cnnviz_core.model import INPUT
from cnnviz_core.registry import get_registry
from cnnviz_core.targets import Predicted
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


def test_saliency_is_alike(twins):
    # Ties in pooling and rectifiers flip in float32, so single pixels may differ; the whole agrees.
    _, one, two, x = twins
    gradients = [
        m.pullback(x, lambda v: np.eye(1000, dtype=v.dtype)[v.argmax(-1)]).gradients[INPUT].ravel()
        for m in (one, two)
    ]
    assert np.corrcoef(gradients)[0, 1] > 0.99
