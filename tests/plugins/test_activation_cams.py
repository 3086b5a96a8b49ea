"""Maps made of feature maps alone, and the controls, against their formulas in double precision."""

from __future__ import annotations

from dataclasses import asdict, is_dataclass
from itertools import product

import numpy as np
import pytest
from scipy import linalg
from sklearn.decomposition import NMF, KernelPCA

from cnnviz_cam import deep_feature_factorisation
from cnnviz_cam._activations import ACTIVATIONS
from cnnviz_cam.centre_gaussian import CentreGaussian
from cnnviz_cam.deep_feature_factorisation import DeepFeatureFactorisation, factorise
from cnnviz_cam.eigen_cam import EigenCAM
from cnnviz_cam.eigen_grad_cam import EigenGradCAM
from cnnviz_cam.fem import FEM
from cnnviz_cam.kpca_cam import KPCACAM
from cnnviz_cam.random_cam import RandomCAM
from cnnviz_core.errors import ArrayError, ParameterError
from cnnviz_core.explainer import present
from cnnviz_core.importing import import_string
from cnnviz_core.maps import principal
from cnnviz_core.model import INPUT, LOGITS, OUTPUT, InputInfo, LayerInfo, Pullback, Trace
from cnnviz_core.registry import get_registry
from cnnviz_core.targets import ClassScore, Contrast, Predicted
from cnnviz_core.testing.explainers import parametrize_with_checks
from cnnviz_core.testing.nets import NETS, random_input
from cnnviz_core.testing.reference import ReferenceModel

NET = NETS["plain"]()
MODEL = ReferenceModel(NET, "float64")
X = random_input(NET, 3, seed=5)["image"].astype(np.float64)
TARGETS = [ClassScore(3), Contrast(1, 4), ClassScore(0)]
LAYERS = ["conv1", "relu1", "conv2", "relu2"]
GRIDS = [(9,), (5, 4), (3, 4, 2)]

ON_FEATURES = [
    EigenCAM(),
    EigenCAM(centre=True),
    EigenGradCAM(),
    EigenGradCAM(centre=False),
    KPCACAM(),
    KPCACAM(kernel="rbf"),
    KPCACAM(kernel="poly", gamma=0.2),
    KPCACAM(kernel="linear"),
    FEM(),
    FEM(k=0.5),
    DeepFeatureFactorisation(),
    DeepFeatureFactorisation(concepts=3, concept=1),
]
WITH_TERMS = [EigenCAM(), EigenCAM(centre=True), EigenGradCAM(), FEM(k=0.5), RandomCAM()]


class Held:
    """A network whose one layer holds its input, on a grid of any rank.

    With ``x_p`` the values at a position, the score of a class is ``mean_p (w_c . x_p)^2 / 2``: its
    gradient differs from position to position.
    """

    framework = "numpy"
    capabilities = frozenset({"capture", "gradient"})
    activation = "softmax"

    def __init__(self, x, weight=None):
        draws = np.random.default_rng(3)
        self.weight = draws.normal(size=(x.shape[-1], 3)) if weight is None else weight
        self.inputs = {"input": InputInfo("input", x.shape[1:], "float64")}
        self.layers = {"held": LayerInfo("held", "conv", "Held", x.shape[1:], x.shape[1:-1])}
        self.passes = []

    def _values(self, x):
        grid = tuple(range(1, x.ndim - 1))
        logits = np.square(x @ self.weight).mean(axis=grid) / 2
        return {"held": x, LOGITS: logits, OUTPUT: logits}

    def forward(self, x, *, capture=(), replace=None):
        self.passes.append("forward")
        return Trace(self._values(x))

    def pullback(self, x, cotangent, *, of=LOGITS, wrt=(INPUT,), rule=None):
        self.passes.append("pullback")
        values = self._values(x)
        upstream = cotangent(values[of])
        positions = np.prod(x.shape[1:-1])
        wide = upstream.reshape(len(x), *(1,) * (x.ndim - 2), -1)
        gradient = (wide * (x @ self.weight)) @ self.weight.T / positions
        return Pullback(values, {"held": gradient})


def held(grid=(5, 4), channels=7, n=2, seed=0, rectified=True):
    x = np.random.default_rng(seed).normal(size=(n, *grid, channels))
    return np.maximum(x, 0) if rectified else x


def on(explainer, x, targets=None, weight=None):
    return explainer.explain(
        Held(x, weight), x, targets or [ClassScore(i % 3) for i in range(len(x))]
    )


def name_of(explainer):
    if not is_dataclass(explainer):
        return None
    fields = {k: v for k, v in asdict(explainer).items() if k != "layer"}
    return f"{type(explainer).__name__}({','.join(f'{k}={v}' for k, v in fields.items())})"


def seen(layer, n):
    """Give the feature vectors (P, K) of one sample, and their gradients."""
    target = TARGETS[n]
    back = MODEL.pullback(X[n : n + 1], lambda v: target.gradient(v[0])[None], wrt=[layer])
    channels = back.values[layer].shape[-1]
    return back.values[layer].reshape(-1, channels), back.gradients[layer].reshape(-1, channels)


def projected(matrix, centre):
    if centre:
        matrix = matrix - matrix.mean(axis=0)
    return matrix @ np.linalg.svd(matrix)[2][0]


def same_up_to_sign(found, expected, rtol=1e-10):
    close = [
        np.allclose(found, s * expected, rtol=0, atol=rtol * np.abs(expected).max())
        for s in (1, -1)
    ]
    assert any(close), np.abs(np.abs(found) - np.abs(expected)).max() / np.abs(expected).max()


@parametrize_with_checks([*ON_FEATURES, RandomCAM(), CentreGaussian()])
def test_the_methods_obey_the_contract(explainer, check):
    check(explainer)


@pytest.mark.parametrize("spec", ACTIVATIONS, ids=lambda s: s.name)
def test_what_is_announced_is_what_the_class_says(spec):
    method = import_string(spec.target)
    assert spec.needs == method.needs
    assert spec.class_agnostic == getattr(method(), "class_agnostic", False)
    assert spec.cost
    for name in (spec.name, *spec.aliases):
        assert isinstance(get_registry().explainer(name), method)


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("centre", [False, True])
def test_eigen_cam_projects_on_the_first_right_singular_vector(layer, centre):
    maps = EigenCAM(layer, centre).explain(MODEL, X, TARGETS)
    for n in range(len(X)):
        features, _ = seen(layer, n)
        same_up_to_sign(maps.raw[n].ravel(), projected(features, centre))


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("centre", [False, True])
def test_eigen_grad_cam_does_so_with_gradient_times_features(layer, centre):
    maps = EigenGradCAM(layer, centre).explain(MODEL, X, TARGETS)
    for n in range(len(X)):
        features, gradients = seen(layer, n)
        same_up_to_sign(maps.raw[n].ravel(), projected(features * gradients, centre))


@pytest.mark.parametrize(("grid", "channels"), [((4, 3), 40), ((40,), 6), ((6,), 6), ((1, 2), 9)])
@pytest.mark.parametrize("centre", [False, True])
def test_it_matters_not_which_side_of_the_matrix_is_longer(grid, channels, centre):
    x = held(grid, channels, rectified=False)
    for n, raw in enumerate(on(EigenCAM(centre=centre), x).raw):
        same_up_to_sign(raw.ravel(), projected(x[n].reshape(-1, channels), centre))


@pytest.mark.parametrize("shape", [(9, 5), (5, 9)])
def test_singular_pairs_are_those_of_a_full_decomposition(shape):
    draws = np.random.default_rng(4)
    matrix = draws.normal(size=(shape[0], 3)) @ draws.normal(size=(3, shape[1]))  # of rank 3
    left, strengths, right = principal.leading_pairs(matrix, 5)
    u, s, v = np.linalg.svd(matrix, full_matrices=False)
    np.testing.assert_allclose(strengths[:3], s[:3], rtol=1e-10)
    for j in range(3):
        expected = np.outer(u[:, j], v[j])
        np.testing.assert_allclose(np.outer(left[:, j], right[:, j]), expected, atol=1e-10)
    assert not strengths[3:].any()
    assert not left[:, 3:].any()
    assert not right[:, 3:].any()


@pytest.mark.parametrize("shape", [(1, 50, 4), (1, 4, 50)])
def test_the_eigenproblem_is_that_of_the_shorter_side(shape, monkeypatch):
    solve, sizes = linalg.eigh, []

    def watched(matrix, **kwargs):
        sizes.append(matrix.shape)
        return solve(matrix, **kwargs)

    monkeypatch.setattr(linalg, "eigh", watched)
    principal.project(np.random.default_rng(0).normal(size=shape), centre=True)
    assert sizes == [(4, 4)]


@pytest.mark.parametrize("centre", [False, True])
def test_the_map_correlates_with_the_sum_of_what_is_projected(centre):
    x = held((6, 5), 8, n=20, rectified=False)
    raw = on(EigenCAM(centre=centre), x).raw
    summed = x.sum(axis=-1)
    if centre:
        summed -= summed.mean(axis=(1, 2), keepdims=True)
    assert (np.einsum("nij,nij->n", raw, summed) > 0).all()
    # The same said of the direction: for a singular vector v of X, <X v, X 1> = s^2 sum(v).
    directions = principal.project(x, centre=centre).directions
    assert (directions.sum(axis=-1) > 0).all()
    np.testing.assert_allclose(np.linalg.norm(directions, axis=-1), 1, rtol=1e-12)


@pytest.mark.parametrize(
    "explainer",
    [e for e in ON_FEATURES if isinstance(e, EigenCAM | EigenGradCAM | KPCACAM)],
    ids=name_of,
)
def test_the_arbitrary_sign_of_an_eigenvector_changes_nothing(explainer, monkeypatch):
    x = held(n=3, rectified=False)
    raw = on(explainer, x).raw
    solve = linalg.eigh

    def other_sign(*args, **kwargs):
        values, vectors = solve(*args, **kwargs)
        return values, -vectors

    monkeypatch.setattr(linalg, "eigh", other_sign)
    np.testing.assert_array_equal(on(explainer, x).raw, raw)


def test_without_correlation_the_largest_magnitude_is_positive():
    x = np.zeros((1, 4, 2))
    x[0, :, 0] = [1, -3, 2, 0]
    x[0, :, 1] = [-1, 3, -2, 0]  # the channels sum to zero everywhere
    expected = np.sqrt(2) * np.array([[-1, 3, -2, 0]])
    np.testing.assert_allclose(on(EigenCAM(), x).raw, expected, atol=1e-12)


def test_eigen_cam_of_features_without_negative_values_has_none():
    for grid in GRIDS:
        raw = on(EigenCAM(), held(grid, 12, n=5)).raw
        assert raw.min() >= -1e-12 * raw.max()  # Perron and Frobenius


@pytest.mark.parametrize("kernel", ["sigmoid", "rbf", "poly", "linear"])
@pytest.mark.parametrize("gamma", [None, 0.3])
@pytest.mark.parametrize("layer", ["relu1", "conv2"])
def test_kpca_cam_is_scikit_learns_kernel_pca(kernel, gamma, layer):
    maps = KPCACAM(layer, kernel, gamma).explain(MODEL, X, TARGETS)
    for n in range(len(X)):
        features, _ = seen(layer, n)
        peer = KernelPCA(1, kernel=kernel, gamma=gamma, eigen_solver="dense")
        expected = peer.fit_transform(features - features.mean(axis=0))[:, 0]
        same_up_to_sign(maps.raw[n].ravel(), expected)
        summed = features.sum(axis=-1)
        assert maps.raw[n].ravel() @ (summed - summed.mean()) > 0


@pytest.mark.parametrize("rectified", [True, False])
def test_with_the_linear_kernel_it_is_centred_eigen_cam(rectified):
    x = held((5, 6), 7, n=4, rectified=rectified)
    np.testing.assert_allclose(
        on(KPCACAM(kernel="linear"), x).raw, on(EigenCAM(centre=True), x).raw, atol=1e-11
    )


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("k", [0.0, 1.0, 2.0])
def test_fem_is_its_formula(layer, k):
    maps = FEM(layer, k).explain(MODEL, X, TARGETS)
    for n in range(len(X)):
        features, _ = seen(layer, n)
        expected = np.zeros(len(features))
        for channel in features.T:
            for p, value in enumerate(channel):
                if value > channel.mean() + k * channel.std():
                    expected[p] += channel.mean()
        np.testing.assert_allclose(maps.raw[n].ravel(), expected, rtol=1e-10, atol=1e-14)


def test_on_four_positions_no_value_is_two_deviations_above_the_mean():
    x = np.zeros((1, 2, 2, 3))
    x[0, 0, 0] = 5.0
    assert not on(FEM(), x).raw.any()
    assert on(FEM(k=1.7), x).raw[0, 0, 0] > 0


def planted(overlap, positions=20, channels=12, concepts=3, seed=0):
    """Give maps and concepts of which each has a position and a channel to itself."""
    draws = np.random.default_rng(seed)
    maps = draws.uniform(0.2, 1, (positions, concepts))
    vectors = draws.uniform(0.2, 1, (concepts, channels))
    for j in range(concepts):
        others = np.arange(concepts) != j
        maps[np.ix_(np.arange(positions) % concepts == j, others)] *= overlap
        vectors[np.ix_(others, np.arange(channels) % concepts == j)] *= overlap
        maps[j, others], vectors[others, j] = 0, 0
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    order = np.argsort(-maps.sum(axis=0))
    return maps[:, order], vectors[order]


@pytest.mark.parametrize(("overlap", "tolerance"), [(0, 1e-12), (0.3, 1e-4)])
@pytest.mark.parametrize("seed", range(4))
def test_concepts_that_were_planted_are_found(overlap, tolerance, seed):
    maps, vectors = planted(overlap, seed=seed)
    found_maps, found_vectors = factorise(maps @ vectors, 3)
    np.testing.assert_allclose(found_maps, maps, atol=tolerance * maps.max())
    np.testing.assert_allclose(found_vectors, vectors, atol=tolerance)


def test_a_factorisation_is_as_close_as_scikit_learns():
    for n in range(len(X)):
        features = np.maximum(seen("conv1", n)[0], 0)
        maps, vectors = factorise(features, 4)
        error = np.linalg.norm(features - maps @ vectors)
        for start in ("nndsvd", "nndsvda"):
            peer = NMF(4, init=start, random_state=0, tol=1e-6, max_iter=2000)
            theirs = peer.fit_transform(features) @ peer.components_
            assert error <= 1.01 * np.linalg.norm(features - theirs)


def test_concepts_are_unit_vectors_in_the_order_of_their_maps_sums():
    maps, vectors = factorise(held((30,), 9, n=1)[0], 5)
    assert maps.min() >= 0
    assert vectors.min() >= 0
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-12)
    assert (np.diff(maps.sum(axis=0)) <= 0).all()


def test_negative_features_count_as_zero():
    features = held((30,), 9, n=1, rectified=False)[0]
    for ours, theirs in zip(
        factorise(features, 3), factorise(np.maximum(features, 0), 3), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


def test_concepts_that_are_not_needed_are_zero():
    row = np.arange(1.0, 6.0)
    maps, vectors = factorise(np.outer([1.0, 2.0, 0.0, 4.0], row), 3)
    np.testing.assert_allclose(maps[:, 0], np.array([1, 2, 0, 4]) * np.linalg.norm(row), rtol=1e-10)
    assert not maps[:, 1:].any()
    assert not vectors[1:].any()


def test_a_concept_contributes_what_its_part_of_the_features_changes():
    explainer = DeepFeatureFactorisation("relu2", concepts=3)
    maps = explainer.explain(MODEL, X, TARGETS)
    for n in range(len(X)):
        _, gradients = seen("relu2", n)
        shown = maps.extras["concepts"][n].reshape(-1, 3)
        vectors = maps.extras["vectors"][n]
        expected = [
            sum(shown[p, j] * (gradients[p] @ vectors[j]) for p in range(len(shown)))
            for j in range(3)
        ]
        np.testing.assert_allclose(maps.extras["contributions"][n], expected, atol=1e-12)
        total = (gradients * (shown @ vectors)).sum()
        assert maps.extras["contributions"][n].sum() == pytest.approx(total, abs=1e-12)
        chosen = int(np.argmax(expected))
        np.testing.assert_array_equal(maps.raw[n], maps.extras["concepts"][n][..., chosen])


def test_the_contributions_of_a_target_and_of_its_opposite_are_opposite():
    explainer = DeepFeatureFactorisation(concepts=3)
    there, back = (explainer.explain(MODEL, X, [c] * 3) for c in (Contrast(1, 4), Contrast(4, 1)))
    np.testing.assert_allclose(
        there.extras["contributions"], -back.extras["contributions"], atol=1e-12
    )
    assert not np.array_equal(there.raw, back.raw)


def test_a_concept_can_be_asked_for_by_its_place():
    maps = [DeepFeatureFactorisation(concept=j).explain(MODEL, X, TARGETS) for j in range(4)]
    for j, found in enumerate(maps):
        np.testing.assert_array_equal(found.raw, maps[0].extras["concepts"][..., j])


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"concept": 4}, "from 0 to 3"),
        ({"concepts": 9}, "at most 8"),
        ({"concepts": 7, "layer": "conv1"}, "at most 6"),
    ],
)
def test_concepts_that_cannot_be_are_refused(params, message):
    with pytest.raises(ParameterError, match=message):
        DeepFeatureFactorisation(**params).explain(MODEL, X, TARGETS)


def test_a_factorisation_that_was_cut_short_is_quiet(monkeypatch):
    monkeypatch.setattr(deep_feature_factorisation, "ITERATIONS", 1)
    assert np.isfinite(factorise(held((30,), 9, n=1)[0], 4)[0]).all()


def test_random_cam_is_its_formula():
    weights = np.random.default_rng(7).uniform(-1, 1, 8)
    features = MODEL.forward(X, capture=["relu2"])["relu2"]
    raw = RandomCAM(seed=7).explain(MODEL, X, TARGETS).raw
    np.testing.assert_allclose(
        raw, sum(w * features[..., k] for k, w in enumerate(weights)), atol=1e-13
    )
    assert not np.allclose(raw, RandomCAM(seed=8).explain(MODEL, X, TARGETS).raw)


@pytest.mark.parametrize("size", [(11,), (6, 9), (4, 5, 3)])
def test_the_gaussian_is_its_formula(size):
    x = np.ones((2, *size, 3))
    raw = on(CentreGaussian(0.3), x).raw
    assert raw.shape == (2, *size)
    for where in product(*map(range, size)):
        exponent = sum(
            ((i - (n - 1) / 2) / (0.3 * n)) ** 2 for i, n in zip(where, size, strict=True)
        )
        assert raw[0][where] == pytest.approx(np.exp(-exponent / 2), rel=1e-12)
    np.testing.assert_array_equal(raw[0], raw[1])
    np.testing.assert_allclose(raw, np.flip(raw, axis=tuple(range(1, raw.ndim))), rtol=1e-13)


def test_a_batch_without_positions_has_no_centre():
    with pytest.raises(ArrayError, match=r"\(2, 3\)"):
        on(CentreGaussian(), np.ones((2, 3)))


@pytest.mark.parametrize("explainer", [*ON_FEATURES, RandomCAM()], ids=name_of)
@pytest.mark.parametrize("grid", GRIDS)
def test_a_flipped_grid_has_the_flipped_map(explainer, grid):
    x = held(grid)
    raw = on(explainer, x).raw
    assert raw.shape == (2, *grid)
    for axis in range(1, len(grid) + 1):
        found = on(explainer, np.ascontiguousarray(np.flip(x, axis))).raw
        np.testing.assert_allclose(found, np.flip(raw, axis), atol=1e-9 * np.abs(raw).max())


@pytest.mark.parametrize("explainer", ON_FEATURES, ids=name_of)
def test_the_order_of_the_channels_does_not_matter(explainer):
    x = held()
    order = np.random.default_rng(1).permutation(x.shape[-1])
    model = Held(x)
    found = on(explainer, np.ascontiguousarray(x[..., order]), weight=model.weight[order]).raw
    raw = on(explainer, x).raw
    np.testing.assert_allclose(found, raw, atol=1e-9 * np.abs(raw).max())


@pytest.mark.parametrize(
    ("explainer", "power"),
    [
        (EigenCAM(), 1),
        (EigenCAM(centre=True), 1),
        (EigenGradCAM(), 2),  # the gradient of a square scales too
        (KPCACAM(kernel="linear"), 1),
        (FEM(), 1),
        (DeepFeatureFactorisation(), 1),
        (RandomCAM(), 1),
    ],
    ids=name_of,
)
@pytest.mark.parametrize("scale", [1e-90, 0.3, 1e90])
def test_the_map_scales_with_the_features(explainer, power, scale):
    x = held()
    raw = on(explainer, x).raw * scale**power
    np.testing.assert_allclose(
        on(explainer, x * scale).raw, raw, rtol=0, atol=1e-9 * np.abs(raw).max()
    )


@pytest.mark.parametrize("explainer", ON_FEATURES, ids=name_of)
def test_where_nothing_is_seen_the_map_is_zero(explainer):
    x = held(n=3)
    x[1] = 0
    raw = on(explainer, x).raw
    assert not raw[1].any()
    statuses = present(raw, (5, 4), on(explainer, x).presentation)[1]
    assert statuses == ["ok", "all-zero", "ok"]


@pytest.mark.parametrize("explainer", ON_FEATURES, ids=name_of)
def test_the_same_everywhere_is_the_same_map_everywhere(explainer):
    x = np.broadcast_to(np.array([0.1, 0.7, 0.3, 0.9, 1 / 3]), (1, 7, 9, 5)).copy()
    raw = on(explainer, x, [Predicted()]).raw
    np.testing.assert_allclose(raw, raw[0, 0, 0], atol=1e-12)
    if isinstance(explainer, FEM | KPCACAM) or getattr(explainer, "centre", False):
        assert not raw.any()  # not even by rounding
    if explainer == EigenCAM():
        np.testing.assert_allclose(raw, np.linalg.norm(x[0, 0, 0]), rtol=1e-12)


@pytest.mark.parametrize("explainer", [*ON_FEATURES, RandomCAM()], ids=name_of)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_sample_that_is_not_finite_is_told_and_spoils_no_other(explainer, value):
    x = held(n=3)
    with np.errstate(invalid="ignore"):  # of the network itself
        alone = on(explainer, x).raw
        x[1, 2, 2, 3] = value
        raw = on(explainer, x).raw
    assert present(raw, (5, 4), on(explainer, held()).presentation)[1][1] == "non-finite"
    np.testing.assert_allclose(raw[[0, 2]], alone[[0, 2]], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("explainer", WITH_TERMS, ids=name_of)
@pytest.mark.parametrize("grid", GRIDS)
def test_the_terms_sum_to_the_map(explainer, grid):
    x = held(grid, rectified=False)
    maps = on(explainer, x)
    assert maps.terms().shape == x.shape
    np.testing.assert_allclose(maps.terms().sum(axis=-1), maps.raw, atol=1e-12)


@pytest.mark.parametrize("explainer", [*ON_FEATURES, RandomCAM(), CentreGaussian()], ids=name_of)
def test_single_precision_stays_and_is_near(explainer):
    single = ReferenceModel(NET, "float32")
    raw = explainer.explain(single, X.astype(np.float32), TARGETS).raw
    precise = explainer.explain(MODEL, X, TARGETS).raw
    assert raw.dtype == np.float32
    assert precise.dtype == np.float64
    np.testing.assert_allclose(raw, precise, atol=2e-5 * np.abs(precise).max())


@pytest.mark.parametrize("explainer", [*ON_FEATURES, RandomCAM(), CentreGaussian()], ids=name_of)
def test_the_network_is_asked_once(explainer):
    x = held()
    model = Held(x)
    explainer.explain(model, x, [ClassScore(0), ClassScore(1)])
    assert model.passes == ["pullback" if "gradient" in explainer.needs else "forward"]
