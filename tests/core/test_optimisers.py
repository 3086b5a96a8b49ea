"""Optimisers, each against its formula in plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cnnviz_core.optimisers import Adam, Plain, RunningMean

OPTIMISERS = [
    Adam(),
    Plain(),
    Plain(0.1, momentum=0.9),
    Plain(0.1, normalise=True),
    RunningMean(0.2),
]


def gradients(steps=6, shape=(2, 3), dtype="float64"):
    return np.random.default_rng(3).normal(size=(steps, *shape)).astype(dtype)


@pytest.mark.parametrize("rate", [0.1, 0.003])
@pytest.mark.parametrize(("mean", "square", "epsilon"), [(0.9, 0.999, 1e-8), (0.5, 0.8, 0.1)])
def test_adam_is_algorithm_1_of_its_paper(rate, mean, square, epsilon):
    given = gradients()
    step = Adam(rate, mean, square, epsilon).begin()
    steps = np.stack([step(g) for g in given])
    for at in np.ndindex(given.shape[1:]):
        m = v = 0.0
        for t, g in enumerate(given[:, *at], start=1):
            m = mean * m + (1 - mean) * g
            v = square * v + (1 - square) * g * g
            unbiased, size = m / (1 - mean**t), math.sqrt(v / (1 - square**t))
            expected = rate * unbiased / (size + epsilon)
            assert steps[t - 1, *at] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e6])
def test_a_first_step_of_adam_is_its_rate_whatever_the_gradient(scale):
    (g,) = gradients(1)
    np.testing.assert_allclose(Adam(0.1).begin()(scale * g), 0.1 * np.sign(g), rtol=0.01)


def test_plain_steps_with_momentum_and_of_one_length():
    step = Plain(0.1, momentum=0.5).begin()
    (g,) = gradients(1, (2, 3, 4))
    np.testing.assert_allclose(step(g), 0.1 * g)
    np.testing.assert_allclose(step(g), 0.15 * g)
    even = Plain(0.1, normalise=True).begin()(np.stack([g[0], 1e-9 * g[0], 0 * g[0]]))
    np.testing.assert_allclose(np.sqrt((even**2).mean((1, 2))), [0.1, 0.1, 0], rtol=1e-12)


def test_a_running_mean_begins_with_the_first_gradient():
    given = gradients()
    step, mean = RunningMean(0.2, 0.7).begin(), given[0]
    for g in given:
        mean = 0.7 * mean + 0.3 * g
        np.testing.assert_allclose(step(g), 0.2 * mean, rtol=1e-12)


@pytest.mark.parametrize("optimiser", OPTIMISERS, ids=repr)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_steps_have_the_gradients_type_and_leave_it_as_it_is(optimiser, dtype):
    step = optimiser.begin()
    for g in gradients(dtype=dtype):
        before = g.copy()
        assert step(g).dtype == dtype
        np.testing.assert_array_equal(g, before)


@pytest.mark.parametrize("optimiser", OPTIMISERS, ids=repr)
def test_each_search_begins_anew(optimiser):
    one, other = optimiser.begin(), optimiser.begin()
    for g in gradients():
        first = one(g)
    for g in gradients():
        second = other(g)
    np.testing.assert_array_equal(first, second)
