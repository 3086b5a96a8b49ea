"""How much the methods that ask a network many times do, the same for every library."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Work:
    """How much every library does with one picture.

    Attributes
    ----------
    side : int
        The picture's height and width, in pixels.
    window, stride : int
        The square that occlusion moves, and its step, in pixels.
    samples : int
        How many masks other methods take; where one cannot take any number, one near to it.
    batch_size : int
        How many changed pictures go through the network at once.
    steps : int
        How many steps activation maximisation takes.
    budget : int
        Of the walk through all methods those that take more forward passes are left out.
    """

    side: int = 224
    window: int = 32
    stride: int = 8
    samples: int = 256
    batch_size: int = 16
    steps: int = 16
    budget: int = 3000

    @property
    def positions(self) -> int:
        """How many positions the window has, the last ones flush with the edges."""
        return (math.ceil((self.side - self.window) / self.stride) + 1) ** 2

    @property
    def designs(self) -> int:
        """The rows of each design of Sobol's, for 8 x 8 cells."""
        return max(2, 2 ** round(math.log2(self.samples / (8 * 8 + 2))))

    @property
    def blocks(self) -> np.ndarray:
        """The segments: 7 x 7 blocks, numbered (H, W)."""
        return self._blocks(7, 7)

    @property
    def few(self) -> np.ndarray:
        """The segments for Shapley values, of which all coalitions are taken: 2 x 4 blocks."""
        return self._blocks(2, 4)

    def settings(self, method: str) -> dict[str, Any]:
        """Give the parameters of one of our methods for as much work.

        Parameters
        ----------
        method : str
            Its name in the registry.

        Returns
        -------
        dict
        """
        own: dict[str, dict[str, Any]] = {
            "occlusion": {"window": self.window, "stride": self.stride},
            "rise": {"samples": self.samples},
            "lime": {"samples": self.samples, "segmentation": self.blocks},
            "kernel-shap": {"samples": self.samples, "segmentation": self.blocks},
            "shapley-values": {"segmentation": self.few},
            "sobol": {"samples": self.designs, "cells": 8},
            "hsic": {"samples": self.samples, "cells": 7},
        }
        return {"fill": 0.0, "batch_size": self.batch_size, **own[method]}

    def _blocks(self, rows: int, columns: int) -> np.ndarray:
        """Number the blocks of a grid at each pixel."""
        along = np.arange(self.side)
        return (along * rows // self.side)[:, None] * columns + along * columns // self.side
