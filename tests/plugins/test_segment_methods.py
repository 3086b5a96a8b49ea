"""LIME, KernelSHAP and Shapley values: theorems, and plain loops over coalitions and orders."""

from __future__ import annotations

from itertools import permutations, product
from math import comb

import numpy as np
import pytest

from cnnviz_core.errors import ArrayError, ParameterError
from cnnviz_core.explainer import passes_of
from cnnviz_core.netspec import NetSpec, Op
from cnnviz_core.parameters import build
from cnnviz_core.targets import ClassProbability, ClassScore, Contrast, Predicted
from cnnviz_core.testing.explainers import parametrize_with_checks
from cnnviz_core.testing.nets import NETS, random_input
from cnnviz_core.testing.reference import ReferenceModel
from cnnviz_perturbation.kernel_shap import KernelSHAP
from cnnviz_perturbation.lime import LIME
from cnnviz_perturbation.segmenting import segment
from cnnviz_perturbation.shapley import ShapleyValues

SUPERPIXELS = ["slic", "felzenszwalb", "quickshift"]
METHODS = [LIME, KernelSHAP, ShapleyValues]


def case(name="plain", n=2, seed=5, dtype="float64"):
    net = NETS[name]()
    (x,) = random_input(net, n, seed).values()
    return ReferenceModel(net, dtype), x.astype(dtype)


MODEL, X = case()
TARGETS = [ClassScore(3), ClassProbability(1)]
SIX = segment(X[0], "grid", 6)  # 3 x 2 blocks
NINE = segment(X[0], "grid", 9)


def explain(method, model=MODEL, x=X, targets=TARGETS, **params):
    return build(method, {"segmentation": "grid", **params}).explain(model, x, targets)


def by_segment(raw, labels):
    """Read, of a map that is even in each segment, the values (K,)."""
    values = np.array([raw[labels == k][0] for k in range(labels.max() + 1)])
    np.testing.assert_array_equal(values[labels], raw)
    return values


def worth(model, x, target, labels, fill):
    """Give a function of a coalition: the score of the sample with nothing else shown."""

    def value(coalition):
        shown = np.isin(labels, list(coalition))[..., None]
        return target.score(model.forward(np.where(shown, x, fill)[None]).logits[0])

    return value


def dense(weight, hidden=(), bias=None):
    """Make a network that flattens pictures (6, 8, 2): linear, or with a rectified layer."""
    arrays = {"conv.weight": np.eye(2)[None, None], "fc.weight": weight}
    if bias is not None:
        arrays["fc.bias"] = bias
    ops = [
        Op("conv", "conv", ("image",)),
        Op("flat", "flatten", ("conv",)),
        Op("fc", "linear", ("flat",)),
    ]
    for after in hidden:
        arrays["out.weight"] = after
        ops += [Op("relu", "relu", ("fc",)), Op("out", "linear", ("relu",))]
    return ReferenceModel(NetSpec({"image": (6, 8, 2)}, tuple(ops), arrays), "float64")


@parametrize_with_checks(
    [
        LIME(segmentation="grid", segments=6, samples=40, kernel_width=0.5, batch_size=7),
        LIME(segmentation="grid", segments=6, samples=40, features=3, fill="noise"),
        KernelSHAP(segmentation="grid", segments=6, samples=20, fill=0.2, batch_size=7),
        KernelSHAP(segmentation="grid", segments=6, samples=64, fill="segment-mean"),
        KernelSHAP(segmentation="felzenszwalb", samples=40, fill="blur"),
        ShapleyValues(segmentation="quickshift", segments=4),
    ]
)
def test_the_checks(explainer, check):
    check(explainer)


# -------------------------------------------------------------------------------- segments


def scene():
    """Paint three flat regions of different colours."""
    x = np.zeros((72, 56, 3))
    x[:, 25:] = (1, 0.1, 0.1)
    x[40:, 10:43] = (0.1, 0.3, 1)
    return x


@pytest.mark.parametrize("how", [*SUPERPIXELS, "grid"])
@pytest.mark.parametrize("wanted", [1, 6, 15])
@pytest.mark.parametrize("name", ["plain", "signal", "grey", "constant"])
def test_segments_are_numbered_from_0_and_always_the_same(how, wanted, name):
    rng = np.random.default_rng(1)
    x = {
        "plain": rng.normal(size=(24, 30, 3)),
        "signal": rng.normal(size=(50, 4)),
        "grey": rng.normal(size=(24, 30, 1)).astype(np.float32),
        "constant": np.full((24, 30, 3), 0.7),
    }[name]
    x = np.round(x * 256) / 256
    labels = segment(x, how, wanted)
    assert labels.shape == x.shape[:-1]
    assert labels.dtype == np.int64
    assert set(np.unique(labels)) == set(range(labels.max() + 1))
    np.testing.assert_array_equal(segment(x.copy(), how, wanted), labels)
    # Whatever the range of values; these are scaled and moved without rounding.
    np.testing.assert_array_equal(segment(x * 16 - 32, how, wanted), labels)


def test_noise_is_divided_too():
    assert segment(X[0], "slic", 8).max() + 1 >= 5


@pytest.mark.parametrize("how", SUPERPIXELS)
@pytest.mark.parametrize("scale", [(1, 0), (255, 0), (4.5, -2.1)])
def test_superpixels_keep_to_the_edges(how, scale):
    x = scene()
    regions = np.unique(x.reshape(-1, 3), axis=0, return_inverse=True)[1].reshape(x.shape[:2])

    def even(labels):
        of = [np.bincount(regions[labels == k]).max() for k in range(labels.max() + 1)]
        return sum(of) / labels.size

    assert even(segment(x * scale[0] + scale[1], how, 12)) > 0.97
    assert even(segment(x, "grid", 12)) < 0.92


@pytest.mark.parametrize("how", [*SUPERPIXELS, "grid"])
@pytest.mark.parametrize("wanted", [9, 20, 40])
def test_there_are_about_as_many_as_wanted(how, wanted):
    from scipy.ndimage import gaussian_filter

    x = gaussian_filter(np.random.default_rng(2).normal(size=(96, 80, 3)), (5, 5, 0))
    assert 0.6 * wanted <= segment(x, how, wanted).max() + 1 <= 1.4 * wanted


def test_quick_shift_gives_as_many_as_wanted_where_there_are_no_more_modes():
    x = np.random.default_rng(0).normal(size=(40, 30, 3))
    modes = segment(x, "quickshift", 1).max() + 1
    assert [segment(x, "quickshift", n).max() + 1 for n in (200, 300)] == [200, 300]
    assert modes < 10


@pytest.mark.parametrize(
    ("size", "wanted", "blocks"),
    [((8, 8), 4, (2, 2)), ((12, 9), 6, (3, 2)), ((20,), 7, (7,)), ((4, 4, 8), 16, (2, 2, 4))],
)
def test_a_grid_has_equal_blocks(size, wanted, blocks):
    labels = segment(np.zeros((*size, 2)), "grid", wanted)
    ends = [np.arange(e) * b // e for e, b in zip(size, blocks, strict=True)]
    expected = np.ravel_multi_index(np.meshgrid(*ends, indexing="ij"), blocks)
    np.testing.assert_array_equal(labels, expected)


def test_volumes_have_supervoxels():
    x = np.zeros((8, 10, 12, 1))
    x[:, :, 5:] = 1
    labels = segment(x, "slic", 8)
    assert labels.max() + 1 >= 4
    assert not set(labels[:, :, :4].flat) & set(labels[:, :, 6:].flat)
    for how in ("felzenszwalb", "quickshift"):
        with pytest.raises(ArrayError, match=f"{how} was asked to divide"):
            segment(x, how, 8)


def test_drawn_segments_are_taken_as_they_are():
    drawn = np.array([[7, 7, -1], [3, 3, 3]], dtype=np.int16)
    labels = segment(np.zeros((2, 3, 1)), drawn, 5)
    np.testing.assert_array_equal(labels, [[2, 2, 0], [1, 1, 1]])
    for wrong in (drawn.T, drawn.astype(float), drawn[None]):
        with pytest.raises(ArrayError, match="the segments are an array of"):
            segment(np.zeros((2, 3, 1)), wrong, 5)


# -------------------------------------------------------------------------- Shapley values


@pytest.mark.parametrize("segments", [1, 2, 4])
@pytest.mark.parametrize("name", ["plain", "signal", "volume"])
def test_shapley_values_are_means_over_all_orders(name, segments):
    model, x = case(name)
    labels = segment(x[0], "grid", segments)
    k = labels.max() + 1
    maps = explain(ShapleyValues, model, x, segments=segments, fill=0.3)
    for n, target in enumerate(TARGETS):
        value = worth(model, x[n], target, labels, 0.3)
        orders = list(permutations(range(k)))
        expected = np.zeros(k)
        for order in orders:
            for i, player in enumerate(order):
                expected[player] += value(order[: i + 1]) - value(order[:i])
        found = by_segment(maps.raw[n], labels)
        np.testing.assert_allclose(found, expected / len(orders), rtol=1e-10, atol=1e-13)
        assert maps.extras["base"][n] == pytest.approx(value(()), rel=1e-12)
    np.testing.assert_array_equal(maps.extras["segments"], [labels, labels])


@pytest.mark.parametrize("segments", [1, 2, 3, 4, 5, 6, 9, 10])
def test_with_the_whole_budget_kernel_shap_is_exact(segments):
    (x,) = random_input(NETS["signal"](), 2, 3).values()
    model = ReferenceModel(NETS["signal"](), "float64")
    x = x.astype(float)
    k = segment(x[0], "grid", segments).max() + 1
    assert k == segments
    exact = explain(ShapleyValues, model, x, segments=k)
    for samples in (2**k, 2**k + 5):
        found = explain(KernelSHAP, model, x, segments=k, samples=max(samples, 2))
        np.testing.assert_allclose(found.raw, exact.raw, atol=1e-12)
        assert not found.extras["standard_error"].any()
        np.testing.assert_allclose(found.extras["base"], exact.extras["base"], rtol=1e-12)


@pytest.mark.parametrize("samples", [2, 5, 12, 30, 61, 64])
@pytest.mark.parametrize("fill", ["mean", "blur", "noise", "segment-mean", -0.4])
def test_the_values_sum_to_what_the_whole_adds_to_the_fill(samples, fill):
    for method, params in ((KernelSHAP, {"samples": samples}), (ShapleyValues, {})):
        maps = explain(method, segmentation=SIX, fill=fill, **params)
        for n in range(2):
            total = by_segment(maps.raw[n], SIX).sum()
            assert total == pytest.approx(maps.scores[n] - maps.extras["base"][n], abs=1e-13)


def test_with_more_samples_the_error_falls_and_is_as_large_as_is_said():
    few = {"x": X[:1], "targets": TARGETS[:1], "segmentation": NINE}
    exact = explain(ShapleyValues, **few).raw
    errors = []
    for samples in (60, 120, 240):
        runs = [explain(KernelSHAP, **few, samples=samples, seed=s) for s in range(30)]
        errors.append(np.sqrt(np.mean([(run.raw - exact) ** 2 for run in runs])))
        said = np.sqrt(np.mean([run.extras["standard_error"] ** 2 for run in runs]))
        assert said == pytest.approx(errors[-1], rel=0.25)
    assert errors[0] > 1.3 * errors[1] > 1.7 * errors[2]
    assert np.isnan(explain(KernelSHAP, **few, samples=12).extras["standard_error"]).all()


@pytest.mark.parametrize(("k", "samples"), [(5, 16), (6, 20), (6, 50), (9, 60)])
def test_a_coalition_weighs_on_average_as_the_kernel_says(k, samples):
    found: dict[tuple[bool, ...], float] = {}
    for seed in range(400):
        pairs = KernelSHAP(samples=samples, seed=seed)._pairs(k)
        assert len(pairs.kept) <= (samples - 2) // 2
        both = np.concatenate([pairs.kept, ~pairs.kept])
        assert len(np.unique(both, axis=0)) == len(both)
        for kept, weight in zip(pairs.kept, pairs.weights, strict=True):
            for each in (kept, ~kept):
                key = tuple(each.tolist())
                found[key] = found.get(key, 0) + weight / 400
    kernel = np.array([(k - 1) / (comb(k, sum(s)) * sum(s) * (k - sum(s))) for s in found])
    assert len(found) == 2**k - 2
    ratio = np.array(list(found.values())) / kernel * (k - 1)
    assert np.average(ratio, weights=kernel) == pytest.approx(1, rel=1e-10)
    sizes = np.array([sum(s) for s in found])
    for size in range(1, k):
        assert ratio[sizes == size].mean() == pytest.approx(1, rel=0.12)
        assert ratio[sizes == size].std() < 0.3


@pytest.mark.parametrize("samples", [30, 120])
def test_the_constrained_regression_is_its_formula(samples):
    explainer = KernelSHAP(segmentation=NINE, samples=samples, seed=2)
    maps = explainer.explain(MODEL, X, TARGETS)
    pairs = explainer._pairs(9)
    z = np.concatenate([pairs.kept, ~pairs.kept]).astype(float)
    weights = np.tile(pairs.weights, 2)[:, None]
    for n, target in enumerate(TARGETS):
        value = worth(MODEL, X[n], target, NINE, X[n].mean((0, 1)))
        y = np.array([value(np.flatnonzero(row)) for row in z]) - value(())
        # The conditions of Lagrange: the gradient is even, and the sum is what it must be.
        system = np.block([[z.T @ (weights * z), np.ones((9, 1))], [np.ones((1, 9)), 0]])
        right = [*(z.T @ (weights[:, 0] * y)), maps.scores[n] - value(())]
        expected = np.linalg.solve(system, right)[:9]
        np.testing.assert_allclose(by_segment(maps.raw[n], NINE), expected, atol=1e-11)


@pytest.mark.parametrize(("labels", "samples"), [(SIX, 40), (NINE, 40), (NINE, 100)])
def test_the_standard_error_of_kernel_shap_is_the_jackknife(labels, samples):
    explainer = KernelSHAP(segmentation=labels, samples=samples)
    maps = explainer.explain(MODEL, X[:1], TARGETS[:1])
    k = labels.max() + 1
    pairs = explainer._pairs(k)
    value = worth(MODEL, X[0], TARGETS[0], labels, X[0].mean((0, 1)))
    gain = value(range(k)) - value(())
    members = np.concatenate([pairs.kept, ~pairs.kept])
    y = np.array([value(np.flatnonzero(row)) - value(()) for row in members])

    def fit(weights):
        """Leave out the last value, which is what is left of the gain."""
        root = np.sqrt(np.tile(weights, 2))
        z = members[:, :-1].astype(float) - members[:, -1:]
        rest = np.linalg.lstsq(root[:, None] * z, root * (y - gain * members[:, -1]))[0]
        return np.append(rest, gain - rest.sum())

    found = fit(pairs.weights)
    np.testing.assert_allclose(by_segment(maps.raw[0], labels), found, atol=1e-11)
    without = []
    for i in np.flatnonzero(pairs.draws):
        weights = pairs.weights.copy()
        weights[i] *= 1 - 1 / pairs.draws[i]
        without += [fit(weights)] * pairs.draws[i]
    assert max(pairs.draws) > 1
    expected = np.std(without, axis=0) * np.sqrt(len(without) - 1)
    said = by_segment(maps.extras["standard_error"][0], labels)
    np.testing.assert_allclose(said, expected, rtol=1e-7)


def test_what_does_not_count_gets_nothing():
    weight = np.random.default_rng(3).normal(size=(6, 8, 2, 5))
    weight[:, 4:] = 0
    model = dense(weight.reshape(-1, 5), [np.random.default_rng(4).normal(size=(5, 2))])
    x = np.random.default_rng(5).normal(size=(2, 6, 8, 2))
    labels = np.arange(8)[None, :] // 2 + 4 * (np.arange(6)[:, None] // 3)
    targets = [ClassScore(0), ClassScore(1)]
    for method in (ShapleyValues, KernelSHAP):
        raw = explain(method, model, x, targets, segmentation=labels).raw
        np.testing.assert_allclose(raw[:, :, 4:], 0, atol=1e-13)
        assert abs(raw[:, :, :4]).min() > 1e-3


def test_what_is_alike_gets_alike():
    rng = np.random.default_rng(6)
    arrays = {
        "conv.weight": rng.normal(size=(1, 1, 2, 4)),
        "fc.weight": rng.normal(size=(4, 5)),
        "out.weight": rng.normal(size=(5, 2)),
    }
    ops = (
        Op("conv", "conv", ("image",)),
        Op("relu1", "relu", ("conv",)),
        Op("gap", "gap", ("relu1",)),
        Op("fc", "linear", ("gap",)),
        Op("relu2", "relu", ("fc",)),
        Op("out", "linear", ("relu2",)),
    )
    model = ReferenceModel(NetSpec({"image": (6, 8, 2)}, ops, arrays), "float64")
    x = rng.normal(size=(2, 6, 8, 2))
    x[:, 3:, 4:6] = x[:, :3, :2]
    labels = np.arange(8)[None, :] // 2 + 4 * (np.arange(6)[:, None] // 3)
    targets = [ClassScore(0), ClassScore(1)]
    for method in (ShapleyValues, KernelSHAP):
        raw = explain(method, model, x, targets, segmentation=labels, fill=0.0).raw
        np.testing.assert_allclose(raw[:, 0, 0], raw[:, 3, 4], rtol=1e-10)
        assert abs(raw[:, 0, 0] - raw[:, 0, 2]).min() > 1e-4


@pytest.mark.parametrize("method", METHODS)
def test_the_values_of_a_sum_of_scores_are_sums(method):
    params = {} if method is ShapleyValues else {"samples": 30}
    one, other, both = (
        explain(method, targets=[t] * 2, segmentation=SIX, **params)
        for t in (ClassScore(1), ClassScore(4), Contrast(1, 4))
    )
    np.testing.assert_allclose(both.raw, one.raw - other.raw, atol=1e-13)


def test_too_many_segments_are_not_enumerated():
    labels = np.arange(12 * 9).reshape(12, 9) % 17
    for ask in (lambda e: e.explain(MODEL, X, TARGETS), lambda e: e.passes(MODEL, X)):
        with pytest.raises(ArrayError, match=r"17 segments, of which 131072 coalitions"):
            ask(ShapleyValues(segmentation=labels))
    with pytest.raises(ParameterError):
        build(ShapleyValues, {"segments": 17})


# ------------------------------------------------------------------------------------ LIME


def linear_case():
    rng = np.random.default_rng(7)
    weight = rng.normal(size=(6 * 8 * 2, 3))
    x = rng.normal(size=(2, 6, 8, 2))
    labels = np.arange(8)[None, :] // 2 + 4 * (np.arange(6)[:, None] // 3)
    terms = (weight.T.reshape(3, 1, 6, 8, 2) * (x - 0.3)).sum(-1)[[0, 2], [0, 1]]
    values = np.array([[t[labels == k].sum() for k in range(8)] for t in terms])
    return dense(weight, bias=rng.normal(size=3)), x, labels, values[:, labels]


@pytest.mark.parametrize("method", METHODS)
def test_of_a_linear_model_the_terms_are_found(method):
    model, x, labels, expected = linear_case()
    params = {LIME: {"samples": 40, "alpha": 0.0}, KernelSHAP: {"samples": 60}}.get(method, {})
    targets = [ClassScore(0), ClassScore(2)]
    maps = explain(method, model, x, targets, segmentation=labels, fill=0.3, **params)
    np.testing.assert_allclose(maps.raw, expected, rtol=1e-10)
    base = maps.extras["intercept" if method is LIME else "base"]
    at_fill = model.forward(np.full_like(x, 0.3)).logits[[0, 1], [0, 2]]
    np.testing.assert_allclose(base, at_fill, rtol=1e-10)
    if method is LIME:
        np.testing.assert_allclose(maps.extras["r2"], 1, rtol=1e-12)
        np.testing.assert_allclose(maps.extras["standard_error"], 0, atol=1e-12)


@pytest.mark.parametrize("alpha", [0.0, 1.0, 20.0])
@pytest.mark.parametrize("seed", [0, 3])
def test_lime_is_its_formula(alpha, seed):
    maps = explain(LIME, segmentation=SIX, samples=50, alpha=alpha, seed=seed, kernel_width=0.4)
    z = np.random.default_rng(seed).integers(0, 2, (50, 6))
    z[0] = 1
    for n, target in enumerate(TARGETS):
        value = worth(MODEL, X[n], target, SIX, X[n].mean((0, 1)))
        y = np.array([value(np.flatnonzero(row)) for row in z])
        weights = []
        for row in z:
            norm = np.linalg.norm(row) * np.sqrt(6)
            d = 1 - row.sum() / norm if norm else 1
            weights.append(np.sqrt(np.exp(-(d**2) / 0.4**2)))
        # Ridge regression is least squares with a row more for each coefficient.
        root = np.sqrt(weights)[:, None]
        rows = np.r_[root * np.c_[z, np.ones(50)], np.sqrt(alpha) * np.eye(6, 7)]
        expected = np.linalg.lstsq(rows, np.r_[root[:, 0] * y, np.zeros(6)])[0]
        np.testing.assert_allclose(by_segment(maps.raw[n], SIX), expected[:6], atol=1e-12)
        assert maps.extras["intercept"][n] == pytest.approx(expected[6], abs=1e-12)
        error = np.average((y - np.c_[z, np.ones(50)] @ expected) ** 2, weights=weights)
        spread = np.average((y - np.average(y, weights=weights)) ** 2, weights=weights)
        assert maps.extras["r2"][n] == pytest.approx(1 - error / spread, abs=1e-12)


@pytest.mark.parametrize("alpha", [0.0, 2.0])
def test_the_standard_error_of_lime_is_the_jackknife(alpha):
    few = {"x": X[:1], "targets": TARGETS[:1], "segmentation": SIX}
    maps = explain(LIME, **few, samples=25, alpha=alpha)
    z = np.random.default_rng(0).integers(0, 2, (25, 6))
    z[0] = 1
    value = worth(MODEL, X[0], TARGETS[0], SIX, X[0].mean((0, 1)))
    y = np.array([value(np.flatnonzero(row)) for row in z])
    root = np.exp(-((1 - np.sqrt(z.mean(1))) ** 2) / 0.25**2 / 4)
    rows, right = root[:, None] * np.c_[z, np.ones(25)], root * y
    without = []
    for i in range(25):
        left = np.r_[np.delete(rows, i, 0), np.sqrt(alpha) * np.eye(6, 7)]
        without.append(np.linalg.lstsq(left, np.r_[np.delete(right, i), np.zeros(6)])[0][:6])
    expected = np.std(without, axis=0) * np.sqrt(24)
    said = by_segment(maps.extras["standard_error"][0], SIX)
    np.testing.assert_allclose(said, expected, rtol=1e-7)


def test_the_standard_error_of_lime_is_the_scatter_over_seeds():
    few = {"x": X[:1], "targets": TARGETS[:1], "segmentation": NINE}
    runs = [explain(LIME, **few, samples=80, seed=s) for s in range(40)]
    scatter = np.std([run.raw for run in runs], axis=0, ddof=1)
    said = np.mean([run.extras["standard_error"] for run in runs], axis=0)
    np.testing.assert_allclose(said, scatter, rtol=0.4)
    assert said.mean() == pytest.approx(scatter.mean(), rel=0.1)
    scarce = explain(LIME, **few, samples=10)
    assert np.isnan(scarce.extras["standard_error"]).all()
    assert np.isfinite(scarce.raw).all()


def test_the_lasso_chooses_what_counts():
    weight = np.random.default_rng(8).normal(size=(6, 8, 2, 3)) * 1e-3
    weight[:3, 2:4] += 1
    weight[3:, 6:] -= 0.5
    model, (_, x, labels, _) = dense(weight.reshape(-1, 3)), linear_case()
    x = np.abs(x)
    targets = [ClassScore(0), ClassScore(2)]
    params = {"segmentation": labels, "samples": 200, "fill": 0.0}
    maps = explain(LIME, model, x, targets, features=2, **params)
    for n in range(2):
        values = by_segment(maps.raw[n], labels)
        assert set(np.flatnonzero(values)) == {1, 7}
        error = by_segment(maps.extras["standard_error"][n], labels)
        assert set(np.flatnonzero(error)) == {1, 7}
    every = explain(LIME, model, x, targets, features=8, **params)
    np.testing.assert_allclose(every.raw, explain(LIME, model, x, targets, **params).raw)


def test_a_score_that_never_changes_has_no_terms():
    model = dense(np.zeros((96, 3)), bias=np.ones(3))
    x = np.random.default_rng(0).normal(size=(1, 6, 8, 2))
    for method, params in ((LIME, {"features": 2}), (LIME, {}), (KernelSHAP, {})):
        maps = explain(method, model, x, [ClassScore(1)], segments=6, **params)
        np.testing.assert_allclose(maps.raw, 0, atol=1e-14)


# --------------------------------------------------------------------- fills, work, memory


class Counting:
    """A model that notes how many samples each call has."""

    def __init__(self, model):
        self.model, self.calls = model, []

    def __getattr__(self, name):
        return getattr(self.model, name)

    def forward(self, x, **more):
        self.calls.append(len(x))
        return self.model.forward(x, **more)


@pytest.mark.parametrize("method", METHODS)
def test_hiding_an_even_segment_behind_its_own_mean_changes_nothing(method):
    colours = np.random.default_rng(1).normal(size=(6, 3))
    flat = colours[SIX][None]
    maps = explain(method, MODEL, flat, TARGETS[:1], segmentation=SIX, fill="segment-mean")
    np.testing.assert_allclose(maps.raw, 0, atol=1e-13)


def test_the_fill_may_be_any_array_that_fits():
    fill = np.random.default_rng(2).normal(size=X.shape[1:])
    base = explain(ShapleyValues, segmentation=SIX, fill=fill, targets=[ClassScore(3)] * 2)
    expected = MODEL.forward(fill[None]).logits[0, 3]
    np.testing.assert_allclose(base.extras["base"], expected, rtol=1e-12)
    with pytest.raises(ArrayError, match="the fill has the shape"):
        explain(ShapleyValues, fill=fill[1:])


@pytest.mark.parametrize(
    "explainer",
    [
        LIME(segmentation=SIX, samples=30),
        KernelSHAP(segmentation=SIX, samples=2),
        KernelSHAP(segmentation=SIX, samples=31),
        KernelSHAP(segmentation=SIX, samples=500),
        KernelSHAP(segments=20, samples=100),
        ShapleyValues(segmentation=SIX),
    ],
)
def test_passes_are_what_is_said_beforehand_a_batch_at_a_time(explainer):
    model = Counting(MODEL)
    explainer.explain(model, X[:1], TARGETS[:1])
    assert sum(model.calls) == passes_of(explainer, MODEL, X[:1])
    assert sum(model.calls) <= getattr(explainer, "samples", 64)
    assert max(model.calls) <= 16


@pytest.mark.parametrize("method", METHODS)
def test_targets_of_one_picture_share_its_passes(method):
    targets = [ClassScore(0), ClassScore(4), Contrast(2, 1), Predicted(1)]
    shared = Counting(MODEL)
    together = explain(method, shared, np.repeat(X[:1], 4, axis=0), targets, segments=6)
    for n, target in enumerate(targets):
        alone = Counting(MODEL)
        single = explain(method, alone, X[:1], [target], segments=6)
        np.testing.assert_allclose(together.raw[n], single.raw[0], atol=1e-12)
        assert together.targets[n] == single.targets[0]
        # But for the first pass, over all rows, the calls are those of one target.
        assert shared.calls == [4, *alone.calls[1:]]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_type_of_the_numbers_is_kept(method, dtype):
    model, x = case(dtype=dtype)
    maps = explain(method, model, x, segments=6)
    assert maps.raw.dtype == dtype
    about = ("segments", "samples", "history")
    numbers = {name: extra for name, extra in maps.extras.items() if name not in about}
    assert {extra.dtype for extra in numbers.values()} == {np.dtype(dtype)}


@pytest.mark.parametrize("method", METHODS)
def test_samples_without_axes_to_divide_are_refused(method):
    with pytest.raises(ArrayError, match=r"a batch of the shape \(2, 3\)"):
        explain(method, MODEL, np.zeros((2, 3)))


def test_every_coalition_is_scored_once():
    seen = []

    class Watched(Counting):
        def forward(self, x, **more):
            seen.extend(x)
            return super().forward(x, **more)

    explain(ShapleyValues, Watched(MODEL), X[:1], TARGETS[:1], segmentation=SIX)
    shown = {tuple((p[k == SIX] == X[0][k == SIX]).all() for k in range(6)) for p in seen}
    assert len(seen) == 64
    assert shown == set(product((False, True), repeat=6))
