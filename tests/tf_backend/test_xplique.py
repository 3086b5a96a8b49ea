"""The black-box methods against xplique, on equal masks, designs, segments and samples."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import tensorflow as tf
from scipy.special import comb
from sklearn.linear_model import LinearRegression, Ridge

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # tensorflow-probability asks distutils for versions
    from xplique import attributions as xplique
    from xplique.attributions.global_sensitivity_analysis import (
        hsic_estimators,
        kernels,
        replicated_designs,
        samplers,
        sobol_estimators,
    )

from cnnviz_core.maps import resize
from cnnviz_core.mask_forms import NumPyArrays, draw
from cnnviz_core.random_masks import RandomGrids
from cnnviz_core.targets import ClassScore
from cnnviz_core.testing.nets import NETS, random_input
from cnnviz_perturbation import segmenting
from cnnviz_perturbation.designs import binary_hypercube, low_discrepancy_pairs
from cnnviz_perturbation.hsic import HSIC
from cnnviz_perturbation.kernel_shap import KernelSHAP
from cnnviz_perturbation.lime import LIME
from cnnviz_perturbation.occlusion import Occlusion
from cnnviz_perturbation.rise import RISE
from cnnviz_perturbation.shapley import ShapleyValues
from cnnviz_perturbation.sobol import Sobol
from cnnviz_tf.build import build
from cnnviz_tf.model import wrap

CLASSES = [0, 3]
FILL = 0.3
# xplique computes in float32.
SINGLE = 3e-6


def case(name="plain"):
    net = NETS[name]()
    (x,) = random_input(net, len(CLASSES), seed=2).values()
    return build(net), x.astype(np.float32)


def ours(explainer, network, x):
    return explainer.explain(wrap(network), x, [ClassScore(c) for c in CLASSES])


def theirs(method, network, x):
    """Explain the batch, and leave out the map's only channel."""
    one_hot = np.eye(network.output_shape[-1], dtype=np.float32)[CLASSES]
    return method.explain(x, one_hot).numpy()[..., 0]


def assert_near(found, expected, share=SINGLE):
    """Compare with a tolerance that is a share of the largest value."""
    np.testing.assert_allclose(found, expected, rtol=0, atol=share * np.abs(expected).max())


def kept(kind):
    """Make one of their estimators, which keeps what it gives before that becomes a map."""

    class Kept(kind):
        def __call__(self, *args):
            self.found.append(super().__call__(*args).numpy()[..., 0])
            return self.found[-1]

    estimator = Kept()
    estimator.found = []
    return estimator


# xplique cuts the last window off where it is not flush with the edge.
@pytest.mark.parametrize(("window", "stride"), [(3, 3), (6, 3), (4, 1), (1, 1)])
def test_occlusion(window, stride):
    network, x = case()
    size = x.shape[1:-1]
    summed = theirs(xplique.Occlusion(network, 16, None, window, stride, FILL), network, x)
    times = np.zeros(size)
    for row in range(0, size[0] - window + 1, stride):
        for column in range(0, size[1] - window + 1, stride):
            times[row : row + window, column : column + window] += 1
    found = ours(Occlusion(window=window, stride=stride, fill=FILL), network, x).raw
    assert_near(found, summed / times)


# Where the cells divide a side, xplique's rounding down and ours up are the same.
@pytest.mark.parametrize("cells", [1, 3])
def test_the_masks_of_rise(cells, monkeypatch):
    _, x = case()
    size = x.shape[1:-1]
    masks = RandomGrids(size, cells, 0.4, 64, seed=3)
    grids, shifts = masks._drawn(0)

    def crop(drawn, _):
        # They shift all masks of a batch alike; the paper, and we, each for itself.
        return np.stack(
            [
                mask[tuple(slice(s, s + extent) for s, extent in zip(shift, size, strict=True))]
                for mask, shift in zip(drawn.numpy(), shifts, strict=True)
            ]
        )

    monkeypatch.setattr(tf.image, "random_crop", crop)
    shown, expected = xplique.Rise._apply_masks.python_function(x[0], grids[..., None], FILL)
    found = draw(masks.form(0, 64), NumPyArrays())[..., None]
    assert_near(found, expected)
    assert_near(found * x[0] + (1 - found) * FILL, shown)


def test_rise_on_equal_masks(monkeypatch):
    network, x = case()
    drawn = draw(RandomGrids(x.shape[1:-1], 4, 0.5, 100).form(0, 100), NumPyArrays())[..., None]
    monkeypatch.setattr(xplique.Rise, "EPSILON", 0)
    monkeypatch.setattr(xplique.Rise, "_get_masks", lambda *args: drawn)
    monkeypatch.setattr(
        xplique.Rise, "_apply_masks", lambda x, m, fill: (m * x + (1 - m) * fill, m)
    )
    method = xplique.Rise(network, 16, nb_samples=100, mask_value=FILL)
    found = ours(RISE(samples=100, cells=4, fill=FILL), network, x).raw
    assert_near(found, theirs(method, network, x))


class GivenPairs(replicated_designs.ReplicatedSampler):
    """Our two designs, replicated by them."""

    def __call__(self, dimension, nb_design):
        designs = [d.astype(np.float32) for d in low_discrepancy_pairs(nb_design, dimension, 0)]
        return np.concatenate([*designs, self.build_replicated_design(*designs)])


def sobol(network, x, kind, cells, samples):
    """Give the indices (N, cells, cells) by one of their estimators."""
    estimator = kept(kind)
    method = xplique.SobolAttributionMethod(network, cells, samples, GivenPairs(), estimator)
    theirs(method, network, x)
    return np.stack(estimator.found)


@pytest.mark.parametrize(("cells", "samples"), [(3, 8), (4, 32)])
def test_sobol_indices_on_equal_designs(cells, samples):
    network, x = case()
    expected = sobol(network, x, sobol_estimators.JansenEstimator, cells, samples)
    found = ours(Sobol(cells=cells, samples=samples), network, x).raw
    assert_near(found, resize(expected, x.shape[1:-1], "nearest"))


def test_other_estimators_come_near_to_the_same_indices():
    network, x = case()
    found = ours(Sobol(cells=2, samples=1024, batch_size=256), network, x).raw
    # Janon's is left out: in their form the square of the mean score enters with a weight of 1 / n.
    for kind in (
        sobol_estimators.GlenEstimator,
        sobol_estimators.HommaEstimator,
        sobol_estimators.SaltelliEstimator,
    ):
        expected = resize(sobol(network, x, kind, 2, 1024), x.shape[1:-1], "nearest")
        assert_near(found, expected, 0.005)


class GivenHalves(samplers.Sampler):
    """Our masks of 0 and 1."""

    def __call__(self, dimension, nb_design):
        return binary_hypercube(nb_design, dimension, 0).astype(np.float32)


class ByDistances(hsic_estimators.BinaryEstimator):
    """Their estimator with the width that we take if not told otherwise."""

    def output_kernel_func(self, X, Y):
        width = np.median(np.abs(X - Y)[np.triu_indices(len(X), 1)])
        return kernels.rbf(X, Y, width)


@pytest.mark.parametrize(
    ("bandwidth", "kind"),
    [("scores", hsic_estimators.BinaryEstimator), ("distances", ByDistances)],
)
@pytest.mark.parametrize(("cells", "samples"), [(3, 50), (4, 101)])
def test_hsic_on_equal_masks(bandwidth, kind, cells, samples):
    network, x = case()
    estimator = kept(kind)
    method = xplique.HsicAttributionMethod(
        network, cells, samples, GivenHalves(binary=True), estimator
    )
    theirs(method, network, x)
    # They divide the trace by p, the paper by (p - 1)**2.
    expected = np.stack(estimator.found) * samples / (samples - 1) ** 2
    found = ours(HSIC(cells=cells, samples=samples, bandwidth=bandwidth), network, x).raw
    assert_near(found, resize(expected, x.shape[1:-1], "nearest"), 1e-5)


def linear(network, labels, samples, weights, model):
    """Make their LIME, which fits a linear model to the given samples with the given weights."""
    of = {row.tobytes(): weight for row, weight in zip(samples, weights, strict=True)}
    return xplique.Lime(
        network,
        16,
        interpretable_model=model,
        similarity_kernel=lambda x, rows, shown: tf.constant(
            [of[r.tobytes()] for r in rows.numpy()]
        ),
        pertub_func=lambda features, count: tf.constant(samples),
        map_to_interpret_space=lambda x: labels,
        ref_value=np.full(3, FILL),
        nb_samples=len(samples),
    )


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_lime_on_equal_samples(alpha):
    network, x = case()
    labels = segmenting.segment(x[0], "grid", 9).astype(np.int32)
    samples = np.random.default_rng(4).integers(0, 2, (60, 9)).astype(np.int32)
    samples[0] = 1
    cosine = np.sqrt(samples.mean(1))
    weights = np.exp(-((1 - cosine) ** 2) / (2 * 0.4**2))
    method = linear(network, labels, samples, weights, Ridge(alpha))
    explainer = LIME(
        segmentation=labels, fill=FILL, samples=60, seed=4, alpha=alpha, kernel_width=0.4
    )
    assert_near(ours(explainer, network, x).raw, theirs(method, network, x))


def test_kernel_shap_of_all_coalitions():
    network, x = case()
    labels = segmenting.segment(x[0], "grid", 9).astype(np.int32)
    coalitions = np.indices((2,) * 9, np.int32).reshape(9, -1).T
    size = coalitions.sum(1)
    times = comb(9, size) * size * (9 - size)
    # What must be met exactly, by none and by all, weighs much.
    weights = np.divide(8, times, out=np.full(512, 1e3), where=times > 0)
    method = linear(network, labels, coalitions, weights, LinearRegression())
    explainer = KernelSHAP(segmentation=labels, fill=FILL, samples=512)
    assert_near(ours(explainer, network, x).raw, theirs(method, network, x), 2e-4)


def test_kernel_shap_on_equal_coalitions():
    network, x = case()
    labels = segmenting.segment(x[0], "grid", 9).astype(np.int32)
    explainer = KernelSHAP(segmentation=labels, fill=FILL, samples=40)
    pairs = explainer._pairs(9)
    coalitions = np.concatenate([np.ones((1, 9)), np.zeros((1, 9)), pairs.kept, ~pairs.kept])
    weights = np.concatenate([[1e5, 1e5], np.tile(pairs.weights / pairs.weights.mean(), 2)])
    method = linear(network, labels, coalitions.astype(np.int32), weights, LinearRegression())
    assert_near(ours(explainer, network, x).raw, theirs(method, network, x), 2e-5)


def test_their_kernel_shap_scatters_about_the_same_values_but_for_their_mean():
    network, x = case()
    labels = segmenting.segment(x[0], "grid", 6).astype(np.int32)
    method = xplique.KernelShap(
        network,
        500,
        map_to_interpret_space=lambda x: labels,
        nb_samples=4000,
        ref_value=np.full(3, FILL),
    )
    exact = ours(ShapleyValues(segmentation=labels, fill=FILL), network, x).raw
    # They do not ask that the values sum to what there is to explain, which shifts all of them.
    centred = [
        maps - maps.mean((1, 2), keepdims=True) for maps in (exact, theirs(method, network, x))
    ]
    assert_near(*centred, 0.05)
