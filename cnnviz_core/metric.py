"""The ``Metric`` protocol: what maps are worth, picture by picture, and over a data set.

A metric makes a record of each explained picture, numbers of fixed shapes, and sums up the records
of many.  So pictures can be measured in any order and in batches of any size, what is done can be
kept, and a data set can be resampled to say how sure its number is.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import numpy as np

from cnnviz_core.errors import ArrayError
from cnnviz_core.explainer import Explainer, Maps, present
from cnnviz_core.model import Array, Model
from cnnviz_core.targets import Target

__all__ = ["IGNORED", "Annotation", "Explained", "Metric", "resampled"]

IGNORED = 255
"""The value of a mask's pixels that count for nothing."""


@dataclass(frozen=True, eq=False)
class Annotation:
    """What is known of one picture: the object that a map should point at.

    Attributes
    ----------
    label : int or None
        Its class.
    boxes : ndarray (B, 4)
        Its boxes, (x0, y0, x1, y1) in pixels of the network's input, half-open: a box of one pixel
        is one wide.  They lie within the input: what was cropped away of them is cut off.
    mask : ndarray (H, W) of uint8, or None
        Which pixels of the input are the object's: 1, or 0, or `IGNORED`.
    difficult : bool
        Whether those who annotated the picture thought its object hard to see.
    picture : tuple of int, or None
        (height, width) of the picture itself; the input's where it is None.
    part : tuple of float, or None
        The part of the picture that the input shows, (x0, y0, x1, y1) in its pixels; all of it
        where it is None.  It reaches beyond the picture where the input is padded.
    name : str
        What the picture is called.
    """

    label: int | None = None
    boxes: Array = field(default_factory=lambda: np.zeros((0, 4)))
    mask: Array | None = None
    difficult: bool = False
    picture: tuple[int, int] | None = None
    part: tuple[float, float, float, float] | None = None
    name: str = ""

    def __post_init__(self) -> None:
        boxes = np.asarray(self.boxes, dtype=np.float64).reshape(-1, 4)
        if not np.isfinite(boxes).all() or (boxes[:, 2:] <= boxes[:, :2]).any():
            raise ArrayError(
                f"a box of {self.name or 'a picture'} has no area: {boxes.tolist()}",
                "(x0, y0, x1, y1) with x0 < x1 and y0 < y1",
                "leave the box out",
            )
        object.__setattr__(self, "boxes", boxes)


@dataclass(frozen=True, eq=False)
class Explained:
    """A batch of pictures that one method has explained.

    Attributes
    ----------
    model : Model
        The network.
    explainer : Explainer
        The method.
    x : ndarray (N, H, W, C)
        The pictures, in the network's own value range.
    maps : Maps
        What the method returned for them; its targets are resolved.
    annotations : tuple of Annotation
        What is known of each picture.
    batch_size : int
        How many pictures a metric should put through the network at once.
    seed : int
        For what a metric draws.
    kept : dict
        What metrics keep for the next batch of the same network, under keys of their own.  An
        evaluation passes the same one with all its batches, and lets go of it at its end.
    """

    model: Model
    explainer: Explainer
    x: Array
    maps: Maps
    annotations: tuple[Annotation, ...]
    batch_size: int = 16
    seed: int = 0
    kept: dict[Hashable, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        counts = {len(self.x), len(self.maps.raw), len(self.annotations)}
        if len(counts) != 1 or len(self.maps.targets) not in counts:
            raise ArrayError(
                f"{len(self.x)} pictures have {len(self.maps.raw)} maps, "
                f"{len(self.maps.targets)} targets and {len(self.annotations)} annotations",
                "as many of each",
                "give each picture a map, its resolved target and an annotation",
            )

    def __len__(self) -> int:
        return len(self.x)

    @property
    def size(self) -> tuple[int, ...]:
        """The input's positions along each axis, (H, W)."""
        return self.x.shape[1:-1]

    @cached_property
    def shown(self) -> Array:
        """The maps as the method's authors show them, at the input's size: (N, H, W), float64."""
        return self._shown(self.maps)

    def again(
        self, x: Array, targets: Sequence[Target], model: Model | None = None
    ) -> tuple[Maps, Array]:
        """Explain other pictures, or another network, by the same method.

        Parameters
        ----------
        x : ndarray (M, H, W, C)
            The pictures, of the same size.
        targets : sequence of Target
            One for each.
        model : Model, optional
            Another network; the same one if left out.

        Returns
        -------
        maps : Maps
            What the method returned.
        shown : ndarray (M, H, W)
            The maps as the method's authors show them.
        """
        maps = self.explainer.explain(self.model if model is None else model, x, targets)
        return maps, self._shown(maps)

    def _shown(self, maps: Maps) -> Array:
        """Bring maps to the input's size."""
        shown, _ = present(maps.raw.astype(np.float64), self.size, maps.presentation)
        return shown


@runtime_checkable
class Metric(Protocol):
    """A metric: a frozen dataclass whose fields are its parameters.

    Four methods are optional.  ``passes(model, x) -> int`` says beforehand how many forward passes
    the measuring of one map takes, counted as `cnnviz_core.explainer.passes_of` does, and
    ``explanations(model, x) -> int`` how often the method is
    run again for it (`Explained.again`); both are 0 where they are missing.  ``curves(records)``
    gives, of the records of a data set, exhibits that show more than the numbers, such as accuracy
    over a threshold.  ``resample(records, counts)`` gives at once what `summarise` would give of
    many data sets, as `resampled` does, of which it is the fast way: a mean becomes a product of
    matrices.

    Attributes
    ----------
    needs : frozenset of str
        The capabilities that a model must have (`Model.capabilities`).
    """

    @property
    def needs(self) -> frozenset[str]:
        """The capabilities that a model must have; of most metrics a ``ClassVar``."""
        ...

    def measure(self, explained: Explained) -> Mapping[str, Array]:
        """Measure the maps of a batch.

        Parameters
        ----------
        explained : Explained
            The batch.

        Returns
        -------
        mapping of str to ndarray (N, ...)
            The records: real numbers, of the same shapes for every picture.  Rows of NaN for
            pictures on which there is nothing to measure, such as those without a box.
        """
        ...

    def summarise(self, records: Mapping[str, Array]) -> Mapping[str, float]:
        """Sum up the records of a data set.

        Parameters
        ----------
        records : mapping of str to ndarray (N, ...)
            Those of any number of pictures, one row each; rows of NaN are left out.

        Returns
        -------
        mapping of str to float
            The most important number first; NaN where there is nothing to sum up.
        """
        ...


def resampled(metric: Metric, records: Mapping[str, Array], counts: Array) -> Mapping[str, Array]:
    """Sum up many data sets that are made of the pictures of one.

    Parameters
    ----------
    metric : Metric
        The metric: one that has the method ``resample`` is asked once, another one data set after
        data set.
    records : mapping of str to ndarray (N, ...)
        Its records of the pictures.
    counts : ndarray (R, N) of float64
        How often each picture stands in each of R data sets, at least one: whole numbers from 0.

    Returns
    -------
    mapping of str to ndarray (R,)
        The numbers of `Metric.summarise`; NaN for a data set of which it does not tell one.
    """
    at_once = getattr(metric, "resample", None)
    if at_once is not None:
        found: Mapping[str, Array] = at_once(records, counts)
        return found
    summaries = []
    for times in counts.astype(np.int64):
        rows = np.repeat(np.arange(len(times)), times)
        summaries.append(metric.summarise({name: array[rows] for name, array in records.items()}))
    names = dict.fromkeys(name for summary in summaries for name in summary)
    return {name: np.array([each.get(name, np.nan) for each in summaries]) for name in names}
