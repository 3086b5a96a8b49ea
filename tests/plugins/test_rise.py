"""RISE against its formula in plain loops, against all masks there are, and its theorems."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from cnnviz_core.errors import ArrayError
from cnnviz_core.explainer import passes_of
from cnnviz_core.fills import filling
from cnnviz_core.masks import drawn
from cnnviz_core.netspec import NetSpec, Op
from cnnviz_core.progress import listening
from cnnviz_core.random_masks import RandomGrids
from cnnviz_core.sampling import LEAST, check_points
from cnnviz_core.targets import ClassProbability, ClassScore, Contrast, Predicted
from cnnviz_core.testing.explainers import parametrize_with_checks
from cnnviz_core.testing.nets import NETS, random_input
from cnnviz_core.testing.reference import ReferenceModel
from cnnviz_perturbation.rise import RISE


def case(name="plain", n=2, seed=5, dtype="float64"):
    net = NETS[name]()
    (x,) = random_input(net, n, seed).values()
    return ReferenceModel(net, dtype), x.astype(dtype)


MODEL, X = case()
TARGETS = [ClassScore(3), Contrast(1, 3)]


def explain(model=MODEL, x=X, targets=TARGETS, **params):
    return RISE(**params).explain(model, x, targets)


def linear(weights, bias=0.5):
    """Give a network of one class whose score is linear in its input."""
    arrays = {"fc.weight": weights.reshape(-1, 1), "fc.bias": np.array([bias])}
    ops = (Op("flat", "flatten", ("image",)), Op("fc", "linear", ("flat",)))
    return ReferenceModel(NetSpec({"image": weights.shape}, ops, arrays, "linear"), "float64")


class Counting:
    """A model that notes how many samples each call has."""

    def __init__(self, model):
        self.model, self.calls = model, []

    def __getattr__(self, name):
        return getattr(self.model, name)

    def forward(self, x, **more):
        self.calls.append(len(x))
        return self.model.forward(x, **more)


# --------------------------------------------------------------------------------- the formula


@pytest.mark.parametrize("normalise", ["drawn", "expected"])
@pytest.mark.parametrize("name", ["plain", "signal", "volume"])
def test_it_is_its_formula(name, normalise):
    model, x = case(name)
    params = {"cells": 3, "keep": 0.4, "seed": 7}
    maps = explain(model, x, samples=50, normalise=normalise, batch_size=8, **params)
    assert maps.raw.shape == x.shape[:-1]
    masks = drawn(RandomGrids(x.shape[1:-1], count=50, **params), 0, 50, float)
    for n, target in enumerate(TARGETS):
        total, shown = 0, 0
        for mask in masks:
            seen = x[n] * mask[..., None]
            total = total + target.score(model.forward(seen[None]).logits[0]) * mask
            shown = shown + mask
        expected = total / shown if normalise == "drawn" else total / (50 * 0.4)
        np.testing.assert_allclose(maps.raw[n], expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("fill", [0.7, "mean", "blur", "noise", np.array([0.1, -0.2, 0.3])])
def test_what_is_hidden_is_blended_with_the_fill(fill):
    maps = explain(fill=fill, samples=20, seed=3)
    masks = drawn(RandomGrids((12, 9), count=20, seed=3), 0, 20, float)[..., None]
    for n, target in enumerate(TARGETS):
        seen = masks * X[n] + (1 - masks) * filling(X[n], fill, 3).under(masks)
        scores = [target.score(value) for value in MODEL.forward(seen).logits]
        expected = np.tensordot(scores, masks[..., 0], 1) / masks[..., 0].sum(0)
        np.testing.assert_allclose(maps.raw[n], expected, rtol=1e-9)


def every_mask(size, cells):
    """Give all masks that can be drawn, each as often as the others if half the cells are kept."""
    sides = [math.ceil(extent / cells) for extent in size]
    along = []
    for extent, side in zip(size, sides, strict=True):
        centres = (np.arange((cells + 1) * side) + 0.5) * cells / ((cells + 1) * side) - 0.5
        rows = np.array([np.interp(centres, range(cells), row) for row in np.eye(cells)]).T
        along.append([rows[shift : shift + extent] for shift in range(side)])
    return np.array(
        [
            a @ np.reshape(kept, (cells, cells)) @ b.T
            for a, b in product(*along)
            for kept in product([0, 1], repeat=cells**2)
        ]
    )


@pytest.mark.parametrize("normalise", ["drawn", "expected"])
def test_it_estimates_the_mean_over_all_masks_within_its_standard_error(normalise):
    masks = every_mask((12, 9), 2)
    assert len(masks) == 2**4 * 6 * 5
    maps = explain(samples=3000, cells=2, batch_size=200, normalise=normalise)
    far = []
    for n, target in enumerate(TARGETS):
        seen = masks[..., None] * X[n]
        scores = np.array([target.score(value) for value in MODEL.forward(seen).logits])
        truth = np.tensordot(scores, masks, 1) / masks.sum(0)
        far.append((maps.raw[n] - truth) / maps.extras["standard_error"][n])
        # The error is small beside what is to be told apart.
        assert maps.extras["standard_error"][n].max() < 0.25 * np.ptp(truth)
    assert np.abs(far).max() < 4
    assert np.abs(far).max() > 0.5


# ------------------------------------------------------------------------------------ theorems


@pytest.mark.parametrize("normalise", ["drawn", "expected"])
@pytest.mark.parametrize("factor", [1e-3, -5.0])
def test_a_scaled_score_gives_a_scaled_map(normalise, factor):
    net = NETS["plain"]()
    scaled = {key: net.parameters[key] * factor for key in ("fc.weight", "fc.bias")}
    model = ReferenceModel(replace(net, parameters={**net.parameters, **scaled}), "float64")
    params = {"samples": 400, "normalise": normalise, "tolerance": 0.3}
    found, expected = explain(model, **params), explain(**params)
    np.testing.assert_allclose(found.raw, factor * expected.raw, rtol=1e-9)
    error = abs(factor) * expected.extras["standard_error"]
    np.testing.assert_allclose(found.extras["standard_error"], error, rtol=1e-9)
    np.testing.assert_array_equal(found.extras["samples"], expected.extras["samples"])


def test_a_constant_in_the_score_is_a_constant_in_the_map():
    net = NETS["plain"]()
    higher = {**net.parameters, "fc.bias": net.parameters["fc.bias"] + 70}
    model = ReferenceModel(replace(net, parameters=higher), "float64")
    targets = [ClassScore(1), ClassScore(2)]
    found, expected = (
        explain(model, targets=targets, samples=99),
        explain(targets=targets, samples=99),
    )
    np.testing.assert_allclose(found.raw, expected.raw + 70, rtol=1e-11)
    np.testing.assert_allclose(
        found.extras["standard_error"], expected.extras["standard_error"], rtol=1e-6
    )


def test_a_network_that_sees_nothing_gives_a_constant_map():
    maps = explain(linear(np.zeros((8, 6, 1)), 2.5), X[:1, :8, :6, :1], [ClassScore(0)], samples=60)
    assert (maps.raw == 2.5).all()
    assert (maps.extras["standard_error"] == 0).all()
    assert maps.extras["samples"] == 60


def test_a_region_that_is_ignored_gets_the_mean_score():
    weights = np.zeros((6, 24, 1))
    weights[:, :4] = 1
    x = np.ones((1, 6, 24, 1))
    maps = explain(linear(weights), x, [ClassScore(0)], samples=4000, cells=6, batch_size=200)
    masks = drawn(RandomGrids((6, 24), 6, count=4000), 0, 4000, float)
    mean = 0.5 + masks[:, :, :4].sum((1, 2)).mean()
    away = (maps.raw[0] - mean) / maps.extras["standard_error"][0]
    assert np.abs(away[:, 14:]).max() < 4  # no cell reaches from there to the first four columns
    assert away[:, :4].min() > 10


@pytest.mark.parametrize("normalise", ["drawn", "expected"])
def test_masks_that_keep_everything_give_the_score(normalise):
    maps = explain(samples=40, keep=1 - 1e-9, normalise=normalise)
    expected = np.broadcast_to(maps.scores[:, None, None], X.shape[:-1])
    np.testing.assert_allclose(maps.raw, expected, rtol=1e-8)
    np.testing.assert_allclose(maps.extras["standard_error"], 0, atol=1e-9)


def test_hiding_what_looks_like_the_fill_changes_nothing():
    x = np.full_like(X, 0.3)
    maps = explain(x=x, fill=0.3, samples=40)
    np.testing.assert_allclose(maps.raw, np.ones_like(maps.raw) * maps.scores[:, None, None])


def test_the_masks_that_were_drawn_leave_less_noise_than_their_expectation():
    targets = [ClassProbability(0), ClassProbability(3)]
    drawn, expected = (
        explain(targets=targets, samples=500, normalise=n).extras["standard_error"]
        for n in ("drawn", "expected")
    )
    assert drawn.mean() < 0.5 * expected.mean()


# ------------------------------------------------------------------------------------- stopping

LOOSE = {"samples": 4000, "cells": 3, "tolerance": 0.2}


def test_it_stops_when_it_is_stable():
    model = Counting(MODEL)
    maps = explain(model, **LOOSE)
    used = maps.extras["samples"]
    assert (used >= LEAST).all()
    assert (used < 4000).all()
    assert all(int(n) in check_points(4000) for n in used)
    assert sum(model.calls) - 2 < used.sum() + 2 * 16
    largest = maps.extras["standard_error"].max((1, 2)) / np.ptp(maps.raw, axis=(1, 2))
    assert (largest <= 0.2).all()
    for its, n, error in zip(maps.extras["history"], used, largest, strict=True):
        last = np.isfinite(its[:, 0]).sum() - 1
        np.testing.assert_allclose(its[last], [n, error])
    tighter = explain(**{**LOOSE, "tolerance": 0.1}).extras["samples"]
    assert (tighter > used).all()


@pytest.mark.parametrize("batch_size", [1, 7, 64, 5000])
def test_where_it_stops_does_not_depend_on_the_batches(batch_size):
    first, other = explain(**LOOSE), explain(**LOOSE, batch_size=batch_size)
    np.testing.assert_array_equal(other.extras["samples"], first.extras["samples"])
    np.testing.assert_allclose(other.raw, first.raw, rtol=1e-9)


def test_samples_and_targets_of_a_batch_stop_as_if_alone():
    x = np.concatenate([X, X[:1], X[:1]])
    targets = [ClassScore(0), ClassScore(1), Contrast(2, 1), Predicted()]
    together = explain(x=x, targets=targets, **LOOSE)
    assert len(set(together.extras["samples"])) > 1
    for i in range(4):
        alone = explain(x=x[i : i + 1], targets=targets[i : i + 1], **LOOSE)
        np.testing.assert_allclose(alone.raw[0], together.raw[i], rtol=1e-9)
        for name, extra in alone.extras.items():
            np.testing.assert_allclose(extra[0], together.extras[name][i], rtol=1e-7)


# ----------------------------------------------------------------------------- work and memory


def test_passes_are_what_is_said_beforehand():
    model, explainer = Counting(MODEL), RISE(samples=37)
    explainer.explain(model, X[:1], TARGETS[:1])
    assert sum(model.calls) == passes_of(explainer, MODEL, X[:1]) == 38


def test_targets_of_one_picture_share_its_passes():
    model = Counting(MODEL)
    explain(model, np.repeat(X[:1], 4, axis=0), [ClassScore(k) for k in range(4)], samples=50)
    assert sum(model.calls) == 4 + 50


def test_no_more_masks_are_made_than_a_batch_at_a_time(monkeypatch):
    form, asked, told = RandomGrids.form, [], []

    def noted(self, start, stop):
        asked.append((start, stop))
        return form(self, start, stop)

    monkeypatch.setattr(RandomGrids, "form", noted)
    with listening(lambda what, done, total: told.append((what, done, total, len(asked)))):
        explain(x=X[:1], targets=TARGETS[:1], samples=40, batch_size=16)
    assert asked == [(0, 16), (16, 32), (32, 40)]
    assert [t[1:] for t in told] == [(16, 40, 1), (32, 40, 2), (40, 40, 3)]
    assert told[0][0] == "rise, picture 1 of 1"


def test_another_seed_gives_another_map():
    one, two = (explain(samples=30, seed=seed) for seed in (0, 1))
    assert not np.allclose(one.raw, two.raw)
    # Between two seeds lies what the standard errors say.
    far = (one.raw - two.raw) / np.hypot(*(m.extras["standard_error"] for m in (one, two)))
    assert np.sqrt(np.mean(far**2)) < 2


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_type_of_the_numbers_is_kept(dtype):
    model, x = case(dtype=dtype)
    maps = explain(model, x, samples=20)
    assert maps.raw.dtype == maps.extras["standard_error"].dtype == maps.scores.dtype == dtype


def test_samples_without_an_axis_for_masks_are_reported():
    with pytest.raises(ArrayError, match=r"\(2, 5\)"):
        explain(x=np.zeros((2, 5)))


@parametrize_with_checks(
    [
        RISE(samples=20),
        RISE(samples=30, cells=2, keep=0.3, normalise="expected", batch_size=7),
        RISE(samples=300, tolerance=0.3, fill="mean", seed=4, batch_size=50),
        RISE(samples=10, fill="noise"),
        RISE(samples=2),
    ]
)
def test_the_checks(explainer, check):
    check(explainer)
