"""Gradients and scores at many points, against one point at a time."""

from __future__ import annotations

import numpy as np
import pytest

from cnnviz_core.gradients import gradient_at, gradients_at, mean_gradient, scores_at
from cnnviz_core.model import INPUT
from cnnviz_core.progress import listening
from cnnviz_core.targets import ClassScore, Contrast, Neuron, cotangent_of
from cnnviz_core.testing.nets import NETS, random_input
from cnnviz_core.testing.reference import ReferenceModel

NET = NETS["swish"]()
MODEL = ReferenceModel(NET, "float64")
X = random_input(NET, 3, seed=5)["image"].astype(np.float64)
TARGETS = [ClassScore(2), Contrast(1, 0), ClassScore(0)]


def close(a, b):
    np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 8])
def test_a_gradient_does_not_depend_on_the_batch(batch_size):
    found = gradient_at(MODEL, X, TARGETS, batch_size=batch_size)
    for sample, target, gradient in zip(X, TARGETS, found, strict=True):
        alone = MODEL.pullback(sample[None], cotangent_of([target]), wrt=(INPUT,))
        close(gradient, alone.gradients[INPUT][0])


def test_a_gradient_of_a_value_inside_the_network():
    targets = [Neuron("conv2", (1,))] * 3
    found = gradient_at(MODEL, X, targets)
    back = MODEL.pullback(X, cotangent_of(targets), of="conv2", wrt=(INPUT,))
    close(found, back.gradients[INPUT])


@pytest.mark.parametrize(("batch_size", "at_once"), [(1, 1), (3, 1), (7, 2), (9, 3)])
@pytest.mark.parametrize("at", [gradients_at, scores_at])
def test_points_are_taken_a_batch_at_a_time(at, batch_size, at_once):
    taken = []

    def points():
        for k in range(8):
            taken.append(k)
            yield X * k

    results = at(MODEL, points(), TARGETS, total=8, batch_size=batch_size)
    for k, result in enumerate(results):
        assert len(taken) <= k + at_once
        one = at(MODEL, [X * k], TARGETS, total=1)
        close(result, next(one))
    assert len(taken) == 8


@pytest.mark.parametrize("steps", [1, 4, 7])
def test_a_mean_gradient_is_the_weighted_sum_over_the_nodes(steps):
    rng, told = np.random.default_rng(1), []
    start = rng.normal(size=X.shape)
    with listening(lambda *what: told.append(what)):
        found = mean_gradient(MODEL, start, X, TARGETS, steps=steps, batch_size=2, what="a line")
    total = 0
    for node, weight in zip(*np.polynomial.legendre.leggauss(steps), strict=True):
        along = (node + 1) / 2
        total += weight / 2 * gradient_at(MODEL, (1 - along) * start + along * X, TARGETS)
    close(found, total)
    assert told[-1] == ("a line", steps, steps)


def test_along_a_line_it_adds_up_to_the_difference_of_the_scores():
    start = 0 * X
    found = mean_gradient(MODEL, start, X, TARGETS, steps=40)
    before, after = scores_at(MODEL, [start, X], TARGETS, total=2)
    sums = ((X - start) * found).reshape(3, -1).sum(1)
    np.testing.assert_allclose(sums, after - before, rtol=1e-8)


def test_points_have_the_type_of_the_end_and_the_mean_is_double():
    model, x = ReferenceModel(NET, "float32"), X.astype(np.float32)
    found = mean_gradient(model, np.zeros(x.shape), x, TARGETS, steps=3)
    assert found.dtype == np.float64
    close_enough = mean_gradient(MODEL, np.zeros(x.shape), X, TARGETS, steps=3)
    np.testing.assert_allclose(found, close_enough, rtol=1e-3, atol=1e-5)
