"""Segmentation by a thresholded map, against scikit-learn and plain counts."""

from __future__ import annotations

import numpy as np
import pytest

from cnnviz_core.errors import ArrayError, ParameterError
from cnnviz_core.explainer import Presentation
from cnnviz_core.metric import IGNORED, Annotation
from cnnviz_core.testing.metrics import parametrize_with_checks
from cnnviz_metrics.segmentation import SegmentationIoU, foreground, pixel_counts
from support.annotated import explained, rows

RNG = np.random.default_rng(1)
MAPS = RNG.random((5, 8, 6))
MASKS = RNG.choice([0, 1, IGNORED], (5, 8, 6), p=[0.5, 0.4, 0.1]).astype(np.uint8)
RULES = ["mean", "otsu", 0.0, 0.4, 1.0]


@parametrize_with_checks([SegmentationIoU(), SegmentationIoU("otsu"), SegmentationIoU(0.3)])
def test_it_is_a_metric(metric, check):
    check(metric)


def summary(maps, masks, threshold="mean", **more):
    metric = SegmentationIoU(threshold)
    annotations = [Annotation(mask=mask) for mask in masks]
    return metric.summarise(metric.measure(explained(maps, annotations, **more)))


@pytest.mark.parametrize("threshold", RULES)
def test_the_numbers_are_those_of_scikit_learn(threshold):
    metrics = pytest.importorskip("sklearn.metrics")
    marked = foreground(MAPS, threshold)
    found = summary(MAPS, MASKS, threshold)
    each = [
        metrics.jaccard_score(mask[mask != IGNORED] == 1, said[mask != IGNORED], zero_division=0)
        for mask, said in zip(MASKS, marked, strict=True)
    ]
    truth, said = MASKS[MASKS != IGNORED] == 1, marked[MASKS != IGNORED]
    both = metrics.jaccard_score(truth, said, average=None, labels=[False, True])
    assert found["iou"] == pytest.approx(np.mean(each))
    assert found["pooled_iou"] == pytest.approx(both[1])
    assert found["mean_iou"] == pytest.approx(both.mean())
    assert found["pixel_accuracy"] == pytest.approx((truth == said).mean())


def test_rules_mark_what_they_say():
    np.testing.assert_array_equal(foreground(MAPS), [m > m.mean() for m in MAPS])
    np.testing.assert_array_equal(foreground(MAPS, 0.4), [m > 0.4 * m.max() for m in MAPS])
    for map in np.round(8 * MAPS):
        (marked,) = foreground(map[None], "otsu")
        spreads = {
            level: sum(((part - part.mean()) ** 2).sum() for part in (map[~above], map[above]))
            for level in np.unique(map)[:-1]
            if (above := map > level).any()
        }
        np.testing.assert_array_equal(marked, map > min(spreads, key=spreads.get))


@pytest.mark.parametrize("threshold", RULES[:-1])
def test_a_map_that_is_its_mask_is_right_everywhere(threshold):
    masks = np.where(MASKS == IGNORED, 0, MASKS)
    assert set(summary(masks.astype(float), masks, threshold).values()) == {1.0}


def test_an_object_that_fills_the_picture_may_be_marked_wholly():
    assert set(summary(1 + MAPS, np.ones_like(MASKS), 0.0).values()) == {1.0}


@pytest.mark.parametrize("threshold", RULES)
def test_maps_may_be_scaled(threshold):
    assert summary(MAPS, MASKS, threshold) == summary(2 * MAPS, MASKS, threshold)


@pytest.mark.parametrize("threshold", ["mean", "otsu"])
def test_by_the_rules_maps_may_be_shifted_too(threshold):
    raw = np.round(64 * MAPS) / 64
    signed = Presentation(sign="signed")
    assert summary(raw, MASKS, threshold) == summary(raw - 4, MASKS, threshold, presentation=signed)


@pytest.mark.parametrize("threshold", RULES)
@pytest.mark.parametrize("level", [0.0, np.nan, np.inf])
def test_maps_that_say_nothing_mark_nothing(threshold, level):
    assert not foreground(np.full((1, 3, 3), level), threshold).any()
    assert summary(np.full((1, 8, 6), level), MASKS[:1], threshold)["iou"] == 0


@pytest.mark.parametrize("threshold", ["mean", "otsu"])
def test_a_flat_map_at_another_size_marks_nothing(threshold):
    flat = explained(np.full((1, 3, 3), 0.1), [Annotation(mask=MASKS[0])], (8, 6))
    assert SegmentationIoU(threshold).measure(flat)["pixels"][0, :2].tolist() == [0, 0]


def test_pixels_are_counted_once_and_ignored_ones_never():
    counts = pixel_counts(foreground(MAPS), MASKS)
    np.testing.assert_array_equal(counts.sum(axis=1), (MASKS != IGNORED).sum(axis=(1, 2)))
    np.testing.assert_array_equal(counts[:, [0, 2]].sum(axis=1), (MASKS == 1).sum(axis=(1, 2)))


def test_pictures_without_an_object_are_left_out():
    known = [Annotation(mask=MASKS[0]), Annotation(), Annotation(mask=np.zeros((8, 6), np.uint8))]
    metric = SegmentationIoU()
    records = metric.measure(explained(MAPS[:3], known))
    assert np.isnan(records["pixels"]).all(axis=1).tolist() == [False, True, True]
    assert metric.summarise(records) == metric.summarise(rows(records, [0]))


def test_what_does_not_fit_is_refused():
    with pytest.raises(ArrayError, match="mask"):
        summary(MAPS, MASKS[:, :3])
    with pytest.raises(ArrayError, match="maps"):
        foreground(MAPS[0])
    with pytest.raises(ParameterError, match="threshold"):
        foreground(MAPS, "median")
    with pytest.raises(ParameterError, match="threshold"):
        foreground(MAPS, 1.5)
