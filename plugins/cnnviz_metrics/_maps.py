"""Maps at a size of one's choice, and in [0, 1]."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from cnnviz_core.explainer import present
from cnnviz_core.maps import min_max
from cnnviz_core.metric import Explained
from cnnviz_core.model import Array

_ROUNDING: Final = 1e-12


def unit_maps(explained: Explained) -> Array:
    """Give a batch's maps (N, H, W) at the input's size, by bicubic interpolation, in [0, 1].

    The channels and the sign are treated as the method's authors do it.  Maps that are flat or not
    finite become zeros.
    """
    how = replace(explained.maps.presentation, upsample="bicubic")
    maps, _ = present(explained.maps.raw.astype(np.float64), explained.size, how)
    return np.where(is_flat(maps)[:, None, None], 0, min_max(maps))


def is_flat(maps: Array) -> Array:
    """Tell of each map (N, h, w) whether it is the same everywhere, but for rounding.

    Interpolation leaves differences in the last digits of a map that was the same everywhere.
    """
    highest, least = maps.max(axis=(1, 2)), maps.min(axis=(1, 2))
    with np.errstate(invalid="ignore", over="ignore"):
        return highest - least <= _ROUNDING * np.maximum(np.abs(highest), np.abs(least))
