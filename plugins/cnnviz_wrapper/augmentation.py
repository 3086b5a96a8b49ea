"""Test-time augmentation: a method on mirrored and scaled copies, mapped back and averaged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Annotated, Any

import numpy as np

from cnnviz_core.errors import ArrayError, TargetError
from cnnviz_core.explainer import Maps, passes_of
from cnnviz_core.model import Array, Model, as_float
from cnnviz_core.parameters import Help, Range
from cnnviz_core.scoring import Scored, score
from cnnviz_core.targets import Target
from cnnviz_wrapper.wrapping import Copy, Wrapper, explain_copies

__all__ = ["Augmentation"]


@dataclass(frozen=True)
class Augmentation(Wrapper):
    """Mean of a method's results on transformed copies, each mapped back first.

    The copies are the sample and its mirror image, each times ``1 - multiply``, 1 and
    ``1 + multiply``: six in all.  Mirrored is the last spatial axis, left and right of a picture,
    and the result on a mirrored copy is mirrored back at its own resolution, before the mean.  So
    the map of a mirrored picture is the picture's map, mirrored, whatever the network.  A copy is
    multiplied in the network's own value range, where 0 is often a mean colour: its contrast
    changes.

    The targets are fixed on the sample itself, and the scores are the sample's own.  A target about
    positions, such as a region of a segmentation, is mirrored with the copy.

    Parameters
    ----------
    of : str
        The inner method: its name, or its name and parameters, "occlusion(window=48, stride=16)".
    layer : str
        The layer that the inner method looks at, if it looks at one.
    batch_size : int
        How many copies go through the network at once.
    flip : bool
        Whether there are mirrored copies.
    multiply : float
        By how much copies are made weaker and stronger; 0 leaves those out.

    References
    ----------
    Gildenblat et al., "PyTorch library for CAM methods", 2021, ``aug_smooth``, which averages maps
    after each has lost its negative part and was scaled to [0, 1]; here the raw maps are averaged.
    """

    flip: Annotated[bool, Help("also copies that are mirrored, left to right")] = True
    multiply: Annotated[
        float, Range(0, 1, open_high=True), Help("also copies times 1 - this and 1 + this; 0: none")
    ] = 0.1

    def passes(self, model: Model, x: Array) -> int:
        """Say how much work one sample takes.

        Parameters
        ----------
        model : Model
            The network.
        x : ndarray (N, ...)
            The batch.

        Returns
        -------
        int
            In forward passes: one for the scores, and the inner method's for each copy.
        """
        return 1 + len(self._transformations()) * passes_of(self.inner, model, x)

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
            With a raw result of the inner method's shape, without its extras.

        Raises
        ------
        ArrayError
            If the samples have no spatial axis to mirror.
        TargetError
            If the targets are about positions that cannot be mirrored.
        CnnvizError
            As the inner method does.
        """
        inner, x = self.inner, as_float(x)
        axis = x.ndim - 2  # of x, and of raw results with and without channels
        if self.flip and axis < 1:
            raise ArrayError(
                f"samples of the shape {x.shape[1:]} have no spatial axis to mirror",
                "(N, ...size, C), as (N, H, W, C)",
                "pass flip=False",
            )
        whole = score(model, x, targets)
        mirrored = self._mirrored_targets(whole, x)
        transformations = self._transformations()

        def copy(flip: bool, factor: float) -> Copy:
            seen = np.ascontiguousarray(np.flip(x, axis)) if flip else x
            changed = seen if factor == 1 else seen * x.dtype.type(factor)
            return changed, mirrored if flip else whole.targets

        parts = explain_copies(
            inner,
            model,
            (copy(flip, factor) for flip, factor in transformations),
            samples=len(x),
            total=len(transformations),
            batch_size=self.batch_size,
            what=f"test-time augmentation of {self.of}",
        )
        total: Any = 0.0
        for (flip, _), part in zip(transformations, parts, strict=True):
            back = np.flip(part.raw, axis) if flip else part.raw
            total = total + back.astype(np.float64)
        return Maps(
            raw=(total / len(transformations)).astype(part.raw.dtype),
            scores=whole.scores,
            targets=whole.targets,
            layer=part.layer,
            presentation=part.presentation,
            notes=part.notes,
        )

    def _transformations(self) -> list[tuple[bool, float]]:
        """List the copies: whether each is mirrored, and what it is multiplied by."""
        factors = [1.0, 1 - self.multiply, 1 + self.multiply] if self.multiply else [1.0]
        return list(product([False, True] if self.flip else [False], factors))

    def _mirrored_targets(self, whole: Scored, x: Array) -> Sequence[Target]:
        """Give the targets as they are about a mirrored copy."""
        rank = whole.value.ndim
        if not self.flip or rank == 2:
            return whole.targets
        if rank != x.ndim:
            raise TargetError(
                f"the targets are about a value of the shape {whole.value.shape[1:]}, whose "
                "positions cannot be mirrored",
                f"a vector, or {x.ndim - 2} spatial axes and one of channels",
                "pass flip=False",
            )
        return [_Mirrored(target) for target in whole.targets]


@dataclass(frozen=True)
class _Mirrored:
    """A target about positions, asked of a mirrored sample."""

    target: Target

    @property
    def of(self) -> str:
        """The node whose value is scored."""
        return self.target.of

    def score(self, value: Array) -> float:
        """Score the value, mirrored back."""
        return self.target.score(np.flip(value, -2))

    def gradient(self, value: Array) -> Array:
        """Differentiate the score."""
        return np.flip(self.target.gradient(np.flip(value, -2)), -2)

    def resolve(self, value: Array) -> Target:
        """Return the target itself: it was fixed before."""
        return self
