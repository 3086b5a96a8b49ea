"""Pointing games: does a map's highest point, or its energy, lie on the object."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Final

import numpy as np

from cnnviz_core.errors import ArrayError
from cnnviz_core.explainer import present
from cnnviz_core.maps import relu
from cnnviz_core.metric import Annotation, Explained
from cnnviz_core.model import Array
from cnnviz_core.parameters import Help, Range
from cnnviz_metrics._maps import is_flat
from cnnviz_metrics._regions import Region, region_of
from cnnviz_metrics._rows import Resampled, counted, mean, ratio

__all__ = ["EnergyPointingGame", "PointingGame", "energy_inside", "highest_point", "is_hit"]

_SMALL: Final = 0.25
_NO_LABEL: Final = -1


def highest_point(map: Array) -> tuple[int, int] | None:
    """Find the highest pixel of a map.

    Parameters
    ----------
    map : ndarray (h, w)
        The map.

    Returns
    -------
    tuple of int, or None
        (row, column), the first of several equals row by row; None for a map that points nowhere,
        since it is the same everywhere or not finite.

    Examples
    --------
    >>> highest_point(np.array([[0.0, 1.0], [3.0, 3.0]]))
    (1, 0)
    """
    map = np.asarray(map)
    if not np.isfinite(map).all() or is_flat(map[None])[0]:
        return None
    row, column = np.unravel_index(map.argmax(), map.shape)
    return int(row), int(column)


def is_hit(point: tuple[int, int] | None, region: Array, tolerance: float = 15) -> bool:
    """Tell whether a point lies on an object, or nearly so.

    Parameters
    ----------
    point : tuple of int, or None
        (row, column); None hits nothing.
    region : ndarray (h, w) of bool
        The object's pixels.
    tolerance : float
        How near, in pixels: the point hits if it is one of the object's pixels, or nearer to one
        than this, from centre to centre.

    Returns
    -------
    bool

    References
    ----------
    Zhang et al., "Top-down neural attention by excitation backprop", International Journal of
    Computer Vision 126, 2018, section 4.1: 15 pixels.

    Examples
    --------
    >>> is_hit((0, 0), np.array([[False, False, True]]), 2), is_hit((0, 0), np.eye(2, dtype=bool))
    (False, True)
    """
    if point is None:
        return False
    reach = int(tolerance)
    row, column = point
    top, left = max(row - reach, 0), max(column - reach, 0)
    y, x = np.nonzero(region[top : row + reach + 1, left : column + reach + 1])
    square = (y + top - row) ** 2 + (x + left - column) ** 2
    return bool(((square < tolerance**2) | (square == 0)).any())


def energy_inside(maps: Array, regions: Array, counted: Array | None = None) -> Array:
    """Give the share of what is positive in maps that lies on the object.

    Parameters
    ----------
    maps : ndarray (N, h, w)
        The maps; what is negative counts as 0.
    regions : ndarray (N, h, w) of bool
        The object's pixels.
    counted : ndarray (N, h, w) of bool, optional
        The pixels that count at all; all if left out.

    Returns
    -------
    ndarray (N,) of float64
        In [0, 1]; 0 where nothing is positive, or the map is not finite.

    Raises
    ------
    ArrayError
        If the shapes differ.

    References
    ----------
    Wang et al., "Score-CAM: score-weighted visual explanations for convolutional neural networks",
    CVPR workshops 2020, section 4.3.

    Examples
    --------
    >>> energy_inside(np.array([[[1.0, 3.0, -4.0]]]), np.array([[[False, True, True]]])).tolist()
    [0.75]
    """
    maps, regions = np.asarray(maps, np.float64), np.asarray(regions, bool)
    counted = np.ones_like(regions) if counted is None else np.asarray(counted, bool)
    if maps.ndim != 3 or not maps.shape == regions.shape == counted.shape:
        raise ArrayError(
            f"maps of the shape {maps.shape} have regions of the shape {regions.shape}, of which "
            f"pixels of the shape {counted.shape} count",
            "one shape (N, h, w) for all",
            "resize the maps to the regions",
        )
    highest = np.abs(maps).max(axis=(1, 2), keepdims=True)
    usable = np.isfinite(highest) & (highest > 0)
    # Scaled first, so that the sums of huge values do not overflow.
    positive = relu(np.divide(maps, highest, out=np.zeros_like(maps), where=usable)) * counted
    total = positive.sum(axis=(1, 2))
    inside = (positive * regions).sum(axis=(1, 2))
    return np.divide(inside, total, out=np.zeros_like(total), where=total > 0)


@dataclass(frozen=True)
class PointingGame(Resampled):
    """Share of maps whose highest point lies on the object, a class counting as much as any other.

    The map is brought to the size of the picture itself by one interpolation, the method's own, and
    its highest pixel is looked up there; where the input shows only a part of the picture, to that
    part's size.  A map that is the same everywhere points nowhere, and misses.

    Parameters
    ----------
    tolerance : float
        How near to one of the object's pixels the point must be, in pixels of the picture.
    region : {"mask", "boxes"}
        What says which pixels are the object's: its mask where there is one and its boxes
        otherwise, or always its boxes.

    References
    ----------
    Zhang et al., "Top-down neural attention by excitation backprop", International Journal of
    Computer Vision 126, 2018, section 4.1.
    """

    tolerance: Annotated[
        float, Range(0), Help("how near the point must be, in pixels of the picture")
    ] = 15.0
    region: Annotated[
        Region, Help("the object's pixels: its mask if there is one, or always its boxes")
    ] = "mask"

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
            ``hit``, 1 or 0; ``label``, -1 where there is none; ``difficult``, 1 or 0; and
            ``share``, what part of the picture the object takes up.
        """
        records = {k: np.full(len(explained), np.nan) for k in _POINTED}
        for row, annotation in enumerate(explained.annotations):
            size = _size_in_picture(annotation, explained.size)
            found = region_of(annotation, explained.size, self.region, size)
            if found is None:
                continue
            raw = explained.maps.raw[row : row + 1].astype(np.float64)
            (map,), _ = present(raw, size, explained.maps.presentation)
            records["hit"][row] = is_hit(highest_point(map), found[0], self.tolerance)
            records["label"][row] = _NO_LABEL if annotation.label is None else annotation.label
            records["difficult"][row] = annotation.difficult
            records["share"][row] = found[0].mean()
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
            In [0, 1]: ``accuracy``, the mean over the classes of the share of hits, without
            difficult objects; ``pooled_accuracy``, the share of hits among all of these;
            ``accuracy_small``, the first for objects that take up less than a quarter of the
            picture only; ``accuracy_all``, the first with difficult objects too.
        """
        counts, hit, label, difficult, share = counted(counts, *(records[k] for k in _POINTED))
        plain = difficult == 0
        small = plain & (share < _SMALL)
        return {
            "accuracy": _by_class(counts[:, plain], hit[plain], label[plain]),
            "pooled_accuracy": mean(counts[:, plain], hit[plain]),
            "accuracy_small": _by_class(counts[:, small], hit[small], label[small]),
            "accuracy_all": _by_class(counts, hit, label),
        }


_POINTED: Final = ("hit", "label", "difficult", "share")


def _size_in_picture(annotation: Annotation, size: tuple[int, ...]) -> tuple[int, int]:
    """Give the size, in the picture's pixels, of what the input shows of it."""
    height, width = annotation.picture or size
    if annotation.part is not None:
        x0, y0, x1, y1 = annotation.part
        height, width = max(1, round(y1 - y0)), max(1, round(x1 - x0))
    return height, width


def _by_class(counts: Array, hits: Array, labels: Array) -> Array:
    """Give the mean over the classes that there are of the mean of hits: (R,)."""
    from scipy.sparse import csr_array

    classes, which = np.unique(labels, return_inverse=True)
    ones, places = np.ones(len(hits)), (which, np.arange(len(hits)))
    pictures, found = (
        csr_array((values, places), shape=(len(classes), len(hits))) @ counts.T
        for values in (ones, hits)
    )
    shares = np.divide(found, pictures, out=np.zeros_like(pictures), where=pictures > 0)
    return ratio(shares.sum(axis=0), (pictures > 0).sum(axis=0))


@dataclass(frozen=True)
class EnergyPointingGame(Resampled):
    """Share of a map's energy that lies on the object.

    The energy is the sum of what is positive in the map as its method shows it, at the input's
    size.

    Parameters
    ----------
    region : {"mask", "boxes"}
        What says which pixels are the object's: its mask where there is one and its boxes
        otherwise, or always its boxes.

    References
    ----------
    Wang et al., "Score-CAM: score-weighted visual explanations for convolutional neural networks",
    CVPR workshops 2020, section 4.3.
    """

    region: Annotated[
        Region, Help("the object's pixels: its mask if there is one, or always its boxes")
    ] = "boxes"

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
            ``energy``, the share of it on the object, and ``share``, that of the pixels.
        """
        records = {k: np.full(len(explained), np.nan) for k in ("energy", "share")}
        for row, annotation in enumerate(explained.annotations):
            found = region_of(annotation, explained.size, self.region)
            if found is not None:
                inside, counted = found
                map = explained.shown[row]
                records["energy"][row] = energy_inside(map[None], inside[None], counted[None])[0]
                records["share"][row] = inside.sum() / counted.sum()
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
            ``energy``, the mean share of the energy on the object, and ``share``, what a map has
            there that is the same everywhere.  Both in [0, 1].
        """
        counts, energy, share = counted(counts, records["energy"], records["share"])
        return {"energy": mean(counts, energy), "share": mean(counts, share)}
