"""Relevance of the input's values or of a layer's, under any rule."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final, Literal, TypeAlias

import numpy as np

from cnnviz_core.explainer import Maps, Presentation
from cnnviz_core.layers import on_grid, resolve_layer
from cnnviz_core.model import INPUT, Array, LayerInfo, Model
from cnnviz_core.rules import BackwardRule
from cnnviz_core.targets import Target, cotangent_of, resolve_all, scores_of, target_node

__all__ = ["Unknown", "grid_layer", "handed_down", "of_score", "passing"]

Unknown: TypeAlias = Literal["refuse", "gradient"]
"""What to do at an operation for which a rule has no step."""

_NAMED: Final = 3


def passing(rule: BackwardRule, unknown: Unknown) -> BackwardRule:
    """Say what a rule does at an operation for which it has no step.

    Parameters
    ----------
    rule : BackwardRule
        Any rule of relevance.
    unknown : {"refuse", "gradient"}
        Refuse, or have the gradient pass there and note it.

    Returns
    -------
    BackwardRule
    """
    return replace(rule, unknown="mark" if unknown == "gradient" else "refuse")


def of_score(targets: Sequence[Target]) -> Callable[[Array], Array]:
    """Give the function that turns the value at the targets' node into its relevance.

    Parameters
    ----------
    targets : sequence of Target
        One for each sample.

    Returns
    -------
    callable
        From the value (N, ...) to the score's gradient times the value, of its shape.  Of a score
        that is linear in the value, such as a class's logit, it adds up to the score.
    """
    gradient = cotangent_of(targets)
    return lambda value: gradient(value) * value


def grid_layer(model: Model, layer: str, x: Array) -> LayerInfo:
    """Find a layer that has a grid; see `cnnviz_core.layers.resolve_layer`.

    Parameters
    ----------
    model : Model
        The network.
    layer : str
        A layer's name, or "auto".
    x : ndarray (N, ...)
        The batch to be explained.

    Returns
    -------
    LayerInfo

    Raises
    ------
    UnknownLayerError
        If the layer does not exist or has no spatial grid.
    """
    info = resolve_layer(model, layer, x)
    # A layer without a grid is often one behind which a rule finds nothing to do; that it has none
    # is what a user can mend.
    on_grid(np.empty((0, *info.shape)), info)
    return info


def handed_down(
    model: Model,
    x: Array,
    targets: Sequence[Target],
    rule: BackwardRule,
    start: Callable[[Array], Array],
    layer: LayerInfo | None,
    presentation: Presentation,
) -> Maps:
    """Hand relevance down from the targets' node to the input or a layer.

    Parameters
    ----------
    model : Model
        The network.
    x : ndarray (N, ...size, C)
        The batch.
    targets : sequence of Target
        One for each sample.
    rule : BackwardRule
        How.
    start : callable
        From the value at the targets' node to its relevance.
    layer : LayerInfo or None
        Where it ends; None is the input.
    presentation : Presentation
        How to show it.

    Returns
    -------
    Maps
        The raw relevance of the input's values, of the shape of `x`, or of a layer's positions,
        summed over its channels.

    Raises
    ------
    RuleError
        If the rule refuses an operation on the way, or meets none for which it has a step.
    UnknownLayerError
        If the targets' node does not depend on the layer.
    """
    of = target_node(targets)
    node = INPUT if layer is None else layer.name
    back = model.pullback(x, start, of=of, wrt=(node,), rule=rule)
    relevance = back.gradients[node]
    return Maps(
        raw=relevance if layer is None else on_grid(relevance, layer).sum(axis=-1),
        scores=scores_of(targets, back.values[of]),
        targets=resolve_all(targets, back.values[of]),
        layer=None if layer is None else layer.name,
        presentation=presentation,
        notes=_notes(rule, back.unruled),
    )


def _notes(rule: BackwardRule, unruled: Sequence[str]) -> tuple[str, ...]:
    """Say which operations the gradient passed in the place of relevance."""
    names = list(dict.fromkeys(unruled))
    if not names:
        return ()
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    below = "it" if len(names) == 1 else "them"
    return (
        f"the gradient passed {', '.join(names[:_NAMED])}{more}, for which {rule.name} has no "
        f"step: relevance below {below} is not conserved",
    )
