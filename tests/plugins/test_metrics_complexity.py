"""Entropy, Gini index and effective complexity against their formulas and SciPy."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from cnnviz_core.explainer import Presentation
from cnnviz_core.maps import resize
from cnnviz_core.metric import Annotation
from cnnviz_core.testing.metrics import parametrize_with_checks
from cnnviz_metrics.complexity import (
    Complexity,
    EffectiveComplexity,
    Sparseness,
    effective_complexity,
    entropy,
    gini_index,
)
from support.annotated import explained

MEASURES = (entropy, gini_index, effective_complexity)


@parametrize_with_checks(
    [Complexity(), Sparseness(), EffectiveComplexity(), EffectiveComplexity(0.3)]
)
def test_they_are_metrics(metric, check):
    check(metric)


def drawn(seed, n=3, shape=(4, 5)):
    """Give signed maps with zeros and equal values in them."""
    return np.random.default_rng(seed).integers(-6, 7, (n, *shape)) * 0.25


def gini_by_pairs(values):
    """The mean difference of all pairs, by twice the mean."""
    d = len(values)
    return sum(abs(a - b) for a in values for b in values) / (2 * d * sum(values))


@given(st.integers(0, 2**20))
def test_they_are_their_formulas(seed):
    maps = drawn(seed) + 0.1
    flat = np.abs(maps.reshape(len(maps), -1))
    np.testing.assert_allclose(entropy(maps), scipy.stats.entropy(flat, axis=1), atol=1e-12)
    np.testing.assert_allclose(gini_index(maps), [gini_by_pairs(m) for m in flat], atol=1e-12)
    for threshold in (0.0, 0.3, 0.9):
        expected = [sum(v > threshold * max(m) for v in m) for m in flat]
        np.testing.assert_array_equal(effective_complexity(maps, threshold), expected)


@pytest.mark.parametrize("d", [1, 2, 7, 100])
def test_the_ends_of_their_ranges(d):
    one, same = np.zeros((1, d)), np.full((1, d), -0.7)
    one[0, d // 2] = -3
    assert entropy(one) == 0
    assert not np.signbit(entropy(one))
    np.testing.assert_allclose(entropy(same), np.log(d), atol=1e-12)
    np.testing.assert_allclose(gini_index(one), 1 - 1 / d, atol=1e-12)
    np.testing.assert_allclose(gini_index(same), 0, atol=1e-12)
    assert effective_complexity(one) == 1
    assert effective_complexity(same) == d


@given(st.integers(0, 2**20), st.sampled_from([1e-300, -1.0, 1e-5, 1e300]))
def test_scale_sign_and_order_do_not_matter(seed, scale):
    maps = drawn(seed) + 0.1
    order = np.random.default_rng(seed).permutation(20)
    other = scale * maps.reshape(3, -1)[:, order]
    for measure in MEASURES:
        np.testing.assert_allclose(measure(other), measure(maps), rtol=1e-9)


@given(st.integers(0, 2**20))
def test_less_spread_is_simpler_by_all_of_them(seed):
    maps = np.abs(drawn(seed)) + 0.5
    sharper = maps**3
    assert (entropy(sharper) <= entropy(maps) + 1e-12).all()
    assert (gini_index(sharper) >= gini_index(maps) - 1e-12).all()
    assert (effective_complexity(sharper, 0.5) <= effective_complexity(maps, 0.5)).all()


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
@pytest.mark.parametrize("measure", MEASURES)
def test_maps_that_say_nothing_have_no_number(measure, value):
    maps = np.ones((3, 2, 2))
    maps[1] = 0
    maps[1, 0, 0] = value
    found = measure(maps)
    assert np.isnan(found).tolist() == [False, True, False]


def test_maps_are_measured_as_they_are_shown():
    maps = np.random.default_rng(0).normal(size=(2, 3, 4))
    batch = explained(maps, [Annotation()] * 2, (9, 8), presentation=Presentation())
    shown = resize(np.maximum(maps, 0), (9, 8), "bilinear")
    np.testing.assert_allclose(Complexity().measure(batch)["complexity"], entropy(shown))
    np.testing.assert_allclose(Sparseness().measure(batch)["sparseness"], gini_index(shown))
    found = EffectiveComplexity(0.2).measure(batch)["effective_complexity"]
    np.testing.assert_allclose(found, effective_complexity(shown, 0.2) / 72)


def test_maps_that_say_nothing_are_left_out():
    maps = np.stack([np.eye(3), np.zeros((3, 3)), np.ones((3, 3))])
    for metric, expected in (
        (Complexity(), (np.log(3) + np.log(9)) / 2),
        (Sparseness(), (2 / 3 + 0) / 2),
        (EffectiveComplexity(), (1 / 3 + 1) / 2),
    ):
        (value,) = metric.summarise(metric.measure(explained(maps, [Annotation()] * 3))).values()
        np.testing.assert_allclose(value, expected, atol=1e-12)
