"""How few pixels a map names: its entropy, its Gini index, and how many pixels count in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from cnnviz_core.metric import Explained
from cnnviz_core.model import Array
from cnnviz_core.parameters import Help, Range
from cnnviz_metrics._rows import Resampled, counted, mean

__all__ = [
    "Complexity",
    "EffectiveComplexity",
    "Sparseness",
    "effective_complexity",
    "entropy",
    "gini_index",
]


def entropy(maps: Array) -> Array:
    """Give the entropy of each pixel's share in a map.

    Parameters
    ----------
    maps : ndarray (N, ...)
        The maps; magnitudes count.

    Returns
    -------
    ndarray (N,) of float64
        In nats: 0 where one pixel has everything, the logarithm of the number of pixels where all
        have the same.  NaN for maps that are zero everywhere or not finite.

    References
    ----------
    Bhatt, Weller & Moura, "Evaluating and aggregating feature-based model explanations", IJCAI
    2020, definition 4.

    Examples
    --------
    >>> entropy(np.array([[0.0, -2.0], [1.0, 1.0]])).round(4).tolist()
    [0.0, 0.6931]
    """
    shares = _shares(maps)
    logarithms = np.log(shares, out=np.zeros_like(shares), where=shares > 0)
    # Rounding must not make it negative, nor may the sign of zero.
    return np.abs((shares * logarithms).sum(axis=1))


def gini_index(maps: Array) -> Array:
    """Give the Gini index of the pixels' magnitudes.

    Parameters
    ----------
    maps : ndarray (N, ...)
        The maps; magnitudes count.

    Returns
    -------
    ndarray (N,) of float64
        0 where all of d pixels have the same, 1 - 1/d where one has everything.  NaN for maps that
        are zero everywhere or not finite.

    References
    ----------
    Chalasani et al., "Concise explanations of neural networks using adversarial training", ICML
    2020, section 4.  Hurley & Rickard, "Comparing measures of sparsity", IEEE Transactions on
    Information Theory 55, 2009, table I.

    Examples
    --------
    >>> gini_index(np.array([[0.0, -2.0], [1.0, 1.0]])).tolist()
    [0.5, 0.0]
    """
    shares = np.sort(_shares(maps), axis=1)
    d = shares.shape[1]
    places = np.arange(1, d + 1)
    index: Array = 1 - 2 * (shares * (d - places + 0.5) / d).sum(axis=1)
    return index


def effective_complexity(maps: Array, threshold: float = 1e-5) -> Array:
    """Count the pixels whose magnitude is not small beside the greatest.

    Parameters
    ----------
    maps : ndarray (N, ...)
        The maps; magnitudes count.
    threshold : float
        What is small, as a share of the greatest magnitude, in [0, 1).

    Returns
    -------
    ndarray (N,) of float64
        At least 1.  NaN for maps that are zero everywhere or not finite.

    References
    ----------
    Nguyen & Martínez, "On quantitative aspects of model interpretability", 2020, section 3: the
    number of features that are needed.  Here they are those that the map gives weight to; the
    network is not asked.

    Examples
    --------
    >>> effective_complexity(np.array([[0.0, -2.0, 1e-9], [1.0, 1.0, 0.5]])).tolist()
    [1.0, 3.0]
    """
    shares = _shares(maps)
    counts = (shares > threshold * shares.max(axis=1, keepdims=True)).sum(axis=1)
    return np.where(np.isnan(shares).any(axis=1), np.nan, counts)


def _shares(maps: Array) -> Array:
    """Give what share of a map's magnitude each pixel has (N, d); NaN where there is none."""
    maps = np.asarray(maps, dtype=np.float64)
    flat = np.abs(maps.reshape(len(maps), -1))
    greatest = flat.max(axis=1, keepdims=True)
    known = np.isfinite(flat).all(axis=1, keepdims=True) & (greatest > 0)
    # Divided by the greatest first, since the sum of huge or tiny values has no quotient.
    scaled = np.divide(flat, greatest, out=np.full_like(flat, np.nan), where=known)
    shares: Array = scaled / scaled.sum(axis=1, keepdims=True)
    return shares


@dataclass(frozen=True)
class Complexity(Resampled):
    """Entropy of the shares that the pixels have in a map.

    The map is taken as its method shows it, at the input's size.  The lower, the fewer pixels the
    map names.  Maps that are zero everywhere or not finite are left out.

    References
    ----------
    Bhatt, Weller & Moura, "Evaluating and aggregating feature-based model explanations", IJCAI
    2020, definition 4.
    """

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
            ``complexity`` (N,), in nats.
        """
        return {"complexity": entropy(explained.shown)}

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
            ``complexity``, the mean.
        """
        return _mean(records, counts, "complexity")


@dataclass(frozen=True)
class Sparseness(Resampled):
    """Gini index of the magnitudes of a map's pixels.

    The map is taken as its method shows it, at the input's size.  The higher, the fewer pixels have
    the most of it.  Maps that are zero everywhere or not finite are left out.

    References
    ----------
    Chalasani et al., "Concise explanations of neural networks using adversarial training", ICML
    2020, section 4.
    """

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
            ``sparseness`` (N,).
        """
        return {"sparseness": gini_index(explained.shown)}

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
            ``sparseness``, the mean.
        """
        return _mean(records, counts, "sparseness")


@dataclass(frozen=True)
class EffectiveComplexity(Resampled):
    """Share of the pixels whose magnitude is not small beside the greatest.

    The map is taken as its method shows it, at the input's size.  The lower, the fewer pixels the
    map names.  Maps that are zero everywhere or not finite are left out.

    Parameters
    ----------
    threshold : float
        What is small, as a share of the map's greatest magnitude.

    References
    ----------
    Nguyen & Martínez, "On quantitative aspects of model interpretability", 2020, section 3; see
    `effective_complexity`.
    """

    threshold: Annotated[
        float,
        Range(0, 1, open_high=True),
        Help("what is small, as a share of the map's greatest magnitude"),
    ] = 1e-5

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
            ``effective_complexity`` (N,), in (0, 1].
        """
        shown = explained.shown
        pixels = shown[0].size
        return {"effective_complexity": effective_complexity(shown, self.threshold) / pixels}

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
            ``effective_complexity``, the mean.
        """
        return _mean(records, counts, "effective_complexity")


def _mean(records: Mapping[str, Array], counts: Array, name: str) -> Mapping[str, Array]:
    """Sum up a record by its mean."""
    counts, values = counted(counts, records[name])
    return {name: mean(counts, values)}
