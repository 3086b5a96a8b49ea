"""Confidence in what a map shows of a picture: how much of it is lost, or gained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, TypeAlias

import numpy as np

from cnnviz_core.blended import blend
from cnnviz_core.errors import ArrayError
from cnnviz_core.maps import min_max
from cnnviz_core.metric import Explained
from cnnviz_core.model import Array, Model
from cnnviz_core.parameters import Help
from cnnviz_core.scoring import score
from cnnviz_metrics._judging import ScoreOf, judged
from cnnviz_metrics._rows import Resampled, counted, mean
from cnnviz_metrics.imputation import LinearImputation
from cnnviz_metrics.pixel_order import ranks

__all__ = [
    "AverageDrop",
    "AverageGain",
    "AverageIncrease",
    "DropInConfidence",
    "Showing",
    "relative_drops",
    "relative_gains",
    "shown_by_maps",
]

Showing: TypeAlias = Literal["map-times-input", "top-half", "imputed"]
"""What of a picture its map shows; see `shown_by_maps`."""


def shown_by_maps(
    x: Array, maps: Array, showing: Showing = "map-times-input", seed: int = 0
) -> Array:
    """Give what maps show of their samples.

    Parameters
    ----------
    x : ndarray (N, *size, C)
        The samples, in the network's own value range.
    maps : ndarray (N, *size)
        Their maps, finite.
    showing : {"map-times-input", "top-half", "imputed"}
        - "map-times-input": the sample times its map, which is brought to [0, 1] by its extremes;
          of a map that is the same everywhere nothing is shown.
        - "top-half": the same, where the map is among its highest half; zeros elsewhere.
        - "imputed": the sample itself, where the map is among its highest half; elsewhere what
          `cnnviz_metrics.imputation.LinearImputation` makes of that.  Of pictures only.
    seed : int
        For the noise of what is imputed.

    Returns
    -------
    ndarray (N, *size, C)
        Of the samples' type.

    Raises
    ------
    ArrayError
        If the maps are not of the samples' size or not finite, or what is imputed is no picture.

    References
    ----------
    "map-times-input": Chattopadhay et al., "Grad-CAM++", WACV 2018, section 4.1.  "top-half": Wang
    et al., "Score-CAM", CVPR workshops 2020, section 4.2.  "imputed": Rong et al., "A consistent
    and efficient evaluation strategy for attribution methods", ICML 2022, for the imputation.
    """
    if maps.shape != x.shape[:-1]:
        raise ArrayError(
            f"maps of the shape {maps.shape} were given for samples of the shape {x.shape}",
            f"maps of the shape {x.shape[:-1]}",
            "bring them to the samples' size",
        )
    if showing == "imputed":
        return np.stack([_imputed(sample, map, seed) for sample, map in zip(x, maps, strict=True)])
    weights = min_max(maps)
    if showing == "top-half":
        weights = weights * np.stack([_top_half(map) for map in maps])
    return (x * weights[..., None]).astype(x.dtype)


def _top_half(map: Array) -> Array:
    """Mark the highest half of a map's pixels; of an odd number the larger half."""
    marked: Array = ranks(map) < map.size - map.size // 2
    return marked


def _imputed(sample: Array, map: Array, seed: int) -> Array:
    """Keep the highest half of a map's pixels, and impute the others."""
    kept = _top_half(map)[None]
    return blend(sample, kept, LinearImputation(sample, seed=seed).under(kept))[0]


def relative_drops(whole: Array, shown: Array) -> Array:
    """Give the share of each score that is lost where only a part of a picture is shown.

    Parameters
    ----------
    whole, shown : ndarray (N,)
        The scores of the whole pictures, and of what is shown of them.

    Returns
    -------
    ndarray (N,) of float64
        ``max(0, whole - shown) / whole``, a fraction; 0 where `whole` is 0 and cannot drop further,
        NaN where it is negative and there is no such share.

    References
    ----------
    Chattopadhay et al., "Grad-CAM++", WACV 2018, section 4.1: average drop.

    Examples
    --------
    >>> relative_drops([0.5, 0.5], [0.25, 0.75]).tolist()
    [0.5, 0.0]
    """
    whole, shown = (np.asarray(scores, dtype=np.float64) for scores in (whole, shown))
    lost = np.maximum(whole - shown, 0)
    share = np.divide(lost, whole, out=np.zeros_like(whole), where=whole > 0)
    return np.where(whole >= 0, share, np.nan)


def relative_gains(whole: Array, shown: Array) -> Array:
    """Give the share of what is missing to certainty that is gained where only a part is shown.

    Parameters
    ----------
    whole, shown : ndarray (N,)
        The probabilities of the whole pictures, and of what is shown of them.

    Returns
    -------
    ndarray (N,) of float64
        ``max(0, shown - whole) / (1 - whole)``, a fraction; 0 where `whole` is 1 and cannot rise
        further, NaN where it is larger, and no probability.

    References
    ----------
    Zhang et al., "Opti-CAM: optimizing saliency maps for interpretability", 2023: average gain.

    Examples
    --------
    >>> relative_gains([0.5, 0.5], [0.25, 0.75]).tolist()
    [0.0, 0.5]
    """
    whole, shown = (np.asarray(scores, dtype=np.float64) for scores in (whole, shown))
    gained, missing = np.maximum(shown - whole, 0), 1 - whole
    share = np.divide(gained, missing, out=np.zeros_like(whole), where=missing > 0)
    return np.where(missing >= 0, share, np.nan)


@dataclass(frozen=True)
class _Confidence(Resampled):
    """What the metrics of this file have in common: their parameters and their record."""

    showing: Annotated[
        Showing,
        Help(
            "what is shown: the picture times its map, that in the map's highest half only, or the "
            "picture in that half and the rest imputed"
        ),
    ] = "map-times-input"
    score: ScoreOf = "probability"

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
            ``whole`` and ``shown``, the scores of the whole pictures and of what their maps show of
            them; NaN for maps that are not finite.
        """
        records = {name: np.full(len(explained), np.nan) for name in ("whole", "shown")}
        targets, maps = judged(explained, self.score), explained.shown
        finite = np.flatnonzero(np.isfinite(maps).all(axis=tuple(range(1, maps.ndim))))
        for start in range(0, len(finite), explained.batch_size):
            rows = finite[start : start + explained.batch_size]
            asked = [targets[row] for row in rows]
            x = explained.x[rows]
            shown = shown_by_maps(x, maps[rows], self.showing, explained.seed)
            records["whole"][rows] = score(explained.model, x, asked).scores
            records["shown"][rows] = score(explained.model, shown, asked).scores
        return records

    def passes(self, model: Model, x: Array) -> int:
        """Give the forward passes for one map."""
        return 2

    def _named(self, name: str, counts: Array, values: Array) -> Mapping[str, Array]:
        """Give the means of what is no NaN, under a name that says how it was measured."""
        counts, values = counted(counts, values)
        variant = self.showing.replace("-", "_")
        of = "" if self.score == "probability" else "_of_target"
        return {f"{name}_{variant}{of}": mean(counts, values)}


@dataclass(frozen=True)
class AverageDrop(_Confidence):
    """Mean share of the confidence that is lost where a picture is shown by its map alone.

    The map is taken as its method shows it, at the input's size.  The lower, the more of what the
    network needs is shown.  A map that is not finite is left out.

    Parameters
    ----------
    showing : {"map-times-input", "top-half", "imputed"}
        What of the picture is shown; see `shown_by_maps`.
    score : {"probability", "target"}
        Whether the confidence is the probability of the explained class, or the explained score
        itself, of which negative ones are left out.

    References
    ----------
    Chattopadhay et al., "Grad-CAM++", WACV 2018, section 4.1: average drop.
    """

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
            ``average_drop_``, followed by what was shown: a fraction in [0, 1], not a percentage.
        """
        drops = relative_drops(records["whole"], records["shown"])
        return self._named("average_drop", counts, drops)


@dataclass(frozen=True)
class AverageIncrease(_Confidence):
    """Share of the pictures of which a network is more confident where their map alone is shown.

    The map is taken as its method shows it, at the input's size.  A map that is not finite is left
    out.  It is also called increase in confidence.

    Parameters
    ----------
    showing : {"map-times-input", "top-half", "imputed"}
        What of the picture is shown; see `shown_by_maps`.
    score : {"probability", "target"}
        Whether the confidence is the probability of the explained class, or the explained score
        itself.

    References
    ----------
    Chattopadhay et al., "Grad-CAM++", WACV 2018, section 4.1: increase in confidence.
    """

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
            ``average_increase_``, followed by what was shown: a fraction in [0, 1].
        """
        counts, whole, shown = counted(counts, records["whole"], records["shown"])
        return self._named("average_increase", counts, shown > whole)


@dataclass(frozen=True)
class AverageGain(_Confidence):
    """Mean share of what is missing to certainty that is gained where the map alone is shown.

    The counterpart of the average drop: a map that shows everything loses nothing, but it gains
    nothing either.  The map is taken as its method shows it, at the input's size.  A map that is
    not finite is left out.

    Parameters
    ----------
    showing : {"map-times-input", "top-half", "imputed"}
        What of the picture is shown; see `shown_by_maps`.
    score : {"probability", "target"}
        Whether the confidence is the probability of the explained class, or the explained score
        itself, of which those above 1 are left out.

    References
    ----------
    Zhang et al., "Opti-CAM: optimizing saliency maps for interpretability", 2023.
    """

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
            ``average_gain_``, followed by what was shown: a fraction in [0, 1].
        """
        gains = relative_gains(records["whole"], records["shown"])
        return self._named("average_gain", counts, gains)


@dataclass(frozen=True)
class DropInConfidence(_Confidence):
    """Mean of the confidence that is lost where the map alone is shown, not divided by it.

    What the average drop is without the division: a network that is sure of a picture has more to
    lose.  The map is taken as its method shows it, at the input's size.  A map that is not finite
    is left out.

    Parameters
    ----------
    showing : {"map-times-input", "top-half", "imputed"}
        What of the picture is shown; see `shown_by_maps`.
    score : {"probability", "target"}
        Whether the confidence is the probability of the explained class, or the explained score
        itself.

    References
    ----------
    Gildenblat et al., "PyTorch library for CAM methods", 2021: ``DropInConfidence``.
    """

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
            ``drop_in_confidence_``, followed by what was shown, in units of the score.
        """
        counts, whole, shown = counted(counts, records["whole"], records["shown"])
        return self._named("drop_in_confidence", counts, np.maximum(whole - shown, 0))
