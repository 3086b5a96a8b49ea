"""Regions that are enough or needed, Owen values and XRAI, against enumerations and plain loops."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise, product

import numpy as np
import pytest

import cnnviz_perturbation.xrai
from cnnviz_core.errors import ArrayError, ParameterError, TargetError
from cnnviz_core.explainer import passes_of, present
from cnnviz_core.model import LOGITS, OUTPUT, Trace
from cnnviz_core.netspec import NetSpec, Op
from cnnviz_core.progress import listening
from cnnviz_core.targets import ClassProbability, ClassScore, Contrast, Neuron, Predicted
from cnnviz_core.testing.explainers import parametrize_with_checks
from cnnviz_core.testing.nets import NETS, random_input
from cnnviz_core.testing.reference import ReferenceModel
from cnnviz_perturbation.answers import Lead, pruned
from cnnviz_perturbation.cells import cell_numbers
from cnnviz_perturbation.counterfactual_region import CounterfactualRegion
from cnnviz_perturbation.growing import grown, overlapping_segments
from cnnviz_perturbation.hierarchical_occlusion import HierarchicalOcclusion, owen_values
from cnnviz_perturbation.minimal_region import MinimalSufficientRegion
from cnnviz_perturbation.xrai import XRAI

REGIONS = [MinimalSufficientRegion, CounterfactualRegion]


class Game:
    """A network whose scores are those of a table, by which pixels of a picture of ones are left.

    It notes which pictures it is asked about.
    """

    framework, capabilities = "numpy", frozenset()

    def __init__(self, table):
        self.table, self.asked = np.asarray(table, np.float64), []

    def forward(self, x, *, capture=(), replace=None):
        kept = x.reshape(len(x), -1) > 0.5
        self.asked += [row.tobytes() for row in kept]
        scores = self.table[kept @ (1 << np.arange(kept.shape[1]))]
        return Trace({LOGITS: scores, OUTPUT: scores})


SUBSETS = np.array([[s >> k & 1 for k in range(9)] for s in range(512)], dtype=bool)
ONES = np.ones((1, 3, 3, 1))


def random_table(seed, classes=3):
    """Draw any scores: neither additive nor monotone."""
    return np.random.default_rng(seed).normal(size=(512, classes))


def additive_table(seed):
    """Draw scores that are sums of what each of nine cells adds, nothing of it negative."""
    return SUBSETS @ np.random.default_rng(seed).exponential(size=(9, 1))


def number_of(kept):
    return int(np.ravel(kept) @ (1 << np.arange(np.size(kept))))


def found_on(table, method, target=ClassScore(0), **params):  # noqa: B008
    """Run a method on a table: its maps, and which of the nine cells its region has."""
    maps = method(cells=3, fill=0.0, **params).explain(Game(table), ONES, [target])
    return maps, maps.extras["region"][0].ravel()


# ------------------------------------------------------------------------------ the cells


@pytest.mark.parametrize(("size", "cells"), [((12, 9), 4), ((7,), 3), ((5, 6, 7), 2), ((3, 20), 8)])
def test_cells_are_boxes_of_equal_size_that_cover_the_sample(size, cells):
    numbers = cell_numbers(size, cells)
    assert numbers.shape == size
    assert set(numbers.ravel()) == set(range(numbers.max() + 1))
    for k in range(numbers.max() + 1):
        where = np.argwhere(numbers == k)
        sides = np.ptp(where, axis=0) + 1
        assert len(where) == sides.prod()
        assert all(
            side in (n // min(cells, n), -(-n // min(cells, n)))
            for side, n in zip(sides, size, strict=True)
        )


# ------------------------------------------------------------------------------ theorems of regions


def stays(table, kept, criterion, threshold, c=0):
    """Tell whether a subset keeps the answer, by the definition."""
    scores = table[number_of(kept)]
    if criterion == "class":
        return scores[c] >= np.delete(scores, c).max()
    nothing, whole = table[0, c], table[-1, c]
    return (scores[c] - nothing) / (whole - nothing) >= threshold


CRITERIA = [("score", 0.3), ("score", 0.8), ("class", 0.5)]


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize(("criterion", "threshold"), CRITERIA)
def test_the_sufficient_region_is_enough_and_every_cell_of_it_is_needed(criterion, threshold, seed):
    table = random_table(seed)
    maps, region = found_on(
        table, MinimalSufficientRegion, Predicted(), criterion=criterion, threshold=threshold
    )
    c = maps.targets[0].index
    assert maps.extras["found"][0]
    assert stays(table, region, criterion, threshold, c)
    for k in np.flatnonzero(region):
        without = region.copy()
        without[k] = False
        assert not stays(table, without, criterion, threshold, c)
    assert maps.extras["cells"][0] == region.sum()
    assert maps.extras["score"][0] == table[number_of(region), c]


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize(("criterion", "threshold"), CRITERIA)
def test_without_the_counterfactual_region_the_answer_is_another(criterion, threshold, seed):
    table = random_table(seed)
    maps, region = found_on(
        table, CounterfactualRegion, Predicted(), criterion=criterion, threshold=threshold
    )
    c = maps.targets[0].index
    assert maps.extras["found"][0]
    assert not stays(table, ~region, criterion, threshold, c)
    for k in np.flatnonzero(region):
        back = ~region
        back[k] = True
        assert stays(table, back, criterion, threshold, c)
    assert maps.extras["cells"][0] == region.sum()
    assert maps.extras["score"][0] == table[number_of(~region), c]


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.9, 1.0])
def test_where_cells_add_up_no_region_is_smaller(threshold, seed):
    table = additive_table(seed)
    # Of all 512 subsets, the smallest that keep the answer, and those whose removal changes it.
    enough = [s for s in SUBSETS if stays(table, s, "score", threshold)]
    needed = [s for s in SUBSETS if not stays(table, ~s, "score", threshold)]
    for method, regions in ((MinimalSufficientRegion, enough), (CounterfactualRegion, needed)):
        _, region = found_on(table, method, threshold=threshold)
        assert region.sum() == min(s.sum() for s in regions)


@pytest.mark.parametrize("cell", [0, 4, 7])
@pytest.mark.parametrize("method", REGIONS)
def test_a_cell_that_is_ignored_is_in_no_region(method, cell):
    for seed in range(6):
        table = random_table(seed)[np.arange(512) | 1 << cell]
        for criterion in ("score", "class"):
            _, region = found_on(table, method, Predicted(), criterion=criterion)
            assert region.any() or criterion == "class"
            assert not region[cell]


@pytest.mark.parametrize("method", REGIONS)
def test_what_lowers_the_score_is_what_raises_its_opposite(method):
    for seed in range(6):
        table = random_table(seed)
        one, two = (found_on(table, method, t) for t in (Contrast(0, 1), Contrast(1, 0)))
        np.testing.assert_array_equal(one[1], two[1])
        np.testing.assert_array_equal(one[0].raw, -two[0].raw)
        sign = np.sign(table[-1, 0] - table[-1, 1] - table[0, 0] + table[0, 1])
        assert np.sign(one[0].raw[0].ravel()[one[1]]).tolist() == [sign] * one[1].sum()


def test_a_picture_that_scores_less_than_the_fill_shows_no_heat():
    maps, region = found_on(-additive_table(1), MinimalSufficientRegion)
    assert region.any()
    assert present(maps.raw, (3, 3), maps.presentation)[1] == ["all-negative"]


def test_the_sufficient_map_is_the_order_of_removal():
    weights = np.array([3, 1, 4, 1.5, 9, 2.6, 5.3, 5.8, 0.2])
    maps, region = found_on(SUBSETS @ weights[:, None], MinimalSufficientRegion, threshold=0.6)
    assert set(np.flatnonzero(region)) == {4, 7, 6}  # 20.1 of 32.4
    order = np.argsort(weights)[:6]
    np.testing.assert_allclose(maps.raw.ravel()[order], np.arange(6) / 12)
    assert (maps.raw.ravel()[region] == 1).all()


def test_the_counterfactual_map_is_the_order_of_removal():
    weights = np.array([3, 1, 4, 1.5, 9, 2.6, 5.3, 5.8, 0.2])
    maps, region = found_on(SUBSETS @ weights[:, None], CounterfactualRegion, threshold=0.4)
    assert set(np.flatnonzero(region)) == {4, 7, 6}  # 12.3 of 32.4 are left
    np.testing.assert_allclose(maps.raw.ravel()[[4, 7, 6]], [1, 2 / 3, 1 / 3])
    assert maps.raw.ravel()[~region].tolist() == [0] * 6


def test_cells_that_turned_out_not_to_be_needed_are_put_back():
    # The first cell alone lowers the score most; with the next two gone, it does not matter.
    table = np.array([10 - 4 * (not s[0]) for s in SUBSETS], dtype=float)
    for k, s in enumerate(SUBSETS):
        if not s[1]:
            table[k] = min(table[k], 7)
        if not s[1] and not s[2]:
            table[k] = 0
    table[0] = 0
    _, region = found_on(table[:, None], CounterfactualRegion, threshold=0.5)
    assert set(np.flatnonzero(region)) == {1, 2}


@pytest.mark.parametrize("method", REGIONS)
def test_a_class_that_is_not_predicted_has_no_region(method):
    table = random_table(3)
    table[-1] = [1, 2, 0]
    maps, region = found_on(table, method, ClassProbability(0), criterion="class")
    assert not region.any()
    assert not maps.raw.any()
    assert maps.extras["found"].tolist() == [False]
    assert maps.extras["cells"].tolist() == [0]


@pytest.mark.parametrize("method", REGIONS)
def test_a_score_that_the_picture_does_not_change_has_no_region(method):
    maps, region = found_on(np.full((512, 2), 3.0), method)
    assert not region.any()
    assert maps.extras["found"].tolist() == [False]
    assert present(maps.raw, (3, 3), maps.presentation)[1] == ["all-zero"]


def test_a_class_that_the_fill_alone_has_needs_no_region_and_nothing_changes_it():
    table = np.stack([np.ones(512), SUBSETS.mean(1) / 2], axis=1)
    maps, region = found_on(table, MinimalSufficientRegion, criterion="class")
    assert maps.extras["found"].tolist() == [True]
    assert not region.any()
    maps, region = found_on(table, CounterfactualRegion, criterion="class")
    assert maps.extras["found"].tolist() == [False]
    assert not region.any()
    assert maps.extras["score"].tolist() == maps.scores.tolist()


@pytest.mark.parametrize("method", REGIONS)
def test_only_classes_stay_predicted(method):
    for target in (Contrast(0, 1), Neuron(OUTPUT, (0,))):
        with pytest.raises(TargetError, match="criterion='score'"):
            found_on(random_table(0), method, target, criterion="class")
    with pytest.raises(TargetError, match="two classes"):
        found_on(random_table(0, classes=1), method, criterion="class")


@pytest.mark.parametrize(("enough", "rounds"), [(0, 20), (5, 15), (16, 9)])
def test_at_most_a_quarter_is_removed_together(enough, rounds):
    asked = []

    def value(sets):
        asked.append(sets.sum(1))
        return sets.sum(1).astype(float)

    removed, rest = pruned(value, lambda values: values >= enough, np.ones(64, bool))
    assert rest.sum() == enough
    assert len(removed) == 64 - enough
    sizes = [sizes[0] + 1 for sizes in asked if len(sizes) > 1 or sizes[0] < 4]
    assert all(after >= 0.75 * before or before < 4 for before, after in pairwise(sizes))
    assert len(sizes) <= rounds


@pytest.mark.parametrize("n", [1, 2, 5, 9, 12])
def test_pruning_never_asks_more_than_is_said(n):
    for seed in range(40):
        rng = np.random.default_rng(seed)
        table = rng.normal(size=2**n) + 2 * (rng.random(2**n) < 0.7)
        seen = set()

        def value(sets, table=table, seen=seen):
            codes = sets @ (1 << np.arange(n))
            seen.update(codes.tolist())
            return table[codes]

        pruned(value, lambda values: values >= 0, np.ones(n, bool))
        assert len(seen) <= n * (n + 1) / 2 + np.log2(n)


def test_a_lead_is_a_contrast_with_the_best_other_class():
    value = np.array([0.5, 2, -1, 1.5])
    for index, other in ((0, 1), (1, 3), (3, 1)):
        assert Lead(index).score(value) == Contrast(index, other).score(value)
        np.testing.assert_array_equal(
            Lead(index).gradient(value), Contrast(index, other).gradient(value)
        )


# ------------------------------------------------------------------------------ Owen values


def orders(block):
    """Give all orders of a tree's cells in which the cells of every block are neighbours."""
    sides = [len(part) for part in block]
    if max(sides) == 1:
        return [[tuple(part[0] for part in block)]]
    axis = sides.index(max(sides))
    middle = sides[axis] // 2
    halves = [
        (*block[:axis], block[axis][part], *block[axis + 1 :])
        for part in (slice(middle), slice(middle, None))
    ]
    first, second = map(orders, halves)
    return [a + b for a in first for b in second] + [b + a for a in first for b in second]


def owen_by_enumeration(table, grid):
    """Average what each cell adds, over the orders that the tree allows."""
    values = np.zeros(grid)
    allowed = orders(tuple(range(n) for n in grid))
    for order in allowed:
        kept, before = np.zeros(grid, bool), table[0]
        for cell in order:
            kept[cell] = True
            after = table[number_of(kept)]
            values[cell] += (after - before) / len(allowed)
            before = after
    return values.ravel()


def valued(table):
    return lambda kept: table[kept @ (1 << np.arange(kept.shape[1]))]


@pytest.mark.parametrize("grid", [(1,), (2,), (5,), (2, 3), (3, 3), (2, 2, 2), (1, 7)])
def test_with_enough_passes_they_are_the_definition(grid):
    for seed in range(3):
        table = np.random.default_rng(seed).normal(size=2 ** np.prod(grid))
        found = owen_values(valued(table), grid, 10**6)
        np.testing.assert_allclose(found, owen_by_enumeration(table, grid), atol=1e-12)


@pytest.mark.parametrize("samples", [2, 3, 4, 10, 31, 100, 10**6])
def test_they_add_up_whatever_the_passes(samples):
    table = random_table(4)[:, 1]
    found = owen_values(valued(table), (3, 3), samples)
    assert found.sum() == pytest.approx(table[-1] - table[0], abs=1e-12)
    model = Game(random_table(4))
    explainer = HierarchicalOcclusion(samples=samples, cells=3, fill=0.0)
    maps = explainer.explain(model, ONES, [ClassScore(1)])
    assert maps.raw.sum() == pytest.approx(table[-1] - table[0], abs=1e-12)
    np.testing.assert_allclose(maps.extras["values"][0], found, atol=1e-12)
    # All passes that may be used are, each for another subset.
    assert len(model.asked) == passes_of(explainer, model, ONES) <= samples + 1
    assert len(set(model.asked)) == len(model.asked) - 1


def test_of_additive_scores_they_are_what_each_cell_adds():
    weights = np.random.default_rng(2).normal(size=9)
    found = owen_values(valued(SUBSETS @ weights), (3, 3), 10**6)
    np.testing.assert_allclose(found, weights, atol=1e-12)


def test_two_blocks_share_as_shapley_says_and_cells_of_a_block_evenly():
    table = random_table(7)[:, 0]
    found = owen_values(valued(table), (3, 3), 4).reshape(3, 3)
    top, rest = np.zeros((3, 3), bool), np.ones((3, 3), bool)
    top[0], rest[0] = True, False
    one, other = table[number_of(top)], table[number_of(rest)]
    expected = ((one - table[0]) + (table[-1] - other)) / 2
    np.testing.assert_allclose(found[0], expected / 3)
    np.testing.assert_allclose(found[1:], (table[-1] - table[0] - expected) / 6)


@pytest.mark.parametrize("cell", [0, 4, 8])
def test_a_cell_that_is_ignored_gets_nothing(cell):
    table = random_table(5)[np.arange(512) | 1 << cell, 0]
    assert owen_values(valued(table), (3, 3), 10**6)[cell] == pytest.approx(0, abs=1e-12)


def test_passes_go_where_most_is_to_be_shared():
    # Only the last of 64 cells matters: one way down the tree finds it.
    def value(kept):
        asked.append(len(kept))
        return kept[:, -1].astype(float)

    asked = []
    found = owen_values(value, (64,), 150)
    assert found[-1] == pytest.approx(1)
    assert np.abs(found[:-1]).max() < 1e-12
    assert sum(asked) <= 150


# ------------------------------------------------------------------------------ XRAI


def linear(size=(24, 20), channels=3, seed=0):
    """Give a network whose score is linear in the picture, and a picture with some edges."""
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=(*size, channels, 2))
    net = NetSpec(
        {"image": (*size, channels)},
        (Op("flat", "flatten", ("image",)), Op("fc", "linear", ("flat",))),
        {"fc.weight": weights.reshape(-1, 2), "fc.bias": np.zeros(2)},
        "linear",
    )
    colours = rng.uniform(0.1, 0.9, size=(4, channels))
    quarter = np.add.outer(2 * (np.arange(size[0]) > 9), np.arange(size[1]) > 11)
    x = np.clip(colours[quarter] + 0.02 * rng.normal(size=(*size, channels)), 0, 1)
    return ReferenceModel(net, "float64"), x[None], weights


def grown_by_loops(masks, attribution):
    """Cover by what has the largest mean, counted anew each time."""
    covered = np.zeros(attribution.shape, bool)
    order = np.full(attribution.shape, -1)
    least = max(1, round(50 * attribution.size / 224**2))
    for number in range(len(masks) + 1):
        fresh = [mask & ~covered for mask in masks]
        means = [attribution[f].mean() if f.sum() >= least else -np.inf for f in fresh]
        if max(means) == -np.inf:
            order[~covered] = number
            return order
        best = fresh[int(np.argmax(means))]
        order[best], covered = number, covered | best
    raise AssertionError


@pytest.mark.parametrize("size", [(20, 17), (70, 90)])
def test_regions_grow_by_the_mean_of_what_is_new(size):
    for seed in range(3):
        rng = np.random.default_rng(seed)
        masks = []
        for _ in range(25):
            top, left = (rng.integers(0, n - 3) for n in size)
            mask = np.zeros(size, bool)
            mask[top : top + rng.integers(1, 12), left : left + rng.integers(1, 12)] = True
            masks.append(mask)
        attribution = rng.normal(size=size)
        found = grown([np.flatnonzero(mask) for mask in masks], attribution)
        np.testing.assert_array_equal(found, grown_by_loops(masks, attribution))


@pytest.mark.parametrize("dilation", [0.0, 30.0, 1000.0])
def test_segments_are_widened_by_their_distance(dilation):
    from skimage.segmentation import felzenszwalb

    picture = 2 * linear()[1][0] - 1
    share = 24 * 20 / 224**2
    pixels = np.array(list(product(range(24), range(20))))
    distances = np.hypot(*(pixels[:, None] - pixels).transpose(2, 0, 1))
    masks = []
    for scale in (50, 100, 150, 250, 500, 1200):
        numbers = felzenszwalb(picture, scale=scale * share, sigma=0.8, min_size=1, channel_axis=-1)
        for k in range(numbers.max() + 1):
            nearest = distances[:, numbers.ravel() == k].min(1)
            masks.append(np.flatnonzero(nearest <= dilation * np.sqrt(share)))
    found = overlapping_segments(picture, dilation)
    assert len(found) == len(masks) > 6
    for segment, mask in zip(found, masks, strict=True):
        np.testing.assert_array_equal(segment, mask)


@pytest.mark.parametrize(("low", "high"), [(None, None), (-0.5, 1.5), ("channels", "channels")])
def test_xrai_is_its_formula(low, high):
    model, x, weights = linear()
    ends = {
        (None, None): (np.full(3, x.min()), np.full(3, x.max())),
        (-0.5, 1.5): (np.full(3, -0.5), np.full(3, 1.5)),
        ("channels", "channels"): (np.array([-0.1, 0, -0.4]), np.array([1, 1.2, 1.1])),
    }[low, high]
    given = (None, None) if low is None else (low, high) if low == -0.5 else ends
    explainer = XRAI(*given, steps=2, dilation=20.0, batch_size=3)
    maps = explainer.explain(model, x, [ClassScore(1)])
    # The gradient of a linear score is the same everywhere on the two lines.
    attribution = (weights[..., 1] * (x[0] - np.mean(ends, axis=0))).sum(-1)
    colours = 2 * (x[0] - ends[0]) / (ends[1] - ends[0]) - 1
    expected = grown(overlapping_segments(colours, 20.0), attribution)
    np.testing.assert_array_equal(maps.extras["regions"][0], expected)
    for k in range(expected.max() + 1):
        inside = expected == k
        np.testing.assert_allclose(maps.extras["density"][0][inside], attribution[inside].mean())
        np.testing.assert_allclose(maps.raw[0][inside], 1 - (expected < k).mean())


def test_the_map_is_the_share_that_is_not_yet_covered():
    model, x, _ = linear()
    maps = XRAI(steps=1).explain(model, x, [ClassScore(0)])
    raw, regions = maps.raw[0], maps.extras["regions"][0]
    assert regions.min() == 0  # full coverage
    assert set(regions.ravel()) == set(range(regions.max() + 1))
    assert raw.max() == 1
    assert raw.min() > 0
    inner = np.zeros(raw.shape, bool)
    for share in (0.1, 0.3, 0.6, 1.0):
        region = raw > 1 - share
        assert region.mean() >= share
        assert not (inner & ~region).any()  # a smaller region lies in every larger one
        inner = region


def test_xrai_of_a_picture_of_one_colour_or_of_many_channels():
    model, x, _ = linear()
    flat = XRAI(low=0.0, high=1.0, steps=1).explain(model, 0 * x, [ClassScore(0)])
    assert flat.extras["regions"].max() == 0
    assert XRAI(steps=1).explain(model, 0 * x, [ClassScore(0)]).raw.shape == (1, 24, 20)
    model, x, _ = linear(channels=5)
    assert XRAI(steps=1).explain(model, x, [ClassScore(0)]).extras["regions"].max() > 0


def test_targets_of_one_picture_share_its_segments(monkeypatch):
    model, x, _ = linear()
    calls = []

    def counted(picture, dilation):
        calls.append(1)
        return overlapping_segments(picture, dilation)

    monkeypatch.setattr(cnnviz_perturbation.xrai, "overlapping_segments", counted)
    both = XRAI(steps=1).explain(model, np.repeat(x, 2, axis=0), [ClassScore(0), ClassScore(1)])
    assert len(calls) == 1
    for k in range(2):
        one = XRAI(steps=1).explain(model, x, [ClassScore(k)])
        np.testing.assert_array_equal(both.raw[k], one.raw[0])


@pytest.mark.parametrize(
    ("low", "high", "message"),
    [(0.0, None, "both"), (None, 1.0, "both"), (np.zeros(2), np.ones(3), "3 channels")],
)
def test_ends_that_do_not_fit_are_reported(low, high, message):
    model, x, _ = linear()
    with pytest.raises(ParameterError, match=message):
        XRAI(low=low, high=high).explain(model, x, [ClassScore(0)])


def test_xrai_is_for_pictures():
    net = NETS["signal"]()
    with pytest.raises(ArrayError, match="hierarchical-occlusion"):
        XRAI().explain(ReferenceModel(net), random_input(net, 1)["signal"], [ClassScore(0)])


# ------------------------------------------------------------------------------ networks and work

SMALL = [
    MinimalSufficientRegion(cells=3),
    CounterfactualRegion(cells=3),
    HierarchicalOcclusion(samples=40, cells=4),
]


def case(name="plain", n=2, dtype="float64"):
    net = NETS[name]()
    (x,) = random_input(net, n, seed=5).values()
    return ReferenceModel(net, dtype), x.astype(dtype)


@pytest.mark.parametrize("name", ["plain", "signal", "volume"])
@pytest.mark.parametrize("fill", ["mean", "blur", "noise", 0.3])
def test_regions_of_networks_do_what_they_say(name, fill):
    model, x = case(name)
    targets = [ClassScore(1), Contrast(0, 2)]
    for method in REGIONS:
        maps = method(cells=2, fill=fill, threshold=0.6).explain(model, x, targets)
        assert maps.raw.shape == x.shape[:-1]
        if fill not in ("mean", 0.3):
            continue
        for n, target in enumerate(targets):
            keep = maps.extras["region"][n] ^ (method is CounterfactualRegion)
            shown = x[n].mean(tuple(range(x.ndim - 2))) if fill == "mean" else np.array(fill)
            pictures = [
                x[n],
                np.broadcast_to(shown, x[n].shape),
                np.where(keep[..., None], x[n], shown),
            ]
            whole, nothing, part = (
                target.score(model.forward(p[None]).logits[0]) for p in pictures
            )
            share = (part - nothing) / (whole - nothing)
            assert (share >= 0.6) == (method is MinimalSufficientRegion)
            assert part == pytest.approx(maps.extras["score"][n], rel=1e-12)


@pytest.mark.parametrize("name", ["plain", "signal", "volume"])
def test_owen_values_of_networks_add_up_over_pixels(name):
    model, x = case(name)
    targets = [ClassScore(1), Contrast(0, 2)]
    maps = HierarchicalOcclusion(samples=30, cells=3, fill=0.2).explain(model, x, targets)
    nothing = [t.score(v) for t, v in zip(targets, model.forward(0 * x + 0.2).logits, strict=True)]
    np.testing.assert_allclose(maps.raw.reshape(2, -1).sum(1), maps.scores - nothing, atol=1e-12)
    for n in range(2):
        cells = cell_numbers(x.shape[1:-1], 3)
        np.testing.assert_allclose(
            np.bincount(cells.ravel(), maps.raw[n].ravel()), maps.extras["values"][n], atol=1e-12
        )


@pytest.mark.parametrize("method", REGIONS)
def test_passes_are_never_more_than_is_said_beforehand(method):
    for seed in range(20):
        model = Game(random_table(seed))
        explainer = method(cells=3, fill=0.0)
        explainer.explain(model, ONES, [ClassScore(0)])
        assert len(model.asked) <= passes_of(explainer, model, ONES)
        # But for the score of the picture to begin with, no subset goes through it twice.
        assert len(set(model.asked)) == len(model.asked) - 1


@pytest.mark.parametrize("explainer", SMALL, ids=lambda e: type(e).__name__)
def test_targets_of_one_picture_share_its_passes(explainer):
    targets = [ClassScore(0), ClassScore(1), Contrast(2, 1), ClassScore(0)]
    explainer = replace(explainer, cells=3, fill=0.0)
    shared, table = Game(random_table(2)), random_table(2)
    together = explainer.explain(shared, np.repeat(ONES, 4, axis=0), targets)
    for n, target in enumerate(targets):
        alone = explainer.explain(Game(table), ONES, [target])
        np.testing.assert_array_equal(together.raw[n], alone.raw[0])
        for name, values in alone.extras.items():
            np.testing.assert_array_equal(together.extras[name][n], values[0])
    assert len(shared.asked) == 4 + len(set(shared.asked))


@pytest.mark.parametrize("explainer", [*SMALL, XRAI(steps=2)], ids=lambda e: type(e).__name__)
def test_the_batch_size_changes_the_work_alone(explainer):
    model, x = case()
    targets = [ClassScore(3), Contrast(1, 4)]
    expected = explainer.explain(model, x, targets)
    for batch_size in (1, 7):
        found = replace(explainer, batch_size=batch_size).explain(model, x, targets)
        np.testing.assert_allclose(found.raw, expected.raw, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("explainer", [*SMALL, XRAI(steps=2)], ids=lambda e: type(e).__name__)
def test_the_work_is_told(explainer):
    model, x = case()
    told = []
    with listening(lambda what, done, total: told.append((what, done, total))):
        explainer.explain(model, x, [ClassScore(3), Contrast(1, 4)])
    assert all(0 < done <= total for _, done, total in told)
    assert {what.split(", ")[1] for what, _, _ in told} == {"picture 1 of 2", "picture 2 of 2"}


@pytest.mark.parametrize("explainer", [*SMALL, XRAI(steps=2)], ids=lambda e: type(e).__name__)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_type_of_the_numbers_is_kept(explainer, dtype):
    model, x = case(dtype=dtype)
    maps = explainer.explain(model, x, [ClassScore(3), Contrast(1, 4)])
    assert maps.raw.dtype == maps.scores.dtype == dtype
    assert all(e.dtype == dtype for e in maps.extras.values() if e.dtype.kind == "f")


@pytest.mark.parametrize("explainer", SMALL, ids=lambda e: type(e).__name__)
def test_samples_without_axes_are_refused(explainer):
    net = NetSpec(
        {"vector": (4,)},
        (Op("fc", "linear", ("vector",)),),
        {"fc.weight": np.ones((4, 2)), "fc.bias": np.zeros(2)},
    )
    with pytest.raises(ArrayError, match="pictures, signals or volumes"):
        explainer.explain(ReferenceModel(net), np.ones((1, 4), np.float32), [ClassScore(0)])


@parametrize_with_checks(
    [
        *SMALL,
        MinimalSufficientRegion(cells=4, fill="blur", threshold=1.0),
        CounterfactualRegion(cells=4, fill="noise", seed=3, threshold=0.9),
        HierarchicalOcclusion(samples=7),
        XRAI(steps=3),
        XRAI(steps=2, low=-2.0, high=2.0, dilation=20.0),
    ]
)
def test_the_checks(explainer, check):
    check(explainer)
