"""Methods that sample: when they stop, and that what they say of it is true, on known games."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from cnnviz_core.explainer import passes_of
from cnnviz_core.model import LOGITS, OUTPUT, InputInfo, Trace
from cnnviz_core.sampling import LEAST, POINTS, convergence
from cnnviz_core.targets import ClassScore
from cnnviz_perturbation.hsic import HSIC
from cnnviz_perturbation.kernel_shap import KernelSHAP
from cnnviz_perturbation.lime import LIME
from cnnviz_perturbation.rise import RISE
from cnnviz_perturbation.shapley import ShapleyValues
from cnnviz_perturbation.sobol import Sobol

K = 10
EACH = np.arange(K)  # every position is a segment
METHODS = {
    "rise": RISE(samples=3000, cells=K, batch_size=64),
    "lime": LIME(segmentation=EACH, samples=800, alpha=0.0, fill=0.0, batch_size=64),
    "kernel-shap": KernelSHAP(segmentation=EACH, samples=600, fill=0.0, batch_size=64),
    "hsic": HSIC(samples=1500, cells=K, batch_size=64),
    "sobol": Sobol(samples=512, cells=K, batch_size=64),
}
TOLERANCES = {"rise": 0.2, "lime": 0.05, "kernel-shap": 0.05, "hsic": 0.2, "sobol": 0.15}
"""Such as each method reaches with part of its samples."""

each_method = pytest.mark.parametrize("name", METHODS)

WEIGHTS = np.array([1.0, -0.8, 0.5, 0.2, -0.3, 0.7, 0.0, 0.1, -0.1, 0.4])
PAIR, TRIPLE = 0.6, 0.9


def game(z):
    """Add terms of one position, one of two and one of three."""
    return z @ WEIGHTS + PAIR * z[:, 0] * z[:, 1] + TRIPLE * z[:, 2] * z[:, 3] * z[:, 4]


def even(z):
    """Add up the positions, with a little of the last one's product with the first."""
    return z @ WEIGHTS + 0.3 * z[:, 0] * z[:, -1]


def chance(z):
    """Give what looks like chance: no map of it is stable."""
    return np.sin(1e4 * z @ np.sqrt(np.arange(2, K + 2)))


class Played:
    """A model whose scores are functions of a signal's values, which notes what it was given."""

    framework, activation, layers = "game", "softmax", {}
    capabilities = frozenset()
    inputs = {"x": InputInfo("x", (K, 1), "float64")}

    def __init__(self, *games):
        self.games, self.calls = games, []

    def forward(self, x, **_):
        self.calls.append(x[..., 0])
        scores = np.stack([game(x[..., 0]) for game in self.games], -1)
        return Trace({OUTPUT: scores, LOGITS: scores})

    @property
    def seen(self):
        """What it was given after the sample itself."""
        return np.concatenate(self.calls[1:])


def play(name, *games, **params):
    """Explain games by how much of each position is shown: it is 1, and 0 where hidden."""
    model = Played(*games)
    x = np.ones((len(games), K, 1))
    targets = [ClassScore(k) for k in range(len(games))]
    return replace(METHODS[name], **params).explain(model, x, targets), model


# -------------------------------------------------------------------------------- what is true


ALL = np.array(list(product((0.0, 1.0), repeat=K)))


def shapley_values():
    return ShapleyValues(segmentation=EACH, fill=0.0).explain(
        Played(game), np.ones((1, K, 1)), [ClassScore(0)]
    )


def linear_coefficients():
    """Fit LIME's linear model to all coalitions."""
    root = np.exp(-((1 - np.sqrt(ALL.mean(1))) ** 2) / 0.25**2 / 4)[:, None]
    return np.linalg.lstsq(root * np.c_[ALL, np.ones(len(ALL))], root[:, 0] * game(ALL))[0][:K]


def dependence():
    """Take the Hilbert-Schmidt criterion over all coalitions, each as likely as the others."""
    y = game(ALL)
    distances = abs(y[:, None] - y)
    width = np.median(distances[np.triu_indices(len(y), 1)])
    kernel = np.exp(-(distances**2) / (2 * width**2))
    z = ALL - 0.5
    return 2 * np.einsum("ik,ij,jk->k", z, kernel, z) / len(y) ** 2


def total_indices():
    """Expand the game in what positions add about their mean; each varies by 1 / 12."""
    alone = WEIGHTS + np.array([PAIR] * 2 + [0] * (K - 2)) / 2
    alone[2:5] += TRIPLE / 4
    parts = {(k,): c**2 / 12 for k, c in enumerate(alone)}
    parts[0, 1] = PAIR**2 / 12**2
    parts |= {pair: (TRIPLE / 2) ** 2 / 12**2 for pair in ((2, 3), (2, 4), (3, 4))}
    parts[2, 3, 4] = TRIPLE**2 / 12**3
    each = [sum(part for which, part in parts.items() if k in which) for k in range(K)]
    return np.array(each) / sum(parts.values())


TRUTHS = {
    "lime": linear_coefficients,
    "kernel-shap": lambda: shapley_values().raw[0],
    "hsic": dependence,
    "sobol": total_indices,
}


@pytest.mark.parametrize("name", TRUTHS)
def test_the_error_is_within_the_tolerance_when_it_stops(name):
    tolerance, truth = TOLERANCES[name], TRUTHS[name]()
    far, covered, used = [], [], []
    for seed in range(40):
        maps, _ = play(name, game, tolerance=tolerance, seed=seed)
        away = maps.raw[0] - maps.extras.get("chance", [0.0])[0] - truth
        far.append(away / np.ptp(truth))
        covered.append(abs(away) < 2 * maps.extras["standard_error"][0] + 1e-12)
        used.append(maps.extras["samples"][0])
    assert np.mean(used) < 0.7 * METHODS[name].samples
    assert np.sqrt(np.mean(np.square(far), axis=0)).max() < tolerance
    assert np.quantile(np.abs(far), 0.95) < 2 * tolerance
    assert np.mean(covered) > 0.85
    # Nor is it so by far that the same could have been said much earlier.
    assert np.abs(far).max() > 0.2 * tolerance


def test_of_a_linear_game_lime_knows_the_terms_at_once():
    maps, _ = play("lime", lambda z: z @ WEIGHTS, tolerance=1e-6)
    np.testing.assert_allclose(maps.raw[0], WEIGHTS, atol=1e-12)
    assert LEAST <= maps.extras["samples"][0] < 1.2 * LEAST


# ------------------------------------------------------------------------------- when it stops


@each_method
def test_a_stable_map_saves_passes(name):
    tolerance = TOLERANCES[name]
    maps, model = play(name, even, tolerance=tolerance)
    whole, every = play(name, even)
    assert len(model.seen) < 0.7 * len(every.seen)
    assert len(every.seen) + 1 == passes_of(METHODS[name], every, np.ones((1, K, 1)))
    np.testing.assert_array_equal(model.seen, every.seen[: len(model.seen)])
    largest = maps.extras["standard_error"][0].max() / np.ptp(maps.raw[0])
    assert largest <= tolerance
    history = maps.extras["history"][0]
    assert history.shape == (POINTS, 2)
    last = np.isfinite(history[:, 0]).sum() - 1
    np.testing.assert_allclose(history[last], [maps.extras["samples"][0], largest], rtol=1e-6)
    # Up to there both looked alike.
    seen, of_whole = history[: last + 1], whole.extras["history"][0][: last + 1]
    np.testing.assert_allclose(seen, of_whole, rtol=1e-12)
    curves = convergence(maps.extras["history"], ["even"])
    np.testing.assert_array_equal(curves.x, seen[:, 0])


@each_method
def test_what_never_becomes_stable_takes_all_samples(name):
    expected, every = play(name, chance)
    found, model = play(name, chance, tolerance=0.04)
    assert found.extras["samples"][0] == expected.extras["samples"][0]
    assert len(model.seen) == len(every.seen)
    np.testing.assert_array_equal(found.raw, expected.raw)
    for key, values in expected.extras.items():
        np.testing.assert_array_equal(found.extras[key], values)


@pytest.mark.parametrize("name", [name for name in METHODS if name != "kernel-shap"])
def test_a_run_that_stops_is_a_run_of_fewer_samples(name):
    stopped, model = play(name, game, tolerance=TOLERANCES[name])
    n = int(stopped.extras["samples"][0])
    assert n < METHODS[name].samples
    short, all_of_it = play(name, game, samples=n)
    np.testing.assert_array_equal(model.seen[: len(all_of_it.seen)], all_of_it.seen)
    np.testing.assert_allclose(stopped.raw, short.raw, rtol=1e-12)
    for key in set(short.extras) - {"history"}:
        np.testing.assert_allclose(stopped.extras[key], short.extras[key], rtol=1e-12)


def test_kernel_shap_that_stops_has_enumerated_what_the_budget_allows():
    """Of 10 segments, 299 pairs have room for the 10 of the smallest size and 45 of the next."""
    maps, model = play("kernel-shap", game, tolerance=TOLERANCES["kernel-shap"])
    n = int(maps.extras["samples"][0])
    shown, hidden = model.seen[1 : n - 1 : 2], model.seen[2:n:2]
    np.testing.assert_array_equal(shown, 1 - hidden)
    assert Counter(shown[:55].sum(1)) == {1: 10, 2: 45}
    assert len(np.unique(shown[:55], axis=0)) == 55
    # The others are drawn: how often each was, the budget knows.
    budget = METHODS["kernel-shap"]._budget(K)
    draws = max(m for m in budget.looks() if 2 + 2 * budget.scored(m) == n)
    assert draws >= 50
    times = Counter(map(tuple, budget.drawn[:draws].astype(float)))
    assert set(times) == set(map(tuple, shown[55:]))
    weights = [1 / 9 / 10] * 10 + [1 / 16 / 45] * 45
    left = 1 / 21 + 1 / 24 + 0.5 / 25
    weights += [left * times[tuple(row)] / draws for row in shown[55:]]
    # The conditions of Lagrange: the gradient is even, and the sum is what it must be.
    z = np.concatenate([shown, hidden])
    by_weight = z.T * np.tile(weights, 2)
    gain = game(np.ones((1, K))) - game(np.zeros((1, K)))
    system = np.block([[by_weight @ z, np.ones((K, 1))], [np.ones((1, K)), 0]])
    right = [*(by_weight @ game(z)), *gain]
    np.testing.assert_allclose(maps.raw[0], np.linalg.solve(system, right)[:K], atol=1e-11)


@each_method
def test_where_it_stops_does_not_depend_on_the_batches(name):
    tolerance = TOLERANCES[name]
    expected, _ = play(name, game, tolerance=tolerance)
    for batch_size in (1, 7, 5000):
        found, _ = play(name, game, tolerance=tolerance, batch_size=batch_size)
        np.testing.assert_allclose(found.raw, expected.raw, atol=1e-9)
        for key, values in expected.extras.items():
            np.testing.assert_allclose(found.extras[key], values, atol=1e-9)


@each_method
def test_each_target_stops_for_itself_and_stays_as_it_was(name):
    games = (even, chance, game)
    together, model = play(name, *games, tolerance=TOLERANCES[name])
    used = together.extras["samples"]
    assert used[0] < used[1]
    assert len(model.seen) == len(play(name, chance)[1].seen)
    for n, of_one in enumerate(games):
        alone, _ = play(name, of_one, tolerance=TOLERANCES[name])
        np.testing.assert_allclose(together.raw[n], alone.raw[0], atol=1e-9)
        for key, values in alone.extras.items():
            np.testing.assert_allclose(together.extras[key][n], values[0], atol=1e-9)


@each_method
def test_samples_of_a_batch_stop_as_if_alone(name):
    method = replace(METHODS[name], tolerance=TOLERANCES[name])
    x = np.stack([np.ones((K, 1)), np.linspace(0.2, 2, K)[:, None]])
    together = method.explain(Played(game), x, [ClassScore(0)] * 2)
    for n in range(2):
        alone = method.explain(Played(game), x[n : n + 1], [ClassScore(0)])
        np.testing.assert_allclose(together.raw[n], alone.raw[0], atol=1e-9)
        for key, values in alone.extras.items():
            np.testing.assert_allclose(together.extras[key][n], values[0], atol=1e-9)


@each_method
def test_nothing_is_stopped_before_the_error_is_known(name):
    maps, model = play(name, even, tolerance=1e6)
    assert (16 if name == "sobol" else LEAST) <= maps.extras["samples"][0]
    assert len(model.seen) < 0.7 * passes_of(METHODS[name], model, np.ones((1, K, 1)))


@each_method
def test_a_score_that_is_always_the_same_is_stable(name):
    maps, _ = play(name, lambda z: np.full(len(z), 0.3), tolerance=0.01)
    assert not maps.extras["standard_error"].any()
    assert maps.extras["samples"][0] < METHODS[name].samples


def test_a_game_that_is_enumerated_needs_no_look_before_the_end():
    maps, _ = play("kernel-shap", game, samples=2**K, tolerance=0.5)
    assert maps.extras["samples"][0] == 2**K
    np.testing.assert_array_equal(maps.extras["history"][0, :2], [[2**K, 0], [np.nan, np.nan]])
    np.testing.assert_allclose(maps.raw, shapley_values().raw, atol=1e-12)
