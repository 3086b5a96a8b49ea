"""What of a network's output a picture is judged by when its pixels are changed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal, TypeAlias

import numpy as np

from cnnviz_core.metric import Explained
from cnnviz_core.model import Array
from cnnviz_core.parameters import Help
from cnnviz_core.targets import ClassProbability, ClassScore, Target

ScoreOf: TypeAlias = Annotated[
    Literal["probability", "target"],
    Help("what is scored: the probability of the explained class, or the explained score itself"),
]
"""The probability of the class that was explained, or the score that was explained.  They are the
same for targets that are no class's score, and for networks whose scores are no softmax's or
sigmoid's."""


def judged(explained: Explained, score: Literal["probability", "target"]) -> tuple[Target, ...]:
    """Give the targets by which the pictures of a batch are judged."""
    ends = explained.model.activation
    if score == "target" or ends not in ("softmax", "sigmoid"):
        return explained.maps.targets
    activation: Literal["softmax", "sigmoid"] = "sigmoid" if ends == "sigmoid" else "softmax"
    return tuple(
        ClassProbability(target.index, activation) if isinstance(target, ClassScore) else target
        for target in explained.maps.targets
    )


def each_map(maps: Array, what: str) -> Iterator[tuple[int, Array, str]]:
    """Go through the maps that are finite: the row, the map, and what is done, for the progress."""
    for row, map in enumerate(maps):
        if np.isfinite(map).all():
            yield row, map, f"{what}, picture {row + 1} of {len(maps)}"
