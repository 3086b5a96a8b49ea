"""Scoring a batch: the forward pass with which most methods that are no single gradient begin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cnnviz_core.model import LOGITS, OUTPUT, Array, Model
from cnnviz_core.targets import Target, resolve_all, scores_of, target_node

__all__ = ["Scored", "score"]


@dataclass(frozen=True)
class Scored:
    """A batch's scores.

    Attributes
    ----------
    of : str
        The node that the targets are about.
    value : ndarray (N, ...)
        The value there.
    scores : ndarray (N,)
        The targets' scores.
    targets : tuple of Target
        The targets, resolved: what depends on the sample, such as which class is predicted, is
        fixed, and stays so when the sample is changed.
    """

    of: str
    value: Array
    scores: Array
    targets: tuple[Target, ...]


def score(model: Model, x: Array, targets: Sequence[Target]) -> Scored:
    """Score a batch, in one forward pass.

    Parameters
    ----------
    model : Model
        The network.
    x : ndarray (N, ...)
        The batch.
    targets : sequence of Target
        One for each sample, all about one node.

    Returns
    -------
    Scored

    Raises
    ------
    TargetError
        If the numbers differ, or a target does not fit the value.
    """
    of = target_node(targets)
    value = model.forward(x, capture=() if of in (LOGITS, OUTPUT) else (of,))[of]
    return Scored(of, value, scores_of(targets, value), resolve_all(targets, value))
