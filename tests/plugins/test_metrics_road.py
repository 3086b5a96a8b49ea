"""ROAD and its imputation against dense linear systems, and the theorems they obey."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from cnnviz_core.errors import ArrayError
from cnnviz_core.netspec import NetSpec, Op
from cnnviz_core.targets import ClassScore, Contrast, Neuron, Segment
from cnnviz_core.testing.metrics import parametrize_with_checks
from cnnviz_core.testing.reference import ReferenceModel
from cnnviz_metrics.imputation import LinearImputation
from cnnviz_metrics.road import ROAD, kept_counts
from support.changed_pixels import Blind, Constant, Counting, case, explained

MODEL, X, MAPS = case()
LABELS = [0, None, 1]
TARGETS = [ClassScore(3), ClassScore(0), ClassScore(1)]
RNG = np.random.default_rng(0)
MASKS = RNG.random((4, 12, 9)) < np.array([0.1, 0.4, 0.8, 0.97])[:, None, None]


@parametrize_with_checks([ROAD(), ROAD(4, 0.0, "kept", "target")])
def test_it_is_a_metric(metric, check):
    check(metric)


def densely(sample, kept):
    """Solve the linear system of one mask a pixel at a time, with a dense matrix."""
    height, width = kept.shape
    removed = [at for at in np.ndindex(kept.shape) if not kept[at]]
    number = {at: i for i, at in enumerate(removed)}
    matrix = np.zeros((len(removed), len(removed)))
    right = np.zeros((len(removed), sample.shape[-1]))
    for at, i in number.items():
        for down, across in product((-1, 0, 1), repeat=2):
            near = (at[0] + down, at[1] + across)
            if (down, across) == (0, 0) or not (0 <= near[0] < height and 0 <= near[1] < width):
                continue
            weight = 1 / 12 if down and across else 1 / 6
            matrix[i, i] += weight
            if near in number:
                matrix[i, number[near]] -= weight
            else:
                right[i] += weight * sample[near]
    filled = sample.copy()
    for at, values in zip(removed, np.linalg.solve(matrix, right), strict=True):
        filled[at] = values
    return filled


# ------------------------------------------------------------------------------- the imputation


@pytest.mark.parametrize("kept", MASKS)
def test_the_imputation_solves_its_system(kept):
    found = LinearImputation(X[0], noise=0.0).under(kept[None])[0]
    np.testing.assert_allclose(found, densely(X[0], kept), atol=1e-12)


def test_what_is_imputed_is_a_mean_of_its_neighbours():
    """Far from the edge 1/6 of each beside it and 1/12 of each across, removed or not."""
    kept = np.ones((12, 9), bool)
    kept[4:8, 3:7] = False
    (found,) = LinearImputation(X[0], noise=0.0).under(kept[None])
    for row, column in product(range(4, 8), range(3, 7)):
        part = found[row - 1 : row + 2, column - 1 : column + 2]
        weights = np.array([[1, 2, 1], [2, 0, 2], [1, 2, 1]])[..., None] / 12
        np.testing.assert_allclose((weights * part).sum((0, 1)), found[row, column], atol=1e-12)


@pytest.mark.parametrize("kept", MASKS)
def test_what_is_imputed_lies_between_what_is_kept(kept):
    (found,) = LinearImputation(X[0], noise=0.0).under(kept[None])
    assert (found.min((0, 1)) >= X[0][kept].min(0) - 1e-12).all()
    assert (found.max((0, 1)) <= X[0][kept].max(0) + 1e-12).all()


def test_what_is_kept_is_not_touched():
    found = LinearImputation(X[0]).under(MASKS)
    for kept, filled in zip(MASKS, found, strict=True):
        np.testing.assert_array_equal(filled[kept], X[0][kept])
        assert (filled[~kept] != X[0][~kept]).all()
    np.testing.assert_array_equal(LinearImputation(X[0]).under(np.ones((1, 12, 9)))[0], X[0])


def test_a_flat_picture_stays_flat():
    flat = np.full((12, 9, 2), 3.5)
    np.testing.assert_allclose(LinearImputation(flat, 0.0).under(MASKS), 3.5, rtol=1e-12)


def test_where_nothing_is_kept_the_mean_colour_is_shown():
    (found,) = LinearImputation(X[0], 0.0).under(np.zeros((1, 12, 9)))
    np.testing.assert_allclose(found, np.broadcast_to(X[0].mean((0, 1)), X[0].shape), rtol=1e-12)


def test_the_noise_is_normal_and_the_same_for_all():
    sample = np.zeros((80, 90, 3), np.float32)
    kept = np.zeros((2, 80, 90), bool)
    kept[0, ::2], kept[1, :, ::5] = True, True
    found = LinearImputation(sample, 0.25, seed=4).under(kept)
    noise = found[0][~kept[0]]
    assert noise.std() == pytest.approx(0.25, rel=0.03)
    assert abs(noise.mean()) < 0.01
    both = ~kept.any(0)
    np.testing.assert_array_equal(found[0][both], found[1][both])
    assert (LinearImputation(sample, 0.25, seed=5).under(kept)[0][~kept[0]] != noise).all()
    assert found.dtype == np.float32


@pytest.mark.parametrize("size", [(1, 7), (6, 1), (2, 2)])
def test_thin_pictures_are_imputed(size):
    sample = RNG.normal(size=(*size, 2))
    kept = np.zeros(size, bool)
    kept.flat[::3] = True
    found = LinearImputation(sample, 0.0).under(kept[None])[0]
    np.testing.assert_allclose(found, densely(sample, kept), atol=1e-12)


def test_only_pictures_are_imputed():
    with pytest.raises(ArrayError, match="picture"):
        LinearImputation(np.zeros((8, 2)))


# ------------------------------------------------------------------------------- the measure


def by_formula(x, map, index, class_, removed, highest_first):
    """Remove pixels one at a time, impute what is missing, and ask the network."""
    order = np.argsort(-map.ravel(), kind="stable")
    gone = order[:removed] if highest_first else order[map.size - removed :]
    kept = np.ones(map.size, bool)
    kept[gone] = False
    logits = MODEL.forward(densely(x, kept.reshape(map.shape))[None]).logits[0]
    return np.exp(logits[index]) / np.exp(logits).sum(), float(logits.argmax() == class_)


@pytest.mark.parametrize("least", ["removed", "kept"])
def test_road_is_its_formula(least):
    """The code published with the paper keeps, of the lowest first, the share and not the rest."""
    tied = np.round(MAPS, 1)
    batch = explained(MODEL, X, tied, TARGETS, LABELS, batch_size=4)
    found = ROAD(5, noise=0.0, least=least).measure(batch)
    for row, k in product(range(3), range(5)):
        count = (k + 1) * 108 // 6
        class_ = TARGETS[row].index if LABELS[row] is None else LABELS[row]
        for order, removed in enumerate((count, count if least == "removed" else 108 - count)):
            score, right = by_formula(
                X[row], tied[row], TARGETS[row].index, class_, removed, order == 0
            )
            assert found["score"][row, order, k] == pytest.approx(score, abs=1e-12)
            assert found["recognised"][row, order, k] == right


def test_the_noise_is_added():
    """As much of it as is asked for, from the seed of the evaluation."""
    noisy = ROAD(3, noise=0.3).measure(explained(MODEL, X, MAPS, TARGETS, seed=8))["score"]
    for row, k in product(range(3), range(3)):
        order = np.argsort(-MAPS[row], axis=None)
        kept = np.ones(108, bool)
        kept[order[: (k + 1) * 27]] = False
        shown = LinearImputation(X[row], 0.3, seed=8).under(kept.reshape(1, 12, 9))
        logits = MODEL.forward(shown).logits[0]
        score = np.exp(logits[TARGETS[row].index]) / np.exp(logits).sum()
        assert noisy[row, 0, k] == pytest.approx(score, abs=1e-12)


def test_the_summary_is_of_means():
    measure = ROAD()
    records = measure.measure(explained(MODEL, X, MAPS, TARGETS, LABELS))
    found = measure.summarise(records)
    assert next(iter(found)) == "accuracy_gap"
    for name, record in (("accuracy", "recognised"), ("score", "score")):
        most, least = records[record].mean(axis=(0, 2))
        assert found[f"{name}_most_first"] == pytest.approx(most)
        assert found[f"{name}_least_first"] == pytest.approx(least)
        assert found[f"{name}_gap"] == pytest.approx(least - most)


def test_either_share_has_the_same_mean():
    """Shares lie evenly about a half, so only the order of the points differs."""
    one, two = (
        ROAD(3, 0.0, least).measure(explained(MODEL, X, MAPS, TARGETS))["score"][:, 1]
        for least in ("removed", "kept")
    )
    np.testing.assert_allclose(one, two[:, ::-1], atol=1e-12)


def test_an_inverted_map_swaps_the_orders():
    one, two = (ROAD().measure(explained(MODEL, X, m, TARGETS, LABELS)) for m in (MAPS, -MAPS))
    for name in one:
        np.testing.assert_allclose(one[name], two[name][:, ::-1], atol=1e-12)
    gaps = [ROAD().summarise(records) for records in (one, two)]
    assert gaps[0]["score_gap"] == pytest.approx(-gaps[1]["score_gap"], abs=1e-12)


def test_a_constant_network_recognises_alike():
    found = ROAD().summarise(ROAD().measure(explained(Constant(MODEL), X, MAPS, TARGETS, LABELS)))
    assert found["accuracy_gap"] == 0
    assert found["score_gap"] == pytest.approx(0, abs=1e-12)


def test_what_is_ignored_may_be_removed_first():
    model, maps = Blind(MODEL, slice(0, 6)), MAPS.copy()
    maps[:, :6] -= 100
    found = ROAD(3, 0.0).measure(explained(model, X, maps, TARGETS))["score"][:, 1]
    whole = ROAD(1, 0.0).measure(explained(model, X, maps, TARGETS))["score"][:, 1, 0]
    np.testing.assert_allclose(found[:, 0], found[:, 1], rtol=1e-12)
    np.testing.assert_allclose(found[:, 1], whole, rtol=1e-12)
    assert (abs(found[:, 2] - found[:, 1]) > 1e-9).all()


@pytest.mark.parametrize("rescale", [lambda m: 3 * m + 2, np.arctan])
def test_only_the_order_of_a_map_counts(rescale):
    one, two = (ROAD().measure(explained(MODEL, X, m, TARGETS)) for m in (MAPS, rescale(MAPS)))
    np.testing.assert_array_equal(one["score"], two["score"])


def test_counts_are_of_whole_pixels():
    for pixels, fractions in ((10, 3), (224**2, 9), (5, 20)):
        most, least = kept_counts(pixels, fractions)
        np.testing.assert_array_equal(most, least)
        shares = np.arange(1, fractions + 1) / (fractions + 1)
        assert (abs(pixels - most - shares * pixels) < 1).all()
        np.testing.assert_array_equal(kept_counts(pixels, fractions, "kept")[1], pixels - most)


def test_targets_about_no_class_have_a_score_only():
    """A contrast of two classes names none; a neuron is not even a matter of the output."""
    for target in (Contrast(1, 2), Neuron("conv2", (1,))):
        records = ROAD(2).measure(explained(MODEL, X[:1], MAPS[:1], [target]))
        assert np.isnan(records["recognised"]).all()
        assert np.isfinite(records["score"]).all()
        found = ROAD(2).summarise(records)
        assert np.isnan(found["accuracy_gap"])
        assert np.isfinite(found["score_gap"])
        assert len(ROAD(2).curves(records)) == 1
    labelled = ROAD(2).measure(explained(MODEL, X[:1], MAPS[:1], [Contrast(1, 2)], [1]))
    assert np.isfinite(labelled["recognised"]).all()


def test_dense_outputs_recognise_nothing():
    """A score for each pixel and class names no class of the picture."""
    weights = {"conv.weight": RNG.normal(size=(3, 3, 3, 4)), "conv.bias": np.zeros(4)}
    conv = Op("conv", "conv", ("image",), attrs={"padding": ((1, 1), (1, 1))})
    model = ReferenceModel(NetSpec({"image": (12, 9, 3)}, (conv,), weights, "dense"), "float64")
    records = ROAD(2).measure(explained(model, X[:1], MAPS[:1], [Segment(1, MAPS[0] > 0)], [1]))
    assert np.isnan(records["recognised"]).all()
    assert np.isfinite(records["score"]).all()


def test_maps_that_are_not_finite_are_left_out():
    maps = MAPS.copy()
    maps[1, 0, 0] = np.nan
    records = ROAD(2).measure(explained(MODEL, X, maps, TARGETS))
    assert np.isnan(records["score"][1]).all()
    rest = {name: values[[0, 2]] for name, values in records.items()}
    assert ROAD(2).summarise(records) == ROAD(2).summarise(rest)


def test_the_passes_are_told():
    model = Counting(MODEL)
    ROAD(4).measure(explained(model, X, MAPS, TARGETS))
    assert model.seen == len(X) * ROAD(4).passes(MODEL, X)


def test_the_curves_are_drawn():
    records = ROAD().measure(explained(MODEL, X, MAPS, TARGETS, LABELS))
    for drawing, name in zip(ROAD().curves(records), ("recognised", "score"), strict=True):
        np.testing.assert_allclose(drawing.x, np.arange(1, 10) / 10)
        for line, values in zip(drawing.lines, records[name].mean(axis=0), strict=True):
            np.testing.assert_allclose(line.y, values)
    nothing = {name: values[:0] for name, values in records.items()}
    assert ROAD().curves(nothing) == ()
