"""LIME, KernelSHAP and Shapley values against captum, on equal segments and equal samples."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from captum._utils.models.linear_model import SkLearnLinearRegression, SkLearnRidge
from captum.attr import KernelShap, Lime, ShapleyValues, ShapleyValueSampling

from cnnviz_core.targets import ClassScore
from cnnviz_core.testing.nets import NETS, random_input
from cnnviz_core.testing.reference import ReferenceModel
from cnnviz_perturbation import kernel_shap, lime, segmenting, shapley
from cnnviz_torch.build import build
from cnnviz_torch.model import wrap

CLASSES = [0, 2]
FILL = 0.3
# captum fits its linear models, and sums over orders, in float32.
SINGLE = 3e-6
METHODS = {
    "lime": lime.LIME,
    "kernel-shap": kernel_shap.KernelSHAP,
    "shapley-values": shapley.ShapleyValues,
}


def case(name="plain"):
    net = NETS[name]()
    (x,) = random_input(net, 2, seed=2).values()
    x = x.astype(np.float64)
    return build(net, dtype="float64"), x, torch.from_numpy(x).permute(0, 3, 1, 2).contiguous()


def ours(method, network, x, labels, **params):
    explainer = METHODS[method](segmentation=labels, fill=FILL, **params)
    return explainer.explain(wrap(network), x, [ClassScore(c) for c in CLASSES])


def theirs(method, tensor, labels, **params):
    """Explain one picture after the other: (N, H, W)."""
    mask = torch.from_numpy(labels)[None, None]
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for picture, target in zip(tensor, CLASSES, strict=True):
            map_ = method.attribute(
                picture[None], baselines=FILL, target=target, feature_mask=mask, **params
            )
            found.append(map_[0, 0].numpy())
    return np.stack(found)


def given(samples):
    """Make a function from which captum draws the samples that it is given."""

    def draw(original, **kwargs):
        for row in samples:
            yield torch.from_numpy(row[None].astype(np.int64))

    return draw


def assert_near(found, expected, share):
    """Compare with a tolerance that is a share of the largest value."""
    np.testing.assert_allclose(found, expected, atol=share * np.abs(expected).max())


@pytest.mark.parametrize("name", ["plain", "residual"])
@pytest.mark.parametrize("segments", [1, 3, 5])
def test_exact_shapley_values(name, segments):
    network, x, tensor = case(name)
    diagonal = np.add.outer(np.arange(x.shape[1]), np.arange(x.shape[2]))
    labels = diagonal % segments
    expected = theirs(ShapleyValues(network), tensor, labels)
    found = ours("shapley-values", network, x, labels)
    assert_near(found.raw, expected, SINGLE)


def test_sampled_shapley_values_come_near_to_the_exact_ones():
    network, x, tensor = case()
    labels = segmenting.segment(x[0], "grid", 9)
    exact = ours("shapley-values", network, x, labels).raw
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        sampled = theirs(
            ShapleyValueSampling(network), tensor, labels, n_samples=200, perturbations_per_eval=9
        )
    assert_near(sampled, exact, 0.08)
    # With a quarter of the passes the regression comes nearer.
    found = ours("kernel-shap", network, x, labels, samples=400).raw
    assert np.abs(found - exact).max() < np.abs(sampled - exact).max()
    assert_near(found, exact, 0.03)


@pytest.mark.parametrize("name", ["plain", "residual"])
@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_lime_on_equal_samples(name, alpha):
    network, x, tensor = case(name)
    labels = segmenting.segment(x[0], "grid", 9)
    samples = np.random.default_rng(4).integers(0, 2, (60, 9))
    samples[0] = 1

    def similarity(original, perturbed, shown, **kwargs):
        cosine = torch.cosine_similarity(shown.double(), torch.ones_like(shown).double())
        return torch.exp(-((1 - cosine) ** 2) / 0.4**2).sqrt()

    captum = Lime(
        network,
        interpretable_model=SkLearnRidge(alpha=alpha),
        similarity_func=similarity,
        perturb_func=given(samples),
    )
    expected = theirs(captum, tensor, labels, n_samples=60)
    found = ours("lime", network, x, labels, samples=60, seed=4, alpha=alpha, kernel_width=0.4)
    assert_near(found.raw, expected, SINGLE)


@pytest.mark.parametrize("samples", [40, 200, 512])
def test_kernel_shap_on_equal_coalitions(samples):
    network, x, tensor = case()
    labels = segmenting.segment(x[0], "grid", 9)
    pairs = kernel_shap.KernelSHAP(samples=samples)._pairs(9)
    coalitions = np.concatenate([np.ones((1, 9)), np.zeros((1, 9)), pairs.kept, ~pairs.kept])
    # What must be met exactly weighs much, as captum has it.
    weights = np.concatenate([[1e5, 1e5], np.tile(pairs.weights / pairs.weights.mean(), 2)])
    of = {tuple(row.tolist()): weight for row, weight in zip(coalitions, weights, strict=True)}
    captum = Lime(
        network,
        interpretable_model=SkLearnLinearRegression(),
        similarity_func=lambda x, seen, shown, **kwargs: torch.tensor(
            [of[tuple(shown[0].tolist())]]
        ),
        perturb_func=given(coalitions),
    )
    expected = theirs(captum, tensor, labels, n_samples=len(coalitions))
    found = ours("kernel-shap", network, x, labels, samples=samples)
    assert_near(found.raw, expected, 2e-4)


def test_captums_own_draws_scatter_about_the_same_values():
    network, x, tensor = case()
    labels = segmenting.segment(x[0], "grid", 6)
    exact = ours("kernel-shap", network, x, labels, samples=64).raw
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        sampled = theirs(
            KernelShap(network), tensor, labels, n_samples=2000, perturbations_per_eval=50
        )
    assert_near(sampled, exact, 0.06)


@pytest.mark.parametrize("name", ["plain", "strided", "residual"])
@pytest.mark.parametrize("method", METHODS)
def test_the_network_and_the_reference_agree(method, name):
    network, x, _ = case(name)
    labels = segmenting.segment(x[0], "slic", 8)
    params = {} if method == "shapley-values" else {"samples": 50}
    found = ours(method, network, x, labels, **params)
    explainer = METHODS[method](segmentation=labels, fill=FILL, **params)
    reference = ReferenceModel(NETS[name](), "float64")
    expected = explainer.explain(reference, x, [ClassScore(c) for c in CLASSES])
    np.testing.assert_allclose(found.raw, expected.raw, rtol=1e-9, atol=1e-11)
    assert set(found.extras) == set(expected.extras)
    for key, value in found.extras.items():
        np.testing.assert_allclose(value, expected.extras[key], rtol=1e-7, atol=1e-10)
