"""The least and the greatest values that a network's input can have, as parameters give them."""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import numpy as np

from cnnviz_core.errors import ParameterError
from cnnviz_core.explainer import Explainer
from cnnviz_core.model import Array
from cnnviz_core.parameters import parameters_of

__all__ = ["ENDS", "Bounds", "End", "asks_for_bounds", "bounds_of"]

ENDS: Final = ("low", "high")
"""What the parameters are called."""

End: TypeAlias = float | Array | None
"""One value for all channels or one for each; None where it is not known."""

Bounds: TypeAlias = tuple[tuple[float, ...], tuple[float, ...]]
"""As of `cnnviz_core.rules.BackwardRule.bounds`."""


def bounds_of(low: End, high: End, channels: int) -> Bounds | None:
    """Give bounds as a rule takes them.

    Parameters
    ----------
    low, high : float, ndarray (C,), or None
        The least and the greatest values.
    channels : int
        How many channels the input has.

    Returns
    -------
    tuple of two tuples of float, or None
        One value where all channels have the same; None where neither end is known.

    Raises
    ------
    ParameterError
        If only one of them is known, one has another number of channels, or no value lies between
        them in some channel.
    """
    if low is None and high is None:
        return None
    if low is None or high is None:
        raise ParameterError(
            f"low is {low} and high is {high}", "both or neither", "pass the other one too"
        )
    ends = [np.atleast_1d(np.asarray(end, dtype=np.float64)) for end in (low, high)]
    for name, end in zip(("low", "high"), ends, strict=True):
        if end.shape not in ((1,), (channels,)):
            raise ParameterError(
                f"{name} has the shape {end.shape}, and the input has {channels} channels",
                "one value, or one for each channel",
                f"pass {channels} values, in the network's own value range",
            )
    if not (ends[0] <= ends[1]).all():
        raise ParameterError(
            f"low is {low} and high is {high}",
            "a high that is not below low in any channel",
            "pass the values that the blackest and the whitest pixel have for the network",
        )
    low_values, high_values = (_shortest(end) for end in ends)
    return low_values, high_values


def asks_for_bounds(explainer: Explainer) -> bool:
    """Tell whether a method wants to be told the least and the greatest values of the input.

    Parameters
    ----------
    explainer : Explainer
        The method.  It asks by the parameters ``low`` and ``high``, which take arrays and are None.
        One whose ``needs_bounds`` is False does not ask.

    Returns
    -------
    bool
    """
    made: Any = explainer
    takes = {p.name for p in parameters_of(type(explainer)) if np.ndarray in p.types}
    asks = takes.issuperset(ENDS) and getattr(made, "needs_bounds", True)
    return bool(asks) and all(getattr(made, end) is None for end in ENDS)


def _shortest(end: Array) -> tuple[float, ...]:
    """Give one value where all channels have the same."""
    values = tuple(end.tolist())
    return values[:1] if len(set(values)) == 1 else values
