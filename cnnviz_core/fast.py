"""Whether work is done the fast way, and when preparing for that pays."""

from __future__ import annotations

import os
from typing import Final

from cnnviz_core.model import PREPARE, Array, Model, preparable

__all__ = ["MANY", "fast_paths", "prepared"]

MANY: Final = 64
"""From how many samples on a prepared model is worth what it takes to make: some eight of them, and
five more once it is differentiated."""

_VARIABLE: Final = "CNNVIZ_FAST"


def fast_paths() -> bool:
    """Tell whether fast ways may be taken, which give the same but for rounding.

    Returns
    -------
    bool
        False where the environment has ``CNNVIZ_FAST=0``.
    """
    return os.environ.get(_VARIABLE, "1").strip().lower() not in ("0", "false", "no", "off")


def prepared(model: Model, x: Array, samples: int) -> Model:
    """Give a model, or a faster one of the same network where so many samples go through it.

    What is decided depends on the arguments alone, so that the same call gives the same numbers.

    Parameters
    ----------
    model : Model
        The network.
    x : ndarray (N, ...)
        An input like those that will follow.
    samples : int
        How many samples will go through it.

    Returns
    -------
    Model
        See `cnnviz_core.model.PreparableModel.prepared`.

    Raises
    ------
    ArrayError
        If `x` does not fit.
    """
    if samples < MANY or PREPARE not in model.capabilities or not fast_paths():
        return model
    return preparable(model).prepared(x, samples)
