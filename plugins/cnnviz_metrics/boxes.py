"""Boxes from maps by a fixed rule, compared with the true ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Final, Literal, TypeAlias

import numpy as np

from cnnviz_core.errors import ParameterError
from cnnviz_core.maps import boxes_of, iou
from cnnviz_core.metric import Explained
from cnnviz_core.model import Array
from cnnviz_core.parameters import Help, Range
from cnnviz_metrics._regions import boxes_in
from cnnviz_metrics._rows import Resampled, counted, mean, ratio, total

__all__ = ["BoxAccuracy", "BoxRule", "matches", "rule_boxes"]

BoxRule: TypeAlias = float | Literal["cam", "grad-cam"]
"""Above what share of the map's maximum a box is looked for, or the paper that says so."""

_SHARES: Final = {"cam": 0.2, "grad-cam": 0.15}


def rule_boxes(
    map: Array, rule: BoxRule = "grad-cam", largest: bool = True, min_area: int = 1
) -> Array:
    """Put boxes around the components of what lies above a share of a map's maximum.

    Parameters
    ----------
    map : ndarray (h, w)
        One map.
    rule : float, "cam" or "grad-cam"
        The share, in [0, 1]; "cam" is 0.2, "grad-cam" 0.15.
    largest : bool
        Whether to keep only the component with the most pixels, as both papers do.
    min_area : int
        How many pixels a component must have.

    Returns
    -------
    ndarray (k, 4) of int64
        (x0, y0, x1, y1) in pixels, half-open; see `cnnviz_core.maps.boxes_of`.  None (k = 0) where
        no value is positive, or the map is not finite.

    Raises
    ------
    ArrayError
        If the map is not (h, w).
    ParameterError
        If the rule is unknown or the share out of its range.

    References
    ----------
    Zhou et al., "Learning deep features for discriminative localization", CVPR 2016, section 3.2:
    20 %.  Selvaraju et al., "Grad-CAM", ICCV 2017, section 4.1: 15 %.

    Examples
    --------
    >>> rule_boxes(np.array([[0.0, 9.0, 8.0, 0.0, 3.0]]), largest=False).tolist()
    [[1, 0, 3, 1], [4, 0, 5, 1]]
    """
    if isinstance(rule, str) and rule not in _SHARES:
        raise ParameterError(
            f"rule={rule!r} is unknown",
            "a share of the maximum, or one of " + ", ".join(repr(name) for name in _SHARES),
            "pass rule='grad-cam'",
        )
    share = _SHARES[rule] if isinstance(rule, str) else rule
    return boxes_of(map, share, largest, min_area)


def matches(overlaps: Array, delta: float = 0.5) -> int:
    """Give how many found boxes can be paired off with true ones that they overlap enough.

    Parameters
    ----------
    overlaps : ndarray (n, m)
        The overlap of each found box with each true one.
    delta : float
        How much is enough, in (0, 1].

    Returns
    -------
    int
        The largest number of pairs in which no box is twice.

    Examples
    --------
    >>> matches(np.array([[0.6, 0.0], [0.9, 0.5]]))
    2
    """
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import maximum_bipartite_matching

    enough = np.asarray(overlaps) >= delta
    if not enough.any():
        return 0
    return int((maximum_bipartite_matching(csr_array(enough)) >= 0).sum())


@dataclass(frozen=True)
class BoxAccuracy(Resampled):
    """Share of pictures in which the box that a fixed rule gives is right.

    The map is taken as its method shows it, at the input's size.

    Parameters
    ----------
    rule : float, "cam" or "grad-cam"
        Above what share of the map's maximum a pixel is looked at.
    boxes : {"largest", "every"}
        Whether only the component with the most pixels gets a box, or each of them.
    min_area : int
        How many pixels a component must have.
    delta : float
        The intersection over union from which on a box is right.
    inclusive : bool
        Whether the last column and row, ``x1`` and ``y1``, count as parts of the boxes.

    References
    ----------
    Zhou et al., "Learning deep features for discriminative localization", CVPR 2016, section 3.2.
    Selvaraju et al., "Grad-CAM", ICCV 2017, section 4.1.
    """

    rule: Annotated[
        BoxRule,
        Range(0, 1),
        Help("share of the map's maximum, or whose: cam's 0.2, grad-cam's 0.15"),
    ] = "grad-cam"
    boxes: Annotated[Literal["largest", "every"], Help("around which components boxes are put")] = (
        "largest"
    )
    min_area: Annotated[int, Range(1), Help("how many pixels a component must have")] = 1
    delta: Annotated[
        float, Range(0, 1, open_low=True), Help("overlap from which on a box is right")
    ] = 0.5
    inclusive: Annotated[bool, Help("count x1 and y1 as parts of the boxes")] = False

    needs: ClassVar[frozenset[str]] = frozenset()

    def measure(self, explained: Explained) -> Mapping[str, Array]:
        """Measure the maps of a batch.

        Parameters
        ----------
        explained : Explained
            The batch.

        Returns
        -------
        mapping of str to ndarray (N,)
            ``overlap``, the best one of a found box with a true one; ``found`` and ``true``, the
            numbers of boxes; ``matched``, how many of these pair off.
        """
        records = {k: np.full(len(explained), np.nan) for k in _COMPARED}
        for row, annotation in enumerate(explained.annotations):
            truth = boxes_in(annotation, explained.size)
            if not len(truth):
                continue
            map = explained.shown[row]
            found = rule_boxes(map, self.rule, self.boxes == "largest", self.min_area)
            overlaps = iou(found, truth, inclusive=self.inclusive)
            records["overlap"][row] = overlaps.max(initial=0)
            records["found"][row] = len(found)
            records["true"][row] = len(truth)
            records["matched"][row] = matches(overlaps, self.delta)
        return records

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
            In [0, 1]: ``accuracy``, the share of pictures with a right box; ``mean_iou``, the mean
            of the best overlaps; ``precision``, the share of all found boxes, and ``recall``, that
            of all true ones, that have a partner.
        """
        counts, overlap, *pairs = counted(counts, *(records[k] for k in _COMPARED))
        found, true, matched = total(counts, np.stack(pairs, axis=1)).T
        return {
            "accuracy": mean(counts, overlap >= self.delta),
            "mean_iou": mean(counts, overlap),
            "precision": ratio(matched, found),
            "recall": ratio(matched, true),
        }


_COMPARED: Final = ("overlap", "found", "true", "matched")
