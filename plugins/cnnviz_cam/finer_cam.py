"""Finer-CAM."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np

from cnnviz_cam.observing import observe
from cnnviz_core.errors import TargetError
from cnnviz_core.explainer import Maps
from cnnviz_core.layers import AUTO
from cnnviz_core.maps import channel_means
from cnnviz_core.model import Array, Model
from cnnviz_core.parameters import Help, Range
from cnnviz_core.targets import (
    ClassScore,
    Target,
    cotangent_of,
    probabilities,
    resolve_all,
    scores_of,
)

__all__ = ["FinerCAM", "classes_of"]


@dataclass(frozen=True)
class FinerCAM:
    """Grad-CAM of the score of a class less a share of the scores of the classes most like it.

    With ``y_c`` the target's score and ``d_1 ... d_T`` the `T` classes whose scores on this sample
    are nearest to ``y_c``, the map is Grad-CAM's of
    ``mean_t (y_c - strength y_d_t) = y_c - strength mean_t y_d_t``; its positive part is shown.
    What the classes have in common is weakened, what tells this one from the others stays.  As the
    weights are linear in the score, this is the mean of the `T` comparisons' raw maps, made in one
    backward pass.  With a strength of 0 it is Grad-CAM.

    The authors' code, and pytorch-grad-cam, weight the comparisons by the probabilities of the
    classes compared with, ``sum_t q_t (y_c - strength y_d_t)`` with ``q`` the softmax over their
    scores, and differentiate through ``q`` too: ``weighting="probability"``.

    Parameters
    ----------
    layer : str
        The layer whose feature maps are weighted; "auto" is the last one with a spatial grid.
    strength : float
        How much of the other classes' scores is taken off.
    references : int
        How many classes to compare with, at most all others.
    weighting : {"mean", "probability"}
        How several comparisons become one.

    References
    ----------
    Zhang et al., "Finer-CAM: spotting the difference reveals finer details for visual explanation",
    CVPR 2025.
    """

    layer: Annotated[str, Help("layer to look at; auto is the last one with a spatial grid")] = AUTO
    strength: Annotated[
        float, Range(0), Help("how much of the scores of similar classes is taken off")
    ] = 0.6
    references: Annotated[int, Range(1), Help("how many similar classes to compare with")] = 3
    weighting: Annotated[
        Literal["mean", "probability"],
        Help("each comparison counts alike (the paper) or by its class's probability (its code)"),
    ] = "mean"

    needs: ClassVar[frozenset[str]] = frozenset({"capture", "gradient"})

    def explain(self, model: Model, x: Array, targets: Sequence[Target]) -> Maps:
        """Explain the targets' scores on a batch.

        Parameters
        ----------
        model : Model
            The network.
        x : ndarray (N, H, W, C)
            The batch.
        targets : sequence of Target
            One for each sample, each the score of a class.

        Returns
        -------
        Maps
            With the raw map (N, h, w) at the layer's size, before its positive part is taken.
            `extras` has "references", the classes compared with (N, T), the most similar first.

        Raises
        ------
        UnknownLayerError
            If the layer does not exist or has no spatial grid.
        TargetError
            If a target is not the score of a class, or there is no other class.
        """
        seen = observe(
            model, x, targets, self.layer, lambda logits: self._cotangent(targets, logits)
        )
        return seen.weighted(
            channel_means(seen.gradients),
            extras={"references": self._nearest(targets, seen.value)},
        )

    def _nearest(self, targets: Sequence[Target], logits: Array) -> Array:
        """Give the classes whose scores are nearest to the target's, (N, T)."""
        own = np.array(classes_of(targets, logits, "finer-cam"))[:, None]
        if logits.shape[1] < 2:
            raise TargetError(
                "the network has a single class",
                "another class to compare with",
                "use grad-cam",
            )
        distances = np.abs(logits - np.take_along_axis(logits, own, 1))
        np.put_along_axis(distances, own, np.inf, 1)
        # Of two classes equally near the lower comes first, on every backend.
        order = np.argsort(distances, axis=1, kind="stable")
        return order[:, : min(self.references, logits.shape[1] - 1)]

    def _cotangent(self, targets: Sequence[Target], logits: Array) -> Array:
        """Differentiate the compared scores with respect to the logits."""
        nearest = self._nearest(targets, logits)
        scores = np.take_along_axis(logits, nearest, 1).astype(np.float64)
        if self.weighting == "mean":
            slopes = np.full(scores.shape, 1 / scores.shape[1])
        else:
            shares = probabilities(scores, "softmax")
            # The second factor is the derivative of the shares themselves.
            slopes = shares * (1 + scores - (shares * scores).sum(1, keepdims=True))
        cotangent = cotangent_of(targets)(logits).astype(np.float64)
        np.put_along_axis(cotangent, nearest, -self.strength * slopes, 1)
        return cotangent.astype(logits.dtype)


def classes_of(targets: Sequence[Target], value: Array, method: str) -> list[int]:
    """Give the classes of which the targets are the scores.

    Parameters
    ----------
    targets : sequence of Target
        One for each sample.
    value : ndarray (N, ...)
        The value at the targets' node.
    method : str
        The method that asks, for the message.

    Returns
    -------
    list of int

    Raises
    ------
    TargetError
        If a target is not the score of a class.
    """
    scores_of(targets, value)  # raises where the targets do not fit the value
    classes = []
    for target in resolve_all(targets, value):
        if not isinstance(target, ClassScore):
            raise TargetError(
                f"{method} was asked about a {type(target).__name__} ({target})",
                "the score of a class before the softmax: a class, or the predicted one",
                "name a class, or use grad-cam, which takes any target",
            )
        classes.append(target.index)
    return classes
