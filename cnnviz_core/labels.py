"""Finding a class by what it is called, and naming it."""

from __future__ import annotations

import operator
import re
from collections.abc import Sequence
from typing import Any

from cnnviz_core.errors import TargetError, UnknownClassError, near

__all__ = ["find_class", "label_of"]

_LISTED = 8


def label_of(index: int, labels: Sequence[str] | None) -> str:
    """Name a class.

    Parameters
    ----------
    index : int
        The class, counted from 0.
    labels : sequence of str, or None
        The names of the classes, where they are known.

    Returns
    -------
    str
        Its name, or "class 7" where it has none.
    """
    if labels is not None and 0 <= index < len(labels):
        return labels[index]
    return f"class {index}"


def find_class(wanted: str | int, labels: Sequence[str] | None) -> int:
    """Find a class by its name or its index.

    Letter case is ignored, and a hyphen or an underscore counts as a space.  The whole name is
    looked for first; then, where the text is a number, it is the index; then the one name that
    contains the text as whole words.

    Parameters
    ----------
    wanted : str or int
        "tabby", 281 or "281".
    labels : sequence of str, or None
        The names of the classes in the order of the output, where they are known.

    Returns
    -------
    int
        The class, counted from 0.

    Raises
    ------
    UnknownClassError
        If no class or several classes are called so, or the index is out of range.
    TargetError
        If a name is given and the classes' names are not known.

    Examples
    --------
    >>> find_class("Persian", ["tabby", "Persian cat"])
    1
    """
    if not isinstance(wanted, str):
        return _check_index(_as_index(wanted), labels)
    text = _folded(wanted)
    known = labels or ()
    exact = [i for i, label in enumerate(known) if label == wanted]
    exact = exact or [i for i, label in enumerate(known) if _folded(label) == text]
    if exact:
        return _only(exact, wanted, known)
    if re.fullmatch(r"[+-]?\d+", wanted.strip()):
        return _check_index(int(wanted), labels)
    if labels is None:
        raise TargetError(
            f"the class {wanted!r} was asked for, and the names of the classes are not known",
            "a class's index, counted from 0",
            "pass its index, or labels=[...] with the names in the order of the output",
        )
    words = re.compile(rf"\b{re.escape(text)}\b") if text else None
    containing = [i for i, label in enumerate(labels) if words and words.search(_folded(label))]
    if containing:
        return _only(containing, wanted, labels)
    alike = near(wanted, labels)
    raise UnknownClassError(
        f"no class is called {wanted!r}",
        f"one of the {len(labels)} names, or an index from 0 to {len(labels) - 1}",
        f"perhaps {_listing(alike)} was meant" if alike else f"they begin {_listing(labels[:3])}",
    )


def _folded(text: str) -> str:
    """Bring a name to the form in which names are compared."""
    return " ".join(re.sub(r"[-_]", " ", text.casefold()).split())


def _as_index(wanted: Any) -> int:
    """Take what Python takes for an index, but True and False."""
    try:
        if isinstance(wanted, bool):
            raise TypeError
        return operator.index(wanted)
    except TypeError:
        raise TargetError(
            f"the class {wanted!r} is {type(wanted).__name__}",
            "a class's name or its index, counted from 0",
            "pass a str or an int",
        ) from None


def _check_index(index: int, labels: Sequence[str] | None) -> int:
    """Check that a class exists, as far as it is known how many there are."""
    if index < 0 or (labels is not None and index >= len(labels)):
        raise UnknownClassError(
            f"class {index} is out of range",
            "a class of 0 or more" if labels is None else f"a class from 0 to {len(labels) - 1}",
            "count the classes from 0",
        )
    return index


def _only(found: Sequence[int], wanted: str, labels: Sequence[str]) -> int:
    """Give the one class that was found."""
    if len(found) > 1:
        listed = ", ".join(f"{labels[i]!r} ({i})" for i in found[:_LISTED])
        more = f" and {len(found) - _LISTED} more" if len(found) > _LISTED else ""
        raise UnknownClassError(
            f"{len(found)} classes are called {wanted!r}: {listed}{more}",
            "a name that stands for one class",
            "give the whole name, or the index in parentheses",
        )
    return found[0]


def _listing(names: Sequence[str]) -> str:
    """Quote names in a row."""
    return " or ".join(map(repr, names))
