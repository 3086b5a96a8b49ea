"""Boxes by a fixed rule, against plain formulas."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cnnviz_core.errors import ParameterError
from cnnviz_core.maps import iou
from cnnviz_core.metric import Annotation
from cnnviz_core.testing.metrics import parametrize_with_checks
from cnnviz_metrics.boxes import BoxAccuracy, matches, rule_boxes
from support.annotated import boxed, explained, rows

THREE = np.array(
    [
        [0, 18, 18, 0, 0, 0],
        [0, 99, 18, 0, 0, 0],
        [0, 0, 0, 0, 16, 0],
        [100, 0, 0, 0, 16, 0],
        [0, 0, 21, 0, 0, 0],
    ],
    float,
)


@parametrize_with_checks(
    [BoxAccuracy(), BoxAccuracy("cam", "every", inclusive=True), BoxAccuracy(0.5, min_area=4)]
)
def test_it_is_a_metric(metric, check):
    check(metric)


def summary(maps, annotations, **params):
    metric = BoxAccuracy(**params)
    return metric.summarise(metric.measure(explained(maps, annotations)))


# ---------------------------------------------------------------------------------- the rules


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("grad-cam", [[1, 0, 3, 2], [4, 2, 5, 4], [0, 3, 1, 4], [2, 4, 3, 5]]),
        ("cam", [[1, 1, 2, 2], [0, 3, 1, 4], [2, 4, 3, 5]]),
        (0.5, [[1, 1, 2, 2], [0, 3, 1, 4]]),
    ],
)
def test_each_rule_has_its_share_of_the_maximum(rule, expected):
    assert rule_boxes(THREE, rule, largest=False).tolist() == expected
    assert rule_boxes(THREE, rule).tolist() == expected[:1]


def test_small_components_can_be_left_out():
    found = rule_boxes(THREE, largest=False, min_area=2)
    assert found.tolist() == [[1, 0, 3, 2], [4, 2, 5, 4]]


def test_an_unknown_rule_is_refused():
    with pytest.raises(ParameterError, match="rule"):
        rule_boxes(THREE, "gradcam")


# -------------------------------------------------------------------------------- the numbers


@given(
    arrays(np.float64, st.tuples(st.integers(0, 4), st.integers(0, 4)), elements=st.floats(0, 1)),
    st.sampled_from([0.3, 0.5]),
)
def test_as_many_boxes_are_paired_as_can_be(overlaps, delta):
    short = overlaps if overlaps.shape[0] <= overlaps.shape[1] else overlaps.T
    best = max(
        sum(short[i, j] >= delta for i, j in enumerate(order))
        for order in permutations(range(short.shape[1]), len(short))
    )
    assert matches(overlaps, delta) == best


def test_one_found_box_finds_one_object():
    # Both true boxes are overlapped enough by the one that is found.
    maps, known = [np.ones((10, 10))], [boxed([0, 0, 10, 9], [0, 1, 10, 10])]
    assert summary(maps, known) == {
        "accuracy": 1,
        "mean_iou": pytest.approx(0.9),
        "precision": 1,
        "recall": 0.5,
    }


def test_an_object_is_found_once():
    # Two boxes overlap the true one by 0.5 and 0.4.
    map = np.ones((10, 10))
    map[:, 5] = 0
    found = summary([map], [boxed([0, 0, 10, 10])], boxes="every", delta=0.4)
    assert found == {"accuracy": 1, "mean_iou": 0.5, "precision": 0.5, "recall": 1}


def test_numbers_are_those_of_the_boxes():
    known = [boxed([1, 0, 3, 2], [4, 2, 5, 5]), boxed([0, 0, 2, 2])]
    found = summary([THREE, THREE], known, boxes="every", delta=0.6)
    overlaps = [iou(rule_boxes(THREE, largest=False), k.boxes).max() for k in known]
    assert overlaps == [1, 1 / 3]
    assert found == {
        "accuracy": 0.5,
        "mean_iou": pytest.approx(np.mean(overlaps)),
        "precision": pytest.approx(2 / 8),
        "recall": pytest.approx(2 / 3),
    }


def test_last_columns_and_rows_may_count():
    known = [boxed([1, 0, 4, 2])]
    half_open, inclusive = (
        BoxAccuracy(inclusive=i).measure(explained([THREE], known))["overlap"] for i in (0, 1)
    )
    np.testing.assert_allclose(half_open, 4 / 6)
    np.testing.assert_allclose(inclusive, 9 / 12)


@given(st.data())
def test_of_whole_pixels_both_counts_are_the_same_thing(data):
    corner = st.tuples(st.integers(0, 9), st.integers(0, 9))
    box = st.tuples(corner, st.tuples(st.integers(1, 9), st.integers(1, 9))).map(
        lambda b: [*b[0], b[0][0] + b[1][0], b[0][1] + b[1][1]]
    )
    a, b = np.array([data.draw(box)]), np.array([data.draw(box)])
    last = np.array([0, 0, 1, 1])
    np.testing.assert_array_equal(iou(a, b), iou(a - last, b - last, inclusive=True))


# ---------------------------------------------------------------------------------- theorems


@pytest.mark.parametrize("boxes", ["largest", "every"])
@pytest.mark.parametrize("inclusive", [False, True])
def test_a_map_that_is_its_box_is_right(boxes, inclusive):
    map = np.zeros((12, 15))
    map[2:7, 3:14] = 0.3
    found = summary([map], [boxed([3, 2, 14, 7])], boxes=boxes, inclusive=inclusive, delta=1.0)
    assert set(found.values()) == {1}


def test_maps_may_be_scaled():
    maps = np.random.default_rng(0).random((3, 9, 9)) ** 4
    known = [boxed([1, 2, 7, 8], [4, 0, 9, 3])] * 3
    assert summary(maps, known, boxes="every") == summary(1024 * maps, known, boxes="every")


def test_boxes_are_cut_at_the_input_s_edges():
    map = np.zeros((8, 8))
    map[:4, 5:] = 1
    known = [boxed([5, -3, 12, 4]), boxed([5, -3, 12, 4], [20, 0, 30, 5])]
    assert summary([map, map], known, delta=1.0)["recall"] == 1


def test_maps_without_anything_positive_have_no_box():
    found = summary([np.zeros((5, 6)), -THREE], [boxed([0, 0, 2, 2])] * 2)
    np.testing.assert_equal(found, {"accuracy": 0, "mean_iou": 0, "precision": np.nan, "recall": 0})


def test_pictures_without_boxes_are_left_out():
    known = [boxed([1, 0, 3, 2]), Annotation(3), boxed([40, 40, 50, 50])]
    metric = BoxAccuracy()
    records = metric.measure(explained([THREE] * 3, known))
    assert all(np.isnan(v).tolist() == [False, True, True] for v in records.values())
    assert metric.summarise(records) == metric.summarise(rows(records, [0]))
