"""Annotations with errors are listed and counted; the rest stays usable."""

from __future__ import annotations

import math
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cnnviz.datasets import dataset_of, open_dataset
from cnnviz.datasets.boxes import checked_box
from cnnviz.datasets.items import Kind
from cnnviz_core.errors import ImageError

WIDTH, HEIGHT = 12, 10
PICTURE = np.zeros((HEIGHT, WIDTH), np.uint8)
GOOD = [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("box", "kind", "left"),
    [
        ([12, 0, 20, 5], "box outside", None),
        ([0, -5, 4, 0], "box outside", None),
        ([-3, 2, 5, 99], "box partly outside", [0, 2, 5, 10]),
        ([0, 0, 12.05, 10], "box partly outside", [0, 0, 12, 10]),
        ([0, 0, 12.01, 10.02], None, [0, 0, 12, 10]),
        ([5, 2, 5, 4], "box without area", None),
        ([5, 4, 3, 6], "box wrong way round", None),
        ([5, 6, 7, 4], "box wrong way round", None),
        ([math.nan, 0, 1, 1], "box not finite", None),
        ([0, 0, math.inf, 1], "box not finite", None),
        (GOOD, "duplicate", None),
    ],
)
def test_boxes_with_errors(box, kind, left):
    dataset = dataset_of([PICTURE], labels=["cat"], boxes=[[GOOD, box]])
    (item,) = dataset
    assert item.boxes.tolist() == [GOOD, *([left] if left else [])]
    assert dataset.counts == ({kind: 1} if kind else {})
    for problem in dataset.problems:
        assert problem.where == "picture-1, box 2"
        assert problem.remedy
        assert str(problem) == f"{problem.where}: {problem.what} ({problem.remedy})"


def test_a_label_outlives_its_box():
    """The picture still counts for metrics that need no box; without a label nothing is known."""
    wrong = [[[50, 50, 60, 60]]]
    (item,) = dataset_of([PICTURE], labels=["cat"], boxes=wrong)
    assert (item.label, len(item.boxes)) == ("cat", 0)
    dataset = dataset_of([PICTURE, PICTURE], boxes=[*wrong, [GOOD]])
    assert [item.id for item in dataset] == ["picture-2"]
    assert dataset.counts == {"box outside": 1, "no annotation": 1}


coordinates = st.floats(allow_nan=True, allow_infinity=True, width=32) | st.integers(-20, 20)


@given(st.tuples(*[coordinates] * 4))
def test_a_box_is_used_as_it_is_or_named(box):
    """Whatever it is, what stays lies in the picture and has an area, and a change is named."""
    left, fault = checked_box(tuple(map(float, box)), (HEIGHT, WIDTH))
    if left is None:
        assert fault is not None
        assert fault[0] in get_args(Kind)
        return
    x0, y0, x1, y1 = left
    assert 0 <= x0 < x1 <= WIDTH
    assert 0 <= y0 < y1 <= HEIGHT
    if fault is None:
        assert np.abs(np.subtract(left, box)).max() <= 0.02
    else:
        assert fault[0] == "box partly outside"


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["cat", "dog", 7, None]), st.lists(st.tuples(*[coordinates] * 4))
        ),
        min_size=1,
        max_size=6,
    )
)
def test_every_box_is_an_item_s_or_a_problem_s(annotated):
    """No annotation vanishes: boxes kept and boxes left out add up."""
    labels, boxes = zip(*annotated, strict=True)
    everything = [PICTURE, *[PICTURE] * len(annotated)]
    dataset = dataset_of(everything, labels=["cat", *labels], boxes=[[], *boxes])
    kept = sum(len(item.boxes) for item in dataset)
    lost = sum(n for kind, n in dataset.counts.items() if kind.startswith(("box", "dup")))
    lost -= dataset.counts.get("box partly outside", 0)
    assert kept + lost == sum(map(len, boxes))
    assert len(dataset) + dataset.counts.get("no annotation", 0) == len(everything)
    assert len({item.id for item in dataset}) == len(dataset)


def test_pictures_with_errors(tmp_path):
    for name in ("a.png", "b.png", "alone.png"):
        Image.fromarray(PICTURE).save(tmp_path / name)
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "folder.png").mkdir()
    names = ["a", "text", "empty", "missing", "folder", "b"]
    (tmp_path / "d.csv").write_text("image,label\n" + "".join(f"{n}.png,cat\n" for n in names))
    dataset = open_dataset(tmp_path / "d.csv")
    assert [item.name for item in dataset] == ["a.png", "b.png"]
    assert dataset.counts == {"unreadable file": 3, "missing file": 1, "no annotation": 1}
    assert [p.where for p in dataset.problems[:4]] == [f"d.csv, line {n}" for n in (3, 4, 5, 6)]
    assert "alone.png" in dataset.problems[4].what


def test_masks_with_errors(tmp_path):
    for name in ("a.png", "b.png", "c.png", "d.png"):
        Image.fromarray(PICTURE).save(tmp_path / name)
    Image.fromarray(np.ones((5, 6), np.uint8)).save(tmp_path / "small.png")
    (tmp_path / "text.png").write_text("no picture")
    lines = ["a.png,cat,small.png", "b.png,cat,text.png", "c.png,cat,none.png", "d.png,,none.png"]
    (tmp_path / "d.csv").write_text("\n".join(["image,label,mask", *lines]))
    dataset = open_dataset(tmp_path / "d.csv")
    assert [item.mask is not None for item in dataset] == [True, False, False]
    assert dataset.counts == {"mask": 3, "no annotation": 1}
    assert dataset[0].read_mask().shape == (HEIGHT, WIDTH)
    assert "scaled" in dataset.problems[0].what


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGB", "RGBA", "I;16"])
def test_masks_of_every_kind_of_file(tmp_path, mode):
    """Of colours the largest channel counts, of transparency nothing."""
    inside = np.zeros((HEIGHT, WIDTH), np.uint8)
    inside[2:5, 3:9] = 255
    values = (
        Image.fromarray(inside.astype(np.uint16)) if mode == "I;16" else Image.fromarray(inside)
    )
    (values if mode == "I;16" else values.convert(mode)).save(tmp_path / "mask.png")
    Image.fromarray(PICTURE).save(tmp_path / "a.png")
    (tmp_path / "d.csv").write_text("image,mask\na.png,mask.png\n")
    dataset = open_dataset(tmp_path / "d.csv")
    assert np.array_equal(dataset[0].read_mask(), inside > 0)
    assert dataset.problems == ()


def test_a_mask_whose_pixels_are_damaged_shows_when_it_is_read(tmp_path):
    noise = np.random.default_rng(0).integers(0, 2, (60, 80), np.uint8)
    for name in ("a.png", "mask.png"):
        Image.fromarray(noise).save(tmp_path / name)
    (tmp_path / "mask.png").write_bytes((tmp_path / "mask.png").read_bytes()[:200])
    (tmp_path / "d.csv").write_text("image,mask\na.png,mask.png\n")
    (item,) = open_dataset(tmp_path / "d.csv")
    with pytest.raises(ImageError, match=r"mask\.png cannot be read"):
        item.read_mask()
