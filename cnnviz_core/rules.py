"""Backward rules as data: how a gradient passes certain kinds of operation.

A rule maps a kind of operation to the step taken there; where it names no step, the operation's own
derivative is taken.  A backend interprets the steps with the means of its framework.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

__all__ = ["DECONVNET", "GUIDED", "STANDARD", "BackwardRule", "ReluStep"]


@dataclass(frozen=True)
class ReluStep:
    """The backward step at a rectifier (ReLU, ReLU6, leaky ReLU).

    With ``g`` the gradient that arrives from above and ``d`` the rectifier's own derivative, the
    gradient handed down is ``gate(g)``, rectified where asked: ``gate(g) = d * g`` or ``g``.

    Attributes
    ----------
    gate : bool
        Multiply by the rectifier's own derivative (1 where it let the signal through).
    rectify : bool
        Keep only the positive part.
    """

    gate: bool
    rectify: bool


@dataclass(frozen=True)
class BackwardRule:
    """How a gradient passes certain kinds of operation.

    Attributes
    ----------
    name : str
        For messages and provenance.
    steps : mapping of str to step
        From the kind of operation ("relu") to the step taken there.

    Examples
    --------
    >>> BackwardRule("rectified", {"relu": ReluStep(gate=True, rectify=True)}) == GUIDED
    False
    >>> GUIDED.needs
    frozenset({'rule:relu'})
    """

    name: str
    steps: Mapping[str, ReluStep] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", MappingProxyType(dict(self.steps)))

    def __hash__(self) -> int:
        return hash((self.name, frozenset(self.steps.items())))

    @property
    def needs(self) -> frozenset[str]:
        """The capabilities that a model must have for this rule."""
        return frozenset(f"rule:{kind}" for kind in self.steps)


STANDARD: Final = BackwardRule("standard")
"""The plain gradient."""

GUIDED: Final = BackwardRule("guided", {"relu": ReluStep(gate=True, rectify=True)})
"""Guided backpropagation: Springenberg et al., "Striving for simplicity", 2015, figure 1."""

DECONVNET: Final = BackwardRule("deconvnet", {"relu": ReluStep(gate=False, rectify=True)})
"""Deconvnet: Zeiler & Fergus, "Visualizing and understanding convolutional networks", 2014."""
