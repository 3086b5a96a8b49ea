"""Segmentation by a thresholded map."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Final, Literal, TypeAlias

import numpy as np

from cnnviz_core.errors import ArrayError, ParameterError
from cnnviz_core.maps import threshold_mask
from cnnviz_core.metric import Explained
from cnnviz_core.model import Array
from cnnviz_core.parameters import Help, Range
from cnnviz_metrics._maps import is_flat
from cnnviz_metrics._regions import mask_of
from cnnviz_metrics._rows import Resampled, counted, mean, ratio, total

__all__ = ["SegmentationIoU", "Threshold", "foreground", "pixel_counts"]

Threshold: TypeAlias = float | Literal["mean", "otsu"]
"""Above what a pixel is foreground: a share of the map's maximum, or what a rule gives."""


def _otsu(map: Array) -> float:
    """Give the value at or below which, and above which, a map's values differ least."""
    values = np.sort(map, axis=None)
    below = np.arange(1, len(values))
    sums = values.cumsum()
    # The variance between the two parts; among equal values it is convex, so none of them is cut.
    between = (sums[-1] * below / len(values) - sums[:-1]) ** 2 / (below * (len(values) - below))
    return float(values[between.argmax()]) if len(below) else float(values[0])


_RULES: Final[dict[str, Callable[[Array], float]]] = {"mean": np.mean, "otsu": _otsu}


def foreground(maps: Array, threshold: Threshold = "mean") -> Array:
    """Mark what a map takes for the object.

    Parameters
    ----------
    maps : ndarray (N, h, w)
        The maps.
    threshold : float, "mean" or "otsu"
        A pixel is marked if it exceeds this share of the map's maximum, in [0, 1]; or the map's
        mean; or Otsu's threshold, at which the values on either side differ least among themselves.

    Returns
    -------
    ndarray (N, h, w) of bool
        Nothing is marked in maps that are not finite, nor by the rules in those that are the same
        everywhere.

    Raises
    ------
    ArrayError
        If `maps` has another rank or no position.
    ParameterError
        If the threshold is out of its range or unknown.

    References
    ----------
    The mean: Chefer et al., "Transformer interpretability beyond attention visualization", CVPR
    2021, section 4.  Otsu, "A threshold selection method from gray-level histograms", IEEE
    Transactions on Systems, Man, and Cybernetics 9, 1979.

    Examples
    --------
    >>> foreground(np.array([[[0.0, 1.0, 5.0]]])).tolist()
    [[[False, False, True]]]
    """
    if not isinstance(threshold, str):
        return threshold_mask(maps, threshold)
    if threshold not in _RULES:
        raise ParameterError(
            f"threshold={threshold!r} is unknown",
            "a share of the maximum, or one of " + ", ".join(map(repr, _RULES)),
            "pass threshold='mean'",
        )
    maps = np.asarray(maps, dtype=np.float64)
    if maps.ndim != 3 or 0 in maps.shape[1:]:
        raise ArrayError(
            f"maps of the shape {maps.shape} were given", "(N, h, w)", "pass map[None] for one map"
        )
    usable = np.isfinite(maps).all(axis=(1, 2)) & ~is_flat(maps)
    finite = np.where(usable[:, None, None], maps, 0)
    levels = np.array([_RULES[threshold](map) for map in finite], np.float64)
    return finite > levels[:, None, None]


def pixel_counts(marked: Array, masks: Array) -> Array:
    """Count the pixels that are rightly and wrongly marked.

    Parameters
    ----------
    marked : ndarray (N, h, w) of bool
        What is taken for the object.
    masks : ndarray (N, h, w)
        What is: 1, or 0, or `cnnviz_core.metric.IGNORED` where it does not count.

    Returns
    -------
    ndarray (N, 4) of int64
        The pixels of the object that are marked, those of the background that are, those of the
        object that are not, those of the background that are not.

    Examples
    --------
    >>> pixel_counts(np.array([[[True, True, False]]]), np.array([[[1, 0, 255]]])).tolist()
    [[1, 1, 0, 0]]
    """
    counts = [
        (said & (np.asarray(masks) == is_object)).sum(axis=(1, 2))
        for said in (marked, ~marked)
        for is_object in (1, 0)
    ]
    return np.stack(counts, axis=1)


@dataclass(frozen=True)
class SegmentationIoU(Resampled):
    """Overlap of what lies above a threshold in a map with the object's mask.

    The map is taken as its method shows it, at the input's size.  Pixels whose mask says
    `cnnviz_core.metric.IGNORED` are left out.

    Parameters
    ----------
    threshold : float, "mean" or "otsu"
        Above what a pixel is taken for the object's: a share of the map's maximum, the map's mean,
        or Otsu's threshold.

    References
    ----------
    Everingham et al., "The PASCAL visual object classes challenge: a retrospective", International
    Journal of Computer Vision 111, 2015: the overlap.  Chefer et al., "Transformer interpretability
    beyond attention visualization", CVPR 2021, section 4: of maps.
    """

    threshold: Annotated[
        Threshold, Range(0, 1), Help("a share of the map's maximum, or its mean, or Otsu's")
    ] = "mean"

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
            ``pixels`` (N, 4), as `pixel_counts` gives them; NaN where no pixel is the object's.
        """
        pixels = np.full((len(explained), 4), np.nan)
        for row, annotation in enumerate(explained.annotations):
            if annotation.mask is None:
                continue
            mask = mask_of(annotation, explained.size)
            if (mask == 1).any():
                marked = foreground(explained.shown[row : row + 1], self.threshold)
                pixels[row] = pixel_counts(marked, mask[None])[0]
        return {"pixels": pixels}

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
            In [0, 1]: ``iou``, the mean over the pictures of the object's intersection over union;
            ``pooled_iou``, that of the pixels of all pictures together; ``mean_iou``, the mean of
            this and of the background's; and ``pixel_accuracy``, the share of all pixels that are
            rightly marked or left.
        """
        counts, pixels = counted(counts, records["pixels"])
        hit, excess, missed, left = total(counts, pixels).T
        pooled = ratio(hit, hit + excess + missed)
        around = ratio(left, left + excess + missed)
        # Where there is no background, and none is claimed, it is met.
        around = np.where((left + excess + missed == 0) & (hit > 0), 1, around)
        return {
            "iou": mean(counts, pixels[:, 0] / pixels[:, :3].sum(axis=1)),
            "pooled_iou": pooled,
            "mean_iou": (pooled + around) / 2,
            "pixel_accuracy": ratio(hit + left, hit + excess + missed + left),
        }
