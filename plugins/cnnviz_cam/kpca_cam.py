"""KPCA-CAM."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Final, Literal

import numpy as np

from cnnviz_cam.observing import observe_features
from cnnviz_core.explainer import Maps
from cnnviz_core.layers import AUTO
from cnnviz_core.maps.principal import centred, sign_like, vectors_of
from cnnviz_core.model import Array, Model
from cnnviz_core.parameters import Help, Range
from cnnviz_core.targets import Target

__all__ = ["KPCACAM"]

DEGREE: Final = 3
"""The power of the polynomial kernel."""
OFFSET: Final = 1.0
"""What the polynomial and the sigmoid kernel add to the scaled product."""

Kernel = Literal["sigmoid", "rbf", "poly", "linear"]


@dataclass(frozen=True)
class KPCACAM:
    """Positions along the first kernel principal component of their feature vectors.

    The layer's features at all positions, less their mean, are vectors ``x_p``; their kernel matrix
    ``k(x_p, x_q)``, centred over rows and columns, has the largest eigenvalue ``l`` with the unit
    eigenvector ``u``.  The raw map is ``sqrt(l) u``; its positive part is shown.  The kernels, and
    their constants, are those of scikit-learn:

    - "sigmoid": ``tanh(gamma <x, y> + 1)``
    - "rbf": ``exp(-gamma |x - y|^2)``
    - "poly": ``(gamma <x, y> + 1)^3``
    - "linear": ``<x, y>``, with which the map is that of centred Eigen-CAM.

    That the features are centred before the kernel is taken follows the authors' code, in
    pytorch-grad-cam; it changes the sigmoid and the polynomial kernel.  The sign of ``u`` is
    arbitrary: it is chosen so that the map correlates positively with the sum of the feature maps.
    The map is the same for every target.  Memory grows with the square of the number of positions.
    Where most distances are large against ``gamma ** -0.5``, the "rbf" kernel is nearly the
    identity, and its map only tells the few positions that are alike from all others.

    Parameters
    ----------
    layer : str
        The layer whose feature maps are used; "auto" is the last one with a spatial grid.
    kernel : {"sigmoid", "rbf", "poly", "linear"}
        How alike two positions are.
    gamma : float or None
        The kernel's scale; None is 1 over the number of channels.

    References
    ----------
    Karmani et al., "KPCA-CAM: visual explainability of deep computer vision models using kernel
    PCA", 2024; Schölkopf, Smola and Müller, "Nonlinear component analysis as a kernel eigenvalue
    problem", Neural Computation 10, 1998.
    """

    layer: Annotated[str, Help("layer to look at; auto is the last one with a spatial grid")] = AUTO
    kernel: Annotated[Kernel, Help("how alike two positions are")] = "sigmoid"
    gamma: Annotated[
        float | None, Range(0, open_low=True), Help("scale of the kernel; none: 1 / channels")
    ] = None

    needs: ClassVar[frozenset[str]] = frozenset({"capture"})
    class_agnostic: ClassVar[bool] = True

    def explain(self, model: Model, x: Array, targets: Sequence[Target]) -> Maps:
        """Explain what a layer sees in a batch.

        Parameters
        ----------
        model : Model
            The network.
        x : ndarray (N, H, W, C)
            The batch.
        targets : sequence of Target
            One for each sample; they change the scores only.

        Returns
        -------
        Maps
            With the raw map (N, h, w) at the layer's size, before its positive part is taken.

        Raises
        ------
        UnknownLayerError
            If the layer does not exist or has no spatial grid.
        """
        seen = observe_features(model, x, targets, self.layer)
        gamma = self.gamma or 1 / seen.features.shape[-1]
        maps = [_component(v, self.kernel, gamma) for v in vectors_of(seen.features)]
        raw = np.stack(maps).reshape(seen.features.shape[:-1])
        return seen.maps(raw.astype(seen.features.dtype))


def _component(vectors: Array, kernel: Kernel, gamma: float) -> Array:
    """Compute one sample's positions (P,) along the first component of its vectors (P, K)."""
    from scipy.linalg import eigh

    if not np.isfinite(vectors).all():
        return np.full(len(vectors), np.nan)
    features = centred(vectors.astype(np.float64))
    if not features.any():
        return np.zeros(len(vectors))
    alike = _kernel(features, kernel, gamma)
    means = alike.mean(axis=0)
    alike += means.mean() - means - means[:, None]
    last = len(alike) - 1
    (value,), vector = eigh(
        alike, subset_by_index=(last, last), overwrite_a=True, check_finite=False
    )
    found = np.sqrt(max(value, 0.0)) * vector[:, 0]
    return found * sign_like(found, features.sum(axis=1))


def _kernel(features: Array, kernel: Kernel, gamma: float) -> Array:
    """Compute the kernel matrix (P, P) of feature vectors (P, K)."""
    products = features @ features.T
    if kernel == "linear":
        return products
    if kernel == "rbf":
        squares = np.diagonal(products)
        return np.exp(-gamma * np.maximum(squares + squares[:, None] - 2 * products, 0))
    shifted = gamma * products + OFFSET
    return shifted**DEGREE if kernel == "poly" else np.tanh(shifted)
