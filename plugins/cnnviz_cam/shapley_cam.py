"""ShapleyCAM."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Final, Literal

import numpy as np

from cnnviz_cam.finer_cam import classes_of
from cnnviz_cam.observing import Observed
from cnnviz_core.explainer import Maps
from cnnviz_core.layers import AUTO, on_grid, resolve_layer
from cnnviz_core.maps import channel_means
from cnnviz_core.model import LOGITS, Array, Model, curved
from cnnviz_core.parameters import Help
from cnnviz_core.targets import (
    Target,
    cotangent_of,
    probabilities,
    resolve_all,
    scores_of,
    target_node,
)

__all__ = ["ShapleyCAM"]

STEP: Final = float(np.finfo(np.float64).eps ** 0.2)
"""Where the rounding and the truncation of a five-point derivative are about equal."""


@dataclass(frozen=True)
class ShapleyCAM:
    """Feature maps weighted by the score's gradient less half of its curvature along them.

    With ``A`` the layer's feature maps, ``G`` and ``H`` the gradient and the Hessian of the score
    with respect to them, the weight of a channel is the spatial mean of ``G - H A / 2``, and the
    raw map is the weighted sum of the feature maps; its positive part is shown.  This is the
    Shapley value of a position, where the score is taken to second order around the sample and a
    position that is left out is 0.

    On a network whose layers after this one are rectifiers, pools and linear layers, the Hessian of
    a class's score before the softmax is 0, and the map is that of Grad-CAM.  The Hessian speaks
    where the score is curved: the probability of a class, smooth activations, or the utility that
    the paper proposes, ``y_c + log softmax(y)_c`` ("ReST"), which takes the other classes into
    account without the vanishing gradient of a probability near 1.

    Parameters
    ----------
    layer : str
        The layer whose feature maps are weighted; "auto" is the last one with a spatial grid.
    utility : {"target", "rest"}
        What is differentiated: the target's score as it is, or for the score of a class the
        paper's residual softmax target-class utility, of the same class.

    References
    ----------
    Cai, "CAMs as Shapley value-based explainers", The Visual Computer, 2025, arXiv:2501.06261.
    """

    layer: Annotated[str, Help("layer to look at; auto is the last one with a spatial grid")] = AUTO
    utility: Annotated[
        Literal["target", "rest"],
        Help("differentiate the target's score, or its sum with the log-probability of its class"),
    ] = "target"

    needs: ClassVar[frozenset[str]] = frozenset({"capture", "gradient", "curvature"})

    def passes(self, model: Model, x: Array) -> int:
        """Count the most forward passes for one sample: a third fewer where no score is curved."""
        return 9

    def explain(self, model: Model, x: Array, targets: Sequence[Target]) -> Maps:
        """Explain the targets' scores on a batch.

        Parameters
        ----------
        model : Model
            The network.
        x : ndarray (N, H, W, C)
            The batch.
        targets : sequence of Target
            One for each sample; the score of a class where the utility is "rest".

        Returns
        -------
        Maps
            With the raw map (N, h, w) at the layer's size, before its positive part is taken;
            `scores` are the targets', whatever the utility.

        Raises
        ------
        MissingCapabilityError
            If the model offers no second derivatives.
        UnknownLayerError
            If the layer does not exist or has no spatial grid.
        TargetError
            If the utility is "rest" and a target is not the score of a class.
        """
        layer, of = resolve_layer(model, self.layer, x), target_node(targets)
        bent = curved(model).curvature(
            x,
            lambda value: cotangent_of(self._utilities(targets, value))(value),
            lambda features: features,
            of=of,
            wrt=layer.name,
        )
        value = bent.values[of]
        weights = bent.gradient - bent.bend / 2
        turned = _derivative(self._utilities(targets, value), value, bent.tangent)
        if turned.any():
            back = model.pullback(x, turned.astype(value.dtype), of=of, wrt=(layer.name,))
            weights = weights - back.gradients[layer.name] / 2
        seen = Observed(
            layer,
            on_grid(bent.values[layer.name], layer),
            scores_of(targets, value),
            resolve_all(targets, value),
            value,
        )
        return seen.weighted(channel_means(on_grid(weights, layer)))

    def _utilities(self, targets: Sequence[Target], value: Array) -> Sequence[Target]:
        """Give what is differentiated."""
        if self.utility == "target":
            return resolve_all(targets, value)
        return [_Rest(index) for index in classes_of(targets, value, "shapley-cam, utility='rest'")]


@dataclass(frozen=True)
class _Rest:
    """A class's score plus the logarithm of its probability."""

    index: int
    of: ClassVar[str] = LOGITS

    def score(self, value: Array) -> float:
        """Return twice the score, less the logarithm of the softmax's denominator."""
        top = value.max()
        return float(2 * value[self.index] - top - np.log(np.exp(value - top).sum()))

    def gradient(self, value: Array) -> Array:
        """Return 2 at the class, less the probabilities."""
        gradient = -probabilities(value, "softmax")
        gradient[self.index] += 2
        return gradient

    def resolve(self, value: Array) -> _Rest:
        """Return the utility itself."""
        return self


def _derivative(targets: Sequence[Target], value: Array, tangent: Array) -> Array:
    """Differentiate the targets' gradients along a tangent: ``T''(z) dz`` for each sample.

    By five points in float64, exactly 0 for targets that are linear, and in error by about 1e-12 of
    the largest entry for those that are smooth.
    """
    turned = np.zeros(value.shape)
    for row, target, z, dz in zip(turned, targets, value, tangent, strict=True):
        z, dz = z.astype(np.float64), dz.astype(np.float64)
        length = float(np.abs(dz).max(initial=0))
        if length > 0:
            # Targets vary over differences of 1, or, if small values are compared, over these.
            scale = min(1.0, float(np.abs(z).max())) or 1.0
            h = STEP * scale / length
            near = target.gradient(z + h * dz) - target.gradient(z - h * dz)
            far = target.gradient(z + 2 * h * dz) - target.gradient(z - 2 * h * dz)
            row[...] = (8 * near - far) / (12 * h)
    return turned
