"""Data sets in Pascal VOC's XML."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from cnnviz.datasets import DatasetError, open_dataset

WIDTH, HEIGHT = 12, 10


def save(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((HEIGHT, WIDTH), np.uint8)).save(path)


def written(path, *objects, filename=None, size=(WIDTH, HEIGHT)):
    """Write objects (name, (xmin, ymin, xmax, ymax), difficult), as VOC does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "<annotation>"
    text += f"<filename>{filename}</filename>" if filename else ""
    text += "<size><width>{}</width><height>{}</height><depth>3</depth></size>".format(*size)
    for name, box, *difficult in objects:
        corners = zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
        inside = "".join(f"<{tag}>{value}</{tag}>" for tag, value in corners)
        text += f"<object><name>{name}</name><bndbox>{inside}</bndbox>"
        text += f"<difficult>{difficult[0]}</difficult>" if difficult else ""
        text += "<part><name>head</name><bndbox><xmin>1</xmin></bndbox></part></object>"
    path.write_text(text + "</annotation>", encoding="utf-8")


@pytest.fixture
def voc(tmp_path):
    """VOC's own folders, with two pictures."""
    save(tmp_path / "JPEGImages", "a.jpg", "b.jpg")
    written(
        tmp_path / "Annotations" / "a.xml",
        ("cat", (1, 1, 12, 10)),
        ("dog", (3, 4, 3, 4), 1),
        ("cat", (2, 3, 4, 5), 1),
    )
    written(tmp_path / "Annotations" / "b.xml", ("dog", (5, 5, 6, 6), 0))
    return tmp_path


def test_boxes_count_from_one_with_the_last_pixel_inside(voc):
    dataset = open_dataset(voc)
    assert {item.id: item.boxes.tolist() for item in dataset} == {
        "a.jpg#cat": [[0, 0, 12, 10], [1, 2, 4, 5]],
        "a.jpg#dog": [[2, 3, 3, 4]],
        "b.jpg#dog": [[4, 4, 6, 6]],
    }
    assert dataset.problems == ()
    assert dataset.format == "voc"


def test_a_class_is_difficult_where_all_its_objects_are(voc):
    assert [item.difficult for item in open_dataset(voc)] == [False, True, False]


def test_a_data_set_with_a_box_at_0_counts_from_0(voc):
    """As ILSVRC's files do."""
    written(voc / "Annotations" / "b.xml", ("dog", (0, 5, 11, 9)))
    dataset = open_dataset(voc)
    assert dataset[2].boxes.tolist() == [[0, 5, 12, 10]]
    assert dataset[1].boxes.tolist() == [[3, 4, 4, 5]]
    assert dataset.counts == {"box partly outside": 1}
    (note,) = dataset.notes
    assert "count pixels from 0" in note


def test_what_is_as_voc_has_it_needs_no_note(voc):
    assert open_dataset(voc).notes == ()


def test_a_split(voc):
    lists = voc / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "val.txt").write_text("b\n")
    (lists / "cat_val.txt").write_text("a  1\nb -1\nmissing -1\n")
    assert [item.id for item in open_dataset(voc, split="val")] == ["b.jpg#dog"]
    dataset = open_dataset(voc, split="cat_val")
    assert len(dataset) == 3
    assert dataset.counts == {"no annotation": 1}
    with pytest.raises(DatasetError, match=r"there is no list .*test\.txt"):
        open_dataset(voc, split="test")


@pytest.mark.parametrize("layout", ["beside", "images", "elsewhere", "deep", "other suffix"])
def test_where_the_pictures_lie(tmp_path, layout):
    box = ("cat", (1, 1, 2, 2))
    options = {}
    if layout == "beside":
        save(tmp_path, "a.png")
        written(tmp_path / "a.xml", box)
    elif layout == "images":
        save(tmp_path, "images/a.jpeg")
        written(tmp_path / "annotations" / "a.xml", box)
    elif layout == "elsewhere":
        save(tmp_path, "pictures/a.png")
        written(tmp_path / "xml" / "0001.xml", box, filename="a.png")
        options = {"images": tmp_path / "pictures"}
    elif layout == "deep":
        save(tmp_path, "JPEGImages/n01/a.png", "JPEGImages/n02/a.png")
        written(tmp_path / "Annotations" / "n01" / "a.xml", box)
        written(tmp_path / "Annotations" / "n02" / "a.xml", box)
    else:
        save(tmp_path, "JPEGImages/a.JPEG")
        written(tmp_path / "Annotations" / "a.xml", box, filename="a")
    source = {"images": "annotations", "elsewhere": "xml"}.get(layout, ".")
    dataset = open_dataset(tmp_path / source, **options)
    assert dataset.problems == ()
    assert len(dataset) == (2 if layout == "deep" else 1)
    if layout == "elsewhere":
        same = open_dataset(tmp_path / "pictures", annotations=tmp_path / "xml")
        assert same.fingerprint == dataset.fingerprint


def test_a_single_file(voc):
    dataset = open_dataset(voc / "Annotations" / "b.xml")
    assert [item.id for item in dataset] == ["b.jpg#dog"]


def test_everything_that_can_be_wrong_with_the_files(voc):
    folder = voc / "Annotations"
    save(voc / "JPEGImages", "alone.jpg", "empty.jpg", "wrong.jpg")
    (folder / "b.xml").write_text("<annotation><object>")
    written(folder / "gone.xml", ("cat", (1, 1, 2, 2)))
    written(folder / "empty.xml")
    written(
        folder / "wrong.xml",
        ("", (1, 1, 2, 2)),
        ("dog", (1, "one", 2, 2)),
        ("cat", (6, 1, 5, 2)),
        ("cat", (1, 1, 13, 2)),
        size=(0, 0),
    )
    dataset = open_dataset(voc)
    assert dataset.counts == {
        "malformed": 3,
        "no annotation": 2,
        "missing file": 1,
        "box partly outside": 1,
        "box without area": 1,
    }
    assert {item.id: item.boxes.tolist() for item in dataset if item.name == "wrong.jpg"} == {
        "wrong.jpg#dog": [],
        "wrong.jpg#cat": [[0, 0, 12, 2]],
    }
    said = " ".join(problem.what for problem in dataset.problems)
    assert "alone.jpg" in said
    assert "gone.jpg" in said


def test_a_folder_of_files_that_are_no_xml(tmp_path):
    for name in ("a.xml", "b.xml"):
        (tmp_path / name).write_text("no xml")
    with pytest.raises(DatasetError, match=r"2 problems: a\.xml: it is no XML"):
        open_dataset(tmp_path)
