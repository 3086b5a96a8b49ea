"""Keeping several pictures of one objective apart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cnnviz_core.model import Array

__all__ = ["Diversity"]


@dataclass(frozen=True)
class Diversity:
    """How little alike the textures of a batch's pictures are in a layer's eyes.

    With ``G`` the Gram matrix of a picture's values over the layer's positions, a picture's score
    is the negative mean of the cosine similarities of its ``G`` to that of each other picture of
    its group, times `weight`.

    Attributes
    ----------
    of : str
        The layer's node.
    group : int
        How many pictures that follow each other in the batch are kept apart; it divides the batch.
    weight : float
        At least 0.

    References
    ----------
    Olah et al., "Feature visualization", Distill 2017, "Diversity".
    """

    of: str
    group: int
    weight: float = 1.0

    def scores(self, value: Array) -> Array:
        """Give each picture's score.

        Parameters
        ----------
        value : ndarray (N, ..., C)
            The layer's values.

        Returns
        -------
        ndarray (N,)
            In [-weight, weight]; 0 where a picture is alone.
        """
        if self.group == 1:
            return np.zeros(len(value))
        _, units, _ = self._grams(value)
        alike = np.einsum("gacd,gbcd->gab", units, units)
        others = alike.sum(2) - np.einsum("gaa->ga", alike)
        return (-self.weight / (self.group - 1) * others).reshape(-1)

    def gradient(self, value: Array) -> Array:
        """Differentiate the sum of the scores by the values.

        Parameters
        ----------
        value : ndarray (N, ..., C)
            The layer's values.

        Returns
        -------
        ndarray (N, ..., C)
            Of the same type.
        """
        if self.group == 1:
            return np.zeros_like(value)
        rows, units, lengths = self._grams(value)
        others = units.sum(1, keepdims=True) - units
        # The derivative of a cosine by one of the two: the other, less what is along the first.
        along = np.einsum("gacd,gacd->ga", others, units)[..., None, None]
        by_gram = np.divide(
            others - along * units, lengths, out=np.zeros_like(units), where=lengths > 0
        )
        # Each pair counts twice in the sum, and the Gram matrix is of the second order: 2 * 2.
        gradient = -4 * self.weight / (self.group - 1) * (rows @ by_gram)
        return gradient.reshape(value.shape).astype(value.dtype)

    def _grams(self, value: Array) -> tuple[Array, Array, Array]:
        """Give values (groups, group, positions, C), Gram matrices of length 1, and lengths."""
        flat = value.astype(np.float64).reshape(len(value), -1, value.shape[-1])
        rows = flat.reshape(-1, self.group, *flat.shape[1:])
        grams = rows.swapaxes(-1, -2) @ rows
        lengths = np.linalg.norm(grams, axis=(-2, -1), keepdims=True)
        units = np.divide(grams, lengths, out=np.zeros_like(grams), where=lengths > 0)
        return rows, units, lengths
