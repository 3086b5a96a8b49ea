"""How pictures climb: the slope that a network gives them, and the loop around it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from cnnviz_core.errors import RuleError
from cnnviz_core.model import Array, LayerInfo, Model
from cnnviz_core.optimisers import Optimiser
from cnnviz_core.pixels import PixelSpace, as_pixels
from cnnviz_core.progress import advance
from cnnviz_core.rules import STANDARD, BackwardRule
from cnnviz_core.steps import ReluStep
from cnnviz_features.synthesis.objectives import Coupling, Objective, Pulled, pull
from cnnviz_features.synthesis.parameterisation import Parameterisation
from cnnviz_features.synthesis.priors import Prior
from cnnviz_features.synthesis.transformations import Resampling, Transformation, draw

__all__ = [
    "OPEN",
    "Ascended",
    "Climb",
    "Slope",
    "ascend",
    "before_rectifier",
]

OPEN: Final = BackwardRule("open", {"relu": ReluStep(gate=False, rectify=False)})
"""The gradient passes shut rectifiers as if they were open."""


@dataclass(frozen=True, eq=False)
class Slope:
    """How a batch of pictures fares, and which way it would fare better.

    Attributes
    ----------
    scores : ndarray (N,)
        Of the objectives alone, of the pictures as the network saw them.
    penalties : ndarray (N,)
        What the priors took off, times their weights.
    gradient : ndarray (N, ...)
        Of scores and coupling less penalties, by the parameters.
    shut : ndarray (N,) of bool
        Where the scores' own gradient is 0 everywhere.
    flat : ndarray (N,) of bool
        Where there is no other gradient either, from before shut rectifiers.
    """

    scores: Array
    penalties: Array
    gradient: Array
    shut: Array
    flat: Array


@dataclass(frozen=True, eq=False)
class Climb:
    """What is climbed: ``sum of scores + coupling - sum of weighted priors``, by the parameters.

    Attributes
    ----------
    model : Model
        The network, which offers "gradient".
    space : PixelSpace
        How its input values are colours.
    objectives : tuple of Objective
        One for each picture.
    parameterisation : Parameterisation
        What pictures are made of.
    transformations : tuple of Transformation
        What moves the pictures before each look: one draw a step, the same for all pictures.
    priors : tuple of (float, Prior)
        Weighted penalties of the colours.
    coupling : Coupling, optional
        What ties the pictures together, such as `Diversity`.
    open_gates : bool
        Whether a picture without any gradient is given one from before shut rectifiers: that of the
        values that a rectified layer is made of, or else, where the model offers "rule:relu", one
        that passes all rectifiers as if they were open.  It is the only way out for a picture that
        excites nothing, or that has pressed a rectified channel down to 0 and is to go on.

    Examples
    --------
    A channel, in 100 steps from noise::

        climb = Climb(model, space, (Objective.of(Channel("conv5", 3)),), Fourier((224, 224, 3)))
        start = climb.parameterisation.noise(np.random.default_rng(0), 1, 0.01, "float32")
        found = ascend(climb, start, Adam(), 100, rng=np.random.default_rng(1))
        found.colours  # (1, 224, 224, 3)
    """

    model: Model
    space: PixelSpace
    objectives: tuple[Objective, ...]
    parameterisation: Parameterisation
    transformations: tuple[Transformation, ...] = ()
    priors: tuple[tuple[float, Prior], ...] = ()
    coupling: Coupling | None = None
    open_gates: bool = True

    def slope(self, parameters: Array, moved: Resampling | None = None) -> Slope:
        """Look at the pictures once.

        Parameters
        ----------
        parameters : ndarray (N, ...)
            What the pictures are made of.
        moved : Resampling, optional
            How they are moved before the network sees them; the priors see them unmoved.

        Returns
        -------
        Slope
        """
        colours = self.parameterisation.value(parameters)
        seen = colours if moved is None else moved.apply(colours)
        x = self.space.to_input(seen)
        pulled, shut = self._pulled(x)
        by_colours = self.space.pulled(pulled.gradient)
        if moved is not None:
            by_colours = moved.adjoint(by_colours)
        penalties = np.zeros(len(parameters), parameters.dtype)
        for weight, prior in self.priors:
            penalties += weight * prior.value(colours)
            by_colours = by_colours - weight * prior.gradient(colours)
        gradient = self.parameterisation.pulled(parameters, by_colours.astype(parameters.dtype))
        return Slope(pulled.scores, penalties, gradient, shut, _flat(pulled.gradient))

    def _pulled(self, x: Array) -> tuple[Pulled, Array]:
        """Pull the scores back to the input, through shut rectifiers where nothing else is left."""
        pulled = pull(self.model, x, self.objectives, coupling=self.coupling)
        shut = _flat(pulled.gradient)
        gradient = pulled.gradient.copy()
        if self.open_gates:
            for rows, found in self._through(x, np.flatnonzero(shut)):
                gradient[rows] = found
        return Pulled(pulled.scores, pulled.shared, gradient), shut

    def _through(self, x: Array, rows: Array) -> Iterator[tuple[Array, Array]]:
        """Give gradients of pictures from before the rectifiers that shut them out.

        The values before a rectified layer come first.  If their gradient is 0 too, all rectifiers
        are passed as if they were open.
        """
        nodes = {node for row in rows for node in self.objectives[row].nodes}
        before = {n: b for n in nodes if (b := before_rectifier(self.model.layers, n)) is not None}
        ways = [STANDARD] if before else []
        for rule in [*ways, *([OPEN] if OPEN.needs <= self.model.capabilities else [])]:
            if not len(rows):
                return
            asked = [self.objectives[row] for row in rows]
            with contextlib.suppress(RuleError):
                found = pull(self.model, x[rows], asked, rule=rule, instead=before).gradient
                yield rows, found
                rows = rows[_flat(found)]


def before_rectifier(layers: Mapping[str, LayerInfo], node: str) -> str | None:
    """Find the values of which a rectified layer's are made.

    Parameters
    ----------
    layers : mapping of str to LayerInfo
        The network's layers.
    node : str
        One of them.

    Returns
    -------
    str or None
        The layer that ended just before, if the node is of a rectifier and the shapes are the same.
        (Where a sum is rectified it may be one of its summands: the way is the same.)
    """
    if node not in layers:
        return None
    origin = layers[node]
    while origin.same_as is not None and origin.same_as in layers:
        origin = layers[origin.same_as]
    earlier = list(layers.values())[: list(layers).index(origin.name)]
    own = [info for info in earlier if info.kind != "container"]
    found = origin.kind == "relu" and own and own[-1].shape == origin.shape
    return own[-1].name if found else None


def _flat(gradient: Array) -> Array:
    """Tell of each picture whether its gradient is 0 everywhere."""
    return np.logical_not(gradient.reshape(len(gradient), -1).any(axis=1))


@dataclass(frozen=True, eq=False)
class Ascended:
    """Where a climb came.

    Attributes
    ----------
    parameters : ndarray (N, ...)
        At its end.
    colours : ndarray (N, H, W, K)
        The pictures, clipped to [0, 1].
    scores : ndarray (S, N)
        The objectives' scores before each step, of the pictures as they were moved.
    penalties : ndarray (S, N)
        What the priors took off before each step.
    shut : ndarray (S, N) of bool
        At which steps the scores' own gradient was 0 everywhere.
    flat : ndarray (S, N) of bool
        At which steps there was no other gradient either, from before shut rectifiers.
    frames : tuple of (int, ndarray (N, H, W, 3) of uint8)
        After how many steps, and the pictures then; empty where none were asked for.
    """

    parameters: Array
    colours: Array
    scores: Array
    penalties: Array
    shut: Array
    flat: Array
    frames: tuple[tuple[int, Array], ...] = ()


def ascend(
    climb: Climb,
    parameters: Array,
    optimiser: Optimiser,
    steps: int,
    *,
    rng: np.random.Generator,
    settle: Callable[[Array], Array] | None = None,
    every: int = 0,
    what: str = "maximisation",
) -> Ascended:
    """Climb.

    Parameters
    ----------
    climb : Climb
        What is climbed.
    parameters : ndarray (N, ...)
        Where it starts; left as it is.
    optimiser : Optimiser
        How steps are made.
    steps : int
        How many, at least 1.
    rng : numpy.random.Generator
        For the transformations.
    settle : callable, optional
        What is done to the parameters after each step, such as a slight blur.
    every : int
        The pictures are kept as frames at the start, every so many steps, and at the end; 0 for
        none.
    what : str
        What the work is called in its progress.

    Returns
    -------
    Ascended
    """
    step = optimiser.begin()
    size = climb.parameterisation.shape[:2]
    told: dict[str, list[Array]] = {"scores": [], "penalties": [], "shut": [], "flat": []}
    frames: list[tuple[int, Array]] = []
    for taken in range(steps):
        if every and taken % every == 0:
            frames.append((taken, as_pixels(climb.parameterisation.value(parameters))))
        slope = climb.slope(parameters, draw(climb.transformations, rng, size))
        parameters = parameters + step(slope.gradient)
        if settle is not None:
            parameters = settle(parameters)
        for name, values in told.items():
            values.append(getattr(slope, name))
        advance(what, taken + 1, steps)
    colours = np.clip(climb.parameterisation.value(parameters), 0, 1)
    if every:
        frames.append((steps, as_pixels(colours)))
    return Ascended(
        parameters,
        colours,
        frames=tuple(frames),
        **{name: np.stack(values) for name, values in told.items()},
    )
