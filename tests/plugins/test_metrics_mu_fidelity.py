"""Sums of attributions against drops of scores: MuFidelity and sensitivity-n."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr

from cnnviz_core.errors import ArrayError
from cnnviz_core.explainer import Presentation
from cnnviz_core.targets import ClassProbability, ClassScore, Contrast
from cnnviz_core.testing.metrics import parametrize_with_checks
from cnnviz_metrics.mu_fidelity import MuFidelity
from cnnviz_metrics.sensitivity_n import SensitivityN, subset_sizes
from cnnviz_metrics.subsets import cell_sums, correlation, subsets_of
from support.changed_pixels import Constant, Counting, case, explained, linear

MODEL, X, MAPS = case()
TARGETS = [ClassScore(3), Contrast(1, 2), ClassProbability(2)]
EITHER = pytest.mark.parametrize(
    "metric",
    [MuFidelity(4, samples=40), SensitivityN(4, 5, 12)],
    ids=["mu-fidelity", "sensitivity-n"],
)


@parametrize_with_checks(
    [
        MuFidelity(samples=30),
        MuFidelity(3, 0.5, 20, "one-size", "mean", "pearson", "shown", "probability"),
        SensitivityN(sizes=4, samples=10),
        SensitivityN(3, 3, 10, "inpaint", "shown", "probability"),
    ]
)
def test_they_are_metrics(metric, check):
    check(metric)


def cells_of(size, grid):
    """Give the number of the cell that each pixel's centre is in."""
    cells = np.empty(size, int)
    for row, column in np.ndindex(size):
        y, x = (int((p + 0.5) * grid / n) for p, n in zip((row, column), size, strict=True))
        cells[row, column] = y * grid + x
    return cells


def drop_and_sum(x, map, target, removed, fill):
    """Take cells away, and give the drop of the score and the sum of the attributions there."""
    score = lambda picture: target.score(MODEL.forward(picture[None]).logits[0])  # noqa: E731
    gone = removed[cells_of(map.shape, int(len(removed) ** 0.5))]
    return score(x) - score(np.where(gone[..., None], fill, x)), map[gone].sum()


@pytest.mark.parametrize("how", ["spearman", "pearson"])
@pytest.mark.parametrize(("grid", "subsets"), [(4, "any-size"), (9, "any-size"), (4, "one-size")])
def test_mu_fidelity_is_its_formula(grid, subsets, how):
    batch = explained(MODEL, X, MAPS, TARGETS, seed=6, batch_size=7)
    measure = MuFidelity(grid, 0.3, 50, subsets, 0.2, how)
    found = measure.measure(batch)["correlation"]
    rng = np.random.default_rng(6)
    if subsets == "any-size":
        removed = rng.random((50, grid**2)) <= 0.3
    else:
        removed = subsets_of(grid**2, round(0.3 * grid**2), 50, rng)
    reference = spearmanr if how == "spearman" else pearsonr
    for row, target in enumerate(TARGETS):
        pairs = [drop_and_sum(X[row], MAPS[row], target, gone, 0.2) for gone in removed]
        assert found[row] == pytest.approx(reference(*np.transpose(pairs))[0], abs=1e-9)


def test_sensitivity_n_is_its_formula():
    records = SensitivityN(4, 5, 12, 0.2).measure(explained(MODEL, X, MAPS, TARGETS, seed=6))
    rng, sizes = np.random.default_rng(6), subset_sizes(16, 5)
    for k, size in enumerate(sizes):
        subsets = subsets_of(16, size, 12, rng)
        for row, target in enumerate(TARGETS):
            pairs = [drop_and_sum(X[row], MAPS[row], target, gone, 0.2) for gone in subsets]
            expected = pearsonr(*np.transpose(pairs))[0]
            assert records["correlation"][row, k] == pytest.approx(expected, abs=1e-9)
    np.testing.assert_array_equal(records["cells"], [sizes] * 3)


def test_subsets_have_their_size_and_are_all_as_likely():
    drawn = subsets_of(5, 2, 20000, np.random.default_rng(0))
    assert (drawn.sum(axis=1) == 2).all()
    np.testing.assert_allclose(drawn.mean(axis=0), 0.4, atol=0.02)
    _, times = np.unique(drawn, axis=0, return_counts=True)
    assert len(times) == 10
    np.testing.assert_allclose(times / 20000, 0.1, atol=0.01)


def test_sizes_go_from_one_cell_to_four_fifths():
    assert subset_sizes(81, 8)[[0, -1]].tolist() == [1, 65]
    assert subset_sizes(1, 3).tolist() == [1, 1, 1]


@pytest.mark.parametrize(("size", "grid"), [((12, 9), 3), ((12, 9), 5), ((7, 5), 9)])
def test_cells_are_summed_up(size, grid):
    map = np.random.default_rng(0).normal(size=size)
    expected = np.bincount(cells_of(size, grid).ravel(), map.ravel(), grid**2)
    np.testing.assert_allclose(cell_sums(map[None], (grid, grid)).ravel(), expected, atol=1e-12)
    with pytest.raises(ArrayError, match="grid"):
        cell_sums(map[None], (3,))


@pytest.mark.parametrize("how", ["spearman", "pearson"])
def test_correlations_are_the_usual_ones(how):
    a, b = np.random.default_rng(0).integers(0, 6, (2, 30))
    reference = spearmanr if how == "spearman" else pearsonr
    assert correlation(a, b, how) == pytest.approx(reference(a, b)[0], abs=1e-12)
    assert correlation(a, np.full(30, 0.1), how) == 0
    assert correlation(a, 0.3 + 1e-15 * b, how) == 0


# ------------------------------------------------------------------------------- theorems


@pytest.mark.parametrize("fill", [0.0, 0.7])
def test_a_linear_network_s_own_attributions_are_perfect(fill):
    """What is given to a pixel is what its removal costs, for any fill; turned round, minus 1."""
    model, weights = linear((6, 5))
    x = np.random.default_rng(1).normal(size=(2, 6, 5, 2))
    exact = (weights[..., 0] * (x - fill)).sum(-1)
    for sign in (1, -1):
        batch = explained(model, x, sign * exact)
        for how in ("spearman", "pearson"):
            found = MuFidelity(4, samples=40, fill=fill, correlation=how).measure(batch)
            np.testing.assert_allclose(found["correlation"], sign, atol=1e-9)
        found = SensitivityN(4, 5, 20, fill).measure(batch)["correlation"]
        np.testing.assert_allclose(found, sign, atol=1e-9)


@EITHER
def test_a_constant_network_correlates_with_nothing(metric):
    found = metric.measure(explained(Constant(MODEL), X, MAPS))["correlation"]
    np.testing.assert_array_equal(found, 0)


@pytest.mark.parametrize("metric", [MuFidelity(3, subsets="one-size"), SensitivityN(3)])
def test_a_flat_map_says_nothing_of_subsets_of_a_size(metric):
    found = metric.measure(explained(MODEL, X, np.full(MAPS.shape, 0.1)))
    np.testing.assert_array_equal(found["correlation"], 0)


@EITHER
def test_scale_does_not_matter(metric):
    one, two = (metric.measure(explained(MODEL, X, m))["correlation"] for m in (MAPS, 7 * MAPS))
    np.testing.assert_allclose(one, two, atol=1e-9)


@EITHER
def test_the_result_itself_is_summed_up_or_what_is_shown(metric):
    """All channels with their sign; or the positive part of the largest of them."""
    raw = np.random.default_rng(3).normal(size=(*MAPS.shape, 4))
    batch = explained(MODEL, X, raw, TARGETS)
    maps = dataclasses.replace(batch.maps, presentation=Presentation("positive", "mean"))
    batch = dataclasses.replace(batch, maps=maps)
    shown = dataclasses.replace(metric, attributed="shown")
    for asked, same in ((metric, raw.sum(-1)), (shown, np.maximum(raw.mean(-1), 0))):
        expected = metric.measure(explained(MODEL, X, same, TARGETS))["correlation"]
        np.testing.assert_allclose(asked.measure(batch)["correlation"], expected, atol=1e-9)


@EITHER
def test_maps_that_are_not_finite_are_left_out(metric):
    maps = MAPS.copy()
    maps[1, 2, 3] = np.inf
    records = metric.measure(explained(MODEL, X, maps))
    assert np.isnan(records["correlation"][1]).all()
    rest = {name: values[[0, 2]] for name, values in records.items()}
    assert metric.summarise(records) == metric.summarise(rest)


@EITHER
def test_the_passes_are_told(metric):
    model = Counting(MODEL)
    metric.measure(explained(model, X, MAPS))
    assert model.seen == len(X) * metric.passes(MODEL, X)


@EITHER
@pytest.mark.parametrize("name", ["signal", "volume"])
def test_signals_and_volumes_are_measured(metric, name):
    model, x, maps = case(name, 2)
    found = metric.measure(explained(model, x, maps))["correlation"]
    assert (abs(found) <= 1).all()


def test_the_curve_is_drawn():
    records = SensitivityN(4, 5, 12).measure(explained(MODEL, X, MAPS))
    (drawing,) = SensitivityN(4, 5, 12).curves(records)
    np.testing.assert_allclose(drawing.x, records["cells"][0])
    np.testing.assert_allclose(drawing.lines[0].y, records["correlation"].mean(axis=0))
    nothing = {name: values[:0] for name, values in records.items()}
    assert SensitivityN(4, 5, 12).curves(nothing) == ()
