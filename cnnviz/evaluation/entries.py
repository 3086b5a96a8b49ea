"""What of a data set is evaluated, and what is asked of the network there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from cnnviz.datasets import Dataset, DatasetError, Label, Problem, classes_of
from cnnviz.evaluation.batching import Entry
from cnnviz.evaluation.identity import item_key
from cnnviz.network import Network
from cnnviz.targeting import Asked, targets_for
from cnnviz_core.errors import ParameterError, TargetError
from cnnviz_core.targets import ClassScore, Target

__all__ = ["TRUTH", "Entries", "entries_of"]

TRUTH: Final = "truth"
"""Asks for the class that a picture is annotated with."""


@dataclass(frozen=True)
class Entries:
    """The items that are evaluated, and what is wrong with the others.

    Attributes
    ----------
    entries : tuple of Entry
        In the data set's order.
    numbers : mapping of (str or int) to int
        The network's numbers of the classes.
    problems : tuple of Problem
        The data set's, and those of its classes.
    """

    entries: tuple[Entry, ...]
    numbers: Mapping[Label, int]
    problems: tuple[Problem, ...]


def entries_of(
    dataset: Dataset,
    network: Network,
    target: Asked,
    limit: int | None,
    seed: int,
    wnids: Sequence[str] | None = None,
) -> Entries:
    """Choose what of a data set is evaluated.

    Parameters
    ----------
    dataset : Dataset
        The pictures.
    network : Network
        The network.
    target : "truth", or as for `cnnviz.explain`
        What is asked of the network.
    limit : int or None
        At most so many items, drawn evenly; a larger limit draws the same ones and more.
    seed : int
        For drawing.
    wnids : sequence of str, optional
        As for `cnnviz.datasets.classes_of`.

    Returns
    -------
    Entries

    Raises
    ------
    DatasetError
        If the true class is asked for and no item has one that the network knows.
    ParameterError
        If the limit is below 1, or a target stands for several.
    """
    true = isinstance(target, str) and target == TRUTH
    problems = list(dataset.problems)
    try:
        numbers, unknown = classes_of(dataset, network, wnids=wnids)
    except DatasetError as error:
        if true:
            raise
        numbers, unknown = {}, error.problems
    problems += unknown if true else ()
    asked = None if true else _one_target(target, network)
    items = [item for item in dataset if not true or item.label in numbers]
    silent = sum(item.label is None for item in dataset) if true else 0
    if silent:
        problems.append(
            Problem(
                dataset.name,
                f"of {silent} items the class is not known; they are left out",
                "annotate them, or ask for the predicted class: target='predicted'",
                "no annotation",
            )
        )
    if not items:
        raise DatasetError(
            f"no picture of {dataset.name} has a class to ask for",
            "pictures whose class is known",
            "ask for the predicted class: target='predicted' (--target predicted)",
            problems,
        )
    if limit is not None:
        if limit < 1:
            raise ParameterError(f"limit is {limit}", "at least 1", "leave it out for all")
        order = np.random.default_rng(seed).permutation(len(items))[:limit]
        items = [items[i] for i in sorted(order)]
    entries = []
    for item in items:
        known = None if item.label is None else numbers.get(item.label)
        own = ClassScore(known) if asked is None and known is not None else asked
        if own is not None:
            entries.append(Entry(item, item_key(item, numbers), own))
    return Entries(tuple(entries), numbers, tuple(problems))


def _one_target(target: Asked, network: Network) -> Target:
    """Make the one target that is asked of every picture."""
    rows, targets = targets_for(target, 1, network.labels, lambda: network.model.activation)
    if len(rows) != 1:
        raise TargetError(
            f"target={target!r} stands for {len(rows)} targets",
            "one target for each picture",
            "ask for 'truth', 'predicted', or one class",
        )
    return targets[0]
