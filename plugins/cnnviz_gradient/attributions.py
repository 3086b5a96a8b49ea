"""What the attributions have in common that add up to a difference of scores."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from cnnviz_core.explainer import Maps, Presentation
from cnnviz_core.model import Array
from cnnviz_core.scoring import Scored

__all__ = ["ATTRIBUTION", "attributed"]

ATTRIBUTION: Final = Presentation(sign="absolute", reduce="sum-abs")
"""The sum of the magnitudes over the channels, as the authors of integrated gradients and of its
blurred and guided kin show them.  ``Presentation(sign="signed", reduce="sum")`` keeps the sum."""


def attributed(seen: Scored, raw: Array, reference: Array, dtype: npt.DTypeLike) -> Maps:
    """Return an attribution that ought to add up to a difference of scores, and how far it is off.

    Parameters
    ----------
    seen : Scored
        The scores of the samples.
    raw : ndarray of float64 (N, ...)
        The attribution to each value of the input.
    reference : ndarray (N,)
        The scores of the baselines.
    dtype : dtype
        The type of the result.

    Returns
    -------
    Maps
        With ``extras["completeness_gap"]`` (N,): the attribution's sum, less the difference of the
        scores of sample and baseline.
    """
    total = raw.reshape(len(raw), -1).sum(axis=1)
    gap = total - (seen.scores.astype(np.float64) - reference)
    return Maps(
        raw=raw.astype(dtype),
        scores=seen.scores,
        targets=seen.targets,
        presentation=ATTRIBUTION,
        extras={"completeness_gap": gap},
    )
