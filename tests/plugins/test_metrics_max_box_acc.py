"""MaxBoxAcc and MaxBoxAccV2: golden vectors, a plain loop over OpenCV's contours, theorems."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cnnviz_core.errors import ArrayError, ParameterError
from cnnviz_core.explainer import Presentation
from cnnviz_core.maps import iou, min_max
from cnnviz_core.testing.metrics import parametrize_with_checks
from cnnviz_metrics.max_box_acc import (
    MaxBoxAcc,
    MaxBoxAccV2,
    accuracies,
    best_overlaps,
    boxes_at_thresholds,
)
from support.annotated import boxed, explained, rows

FIVE = np.arange(0, 1, 0.2)
ALONG = np.exp(-(((np.arange(224) - 111.5) / 40) ** 2) / 2)
GAUSSIAN = np.outer(ALONG, ALONG)


@parametrize_with_checks([MaxBoxAcc(), MaxBoxAcc(0.3, 0.1, False), MaxBoxAccV2(step=0.05)])
def test_they_are_metrics(metric, check):
    check(metric)


# ---------------------------------------------------------------------------- golden vectors


def ends_within(boxes, shape):
    """Let boxes end at the last column and row, as the published boxes do."""
    return np.minimum(boxes, np.array(shape)[[1, 0, 1, 0]] - 1).tolist()


@pytest.mark.parametrize(
    ("map", "expected"),
    [
        (
            [
                [0.0, 0.0, 0.0, 0.0, 0.0],
                [0.0, 0.4, 0.4, 0.4, 0.6],
                [0.0, 0.4, 1.0, 0.8, 0.6],
                [0.0, 0.4, 0.4, 0.4, 0.6],
            ],
            [[1, 1, 4, 3], [1, 1, 4, 3], [2, 1, 4, 3], [2, 2, 4, 3], [2, 2, 3, 3]],
        ),
        (
            [
                [0.4, 0.0, 0.2, 0.2, 0.2],
                [0.4, 0.4, 0.0, 0.4, 0.0],
                [0.0, 0.0, 0.0, 0.4, 0.0],
                [1.0, 0.6, 0.8, 0.2, 0.2],
            ],
            [[0, 0, 4, 3], [0, 0, 2, 2], [0, 3, 3, 3], [2, 3, 3, 3], [0, 3, 1, 3]],
        ),
    ],
    ids=["one peak", "several"],
)
def test_the_boxes_are_those_that_the_reference_expects(map, expected):
    map = np.array(map)
    found = boxes_at_thresholds(map, FIVE)
    assert [ends_within(boxes, map.shape) for boxes in found] == [[box] for box in expected]


def overlaps_at_best(boxes, picture):
    """Give what a centred Gaussian gets on true boxes in an input of 224 pixels, for each delta."""
    (map,) = min_max(GAUSSIAN[None])
    found = np.minimum(np.concatenate(boxes_at_thresholds(map, np.arange(255) / 254.5)), 223)
    overlaps = iou(found, np.trunc(boxes + 1e-6), inclusive=True)
    starts = np.flatnonzero(np.diff(picture, prepend=-1))
    return accuracies(np.maximum.reduceat(overlaps, starts, axis=1).T, [0.3, 0.5, 0.7]).max(axis=1)


@pytest.mark.parametrize(
    ("name", "pictures", "expected"),
    [
        ("CUB", 5794, (0.9391, 0.5960, 0.1700)),
        pytest.param("ILSVRC", 50000, (0.7681, 0.5406, 0.2928), marks=pytest.mark.slow),
    ],
)
def test_a_centred_gaussian_has_the_known_accuracy(test_data, name, pictures, expected):
    folder = test_data / "boxes" / "wsolevaluation" / name / "test"
    if not (folder / "localization.txt").is_file():
        pytest.skip(f"the boxes bundled with wsolevaluation are not in {folder}")
    read = lambda file: [line.split(",") for line in (folder / file).read_text().split()]  # noqa: E731
    sizes = {name: (int(width), int(height)) for name, width, height in read("image_sizes.txt")}
    lines = read("localization.txt")
    order = {name: i for i, name in enumerate(sizes)}
    lines.sort(key=lambda line: order[line[0]])
    scale = np.array([sizes[name] * 2 for name, *_ in lines])
    boxes = np.array([list(map(int, box)) for _, *box in lines]) * 224 / scale
    picture = np.array([order[name] for name, *_ in lines])
    assert picture[-1] + 1 == pictures
    np.testing.assert_allclose(overlaps_at_best(boxes, picture), expected, atol=5.1e-5)


def test_a_centred_gaussian_on_a_thousand_real_pictures(test_data):
    cv2 = pytest.importorskip("cv2")
    records = json.loads((test_data / "boxes" / "ilsvrc_val1000_227.json").read_text())
    boxes = [np.array(r["boxes_orig"]) * 224 / np.array(r["orig_size"] * 2) for r in records]
    picture = np.repeat(np.arange(1000), [len(b) for b in boxes])
    found = overlaps_at_best(np.concatenate(boxes), picture)
    assert found.tolist() == [0.838, 0.62, 0.371]

    (map,) = min_max(GAUSSIAN[None])
    frames = set()
    for level in range(255):
        above = ((255 * map).astype(np.uint8) > level).astype(np.uint8)
        (contour,), _ = cv2.findContours(above, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
        x, y, width, height = cv2.boundingRect(contour)
        frames.add((x, y, min(x + width, 223), min(y + height, 223)))
    best = np.array(
        [[max(shared(f, [int(v) for v in true]) for true in b) for f in frames] for b in boxes]
    )
    assert [(best >= delta).mean(axis=0).max() for delta in (0.3, 0.5, 0.7)] == found.tolist()


# -------------------------------------------------------------------------------- plain loop


def by_the_definition(map, truth, thresholds, every):
    """Give the best overlap of a map's boxes at each threshold, with OpenCV's contours."""
    cv2 = pytest.importorskip("cv2")
    height, width = map.shape
    image = (map * 255).astype(np.uint8)
    best = []
    for threshold in thresholds:
        level = int(threshold * image.max())
        _, above = cv2.threshold(image, level, 255, cv2.THRESH_BINARY)
        contours, _ = cv2.findContours(above, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
        if contours and not every:
            contours = [max(contours, key=cv2.contourArea)]
        boxes = [(x, y, x + w, y + h) for x, y, w, h in map_to(cv2.boundingRect, contours)]
        boxes = [(x0, y0, min(x1, width - 1), min(y1, height - 1)) for x0, y0, x1, y1 in boxes]
        best.append(
            max(
                shared(box, [int(v) for v in true]) for box in boxes or [(0,) * 4] for true in truth
            )
        )
    return best


def map_to(function, values):
    """Give a function of each value."""
    return [function(value) for value in values]


def shared(a, b):
    """Give the intersection over union of two boxes whose last column and row are theirs."""
    width = min(a[2], b[2]) - max(a[0], b[0]) + 1
    height = min(a[3], b[3]) - max(a[1], b[1]) + 1
    common = max(width, 0) * max(height, 0)
    areas = [(x1 - x0 + 1) * (y1 - y0 + 1) for x0, y0, x1, y1 in (a, b)]
    return common / (sum(areas) - common)


def some_boxes(rng, n, height, width):
    """Draw boxes in a picture."""
    x, y = np.sort(rng.uniform(0, width, (n, 2))), np.sort(rng.uniform(0, height, (n, 2)))
    return np.stack([x[:, 0], y[:, 0], x[:, 1] + 1e-3, y[:, 1] + 1e-3], axis=1)


@pytest.mark.parametrize("contours", ["largest", "every"])
@pytest.mark.parametrize("cells", [3, 8, 24])
def test_overlaps_are_those_of_a_plain_loop(cells, contours):
    rng = np.random.default_rng(cells)
    thresholds = np.arange(0, 1, 0.07)
    raw = rng.random((5, cells, cells))
    metric = MaxBoxAcc(step=0.07) if contours == "largest" else MaxBoxAccV2(step=0.07)
    known = [boxed(*some_boxes(rng, rng.integers(1, 4), 24, 31)) for _ in raw]
    batch = explained(raw, known, (24, 31), presentation=Presentation(upsample="bilinear"))
    found = metric.measure(batch)["overlap"]
    cv2 = pytest.importorskip("cv2")
    for map, annotation, overlaps in zip(raw, known, found, strict=True):
        large = cv2.resize(map, (31, 24), interpolation=cv2.INTER_CUBIC)
        large = (large - large.min()) / (np.ptp(large) or 1)
        truth = annotation.boxes
        expected = by_the_definition(large, truth, thresholds, contours == "every")
        np.testing.assert_allclose(overlaps, expected, atol=1e-12)


def test_thresholds_at_one_level_of_the_image_are_one():
    batch = explained(np.random.default_rng(0).random((2, 9, 9)), [boxed([1, 1, 5, 5])] * 2)
    fine = MaxBoxAccV2().measure(batch)["overlap"]
    assert fine.shape == (2, 255)
    (map,) = min_max(batch.maps.raw[:1])
    every = np.arange(0, 1, 0.001)
    best = by_the_definition(map, [[1, 1, 5, 5]], every, every=True)
    assert list(dict.fromkeys((every * 255).astype(int))) == list(range(255))
    np.testing.assert_allclose(fine[0][(every * 255).astype(int)], best, atol=1e-12)


# ---------------------------------------------------------------------------------- theorems


def filled(box, shape=(20, 24)):
    """Give a map that is its box."""
    x0, y0, x1, y1 = box
    map = np.zeros(shape)
    map[y0:y1, x0:x1] = 1
    return map


@pytest.mark.parametrize("contours", ["largest", "every"])
@given(st.data())
def test_a_map_that_is_its_box_overlaps_it_wholly(contours, data):
    x0, y0 = data.draw(st.integers(0, 21)), data.draw(st.integers(0, 17))
    box = [x0, y0, data.draw(st.integers(x0 + 1, 23)), data.draw(st.integers(y0 + 1, 19))]
    for inclusive in (False, True):
        found = best_overlaps(filled(box)[None], [[box]], FIVE, contours, inclusive=inclusive)
        np.testing.assert_array_equal(found, 1)


def test_perfect_maps_give_everything():
    boxes = [[1, 2, 9, 9], [4, 4, 20, 16]]
    batch = explained([filled(box) for box in boxes], [boxed(box) for box in boxes])
    for metric in (MaxBoxAcc(delta=1.0), MaxBoxAccV2(), MaxBoxAccV2(inclusive=False)):
        summary = metric.summarise(metric.measure(batch))
        assert summary["accuracy"] == 1


@given(arrays(np.float64, (3, 7, 8), elements=st.floats(0, 1, width=16)))
def test_every_contour_is_at_least_as_good_as_the_largest(maps):
    maps = min_max(maps)
    truth = [[[1, 1, 4, 5]], [[0, 2, 7, 6]], [[2, 3, 4, 4], [5, 0, 8, 3]]]
    for inclusive in (False, True):
        one, every = (
            best_overlaps(maps, truth, FIVE, contours, inclusive=inclusive)
            for contours in ("largest", "every")
        )
        assert (every >= one).all()


def test_maps_may_be_shifted_and_scaled():
    rng = np.random.default_rng(5)
    raw = rng.integers(0, 200, (4, 9, 9)) / 8  # exactly so that no value changes its level
    known = [boxed(*some_boxes(rng, 2, 9, 9)) for _ in raw]
    signed = Presentation(sign="signed")
    for metric in (MaxBoxAcc(), MaxBoxAccV2()):
        one, two = (
            metric.measure(explained(maps, known, presentation=signed))["overlap"]
            for maps in (raw, 4 * raw - 32)
        )
        np.testing.assert_array_equal(one, two)


def test_the_threshold_is_the_data_set_s_and_not_the_picture_s():
    overlaps = np.array([[0.9, 0.1, 0.6], [0.1, 0.9, 0.6], [0.9, 0.1, 0.1]])
    summary = MaxBoxAcc(step=1 / 3).summarise({"overlap": overlaps})
    assert summary == {"accuracy": 2 / 3, "threshold": 0.0}


def test_the_second_version_is_the_mean_over_three_overlaps():
    overlaps = np.array([[0.8, 0.3], [0.1, 0.5]])
    summary = MaxBoxAccV2(step=0.5).summarise({"overlap": overlaps})
    assert list(summary.items()) == [
        ("accuracy", pytest.approx((1 + 0.5 + 0.5) / 3)),
        ("accuracy_30", 1.0),
        ("accuracy_50", 0.5),
        ("accuracy_70", 0.5),
        ("threshold_30", 0.5),
        ("threshold_50", 0.0),
        ("threshold_70", 0.0),
    ]


def test_pictures_without_boxes_are_left_out():
    maps = np.random.default_rng(2).random((3, 9, 9))
    known = [boxed([1, 1, 6, 6]), boxed(), boxed([2, 3, 9, 9])]
    for metric in (MaxBoxAcc(), MaxBoxAccV2()):
        records = metric.measure(explained(maps, known))
        assert np.isnan(records["overlap"][1]).all()
        assert metric.summarise(records) == metric.summarise(rows(records, [2, 0]))
        assert np.isnan(list(metric.summarise(rows(records, [1])).values())).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0, 0.1])
@pytest.mark.parametrize("metric", [MaxBoxAcc, MaxBoxAccV2])
def test_a_map_that_says_nothing_has_the_box_of_the_first_pixel(metric, value):
    batch = explained(np.full((1, 2, 2), value), [boxed([0, 0, 1, 1])], (10, 10))
    # One pixel of what counts as two by two.
    np.testing.assert_array_equal(metric().measure(batch)["overlap"], 1 / 4)
    none = metric(inclusive=False).measure(batch)["overlap"]
    np.testing.assert_array_equal(none, 0)


def test_half_open_boxes_are_not_cut_to_whole_pixels():
    batch = explained([filled([2, 2, 6, 6])], [boxed([2, 2, 6.5, 6])])
    found = MaxBoxAcc(inclusive=False).measure(batch)["overlap"]
    np.testing.assert_allclose(found, 4 / 4.5)
    np.testing.assert_array_equal(MaxBoxAcc().measure(batch)["overlap"], 1)


def test_true_boxes_a_hair_below_a_whole_pixel_are_on_it():
    map, box = filled([2, 2, 6, 6])[None], [2 - 1e-9, 2, 6 - 1e-9, 6]
    np.testing.assert_array_equal(best_overlaps(map, [[box]], FIVE), 1)


def test_the_curves_end_in_what_is_summed_up():
    rng = np.random.default_rng(7)
    batch = explained(rng.random((6, 4, 4)), [boxed(*some_boxes(rng, 1, 20, 20))] * 6, (20, 20))
    metric = MaxBoxAccV2(step=0.02)
    records = metric.measure(batch)
    (curves,) = metric.curves(records)
    summary = metric.summarise(records)
    for line, name in zip(curves.lines, ("30", "50", "70"), strict=True):
        assert line.y.max() == summary[f"accuracy_{name}"]
        assert curves.x[line.y.argmax()] == summary[f"threshold_{name}"]
    (one,) = MaxBoxAcc(step=0.02).curves(MaxBoxAcc(step=0.02).measure(batch))
    assert len(one.lines) == 1
    assert metric.curves(rows(records, slice(0))) == ()


def test_what_does_not_fit_is_refused():
    for wrong in (np.zeros((1, 3, 3)), np.full((3, 3), 2.0), np.full((3, 3), np.nan)):
        with pytest.raises(ArrayError, match="map"):
            boxes_at_thresholds(wrong, FIVE)
    with pytest.raises(ParameterError, match="contours"):
        boxes_at_thresholds(np.zeros((3, 3)), FIVE, "all")
