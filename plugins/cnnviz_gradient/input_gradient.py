"""The gradient of the targets' scores with respect to the picture, under any backward rule."""

from __future__ import annotations

from collections.abc import Sequence

from cnnviz_core.explainer import Maps, Presentation
from cnnviz_core.model import INPUT, Array, Model
from cnnviz_core.rules import BackwardRule
from cnnviz_core.targets import Target, cotangent_of, resolve_all, scores_of, target_node

__all__ = ["input_gradient"]


def input_gradient(model: Model, x: Array, targets: Sequence[Target], rule: BackwardRule) -> Maps:
    """Differentiate the targets' scores with respect to a batch.

    Parameters
    ----------
    model : Model
        The network.
    x : ndarray (N, H, W, C)
        The batch.
    targets : sequence of Target
        One for each sample.
    rule : BackwardRule
        How the gradient passes certain operations.

    Returns
    -------
    Maps
        With the raw gradient (N, H, W, C), signed; its largest magnitude over the channels shows.

    Raises
    ------
    RuleError
        If the rule would change nothing.
    """
    of = target_node(targets)
    back = model.pullback(x, cotangent_of(targets), of=of, wrt=(INPUT,), rule=rule)
    return Maps(
        raw=back.gradients[INPUT],
        scores=scores_of(targets, back.values[of]),
        targets=resolve_all(targets, back.values[of]),
        presentation=Presentation(sign="absolute", reduce="max-abs"),
    )
