"""Thresholds, components, boxes and their overlap, against loops, OpenCV and SciPy."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from scipy import ndimage
from skimage.measure import label, regionprops

from cnnviz_core.errors import ArrayError, ParameterError
from cnnviz_core.maps import (
    boxes,
    boxes_of,
    boxes_of_each,
    clip_boxes,
    components,
    iou,
    threshold_mask,
)

sizes = npst.array_shapes(min_dims=2, max_dims=2, max_side=9)
masks = npst.arrays(bool, sizes)
levels = st.integers(-20, 20).map(lambda i: i / 8)
maps = npst.arrays(np.float32, sizes, elements=levels)
shares = st.floats(0, 1)
connectivities = st.sampled_from([1, 2])
spans = st.lists(st.integers(-9, 9), min_size=2, max_size=2).map(sorted)
box = st.tuples(spans, spans).map(lambda s: (s[0][0], s[1][0], s[0][1], s[1][1]))
box_lists = st.lists(box, min_size=1, max_size=4).map(lambda b: np.array(b, dtype=np.int64))


@given(maps, shares)
def test_the_foreground_is_strictly_above_a_share_of_the_maximum(map, share):
    mask = threshold_mask(map, share)
    assert (mask.dtype, mask.shape) == (bool, map.shape)
    if map.max() <= 0:
        assert not mask.any()
    else:
        level = np.float32(share) * map.max()
        assert mask.tolist() == [[bool(v > level) for v in row] for row in map]
        assert mask[map == map.max()].all() or level == map.max()


@given(maps, shares, shares)
def test_a_higher_threshold_gives_a_subset(map, a, b):
    low, high = sorted((a, b))
    assert not (threshold_mask(map, high) & ~threshold_mask(map, low)).any()


def test_a_value_that_equals_the_level_is_not_above_it():
    for dtype in (np.float32, np.float64):
        for share in (0.1, 0.15, 0.2, 0.5, 1.0):
            assert threshold_mask(np.array([[share, 1.0]], dtype), share)[0, 0] == np.False_
    assert threshold_mask(np.array([[0, 1, 2]], dtype=np.uint8), 0).tolist() == [
        [False, True, True]
    ]


def test_every_map_of_a_batch_has_its_own_maximum():
    batch = np.array([[[1.0, 4.0]], [[10.0, 40.0]], [[-1.0, -4.0]], [[0.0, 0.0]]])
    expected = [[[False, True]], [[False, True]], [[False, False]], [[False, False]]]
    assert threshold_mask(batch, 0.5).tolist() == expected


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_map_that_is_not_finite_has_no_foreground(bad):
    for share in (0, 0.5):
        mask = threshold_mask(np.array([[[1.0, bad]], [[1.0, 2.0]]]), share)
        assert not mask[0].any()
        assert mask[1].any()
    assert boxes_of(np.array([[1.0, bad]])).shape == (0, 4)


def flooded(mask, connectivity):
    """Collect components by flooding, row by row, and sort them by size."""
    steps = [(0, 1), (0, -1), (1, 0), (-1, 0)]
    steps += [(1, 1), (1, -1), (-1, 1), (-1, -1)] if connectivity == 2 else []
    left = {(int(y), int(x)) for y, x in zip(*np.nonzero(mask), strict=True)}
    found = []
    for start in sorted(left):
        if start in left:
            left.remove(start)
            component, edge = [], [start]
            while edge:
                y, x = edge.pop()
                component.append((y, x))
                near = {(y + dy, x + dx) for dy, dx in steps} & left
                left -= near
                edge += near
            found.append(component)
    return sorted(found, key=len, reverse=True)


CHEQUERS = np.indices((5, 6)).sum(axis=0) % 2 == 0


@given(masks, connectivities)
@example(CHEQUERS, 1)
@example(CHEQUERS, 2)
def test_components_are_those_of_flooding_in_the_same_order(mask, connectivity):
    found = components(mask, connectivity)
    expected = flooded(mask, connectivity)
    assert [sorted(zip(*np.nonzero(c), strict=True)) for c in found] == [
        sorted(c) for c in expected
    ]


@given(masks, connectivities)
def test_components_split_the_mask(mask, connectivity):
    found = components(mask, connectivity)
    total = sum((c.astype(int) for c in found), np.zeros(mask.shape, int))
    np.testing.assert_array_equal(total, mask.astype(int))
    areas = [int(c.sum()) for c in found]
    assert areas == sorted(areas, reverse=True)
    structure = ndimage.generate_binary_structure(2, connectivity)
    assert len(found) == ndimage.label(mask, structure)[1]


@given(masks, connectivities, st.integers(0, 4))
def test_boxes_are_opencvs(mask, connectivity, min_area):
    found = boxes_of(mask, largest=False, min_area=min_area, connectivity=connectivity)
    _, _, stats, _ = cv2.connectedComponentsWithStats(
        mask.astype(np.uint8), connectivity=4 * connectivity
    )
    foreground = [s for s in stats[1:].tolist() if s[4] >= min_area]
    assert sorted(found.tolist()) == sorted([x, y, x + w, y + h] for x, y, w, h, _ in foreground)


@given(maps, shares, connectivities)
def test_boxes_hold_their_components_tightly(map, share, connectivity):
    parts = components(threshold_mask(map, share), connectivity)
    found = boxes_of(map, share, False, connectivity=connectivity)
    assert len(found) == len(parts)
    for (x0, y0, x1, y1), part in zip(found.tolist(), parts, strict=True):
        inside = np.zeros_like(part)
        inside[y0:y1, x0:x1] = True
        assert not (part & ~inside).any()
        x, y, w, h = cv2.boundingRect(part.astype(np.uint8))
        assert (x0, y0, x1, y1) == (x, y, x + w, y + h)
        window = part[y0:y1, x0:x1]
        assert all(side.any() for side in (window[0], window[-1], window[:, 0], window[:, -1]))


@given(maps, shares)
def test_the_largest_box_is_the_first_of_all(map, share):
    found = boxes_of(map, share)
    assert (found.dtype, found.shape[1]) == (np.int64, 4)
    np.testing.assert_array_equal(found, boxes_of(map, share, largest=False)[:1])


@given(maps, shares)
def test_boxes_follow_a_flip_and_a_transposition(map, share):
    found = boxes_of(map, share, largest=False)
    transposed = boxes_of(map.T, share, largest=False)
    assert sorted(transposed[:, [1, 0, 3, 2]].tolist()) == sorted(found.tolist())
    flipped = boxes_of(map[:, ::-1], share, largest=False)
    back = np.column_stack(
        [map.shape[1] - flipped[:, 2], flipped[:, 1], map.shape[1] - flipped[:, 0], flipped[:, 3]]
    )
    assert sorted(back.tolist()) == sorted(found.tolist())


def test_the_size_of_a_component_counts_its_pixels_not_its_box():
    map = np.zeros((8, 8))
    map[0, :], map[:, 0] = 1, 1  # 15 pixels in a box of 64
    map[3:7, 3:7] = 1  # 16 pixels
    assert boxes_of(map).tolist() == [[3, 3, 7, 7]]
    assert boxes_of(map, largest=False).tolist() == [[3, 3, 7, 7], [0, 0, 8, 8]]
    assert boxes_of(map, largest=False, min_area=16).tolist() == [[3, 3, 7, 7]]
    assert boxes_of(map, min_area=17).shape == (0, 4)


def by_scikit_image(map, share, connectivity):
    """Label one map, and sort the regions by area; scikit-image lists them row by row."""
    regions = regionprops(label(threshold_mask(map, share), connectivity=connectivity))
    regions.sort(key=lambda region: -region.area)
    corners = [(x0, y0, x1, y1) for y0, x0, y1, x1 in (region.bbox for region in regions)]
    return np.array(corners, dtype=np.int64).reshape(-1, 4), [int(r.area) for r in regions]


batches = npst.arrays(
    np.float32, npst.array_shapes(min_dims=3, max_dims=3, max_side=7), elements=levels
)


@given(batches, shares, connectivities, st.integers(1, 4), st.sampled_from([1, 200, 10**9]))
def test_a_batch_has_the_boxes_that_scikit_image_finds_in_each_map(
    batch, share, connectivity, min_area, at_once
):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(boxes, "_MANY", at_once)
        every = boxes_of_each(batch, share, False, min_area, connectivity=connectivity)
        first = boxes_of_each(batch, share, True, min_area, connectivity=connectivity)
    assert len(every) == len(first) == len(batch)
    for map, found, largest in zip(batch, every, first, strict=True):
        expected, areas = by_scikit_image(map, share, connectivity)
        np.testing.assert_array_equal(found, expected[: sum(a >= min_area for a in areas)])
        np.testing.assert_array_equal(largest, found[:1])
        assert (found.dtype, largest.shape[1]) == (np.int64, 4)


@pytest.mark.parametrize("connectivity", [1, 2])
@pytest.mark.parametrize("share", [0.0, 0.2, 0.8])
def test_noise_has_the_boxes_that_scikit_image_finds(share, connectivity):
    batch = np.random.default_rng(0).standard_normal((3, 61, 47))
    batch[1] = ndimage.gaussian_filter(batch[1], 3)
    for map, found in zip(
        batch, boxes_of_each(batch, share, False, connectivity=connectivity), strict=True
    ):
        np.testing.assert_array_equal(found, by_scikit_image(map, share, connectivity)[0])


def test_an_empty_batch_has_no_boxes():
    assert boxes_of_each(np.zeros((0, 3, 4))) == []


def test_of_equal_components_the_first_row_by_row_wins():
    map = np.zeros((4, 6))
    map[2, 0:2] = map[1, 4:6] = 1
    assert boxes_of(map).tolist() == [[4, 1, 6, 2]]


def test_corners_join_unless_they_are_told_not_to():
    map = np.eye(3)
    assert boxes_of(map).tolist() == [[0, 0, 3, 3]]
    assert boxes_of(map, connectivity=1).tolist() == [[0, 0, 1, 1]]


def test_the_default_is_grad_cams_fifteen_per_cent():
    assert boxes_of(np.array([[0.14, 0.16, 1.0]])).tolist() == [[1, 0, 3, 1]]


def pixels(b, inclusive):
    x0, y0, x1, y1 = map(int, b)
    return {(x, y) for x in range(x0, x1 + inclusive) for y in range(y0, y1 + inclusive)}


@given(box_lists, box_lists, st.booleans())
def test_iou_counts_pixels(a, b, inclusive):
    found = iou(a, b, inclusive=inclusive)
    assert (found.dtype, found.shape) == (np.float64, (len(a), len(b)))
    for i, j in np.ndindex(found.shape):
        first, second = pixels(a[i], inclusive), pixels(b[j], inclusive)
        union = len(first | second)
        assert found[i, j] == (len(first & second) / union if union else 0)


@given(box_lists, box_lists, st.booleans(), st.integers(-99, 99), st.integers(-99, 99))
def test_iou_is_symmetric_bounded_and_blind_to_translation(a, b, inclusive, dx, dy):
    found = iou(a, b, inclusive=inclusive)
    np.testing.assert_array_equal(iou(b, a, inclusive=inclusive), found.T)
    assert ((found >= 0) & (found <= 1)).all()
    shift = np.array([dx, dy, dx, dy])
    np.testing.assert_array_equal(iou(a + shift, b + shift, inclusive=inclusive), found)


@given(box)
def test_iou_of_a_box_with_itself_is_one(b):
    assert iou([b], [b], inclusive=True) == 1
    assume(b[0] < b[2] and b[1] < b[3])
    assert iou([b], [b]) == 1
    assert iou(np.array([b]) + 0.25, np.array([b]) + 0.25) == 1


def test_iou_of_small_unsigned_boxes_does_not_wrap():
    a, b = np.array([[200, 200, 250, 250]], np.uint8), np.array([[0, 0, 10, 10]], np.uint8)
    assert iou(a, b) == 0
    whole = np.array([[0, 0, 255, 255]], np.uint8)
    assert iou(whole, whole, inclusive=True) == 1


def test_no_box_overlaps_nothing():
    assert iou([], [[0, 0, 1, 1]]).shape == (0, 1)
    assert iou(np.zeros((0, 4)), []).shape == (0, 0)
    assert clip_boxes([], 3, 3).shape == (0, 4)


@given(box_lists, st.integers(1, 9), st.integers(1, 9))
def test_clipping_keeps_the_pixels_inside_the_picture(boxes, width, height):
    clipped = clip_boxes(boxes, width, height)
    assert (clipped.dtype, clipped.shape) == (boxes.dtype, boxes.shape)
    picture = pixels((0, 0, width, height), False)
    for old, new in zip(boxes, clipped, strict=True):
        assert pixels(new, False) == pixels(old, False) & picture
        assert 0 <= new[0] <= new[2] <= width
        assert 0 <= new[1] <= new[3] <= height


def test_clipping_keeps_the_type_and_its_argument():
    boxes = np.array([[-1.5, 0.5, 2.5, 9.0]], dtype=np.float32)
    clipped = clip_boxes(boxes, 2, 3)
    assert clipped.dtype == np.float32
    assert clipped.tolist() == [[0.0, 0.5, 2.0, 3.0]]
    assert boxes[0, 0] == -1.5
    assert clip_boxes(np.array([[1, 2, 250, 255]], np.uint8), 300, 100).dtype == np.uint8


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: threshold_mask(np.ones(3), 0.2), ArrayError, r"\(h, w\)"),
        (lambda: threshold_mask(np.ones((3, 0)), 0.2), ArrayError, "without a single value"),
        (lambda: threshold_mask(np.ones((3, 3)), 1.2), ParameterError, "threshold=1.2"),
        (lambda: threshold_mask(np.ones((3, 3)), -0.1), ParameterError, "threshold=-0.1"),
        (lambda: threshold_mask(np.ones((3, 3)), math.nan), ParameterError, "threshold=nan"),
        (lambda: components(np.ones((2, 3, 3), bool)), ArrayError, r"\(2, 3, 3\)"),
        (lambda: components(np.ones((3, 3))), ArrayError, "float64"),
        (lambda: components(np.ones((3, 3), bool), 8), ParameterError, "connectivity=8"),
        (lambda: boxes_of(np.ones((2, 3, 3))), ArrayError, r"\(h, w\)"),
        (lambda: boxes_of_each(np.ones((3, 3))), ArrayError, r"\(N, h, w\)"),
        (lambda: boxes_of_each(np.ones((0, 3, 3)), connectivity=8), ParameterError, "=8"),
        (lambda: boxes_of(np.ones((3, 3)), connectivity=8), ParameterError, "connectivity=8"),
        (lambda: iou([0, 0, 1, 1], [[0, 0, 1, 1]]), ArrayError, "a has the shape"),
        (lambda: iou([[0, 0, 1, 1]], [[3, 0, 1, 1]]), ArrayError, "b holds"),
        (lambda: iou([[0, 0, 1, np.nan]], []), ArrayError, "not finite"),
        (lambda: iou([[0, 0, 1, np.inf]], []), ArrayError, "not finite"),
        (lambda: clip_boxes([["a", "b", "c", "d"]], 3, 3), ArrayError, "type"),
        (lambda: clip_boxes([[0, 0, 1, 1]], 0, 3), ParameterError, "width=0"),
    ],
)
def test_bad_arguments_are_refused(call, error, says):
    with pytest.raises(error, match=says):
        call()
