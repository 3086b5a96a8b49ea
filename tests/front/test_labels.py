"""Class names, and finding classes by them."""

from __future__ import annotations

import numpy as np
import pytest

from cnnviz.labels import imagenet_labels
from cnnviz_core.errors import TargetError, UnknownClassError
from cnnviz_core.labels import find_class, label_of

LABELS = ("tiger cat", "tiger", "Persian cat", "St. Bernard", "7", "great_white shark")


def test_imagenet_has_a_thousand_different_names():
    labels = imagenet_labels()
    assert len(labels) == len(set(labels)) == 1000
    assert all(label == label.strip() and label for label in labels)
    known = {0: "tench", 1: "goldfish", 281: "tabby", 282: "tiger cat", 999: "toilet tissue"}
    assert {i: labels[i] for i in known} == known


def test_imagenet_names_are_in_the_order_of_the_networks(test_data):
    """Against the published index: every name is one of its class's synonyms."""
    import json

    index = json.loads((test_data / "imagenet_class_index.json").read_text())
    for i, label in enumerate(imagenet_labels()):
        synonyms = {s.strip().casefold() for s in index[str(i)][1].split(",")}
        # Names that two classes share are told apart.
        known = {"crane bird": "crane", "maillot tank suit": "maillot"}
        assert known.get(label, label).casefold() in synonyms


@pytest.mark.parametrize(
    ("wanted", "index"),
    [
        ("tiger", 1),
        ("TIGER CAT", 0),
        ("persian", 2),
        ("bernard", 3),
        ("st. bernard", 3),
        ("great-white  shark", 5),
        ("white_shark", 5),
        (3, 3),
        (np.int64(3), 3),
        ("3", 3),
        ("7", 4),
    ],
)
def test_found(wanted, index):
    assert find_class(wanted, LABELS) == index


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ("cat", "2 classes are called 'cat': 'tiger cat' (0), 'Persian cat' (2)"),
        ("tig", "no class is called 'tig'"),
        ("", "no class is called ''"),
        (6, "class 6 is out of range"),
        ("6", "class 6 is out of range"),
        (-1, "class -1 is out of range"),
        ("-1", "class -1 is out of range"),
    ],
)
def test_not_found(wanted, said):
    with pytest.raises(UnknownClassError) as info:
        find_class(wanted, LABELS)
    assert info.value.problem == said


def test_near_names_are_offered():
    with pytest.raises(UnknownClassError) as info:
        find_class("golden retreiver", imagenet_labels())
    assert "'golden retriever'" in info.value.remedy


def test_many_of_one_name_are_not_all_listed():
    with pytest.raises(UnknownClassError) as info:
        find_class("terrier", imagenet_labels())
    assert info.value.problem.endswith("more")
    assert len(info.value.problem) < 400


def test_equal_names_are_told_apart_by_their_index():
    with pytest.raises(UnknownClassError, match=r"'crane' \(0\), 'crane' \(2\)"):
        find_class("crane", ("crane", "dog", "crane"))


def test_letter_case_decides_where_it_must():
    assert [find_class(name, ("us", "US", "Us")) for name in ("us", "US", "Us")] == [0, 1, 2]


def test_without_names_only_an_index_will_do():
    assert find_class(5000, None) == 5000
    assert find_class("12", None) == 12
    with pytest.raises(TargetError, match="not known"):
        find_class("tabby", None)


@pytest.mark.parametrize("wanted", [True, 2.5, None])
def test_what_is_no_class(wanted):
    with pytest.raises(TargetError):
        find_class(wanted, LABELS)


def test_label_of():
    assert label_of(1, LABELS) == "tiger"
    assert label_of(9, LABELS) == label_of(9, None) == "class 9"
