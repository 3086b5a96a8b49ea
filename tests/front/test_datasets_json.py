"""Data sets in JSON: COCO's form, and a record for each picture."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cnnviz.datasets import DatasetError, open_dataset
from cnnviz.datasets.masks import Polygons, Runs, decode_runs
from cnnviz_core.errors import ArrayError

WIDTH, HEIGHT = 12, 10
TRIANGLE = [2, 1, 10, 1, 2, 9]


def save(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), np.uint8)).save(path)


def image(id, name, **more):
    return {"id": id, "file_name": name, "width": WIDTH, "height": HEIGHT, **more}


def annotation(id, image, category, box, **more):
    return {"id": id, "image_id": image, "category_id": category, "bbox": box, **more}


def opened(folder, data, name="instances_val.json", **options):
    (folder / name).write_text(json.dumps(data), encoding="utf-8")
    return open_dataset(folder / name, **options)


def coco(annotations, images=None):
    return {
        "images": [image(1, "a.png"), image(2, "b.png")] if images is None else images,
        "annotations": annotations,
        "categories": [{"id": 17, "name": "cat"}, {"id": 18, "name": "dog"}],
    }


def encoded(counts):
    """Write run lengths as COCO's tools do: groups of five bits, the lowest first."""
    text = ""
    for i, count in enumerate(counts):
        value = count - counts[i - 2] if i > 2 else count
        while True:
            low, value = value & 31, value >> 5
            done = value == (-1 if low & 16 else 0)
            text += chr(48 + low + (0 if done else 32))
            if done:
                break
    return text


def test_an_item_is_a_category_of_a_picture(tmp_path):
    save(tmp_path, "a.png", "b.png")
    dataset = opened(
        tmp_path,
        coco(
            [
                annotation(1, 1, 17, [1, 2, 3, 4]),
                annotation(2, 2, 17, [0, 0, 12, 10]),
                annotation(3, 1, 18, [0.5, 0.25, 1, 1]),
                annotation(4, 1, 17, [5, 5, 2, 2]),
            ]
        ),
    )
    assert {item.id: item.boxes.tolist() for item in dataset} == {
        "a.png#cat": [[1, 2, 4, 6], [5, 5, 7, 7]],
        "a.png#dog": [[0.5, 0.25, 1.5, 1.25]],
        "b.png#cat": [[0, 0, 12, 10]],
    }
    assert dataset.problems == ()
    assert dataset.format == "coco"


def test_polygons_cover_the_pixels_whose_centres_they_hold(tmp_path):
    save(tmp_path, "a.png", "b.png")
    more = [[8, 6, 11, 6, 11, 9, 8, 9]]
    dataset = opened(
        tmp_path,
        coco(
            [
                annotation(1, 1, 17, [2, 1, 8, 8], segmentation=[TRIANGLE]),
                annotation(2, 1, 17, [8, 6, 3, 3], segmentation=more),
            ],
            [image(1, "a.png")],
        ),
    )
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    triangle = (x > 2) & (y > 1) & ((x - 2) + (y - 1) < 8)
    square = (x > 8) & (x < 11) & (y > 6) & (y < 9)
    on_the_edge = (x - 2) + (y - 1) == 8
    mask = dataset[0].read_mask()
    assert np.array_equal(mask[~on_the_edge] == 1, (triangle | square)[~on_the_edge])
    assert set(np.unique(mask)) == {0, 1}


def test_run_lengths_as_lists_and_as_text(tmp_path):
    save(tmp_path, "a.png", "b.png")
    inside = np.zeros((HEIGHT, WIDTH), bool)
    inside[3:7, 2:9] = True
    flat = np.concatenate([[False], inside.ravel(order="F"), [False]])
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    counts = np.diff([0, *edges, inside.size]).tolist()
    boxes = [2, 3, 7, 4]
    dataset = opened(
        tmp_path,
        coco(
            [
                annotation(1, 1, 17, boxes, segmentation={"counts": c, "size": [HEIGHT, WIDTH]})
                for c in [counts]
            ]
            + [
                annotation(
                    2,
                    2,
                    17,
                    boxes,
                    segmentation={"counts": encoded(counts), "size": [HEIGHT, WIDTH]},
                )
            ]
        ),
    )
    for item in dataset:
        assert np.array_equal(item.read_mask(), inside)


def test_the_example_of_coco_s_tools():
    """The text that their encoder gives for two blocks in a picture of 9 x 10."""
    mask = np.zeros((9, 10), np.uint8)
    mask[2:6, 5:8] = 1
    mask[6, 0] = 1
    assert np.array_equal(Runs(decode_runs("61X13mN000`0"), (9, 10)).pixels(), mask)


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=12))
def test_run_lengths_survive_their_text(counts):
    assert decode_runs(encoded(counts)) == tuple(counts)


@pytest.mark.parametrize("text", ["6\n", "X", "é"])
def test_a_text_of_no_run_lengths(text):
    with pytest.raises(ArrayError):
        decode_runs(text)


def test_a_crowd_is_ignored_and_no_box(tmp_path):
    save(tmp_path, "a.png", "b.png")
    crowd = {"counts": [0, HEIGHT * 6, HEIGHT * 6], "size": [HEIGHT, WIDTH]}
    dataset = opened(
        tmp_path,
        coco(
            [
                annotation(1, 1, 17, [4, 0, 4, 4], segmentation=[[4, 0, 8, 0, 8, 4, 4, 4]]),
                annotation(2, 1, 17, [0, 0, 6, 10], iscrowd=1, segmentation=crowd),
                annotation(3, 2, 18, [0, 0, 6, 10], iscrowd=1, segmentation=crowd),
            ]
        ),
    )
    some, alone = dataset
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[:, :6] = 255
    expected[:4, 4:8] = 1
    assert np.array_equal(some.read_mask(), expected)
    assert some.boxes.tolist() == [[4, 0, 8, 4]]
    assert not some.difficult
    assert alone.boxes.shape == (0, 4)
    assert alone.difficult


def test_pictures_are_found_beside_the_file(tmp_path):
    save(tmp_path, "val/a.png", "val/b.png")
    data = coco([annotation(1, 1, 17, [1, 2, 3, 4]), annotation(2, 2, 17, [1, 2, 3, 4])])
    (tmp_path / "annotations").mkdir()
    for folder in (tmp_path, tmp_path / "annotations"):
        assert opened(folder, data)[0].picture == tmp_path / "val" / "a.png"
    data["images"] = [image(1, "val/a.png"), image(2, "val/b.png")]
    assert len(opened(tmp_path, data)) == 2
    assert len(opened(tmp_path, data, images=tmp_path / "val")) == 2
    apart = tmp_path / "annotations" / "instances_val.json"
    assert len(open_dataset(tmp_path / "val", annotations=apart)) == 2


def test_a_picture_that_was_resized_since(tmp_path):
    save(tmp_path, "a.png")
    twice = image(1, "a.png", width=2 * WIDTH, height=2 * HEIGHT)
    polygon = [[4, 4, 12, 4, 12, 8, 4, 8]]
    dataset = opened(
        tmp_path, coco([annotation(1, 1, 17, [4, 4, 8, 4], segmentation=polygon)], [twice])
    )
    assert dataset.counts == {"another size": 1}
    assert dataset[0].boxes.tolist() == [[2, 2, 6, 4]]
    expected = np.zeros((HEIGHT, WIDTH))
    expected[2:4, 2:6] = 1
    assert np.array_equal(dataset[0].read_mask(), expected)


def test_everything_that_can_be_wrong_with_coco_s_lists(tmp_path):
    save(tmp_path, "a.png", "b.png", "c.png")
    data = {
        "images": [
            image(1, "a.png"),
            image(2, "b.png"),
            image(1, "c.png"),
            {"id": 4},
            "c.png",
            image(5, "missing.png"),
            image(6, "a.png"),
        ],
        "annotations": [
            annotation(1, 1, 17, [1, 2, 3, 4]),
            annotation(1, 1, 17, [2, 2, 3, 4]),
            annotation(2, 99, 17, [1, 2, 3, 4]),
            annotation(3, 1, 99, [1, 2, 3, 4]),
            annotation(4, 1, 17, [1, 2, 3]),
            annotation(5, 1, 17, [1, 2, "three", 4]),
            annotation(6, 1, 17, [6, 2, 3, 4], segmentation=[[1, 2, 3]]),
            annotation(7, 1, 17, [7, 2, 3, 4], segmentation={"counts": [3], "size": [9, 9]}),
            annotation(8, 1, 17, [8, 2, 3, 4], segmentation={"size": [9, 9]}),
            "no mapping",
        ],
        "categories": [
            {"id": 17, "name": "cat"},
            {"id": 17, "name": "dog"},
            {"id": 18},
        ],
    }
    dataset = opened(tmp_path, data)
    assert dataset.counts == {
        "malformed": 6,
        "duplicate": 4,
        "mask": 3,
        "no picture": 1,
        "unknown class": 1,
        "missing file": 1,
        "no annotation": 2,
    }
    (item,) = dataset
    assert item.id == "a.png#cat"
    assert item.boxes[:, 0].tolist() == [1, 6, 7, 8]
    assert item.mask is None
    assert {p.where for p in dataset.problems if p.kind == "mask"} == {
        f"instances_val.json, annotation {n}" for n in (6, 7, 8)
    }


@pytest.mark.parametrize("text", ["", "{", "[1, 2", '"text"', '{"images": 3}', "[" * 5000])
def test_no_data_set_at_all(tmp_path, text):
    (tmp_path / "data.json").write_text(text)
    with pytest.raises(DatasetError, match=r"data\.json"):
        open_dataset(tmp_path / "data.json")


def test_polygons_reach_over_the_edge():
    ring = (-3.0, -3.0, 4.0, -3.0, 4.0, 50.0, -3.0, 50.0)
    mask = Polygons((ring,), (5, 6)).pixels()
    assert np.array_equal(mask, np.repeat([[1, 1, 1, 1, 0, 0]], 5, axis=0))


def test_a_record_for_each_picture(tmp_path):
    save(tmp_path, "a.png", "b.png", "c.png", "d.png")
    dataset = opened(
        tmp_path,
        [
            {"image": "a.png", "label": "cat", "boxes": [[1, 2, 3, 4], [5, 6, 7, 8]]},
            {"file": "b.png", "label": 7, "box": [1, 2, 3, 4], "difficult": True},
            {
                "file_name": "c.png",
                "size": [24, 20],
                "boxes": [
                    {"category": "dog", "box": [2, 4, 6, 8]},
                    {"category": "cat", "box": [2, 2, 4, 4], "difficult": True},
                ],
            },
            {"path": "d.png", "label": "cat"},
        ],
    )
    assert {i.id: (i.boxes.tolist(), i.difficult) for i in dataset} == {
        "a.png#cat": ([[1, 2, 3, 4], [5, 6, 7, 8]], False),
        "b.png#7": ([[1, 2, 3, 4]], True),
        "c.png#dog": ([[1, 2, 3, 4]], False),
        "c.png#cat": ([[1, 1, 2, 2]], True),
        "d.png#cat": ([], False),
    }
    assert dataset.classes == (7, "cat", "dog")
    assert dataset.counts == {"another size": 1}


def test_records_with_masks_of_categories(tmp_path):
    save(tmp_path, "a.png", "b.png")
    ids = np.zeros((HEIGHT, WIDTH), np.uint8)
    ids[:3], ids[5:] = 17, 18
    Image.fromarray(ids).save(tmp_path / "ids.png")
    boxes = [{"category": c, "box": [0, 0, k, 5]} for c, k in zip("cdde", range(2, 6), strict=True)]
    boxes += [{"category": "cat", "box": [0, 0, 12, 3]}, {"category": "dog", "box": [0, 5, 1, 6]}]
    record = {"image": "a.png", "boxes": boxes[4:], "mask": "ids.png"}
    data = {"images": [record], "mask_categories": {"0": "nothing", "17": "cat", "18": "dog"}}
    cat, dog = opened(tmp_path, data)
    assert np.array_equal(cat.read_mask(), ids == 17)
    assert np.array_equal(dog.read_mask(), ids == 18)
    record["boxes"] = boxes
    lacking = opened(tmp_path, data)
    assert lacking.counts == {"mask": 3, "no annotation": 1}
    assert [i.mask is None for i in lacking] == [True, True, True, False, False]
    del data["mask_categories"]
    assert opened(tmp_path, data).counts == {"mask": 1, "no annotation": 1}
    single = opened(tmp_path, [{"image": "a.png", "label": "cat", "mask": "ids.png"}])
    assert np.array_equal(single[0].read_mask(), ids > 0)


def test_records_that_cannot_be_read(tmp_path):
    save(tmp_path, "a.png", "b.png")
    dataset = opened(
        tmp_path,
        [
            {"image": "a.png", "label": "cat", "boxes": [[1, 2, 3], {"category": "dog"}]},
            {"label": "cat"},
            7,
            {"image": "b.png", "label": "", "size": "large"},
        ],
    )
    assert [item.id for item in dataset] == ["a.png#cat", "a.png#dog"]
    assert dataset.counts == {"malformed": 5, "no annotation": 1}


def test_records_without_annotations(tmp_path):
    save(tmp_path, "a.png")
    (item,) = opened(tmp_path, [{"image": "a.png"}])
    assert item.id == "a.png"
    assert item.label is None
