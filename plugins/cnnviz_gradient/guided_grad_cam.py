"""Guided Grad-CAM."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

from cnnviz_core.explainer import Maps, Presentation
from cnnviz_core.layers import AUTO, on_grid, resolve_layer
from cnnviz_core.maps import channel_means, relu, resize, weight_channels
from cnnviz_core.model import INPUT, Array, Model
from cnnviz_core.parameters import Help
from cnnviz_core.rules import GUIDED
from cnnviz_core.targets import Target, cotangent_of, resolve_all, scores_of, target_node

__all__ = ["GuidedGradCAM"]


@dataclass(frozen=True)
class GuidedGradCAM:
    """Guided backpropagation, kept where Grad-CAM is positive.

    The raw result is the guided gradient times the positive part of the Grad-CAM map, which is
    resized bilinearly to the picture: the detail of the one, the class of the other.

    Parameters
    ----------
    layer : str
        The layer of the Grad-CAM map; "auto" is the last one with a spatial grid.

    References
    ----------
    Selvaraju et al., "Grad-CAM: visual explanations from deep networks via gradient-based
    localization", ICCV 2017, section 3.2.
    """

    layer: Annotated[
        str, Help("layer of the Grad-CAM map; auto is the last with a spatial grid")
    ] = AUTO

    needs: ClassVar[frozenset[str]] = frozenset({"capture", "gradient", "rule:relu"})

    def passes(self, model: Model, x: Array) -> int:
        """Say how many forward passes one sample takes, a backward pass counted as two."""
        return 6

    def explain(self, model: Model, x: Array, targets: Sequence[Target]) -> Maps:
        """Explain the targets' scores on a batch.

        Parameters
        ----------
        model : Model
            The network.
        x : ndarray (N, H, W, C)
            The batch.
        targets : sequence of Target
            One for each sample.

        Returns
        -------
        Maps
            With the raw result (N, H, W, C), signed.

        Raises
        ------
        RuleError
            If no rectifier lies between the score and the picture.
        UnknownLayerError
            If the layer does not exist or has no spatial grid.
        """
        layer = resolve_layer(model, self.layer, x)
        of, cotangent = target_node(targets), cotangent_of(targets)
        plain = model.pullback(x, cotangent, of=of, wrt=(layer.name,))
        guided = model.pullback(x, cotangent, of=of, wrt=(INPUT,), rule=GUIDED)
        features = on_grid(plain.values[layer.name], layer)
        weights = channel_means(on_grid(plain.gradients[layer.name], layer))
        where = resize(relu(weight_channels(features, weights)), x.shape[1:-1])
        return Maps(
            raw=guided.gradients[INPUT] * where[..., None],
            scores=scores_of(targets, plain.values[of]),
            targets=resolve_all(targets, plain.values[of]),
            layer=layer.name,
            presentation=Presentation(sign="absolute", reduce="max-abs"),
        )
