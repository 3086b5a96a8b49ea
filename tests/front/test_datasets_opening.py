"""Opening data sets: what a source is, folders, arrays, items and fingerprints."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from cnnviz.datasets import Dataset, DatasetError, dataset_of, open_dataset
from cnnviz_core.errors import CnnvizError, ImageError, ParameterError


def save(folder, *names, size=(10, 12), value=0):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((*size, 3), value, np.uint8)).save(path)


def ids(dataset):
    return [item.id for item in dataset]


def test_a_folder_of_pictures(tmp_path):
    save(tmp_path, "b.png", "a.png", "more/c.png")
    dataset = open_dataset(tmp_path)
    assert ids(dataset) == ["a.png", "b.png", "more/c.png"]
    assert {item.label for item in dataset} == {None}
    assert dataset.format == "folder"
    assert dataset.classes == ()
    assert len(dataset) == 3
    assert repr(dataset).endswith("(folder): 3 items, 0 classes, 0 problems>")


def test_a_sub_folder_for_each_class(tmp_path):
    save(tmp_path, "cat/1.png", "cat/2.png", "dog/1.png", "dog/deep/2.png")
    dataset = open_dataset(str(tmp_path))
    assert ids(dataset) == [
        "cat/1.png#cat",
        "cat/2.png#cat",
        "dog/1.png#dog",
        "dog/deep/2.png#dog",
    ]
    assert dataset.format == "imagefolder"
    assert dataset.classes == ("cat", "dog")
    assert dataset.problems == ()
    assert open_dataset(tmp_path, format="folder").classes == ()


def test_a_single_class_is_an_image_folder_where_it_is_said(tmp_path):
    save(tmp_path, "cat/1.png")
    assert open_dataset(tmp_path).format == "folder"
    assert ids(open_dataset(tmp_path, format="imagefolder")) == ["cat/1.png#cat"]


def test_what_is_left_of_an_image_folder(tmp_path):
    save(tmp_path, "cat/1.png", "dog/1.png", "top.png")
    (tmp_path / "empty").mkdir()
    (tmp_path / "dog" / "2.png").write_bytes(b"")
    dataset = open_dataset(tmp_path, format="imagefolder")
    assert ids(dataset) == ["cat/1.png#cat", "dog/1.png#dog"]
    assert dataset.counts == {"unreadable file": 1, "no annotation": 1, "no picture": 1}


def test_annotations_among_the_pictures_are_not_overlooked(tmp_path):
    save(tmp_path, "a.png")
    (tmp_path / "labels.csv").write_text("image,label\na.png,cat\n")
    dataset = open_dataset(tmp_path)
    assert dataset[0].label is None
    (problem,) = dataset.problems
    assert "labels.csv" in problem.where
    assert "pass it instead" in problem.remedy


def test_arrays():
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (10, 12, 3), np.uint8), rng.random((7, 9))]
    masks = [np.eye(10, 12, dtype=bool), None]
    dataset = open_dataset(
        {
            "pictures": pictures,
            "labels": [np.int64(3), "cat"],
            "boxes": [[[1, 2, 3, 4], [0, 0, 12, 10]], None],
            "masks": masks,
            "difficult": [False, True],
            "name": "shapes",
        }
    )
    first, second = dataset
    assert dataset.name == "shapes"
    assert ids(dataset) == ["picture-1#3", "picture-2#cat"]
    assert dataset.classes == (3, "cat")
    assert first.boxes.tolist() == [[1, 2, 3, 4], [0, 0, 12, 10]]
    assert np.array_equal(first.read_mask(), masks[0])
    assert np.array_equal(first.read().pixels, pictures[0])
    assert second.boxes.shape == (0, 4)
    assert second.read_mask() is None
    assert (first.difficult, second.difficult) == (False, True)
    assert second.size == (7, 9)
    assert dataset.problems == ()


def test_pictures_of_every_kind(tmp_path):
    save(tmp_path, "a.png")
    sources = [tmp_path / "a.png", Image.new("L", (5, 4)), np.zeros((4, 5))]
    dataset = open_dataset(sources)
    assert ids(dataset) == [(tmp_path / "a.png").as_posix(), "picture-2", "picture-3"]
    assert [item.read().size for item in dataset] == [(10, 12), (4, 5), (4, 5)]
    assert len(open_dataset(np.zeros((3, 8, 8, 3)))) == 3


def test_what_is_wrong_with_arrays():
    picture = np.zeros((10, 12))
    dataset = dataset_of(
        [picture, np.zeros(3), picture, picture, picture.copy()],
        labels=["cat"] * 5,
        boxes=[[[1, 2, 3]], None, "box", None, [[1, 2, 3, 4]]],
        masks=[np.zeros((2, 2, 2)), None, None, np.ones((5, 6)), np.full((10, 12), "x")],
        names=["a", "b", "c", "d", "a"],
    )
    assert ids(dataset) == ["a#cat", "c#cat", "d#cat"]
    assert dataset.counts == {"mask": 3, "malformed": 2, "unreadable file": 1, "duplicate": 1}
    assert dataset[2].read_mask().shape == (10, 12)


def test_lengths_must_agree():
    with pytest.raises(ParameterError, match="1 labels were given for 2 pictures"):
        dataset_of(np.zeros((2, 8, 8)), labels=["cat"])


def test_pixels_are_read_when_they_are_needed(tmp_path):
    """A file whose beginning is whole is an item; that the rest is damaged shows on reading."""
    noise = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(whole[:200])
    (item,) = open_dataset(tmp_path)
    assert item.size == (40, 50)
    with pytest.raises(ImageError, match="damaged or cut short"):
        item.read()
    (tmp_path / "a.png").write_bytes(whole)
    assert np.array_equal(item.read().pixels, noise)
    save(tmp_path, "a.png", size=(3, 4))
    with pytest.raises(ImageError, match="is 4 x 3, and was 50 x 40"):
        item.read()


def test_the_fingerprint_tells_data_sets_apart_and_no_places(tmp_path):
    made = []
    for place in ("one", "two"):
        save(tmp_path / place, "a.png", "b.png")
        (tmp_path / place / "d.csv").write_text(
            "image,label,x0,y0,x1,y1\na.png,cat,1,2,3,4\nb.png,cat,1,2,3,4\n"
        )
        made.append(open_dataset(tmp_path / place / "d.csv"))
    one, two = (dataset.fingerprint for dataset in made)
    assert one == two
    changed = {}
    for old, new in [("1,2", "1,1"), ("cat,1", "dog,1"), ("b.png", "a.png")]:
        path = tmp_path / "two" / "d.csv"
        text = path.read_text()
        path.write_text(text.replace(old, new))
        changed[old] = open_dataset(path).fingerprint
        path.write_text(text)
    save(tmp_path / "two", "a.png", value=3)
    (tmp_path / "two" / "a.png").write_bytes((tmp_path / "two" / "a.png").read_bytes() + b" ")
    changed["pixels"] = open_dataset(tmp_path / "two" / "d.csv").fingerprint
    assert len({one, *changed.values()}) == 5


def test_fingerprints_of_arrays():
    picture = np.zeros((8, 8), np.uint8)
    one = dataset_of([picture], masks=[np.eye(8)]).fingerprint
    assert one == dataset_of([picture], masks=[np.eye(8)]).fingerprint
    assert one != dataset_of([picture + 1], masks=[np.eye(8)]).fingerprint
    assert one != dataset_of([picture], masks=[np.eye(8) == 0]).fingerprint


def test_classes_are_chosen_and_renamed(tmp_path):
    save(tmp_path, "cat/1.png", "dog/1.png", "Ant Eater/1.png")
    dataset = open_dataset(tmp_path, classes=["CAT", "ant eater", "tiger"])
    assert ids(dataset) == ["Ant Eater/1.png#ant eater", "cat/1.png#CAT"]
    assert dataset.counts == {"unknown class": 2}
    assert [p.where for p in dataset.problems] == ["class 'dog'", "class 'tiger'"]
    assert open_dataset(tmp_path, classes="cat").classes == ("cat",)
    renamed = open_dataset(tmp_path, classes={"cat": 281, "dog": "boxer"})
    assert [item.label for item in renamed] == [281, "boxer"]
    merged = dataset_of([np.zeros((4, 4))] * 2, labels=["cat", "dog"], classes={"cat": 1, "dog": 1})
    assert merged.classes == (1,)


def test_a_data_set_is_one_already(tmp_path):
    save(tmp_path, "a.png")
    dataset = open_dataset(tmp_path)
    assert open_dataset(dataset) is dataset
    with pytest.raises(ParameterError, match="classes="):
        open_dataset(dataset, classes=["cat"])
    assert isinstance(dataset, Dataset)


@pytest.mark.parametrize(
    ("source", "options", "error", "said"),
    [
        ("missing", {}, DatasetError, "there is no file or folder"),
        ("notes.txt", {}, DatasetError, "no data set that is known"),
        (".", {}, DatasetError, "no picture in the folder"),
        ("notes.txt", {"format": "imagefolder"}, ParameterError, "was to be read as imagefolder"),
        (".", {"format": "csv"}, ParameterError, "was to be read as csv"),
        ("notes.txt", {"format": "coco"}, DatasetError, "cannot be read as JSON"),
        ("list.json", {"format": "coco"}, ParameterError, "is not of the format coco"),
        ("notes.txt", {"format": "arrays"}, ParameterError, "is not of the format arrays"),
        (".", {"format": "yolo"}, ParameterError, "format='yolo'"),
        (".", {"format": "folder", "split": "val"}, ParameterError, "split='val'"),
        (".", {"format": "voc"}, DatasetError, "no XML file"),
        (".", {"images": ".", "annotations": "notes.txt"}, ParameterError, "given twice"),
    ],
)
def test_what_cannot_be_opened(tmp_path, source, options, error, said):
    (tmp_path / "notes.txt").write_text("nothing")
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(error, match=said) as info:
        open_dataset(tmp_path / source, **options)
    assert isinstance(info.value, CnnvizError)


@pytest.mark.parametrize(
    "options", [{"images": "."}, {"annotations": "."}, {"format": "csv"}, {"split": "val"}]
)
def test_what_is_in_memory_has_no_files(options):
    with pytest.raises(ParameterError, match="for what is in memory"):
        open_dataset(np.zeros((1, 8, 8)), **options)


def test_two_folders_of_pictures(tmp_path):
    save(tmp_path, "a/1.png", "b/1.png")
    for options in ({"images": tmp_path / "b"}, {"annotations": tmp_path / "b"}):
        with pytest.raises(ParameterError, match="without annotations"):
            open_dataset(tmp_path / "a", **options)


@pytest.mark.parametrize(
    ("source", "error", "said"),
    [
        (3, DatasetError, "int is no data set"),
        ({"labels": [1]}, ParameterError, "'pictures'"),
        ({"pictures": [], "label": [1]}, ParameterError, "'label'"),
        ([], DatasetError, "nothing of arrays can be used"),
        ([3], DatasetError, "1 problem: picture-1: an int was given"),
    ],
)
def test_what_is_no_data_set(source, error, said):
    with pytest.raises(error, match=said):
        open_dataset(source)


def test_a_data_set_of_which_nothing_is_usable_names_the_first_problems(tmp_path):
    lines = "".join(f"{n}.png,cat\n" for n in range(5))
    (tmp_path / "d.csv").write_text(f"image,label\n{lines}")
    with pytest.raises(DatasetError, match=r"5 problems: d\.csv, line 2: there is no file") as info:
        open_dataset(tmp_path / "d.csv")
    assert "and 2 more" in info.value.problem
    assert "images=" in info.value.remedy
    assert len(info.value.problems) == 5


def test_opening_imports_nothing_heavy():
    code = "import cnnviz.datasets, sys; print([m for m in ('PIL', 'scipy', 'skimage', 'torch', "
    code += "'matplotlib', 'xml.etree.ElementTree') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['xml.etree.ElementTree']"


def test_a_picture_that_stands_there_again_is_the_same_picture():
    rng = np.random.default_rng(0)
    one, two = (Image.fromarray(rng.integers(0, 255, (20, 30, 3), np.uint8)) for _ in range(2))
    boxes = [[[1, 2, 9, 9]], [[3, 3, 8, 12]], [[0, 0, 5, 5]], [[4, 4, 9, 9]]]
    dataset = dataset_of(
        [one, two, one, one],
        labels=["cat", "cat", "dog", "cat"],
        boxes=boxes,
        names=["a", "b", "a", "a"],
    )
    assert {item.id: item.boxes.tolist() for item in dataset} == {
        "a#cat": [boxes[0][0], boxes[3][0]],
        "a#dog": boxes[2],
        "b#cat": boxes[1],
    }
    assert not dataset.problems
    # Another picture of the same name is one too many.
    other = dataset_of([one, two], labels=["cat", "dog"], names=["a", "a"])
    assert (len(other), dataset.counts, len(other.problems)) == (1, {}, 1)
