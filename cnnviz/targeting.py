"""From what a person asks for ("tabby", 281, "tabby - boxer", "top-3") to targets, and back."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

from cnnviz_core.errors import CnnvizError, TargetError, UnknownClassError
from cnnviz_core.labels import find_class, label_of
from cnnviz_core.targets import (
    ClassProbability,
    ClassScore,
    Contrast,
    Predicted,
    Target,
    top_k,
)

__all__ = ["Asked", "Labels", "target_class", "target_label", "targets_for"]

Labels: TypeAlias = tuple[str, ...] | None
Asked: TypeAlias = int | str | Target | None
"""What may be asked of a sample: a class, its label, a target, or None for the predicted class."""

_TOP = re.compile(r"top-?(\d+)", re.IGNORECASE)
_PROBABILITY = re.compile(r"\s*p\s*\((?P<of>.+)\)\s*", re.IGNORECASE | re.DOTALL)
_RATHER = re.compile(r"\s+(?:-|rather\s+than)\s+", re.IGNORECASE)


def targets_for(
    asked: Asked | Sequence[Asked],
    samples: int,
    labels: Labels,
    activation: Callable[[], str] = lambda: "softmax",
) -> tuple[list[int], list[Target]]:
    """Work out what is explained on which sample.

    Parameters
    ----------
    asked : int, str, Target, None, or a sequence of these
        A class, its label, a target; "tabby - boxer" or "tabby rather than boxer" for a contrast,
        "p(tabby)" for a probability, unless a class is called so; None or "predicted" for the class
        that the network puts first; "top-k" for the k classes it puts first, so that each sample
        appears k times; a sequence has one entry for each sample.
    samples : int
        How many samples there are.
    labels : tuple of str, or None
        The names of the classes.
    activation : callable
        Gives what turns scores into probabilities; asked only where one is to be explained.  Where
        scores are "probabilities" already, the class's score is its target.

    Returns
    -------
    rows : list of int
        The sample of each explanation to make.
    targets : list of Target
        Its target.

    Raises
    ------
    TargetError
        If the numbers differ, or something cannot be a target.
    UnknownClassError
        If no class bears a label, or a number is out of range.
    """
    if isinstance(asked, np.ndarray):
        asked = asked.tolist()
    if isinstance(asked, Sequence) and not isinstance(asked, str):
        if len(asked) != samples:
            raise TargetError(
                f"{len(asked)} targets were given for {samples} samples",
                "one target for each sample",
                "pass one target for all, or a list as long as the samples",
            )
        return list(range(samples)), [_one(each, labels, activation) for each in asked]
    top = _TOP.fullmatch(asked) if isinstance(asked, str) else None
    if top is not None and asked not in (labels or ()):
        targets = top_k(int(top[1]))
        return (
            [sample for sample in range(samples) for _ in targets],
            [target for _ in range(samples) for target in targets],
        )
    return list(range(samples)), [_one(asked, labels, activation)] * samples


def _one(asked: Any, labels: Labels, activation: Callable[[], str]) -> Target:
    """Make one target."""
    if isinstance(asked, ClassProbability) and activation() == "probabilities":
        return ClassScore(asked.index)
    if isinstance(asked, Target):
        return asked
    if asked is None or (isinstance(asked, str) and asked == "predicted"):
        return Predicted()
    try:
        return ClassScore(find_class(asked, labels))
    except TargetError:
        # A class's name comes first, whatever it is made of.
        formed = _formed(asked, labels, activation) if isinstance(asked, str) else None
        if formed is None:
            raise
        return formed


def _formed(asked: str, labels: Labels, activation: Callable[[], str]) -> Target | None:
    """Read a probability or a contrast, as in "p(tabby)", "281 - 207"; None if it is neither."""
    probability = _PROBABILITY.fullmatch(asked)
    if probability is not None:
        index, ends = find_class(probability["of"], labels), activation()
        if ends == "probabilities":
            return ClassScore(index)
        return ClassProbability(index, "sigmoid" if ends == "sigmoid" else "softmax")
    errors: list[CnnvizError] = []
    # A name may have a dash of its own: "a - b - c" is cut wherever both sides are classes.
    for cut in _RATHER.finditer(asked):
        one, other = asked[: cut.start()], asked[cut.end() :]
        if one.strip() and other.strip():
            try:
                return _contrast(find_class(one, labels), find_class(other, labels), asked)
            except UnknownClassError as error:
                errors.append(error)
    if errors:
        raise errors[0]
    return None


def _contrast(index: int, other: int, asked: str) -> Contrast:
    """Make a contrast of two different classes."""
    if index == other:
        raise TargetError(
            f"{asked!r} contrasts class {index} with itself",
            "two different classes",
            "name another class after the minus sign",
        )
    return Contrast(index, other)


def target_label(target: Target, labels: Labels) -> str:
    """Say in words what a target is about.

    Parameters
    ----------
    target : Target
        Resolved.
    labels : tuple of str, or None
        The names of the classes.

    Returns
    -------
    str

    Examples
    --------
    >>> target_label(ClassScore(1), ("cat", "dog"))
    'dog'
    >>> target_label(Contrast(1, 0), ("cat", "dog"))
    'dog rather than cat'
    """
    match target:
        case ClassScore(index):
            return label_of(index, labels)
        case ClassProbability(index):
            return f"probability of {label_of(index, labels)}"
        case Contrast(index, other):
            return f"{label_of(index, labels)} rather than {label_of(other, labels)}"
        case _:
            return str(target)


def target_class(target: Target) -> int | None:
    """Give the class whose score or probability a target is.

    Parameters
    ----------
    target : Target
        Resolved.

    Returns
    -------
    int or None
        None where the target is about something else.
    """
    return target.index if isinstance(target, (ClassScore, ClassProbability)) else None
