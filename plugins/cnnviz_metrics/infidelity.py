"""Infidelity: how far a map is from telling what a change of the picture does to the score."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, Protocol

import numpy as np

from cnnviz_core import maps as map_maths
from cnnviz_core.errors import ArrayError
from cnnviz_core.explainer import Maps
from cnnviz_core.fills import Fill, Filling, filling
from cnnviz_core.metric import Explained
from cnnviz_core.model import LOGITS, OUTPUT, Array, Model
from cnnviz_core.noise import value_range
from cnnviz_core.pace import BatchSize, in_pace
from cnnviz_core.parameters import Help, Range
from cnnviz_core.progress import advance
from cnnviz_core.targets import Target, scores_of, target_node
from cnnviz_metrics._rows import Resampled, counted, mean

__all__ = [
    "Gaussian",
    "Infidelity",
    "Perturbation",
    "Squares",
    "attributions",
    "best_scale",
    "expected_error",
    "predicted_and_found",
]


def attributions(maps: Maps, shape: tuple[int, ...]) -> Array:
    """Give an attribution to every value of the input.

    Parameters
    ----------
    maps : Maps
        What a method returned for N samples.
    shape : tuple of int
        A sample's shape, (*size, C).

    Returns
    -------
    ndarray (N, *size, C) of float64
        The method's own numbers, signed.  Of a map without channels each position's value is spread
        evenly over the channels, after the map was brought to the input's size as the method does
        it; channels other than the input's are summed first.
    """
    raw = maps.raw.astype(np.float64)
    if raw.shape[1:] == shape:
        return raw
    size, channels = shape[:-1], shape[-1]
    if raw.ndim == len(shape) + 1:
        raw = raw.sum(axis=-1)
    if raw.shape[1:] != size:
        raw = map_maths.resize(raw, size, maps.presentation.upsample)
    return np.repeat(raw[..., None] / channels, channels, axis=-1)


class Perturbation(Protocol):
    """Changes of one sample, each the same whenever it is asked for."""

    def drawn(self, start: int, stop: int) -> Array:
        """Give some of the changes, (stop - start, *size, C): what is taken away from the sample.

        Parameters
        ----------
        start, stop : int
            Which.

        Returns
        -------
        ndarray of float64
        """
        ...


@dataclass(frozen=True, eq=False)
class Gaussian:
    """Changes that are normal noise, drawn for each value.

    Attributes
    ----------
    sample : ndarray (*size, C)
        The sample.
    noise : float
        The noise's standard deviation, as a share of the sample's range.
    seed : int
        For NumPy's generator.
    """

    sample: Array
    noise: float = 0.1
    seed: int = 0

    def drawn(self, start: int, stop: int) -> Array:
        """Give some of the changes; see `Perturbation.drawn`."""
        deviation = self.noise * value_range(self.sample[None])[0]
        shape = self.sample.shape
        draws = [
            np.random.default_rng([self.seed, k]).normal(size=shape) for k in range(start, stop)
        ]
        made: Array = deviation * np.stack(draws)
        return made


@dataclass(frozen=True, eq=False)
class Squares:
    """Changes that remove a square: within it the sample becomes the fill.

    Attributes
    ----------
    sample : ndarray (*size, C)
        The sample.
    fill : Filling
        What is shown in the square.
    side : float
        The square's side, as a share of the shortest axis of the sample; at least one position.
        Of signals and volumes it is an interval or a cube.
    seed : int
        For NumPy's generator, which places each square, uniformly within the sample.
    """

    sample: Array
    fill: Filling
    side: float = 0.2
    seed: int = 0

    def drawn(self, start: int, stop: int) -> Array:
        """Give some of the changes; see `Perturbation.drawn`."""
        size = self.sample.shape[:-1]
        side = max(1, round(self.side * min(size)))
        kept = np.ones((stop - start, *size))
        for mask, k in zip(kept, range(start, stop), strict=True):
            rng = np.random.default_rng([self.seed, k])
            corner = [int(rng.integers(extent - side + 1)) for extent in size]
            mask[tuple(slice(at, at + side) for at in corner)] = 0
        removed = self.sample - self.fill.under(kept).astype(np.float64)
        made: Array = (1 - kept[..., None]) * removed
        return made


def predicted_and_found(
    model: Model,
    sample: Array,
    target: Target,
    phi: Array,
    changes: Perturbation,
    draws: int,
    *,
    batch_size: BatchSize = 16,
    what: str = "infidelity",
) -> tuple[Array, Array]:
    """Compare what a map says of changes of a sample with what they do to the score.

    Parameters
    ----------
    model : Model
        The network.
    sample : ndarray (*size, C)
        The sample x, in the network's own value range.
    target : Target
        The score f; resolved.
    phi : ndarray (*size, C)
        The map.
    changes : Perturbation
        The changes I.
    draws : int
        How many.
    batch_size : int or "auto"
        How many changed samples go through the network at once.
    what : str
        What to call the work in the progress.

    Returns
    -------
    predicted, found : ndarray (draws,) of float64
        ``I^T phi`` and ``f(x) - f(x - I)``.

    Raises
    ------
    ArrayError
        If the map has not the sample's shape.
    """
    if phi.shape != sample.shape:
        raise ArrayError(
            f"a map of the shape {phi.shape} was given for a sample of the shape {sample.shape}",
            "a value for each of the sample's",
            "bring the map to this shape with attributions",
        )
    axes = tuple(range(1, phi.ndim + 1))
    before = float(_scores(model, sample[None], target)[0])

    def work(start: int, stop: int) -> tuple[Array, Array]:
        moved = changes.drawn(start, stop)
        scores = _scores(model, (sample - moved).astype(sample.dtype), target)
        return (moved * phi).sum(axis=axes), before - scores

    parts = []
    for _, done, part in in_pace(draws, batch_size, sample.nbytes, work):
        advance(what, done, draws)
        parts.append(part)
    predicted, found = (np.concatenate(part) for part in zip(*parts, strict=True))
    return predicted, found


def _scores(model: Model, x: Array, target: Target) -> Array:
    """Score a batch, (N,) of float64."""
    node = target_node([target])
    trace = model.forward(x, capture=() if node in (LOGITS, OUTPUT) else (node,))
    return scores_of([target] * len(x), trace[node]).astype(np.float64)


def best_scale(predicted: Array, found: Array) -> float:
    """Give the factor of a map with which its infidelity is least.

    Parameters
    ----------
    predicted, found : ndarray (K,)
        As `predicted_and_found` gives them.

    Returns
    -------
    float
        The paper's beta, ``E[predicted found] / E[predicted^2]``; 1 where nothing is predicted.

    References
    ----------
    Yeh et al., "On the (in)fidelity and sensitivity of explanations", NeurIPS 2019, section 2.
    """
    square = float(np.mean(np.square(predicted)))
    return float(np.mean(predicted * found)) / square if square > 0 else 1.0


def expected_error(predicted: Array, found: Array) -> float:
    """Give the infidelity.

    Parameters
    ----------
    predicted, found : ndarray (K,)
        As `predicted_and_found` gives them.

    Returns
    -------
    float
        ``E[(predicted - found)^2]``.

    References
    ----------
    Yeh et al., "On the (in)fidelity and sensitivity of explanations", NeurIPS 2019, definition 2.1.

    Examples
    --------
    >>> expected_error(np.array([1.0, 2.0]), np.array([1.0, 0.0]))
    2.0
    """
    return float(np.mean(np.square(predicted - found)))


@dataclass(frozen=True)
class Infidelity(Resampled):
    """Mean squared error of a map as a linear model of the score around the picture.

    The inner product of the map with a change of the picture should be the change of the score.
    What counts are the method's own signed numbers: one for each value of the input, or, where they
    have no channels, one for each position, brought to the input's size and spread evenly over the
    channels.  The lower, the better.  It is in the score's unit, squared, so maps that know nothing
    of this unit, such as class activation maps, are compared fairly only when scaled.  Maps that
    are not finite are left out.

    Parameters
    ----------
    perturbation : {"gaussian", "squares"}
        How a picture is changed: by normal noise on every value, or by the removal of a square at a
        random place.
    draws : int
        How many changed pictures are scored.
    noise : float
        The noise's standard deviation, as a share of the picture's range.
    side : float
        The square's side, as a share of the picture's shorter side.
    fill : float, "mean", "blur", "noise", "inpaint" or ndarray
        What is shown in the place of the square; see `cnnviz_core.fills.Fill`.
    scaled : bool
        Whether each map is first multiplied by the factor with which it does best.

    References
    ----------
    Yeh et al., "On the (in)fidelity and sensitivity of explanations", NeurIPS 2019, section 2.
    """

    perturbation: Annotated[
        Literal["gaussian", "squares"],
        Help("how a picture is changed: noise on every value, or a square removed"),
    ] = "gaussian"
    draws: Annotated[int, Range(2), Help("how many changed pictures are scored")] = 100
    noise: Annotated[
        float,
        Range(0, open_low=True),
        Help("the noise's standard deviation, as a share of the picture's range"),
    ] = 0.1
    side: Annotated[
        float,
        Range(0, 1, open_low=True),
        Help("the square's side, as a share of the picture's shorter side"),
    ] = 0.2
    fill: Annotated[
        Fill,
        Help(
            "what is shown in the place of the square: a value, the mean colour, the picture "
            "blurred, noise, what is around continued, or an array"
        ),
    ] = 0.0
    scaled: Annotated[
        bool, Help("multiply each map first by the factor with which it does best")
    ] = False

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
            ``infidelity`` (N,), and ``scale`` (N,), by what each map was multiplied: the paper's
            beta, or 1.
        """
        errors, scales = np.full((2, len(explained)), np.nan)
        every_phi = attributions(explained.maps, explained.x.shape[1:])
        for row, phi in enumerate(every_phi):
            if not np.isfinite(phi).all():
                continue
            sample = explained.x[row]
            predicted, found = predicted_and_found(
                explained.model,
                sample,
                explained.maps.targets[row],
                phi,
                self._changes(sample, explained.seed),
                self.draws,
                batch_size=explained.batch_size,
                what=f"infidelity, picture {row + 1} of {len(explained)}",
            )
            scales[row] = best_scale(predicted, found) if self.scaled else 1
            errors[row] = expected_error(scales[row] * predicted, found)
        return {"infidelity": errors, "scale": scales}

    def _changes(self, sample: Array, seed: int) -> Perturbation:
        """Say how a sample is changed."""
        if self.perturbation == "gaussian":
            return Gaussian(sample, self.noise, seed)
        return Squares(sample, filling(sample, self.fill, seed), self.side, seed)

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
            ``infidelity`` and ``scale``, the means.
        """
        counts, errors, scales = counted(counts, records["infidelity"], records["scale"])
        return {"infidelity": mean(counts, errors), "scale": mean(counts, scales)}

    def passes(self, model: Model, x: Array) -> int:
        """Give the forward passes for one map."""
        return self.draws + 1
