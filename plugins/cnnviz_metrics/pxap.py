"""PxAP: the average precision of a map's pixels, over all pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from cnnviz_core.errors import ArrayError
from cnnviz_core.exhibits import Curves, Exhibit, Line
from cnnviz_core.metric import IGNORED, Explained
from cnnviz_core.model import Array
from cnnviz_core.parameters import Help, Range
from cnnviz_metrics._maps import unit_maps
from cnnviz_metrics._regions import mask_of
from cnnviz_metrics._rows import Resampled, counted, measured, ratio, total

__all__ = ["PxAP", "average_precision", "precision_recall", "score_histograms"]


def score_histograms(
    maps: Array, masks: Sequence[Array | None], step: float = 0.01
) -> tuple[Array, Array]:
    """Count the pixels of the object, and of the background, by their values in a map.

    Parameters
    ----------
    maps : ndarray (N, h, w)
        In [0, 1].
    masks : sequence of ndarray (h, w), or None
        Of each picture: 1 where the object is, 0 where not, `cnnviz_core.metric.IGNORED` where it
        does not count.
    step : float
        How many values share a count, in (0, 1].  Those of 1 have a count of their own.

    Returns
    -------
    objects, background : ndarray (N, K) of float64
        The counts, those of the least values first; NaN for pictures without a mask.

    Raises
    ------
    ArrayError
        If a map leaves [0, 1], or a mask is not of its size.

    Examples
    --------
    >>> map = np.array([[[0.0, 0.2, 0.6, 1.0]]])
    >>> [c.tolist() for c in score_histograms(map, [np.array([[0, 0, 1, 1]])], 0.5)]
    [[[0.0, 1.0, 1.0]], [[2.0, 0.0, 0.0]]]
    """
    maps = np.asarray(maps)
    if maps.ndim != 3 or (maps.size and not (maps.min() >= 0 and maps.max() <= 1)):
        raise ArrayError(
            f"maps of the shape {maps.shape} were given, or ones that leave [0, 1]",
            "(N, h, w), from 0 to 1",
            "scale them with cnnviz_core.maps.min_max",
        )
    edges = np.append(np.arange(0, 1, step), 1.0)
    objects, background = np.full((2, len(maps), len(edges)), np.nan)
    for row, (map, mask) in enumerate(zip(maps, masks, strict=True)):
        if mask is None:
            continue
        if np.shape(mask) != map.shape:
            raise ArrayError(
                f"a map of the shape {map.shape} has a mask of the shape {np.shape(mask)}",
                "one shape for both",
                "resize the map to the mask",
            )
        level = np.searchsorted(edges, map, side="right") - 1
        objects[row] = np.bincount(level[mask == 1], minlength=len(edges))
        background[row] = np.bincount(level[mask == 0], minlength=len(edges))
    return objects, background


def precision_recall(objects: Array, background: Array) -> tuple[Array, Array]:
    """Give precision and recall of the pixels above each of several thresholds.

    Parameters
    ----------
    objects, background : ndarray (..., K)
        Counts of pixels, those of the least values first.

    Returns
    -------
    precision, recall : ndarray (..., K) of float64
        From the highest threshold down; precision is NaN as long as no pixel lies above, recall if
        there is no pixel of an object at all.

    Examples
    --------
    >>> [c.tolist() for c in precision_recall([1, 0, 3], [5, 1, 0])]
    [[1.0, 0.75, 0.4], [0.75, 0.75, 1.0]]
    """
    right, wrong = (
        np.cumsum(np.asarray(pixels, np.float64)[..., ::-1], axis=-1)
        for pixels in (objects, background)
    )
    return ratio(right, right + wrong), ratio(right, right[..., -1:])


def average_precision(objects: Array, background: Array) -> Array:
    """Give the area under precision over recall, as a sum of steps.

    Parameters
    ----------
    objects, background : ndarray (..., K)
        Counts of pixels, those of the least values first.

    Returns
    -------
    ndarray (...) of float64
        In [0, 1]: the sum over the thresholds, from the highest down, of the precision times what
        the recall grows by.  NaN if there is no pixel of an object.

    References
    ----------
    Choe et al., "Evaluating weakly supervised object localization methods right", CVPR 2020,
    section 4.1: PxAP.

    Examples
    --------
    >>> average_precision([1, 0, 3], [5, 1, 0]).round(3).tolist()
    0.85
    """
    precision, recall = precision_recall(objects, background)
    area = np.nansum(precision * np.diff(recall, prepend=0, axis=-1), axis=-1)
    return np.where(np.isnan(recall[..., -1]), np.nan, area)


@dataclass(frozen=True)
class PxAP(Resampled):
    """Average precision of the pixels of all pictures, where the object's mask is known.

    Maps are brought to the input's size by bicubic interpolation and scaled to [0, 1] each.  The
    pixels of all pictures are then judged together by one threshold, whatever picture they are of;
    pixels whose mask says `cnnviz_core.metric.IGNORED` are left out.

    Parameters
    ----------
    step : float
        The distance of the thresholds.

    References
    ----------
    Choe et al., "Evaluating weakly supervised object localization methods right", CVPR 2020,
    section 4.1.
    """

    step: Annotated[float, Range(0, 1, open_low=True), Help("distance of the thresholds")] = 0.01

    needs: ClassVar[frozenset[str]] = frozenset()

    def measure(self, explained: Explained) -> Mapping[str, Array]:
        """Measure the maps of a batch.

        Parameters
        ----------
        explained : Explained
            The batch.

        Returns
        -------
        mapping of str to ndarray
            ``objects`` and ``background`` (N, K), as `score_histograms` gives them.
        """
        masks = [
            None if annotation.mask is None else mask_of(annotation, explained.size)
            for annotation in explained.annotations
        ]
        # A picture of which no pixel counts tells nothing.
        masks = [None if mask is None or (mask == IGNORED).all() else mask for mask in masks]
        objects, background = score_histograms(unit_maps(explained), masks, self.step)
        return {"objects": objects, "background": background}

    def resample(self, records: Mapping[str, Array], counts: Array) -> Mapping[str, Array]:
        """Sum up data sets in which pictures stand several times; see `resampled`.

        Parameters
        ----------
        records : mapping of str to ndarray
            Those of any number of pictures.
        counts : ndarray (R, N)
            How often each picture stands in each data set.

        Returns
        -------
        mapping of str to ndarray (R,)
            ``average_precision``, and the ``share`` of pixels that are an object's: what a map gets
            that is the same everywhere.  Both in [0, 1].
        """
        counts, objects, background = counted(counts, records["objects"], records["background"])
        objects, background = total(counts, objects), total(counts, background)
        pixels = objects.sum(axis=1) + background.sum(axis=1)
        return {
            "average_precision": average_precision(objects, background),
            "share": ratio(objects.sum(axis=1), pixels),
        }

    def curves(self, records: Mapping[str, Array]) -> tuple[Exhibit, ...]:
        """Draw precision over recall; nothing where no pixel is an object's."""
        counts = measured(records["objects"], records["background"])
        precision, recall = precision_recall(*(each.sum(axis=0) for each in counts))
        if np.isnan(recall).any():
            return ()
        lines = (
            Line("map", precision),
            Line("the same everywhere", np.full_like(precision, precision[-1])),
        )
        return (
            Curves(
                recall,
                lines,
                title="Precision over recall",
                x_title="recall: share of the objects' pixels above the threshold",
                y_title="precision: objects' share of what is above",
                y_range=(0, 1),
            ),
        )
