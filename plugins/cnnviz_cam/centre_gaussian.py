"""A Gaussian at the centre, a control."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Annotated, ClassVar

import numpy as np

from cnnviz_core.errors import ArrayError
from cnnviz_core.explainer import Maps
from cnnviz_core.model import Array, Model
from cnnviz_core.parameters import Help, Range
from cnnviz_core.scoring import score
from cnnviz_core.targets import Target

__all__ = ["CentreGaussian"]


@dataclass(frozen=True)
class CentreGaussian:
    """A Gaussian at the picture's centre: what any method must do better than.

    Photographers put objects in the middle, so that a map which looks at nothing at all scores well
    in many measures of localisation.  The raw map is the product over the axes of
    ``exp(-((i - c) / (width n))^2 / 2)``, with ``n`` the picture's side along the axis and
    ``c = (n - 1) / 2`` its centre.

    Parameters
    ----------
    width : float
        The standard deviation along each axis, as a fraction of the picture's side.

    References
    ----------
    Choe et al., "Evaluating weakly supervised object localization methods right", CVPR 2020: the
    centre-Gaussian baseline.
    """

    width: Annotated[
        float, Range(0, open_low=True), Help("standard deviation as a fraction of each side")
    ] = 0.25

    needs: ClassVar[frozenset[str]] = frozenset()
    class_agnostic: ClassVar[bool] = True

    def explain(self, model: Model, x: Array, targets: Sequence[Target]) -> Maps:
        """Make the control's maps of a batch.

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
            With the raw map (N, H, W), in (0, 1].

        Raises
        ------
        ArrayError
            If the batch has no spatial axis.
        """
        if x.ndim < 3:
            raise ArrayError(
                f"a batch of the shape {x.shape} was given",
                "(N, ...size, C), such as (N, H, W, C)",
                "pass pictures, signals or volumes",
            )
        whole = score(model, x, targets)
        size = x.shape[1:-1]
        gaussian = reduce(np.multiply.outer, [self._along(n) for n in size])
        raw = np.broadcast_to(gaussian.astype(whole.scores.dtype), (len(x), *size)).copy()
        return Maps(raw=raw, scores=whole.scores, targets=whole.targets)

    def _along(self, side: int) -> Array:
        """Give the Gaussian's values (side,) along one axis."""
        return np.exp(-0.5 * ((np.arange(side) - (side - 1) / 2) / (self.width * side)) ** 2)
