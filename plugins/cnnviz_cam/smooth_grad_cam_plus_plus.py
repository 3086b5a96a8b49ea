"""Smooth Grad-CAM++."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Annotated, ClassVar

import numpy as np

from cnnviz_cam.grad_cam_plus_plus import plus_plus_weights
from cnnviz_cam.observing import observe_features
from cnnviz_core.explainer import Maps
from cnnviz_core.layers import AUTO, on_grid
from cnnviz_core.model import Array, Model, as_float
from cnnviz_core.noise import noisy_copies
from cnnviz_core.parameters import Help, Range
from cnnviz_core.progress import advance
from cnnviz_core.targets import Target, cotangent_of, target_node

__all__ = ["SmoothGradCAMPlusPlus"]


@dataclass(frozen=True)
class SmoothGradCAMPlusPlus:
    """Grad-CAM++ with its derivatives averaged over noisy copies of the sample.

    With ``A_k`` the k-th feature map of the layer on the sample itself, and ``D1``, ``D2``, ``D3``
    the means over the copies of ``G``, ``G^2`` and ``G^3``, where ``G`` is the gradient of the
    target's score with respect to the feature maps of a copy, a position's share is
    ``alpha = D2 / (2 D2 + D3 sum_ab A_k[a, b])``, the weight of a channel is
    ``sum_ij alpha max(D1, 0)``, and the raw map is the weighted sum of the feature maps; its
    positive part is shown.  A copy is the sample plus normal noise, whose standard deviation is a
    fraction of the sample's range ``max - min``.

    The paper prints the first derivative in the numerator of ``alpha``.  The second, which stands
    here, makes one copy without noise Grad-CAM++, the method that it smooths.  As in Grad-CAM++
    powers of the gradient stand for the higher derivatives; the factors ``exp(y)``, which would
    let the copies with the highest scores decide, are left out.

    Parameters
    ----------
    layer : str
        The layer whose feature maps are weighted; "auto" is the last one with a spatial grid.
    samples : int
        How many noisy copies.
    noise : float
        The noise's standard deviation, as a fraction of the sample's range.
    seed : int
        For NumPy's generator.  Every sample of a batch gets the same draws.
    batch_size : int
        How many copies go through the network at once.

    References
    ----------
    Omeiza et al., "Smooth Grad-CAM++: an enhanced inference level visualization technique for deep
    convolutional neural network models", 2019, arXiv:1908.01224.
    """

    layer: Annotated[str, Help("layer to look at; auto is the last one with a spatial grid")] = AUTO
    samples: Annotated[int, Range(1), Help("how many noisy copies")] = 25
    noise: Annotated[
        float,
        Range(0),
        Help("the noise's standard deviation, as a share of the sample's range"),
    ] = 0.15
    seed: Annotated[int, Range(0), Help("for NumPy's generator")] = 0
    batch_size: Annotated[int, Range(1), Help("how many copies go through at once")] = 16

    needs: ClassVar[frozenset[str]] = frozenset({"capture", "gradient"})

    def passes(self, model: Model, x: Array) -> int:
        """Count the forward passes for one sample; a backward pass counts as two."""
        return 1 + 3 * self.samples

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
            With the raw map (N, h, w) at the layer's size, before its positive part is taken.

        Raises
        ------
        UnknownLayerError
            If the layer does not exist or has no spatial grid, or the score does not depend on it.
        """
        x = as_float(x)
        seen = observe_features(model, x, targets, self.layer)
        # Resolved, so that a copy is asked about the class that the sample itself is.
        of, node = target_node(seen.targets), seen.layer.name
        first, second, third = (np.zeros(seen.features.shape) for _ in range(3))
        stream, done = noisy_copies(x, self.noise, self.samples, self.seed), 0
        while copies := list(islice(stream, max(1, self.batch_size // len(x)))):
            cotangent = cotangent_of(seen.targets * len(copies))
            back = model.pullback(np.concatenate(copies), cotangent, of=of, wrt=(node,))
            gradients = on_grid(back.gradients[node], seen.layer).astype(np.float64)
            for gradient in np.split(gradients, len(copies)):
                first += gradient
                second += gradient**2
                third += gradient**3
            done += len(copies)
            advance("noisy copies", done, self.samples)
        means = (total / self.samples for total in (first, second, third))
        return seen.weighted(plus_plus_weights(seen.features, *means))
