"""The class activation maps made of gradients against pytorch-grad-cam, before its normalising.

Its maps are right at layers after a rectifier that is not in place.  It adds a small number to some
denominators, which the scores and pictures here are large enough to drown.
"""

from __future__ import annotations

import types

import numpy as np
import pytest
import torch

from cnnviz_core.registry import get_registry
from cnnviz_core.targets import ClassProbability, ClassScore, Weighted
from cnnviz_core.testing.nets import NETS, random_input
from cnnviz_torch.build import build
from cnnviz_torch.model import wrap
from support.torchvision_ops import define

CLASSES = (0, 3, 1)
LAYERS = [("plain", "relu1"), ("plain", "pool1"), ("plain", "relu2"), ("strided", "relu2")]


@pytest.fixture(scope="module")
def peers():
    define()
    import pytorch_grad_cam
    from pytorch_grad_cam.utils import model_targets

    return types.SimpleNamespace(**{**vars(pytorch_grad_cam), **vars(model_targets)})


def made(name, scale=1.0):
    net = NETS[name]()
    x = scale * random_input(net, len(CLASSES), seed=2)["image"].astype(np.float64)
    return build(net, dtype="float64"), x


def ours(method, network, x, targets, layer, **params):
    explainer = get_registry().explainer(method, layer=layer, **params)
    return explainer.explain(wrap(network), x, targets).raw


def keeping(peer):
    """A peer that keeps its raw map."""

    class Keeping(peer):
        def get_cam_image(self, *args, **kwargs):
            self.raw = super().get_cam_image(*args, **kwargs)
            return self.raw

    return Keeping


def theirs(peer, network, x, targets, layer):
    tensor = torch.from_numpy(x).permute(0, 3, 1, 2).contiguous()
    with keeping(peer)(network, [network.get_submodule(layer)]) as cam:
        cam(input_tensor=tensor, targets=targets)
        return np.asarray(cam.raw)


def near(actual, expected, tolerance):
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize(("net", "layer"), LAYERS)
@pytest.mark.parametrize(
    ("method", "peer", "tolerance"),
    [
        ("grad-cam++", "GradCAMPlusPlus", 1e-11),  # adds 1e-6 to the denominator of alpha
        ("xgrad-cam", "XGradCAM", 1e-8),  # adds 1e-7 to the sum of the features
        ("hires-cam", "HiResCAM", 1e-12),
        ("layer-cam", "LayerCAM", 1e-12),
        ("grad-cam-elementwise", "GradCAMElementWise", 1e-12),
    ],
)
def test_raw_maps(peers, method, peer, tolerance, net, layer):
    network, x = made(net, scale=1e3)
    count = network(torch.zeros(1, 3, *x.shape[1:3], dtype=torch.float64)).shape[1]
    found = ours(method, network, x, [Weighted(1e6 * np.eye(count)[c]) for c in CLASSES], layer)
    targets = [lambda scores, c=c: 1e6 * scores[c] for c in CLASSES]
    near(found, theirs(getattr(peers, peer), network, x, targets, layer), tolerance)


@pytest.mark.parametrize(("net", "layer"), LAYERS)
def test_grad_cam_plus_plus_of_small_gradients_is_not_theirs(peers, net, layer):
    # Their 1e-6 beside twice the squared gradient weakens what has small gradients.
    network, x = made(net)
    found = ours("grad-cam++", network, x, [ClassScore(c) for c in CLASSES], layer)
    targets = [peers.ClassifierOutputTarget(c) for c in CLASSES]
    expected = theirs(peers.GradCAMPlusPlus, network, x, targets, layer)
    assert 1e-6 < np.abs(found - expected).max() / np.abs(found).max() < 0.1


@pytest.mark.parametrize(("net", "layer"), LAYERS)
@pytest.mark.parametrize(("references", "strength"), [(1, 1.0), (2, 0.6), (3, 0.3)])
def test_finer_cam_weighted_by_probability(peers, net, layer, references, strength):
    network, x = made(net)
    found = ours(
        "finer-cam",
        network,
        x,
        [ClassScore(c) for c in CLASSES],
        layer,
        references=references,
        strength=strength,
        weighting="probability",
    )
    for n, index in enumerate(CLASSES):
        cam = peers.FinerCAM(
            network, [network.get_submodule(layer)], base_method=keeping(peers.GradCAM)
        )
        with cam:
            cam(
                input_tensor=torch.from_numpy(x[n : n + 1]).permute(0, 3, 1, 2).contiguous(),
                alpha=strength,
                comparison_categories=list(range(1, references + 1)),
                target_idx=index,
            )
            # They add 1e-9 to the sum of the probabilities.
            near(found[n], cam.base_cam.raw[0], 1e-7)


@pytest.mark.parametrize(("net", "layer"), LAYERS)
def test_finer_cam_is_grad_cam_of_the_paper_s_difference(peers, net, layer):
    # The paper's plain mean of the comparisons is not what FinerWeightedTarget computes.
    network, x = made(net)
    found = ours("finer-cam", network, x, [ClassScore(c) for c in CLASSES], layer)

    def difference(index):
        def score(scores):
            distances = (scores - scores[index]).abs().detach()
            return scores[index] - 0.6 * scores[distances.argsort()[1:4]].mean()

        return score

    targets = [difference(c) for c in CLASSES]
    near(found, theirs(peers.GradCAM, network, x, targets, layer), 1e-12)


CURVED = [*LAYERS, ("swish", "silu1"), ("swish", "add"), ("swish", "silu3")]


@pytest.mark.parametrize(("net", "layer"), CURVED)
@pytest.mark.parametrize("utility", ["probability", "rest", "score"])
def test_shapley_cam(peers, net, layer, utility):
    network, x = made(net)
    target = ClassProbability if utility == "probability" else ClassScore
    found = ours(
        "shapley-cam",
        network,
        x,
        [target(c) for c in CLASSES],
        layer,
        utility="rest" if utility == "rest" else "target",
    )
    theirs_of = {
        "probability": peers.ClassifierOutputSoftmaxTarget,
        "rest": peers.ClassifierOutputReST,
        "score": peers.ClassifierOutputTarget,
    }[utility]
    expected = theirs(peers.ShapleyCAM, network, x, [theirs_of(c) for c in CLASSES], layer)
    near(found, expected, 1e-11)
