"""Sobol indices and HSIC against their formulas, written plainly, and against closed forms."""

from __future__ import annotations

import itertools
import math
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from cnnviz_core.errors import ArrayError, ParameterError
from cnnviz_core.explainer import passes_of
from cnnviz_core.maps import resize
from cnnviz_core.masks import drawn
from cnnviz_core.model import LOGITS, OUTPUT, InputInfo, Trace
from cnnviz_core.netspec import NetSpec, Op
from cnnviz_core.progress import listening
from cnnviz_core.targets import ClassScore, Contrast, Predicted
from cnnviz_core.testing.explainers import parametrize_with_checks
from cnnviz_core.testing.nets import NETS, random_input
from cnnviz_core.testing.reference import ReferenceModel
from cnnviz_perturbation.designs import (
    PickFreezeMasks,
    binary_hypercube,
    low_discrepancy_pairs,
)
from cnnviz_perturbation.hsic import HSIC
from cnnviz_perturbation.sobol import Sobol

METHODS = [Sobol(cells=3, samples=8, batch_size=40), HSIC(cells=3, samples=60, batch_size=40)]
each_method = pytest.mark.parametrize("method", METHODS, ids=["sobol", "hsic"])


@parametrize_with_checks(
    [
        *METHODS,
        Sobol(cells=4, samples=4, upsample="bilinear", fill="blur", batch_size=40),
        HSIC(cells=4, samples=61, bandwidth="scores", fill="mean", batch_size=40),
    ]
)
def test_the_kit(explainer, check):
    check(explainer)


class Formula:
    """A model whose scores are functions of a signal's values, which notes what it was given."""

    framework, activation, layers = "formula", "softmax", {}
    capabilities = frozenset()

    def __init__(self, cells, *functions):
        self.inputs = {"x": InputInfo("x", (cells, 1), "float64")}
        self.functions, self.calls = functions, []

    def forward(self, x, **_):
        self.calls.append(x[..., 0])
        scores = np.stack([f(*x[..., 0].T) + np.zeros(len(x)) for f in self.functions], -1)
        return Trace({OUTPUT: scores, LOGITS: scores})

    @property
    def seen(self):
        """What it was given under the masks."""
        return np.concatenate(self.calls[1:])


def of_formula(method, cells, *functions):
    """Explain functions of how much of each cell is kept: the sample is 1, and 0 where masked."""
    model = Formula(cells, *functions)
    x = np.ones((len(functions), cells, 1))
    targets = [ClassScore(k) for k in range(len(functions))]
    method = replace(method, cells=cells, fill=0.0, batch_size=1000)
    return method.explain(model, x, targets), model


def cell_maps(maps):
    """Give the raw map, and the extras that are maps too."""
    others = {name: v for name, v in maps.extras.items() if v.shape == maps.raw.shape}
    return {"raw": maps.raw, **others}


# ------------------------------------------------------------------------------------- designs


@pytest.mark.parametrize("samples", [2, 16, 32])
def test_the_designs_of_sobol_have_a_value_in_every_interval(samples):
    first, second = low_discrepancy_pairs(samples, 5, seed=3)
    for column in [*first.T, *second.T]:
        assert sorted(math.floor(samples * value) for value in column) == list(range(samples))


def test_every_cell_is_taken_from_the_second_design_in_turn():
    first, second = np.random.default_rng(0).random((2, 4, 2, 3))
    masks = PickFreezeMasks(first, second, (2, 3))
    expected = []
    for a, b in zip(first, second, strict=True):
        expected += [a, b]
        for cell in itertools.product(range(2), range(3)):
            mixed = a.copy()
            mixed[cell] = b[cell]
            expected.append(mixed)
    assert len(masks) == len(expected) == 4 * (6 + 2)
    np.testing.assert_array_equal(drawn(masks, 0, 32), np.float32(expected))
    for start, stop in [(0, 5), (3, 9), (7, 8), (30, 40)]:
        np.testing.assert_array_equal(drawn(masks, start, stop), np.float32(expected[start:stop]))
    large = PickFreezeMasks(first, second, (5, 9), "bilinear")
    np.testing.assert_array_equal(
        drawn(large, 3, 9), resize(np.float32(expected[3:9]), (5, 9), "bilinear")
    )


@pytest.mark.parametrize("samples", [2, 7, 40])
def test_a_cell_is_kept_in_half_of_the_runs(samples):
    kept = binary_hypercube(samples, 9, seed=1)
    assert kept.shape == (samples, 9)
    np.testing.assert_array_equal(kept.sum(0), samples // 2)
    if samples == 40:
        assert len({tuple(column) for column in kept.T}) == 9


def test_so_it_is_in_each_hypercube_and_those_are_the_same_however_many_there_are():
    kept = binary_hypercube(70, 9, seed=1)
    for start in (0, 20, 40):
        np.testing.assert_array_equal(kept[start : start + 20].sum(0), 10)
        np.testing.assert_array_equal(kept[: start + 20], binary_hypercube(start + 20, 9, seed=1))
    assert not np.array_equal(kept[:20], kept[20:40])


@each_method
def test_the_seed_decides_the_masks(method):
    one, two, three = (
        of_formula(replace(method, seed=seed), 3, lambda a, b, c: a * b + c)[1].seen
        for seed in (4, 4, 5)
    )
    np.testing.assert_array_equal(one, two)
    assert not np.array_equal(one, three)


# ------------------------------------------------------------------------------- Sobol's formula

CURVED = (lambda a, b, c: 3 * a * b + np.sin(5 * c), lambda a, b, c: 7 + a + b**2 - c / 2)


def indices_by_formula(a, b, mixed):
    """Estimate a cell's total index (Jansen) and first-order index (Saltelli et al. 2010)."""
    n = len(a)
    middle = sum(a) / n
    variance = sum((y - middle) ** 2 for y in a) / (n - 1)
    total = sum((a[j] - mixed[j]) ** 2 for j in range(n)) / (2 * n) / variance
    alone = sum(b[j] * (mixed[j] - a[j]) for j in range(n)) / n / variance
    return total, alone


@pytest.mark.parametrize("samples", [4, 32])
def test_sobol_is_its_formula(samples):
    maps, model = of_formula(Sobol(samples=samples, seed=2, resamples=50), 3, *CURVED)
    assert len(model.seen) == samples * 5
    for n, f in enumerate(CURVED):
        y = f(*model.seen.T)
        y = (y - y.mean()).reshape(samples, 5).T  # what is added to all scores is of no account
        rng = np.random.default_rng(2)
        draws = [rng.integers(samples, size=samples) for _ in range(50)]
        for k in range(3):
            total, alone = indices_by_formula(y[0], y[1], y[2 + k])
            np.testing.assert_allclose(maps.raw[n, k], total, rtol=1e-10)
            np.testing.assert_allclose(maps.extras["first_order"][n, k], alone, rtol=1e-10)
            again = [
                indices_by_formula(y[0][d], y[1][d], y[2 + k][d])[0] if np.ptp(y[0][d]) else 0
                for d in draws
            ]
            np.testing.assert_allclose(
                maps.extras["standard_error"][n, k], np.std(again, ddof=1), rtol=1e-9
            )


def g_function(*values):
    """Sobol's g-function with a = 0, 1, 4.5, 9, 99, of which the indices are known."""
    parts = [
        (abs(4 * v - 2) + a) / (1 + a) for v, a in zip(values, (0, 1, 4.5, 9, 99), strict=True)
    ]
    return np.prod(parts, axis=0)


def ishigami(*values):
    a, b, c = (2 * np.pi * v - np.pi for v in values)
    return np.sin(a) + 7 * np.sin(b) ** 2 + 0.1 * c**4 * np.sin(a)


PARTS = 1 / 3 / (1 + np.array([0, 1, 4.5, 9, 99])) ** 2
KNOWN = {
    "g-function": (
        g_function,
        [part * np.prod(1 + np.delete(PARTS, k)) for k, part in enumerate(PARTS)]
        / (np.prod(1 + PARTS) - 1),
        PARTS / (np.prod(1 + PARTS) - 1),
    ),
    "ishigami": (ishigami, [0.55759, 0.44241, 0.24368], [0.31390, 0.44241, 0]),
}
"""Functions of uniform values with their total and first-order indices (Ishigami & Homma 1990;
Saltelli & Sobol 1995)."""


@pytest.mark.parametrize("name", KNOWN)
def test_sobol_finds_the_indices_that_are_known(name):
    f, total, alone = KNOWN[name]
    maps, _ = of_formula(Sobol(samples=2048), len(total), f)
    error = maps.extras["standard_error"][0]
    assert error.max() < 0.04
    assert (np.abs(maps.raw[0] - total) < error + 1e-5).all()
    np.testing.assert_allclose(maps.raw[0], total, atol=0.01)
    np.testing.assert_allclose(maps.extras["first_order"][0], alone, atol=0.03)


def test_the_standard_error_is_that_of_seeds():
    maps = [of_formula(Sobol(samples=64, seed=s), 3, ishigami)[0] for s in range(30)]
    spread = np.std([m.raw[0] for m in maps], axis=0, ddof=1)
    told = np.mean([m.extras["standard_error"][0] for m in maps], axis=0)
    assert (spread < 1.2 * told).all()  # designs that are evener than chance err less
    assert (spread > 0.2 * told).all()


def test_without_interactions_a_cell_has_its_total_index_alone():
    maps, _ = of_formula(
        Sobol(samples=1024), 4, lambda a, b, c, d: np.exp(a) + 2 * b**3 - np.sqrt(c) + 0 * d
    )
    np.testing.assert_allclose(maps.raw[0].sum(), 1, atol=0.01)
    np.testing.assert_allclose(maps.extras["first_order"][0], maps.raw[0], atol=0.02)


def test_with_interactions_the_total_indices_exceed_the_whole():
    maps, _ = of_formula(Sobol(samples=1024), 2, lambda a, b: (a - 0.5) * (b - 0.5))
    np.testing.assert_allclose(maps.raw[0], 1, atol=0.03)
    np.testing.assert_allclose(maps.extras["first_order"][0], 0, atol=0.03)


def linear(size, seed=0):
    """Give a network that is one linear layer, and its weights for class 1."""
    weight = np.random.default_rng(seed).normal(size=(math.prod(size) * 2, 3))
    net = NetSpec(
        {"x": (*size, 2)},
        (Op("flat", "flatten", ("x",)), Op("fc", "linear", ("flat",))),
        {"fc.weight": weight, "fc.bias": np.array([5.0, -3.0, 1.0])},
    )
    return ReferenceModel(net, "float64"), weight[:, 1].reshape(*size, 2)


def cell_sums(values, grid):
    """Sum what lies in each cell of a grid that divides the size."""
    shape = [
        part for extent, n in zip(values.shape, grid, strict=True) for part in (n, extent // n)
    ]
    return values.reshape(shape).sum(tuple(range(1, len(shape), 2)))


@pytest.mark.parametrize("size", [(12,), (6, 9), (6, 3, 3)])
def test_in_a_linear_network_an_index_is_a_squared_coefficient(size):
    model, weight = linear(size)
    x = np.random.default_rng(1).normal(size=(1, *size, 2))
    grid = (3,) * len(size)
    squares = cell_sums((weight * (x[0] - 0.3)).sum(-1), grid) ** 2
    maps = Sobol(cells=3, samples=512, fill=0.3, batch_size=512).explain(model, x, [ClassScore(1)])
    # Exactly: each is the square times the mean square of the steps in its cell.
    first, second = (
        np.float32(d).astype(float) for d in low_discrepancy_pairs(512, squares.size, 0)
    )
    steps = ((first - second) ** 2).mean(0) / 2
    coefficients = cell_sums((weight * (x[0] - 0.3)).sum(-1), grid).ravel()
    expected = squares.ravel() * steps / np.var(first @ coefficients, ddof=1)
    found = maps.raw[0][tuple(slice(None, None, extent // 3) for extent in size)]
    np.testing.assert_allclose(found.ravel(), expected, rtol=1e-6)
    np.testing.assert_allclose(found, squares / squares.sum(), atol=0.02)


@pytest.mark.parametrize("f", [lambda a, b, c: 10 * np.sin(9 * a) * c, lambda a, b, c: 4.0])
def test_the_index_of_an_ignored_cell_is_exactly_zero(f):
    maps, _ = of_formula(Sobol(samples=32), 3, f)
    for values in cell_maps(maps).values():
        assert values[0, 1] == 0
        assert values.any() == (f(0.1, 0, 1) != 4)


# -------------------------------------------------------------------------------- HSIC's formula


def hsic_by_formula(z, y, width, weights=None):
    """Take the trace of K H L H with all four written out; of runs that weigh 1 unless told."""
    p = len(y)
    weights = np.full(p, 1 / p) if weights is None else weights
    k, gauss = np.empty((p, p)), np.empty((p, p))
    for i, j in itertools.product(range(p), repeat=2):
        k[i, j] = 1 + (0.5 - (z[i] - z[j]) ** 2)
        gauss[i, j] = math.exp(-((y[i] - y[j]) ** 2) / (2 * width**2))
    h = np.eye(p) - np.outer(np.ones(p), weights)
    centred = h @ k @ h.T, h @ gauss @ h.T
    return weights @ (centred[0] * centred[1]) @ weights


def width_by_formula(y, bandwidth):
    if bandwidth == "scores":
        return np.median(y)
    return np.median([abs(a - b) for a, b in itertools.combinations(y, 2)])


@pytest.mark.parametrize("bandwidth", ["distances", "scores"])
@pytest.mark.parametrize("samples", [2, 15, 300])
def test_hsic_is_its_formula(samples, bandwidth):
    method = HSIC(samples=samples, bandwidth=bandwidth, seed=2)
    functions = [lambda a, b, c: 3 * a * b - c + 0.2, lambda a, b, c: 7 + a + b / 2 - a * c]
    maps, model = of_formula(method, 3, *functions)
    assert set(np.unique(model.seen)) == {0, 1}
    for n, f in enumerate(functions):
        y = f(*model.seen.T)
        width = width_by_formula(y, bandwidth)
        for k in range(3):
            expected = hsic_by_formula(model.seen[:, k], y, width) * (samples / (samples - 1)) ** 2
            np.testing.assert_allclose(maps.raw[n, k], expected, rtol=1e-10)


def test_the_kernel_of_the_scores_may_be_of_more_than_a_block_of_rows(monkeypatch):
    expected = of_formula(HSIC(samples=50), 3, *CURVED)[0]
    monkeypatch.setattr("cnnviz_perturbation.hsic._ROWS", 7)
    found = of_formula(HSIC(samples=50), 3, *CURVED)[0]
    np.testing.assert_allclose(found.raw, expected.raw, rtol=1e-12)
    np.testing.assert_allclose(found.extras["chance"], expected.extras["chance"], rtol=1e-12)


def test_chance_is_the_mean_over_all_orders_of_the_scores():
    maps, model = of_formula(HSIC(samples=6), 3, CURVED[0])
    y = CURVED[0](*model.seen.T)
    width = width_by_formula(y, "distances")
    for k in range(3):
        level = np.mean(
            [
                hsic_by_formula(model.seen[:, k], np.array(order), width)
                for order in itertools.permutations(y)
            ]
        )
        np.testing.assert_allclose(maps.extras["chance"][0, k], level * (6 / 5) ** 2, rtol=1e-10)


def test_the_error_of_hsic_is_the_infinitesimal_jackknife():
    p, step = 20, 1e-6
    maps, model = of_formula(HSIC(samples=p), 3, CURVED[0])
    y = CURVED[0](*model.seen.T)
    width = width_by_formula(y, "distances")
    for k in range(3):
        slopes = []
        for run in range(p):
            sides = []
            for moved in (step, -step):
                weights = np.full(p, (1 - moved) / p)
                weights[run] += moved
                sides.append(hsic_by_formula(model.seen[:, k], y, width, weights))
            slopes.append((sides[0] - sides[1]) / (2 * step))
        error = math.sqrt(sum(s**2 for s in slopes)) / p * (p / (p - 1)) ** 2
        np.testing.assert_allclose(maps.extras["standard_error"][0, k], error, rtol=1e-6)


def test_the_error_of_hsic_is_that_of_seeds():
    f = lambda a, b, c, d: a + b * c + 0.5 * d  # noqa: E731
    maps = [of_formula(HSIC(samples=150, seed=s), 4, f)[0] for s in range(40)]
    spread = np.std([m.raw[0] for m in maps], axis=0, ddof=1)
    told = np.mean([m.extras["standard_error"][0] for m in maps], axis=0)
    assert (spread < 1.4 * told).all()
    assert (spread > 0.4 * told).all()


@pytest.mark.parametrize("weight", [-2.0, 0.01, 30.0])
def test_where_one_cell_decides_hsic_is_known(weight):
    p = 200
    maps, _ = of_formula(HSIC(samples=p), 9, lambda *z: 5 + weight * z[4])
    # The median distance is the step, as more pairs differ than agree.
    expected = (1 - math.exp(-0.5)) / 4 * (p / (p - 1)) ** 2
    np.testing.assert_allclose(maps.raw[0, 4], expected, rtol=1e-6)


def test_an_ignored_cell_shows_what_chance_gives():
    ignored, level = [], []
    for seed in range(10):
        maps, _ = of_formula(HSIC(samples=100, seed=seed), 30, lambda *z: 2 * z[0] - 3 * z[1])
        ignored.append(maps.raw[0, 2:])
        level.append(maps.extras["chance"][0, 2:])
        assert maps.raw[0, :2].min() > 3 * level[-1].max()
    error = np.std(ignored) / math.sqrt(np.size(ignored))
    assert error < 0.1 * np.mean(level)
    assert abs(np.mean(ignored) - np.mean(level)) < 3 * error


def test_of_cells_that_matter_only_together_hsic_sees_neither_and_sobol_both():
    f = lambda a, b, c: (a - 0.5) * (b - 0.5)  # noqa: E731
    hsic, _ = of_formula(HSIC(samples=1000), 3, f)
    assert (hsic.raw[0] < 8 * hsic.extras["chance"][0]).all()
    assert (hsic.raw[0] < 0.01).all()  # of 0.098 where a cell decides alone
    sobol, _ = of_formula(Sobol(samples=256), 3, f)
    assert (sobol.raw[0] > [0.9, 0.9, -1]).all()


def test_what_is_added_to_all_scores_changes_no_criterion():
    (one, two), _ = (
        of_formula(HSIC(samples=40), 3, CURVED[1], lambda *z: CURVED[1](*z) + 1000)[0].raw,
        None,
    )
    np.testing.assert_allclose(one, two, rtol=1e-6)


def test_without_a_median_distance_the_mean_one_is_taken():
    f = lambda *z: np.prod(z, axis=0)  # noqa: E731 - 1 in about a run of 16
    maps, model = of_formula(HSIC(samples=64), 4, f)
    y = f(*model.seen.T)
    assert 0 < y.mean() < 0.2
    width = np.mean([abs(a - b) for a, b in itertools.combinations(y, 2)])
    expected = [hsic_by_formula(z, y, width) * (64 / 63) ** 2 for z in model.seen.T]
    np.testing.assert_allclose(maps.raw[0], expected, rtol=1e-10)


@pytest.mark.parametrize("bandwidth", ["distances", "scores"])
@pytest.mark.parametrize("constant", [0.0, 0.1])
def test_scores_that_do_not_vary_depend_on_nothing(constant, bandwidth):
    maps, _ = of_formula(HSIC(samples=30, bandwidth=bandwidth), 3, lambda a, b, c: constant)
    for values in cell_maps(maps).values():
        np.testing.assert_allclose(values, 0, atol=1e-15)


def test_no_matrix_of_all_pairs_of_runs_is_held():
    p = 1500
    scores = np.random.default_rng(0).normal(size=p)
    kept = binary_hypercube(p, 49, seed=0)
    HSIC()._dependence(kept, scores)  # SciPy is loaded
    tracemalloc.start()
    HSIC()._dependence(kept, scores)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * p * p  # one such matrix


# ---------------------------------------------------------------------------- work and networks


def case(name, n=2, dtype="float64"):
    net = NETS[name]()
    (x,) = random_input(net, n, 5).values()
    return ReferenceModel(net, dtype), x.astype(dtype)


class Counting:
    """A model that notes how many samples each call has."""

    def __init__(self, model):
        self.model, self.calls = model, []

    def __getattr__(self, name):
        return getattr(self.model, name)

    def forward(self, x, **more):
        self.calls.append(len(x))
        return self.model.forward(x, **more)


@pytest.mark.parametrize("name", ["plain", "signal", "volume"])
@each_method
def test_passes_are_what_is_said_beforehand(method, name):
    model, x = case(name, n=1)
    counting, told = Counting(model), []
    with listening(lambda what, done, total: told.append((done, total))):
        method.explain(counting, x, [ClassScore(0)])
    assert sum(counting.calls) == passes_of(method, model, x)
    assert told[-1] == (sum(counting.calls) - 1,) * 2
    assert max(counting.calls) == method.batch_size


@each_method
def test_targets_of_one_picture_share_its_passes(method):
    model, x = case("plain", n=1)
    targets = [ClassScore(0), ClassScore(4), Contrast(2, 1), Predicted(1)]
    counting = Counting(model)
    together = method.explain(counting, np.repeat(x, 4, axis=0), targets)
    assert sum(counting.calls) == passes_of(method, model, x) + 3
    for n, target in enumerate(targets):
        alone = method.explain(model, x, [target])
        np.testing.assert_allclose(together.raw[n], alone.raw[0], rtol=1e-9, atol=1e-12)
        assert together.targets[n] == alone.targets[0]
        for name, values in alone.extras.items():
            np.testing.assert_allclose(together.extras[name][n], values[0], rtol=1e-9, atol=1e-12)


@each_method
def test_the_size_of_a_batch_is_of_no_account(method):
    model, x = case("plain")
    targets = [ClassScore(1), ClassScore(2)]
    expected = method.explain(model, x, targets)
    for batch_size in (1, 7, 1000):
        found = replace(method, batch_size=batch_size).explain(model, x, targets)
        np.testing.assert_allclose(found.raw, expected.raw, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("name", ["plain", "signal", "volume"])
@each_method
def test_every_pixel_has_the_numbers_of_its_cell(method, name):
    model, x = case(name)
    maps = method.explain(model, x, [ClassScore(0), ClassScore(1)])
    cell = np.zeros(x.shape[1:-1], int)
    for axis, extent in enumerate(cell.shape):
        along = [math.floor((i + 0.5) / extent * 3) for i in range(extent)]
        cell = 3 * cell + np.reshape(along, [-1 if a == axis else 1 for a in range(cell.ndim)])
    for values in cell_maps(maps).values():
        assert values.shape == x.shape[:-1]
        for n, k in itertools.product(range(2), range(3 ** (x.ndim - 2))):
            assert np.ptp(values[n][cell == k]) == 0
        assert len(np.unique(values[0])) == (1 if values is maps.extras.get("chance") else k + 1)


@each_method
def test_an_axis_is_cut_into_no_more_cells_than_it_has_positions(method):
    model, x = case("volume", n=1)
    method = replace(method, cells=6)
    assert x.shape[1:-1] == (7, 8, 6)
    short = x[:, :4]
    cells = 4 * 6 * 6
    expected = 8 * (cells + 2) + 1 if isinstance(method, Sobol) else 61
    assert passes_of(method, model, short) == expected


@pytest.mark.parametrize("upsample", ["nearest", "bilinear"])
@each_method
def test_masks_and_map_are_brought_to_the_size_alike(method, upsample):
    model, weight = linear((9, 9))
    x = np.random.default_rng(1).normal(size=(1, 9, 9, 2))
    found = replace(method, upsample=upsample).explain(model, x, [ClassScore(1)])
    # What a cell adds to the score is its mask's product with the picture; as a formula:
    shapes = resize(np.eye(9).reshape(9, 3, 3), (9, 9), upsample)
    added = (shapes * (weight * x[0]).sum(-1)).sum((1, 2))
    expected, _ = of_formula(method, 9, lambda *z: added @ np.array(z))
    for name, values in cell_maps(found).items():
        cells = cell_maps(expected)[name]
        grown = resize(cells.reshape(1, 3, 3), (9, 9), upsample)
        np.testing.assert_allclose(values, grown, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@each_method
def test_numbers_are_of_the_type_of_the_scores(method, dtype):
    model, x = case("plain", dtype=dtype)
    maps = method.explain(model, x, [ClassScore(0), ClassScore(1)])
    assert {values.dtype for values in cell_maps(maps).values()} == {np.dtype(dtype)}
    exact = method.explain(*case("plain"), [ClassScore(0), ClassScore(1)])
    np.testing.assert_allclose(maps.raw, exact.raw, rtol=1e-3, atol=1e-6)


@each_method
def test_the_fill_shows_where_cells_are_taken_away(method):
    model, x = case("plain", n=1)
    maps = replace(method, fill=x[0]).explain(model, x, [ClassScore(0)])
    np.testing.assert_allclose(maps.raw, 0, atol=1e-12)
    noise = replace(method, fill="noise").explain(model, x, [ClassScore(0)])
    assert not np.allclose(noise.raw, method.explain(model, x, [ClassScore(0)]).raw)


@each_method
def test_samples_without_axes_are_refused(method):
    model, x = case("plain")
    with pytest.raises(ArrayError, match=r"\(N, H, W, C\)"):
        method.explain(model, x[:, 0, 0], [ClassScore(0)] * 2)


def test_designs_that_cannot_be_drawn_are_refused():
    model, x = case("plain")
    with pytest.raises(ParameterError, match="samples=64"):
        Sobol(samples=48).explain(model, x, [ClassScore(0)] * 2)
    wide = np.zeros((1, 104, 104, 3))
    with pytest.raises(ParameterError, match="10816 cells"):
        Sobol(cells=104).explain(model, wide, [ClassScore(0)])
