"""Boxes around contours at all levels at once, against OpenCV's, level by level."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cnnviz_core.errors import ArrayError
from cnnviz_metrics.boxes_at_levels import contour_boxes, largest_contour_boxes

cv2 = pytest.importorskip("cv2")

NESTED = (
    "333333333..1.",
    "3.......3.1..",
    "3.22222.3....",
    "3.2...2.3.11.",
    "3.2.1.2.3.1.1",
    "3.2...2.3.11.",
    "3.22222.3....",
    "3.......3...3",
    "333333333..33",
)


def drawn(lines):
    """Make an image of digits; a dot is 0."""
    return np.array([[0 if c == "." else int(c) for c in line] for line in lines], np.uint8)


def by_opencv(image, level):
    """Give the boxes of all contours, and that of the largest."""
    above = np.where(image > level, 255, 0).astype(np.uint8)
    contours, _ = cv2.findContours(above, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)

    def box(contour):
        x, y, width, height = cv2.boundingRect(contour)
        return [x, y, x + width, y + height]

    every = sorted(map(box, contours))
    return every, box(max(contours, key=cv2.contourArea)) if contours else [0, 0, 0, 0]


def assert_as_opencv(image, levels):
    boxes, start, stop = contour_boxes(image, levels)
    largest = largest_contour_boxes(image, levels)
    for k, level in enumerate(levels):
        every, one = by_opencv(image, level)
        assert sorted(boxes[(start <= k) & (k < stop)].tolist()) == every
        assert largest[k].tolist() == one


@given(
    arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 4)),
    st.lists(st.integers(-1, 5), min_size=1, unique=True).map(sorted),
)
def test_any_image_has_the_boxes_of_opencv(image, levels):
    assert_as_opencv(image, np.array(levels))


@pytest.mark.parametrize("density", [0.3, 0.45, 0.6, 0.8])
def test_masks_with_holes_have_the_boxes_of_opencv(density):
    rng = np.random.default_rng(int(100 * density))
    for _ in range(150):
        mask = rng.random(rng.integers(3, 16, 2)) < density
        assert_as_opencv(mask, np.array([0]))


@pytest.mark.parametrize("image", [drawn(NESTED), 3 - drawn(NESTED), drawn(NESTED)[::-1, ::-1]])
def test_components_within_holes_within_components(image):
    assert_as_opencv(image, np.arange(-1, 4))


@pytest.mark.parametrize("cells", [3, 9, 60])
def test_maps_of_a_real_size_at_every_level(cells):
    rough = np.random.default_rng(cells).random((cells, cells)).astype(np.float32)
    map = np.clip(cv2.resize(rough, (60, 48), interpolation=cv2.INTER_CUBIC), 0, 1)
    assert_as_opencv((255 * map).astype(np.uint8), np.arange(255))


def test_of_equally_large_contours_the_one_that_begins_last_is_taken():
    image = drawn(["11...", ".....", "1.1.1"])
    assert largest_contour_boxes(image, np.array([0])).tolist() == [[4, 2, 5, 3]]


def test_the_largest_is_that_of_the_polygon_and_not_of_the_pixels():
    image = drawn(["111111", "......", "11....", "11...."])  # six pixels of no area, four of one
    assert largest_contour_boxes(image, np.array([0])).tolist() == [[0, 2, 2, 4]]


def test_boxes_shrink_as_the_level_rises():
    rng = np.random.default_rng(3)
    map = rng.random((12, 12)).cumsum(0).cumsum(1)  # one peak, and so one component
    boxes = largest_contour_boxes((255 * map / map.max()).astype(np.uint8), np.arange(255))
    assert (np.diff(boxes[:, :2], axis=0) >= 0).all()
    assert (np.diff(boxes[:, 2:], axis=0) <= 0).all()


def test_levels_may_be_the_same():
    image = drawn(NESTED)
    twice = largest_contour_boxes(image, np.array([0, 0, 2, 2]))
    np.testing.assert_array_equal(
        twice, largest_contour_boxes(image, np.array([0, 2]))[[0, 0, 1, 1]]
    )


@pytest.mark.parametrize("find", [contour_boxes, largest_contour_boxes])
def test_what_cannot_be_used_is_refused(find):
    image = np.zeros((3, 3), np.uint8)
    for wrong in (image[None], image.astype(np.float32), image[:0]):
        with pytest.raises(ArrayError, match="image"):
            find(wrong, np.array([0]))
    for levels in ([3, 1], [], [[1]]):
        with pytest.raises(ArrayError, match="levels"):
            find(image, np.array(levels))
