"""A network's operations, as far as it matters which of their values a change can reach."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from cnnviz_core.spatial import Window

__all__ = ["Kind", "Operation"]

Kind: TypeAlias = Literal["input", "window", "pointwise", "concatenate", "mean", "whole"]
"""What of its inputs an operation needs for a position: a window, the same position, the same
position of several that stand behind each other, or all.  "mean" is the average of all positions;
"whole" may be anything."""


@dataclass(frozen=True)
class Operation:
    """One operation of a network.

    Attributes
    ----------
    kind : str
        One of `Kind`.
    grid : tuple of int
        Its positions along each axis; () where its values have no positions.
    channels : int
        How many values it has at each position.
    inputs : tuple of int
        Which earlier operations it reads, as indices.  An input of "pointwise" that has another
        grid, a single position perhaps, is read by all positions.
    work : float
        Multiply-adds for each position.
    along : tuple of Window
        How a "window" reads its only input, one for each axis; it ends in `border`.
    border : float
        What a "window" reads beyond the ends of its input: 0, or minus infinity in a maximum.
    """

    kind: Kind
    grid: tuple[int, ...]
    channels: int
    inputs: tuple[int, ...] = ()
    work: float = 0.0
    along: tuple[Window, ...] = ()
    border: float = 0.0
