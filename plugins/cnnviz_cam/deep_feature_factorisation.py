"""Deep feature factorisation."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Final, Literal

import numpy as np

from cnnviz_cam.observing import observe
from cnnviz_core.errors import ParameterError
from cnnviz_core.explainer import Maps
from cnnviz_core.layers import AUTO
from cnnviz_core.maps.principal import leading_pairs, vectors_of
from cnnviz_core.model import Array, Model
from cnnviz_core.parameters import Help, Range
from cnnviz_core.targets import Target

__all__ = ["DeepFeatureFactorisation", "factorise"]

ITERATIONS: Final = 2000
"""Sweeps of coordinate descent, at most."""
TOLERANCE: Final = 1e-6
"""Stop where the gradient's violation of the constraints has fallen to this fraction."""


@dataclass(frozen=True)
class DeepFeatureFactorisation:
    """Feature maps factorised into a few concepts; the map of the one that speaks for the target.

    The positive part of the layer's features at all positions is a matrix ``A`` (P, K), factorised
    as ``A ~ M V`` with ``M`` (P, k) and ``V`` (k, K) without negative values: each concept is a
    vector of K channels, of length 1, and a map of the P positions.  Concepts are in the order of
    their maps' sums.

    With ``g_p`` the gradient of the target's score with respect to the features at a position,
    ``c_j = sum_p M[p, j] <g_p, V_j>`` is what concept ``j`` contributes to the score, to first
    order; over the concepts these sum to gradient times the factorised features.  The raw map is
    that of the concept with the largest contribution, or of the one that is asked for.

    The paper factorises the features of many pictures at once, so that concepts are common to them;
    here each sample is factorised by itself, and its map does not depend on its batch.

    Parameters
    ----------
    layer : str
        The layer whose feature maps are factorised; "auto" is the last one with a spatial grid.
        Of a layer without a rectifier the negative values are lost.
    concepts : int
        How many concepts.
    concept : int or "target"
        Whose map: that of the concept which contributes most to the target's score, or one by its
        place in the order, from 0.

    References
    ----------
    Collins, Achanta and Süsstrunk, "Deep feature factorization for concept discovery", ECCV 2018,
    section 3; for the start of the factorisation Boutsidis and Gallopoulos, "SVD based
    initialization: a head start for nonnegative matrix factorization", Pattern Recognition 41,
    2008.
    """

    layer: Annotated[str, Help("layer to look at; auto is the last one with a spatial grid")] = AUTO
    concepts: Annotated[int, Range(1), Help("how many concepts")] = 4
    concept: Annotated[
        int | Literal["target"],
        Range(0),
        Help("place of the concept to show, or the one that speaks most for the target"),
    ] = "target"

    needs: ClassVar[frozenset[str]] = frozenset({"capture", "gradient"})

    @property
    def class_agnostic(self) -> bool:
        """Whether the map is the same for every target: where a concept is asked for by place."""
        return self.concept != "target"

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
            With the raw map (N, h, w) of one concept, at the layer's size.  Its extras are
            "concepts" (N, h, w, k), the maps of all; "vectors" (N, k, K), what they consist of;
            and "contributions" (N, k), what they contribute to the score.

        Raises
        ------
        UnknownLayerError
            If the layer does not exist or has no spatial grid.
        ParameterError
            If there are more concepts than channels or positions, or `concept` is none of them.
        """
        if self.concept != "target" and self.concept >= self.concepts:
            raise ParameterError(
                f"concept={self.concept} was asked for, of concepts={self.concepts}",
                f"from 0 to {self.concepts - 1}, or 'target'",
                "ask for more concepts, or for another one",
            )
        seen = observe(model, x, targets, self.layer)
        features, gradients = vectors_of(seen.features), vectors_of(seen.gradients)
        samples, positions, channels = features.shape
        if self.concepts > min(positions, channels):
            raise ParameterError(
                f"concepts={self.concepts} were asked for, and layer {seen.layer.name!r} has "
                f"{channels} channels at {positions} positions",
                f"at most {min(positions, channels)}",
                "ask for fewer, or look at another layer",
            )
        factors = [factorise(sample, self.concepts) for sample in features]
        maps = np.stack([m for m, _ in factors])
        vectors = np.stack([v for _, v in factors])
        contributions = np.einsum("npj,npk,njk->nj", maps, gradients, vectors, optimize=True)
        chosen = (
            contributions.argmax(axis=1)
            if self.concept == "target"
            else np.full(samples, self.concept)
        )
        kind, grid = seen.features.dtype, seen.features.shape[1:-1]
        shown = np.take_along_axis(maps, chosen[:, None, None], axis=2)
        return seen.maps(
            shown.reshape(samples, *grid).astype(kind),
            extras={
                "concepts": maps.reshape(samples, *grid, self.concepts).astype(kind),
                "vectors": vectors.astype(kind),
                "contributions": contributions.astype(kind),
            },
        )


def factorise(features: Array, concepts: int) -> tuple[Array, Array]:
    """Factorise the positive part of one sample's features into concepts.

    Parameters
    ----------
    features : ndarray (P, K)
        A feature vector for each position.
    concepts : int
        How many concepts; at most P and at most K.

    Returns
    -------
    maps : ndarray (P, concepts)
        How much of each concept there is at each position; the concept with the largest sum comes
        first.
    vectors : ndarray (concepts, K)
        What each concept consists of: unit vectors, zeros for a concept that is not needed.
        Neither array has negative values; both are double precision, and NaN if the features are
        not finite.

    References
    ----------
    Cichocki and Phan, "Fast local algorithms for large scale nonnegative matrix and tensor
    factorizations", IEICE Transactions 92, 2009: the descent, as in scikit-learn.
    """
    if not np.isfinite(features).all():
        nothing = np.nan
    elif (features > 0).any():
        return _factorise(np.maximum(features, 0).astype(np.float64), concepts)
    else:
        nothing = 0.0
    positions, channels = features.shape
    return np.full((positions, concepts), nothing), np.full((concepts, channels), nothing)


def _factorise(features: Array, concepts: int) -> tuple[Array, Array]:
    """Factorise a matrix without negative values that is not zero."""
    from sklearn.decomposition import NMF
    from sklearn.exceptions import ConvergenceWarning

    scale = features.max()
    unit = features / scale  # the result must not depend on the features' unit
    maps, vectors = _start(unit, concepts)
    descent = NMF(
        concepts, init="custom", solver="cd", tol=TOLERANCE, max_iter=ITERATIONS, random_state=0
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the last sweeps change little
        maps = descent.fit_transform(unit, W=maps, H=vectors)
    vectors = descent.components_
    lengths = np.linalg.norm(vectors, axis=1)
    vectors = np.divide(
        vectors, lengths[:, None], out=np.zeros_like(vectors), where=lengths[:, None] > 0
    )
    maps = maps * (lengths * scale)
    order = np.argsort(-maps.sum(axis=0), kind="stable")
    return maps[:, order], vectors[order]


def _start(features: Array, concepts: int) -> tuple[Array, Array]:
    """Begin with the non-negative parts of the leading singular vectors.

    Unlike a random start, it goes with the features when their positions or channels are reordered.
    """
    maps = np.zeros((len(features), concepts))
    vectors = np.zeros((concepts, features.shape[1]))
    left, strengths, right = leading_pairs(features, concepts)
    for j, (u, strength, v) in enumerate(zip(left.T, strengths, right.T, strict=True)):
        # A singular pair has two signs; the one whose positive parts hold more is taken.
        halves = [(np.maximum(s * u, 0), np.maximum(s * v, 0)) for s in (1, -1)]
        sizes = [float(np.linalg.norm(a) * np.linalg.norm(b)) for a, b in halves]
        a, b = halves[int(np.argmax(sizes))]
        if strength * max(sizes) > 0:
            length = np.sqrt(strength * max(sizes))
            maps[:, j] = length * a / np.linalg.norm(a)
            vectors[j] = length * b / np.linalg.norm(b)
    return maps, vectors
