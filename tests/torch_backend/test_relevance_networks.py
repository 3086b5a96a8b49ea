"""Relevance on the architectures of torchvision: what is handed down adds up."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from cnnviz_core.model import INPUT, LOGITS, Array, Model
from cnnviz_core.registry import get_registry
from cnnviz_core.rules import relevance_rule
from cnnviz_core.steps import epsilon, z_plus
from cnnviz_core.targets import ClassScore
from cnnviz_torch.model import wrap
from support.torch_nets import picture
from support.torchvision_ops import define

pytestmark = pytest.mark.slow

WIDE = (
    *("alexnet", "vgg16", "resnet18", "resnet50"),
    *("densenet121", "squeezenet1_1", "inception_v3", "googlenet"),
)
"""Networks of which every convolution reads many channels, and every sum ends in a rectifier."""

SMOOTH = ("mobilenet_v3_small", "efficientnet_b0")
"""Networks without rectifiers: what a swish hands down may be below zero, where little is kept."""

NETWORKS = (*WIDE, "mobilenet_v2", *SMOOTH)


@dataclass(frozen=True)
class Case:
    """A network, a picture, and the class of the highest score."""

    name: str
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


def calm(torchvision, name):
    """Make a network whose batch norms keep the signal's size, and shift nothing."""
    whole = {"init_weights": False, "aux_logits": False}
    options = whole if name in ("googlenet", "inception_v3") else {}
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        net = torchvision.models.get_model(name, weights=None, **options)
        norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
        for module in norms:
            module.momentum = None  # so that one batch tells
        with torch.no_grad():
            net(torch.randn(2, 3, 128, 128))
        for module in norms:
            module.running_mean.zero_()
    return net.double().eval()


@pytest.fixture(scope="module", params=NETWORKS)
def case(request):
    try:
        define()
    except ModuleNotFoundError:
        pytest.skip("torchvision is not installed")
    import torchvision

    model, x = wrap(calm(torchvision, request.param)), picture(1, (128, 128))
    return Case(request.param, model, x, int(model.forward(x).logits.argmax()))


def test_relevance_is_conserved(case):
    plus = relevance_rule("plus", z_plus(1e-9), epsilon(1e-9)).without_bias()
    only = np.eye(1000)[[case.best]]
    back = case.model.pullback(case.x, lambda scores: only * scores, rule=plus)
    assert back.unruled == ()
    kept = back.gradients[INPUT].sum() / back.values[LOGITS].max()
    assert abs(kept - 1) < (0.1 if case.name in SMOOTH else 1e-3)


def test_lrp_adds_up_to_the_score(case):
    # Alpha-beta keeps relevance only where results have contributions of both signs.
    signs = "epsilon-alpha2-beta1-flat"
    narrow = case.name not in WIDE or case.name == "squeezenet1_1"
    for composite in ("epsilon-plus", "epsilon-gamma-box", *(() if narrow else (signs,))):
        maps = case.explain("lrp", composite=composite, low=-5.0, high=5.0, bias=False)
        leak = 0.1 if case.name in SMOOTH and composite == "epsilon-plus" else 1e-3
        np.testing.assert_allclose(maps.raw.sum(), maps.scores[0], rtol=leak, err_msg=composite)


def test_winning_probabilities_add_up_to_one(case):
    raw = case.explain("excitation-backprop", layer=case.stem).raw
    assert raw.min() >= 0
    if case.name in WIDE:
        np.testing.assert_allclose(raw.sum(), 1, rtol=1e-9)
    else:  # sums of values that are all below zero have no winner
        assert 0.01 < raw.sum() < 1


def test_a_contrast_adds_up_to_zero(case):
    raw = case.explain("contrastive-excitation-backprop").raw
    assert np.abs(raw).sum() > 1e-5
    assert abs(raw.sum()) <= (1e-4 if case.name in SMOOTH else 1e-9) * np.abs(raw).sum()


def test_deep_taylor_is_positive_and_adds_up_to_the_score(case):
    maps = case.explain("deep-taylor")
    assert maps.raw.min() >= 0
    if case.name in WIDE:
        np.testing.assert_allclose(maps.raw.sum(), maps.scores[0], rtol=1e-4)
    else:
        assert 0.01 * maps.scores[0] < maps.raw.sum() < maps.scores[0]
