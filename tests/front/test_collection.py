"""Collections of pictures: folders, names, true classes, what cannot be read."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from cnnviz.collection import (
    Collection,
    entries_of,
    is_truth_file,
    truth_by_folder,
    truth_of,
)
from cnnviz.demo import network
from cnnviz_core.errors import ImageError, ParameterError, TargetError, UnknownClassError
from cnnviz_core.inspector import ArrayPictures

LABELS = ("cat", "dog", "tabby cat")


def picture(value, size=(10, 8)):
    return np.full((*size, 3), value, dtype=np.uint8)


@pytest.fixture
def folder(tmp_path):
    for k, name in enumerate(["b/2.png", "a/1.png", "a/10.JPG", "c/deep/3.png", "top.png"]):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(40 * k)).save(path)
    (tmp_path / "a" / "notes.txt").write_text("no picture")
    (tmp_path / ".hidden").mkdir()
    Image.fromarray(picture(0)).save(tmp_path / ".hidden" / "x.png")
    return tmp_path


def test_a_folder_stands_for_all_its_pictures_in_the_order_of_their_paths(folder):
    entries = entries_of(folder)
    assert [e.name for e in entries] == [
        "a/1.png",
        "a/10.JPG",
        "b/2.png",
        "c/deep/3.png",
        "top.png",
    ]
    assert [e.folder for e in entries] == ["a", "a", "b", "c", ""]


def test_files_folders_and_arrays_may_be_mixed(folder):
    entries = entries_of([folder / "top.png", picture(1), folder / "a", picture(2)])
    names = [entry.name for entry in entries]
    assert names == ["top.png", "picture-2", "1.png", "10.JPG", "picture-5"]


def test_an_array_of_several_pictures_and_a_single_picture():
    assert [e.name for e in entries_of(np.stack([picture(0)] * 2))] == ["picture-1", "picture-2"]
    assert [e.name for e in entries_of(Image.fromarray(picture(3)))] == ["picture"]


def test_a_folder_without_pictures_is_an_error(tmp_path):
    with pytest.raises(ImageError, match="no picture in the folder"):
        entries_of(tmp_path)


def test_pictures_are_read_when_they_are_asked_for(folder):
    collection = Collection(network("numpy"), entries_of(folder))
    (folder / "top.png").unlink()
    assert next(collection.batches(2, start=1)).indices == (1, 2)
    with pytest.warns(UserWarning, match="left out"):
        assert [b.indices for b in collection.batches(3)] == [(0, 1, 2), (3,)]
    # It is told once.
    assert collection.read(4) is None
    assert list(collection.failures) == ["top.png"]
    assert len(collection) == 5


def test_a_damaged_picture_is_left_out(folder):
    (folder / "b" / "2.png").write_bytes(b"\x89PNG no more")
    collection = Collection(network("numpy"), entries_of(folder))
    with pytest.warns(UserWarning, match=r"2\.png"):
        (batch,) = collection.batches(8)
    assert batch.indices == (0, 1, 3, 4)


def test_prepared_pictures_are_those_of_the_network(folder):
    from cnnviz.samples import samples_of

    net = network("numpy")
    collection = Collection(net, entries_of(folder))
    (sample,) = samples_of(net, folder / "b" / "2.png")
    np.testing.assert_array_equal(collection.all().x[2], sample.x)


def test_a_picture_as_it_came(folder):
    photo = np.random.default_rng(1).integers(256, size=(30, 50, 3), dtype=np.uint8)
    Image.fromarray(photo).save(folder / "top.png")
    Image.fromarray(photo[..., 0]).save(folder / "b" / "2.png")
    entries = entries_of([folder / "top.png", folder / "b" / "2.png", photo, folder / "a"])
    collection = Collection(network("numpy"), entries)
    np.testing.assert_array_equal(collection.original(0), photo)
    np.testing.assert_array_equal(collection.original(1), photo[..., [0, 0, 0]])
    np.testing.assert_array_equal(collection.original(2), photo)
    assert collection.read(0).shape[:2] != (30, 50)
    (folder / "a" / "1.png").unlink()
    assert collection.original(3) is None
    assert ArrayPictures(collection.read(0)[None]).original(0) is None


def test_the_identity_tells_names_and_sizes_apart(folder):
    def identity():
        return Collection(network("numpy"), entries_of(folder)).identity

    before = identity()
    assert identity() == before
    Image.fromarray(picture(7, (40, 40))).save(folder / "a" / "1.png")
    changed = identity()
    assert changed != before
    (folder / "a" / "1.png").rename(folder / "a" / "0.png")
    assert identity() not in (before, changed)


def test_sub_folders_called_like_classes_tell_the_truth(tmp_path):
    for name in ("Cat", "tabby_cat", "1"):
        (tmp_path / name).mkdir()
        Image.fromarray(picture(0)).save(tmp_path / name / "x.png")
    assert truth_by_folder(entries_of(tmp_path), LABELS) == [1, 0, 2]


def test_sub_folders_of_other_names_stand_in_the_order_of_the_classes(tmp_path):
    for name in ("n02", "n01", "n03"):
        (tmp_path / name).mkdir()
        Image.fromarray(picture(0)).save(tmp_path / name / "x.png")
    entries = entries_of(tmp_path)
    assert truth_by_folder(entries, LABELS) == [0, 1, 2]
    assert truth_by_folder(entries, LABELS[:2]) == [None] * 3


@pytest.mark.parametrize(
    "given",
    [
        {"a/1.png": "dog", "b/2.png": 0},
        {"1.png": "1", "2": "cat"},
        ["dog", "cat", None],
    ],
)
def test_truth_by_name_or_in_order(given):
    names = ["a/1.png", "b/2.png", "c.png"]
    assert truth_of(names, given, LABELS) == [1, 0, None]


def test_truth_from_files(tmp_path):
    table = tmp_path / "truth.csv"
    table.write_text("picture,label\na.png,dog\nb.png,tabby cat\n", encoding="utf-8")
    mapping = tmp_path / "truth.json"
    mapping.write_text(json.dumps({"a.png": 1, "b.png": "tabby cat"}))
    for path in (table, mapping):
        assert truth_of(["a.png", "b.png"], path, LABELS) == [1, 2]
        assert is_truth_file(path)
    names = tmp_path / "names.txt"
    names.write_text("cat\ndog, hound\n")
    assert not is_truth_file(names)
    two = tmp_path / "two.txt"
    two.write_text("cat, felis\ndog, hound\n")
    assert not is_truth_file(two)


def test_wrong_truth_is_refused(tmp_path):
    with pytest.raises(ParameterError, match="no picture is called so"):
        truth_of(["a.png"], {"b.png": 1}, LABELS)
    with pytest.raises(ParameterError, match="2 true classes were given for 1 pictures"):
        truth_of(["a.png"], [0, 1], LABELS)
    with pytest.raises(UnknownClassError):
        truth_of(["a.png"], ["horse"], LABELS)
    with pytest.raises(TargetError, match="names of the classes are not known"):
        truth_of(["a.png"], ["cat"], None)
    (tmp_path / "x.csv").write_text("a.png\n")
    with pytest.raises(ParameterError, match="cannot be read"):
        truth_of(["a.png"], tmp_path / "x.csv", LABELS)
    with pytest.raises(ParameterError, match="cannot be read"):
        truth_of(["a.png"], tmp_path / "absent.csv", LABELS)
