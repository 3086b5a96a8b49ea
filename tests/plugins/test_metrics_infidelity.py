"""Infidelity against loops over draws, and the theorems that it obeys."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cnnviz_core.errors import ArrayError
from cnnviz_core.explainer import Maps, Presentation
from cnnviz_core.fills import filling
from cnnviz_core.maps import resize
from cnnviz_core.metric import Annotation, Explained
from cnnviz_core.netspec import NetSpec, Op
from cnnviz_core.targets import ClassProbability, ClassScore, Neuron
from cnnviz_core.testing.metrics import parametrize_with_checks
from cnnviz_core.testing.nets import plain, random_input
from cnnviz_core.testing.reference import ReferenceModel
from cnnviz_gradient.gradient_x_input import GradientXInput
from cnnviz_gradient.saliency import Saliency
from cnnviz_metrics.infidelity import (
    Gaussian,
    Infidelity,
    Squares,
    attributions,
    best_scale,
    expected_error,
    predicted_and_found,
)

RNG = np.random.default_rng(0)
KINDS = ["gaussian", "squares"]


@parametrize_with_checks(
    [Infidelity(draws=6), Infidelity("squares", draws=5), Infidelity(draws=3, scaled=True)]
)
def test_they_are_metrics(metric, check):
    check(metric)


def linear():
    """A network that is linear in its input."""
    rng = np.random.default_rng(1)
    arrays = {"fc.weight": rng.normal(size=(7 * 5 * 3, 4)), "fc.bias": rng.normal(size=4)}
    ops = (Op("flat", "flatten", ("image",)), Op("fc", "linear", ("flat",)))
    return NetSpec({"image": (7, 5, 3)}, ops, arrays, "linear")


def batch(net, explainer=None, n=3, targets=None, **known):
    explainer = explainer or Saliency()
    model = ReferenceModel(net, "float64")
    x = random_input(net, n, seed=5)["image"].astype(np.float64)
    targets = tuple(targets or (ClassScore(i % 4) for i in range(n)))
    maps = explainer.explain(model, x, targets)
    return Explained(model, explainer, x, maps, (Annotation(),) * n, **known)


# ------------------------------------------------------------------------------- the map


def test_a_map_with_channels_is_taken_as_it_is():
    raw = RNG.normal(size=(2, 4, 5, 3))
    np.testing.assert_array_equal(attributions(Maps(raw), (4, 5, 3)), raw)


def test_a_map_without_channels_is_spread_evenly_over_them():
    raw = RNG.normal(size=(2, 4, 5))
    phi = attributions(Maps(raw), (4, 5, 3))
    assert phi.shape == (2, 4, 5, 3)
    np.testing.assert_allclose(phi.sum(-1), raw)
    np.testing.assert_array_equal(phi[..., 0], phi[..., 2])


def test_a_smaller_map_is_resized_with_its_sign():
    raw = RNG.normal(size=(2, 3, 4))
    for how in ("bilinear", "nearest"):
        maps = Maps(raw, presentation=Presentation(sign="positive", upsample=how))
        phi = attributions(maps, (6, 8, 2))
        np.testing.assert_allclose(phi.sum(-1), resize(raw, (6, 8), how))
        assert phi.min() < 0


def test_channels_of_a_layer_are_summed():
    raw = RNG.normal(size=(1, 4, 5, 6))
    np.testing.assert_allclose(attributions(Maps(raw), (4, 5, 3)).sum(-1), raw.sum(-1))


# ------------------------------------------------------------------------------- the changes


def test_noise_is_normal_and_scaled_by_the_range():
    sample = RNG.normal(size=(6, 5, 3)) * 40
    moves = Gaussian(sample, 0.1).drawn(0, 400) / np.ptp(sample)
    np.testing.assert_allclose(moves.mean(), 0, atol=0.002)
    np.testing.assert_allclose(moves.std(), 0.1, rtol=0.01)
    np.testing.assert_allclose(np.mean(moves**4), 3 * 0.1**4, rtol=0.05)


@pytest.mark.parametrize("fill", [0.0, 1.5, "mean", "blur", "noise", "inpaint"])
def test_squares_become_the_fill(fill):
    sample = RNG.normal(size=(9, 12, 2))
    moves = Squares(sample, filling(sample, fill), side=0.34).drawn(0, 30)
    for move in moves:
        moved = np.argwhere(move.any(-1))
        (top, left), (bottom, right) = moved.min(0), moved.max(0) + 1
        assert (bottom - top, right - left) == (3, 3)
        mask = np.ones((9, 12))
        mask[top:bottom, left:right] = 0
        shown = filling(sample, fill).under(mask[None])
        expected = np.broadcast_to(shown, (1, *sample.shape))[0]
        inside = (slice(top, bottom), slice(left, right))
        np.testing.assert_allclose((sample - move)[inside], expected[inside])
        move[inside] = 0
        assert not move.any()


def test_squares_lie_everywhere():
    sample = np.ones((5, 7, 1))
    removed = Squares(sample, filling(sample, 0.0), side=0.4).drawn(0, 500)
    corners = {tuple(np.argwhere(move[..., 0])[0]) for move in removed}
    assert corners == {(y, x) for y in range(4) for x in range(6)}


def test_squares_in_signals_and_volumes():
    for shape in [(20, 2), (4, 5, 6, 1)]:
        sample = np.ones(shape)
        removed = Squares(sample, filling(sample, 0.0), side=0.5).drawn(0, 3)
        side = max(1, min(shape[:-1]) // 2)
        assert [m[..., 0].sum() for m in removed] == [side ** (len(shape) - 1)] * 3


@pytest.mark.parametrize("make", [Gaussian, lambda x: Squares(x, filling(x, 0.0))])
def test_changes_are_the_same_however_they_are_asked_for(make):
    changes = make(RNG.normal(size=(6, 5, 3)))
    whole = changes.drawn(0, 7)
    parts = np.concatenate([changes.drawn(0, 1), changes.drawn(1, 5), changes.drawn(5, 7)])
    np.testing.assert_array_equal(parts, whole)
    assert len({move.tobytes() for move in Gaussian(np.eye(3)).drawn(0, 5)}) == 5


# ------------------------------------------------------------------------------- the error


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scaled", [False, True])
def test_it_is_the_plain_formula(kind, scaled):
    explained = batch(plain(), GradientXInput(), seed=3, batch_size=4)
    metric = Infidelity(kind, draws=9, noise=0.3, side=0.4, fill=0.5, scaled=scaled)
    record = metric.measure(explained)
    for row in range(3):
        x, phi = explained.x[row], explained.maps.raw[row]
        target = explained.maps.targets[row]

        def f(picture, target=target):
            return explained.model.forward(picture[None]).logits[0, target.index]

        changes = Gaussian(x, 0.3, 3) if kind == "gaussian" else Squares(x, filling(x, 0.5), 0.4, 3)
        pairs = [((i * phi).sum(), f(x) - f(x - i)) for i in changes.drawn(0, 9)]
        beta = sum(p * q for p, q in pairs) / sum(p * p for p, _ in pairs) if scaled else 1
        expected = np.mean([(beta * p - q) ** 2 for p, q in pairs])
        np.testing.assert_allclose(record["infidelity"][row], expected, rtol=1e-9)
        np.testing.assert_allclose(record["scale"][row], beta, rtol=1e-9)
    summary = metric.summarise(record)
    assert list(summary) == ["infidelity", "scale"]
    np.testing.assert_allclose(summary["infidelity"], record["infidelity"].mean())


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_of_a_linear_network_is_faithful(kind):
    record = Infidelity(kind, draws=20).measure(batch(linear()))
    np.testing.assert_allclose(record["infidelity"], 0, atol=1e-18)


def test_a_map_of_zeros_misses_all_that_happens():
    explained = batch(linear())
    zeros = replace(explained.maps, raw=np.zeros_like(explained.maps.raw))
    for scaled in (False, True):
        metric = Infidelity(draws=500, scaled=scaled)
        record = metric.measure(replace(explained, maps=zeros))
        # The variance of a weighted sum of independent noise.
        weights = explained.maps.raw.reshape(3, -1)
        expected = (0.1 * np.ptp(explained.x, axis=(1, 2, 3))) ** 2 * np.square(weights).sum(1)
        np.testing.assert_allclose(record["infidelity"], expected, rtol=0.15)
        assert record["scale"].tolist() == [1, 1, 1]


@pytest.mark.parametrize("factor", [-2.0, 1e-6, 1e4])
def test_scaling_forgives_a_factor(factor):
    explained = batch(plain())
    other = replace(explained, maps=replace(explained.maps, raw=factor * explained.maps.raw))
    metric = Infidelity(draws=12, scaled=True)
    one, two = metric.measure(explained), metric.measure(other)
    np.testing.assert_allclose(two["infidelity"], one["infidelity"], rtol=1e-6)
    np.testing.assert_allclose(two["scale"] * factor, one["scale"], rtol=1e-6)
    unscaled = Infidelity(draws=12).measure(other)["infidelity"]
    assert (two["infidelity"] < unscaled).all()


def test_the_best_scale_is_the_best():
    predicted, found = RNG.normal(size=(2, 30))
    best = best_scale(predicted, found)
    least = expected_error(best * predicted, found)
    for other in (best - 0.1, best + 0.1, 1.0, 0.0):
        assert least < expected_error(other * predicted, found)
    assert best_scale(np.zeros(3), found[:3]) == 1


@pytest.mark.parametrize(
    "targets",
    [[ClassProbability(1)] * 2, [Neuron("conv2", (1, 2, 3))] * 2],
    ids=["probability", "neuron"],
)
def test_the_explained_score_is_what_changes(targets):
    explained = batch(plain(), n=2, targets=targets)
    x, target = explained.x[0], targets[0]
    changes = Gaussian(x)
    _, found = predicted_and_found(
        explained.model, x, target, explained.maps.raw[0], changes, 3, batch_size=2
    )
    node = target.of

    def f(picture):
        return target.score(explained.model.forward(picture[None], capture=[node])[node][0])

    expected = [f(x) - f(x - move) for move in changes.drawn(0, 3)]
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_small_changes_make_the_gradient_right():
    explained = batch(plain())
    coarse, fine = (
        Infidelity(draws=20, noise=noise).measure(explained)["infidelity"] / noise**2
        for noise in (0.1, 1e-5)
    )
    assert (fine < 1e-3 * coarse).all()


def test_maps_that_are_not_finite_are_left_out():
    explained = batch(linear())
    raw = np.array(explained.maps.raw)
    raw[1, 0, 0, 0] = np.nan
    metric = Infidelity(draws=3)
    record = metric.measure(replace(explained, maps=replace(explained.maps, raw=raw)))
    assert np.isnan(record["infidelity"]).tolist() == [False, True, False]
    assert metric.summarise(record)["infidelity"] < 1e-18


def test_a_map_of_another_shape_is_refused():
    explained = batch(linear())
    with pytest.raises(ArrayError, match="attributions"):
        predicted_and_found(
            explained.model,
            explained.x[0],
            ClassScore(0),
            np.ones((7, 5)),
            Gaussian(explained.x[0]),
            2,
        )


def test_it_tells_its_passes():
    explained = batch(linear(), n=1)
    seen = []
    forward = explained.model.forward

    def counting(x, **more):
        seen.append(len(x))
        return forward(x, **more)

    explained.model.forward = counting
    metric = Infidelity(draws=10)
    metric.measure(replace(explained, batch_size=4))
    assert seen == [1, 4, 4, 2]
    assert sum(seen) == metric.passes(explained.model, explained.x)
