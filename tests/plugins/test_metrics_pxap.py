"""PxAP against a plain loop and scikit-learn, and the theorems that it obeys."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cnnviz_core.errors import ArrayError
from cnnviz_core.explainer import Presentation
from cnnviz_core.maps import min_max, resize
from cnnviz_core.metric import IGNORED, Annotation
from cnnviz_core.testing.metrics import parametrize_with_checks
from cnnviz_metrics.pxap import PxAP, average_precision, precision_recall, score_histograms
from support.annotated import explained, rows

RNG = np.random.default_rng(0)
MAPS = min_max(RNG.random((4, 7, 9)))
MASKS = RNG.choice([0, 1, IGNORED], (4, 7, 9), p=[0.6, 0.3, 0.1]).astype(np.uint8)
SIGNED = Presentation(sign="signed")


@parametrize_with_checks([PxAP(), PxAP(step=0.3)])
def test_it_is_a_metric(metric, check):
    check(metric)


def batch(maps, masks, size=None, **more):
    return explained(maps, [Annotation(mask=mask) for mask in masks], size, **more)


def value(maps, masks, step=0.01):
    metric = PxAP(step)
    return metric.summarise(metric.measure(batch(maps, masks)))


# ------------------------------------------------------------------------------- the formula


def by_the_definition(maps, masks, step):
    """Give the area under precision over recall of all pixels, threshold by threshold."""
    scores, truth = maps[masks != IGNORED], masks[masks != IGNORED]
    area, reached = 0.0, 0.0
    for threshold in [1.0, *np.arange(0, 1, step)[::-1]]:
        above = scores >= threshold
        hits = np.count_nonzero(above & (truth == 1))
        if above.any():
            recall = hits / np.count_nonzero(truth == 1)
            area += hits / np.count_nonzero(above) * (recall - reached)
            reached = recall
    return area


@pytest.mark.parametrize("step", [0.001, 0.01, 0.07, 0.5, 1.0])
def test_it_is_its_formula(step):
    found = value(MAPS, MASKS, step)
    assert found["average_precision"] == pytest.approx(by_the_definition(MAPS, MASKS, step))
    assert found["share"] == pytest.approx((MASKS == 1).sum() / (MASKS != IGNORED).sum())


@given(
    arrays(np.float64, (2, 3, 4), elements=st.integers(0, 50).map(lambda n: n / 50)),
    arrays(np.uint8, (2, 3, 4), elements=st.sampled_from([0, 1, IGNORED])),
)
def test_with_a_threshold_for_each_value_it_is_scikit_learn_s(maps, masks):
    metrics = pytest.importorskip("sklearn.metrics")
    objects, background = score_histograms(maps, masks, 0.001)
    found = average_precision(objects.sum(axis=0), background.sum(axis=0))
    counted = masks != IGNORED
    if not (masks == 1).any():
        assert math.isnan(found)
        return
    expected = metrics.average_precision_score(masks[counted] == 1, maps[counted])
    assert found == pytest.approx(expected)


def test_maps_are_brought_to_the_input_by_bicubic_interpolation():
    small = RNG.random((2, 3, 3))
    masks = RNG.integers(0, 2, (2, 12, 10)).astype(np.uint8)
    metric = PxAP(0.001)
    found = metric.summarise(metric.measure(batch(small, masks, (12, 10))))
    large = min_max(resize(small, (12, 10), "bicubic"))
    assert found["average_precision"] == pytest.approx(by_the_definition(large, masks, 0.001))


# ---------------------------------------------------------------------------------- theorems


def test_a_map_that_is_its_mask_gets_everything():
    masks = MASKS % 2 * (MASKS != IGNORED)
    assert value(masks.astype(float), masks)["average_precision"] == 1


@pytest.mark.parametrize("level", [0.0, 0.1, np.nan])
def test_a_map_that_is_the_same_everywhere_gets_the_share_of_the_objects(level):
    found = value(np.full(MAPS.shape, level), MASKS)
    assert found["average_precision"] == pytest.approx(found["share"])


def test_what_is_ignored_does_not_count():
    changed = np.where(MASKS == IGNORED, np.clip(MAPS[::-1], 0.01, 0.99), MAPS)
    ends = (MAPS == 0) | (MAPS == 1)  # so that min-max stays what it is
    masks = np.where(ends, 0, MASKS)
    changed[ends] = MAPS[ends]
    assert value(changed, masks) == value(MAPS, masks)


def test_maps_may_be_shifted_and_scaled():
    raw = np.round(64 * MAPS) / 64
    masks = list(MASKS)
    one, two = (
        PxAP().measure(batch(maps, masks, presentation=SIGNED)) for maps in (raw, 8 * raw - 3)
    )
    np.testing.assert_array_equal(one["objects"], two["objects"])


def test_pixels_are_pooled_and_pictures_are_not_averaged():
    maps = np.array([[[0.0, 0.5, 1.0, 1.0]], [[0.0, 1.0, 1.0, 1.0]]])
    masks = np.array([[[0, 0, 1, 1]], [[0, 0, 0, 1]]], np.uint8)
    one, two = (value(maps[i : i + 1], masks[i : i + 1])["average_precision"] for i in (0, 1))
    assert (one, two) == (1, pytest.approx(1 / 3))
    assert value(maps, masks)["average_precision"] == pytest.approx(3 / 5)


def test_pictures_without_a_mask_are_left_out():
    known = [Annotation(mask=MASKS[0]), Annotation(), Annotation(mask=np.full((7, 9), IGNORED))]
    metric = PxAP()
    records = metric.measure(explained(MAPS[:3], known))
    assert np.isnan(records["objects"]).all(axis=1).tolist() == [False, True, True]
    assert metric.summarise(records) == metric.summarise(rows(records, [0]))
    assert np.isnan(list(metric.summarise(rows(records, [1])).values())).all()


def test_the_curve_is_what_the_area_is_under():
    metric = PxAP(0.05)
    records = metric.measure(batch(MAPS, MASKS))
    (curves,) = metric.curves(records)
    precision, everywhere = (line.y for line in curves.lines)
    area = np.nansum(precision * np.diff(curves.x, prepend=0))
    assert area == pytest.approx(metric.summarise(records)["average_precision"])
    np.testing.assert_allclose(everywhere, metric.summarise(records)["share"])
    assert curves.x[-1] == 1
    assert (np.diff(curves.x) >= 0).all()
    assert metric.curves(rows(records, slice(0))) == ()


def test_precision_is_unknown_where_nothing_lies_above():
    precision, recall = precision_recall(np.array([1, 1, 0]), np.array([0, 1, 0]))
    np.testing.assert_array_equal(precision, [np.nan, 1 / 2, 2 / 3])
    np.testing.assert_array_equal(recall, [0, 1 / 2, 1])


def test_what_does_not_fit_is_refused():
    with pytest.raises(ArrayError, match="maps"):
        score_histograms(2 * MAPS, MASKS)
    with pytest.raises(ArrayError, match="mask"):
        score_histograms(MAPS, MASKS[:, :3])
    with pytest.raises(ArrayError, match="mask"):
        value(MAPS, MASKS[:, :3])
