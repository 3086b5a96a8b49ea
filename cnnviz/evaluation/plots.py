"""Plots of an evaluation: what a metric shows of each method, on one figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from cnnviz.evaluation.asking import Measure
from cnnviz.wording import slug
from cnnviz_core.exhibits import Curves, Exhibit, Line
from cnnviz_core.model import Array

__all__ = ["plots_of"]


def plots_of(measure: Measure, records: Mapping[str, Mapping[str, Array]]) -> tuple[Exhibit, ...]:
    """Draw a metric's curves with one line for each method.

    Parameters
    ----------
    measure : Measure
        The metric.
    records : mapping of str to mapping of str to ndarray (N, ...)
        By method.

    Returns
    -------
    tuple of Exhibit
        Of curves with several lines there is a figure for each line; but one line beside straight
        ones that are the same for all methods, such as that of chance, has these on its figure.
        Bands around lines are left out.  Other exhibits are given for each method.  Empty where the
        metric has no curves.
    """
    curves: Any = getattr(measure.metric, "curves", None)
    if curves is None:
        return ()
    shown = {method: tuple(curves(own)) for method, own in records.items()}
    found: list[Exhibit] = []
    for k in range(max(map(len, shown.values()), default=0)):
        own = {method: each[k] for method, each in shown.items() if k < len(each)}
        lined = {method: each for method, each in own.items() if isinstance(each, Curves)}
        found += _merged(measure.label, lined) if lined else []
        found += [
            replace(each, title=f"{measure.label} of {method}: {each.title}".rstrip(": "))
            for method, each in own.items()
            if method not in lined
        ]
    return tuple(found)


def _merged(metric: str, curves: Mapping[str, Curves]) -> list[Curves]:
    """Put the lines of all methods on one axis."""
    first = next(iter(curves.values()))
    axis = _axis([each.x for each in curves.values()])
    lines = {
        method: {line.name: _on(axis, each.x, line) for line in each.lines}
        for method, each in curves.items()
    }
    names = list(dict.fromkeys(line.name for each in curves.values() for line in each.lines))
    apart = [name for name in names if not _is_shared(name, axis, lines)]
    if len(apart) != 1:
        apart = names
    common = [next(iter(lines.values()))[name] for name in names if name not in apart]
    named = slug(first.title).startswith(slug(metric))
    title = first.title if named else f"{metric}: {first.title}".rstrip(": ")
    return [
        replace(
            first,
            x=axis,
            lines=(
                *(Line(method, own[name].y) for method, own in lines.items() if name in own),
                *common,
            ),
            title=f"{title}, {name}" if len(apart) > 1 else title,
            pictures=(),
            marks=(),
        )
        for name in apart
    ]


def _is_shared(name: str, axis: Array, lines: Mapping[str, Mapping[str, Line]]) -> bool:
    """Tell whether a line is a yardstick: straight, and the same for several methods."""
    own = np.stack([each[name].y for each in lines.values() if name in each])
    known = np.isfinite(own).all(axis=0)
    if len(own) < 2 or not known.any():
        return False
    x, y = axis[known], own[0, known]
    straight = np.interp(x, x[[0, -1]], y[[0, -1]])
    return bool(np.allclose(own[:, known], y) and np.allclose(y, straight))


def _axis(axes: Sequence[Array]) -> Array:
    """Give the places of all axes, those of the first where they are the same."""
    if all(np.array_equal(axes[0], axis) for axis in axes):
        return axes[0]
    return np.unique(np.concatenate(axes))


def _on(axis: Array, x: Array, line: Line) -> Line:
    """Give a line the values at the places of a common axis, by straight pieces."""
    if axis is x or np.array_equal(axis, x):
        return line
    order = np.argsort(x, kind="stable")
    y = np.interp(axis, x[order], line.y[order], left=np.nan, right=np.nan)
    return Line(line.name, y)
