"""The command that reruns an evaluation."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from typing import Any, Final

from cnnviz.evaluation.asking import Asked as Chosen
from cnnviz.evaluation.engine import Plan
from cnnviz.evaluation.entries import TRUTH
from cnnviz.explaining import BATCH
from cnnviz_core.layers import AUTO

__all__ = ["USUAL", "command_of"]

USUAL: Final[Mapping[str, Any]] = {
    "target": TRUTH,
    "layer": AUTO,
    "batch_size": BATCH,
    "seed": 0,
    "resamples": 1000,
}
"""What is meant where nothing is asked for."""


def command_of(
    model: Any, data: Any, methods: Chosen, metrics: Chosen, made: Plan, given: Mapping[str, Any]
) -> str:
    """Write the command that does the same as a call of `cnnviz.evaluate`.

    Parameters
    ----------
    model, data, methods, metrics
        As they were given.
    made : Plan
        What was made of them.
    given : mapping of str to value
        The other arguments, by the options' names; None and defaults are left out.

    Returns
    -------
    str
        Empty where something was given that cannot be typed, such as an object.
    """
    identities = [m.identity for m in made.methods] + [m.identity for m in made.measures]
    announced = all(identity["plugin"] for identity in identities)
    labelled = isinstance(methods, Mapping) or isinstance(metrics, Mapping)
    typed = all(isinstance(each, (str, os.PathLike)) for each in (model, data))
    if labelled or not (announced and typed):
        return ""
    parts = ["cnnviz", "evaluate", "--model", os.fspath(model), "--data", os.fspath(data)]
    parts += ["--methods", ",".join(method.label for method in made.methods)]
    parts += ["--metrics", ",".join(measure.label for measure in made.measures)]
    for name, value in given.items():
        if value is not None and value != USUAL.get(name):
            parts += [f"--{name.replace('_', '-')}", _typed(value)]
    return shlex.join(parts)


def _typed(value: Any) -> str:
    """Write an argument as it is typed: mappings and lists with commas."""
    if isinstance(value, Mapping):
        return ",".join(f"{name}={called}" for name, called in value.items())
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
