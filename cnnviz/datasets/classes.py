"""From the classes of a data set to those of a network."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Final

from cnnviz.datasets.items import Dataset, DatasetError, Label, Problem
from cnnviz.network import Network
from cnnviz_core.errors import ParameterError, TargetError, near
from cnnviz_core.labels import find_class

__all__ = ["classes_of"]

_WNID: Final = re.compile(r"n\d{8}")


def classes_of(
    dataset: Dataset, network: Network, *, wnids: Sequence[str] | None = None
) -> tuple[dict[Label, int], tuple[Problem, ...]]:
    """Find the classes of a data set among those of a network.

    A class is found by its whole name, whatever the letter case and with hyphens and underscores
    for spaces; by its number; or by its WordNet id, where `wnids` is given.  Where none is found
    so, and there are as many as the network has, the sub-folders of an "imagefolder" and WordNet
    ids of any format are the classes in their sorted order, which is that of ImageNet's networks.
    A name that is only part of a network's ("horse" of "horse cart") is another class.

    Parameters
    ----------
    dataset : Dataset
        The pictures.
    network : Network
        The network; its labels are the names.
    wnids : sequence of str, optional
        The WordNet id of each of the network's classes, in the order of its output; ILSVRC brings
        them as the first words of the lines of "LOC_synset_mapping.txt".

    Returns
    -------
    numbers : dict of (str or int) to int
        The network's number of each class that was found.
    problems : tuple of Problem
        One for each class that was not.

    Raises
    ------
    DatasetError
        If the data set has classes and none was found.
    ParameterError
        If there are more or fewer ids than classes.
    """
    labels = network.labels
    if wnids is not None and labels is not None and len(wnids) != len(labels):
        raise ParameterError(
            f"{len(wnids)} WordNet ids were given for {len(labels)} classes",
            "one for each of the network's classes, in the order of its output",
            "check the file that they were read from",
        )
    known = {wnid: i for i, wnid in enumerate(wnids or ())}
    found = {c: known.get(str(c), _number(c, labels)) for c in dataset.classes}
    if _in_order(dataset, labels) and all(number is None for number in found.values()):
        found = {label: i for i, label in enumerate(dataset.classes)}
    numbers = {label: number for label, number in found.items() if number is not None}
    counts = Counter(item.label for item in dataset)
    problems = tuple(
        _unknown(label, counts[label], labels) for label in found if label not in numbers
    )
    if found and not numbers:
        raise DatasetError(
            f"the network knows no class of {dataset.name}",
            "class names, numbers or WordNet ids that are the network's",
            "name the network's classes with labels=, or say what it calls those of the data set: "
            'classes={"cat": 281}',
            problems,
        )
    return numbers, problems


def _in_order(dataset: Dataset, labels: Sequence[str] | None) -> bool:
    """Tell whether a data set's classes may be a network's in their sorted order."""
    if labels is None or len(dataset.classes) != len(labels):
        return False
    ids = all(_WNID.fullmatch(str(label)) for label in dataset.classes)
    return ids or dataset.format == "imagefolder"


def _number(label: Label, labels: Sequence[str] | None) -> int | None:
    """Find one class by its name or its number; None if it is not found."""
    text = str(label)
    try:
        number = find_class(label, labels)
    except TargetError:
        return None
    by_name = labels is not None and _words(labels[number]) == _words(text)
    return number if by_name or text.strip().isdecimal() else None


def _words(name: str) -> list[str]:
    """Bring a name to the form in which names are compared."""
    return name.casefold().replace("-", " ").replace("_", " ").split()


def _unknown(label: Label, items: int, labels: Sequence[str] | None) -> Problem:
    """Say that a class was not found."""
    alike = near(str(label), labels or ())
    remedy = (
        f"if it is the network's {alike[0]!r}, say so: " if alike else "say what it is called: "
    )
    called = alike[0] if alike else 0
    return Problem(
        f"class {label!r}",
        f"the network has no class of this name; {items} items are left out",
        f"{remedy}classes={{{label!r}: {called!r}}}",
        "unknown class",
    )
