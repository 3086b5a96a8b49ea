"""The gradient methods against captum, with the same draws, and against plain loops in PyTorch."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from captum.attr import GradientShap, InputXGradient, IntegratedGradients, NoiseTunnel, Saliency

from cnnviz_core.registry import get_registry
from cnnviz_core.targets import ClassScore
from cnnviz_core.testing.nets import NETS, random_input
from cnnviz_torch.build import build
from cnnviz_torch.model import wrap

NET = NETS["plain"]()
NETWORK = build(NET, dtype="float64")
X = random_input(NET, 3, seed=2)["image"].astype(np.float64)
BACKGROUND = random_input(NET, 4, seed=3)["image"].astype(np.float64)
CLASSES = torch.tensor([0, 3, 1])


def tensor(array):
    return torch.from_numpy(np.ascontiguousarray(array)).permute(0, 3, 1, 2).contiguous()


def array(values):
    return values.detach().permute(0, 2, 3, 1).numpy()


def ours(method, **params):
    targets = [ClassScore(int(c)) for c in CLASSES]
    return get_registry().explainer(method, **params).explain(wrap(NETWORK), X, targets)


def close(found, expected, rtol=1e-12):
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=rtol * np.abs(expected).max())


def quiet(function, *args, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # captum speaks of the hooks that it sets
        return function(*args, **kwargs)


def test_gradient_x_input():
    expected = quiet(InputXGradient(NETWORK).attribute, tensor(X), target=CLASSES)
    close(ours("gradient-x-input").raw, array(expected))


@pytest.mark.parametrize("steps", [1, 7, 50])
@pytest.mark.parametrize("baseline", [0.0, 0.3, "array"])
def test_integrated_gradients(steps, baseline):
    start = BACKGROUND[0] if baseline == "array" else baseline
    expected, gap = quiet(
        IntegratedGradients(NETWORK).attribute,
        tensor(X),
        baselines=tensor(BACKGROUND[:1]) if baseline == "array" else baseline,
        target=CLASSES,
        n_steps=steps,
        method="gausslegendre",
        return_convergence_delta=True,
    )
    maps = ours("integrated-gradients", steps=steps, baseline=start)
    # captum rounds the quadrature's weights to float32, also for a network in float64.
    close(maps.raw, array(expected), 1e-7)
    np.testing.assert_allclose(maps.extras["completeness_gap"], gap.numpy(), atol=1e-7)


def test_integrated_gradients_by_a_loop():
    nodes, weights = np.polynomial.legendre.leggauss(50)
    total = torch.zeros_like(tensor(X))
    for node, weight in zip(nodes, weights, strict=True):
        point = ((node + 1) / 2 * tensor(X)).requires_grad_()
        score = NETWORK(point)[torch.arange(len(X)), CLASSES].sum()
        total += weight / 2 * torch.autograd.grad(score, point)[0]
    close(ours("integrated-gradients").raw, array(tensor(X) * total))


@pytest.mark.parametrize(
    ("method", "kind"),
    [
        ("smoothgrad", "smoothgrad"),
        ("smoothgrad-squared", "smoothgrad_sq"),
        ("vargrad", "vargrad"),
    ],
)
def test_noise_tunnels(monkeypatch, method, kind):
    # captum draws for each sample of the batch; here they all get ours, scaled to their ranges.
    # Its variance is the population's, too: the mean square less the squared mean.
    samples, seed, share = 6, 5, 0.2
    rng = np.random.default_rng(seed)
    draws = np.stack([rng.normal(size=X.shape[1:]) for _ in range(samples)])
    spans = X.max((1, 2, 3)) - X.min((1, 2, 3))
    noise = tensor(np.concatenate([share * span * draws for span in spans]))
    monkeypatch.setattr(torch, "normal", lambda mean, deviations: noise)
    expected = quiet(
        NoiseTunnel(Saliency(NETWORK)).attribute,
        tensor(X),
        nt_type=kind,
        nt_samples=samples,
        target=CLASSES,
        abs=False,
    )
    close(ours(method, noise=share, samples=samples, seed=seed).raw, array(expected), 1e-11)


def test_gradient_shap_of_one_baseline_with_captums_points(monkeypatch):
    # captum draws a baseline and a point for each sample and draw; with one baseline only the
    # points are left, and they are given ours.
    samples, seed = 5, 7
    rng = np.random.default_rng(seed)
    points = []
    for _ in range(samples):
        rng.integers(1)
        points.append(rng.uniform())
    monkeypatch.setattr(np.random, "uniform", lambda low, high, size: np.tile(points, len(X)))
    expected, gap = quiet(
        GradientShap(NETWORK).attribute,
        tensor(X),
        tensor(BACKGROUND[:1]),
        n_samples=samples,
        stdevs=0.0,
        target=CLASSES,
        return_convergence_delta=True,
    )
    maps = ours("gradient-shap", background=BACKGROUND[:1], samples=samples, seed=seed)
    close(maps.raw, array(expected), 1e-11)
    # captum gives a gap for each draw; ours is that of their mean.
    close(maps.extras["completeness_gap"], gap.numpy().reshape(len(X), samples).mean(1), 1e-10)


def test_gradient_shap_by_a_loop():
    samples, seed, share = 6, 2, 0.1
    rng = np.random.default_rng(seed)
    total, references = torch.zeros_like(tensor(X)), []
    spans = tensor(X).amax((1, 2, 3), keepdim=True) - tensor(X).amin((1, 2, 3), keepdim=True)
    rows = torch.arange(len(X))
    for _ in range(samples):
        start = tensor(BACKGROUND)[rng.integers(4)]
        along = rng.uniform()
        end = tensor(X) + share * spans * tensor(rng.normal(size=X.shape[1:])[None])
        point = (start + along * (end - start)).requires_grad_()
        (slope,) = torch.autograd.grad(NETWORK(point)[rows, CLASSES].sum(), point)
        total += (end - start) * slope / samples
        references.append(NETWORK(start[None])[0, CLASSES].detach().numpy())
    maps = ours("gradient-shap", background=BACKGROUND, samples=samples, seed=seed, noise=share)
    close(maps.raw, array(total), 1e-11)
    scores = NETWORK(tensor(X))[rows, CLASSES].detach().numpy()
    gap = array(total).sum((1, 2, 3)) - (scores - np.mean(references, axis=0))
    np.testing.assert_allclose(maps.extras["completeness_gap"], gap, atol=1e-11)
