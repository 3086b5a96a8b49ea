"""Max-sensitivity against loops over draws, and the theorems that it obeys."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from cnnviz_cam.centre_gaussian import CentreGaussian
from cnnviz_core.errors import ArrayError
from cnnviz_core.explainer import Maps
from cnnviz_core.metric import Annotation, Explained
from cnnviz_core.progress import listening
from cnnviz_core.targets import ClassScore
from cnnviz_core.testing.metrics import parametrize_with_checks
from cnnviz_core.testing.nets import plain, random_input
from cnnviz_core.testing.reference import ReferenceModel
from cnnviz_gradient.gradient_x_input import GradientXInput
from cnnviz_metrics.sensitivity import MaxSensitivity, in_ball, relative_change

RNG = np.random.default_rng(0)


@parametrize_with_checks([MaxSensitivity(), MaxSensitivity(0.3, 2)])
def test_they_are_metrics(metric, check):
    check(metric)


@dataclass(frozen=True)
class Powers:
    """A method that gives the input itself, raised to a power."""

    power: int = 1
    needs = frozenset()

    def explain(self, model, x, targets):
        return Maps(x**self.power, targets=tuple(targets))


def batch(explainer, n=3, model=None, seed=0):
    model = model or ReferenceModel(plain(), "float64")
    x = random_input(plain(), n, seed=5)["image"].astype(np.float64)
    targets = tuple(ClassScore(i % 5) for i in range(n))
    maps = explainer.explain(model, x, targets)
    return Explained(model, explainer, x, maps, (Annotation(),) * n, seed=seed)


# ------------------------------------------------------------------------------- the draws


def test_draws_stay_in_the_ball_of_each_samples_range():
    x = RNG.normal(size=(2, 6, 5, 3)) * np.array([1, 100]).reshape(2, 1, 1, 1) + 7
    moves = np.stack([in_ball(x, 0.02, draw) - x for draw in range(50)])
    spread = np.ptp(x, axis=(1, 2, 3))
    moved = np.abs(moves).max(axis=(0, 2, 3, 4)) / spread
    assert (moved <= 0.02).all()
    assert (moved > 0.0195).all()
    shares = moves / spread[:, None, None, None]
    np.testing.assert_allclose(shares[:, 0], shares[:, 1], atol=1e-12)
    assert abs(np.mean(shares)) < 0.002
    np.testing.assert_allclose(np.var(shares), 0.02**2 / 3, rtol=0.05)


def test_draws_depend_on_their_number_and_the_seed_alone():
    x = RNG.normal(size=(3, 4, 4, 2)).astype(np.float32)
    np.testing.assert_array_equal(in_ball(x, 0.1, 3, 7), in_ball(x, 0.1, 3, 7))
    np.testing.assert_array_equal(in_ball(x[1:2], 0.1, 3, 7)[0], in_ball(x, 0.1, 3, 7)[1])
    assert in_ball(x, 0.1, 0).dtype == np.float32
    for other in (in_ball(x, 0.1, 4, 7), in_ball(x, 0.1, 3, 8)):
        assert not np.array_equal(other, in_ball(x, 0.1, 3, 7))


# ------------------------------------------------------------------------------- the change


def test_the_change_is_a_quotient_of_norms():
    a, b = RNG.normal(size=(2, 4, 5, 6, 3))
    expected = [np.linalg.norm(p - q) / np.linalg.norm(q) for p, q in zip(a, b, strict=True)]
    np.testing.assert_allclose(relative_change(a, b), expected, rtol=1e-12)
    np.testing.assert_allclose(relative_change(-3 * a, -3 * b), expected, rtol=1e-12)
    np.testing.assert_array_equal(relative_change(b, b), 0)


def test_a_map_of_zeros_is_not_divided_by():
    change = relative_change(np.array([[3.0, 4.0], [0.0, 0.0]]), np.zeros((2, 2)))
    assert change.tolist() == [5, 0]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_maps_that_are_not_finite_have_no_change(value):
    good, bad = np.ones((2, 4)), np.ones((2, 4))
    bad[1, 2] = value
    for pair in ((good, bad), (bad, good), (bad, bad)):
        assert np.isnan(relative_change(*pair)).tolist() == [False, True]


def test_maps_of_other_sizes_are_refused():
    with pytest.raises(ArrayError, match="same shape"):
        relative_change(np.ones((1, 4, 4)), np.ones((1, 4, 5)))


# ------------------------------------------------------------------------------- the metric


@pytest.mark.parametrize("explainer", [GradientXInput(), Powers(2)])
def test_it_is_the_plain_formula(explainer):
    explained = batch(explainer, seed=4)
    metric = MaxSensitivity(radius=0.05, draws=4)
    record = metric.measure(explained)
    for row in range(3):
        x, target = explained.x[row : row + 1], explained.maps.targets[row : row + 1]
        changes = []
        for draw in range(4):
            moved = explainer.explain(explained.model, in_ball(x, 0.05, draw, 4), target).raw
            original = explained.maps.raw[row]
            changes.append(np.linalg.norm(moved[0] - original) / np.linalg.norm(original))
        np.testing.assert_allclose(record["largest"][row], max(changes), rtol=1e-9)
        np.testing.assert_allclose(record["mean"][row], np.mean(changes), rtol=1e-9)
    summary = metric.summarise(record)
    assert list(summary) == ["max_sensitivity", "mean_sensitivity"]
    np.testing.assert_allclose(summary["max_sensitivity"], record["largest"].mean())


def test_a_method_that_ignores_the_picture_is_not_sensitive():
    assert (
        MaxSensitivity(radius=0.5).measure(batch(CentreGaussian()))["largest"].tolist() == [0] * 3
    )


def test_more_draws_and_higher_powers_are_more_sensitive():
    few, many = (MaxSensitivity(draws=n).measure(batch(Powers()))["largest"] for n in (3, 12))
    assert (few <= many).all()
    assert (many < MaxSensitivity(draws=12).measure(batch(Powers(3)))["largest"]).all()


def test_a_linear_method_changes_in_proportion_to_the_radius():
    small, large = (MaxSensitivity(r).measure(batch(Powers()))["largest"] for r in (0.01, 0.04))
    np.testing.assert_allclose(large, 4 * small, rtol=1e-9)


def test_the_explained_score_stays_the_same():
    seen = []

    @dataclass(frozen=True)
    class Noting:
        needs = frozenset()

        def explain(self, model, x, targets):
            seen.append(tuple(targets))
            return Maps(x, targets=tuple(targets))

    explained = batch(Noting())
    MaxSensitivity(draws=2).measure(explained)
    assert seen == [explained.maps.targets] * 3


def test_maps_that_are_not_finite_are_left_out():
    explained = batch(Powers())
    raw = explained.maps.raw.copy()
    raw[1] = np.nan
    metric = MaxSensitivity(draws=2)
    record = metric.measure(replace(explained, maps=replace(explained.maps, raw=raw)))
    assert np.isnan(record["largest"]).tolist() == [False, True, False]
    expected = np.mean(record["largest"][[0, 2]])
    np.testing.assert_allclose(metric.summarise(record)["max_sensitivity"], expected)


def test_it_tells_how_often_the_method_runs():
    said = []
    explained = batch(Powers())
    metric = MaxSensitivity(draws=3)
    with listening(lambda *told: said.append(told)):
        metric.measure(explained)
    assert said == [("max-sensitivity", k, 3) for k in (1, 2, 3)]
    assert metric.explanations(explained.model, explained.x) == 3
