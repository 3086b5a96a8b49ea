"""The wrappers against captum, pytorch-grad-cam and torch's own interpolation."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from captum.attr import NoiseTunnel, Saliency
from torch.nn.functional import interpolate

from support.torchvision_ops import define

define()

from pytorch_grad_cam import GradCAM  # noqa: E402
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget  # noqa: E402

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


def ours(method, **params):
    targets = [ClassScore(c) for c in CLASSES]
    return get_registry().explainer(method, **params).explain(wrap(NETWORK), X, targets).raw


@pytest.mark.parametrize(
    ("combine", "captum"),
    [("mean", "smoothgrad"), ("mean-square", "smoothgrad_sq"), ("variance", "vargrad")],
)
def test_noise_tunnel_with_the_same_draws(monkeypatch, combine, captum):
    samples, noise, seed = 6, 0.2, 3
    rng = np.random.default_rng(seed)
    draws = np.stack([rng.standard_normal(X.shape[1:]) for _ in range(samples)])
    draws = torch.from_numpy(draws).permute(0, 3, 1, 2)
    # captum has one standard deviation for a whole batch; ours goes with each sample's range.
    monkeypatch.setattr(torch, "normal", lambda mean, std: mean + std * draws)
    expected = []
    for i, label in enumerate(CLASSES):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = NoiseTunnel(Saliency(NETWORK)).attribute(
                TENSOR[i : i + 1].clone(),
                nt_type=captum,
                nt_samples=samples,
                stdevs=float(noise * np.ptp(X[i])),
                target=label,
                abs=False,
            )
        expected.append(found.detach()[0].permute(1, 2, 0).numpy())
    found = ours(
        "noise-tunnel", of="saliency", combine=combine, samples=samples, noise=noise, seed=seed
    )
    np.testing.assert_allclose(found, np.stack(expected), rtol=1e-10, atol=1e-13)


class RawGradCAM(GradCAM):
    """pytorch-grad-cam's, before it takes the positive part, scales, resizes and scales again."""

    def compute_cam_per_layer(self, input_tensor, targets, eigen_smooth):
        (activations,) = self.activations_and_grads.activations
        (gradients,) = self.activations_and_grads.gradients
        return [
            self.get_cam_image(
                input_tensor, None, targets, activations.numpy(), gradients.numpy(), eigen_smooth
            )
        ]

    def aggregate_multi_layers(self, maps):
        return maps[0]


def theirs(layer, **how):
    targets = [ClassifierOutputTarget(c) for c in CLASSES]
    # float32 comes back, whatever the network computes in.
    with RawGradCAM(NETWORK, [NETWORK.get_submodule(layer)]) as cam:
        return cam(TENSOR, targets, **how)


@pytest.mark.parametrize("layer", ["relu1", "conv2", "relu2"])
def test_eigen_smoothing(layer):
    expected = theirs(layer, eigen_smooth=True)
    found = ours("eigen-smoothing", layer=layer)
    # Theirs has the sign that the decomposition happens to give, and shows the positive part of it.
    signs = np.sign((expected * found).sum((1, 2), keepdims=True))
    scale = np.abs(found).max()
    np.testing.assert_allclose(found, signs * expected, rtol=1e-6, atol=1e-6 * scale)
    plain = ours("grad-cam", layer=layer)
    assert ((found * plain).sum((1, 2)) > 0).all()


@pytest.mark.parametrize("layer", ["relu1", "conv2", "relu2"])
def test_augmentation(layer):
    # Theirs averages maps that were each cut off at 0 and scaled to [0, 1]; without that:
    expected = theirs(layer, aug_smooth=True)
    found = ours("test-time-augmentation", layer=layer)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6 * np.abs(found).max())


def test_augmentation_of_eigen_smoothing():
    # Each copy's component has a sign of its own there, so that a mean of theirs may cancel out.
    found = ours("test-time-augmentation", of="eigen-smoothing", multiply=0.0)
    flipped = TENSOR.flip(-1)
    targets = [ClassifierOutputTarget(c) for c in CLASSES]
    with RawGradCAM(NETWORK, [NETWORK.get_submodule("relu2")]) as cam:
        both = [
            cam(TENSOR, targets, eigen_smooth=True),
            cam(flipped, targets, eigen_smooth=True)[..., ::-1],
        ]
        plain = [cam(TENSOR, targets), cam(flipped, targets)[..., ::-1]]
    expected = np.mean(
        [m * np.sign((m * p).sum((1, 2), keepdims=True)) for m, p in zip(both, plain, strict=True)],
        axis=0,
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6 * np.abs(found).max())


def test_layer_fusion_by_torch():
    # TorchCAM's fusion of LayerCAMs: tanh(2 M) of maps in [0, 1], resized, their maximum.
    scaled = []
    for layer in ("relu1", "conv2"):
        raw = torch.from_numpy(ours("grad-cam", layer=layer)).relu()
        top = raw.amax((1, 2), keepdim=True)
        scaled.append(torch.tanh(2 * raw / torch.where(top > 0, top, 1)))
    resized = [
        interpolate(m[:, None], (12, 9), mode="bilinear", align_corners=False)[:, 0] for m in scaled
    ]
    found = ours("layer-fusion", of="grad-cam", layer="relu1, conv2", tanh="all")
    np.testing.assert_allclose(found, torch.stack(resized).amax(0).numpy(), rtol=1e-12, atol=1e-15)
