"""MaxBoxAcc and MaxBoxAccV2: boxes from maps at the threshold that suits a data set best."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Final, Literal, TypeAlias

import numpy as np

from cnnviz_core.errors import ArrayError, ParameterError
from cnnviz_core.exhibits import Curves, Exhibit, Line
from cnnviz_core.maps import iou
from cnnviz_core.metric import Explained
from cnnviz_core.model import Array
from cnnviz_core.parameters import Help, Range
from cnnviz_metrics._maps import unit_maps
from cnnviz_metrics._regions import boxes_in
from cnnviz_metrics._rows import Resampled, counted, mean
from cnnviz_metrics.boxes_at_levels import contour_boxes, largest_contour_boxes

__all__ = [
    "Contours",
    "MaxBoxAcc",
    "MaxBoxAccV2",
    "accuracies",
    "best_overlaps",
    "boxes_at_thresholds",
]

Contours: TypeAlias = Literal["largest", "every"]
"""Around which contours of a thresholded map boxes are put."""

_GREYS: Final = 255
_ROUNDING: Final = 1e-6
_DELTAS: Final = (0.3, 0.5, 0.7)


def boxes_at_thresholds(
    map: Array, thresholds: Array, contours: Contours = "largest"
) -> list[Array]:
    """Put boxes around what lies above each of several thresholds.

    The map becomes an image of 8 bits, by cutting off what ``255 map`` has behind the point; the
    foreground at threshold t is what exceeds the whole part of t times the image's maximum.

    Parameters
    ----------
    map : ndarray (h, w)
        One map, in [0, 1].
    thresholds : ndarray (T,)
        Shares of the map's maximum, in [0, 1).
    contours : {"largest", "every"}
        Around which contours: that of the largest polygon, or each, those of holes too.

    Returns
    -------
    list of ndarray (k, 4) of int64
        For each threshold its boxes (x0, y0, x1, y1) in pixels, half-open; in no order.  None
        (k = 0) where the map is zero.

    Raises
    ------
    ArrayError
        If the map is not (h, w), or leaves [0, 1].
    ParameterError
        If `contours` is unknown.

    References
    ----------
    Choe et al., "Evaluating weakly supervised object localization methods right", CVPR 2020,
    section 4.1, and "Evaluation for weakly supervised object localization: protocol, metrics, and
    datasets", 2020, for every contour.

    Examples
    --------
    >>> [b.tolist() for b in boxes_at_thresholds(np.array([[0.0, 1.0, 0.5]]), [0, 0.5, 0.9])]
    [[[1, 0, 3, 1]], [[1, 0, 2, 1]], [[1, 0, 2, 1]]]
    """
    image, levels, which = _eight_bits(map, thresholds)
    boxes, start, stop = _finder(contours)(image, levels)
    return [boxes[(start <= level) & (level < stop)] for level in which]


def _eight_bits(map: Array, thresholds: Array) -> tuple[Array, Array, Array]:
    """Give a map's image (h, w), its levels (K,), and which of them a threshold is at (T,)."""
    map = np.asarray(map)
    if map.ndim != 2 or not (map.size and map.min() >= 0 and map.max() <= 1):
        raise ArrayError(
            f"a map of the shape {map.shape} was given, or one that leaves [0, 1]",
            "(h, w), from 0 to 1",
            "scale the maps with cnnviz_core.maps.min_max, and pass one at a time",
        )
    image = (_GREYS * map).astype(np.uint8)
    exact = np.asarray(thresholds, dtype=np.float64) * int(image.max())
    return image, *np.unique(exact.astype(np.int64), return_inverse=True)


def _largest(image: Array, levels: Array) -> tuple[Array, Array, Array]:
    """Give the largest contours' boxes in the form of `contour_boxes`."""
    boxes = largest_contour_boxes(image, levels)
    at = np.flatnonzero(boxes[:, 2] > 0)
    return boxes[at], at, at + 1


_FINDERS: Final = {"largest": _largest, "every": contour_boxes}


def _finder(contours: Contours) -> Callable[[Array, Array], tuple[Array, Array, Array]]:
    """Give the function that finds the boxes around some contours."""
    if contours not in _FINDERS:
        raise ParameterError(
            f"contours={contours!r} is unknown",
            "one of " + ", ".join(map(repr, _FINDERS)),
            "pass contours='largest'",
        )
    return _FINDERS[contours]


def best_overlaps(
    maps: Array,
    boxes: Sequence[Array],
    thresholds: Array,
    contours: Contours = "largest",
    *,
    inclusive: bool = True,
) -> Array:
    """Compare the boxes of thresholded maps with the true ones.

    Parameters
    ----------
    maps : ndarray (N, h, w)
        The maps, in [0, 1], at the input's size.
    boxes : sequence of ndarray (B, 4)
        The true boxes of each picture, (x0, y0, x1, y1) in pixels of the input.
    thresholds : ndarray (T,)
        Shares of each map's maximum, in [0, 1).
    contours : {"largest", "every"}
        Around which contours of what lies above a threshold boxes are put.
    inclusive : bool
        Whether boxes are compared as the published numbers do: true boxes are cut to whole pixels,
        found ones end at the last column and row at most, all of them are taken to hold the column
        ``x1`` and the row ``y1``, and where no pixel lies above the threshold the box is that of
        the first one.  Otherwise boxes are half-open, and where there is none there is no overlap.

    Returns
    -------
    ndarray (N, T) of float64
        The highest intersection over union of a found box with a true one; NaN for pictures
        without a box.

    Raises
    ------
    ArrayError
        If the maps are not (N, h, w), or leave [0, 1], or a box is malformed.
    ParameterError
        If `contours` is unknown.

    References
    ----------
    Choe et al., "Evaluating weakly supervised object localization methods right", CVPR 2020,
    section 4.1.

    Examples
    --------
    >>> map = np.array([[[0.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]])
    >>> best_overlaps(map, [[[1, 1, 3, 3]]], [0.5], inclusive=False).tolist()
    [[0.25]]
    """
    find = _finder(contours)
    overlaps = np.full((len(maps), len(thresholds)), np.nan)
    for row, (map, truth) in enumerate(zip(maps, boxes, strict=True)):
        if len(truth):
            image, levels, which = _eight_bits(map, thresholds)
            found, start, stop = find(image, levels)
            if inclusive:
                found = np.minimum(found, np.array(image.shape)[[1, 0, 1, 0]] - 1)
                truth = np.trunc(np.asarray(truth, np.float64) + _ROUNDING)
            shared = iou(found, truth, inclusive=inclusive).max(axis=1)
            nowhere = iou(np.zeros((1, 4)), truth, inclusive=inclusive).max()
            best = _highest(shared, start, stop, len(levels))
            overlaps[row] = np.where(np.isnan(best), nowhere, best)[which]
    return overlaps


def _highest(values: Array, start: Array, stop: Array, count: int) -> Array:
    """Give the highest of the values that stand at each level, NaN where there is none."""
    best = np.full(count, np.nan)
    length = stop - start
    ends = np.cumsum(length)
    at = np.arange(length.sum()) + np.repeat(stop - ends, length)
    np.fmax.at(best, at, np.repeat(values, length))
    return best


def accuracies(overlaps: Array, deltas: Sequence[float]) -> Array:
    """Give the share of pictures whose box is right, at each threshold.

    Parameters
    ----------
    overlaps : ndarray (N, T)
        As `best_overlaps` gives them; rows of NaN are left out.
    deltas : sequence of float
        The overlaps (D of them), in (0, 1], from which on a box is right.

    Returns
    -------
    ndarray (D, T) of float64
        In [0, 1]; NaN where no picture is left.  The measure for a delta is the maximum over the
        thresholds.

    Examples
    --------
    >>> accuracies([[0.6, 0.2], [0.4, 0.7]], [0.3, 0.5]).tolist()
    [[1.0, 0.5], [0.5, 0.5]]
    """
    overlaps = np.asarray(overlaps)
    return _accuracies(np.ones((1, len(overlaps))), overlaps, deltas)[:, 0]


def _accuracies(counts: Array, overlaps: Array, deltas: Sequence[float]) -> Array:
    """Give the shares (D, R, T) of pictures with a right box in resampled data sets."""
    counts, rows = counted(counts, overlaps)
    return np.stack([mean(counts, rows >= delta) for delta in deltas])


def _thresholds(step: float) -> Array:
    """Give the thresholds (T,) from 0 up to but without 1, the first of those at the same level."""
    thresholds = np.arange(0, 1, step)
    _, first = np.unique((_GREYS * thresholds).astype(np.int64), return_index=True)
    return thresholds[first]


def _measure(
    explained: Explained, step: float, contours: Contours, inclusive: bool
) -> Mapping[str, Array]:
    """Make the records of either measure."""
    maps = unit_maps(explained)
    boxes = [boxes_in(annotation, explained.size) for annotation in explained.annotations]
    return {"overlap": best_overlaps(maps, boxes, _thresholds(step), contours, inclusive=inclusive)}


def _curves(
    records: Mapping[str, Array], step: float, deltas: Sequence[float]
) -> tuple[Exhibit, ...]:
    """Draw accuracy over the threshold; nothing without a picture."""
    lines = accuracies(records["overlap"], deltas)
    if np.isnan(lines).any():
        return ()
    return (
        Curves(
            _thresholds(step),
            tuple(
                Line(f"overlap of at least {delta:g}", line)
                for delta, line in zip(deltas, lines, strict=True)
            ),
            title="Localisation over the threshold",
            x_title="threshold, as a share of the map's maximum",
            y_title="share of pictures with a right box",
            y_range=(0, 1),
        ),
    )


_Step: TypeAlias = Annotated[
    float, Range(0, 1, open_low=True), Help("distance of thresholds, as a share of the maximum")
]
_Inclusive: TypeAlias = Annotated[
    bool, Help("count x1 and y1 as parts of the boxes, as the published numbers do")
]


@dataclass(frozen=True)
class MaxBoxAcc(Resampled):
    """Share of pictures whose box is right, at the threshold that suits the data set best.

    Maps are brought to the input's size by bicubic interpolation and scaled to [0, 1] each.  The
    box is put around the largest contour of what lies above a threshold, and is right if it
    overlaps one of the true boxes enough.  The threshold is the same for all pictures: the best one
    for the data set, never the best one for each picture.

    Parameters
    ----------
    delta : float
        The intersection over union from which on a box is right.
    step : float
        The distance of the thresholds, as a share of the map's maximum.  Thresholds between which
        an image of 8 bits has no level are one.
    inclusive : bool
        Whether boxes are compared as in the published numbers; see `best_overlaps`.

    References
    ----------
    Choe et al., "Evaluating weakly supervised object localization methods right", CVPR 2020,
    section 4.1.
    """

    delta: Annotated[
        float, Range(0, 1, open_low=True), Help("overlap from which on a box is right")
    ] = 0.5
    step: _Step = 0.001
    inclusive: _Inclusive = True

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
            ``overlap`` (N, T), the box's best overlap with a true one at each threshold.
        """
        return _measure(explained, self.step, "largest", self.inclusive)

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
            ``accuracy``, in [0, 1], and the ``threshold`` at which it is reached first.
        """
        (lines,) = _accuracies(counts, records["overlap"], [self.delta])
        return {"accuracy": lines.max(axis=1), "threshold": _first_best(lines, self.step)}

    def curves(self, records: Mapping[str, Array]) -> tuple[Exhibit, ...]:
        """Draw accuracy over the threshold."""
        return _curves(records, self.step, [self.delta])


@dataclass(frozen=True)
class MaxBoxAccV2(Resampled):
    """Share of pictures with a right box among all that the best threshold gives, three times.

    As MaxBoxAcc, but with a box around every contour, those of holes too, of which one must be
    right; and the mean of what this gives for overlaps of at least 0.3, 0.5 and 0.7, each at a best
    threshold of its own.

    Parameters
    ----------
    step : float
        The distance of the thresholds, as a share of the map's maximum.  Thresholds between which
        an image of 8 bits has no level are one.
    inclusive : bool
        Whether boxes are compared as in the published numbers; see `best_overlaps`.

    References
    ----------
    Choe et al., "Evaluation for weakly supervised object localization: protocol, metrics, and
    datasets", 2020.
    """

    step: _Step = 0.001
    inclusive: _Inclusive = True

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
            ``overlap`` (N, T), the best overlap of any box with a true one at each threshold.
        """
        return _measure(explained, self.step, "every", self.inclusive)

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
            ``accuracy``, the mean of ``accuracy_30``, ``accuracy_50`` and ``accuracy_70``, all in
            [0, 1]; then the thresholds at which these three are reached first.
        """
        names = [f"{100 * delta:.0f}" for delta in _DELTAS]
        lines = dict(zip(names, _accuracies(counts, records["overlap"], _DELTAS), strict=True))
        found = {f"accuracy_{name}": each.max(axis=1) for name, each in lines.items()}
        return {
            "accuracy": np.mean(list(found.values()), axis=0),
            **found,
            **{f"threshold_{name}": _first_best(each, self.step) for name, each in lines.items()},
        }

    def curves(self, records: Mapping[str, Array]) -> tuple[Exhibit, ...]:
        """Draw accuracy over the threshold, a line for each overlap."""
        return _curves(records, self.step, _DELTAS)


def _first_best(lines: Array, step: float) -> Array:
    """Give the thresholds (R,) at which lines of accuracies (R, T) are highest first."""
    best = _thresholds(step)[lines.argmax(axis=1)]
    return np.where(np.isnan(lines).any(axis=1), np.nan, best)
