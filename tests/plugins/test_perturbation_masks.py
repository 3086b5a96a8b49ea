"""Meaningful and extremal perturbation: their derivatives, their operators, and known answers."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from cnnviz_core.blurring import blurred
from cnnviz_core.errors import ArrayError
from cnnviz_core.explainer import passes_of
from cnnviz_core.fills import filling
from cnnviz_core.maps import resize
from cnnviz_core.netspec import NetSpec, Op
from cnnviz_core.optimisers import RunningMean
from cnnviz_core.progress import listening
from cnnviz_core.scoring import score
from cnnviz_core.targets import ClassProbability, ClassScore, Contrast, Neuron
from cnnviz_core.testing.explainers import parametrize_with_checks
from cnnviz_core.testing.nets import NETS, random_input
from cnnviz_core.testing.reference import ReferenceModel
from cnnviz_perturbation.descent import Game, Jitter, blended, descend
from cnnviz_perturbation.extremal_perturbation import ExtremalPerturbation, area_gap
from cnnviz_perturbation.meaningful_perturbation import MeaningfulPerturbation, total_variation
from cnnviz_perturbation.smooth_masks import Interpolated, SmoothMax

RNG = np.random.default_rng(3)
BRIEF = {
    "meaningful": MeaningfulPerturbation(steps=4, cells=6),
    "extremal": ExtremalPerturbation(steps=4, spacing=3, width=2.0),
}
SIZES = [((12, 9), 3), ((20,), 4), ((3, 4, 5), 2), ((11, 14), 3)]


def case(name="swish", n=2, seed=5, dtype="float64"):
    net = NETS[name]()
    (x,) = random_input(net, n, seed).values()
    return ReferenceModel(net, dtype), x.astype(dtype)


ZERO = np.zeros(())


def by_differences(function, at, step=1e-6):
    """Differentiate the sum of a function's values by each entry of its argument."""
    slopes = np.zeros_like(at)
    for i in np.ndindex(at.shape):
        ends = []
        for sign in (1, -1):
            moved = at.copy()
            moved[i] += sign * step
            ends.append(np.sum(function(moved)))
        slopes[i] = (ends[0] - ends[1]) / (2 * step)
    return slopes


# ---------------------------------------------------------------------------- smooth masks


def kinds(size, spacing):
    cells = tuple(max(1, n // 3) for n in size)
    return [SmoothMax(size, spacing, 1.7 * spacing), Interpolated(cells, size, 1.5)]


@pytest.mark.parametrize(("size", "spacing"), SIZES)
@pytest.mark.parametrize("kind", [0, 1])
def test_the_way_back_is_the_transposed_derivative(size, spacing, kind):
    masks = kinds(size, spacing)[kind]
    grids, weights = RNG.uniform(size=(2, *masks.cells)), RNG.normal(size=(2, *size))
    made, back = masks.make(grids)
    assert made.shape == (2, *size)
    expected = by_differences(lambda g: masks.make(g)[0] * weights, grids)
    np.testing.assert_allclose(back(weights), expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(("size", "spacing"), SIZES)
@pytest.mark.parametrize("kind", [0, 1])
def test_masks_stay_in_the_unit_interval(size, spacing, kind):
    masks = kinds(size, spacing)[kind]
    grids = np.stack([np.zeros(masks.cells), RNG.integers(0, 2, masks.cells), np.ones(masks.cells)])
    made, _ = masks.make(grids.astype(float))
    assert made.min() >= 0
    assert made.max() <= 1 + 1e-12
    np.testing.assert_array_equal(made[0], 0)
    if kind == 1:
        np.testing.assert_allclose(made[2], 1)


def test_interpolated_masks_are_resized_and_blurred():
    grids = RNG.uniform(size=(3, 4, 5))
    made, _ = Interpolated((4, 5), (17, 12), 2.0).make(grids)
    expected = blurred(resize(grids, (17, 12))[..., None], 2.0)[..., 0]
    np.testing.assert_allclose(made, expected, rtol=1e-12)


def near_by_loops(masks, grid):
    """Give at each pixel the weighted values of the pivots around it."""
    spacing = masks.spacing
    before = [(spacing * n - m) // 2 for n, m in zip(masks.cells, masks.size, strict=True)]
    found = {}
    for pixel in np.ndindex(masks.size):
        at = np.add(pixel, before)
        around = (range(p // spacing - masks.reach, p // spacing + masks.reach + 1) for p in at)
        values = []
        for pivot in product(*around):
            distance = np.linalg.norm(at - (spacing * np.array(pivot) + (spacing - 1) / 2))
            weight = np.exp(-2 * max(0, distance / masks.width - 0.5) ** 2)
            inside = all(0 <= p < n for p, n in zip(pivot, masks.cells, strict=True))
            values.append(weight * grid[pivot] if inside else 0.0)
        found[pixel] = np.array(values)
    return found


@pytest.mark.parametrize(("size", "spacing"), SIZES)
def test_the_smooth_maximum_is_its_formula(size, spacing):
    masks = SmoothMax(size, spacing, 1.7 * spacing)
    grids = RNG.uniform(size=(2, *masks.cells))
    made, _ = masks.make(grids)
    for grid, mask in zip(grids, made, strict=True):
        for pixel, near in near_by_loops(masks, grid).items():
            share = np.exp(near / 0.05)
            np.testing.assert_allclose(mask[pixel], near @ share / share.sum(), rtol=1e-10)


@pytest.mark.parametrize(("size", "spacing"), SIZES)
def test_the_smooth_maximum_is_below_the_maximum_and_becomes_it(size, spacing):
    grid = RNG.uniform(size=SmoothMax(size, spacing, 4.0).cells)
    gaps = []
    for temperature in (0.2, 0.05, 2e-3):
        masks = SmoothMax(size, spacing, 1.7 * spacing, temperature)
        made = masks.make(grid[None])[0][0]
        most = np.array([near.max() for near in near_by_loops(masks, grid).values()])
        gaps.append((most - made.ravel()).max())
        assert (made.ravel() <= most + 1e-12).all()
    assert gaps[0] > gaps[1] > gaps[2]
    assert gaps[2] < 2e-3


# ---------------------------------------------------------------------- penalties and blends


@pytest.mark.parametrize("beta", [1.0, 2.0, 3.0])
@pytest.mark.parametrize("size", [(7,), (4, 5), (3, 2, 4)])
def test_total_variation_by_loops_and_differences(beta, size):
    grids = RNG.uniform(size=(2, *size))
    variation, gradient = total_variation(grids, beta)
    for grid, value in zip(grids, variation, strict=True):
        total = 0.0
        for at in np.ndindex(size):
            for axis in range(len(size)):
                after = tuple(i + (k == axis) for k, i in enumerate(at))
                if after[axis] < size[axis]:
                    total += abs(grid[after] - grid[at]) ** beta
        np.testing.assert_allclose(value, total / grid.size, rtol=1e-12)
    expected = by_differences(lambda g: total_variation(g, beta)[0], grids)
    np.testing.assert_allclose(gradient, expected, rtol=1e-6, atol=1e-8)


def test_an_even_grid_has_no_variation():
    variation, gradient = total_variation(np.full((1, 4, 4), 0.3), 1.0)
    assert not variation.any()
    assert not gradient.any()


@pytest.mark.parametrize("area", [0.1, 0.5, 0.9, np.array([0.1, 0.8])])
def test_the_area_by_sorting_and_differences(area):
    masks = RNG.uniform(size=(2, 6, 5))
    gap, gradient = area_gap(masks, area)
    for mask, value, share in zip(masks, gap, np.broadcast_to(area, 2), strict=True):
        wanted = np.arange(30) >= 30 - round(30 * share)
        np.testing.assert_allclose(value, np.mean((np.sort(mask.ravel()) - wanted) ** 2))
    expected = by_differences(lambda m: area_gap(m, area)[0], masks)
    np.testing.assert_allclose(gradient, expected, rtol=1e-6, atol=1e-9)


def test_of_equal_values_none_is_preferred():
    mask = np.full((1, 4, 5), 0.7)
    gap, gradient = area_gap(mask, 0.1)
    np.testing.assert_allclose(gap, (18 * 0.7**2 + 2 * 0.3**2) / 20)
    np.testing.assert_allclose(gradient, 2 / 20 * (0.7 - 0.1))


def test_rounding_does_not_decide_which_of_equal_values_are_larger():
    mask = np.full((1, 4, 5), 0.7)
    mask[0, 2:] = 0.2
    exact, moved = area_gap(mask, 0.1), area_gap(mask + RNG.uniform(0, 1e-6, mask.shape), 0.1)
    for a, b in zip(exact, moved, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_a_mask_of_the_area_has_no_gap():
    mask = np.zeros((1, 10, 10))
    mask[0, 3:5, 2:7] = 1
    gap, gradient = area_gap(mask, 0.1)
    assert gap == 0
    assert not gradient.any()


@pytest.mark.parametrize("count", [2, 5])
def test_levels_are_interpolated(count):
    levels = RNG.normal(size=(count, 2, 4, 5, 3))
    at = RNG.uniform(size=(2, 4, 5))
    values, slope = blended(levels, at)
    for n, i, j, c in np.ndindex(2, 4, 5, 3):
        expected = np.interp(at[n, i, j], np.linspace(0, 1, count), levels[:, n, i, j, c])
        np.testing.assert_allclose(values[n, i, j, c], expected, rtol=1e-10, atol=1e-12)
    # Within a level the blend is a straight line.
    moved, _ = blended(levels, at + 1e-7)
    np.testing.assert_allclose((moved - values) / 1e-7, slope, rtol=1e-5, atol=1e-5)


def test_the_ends_of_the_levels_are_exact():
    levels = RNG.normal(size=(8, 2, 4, 5, 3)).astype(np.float32)
    np.testing.assert_array_equal(blended(levels, np.ones((2, 4, 5), np.float32))[0], levels[-1])
    np.testing.assert_array_equal(blended(levels, np.zeros((2, 4, 5), np.float32))[0], levels[0])


# ------------------------------------------------------------------------------- the game


def game(variant, name="swish", count=3, targets=None):
    model, x = case(name)
    targets = targets or [ClassScore(1), ClassProbability(2)]
    fill = np.random.default_rng(4).normal(size=x.shape)
    levels = np.stack([(1 - w) * fill + w * x for w in np.linspace(0, 1, count) ** 2])
    return Game.of(model, score(model, x, targets), levels, variant, 1), x


@pytest.mark.parametrize("variant", ["delete", "preserve", "dual"])
@pytest.mark.parametrize("moved", [False, True])
def test_the_gradient_by_the_evidence_is_that_of_the_loss(variant, moved):
    played, x = game(variant)
    jitter = Jitter.draw(np.random.default_rng(1), x.shape[1:], 2, 0.1) if moved else None
    evidence = RNG.uniform(size=x.shape[:-1])
    _, gradient = played.play(evidence, jitter)
    for way in RNG.normal(size=(4, *x.shape[:-1])):
        slope = by_differences(lambda t, w=way: played.play(evidence + t * w, jitter)[0], ZERO)
        np.testing.assert_allclose((gradient * way).sum(), slope, rtol=1e-6)


@pytest.mark.parametrize("name", ["signal", "volume"])
def test_also_of_signals_and_volumes(name):
    played, x = game("dual", name, targets=[ClassScore(1), Contrast(0, 2)])
    evidence, way = RNG.uniform(size=x.shape[:-1]), RNG.normal(size=x.shape[:-1])
    _, gradient = played.play(evidence)
    slope = by_differences(lambda t: played.play(evidence + t * way)[0], ZERO)
    np.testing.assert_allclose((gradient * way).sum(), slope, rtol=1e-5)


@pytest.mark.parametrize("variant", ["delete", "preserve"])
def test_losses_are_shares_of_the_score(variant):
    played, x = game(variant)
    sign = np.sign(played.whole - played.none)
    everything = np.ones(x.shape[:-1])
    np.testing.assert_allclose(played.play(everything)[0], 0, atol=1e-12)
    np.testing.assert_allclose(played.play(0 * everything)[0], sign, atol=1e-12)
    assert played.shown(everything) == pytest.approx(played.whole)
    assert played.shown(0 * everything) == pytest.approx(played.none)


@pytest.mark.parametrize("variant", ["delete", "preserve"])
def test_a_bounded_game_gains_nothing_beyond_its_ends(variant):
    free, x = game(variant)
    bounded = replace(free, bounded=True)
    rng, beyond = np.random.default_rng(5), 0
    for _ in range(20):
        evidence = rng.uniform(-1, 2, size=x.shape[:-1]).clip(0, 1)
        loss, gradient = free.play(evidence)
        seen, push = bounded.play(evidence)
        counts = (loss > 0) | (free.whole < free.none)
        np.testing.assert_array_equal(seen, np.where(counts, loss, 0))
        np.testing.assert_array_equal(push[counts], gradient[counts])
        assert not push[~counts].any()
        beyond += (~counts).sum()
    assert 0 < beyond < 40


def test_jitter_moves_samples_and_repeats_their_edge():
    assert Jitter((3,), ZERO).places((10,)).tolist() == [0, 0, 0, 0, 1, 2, 3, 4, 5, 6]
    assert Jitter((-2,), ZERO).places((10,)).tolist() == [2, 3, 4, 5, 6, 7, 8, 9, 9, 9]
    levels = RNG.normal(size=(3, 2, 4, 5, 2))
    at = RNG.uniform(size=(2, 4, 5))
    rows, columns = np.clip(np.arange(4) - 1, 0, 3), np.clip(np.arange(5) + 2, 0, 4)
    moved = levels[:, :, rows[:, None], columns]
    for seen, expected in zip(
        blended(levels, at, Jitter((1, -2), ZERO)), blended(moved, at), strict=True
    ):
        np.testing.assert_array_equal(seen, expected)


def test_several_masks_of_a_sample_are_that_many_samples():
    levels = RNG.normal(size=(3, 2, 4, 5, 2))
    at = RNG.uniform(size=(6, 4, 5))
    repeated = np.repeat(levels, 3, axis=1)
    for seen, expected in zip(blended(levels, at), blended(repeated, at), strict=True):
        np.testing.assert_array_equal(seen, expected)


# ----------------------------------------------------------------------------- the descent


def test_a_descent_ends_at_the_nearest_point_of_the_box():
    goal = np.array([[-0.5, 0.25, 2.0]])

    def slope(at, taken):
        return ((at - goal) ** 2).sum(1), 2 * (at - goal)

    told = []
    with listening(lambda *what: told.append(what)):
        found, losses = descend(np.full((1, 3), 0.5), slope, RunningMean(0.1), 200, what="a test")
    np.testing.assert_allclose(found, [[0, 0.25, 1]], atol=1e-3)
    assert losses.shape == (1, 200)
    assert losses[0, -1] < losses[0, 0]
    assert told[-1] == ("a test", 200, 200)


# --------------------------------------------------------------------------- known answers

SPOT = (slice(5, 14), slice(12, 21))


def counting(dtype="float64"):
    """Give a network whose class 0 sums the spot, and class 1 everything else."""
    weights = np.zeros((24, 28, 1, 2))
    weights[*SPOT, 0, 0] = 1 / 81
    weights[..., 1] = (weights[..., 0] == 0) / 591
    net = NetSpec(
        {"image": (24, 28, 1)},
        (Op("flat", "flatten", ("image",)), Op("fc", "linear", ("flat",))),
        {"fc.weight": weights.reshape(-1, 2), "fc.bias": np.zeros(2)},
        "counting",
    )
    return ReferenceModel(net, dtype), np.ones((1, 24, 28, 1), dtype)


def overlap(raw):
    truth = np.zeros(raw.shape, bool)
    truth[SPOT] = True
    return (truth & (raw > 0.5)).sum() / (truth | (raw > 0.5)).sum()


@pytest.mark.parametrize(
    ("variant", "dtype"),
    [("delete", "float32"), ("preserve", "float64"), ("dual", "float32")],
)
def test_meaningful_perturbation_finds_the_region_that_counts(variant, dtype):
    model, x = counting(dtype)
    explainer = MeaningfulPerturbation(variant, fill=0.0, steps=100, jitter=0)
    maps = explainer.explain(model, x, [ClassScore(0)])
    assert overlap(maps.raw[0]) > 0.7
    assert maps.raw.dtype == dtype
    assert maps.extras["score_kept"][0] > 0.8
    assert maps.extras["score_without"][0] < 0.2


@pytest.mark.parametrize(
    ("variant", "dtype"),
    [("delete", "float32"), ("preserve", "float64"), ("dual", "float32")],
)
def test_extremal_perturbation_finds_the_region_of_its_area(variant, dtype):
    model, x = counting(dtype)
    area = 81 / (24 * 28)
    explainer = ExtremalPerturbation(
        area, variant, fill=0.0, steps=120, spacing=2, width=1.5, rate=0.5, jitter=0
    )
    maps = explainer.explain(model, x, [ClassScore(0)])
    assert overlap(maps.raw[0]) > 0.7
    assert abs(maps.extras["area"][0] - area) < 0.03
    assert maps.raw.dtype == dtype


@pytest.mark.parametrize("area", [0.05, 0.2, 0.4])
def test_the_area_is_met(area):
    model, x = counting()
    explainer = ExtremalPerturbation(
        area, fill=0.0, steps=120, spacing=2, width=1.5, rate=0.5, jitter=0
    )
    maps = explainer.explain(model, x, [ClassScore(0)])
    assert abs(maps.extras["area"][0] - area) < 0.03


@pytest.mark.parametrize("variant", ["preserve", "dual"])
def test_several_areas_are_those_one_by_one(variant):
    model, x = case(n=2)
    targets, areas = [ClassScore(1), ClassProbability(0)], np.array([0.1, 0.3, 0.7])
    explainer = ExtremalPerturbation(areas, variant, steps=5, spacing=3, jitter=1, batch_size=4)
    several = explainer.explain(model, x, targets)
    assert several.extras["masks"].shape == (2, 3, *x.shape[1:-1])
    assert several.extras["loss"].shape == (2, 3, 5)
    np.testing.assert_array_equal(several.extras["areas"], [areas, areas])
    for k, area in enumerate(areas):
        alone = replace(explainer, area=float(area)).explain(model, x, targets)
        np.testing.assert_allclose(several.extras["masks"][:, k], alone.raw, atol=1e-8)
        for name, values in alone.extras.items():
            np.testing.assert_allclose(several.extras[name][:, k], values, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(several.raw, several.extras["masks"].mean(1))
    np.testing.assert_array_equal(several.scores, alone.scores)


def test_all_areas_are_met_and_the_larger_show_more():
    model, x = counting()
    explainer = ExtremalPerturbation(
        "all", fill=0.0, steps=150, spacing=2, width=1.5, rate=0.5, jitter=0
    )
    extras = explainer.explain(model, x, [ClassScore(0)]).extras
    np.testing.assert_allclose(extras["areas"], [[0.05, 0.1, 0.2, 0.4, 0.6, 0.8]])
    np.testing.assert_allclose(extras["area"], extras["areas"], atol=0.04)
    assert (np.diff(extras["score_kept"]) > -0.02).all()
    # The spot takes 12 % of the picture: two smaller masks show part of it, all others the whole.
    assert (extras["score_kept"][0] > 0.95).tolist() == [False, False, True, True, True, True]


def test_a_region_that_the_network_ignores_is_no_evidence():
    model, x = counting()
    maps = MeaningfulPerturbation(fill=0.0, steps=60, jitter=0).explain(model, x, [ClassScore(0)])
    assert maps.raw[0, 18:].max() < 1e-3


# --------------------------------------------------------------------------- the contract


@pytest.mark.parametrize("method", BRIEF)
@pytest.mark.parametrize("name", ["swish", "signal", "volume"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_extras_tell_what_the_evidence_does(method, name, dtype):
    model, x = case(name, dtype=dtype)
    targets = [ClassScore(1), ClassProbability(0)]
    explainer = BRIEF[method]
    maps = explainer.explain(model, x, targets)
    assert maps.raw.shape == x.shape[:-1]
    assert maps.raw.dtype == maps.scores.dtype == dtype
    assert maps.raw.min() >= 0
    assert maps.raw.max() <= 1 + 1e-6
    assert maps.extras["loss"].shape == (2, 4)
    assert all(extra.dtype == dtype for extra in maps.extras.values())
    np.testing.assert_allclose(maps.extras["area"], maps.raw.reshape(2, -1).mean(1), rtol=1e-5)
    if method == "meaningful":
        fill = np.stack([filling(s, "blur").under(None) for s in x])
        for name_, kept in [("score_kept", maps.raw), ("score_without", 1 - maps.raw)]:
            mixed = kept[..., None] * x + (1 - kept[..., None]) * fill
            seen = model.forward(mixed.astype(dtype)).logits
            expected = [t.score(v) for t, v in zip(targets, seen, strict=True)]
            np.testing.assert_allclose(maps.extras[name_], expected, rtol=1e-4, atol=1e-5)


class Counting:
    """A model that notes the work of each call, a backward pass as two."""

    def __init__(self, model):
        self.model, self.passes = model, 0

    def __getattr__(self, name):
        return getattr(self.model, name)

    def forward(self, x, **more):
        self.passes += len(x)
        return self.model.forward(x, **more)

    def pullback(self, x, *args, **more):
        self.passes += 3 * len(x)
        return self.model.pullback(x, *args, **more)


@pytest.mark.parametrize("kind", [MeaningfulPerturbation, ExtremalPerturbation])
@pytest.mark.parametrize("variant", ["delete", "preserve", "dual"])
def test_passes_are_what_is_said_beforehand(kind, variant):
    model, x = case(n=1)
    counted = Counting(model)
    explainer = kind(variant=variant, steps=3)
    explainer.explain(counted, x, [ClassScore(0)])
    assert counted.passes == passes_of(explainer, model, x)


@pytest.mark.parametrize("variant", ["delete", "dual"])
def test_passes_of_several_areas_are_what_is_said_beforehand(variant):
    model, x = case(n=1)
    counted = Counting(model)
    explainer = ExtremalPerturbation(np.array([0.2, 0.4]), variant, steps=3)
    explainer.explain(counted, x, [ClassScore(0)])
    assert counted.passes == passes_of(explainer, model, x)


@pytest.mark.parametrize("kind", [MeaningfulPerturbation, ExtremalPerturbation])
def test_draws_are_the_seeds(kind):
    model, x = case()
    explain = lambda seed: kind(seed=seed, steps=3, jitter=2).explain(  # noqa: E731
        model, x, [ClassScore(0)] * 2
    )
    np.testing.assert_array_equal(explain(1).raw, explain(1).raw)
    assert not np.allclose(explain(1).extras["loss"], explain(2).extras["loss"])


@pytest.mark.parametrize("kind", [MeaningfulPerturbation, ExtremalPerturbation])
@pytest.mark.parametrize("fill", [0.0, "mean", "noise", np.array([0.1, 0.2, 0.3])])
def test_every_fill_and_every_node(kind, fill):
    model, x = case()
    maps = kind(fill=fill, steps=3).explain(model, x, [Neuron("conv2", (1,))] * 2)
    assert np.isfinite(maps.raw).all()


@pytest.mark.parametrize("kind", [MeaningfulPerturbation, ExtremalPerturbation])
def test_vectors_cannot_be_masked(kind):
    with pytest.raises(ArrayError, match="pictures"):
        kind().explain(case()[0], np.zeros((1, 5)), [ClassScore(0)])


@pytest.mark.parametrize("kind", [MeaningfulPerturbation, ExtremalPerturbation])
def test_a_score_that_nothing_changes_is_survived(kind):
    model, x = counting()
    maps = kind(fill="mean", steps=3).explain(model, x, [ClassScore(0)])
    assert np.isfinite(maps.raw).all()


@parametrize_with_checks(
    [
        *BRIEF.values(),
        MeaningfulPerturbation(steps=3, cells=3),
        ExtremalPerturbation(steps=3),
        MeaningfulPerturbation("dual", steps=3, cells=5, fill="mean", noise=0.1, jitter=1),
        MeaningfulPerturbation("preserve", steps=5, fill="noise", tv=0.0, batch_size=2),
        ExtremalPerturbation(0.3, "dual", steps=3, fill=0.2, jitter=1),
        ExtremalPerturbation(0.3, "delete", steps=3, levels=3, batch_size=2),
        ExtremalPerturbation("all", steps=2, batch_size=4),
        ExtremalPerturbation(np.array([0.3]), steps=2),
    ]
)
def test_the_checks(explainer, check):
    check(explainer)
