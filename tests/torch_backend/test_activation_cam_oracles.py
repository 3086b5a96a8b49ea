"""Maps made of feature maps alone against pytorch-grad-cam, in double precision.

Its projections are rounded to single precision at the end, which sets the tolerance; where it
differs from a method's paper, our numbers are held to the formula in tests/plugins.
"""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from support.torchvision_ops import define

define()

from pytorch_grad_cam import FEM, KPCA_CAM, EigenCAM, EigenGradCAM, RandomCAM  # noqa: E402
from pytorch_grad_cam.feature_factorization.deep_feature_factorization import dff  # noqa: E402
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget  # noqa: E402

from cnnviz_cam.deep_feature_factorisation import factorise  # noqa: E402
from cnnviz_core.registry import get_registry  # noqa: E402
from cnnviz_core.targets import ClassScore  # noqa: E402
from cnnviz_core.testing.nets import NETS, random_input  # noqa: E402
from cnnviz_torch.build import build  # noqa: E402
from cnnviz_torch.model import wrap  # noqa: E402

NET = NETS["plain"]()
NETWORK = build(NET, dtype="float64")
X = random_input(NET, 3, seed=2)["image"].astype(np.float64)
TENSOR = torch.from_numpy(X).permute(0, 3, 1, 2).contiguous()
CLASSES = [0, 3, 1]
LAYERS = ["conv1", "relu1", "conv2", "relu2"]
ROUNDING = 1e-6


def ours(method, layer, **params):
    targets = [ClassScore(c) for c in CLASSES]
    return (
        get_registry().explainer(method, layer=layer, **params).explain(wrap(NETWORK), X, targets)
    )


def captured(peer):
    """Give the layer's values and gradients, (N, C, h, w), as the peer holds them."""
    store = peer.activations_and_grads
    gradients = store.gradients[0].numpy() if store.gradients else None
    return store.activations[0].numpy(), gradients


def theirs(method, layer, **kwargs):
    """Give the map that the peer has before it is normalised and resized."""
    module = NETWORK.get_submodule(layer)
    with method(NETWORK, [module], **kwargs) as peer:
        targets = [ClassifierOutputTarget(c) for c in CLASSES]
        peer(input_tensor=TENSOR.clone(), targets=targets)
        return peer.get_cam_image(TENSOR, module, targets, *captured(peer), eigen_smooth=False)


def same_up_to_sign(found, expected):
    for mine, other in zip(found, expected, strict=True):
        sign = np.sign((mine * other).sum())
        np.testing.assert_allclose(mine, sign * other, atol=ROUNDING * np.abs(other).max())


@pytest.mark.parametrize("layer", LAYERS)
def test_eigen_cam(layer):
    # The peer always centres, and leaves the sign as LAPACK gives it: of these 12 maps 3 are upside
    # down against the sum of the feature maps.
    same_up_to_sign(ours("eigen-cam", layer, centre=True).raw, theirs(EigenCAM, layer))


@pytest.mark.parametrize("layer", LAYERS)
def test_eigen_grad_cam(layer):
    # Of the peer's 12 maps all are upside down against HiResCAM, the sum of what is projected.
    same_up_to_sign(ours("eigen-grad-cam", layer).raw, theirs(EigenGradCAM, layer))


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("kernel", ["sigmoid", "rbf", "poly", "linear"])
@pytest.mark.parametrize("gamma", [None, 0.05])
def test_kpca_cam(layer, kernel, gamma):
    same_up_to_sign(
        ours("kpca-cam", layer, kernel=kernel, gamma=gamma).raw,
        theirs(KPCA_CAM, layer, kernel=kernel, gamma=gamma),
    )


@pytest.mark.parametrize("layer", ["relu1", "relu2"])
def test_fem_keeps_the_positions_that_the_peer_keeps(layer):
    # The peer's map is sum_k share_k A_k, with share_k how many of a channel's positions are above
    # the threshold; in the paper, and in its authors' code, it is sum_k mean_k [A_k is above].
    maps = ours("fem", layer)
    features = wrap(NETWORK).forward(X, capture=[layer])[layer]
    share = (maps.terms() > 0).mean(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose((share * features).sum(axis=-1), theirs(FEM, layer), atol=1e-12)
    assert not np.allclose(maps.raw, theirs(FEM, layer))


def test_random_cam_draws_as_the_peer_does(monkeypatch):
    weights = np.random.default_rng(5).uniform(-1, 1, 8)
    drawn = []

    def uniform(low, high, size):
        drawn.append((low, high, size))
        return np.broadcast_to(weights, size)

    monkeypatch.setattr(np.random, "uniform", uniform)
    expected = theirs(RandomCAM, "relu2")
    assert set(drawn) == {(-1, 1, (3, 8))}
    np.testing.assert_allclose(ours("random-cam", "relu2", seed=5).raw, expected, atol=1e-12)


def factorised_by_the_peer(features, concepts):
    """Give maps (P, k) and unit vectors (k, C) of one sample's features (h, w, C), as ours are."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn's, that it has not converged
        vectors, maps = dff(features.transpose(2, 0, 1)[None].copy(), n_components=concepts)
    maps, lengths = maps[0].reshape(concepts, -1).T, np.linalg.norm(vectors, axis=0)
    order = np.argsort(-(maps * lengths).sum(axis=0))
    return (maps * lengths)[:, order], (vectors / lengths).T[order]


@pytest.mark.parametrize("layer", ["relu1", "relu2"])
@pytest.mark.parametrize("concepts", [2, 3, 4])
def test_a_factorisation_is_as_close_as_the_peers(layer, concepts):
    # Both end in a local optimum, the peer from random numbers: of 18 pairs ours is closer by up to
    # 13 %, or as close, but for one that is further by 2.5 %.  The peer first subtracts each
    # channel's least value, which the paper does not; here these are zero beforehand.
    features = wrap(NETWORK).forward(X, capture=[layer])[layer]
    for sample in features * (features > features.min(axis=(1, 2), keepdims=True)):
        flat = sample.reshape(-1, sample.shape[-1])
        found, expected = (
            np.linalg.norm(flat - maps @ vectors)
            for maps, vectors in (
                factorise(flat, concepts),
                factorised_by_the_peer(sample, concepts),
            )
        )
        assert found <= 1.05 * expected


@pytest.mark.parametrize("seed", range(3))
def test_both_find_the_concepts_that_are_there(seed):
    # Three concepts, each with positions and channels of its own.
    draws, of = np.random.default_rng(seed), np.arange(12) % 3
    features = draws.uniform(0.2, 1, (12, 1)) * draws.uniform(0.2, 1, (1, 12))
    features *= np.array([3, 2, 2])[of] * (of == of[:, None])
    found = factorise(features, 3)
    expected = factorised_by_the_peer(features.reshape(4, 3, 12), 3)
    for mine, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(mine, other, atol=1e-12)
