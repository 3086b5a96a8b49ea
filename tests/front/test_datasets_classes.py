"""From the classes of a data set to those of a network."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from cnnviz.datasets import DatasetError, classes_of, dataset_of, open_dataset
from cnnviz.network import Network
from cnnviz_core.errors import ParameterError


def network(labels):
    return Network(model=None, labels=None if labels is None else tuple(labels), name="net")


def labelled(*labels):
    return dataset_of([np.zeros((4, 4))] * len(labels), labels=labels)


def test_names_and_numbers():
    numbers, problems = classes_of(
        labelled("Tabby", "tiger_cat", "Ant-Eater", 1, "3"),
        network(["tabby", "tiger cat", "ant eater", "boxer"]),
    )
    assert numbers == {"Tabby": 0, "tiger_cat": 1, "Ant-Eater": 2, 1: 1, "3": 3}
    assert problems == ()


def test_a_class_that_is_not_found_is_a_problem():
    numbers, problems = classes_of(
        labelled("boxer", "horse", "horse", 9, "boxr"), network(["boxer", "horse cart"])
    )
    assert numbers == {"boxer": 0}
    assert {p.where: p.kind for p in problems} == {
        "class 'horse'": "unknown class",
        "class 9": "unknown class",
        "class 'boxr'": "unknown class",
    }
    said = {p.where: f"{p.what} {p.remedy}" for p in problems}
    assert "2 items" in said["class 'horse'"]
    assert "classes={'horse': 'horse cart'}" in said["class 'horse'"]
    assert "classes={'boxr': 'boxer'}" in said["class 'boxr'"]


def test_a_name_that_two_classes_bear_is_not_found():
    numbers, problems = classes_of(labelled("crane", "boxer"), network(["crane", "boxer", "crane"]))
    assert numbers == {"boxer": 1}
    assert len(problems) == 1


def test_none_is_found():
    with pytest.raises(DatasetError, match="knows no class of arrays") as info:
        classes_of(labelled("cat", "dog"), network(["ant", "bee"]))
    assert len(info.value.problems) == 2
    with pytest.raises(DatasetError):
        classes_of(labelled("cat"), network(None))


def test_numbers_of_a_network_without_names():
    assert classes_of(labelled(3, "12"), network(None))[0] == {3: 3, "12": 12}


def test_pictures_without_classes():
    assert classes_of(dataset_of(np.zeros((2, 4, 4))), network(["ant"])) == ({}, ())


def test_a_complete_set_of_wordnet_ids_is_in_its_order():
    """ImageNet's networks have their classes in the order of the ids."""
    names = network(["ant", "bee", "cat"])
    complete = labelled("n00000030", "n00000010", "n00000020")
    assert classes_of(complete, names)[0] == {"n00000010": 0, "n00000020": 1, "n00000030": 2}
    for some in (labelled("n00000010", "n00000020"), labelled("n00000010", "n00000020", "x")):
        with pytest.raises(DatasetError):
            classes_of(some, names)


def test_some_wordnet_ids_are_found_in_those_of_the_network():
    wnids = ["n00000010", "n00000020", "n00000030"]
    names = network(["ant", "bee", "cat"])
    numbers, problems = classes_of(labelled("n00000030", "n9", "bee"), names, wnids=wnids)
    assert numbers == {"n00000030": 2, "bee": 1}
    assert [problem.where for problem in problems] == ["class 'n9'"]
    with pytest.raises(ParameterError, match="2 WordNet ids were given for 3 classes"):
        classes_of(labelled("bee"), names, wnids=wnids[:2])


def folders(root, *names):
    for name in names:
        (root / name).mkdir()
        Image.fromarray(np.zeros((4, 4), np.uint8)).save(root / name / "1.png")
    return open_dataset(root, format="imagefolder")


def test_as_many_folders_as_classes_are_in_their_order(tmp_path):
    dataset = folders(tmp_path, "b", "c", "a")
    numbers, problems = classes_of(dataset, network(["ant", "bee", "cat"]))
    assert numbers == {"a": 0, "b": 1, "c": 2}
    assert problems == ()
    with pytest.raises(DatasetError):
        classes_of(dataset, network(["ant", "bee", "cat", "dog"]))
    with pytest.raises(DatasetError):
        classes_of(labelled("a", "b", "c"), network(["ant", "bee", "cat"]))


def test_the_order_is_not_taken_where_some_are_found(tmp_path):
    numbers, problems = classes_of(folders(tmp_path, "ant", "bee"), network(["bee", "cat"]))
    assert numbers == {"bee": 0}
    assert len(problems) == 1


def test_classes_said_by_the_user(tmp_path):
    folders(tmp_path, "katze", "hund")
    dataset = open_dataset(tmp_path, classes={"katze": "cat", "hund": 1})
    assert classes_of(dataset, network(["cat", "dog"]))[0] == {"cat": 0, 1: 1}
