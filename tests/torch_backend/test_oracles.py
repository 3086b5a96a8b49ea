"""Every method against captum, on a small network whose rectifiers are modules."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from captum.attr import Deconvolution, GuidedBackprop, LayerGradCam, Occlusion, Saliency

from cnnviz_core.registry import get_registry
from cnnviz_core.targets import ClassScore
from cnnviz_core.testing.nets import NETS, random_input
from cnnviz_torch.build import build
from cnnviz_torch.model import wrap

NET = NETS["plain"]()
NETWORK = build(NET, dtype="float64")
X = random_input(NET, 3, seed=2)["image"].astype(np.float64)
TENSOR = torch.from_numpy(X).permute(0, 3, 1, 2).contiguous()
CLASSES = torch.tensor([0, 3, 1])


def ours(method, **params):
    targets = [ClassScore(int(c)) for c in CLASSES]
    return get_registry().explainer(method, **params).explain(wrap(NETWORK), X, targets).raw


def captums(method, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # captum speaks of the hooks that it sets
        result = method.attribute(TENSOR.clone(), target=CLASSES, **kwargs)
    return result.detach().permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize(
    ("method", "captum"),
    [("guided-backprop", GuidedBackprop), ("deconvnet", Deconvolution)],
)
def test_rules(method, captum):
    np.testing.assert_allclose(ours(method), captums(captum(NETWORK)), atol=1e-12)


def test_saliency():
    expected = captums(Saliency(NETWORK), abs=False)
    np.testing.assert_allclose(ours("saliency"), expected, atol=1e-12)


@pytest.mark.parametrize("layer", ["conv1", "relu1", "conv2", "relu2"])
def test_grad_cam(layer):
    expected = captums(LayerGradCam(NETWORK, NETWORK.get_submodule(layer)))[..., 0]
    np.testing.assert_allclose(ours("grad-cam", layer=layer), expected, atol=1e-12)


def test_occlusion():
    # 12 x 9 is tiled exactly by windows of 3 at a stride of 3, where all conventions agree.
    expected = captums(
        Occlusion(NETWORK), sliding_window_shapes=(3, 3, 3), strides=(3, 3, 3), baselines=0.5
    )
    found = ours("occlusion", window=3, stride=3, fill=0.5)
    for channel in range(3):
        np.testing.assert_allclose(found, expected[..., channel], atol=1e-12)
