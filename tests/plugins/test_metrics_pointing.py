"""The pointing games against plain loops over pixels, and the theorems that they obey."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnviz_core.errors import ArrayError
from cnnviz_core.explainer import Presentation
from cnnviz_core.maps import resize
from cnnviz_core.metric import IGNORED, Annotation
from cnnviz_core.testing.metrics import parametrize_with_checks
from cnnviz_metrics.pointing import (
    EnergyPointingGame,
    PointingGame,
    energy_inside,
    highest_point,
    is_hit,
)
from support.annotated import boxed, explained, rows

RNG = np.random.default_rng(2)


@parametrize_with_checks(
    [PointingGame(), PointingGame(0.0, "boxes"), EnergyPointingGame(), EnergyPointingGame("mask")]
)
def test_they_are_metrics(metric, check):
    check(metric)


def peak(row, column, shape=(40, 60)):
    """Give a map that is highest at a pixel."""
    y, x = np.indices(shape)
    return -np.hypot(y - row, x - column)


def hits(maps, annotations, size=None, metric=None, **more):
    presentation = Presentation(sign="signed")
    batch = explained(maps, annotations, size, presentation=presentation, **more)
    return (metric or PointingGame()).measure(batch)["hit"].tolist()


# --------------------------------------------------------------------------------- the point


@given(
    st.integers(0, 11),
    st.integers(0, 8),
    st.integers(0, 2**20),
    st.one_of(st.integers(0, 9), st.floats(0, 9)),
)
def test_a_hit_is_nearer_than_the_tolerance(row, column, seed, tolerance):
    region = np.random.default_rng(seed).random((12, 9)) < 0.02
    nearest = min(
        (math.hypot(y - row, x - column) for y, x in np.argwhere(region)), default=math.inf
    )
    expected = nearest == 0 or nearest**2 < tolerance**2
    assert is_hit((row, column), region, tolerance) == expected


@pytest.mark.parametrize(
    ("row", "column", "hit"),
    # The object's last column is 29: 15 pixels further is too far, also slantwise (9, 12).
    [(10, 43, True), (10, 44, False), (28, 41, False), (28, 40, True), (10, 20, True)],
)
def test_fifteen_pixels_are_too_far(row, column, hit):
    assert hits([peak(row, column)], [boxed([15, 5, 30, 20])]) == [hit]


def test_without_tolerance_the_point_must_be_on_the_object():
    metric = PointingGame(tolerance=0.0)
    known = [boxed([15, 5, 30, 20])] * 3
    maps = [peak(5, 15), peak(19, 29), peak(20, 29)]
    assert hits(maps, known, metric=metric) == [1, 1, 0]


def test_the_point_is_the_first_of_the_highest():
    map = RNG.integers(0, 3, (7, 5)).astype(float)
    assert highest_point(map) == divmod(map.argmax(), 5)
    assert highest_point(map + np.nan) is None
    assert not is_hit(None, np.ones((7, 5), bool))


@pytest.mark.parametrize("level", [0.0, 0.1, np.nan, np.inf])
def test_a_map_that_says_nothing_misses(level):
    everywhere = [boxed([0, 0, 40, 30])]
    assert hits(np.full((1, 3, 4), level), everywhere, (30, 40)) == [0]


# ------------------------------------------------------------------------------- the picture


@pytest.mark.parametrize("upsample", ["bilinear", "nearest", "bicubic"])
def test_maps_go_to_the_size_of_the_picture_by_one_interpolation(upsample):
    raw = RNG.random((6, 5, 4))
    picture = (90, 75)
    box = np.array([3.0, 2, 6, 7])  # of an input of 10 x 8
    presentation = Presentation(upsample=upsample)
    known = [Annotation(boxes=box[None], picture=picture)] * 6
    batch = explained(raw, known, (10, 8), presentation=presentation)
    found = PointingGame(tolerance=10.0).measure(batch)["hit"]
    x0, y0, x1, y1 = box * np.array([75 / 8, 9, 75 / 8, 9])
    for map, hit in zip(resize(raw, picture, upsample), found, strict=True):
        row, column = np.unravel_index(map.argmax(), map.shape)
        near = any(
            (y - row) ** 2 + (x - column) ** 2 < 100
            for y in range(90)
            for x in range(75)
            if x0 <= x + 0.5 < x1 and y0 <= y + 0.5 < y1
        )
        assert hit == near


def test_the_tolerance_is_of_pixels_of_the_picture():
    known = [
        Annotation(boxes=np.array([[15, 5, 30, 20]]), picture=size)
        for size in ((40, 60), (80, 120), (20, 30))
    ]
    assert hits([peak(10, 40)] * 3, known) == [1, 0, 1]  # 11, 22 and 5 pixels away


def test_where_the_input_shows_a_part_of_the_picture_that_counts():
    # The input of 40 x 60 is the middle half of a picture of 160 x 240.
    half = Annotation(
        boxes=np.array([[15, 5, 30, 20]]), picture=(160, 240), part=(60, 40, 180, 120)
    )
    assert hits([peak(10, 36), peak(10, 38)], [half] * 2) == [1, 0]  # 14 or 15, and 18, pixels


@pytest.mark.parametrize("size", [(40, 60), (55, 91)])
def test_a_mask_comes_before_boxes(size):
    mask = np.zeros((40, 60), np.uint8)
    mask[2:6, 2:6], mask[30:, 50:] = 1, IGNORED
    known = Annotation(boxes=np.array([[40, 25, 60, 40]]), mask=mask, picture=size)
    maps, tight = [peak(4, 4), peak(35, 55)], PointingGame(tolerance=2.0)
    assert hits(maps, [known] * 2, metric=tight) == [1, 0]
    boxes = PointingGame(tolerance=2.0, region="boxes")
    assert hits(maps, [known] * 2, metric=boxes) == [0, 1]


def test_a_box_between_the_centres_of_pixels_is_a_pixel():
    metric = PointingGame(tolerance=0.0)
    assert hits([peak(9, 20)], [boxed([20.1, 9.1, 20.4, 9.3])], metric=metric) == [1]
    assert hits([peak(39, 59)], [boxed([59.7, 39.7, 60, 40])], metric=metric) == [1]


def test_what_lies_on_the_object_by_itself_hits():
    boxes = [[10, 3, 20, 9], [30, 20, 60, 40]]
    maps = [peak((y0 + y1) // 2, (x0 + x1) // 2) for x0, y0, x1, y1 in boxes]
    tight = PointingGame(tolerance=0.0)
    assert hits(maps, [boxed(box) for box in boxes], metric=tight) == [1, 1]


# ------------------------------------------------------------------------------- the numbers


def records(**columns):
    return {name: np.array(values, float) for name, values in columns.items()}


def test_each_class_counts_as_much_as_any_other():
    played = records(
        hit=[1, 1, 1, 0, 0, 1],
        label=[4, 4, 4, 4, 7, 7],
        difficult=[0, 0, 0, 0, 0, 1],
        share=[0.5, 0.1, 0.3, 0.1, 0.2, 0.1],
    )
    assert PointingGame().summarise(played) == {
        "accuracy": pytest.approx((3 / 4 + 0) / 2),
        "pooled_accuracy": pytest.approx(3 / 5),
        "accuracy_small": pytest.approx((1 / 2 + 0) / 2),
        "accuracy_all": pytest.approx((3 / 4 + 1 / 2) / 2),
    }


def test_pictures_without_an_object_are_left_out():
    known = [boxed([1, 1, 9, 9], label=2), Annotation(2), Annotation(2, mask=np.zeros((40, 60)))]
    for metric in (PointingGame(), EnergyPointingGame("mask")):
        found = metric.measure(explained([peak(4, 4)] * 3, known))
        assert all(np.isnan(v).tolist() == [False, True, True] for v in found.values())
        left = metric.summarise(rows(found, [0]))
        np.testing.assert_equal(metric.summarise(found), left)


def test_the_record_says_what_the_object_is():
    known = [boxed([0, 0, 30, 40], label=3, difficult=True), boxed([0, 0, 60, 20])]
    found = PointingGame().measure(explained([peak(1, 1)] * 2, known))
    assert found["label"].tolist() == [3, -1]
    assert found["difficult"].tolist() == [1, 0]
    assert found["share"].tolist() == [0.5, 0.5]


# -------------------------------------------------------------------------------- the energy


def test_energy_is_what_is_positive_on_the_object():
    maps = RNG.normal(size=(4, 6, 5))
    regions, counted = RNG.random((2, 4, 6, 5)) < 0.6
    regions &= counted
    expected = [
        sum(max(m[p], 0) for p in np.ndindex(6, 5) if r[p])
        / sum(max(m[p], 0) for p in np.ndindex(6, 5) if c[p])
        for m, r, c in zip(maps, regions, counted, strict=True)
    ]
    np.testing.assert_allclose(energy_inside(maps, regions, counted), expected)
    np.testing.assert_allclose(energy_inside(1e300 * maps, regions, counted), expected)


def test_energy_of_a_box_is_that_of_its_columns_and_rows():
    map = np.arange(1, 13, dtype=float).reshape(3, 4)
    found = EnergyPointingGame().measure(explained([map], [boxed([2, 0, 4, 2])]))
    assert found["energy"][0] == pytest.approx((3 + 4 + 7 + 8) / 78)
    assert found["share"][0] == pytest.approx(4 / 12)


def test_of_boxes_that_overlap_no_pixel_counts_twice():
    found = EnergyPointingGame().measure(
        explained(np.ones((1, 4, 4)), [boxed([0, 0, 4, 3], [0, 1, 4, 4])])
    )
    assert found["energy"].tolist() == [1]


def test_a_map_that_is_the_same_everywhere_has_the_share_of_the_pixels():
    mask = np.zeros((6, 6), np.uint8)
    mask[:2], mask[2] = 1, IGNORED
    known = [Annotation(mask=mask), boxed([0, 0, 3, 6])]
    metric = EnergyPointingGame("mask")
    found = metric.measure(explained(np.full((2, 6, 6), 0.3), known))
    np.testing.assert_allclose(found["energy"], found["share"])
    np.testing.assert_allclose(found["share"], [2 / 5, 1 / 2])
    assert metric.summarise(found)["energy"] == pytest.approx(0.45)


@pytest.mark.parametrize("level", [0.0, -1.0, np.nan])
def test_a_map_without_energy_has_none_on_the_object(level):
    region = np.ones((1, 3, 3), bool)
    assert energy_inside(np.full((1, 3, 3), level), region).tolist() == [0]


def test_what_does_not_fit_is_refused():
    with pytest.raises(ArrayError, match="maps"):
        energy_inside(np.ones((1, 3, 3)), np.ones((1, 3, 4), bool))
    wrong = Annotation(mask=np.ones((4, 4)), name="cat")
    with pytest.raises(ArrayError, match="cat"):
        hits([peak(1, 1)], [wrong])
