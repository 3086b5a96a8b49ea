"""What an evaluation costs, said before it starts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from cnnviz_core.metric import Metric
from cnnviz_core.model import Array, Model

__all__ = ["Cost", "passes_to_measure"]

_MINUTE: Final = 60
_HOUR: Final = 3600


@dataclass(frozen=True)
class Cost:
    """The work of an evaluation.

    Attributes
    ----------
    items, methods, metrics : int
        How many there are.
    passes : int
        Forward passes that are still to be made, counted as by `cnnviz_core.explainer.passes_of`.
    done : int
        Those that an earlier run has made.
    seconds : float
        What one forward pass of one item takes, as measured in batches.
    """

    items: int
    methods: int
    metrics: int
    passes: int
    done: int
    seconds: float

    @property
    def time(self) -> float:
        """The time that the passes take, in seconds."""
        return self.passes * self.seconds

    def __str__(self) -> str:
        what = ", ".join(
            f"{count:,} {noun}{'' if count == 1 else 's'}"
            for count, noun in (
                (self.items, "item"),
                (self.methods, "method"),
                (self.metrics, "metric"),
            )
        )
        if not self.passes:
            return f"{what}: all is done already"
        done = f"; {self.done:,} more are done already" if self.done else ""
        return (
            f"{what}: about {self.passes:,} forward passes, {_duration(self.time)} "
            f"at {_short(self.seconds)} each{done}"
        )


def passes_to_measure(metric: Metric, model: Model, x: Array, explaining: int) -> int:
    """Give the forward passes that the measuring of one map takes.

    Parameters
    ----------
    metric : Metric
        The metric.  Its ``passes`` are counted, and its ``explanations``, which tell how often it
        runs the method again.
    model : Model
        The network.
    x : ndarray (N, H, W, C)
        A batch.
    explaining : int
        The passes of the method.

    Returns
    -------
    int
    """
    passes, again = (getattr(metric, name, None) for name in ("passes", "explanations"))
    own = 0 if passes is None else int(passes(model, x))
    return own + (0 if again is None else explaining * int(again(model, x)))


def _duration(seconds: float) -> str:
    """Say roughly how long something takes."""
    if seconds < 1:
        return "less than a second"
    if seconds < 2 * _MINUTE:
        return f"about {seconds:.0f} s"
    if seconds < 2 * _HOUR:
        return f"about {seconds / _MINUTE:.0f} min"
    return f"about {seconds / _HOUR:.1f} h"


def _short(seconds: float) -> str:
    """Write the time of one pass."""
    digits = 2 - math.floor(math.log10(max(1000 * seconds, 1e-3))) - 1
    return f"{1000 * seconds:.{max(digits, 0)}f} ms"
