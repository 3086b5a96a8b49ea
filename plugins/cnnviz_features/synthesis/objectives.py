"""What a picture is to excite: targets of layers, and weighted sums of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, Protocol

import numpy as np

from cnnviz_core.errors import (
    TargetError,
    UnknownLayerError,
)
from cnnviz_core.model import INPUT, Array, LayerInfo, Model
from cnnviz_core.rules import STANDARD, BackwardRule
from cnnviz_core.targets import Neuron, Target

__all__ = [
    "Channel",
    "Coupling",
    "Direction",
    "Distance",
    "Energy",
    "Objective",
    "Pulled",
    "neuron",
    "pull",
]

_FLOOR: Final = 0.1
"""The least cosine that counts, so that a direction has a slope where a value points away."""


class _Fixed:
    """A target whose meaning does not depend on the sample."""

    def resolve(self, value: Array) -> Any:
        """Return the target itself."""
        return self


@dataclass(frozen=True)
class Channel(_Fixed):
    """The mean of a channel over all its positions.

    Attributes
    ----------
    of : str
        The layer's node.
    index : int
        The channel, counted from 0.
    """

    of: str
    index: int

    def _checked(self, value: Array) -> int:
        n = value.shape[-1]
        if not 0 <= self.index < n:
            raise TargetError(
                f"channel {self.index} of {self.of!r} is out of range",
                f"a channel from 0 to {n - 1}",
                "count the channels from 0",
            )
        return self.index

    def score(self, value: Array) -> float:
        """Return the mean."""
        return float(value[..., self._checked(value)].mean())

    def gradient(self, value: Array) -> Array:
        """Return 1 over the number of positions, all over the channel."""
        gradient = np.zeros_like(value)
        gradient[..., self._checked(value)] = value.shape[-1] / value.size
        return gradient

    def __str__(self) -> str:
        return f"{self.of}:{self.index}"


@dataclass(frozen=True, eq=False)
class Direction(_Fixed):
    """The inner product of a layer's values with a vector, as a mean over all positions.

    With a `power` p each position's product counts ``max(cosine, 0.1)^p`` times, which keeps a
    picture from growing long in some other direction.

    Attributes
    ----------
    of : str
        The layer's node.
    vector : ndarray (C,)
        One entry for each channel; not all 0.
    power : float
        Of the cosine; 0 leaves it out.

    References
    ----------
    Carter et al., "Activation atlas", Distill 2019, on the power of the cosine.
    """

    of: str
    vector: Array
    power: float = 0.0

    def __post_init__(self) -> None:
        vector = np.array(self.vector, dtype=np.float64)
        if vector.ndim != 1 or not np.isfinite(vector).all() or not vector.any():
            raise TargetError(
                f"the direction is an array of the shape {vector.shape}"
                + (", all zero or not finite" if vector.ndim == 1 else ""),
                "a finite vector that is not zero, one entry for each channel",
                "take it from a layer's values, such as the difference of two",
            )
        vector.flags.writeable = False
        object.__setattr__(self, "vector", vector)

    def _parts(self, value: Array) -> tuple[Array, Array, Array]:
        """Give the values (positions, C), their products, and their cosines."""
        if value.shape[-1:] != self.vector.shape:
            raise TargetError(
                f"the direction has {len(self.vector)} entries, and {self.of!r} gives "
                f"{value.shape}",
                f"{value.shape[-1]} entries, one for each channel",
                "take the vector from this very layer",
            )
        rows = value.reshape(-1, value.shape[-1]).astype(np.float64)
        products = rows @ self.vector
        lengths = np.linalg.norm(rows, axis=1) * np.linalg.norm(self.vector)
        cosines = np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0)
        return rows, products, cosines

    def score(self, value: Array) -> float:
        """Return the mean of the products, times the power of the cosine."""
        _, products, cosines = self._parts(value)
        return float((products * np.maximum(cosines, _FLOOR) ** self.power).mean())

    def gradient(self, value: Array) -> Array:
        """Return the derivative by the values."""
        rows, products, cosines = self._parts(value)
        powers = np.maximum(cosines, _FLOOR) ** self.power
        gradient = powers[:, None] * self.vector
        if self.power:
            # product * d(cosine^p) = p cosine^p (vector - product / |row|^2 row) above the floor.
            squares = (rows**2).sum(1)
            bent = np.where(cosines > _FLOOR, self.power * powers, 0)
            share = np.divide(products, squares, out=np.zeros_like(products), where=squares > 0)
            gradient += bent[:, None] * (self.vector - share[:, None] * rows)
        return (gradient / len(rows)).reshape(value.shape).astype(value.dtype)

    def __str__(self) -> str:
        return f"a direction of {self.of}"


@dataclass(frozen=True)
class Energy(_Fixed):
    """The mean square of a layer's values: all that it sees, as DeepDream asks for.

    Attributes
    ----------
    of : str
        The layer's node.
    """

    of: str

    def score(self, value: Array) -> float:
        """Return the mean square."""
        return float(np.mean(np.square(value)))

    def gradient(self, value: Array) -> Array:
        """Return the values, times 2 over their number."""
        return (2 / value.size * value).astype(value.dtype)

    def __str__(self) -> str:
        return self.of


@dataclass(frozen=True, eq=False)
class Distance(_Fixed):
    """The squared distance of a layer's values from given ones: ``|a - a0|^2 / |a0|^2``.

    A picture that shall come near the given values climbs the negative of it (a weight of -1).

    Attributes
    ----------
    of : str
        The layer's node.
    reference : ndarray
        The values ``a0``, of the layer's shape without the batch axis; not all 0.

    References
    ----------
    Mahendran & Vedaldi, "Understanding deep image representations by inverting them", CVPR 2015,
    equation 5.
    """

    of: str
    reference: Array

    def __post_init__(self) -> None:
        reference = np.array(self.reference, dtype=np.float64)
        if not np.isfinite(reference).all() or not reference.any():
            raise TargetError(
                "the values to come near are all zero or not finite",
                "finite values that are not all zero",
                "choose a layer that the picture excites",
            )
        reference.flags.writeable = False
        object.__setattr__(self, "reference", reference)

    def _difference(self, value: Array) -> Array:
        if value.shape != self.reference.shape:
            raise TargetError(
                f"the values to come near have the shape {self.reference.shape}",
                f"the shape that {self.of!r} gives, {value.shape}",
                "take them from this very layer",
            )
        return value.astype(np.float64) - self.reference

    def score(self, value: Array) -> float:
        """Return the squared distance, over the square of the given values."""
        return float(np.sum(self._difference(value) ** 2) / np.sum(self.reference**2))

    def gradient(self, value: Array) -> Array:
        """Return its derivative by the values."""
        difference = self._difference(value)
        return (2 / np.sum(self.reference**2) * difference).astype(value.dtype)

    def __str__(self) -> str:
        return f"the distance at {self.of}"


@dataclass(frozen=True, eq=False)
class Objective:
    """A weighted sum of targets, perhaps of several layers.

    Attributes
    ----------
    terms : tuple of (float, Target)
        At least one.
    name : str
        What it is called; made of the terms where it is left out.

    Examples
    --------
    >>> print(Objective.of(Channel("conv1", 3)) - 0.5 * Objective.of(Channel("conv2", 7)))
    conv1:3 - 0.5*conv2:7
    """

    terms: tuple[tuple[float, Target], ...]
    name: str = field(default="", kw_only=True)

    def __post_init__(self) -> None:
        object.__setattr__(self, "terms", tuple((float(w), t) for w, t in self.terms))
        if not self.terms:
            raise TargetError("an objective of nothing", "at least one target", "name one")

    @classmethod
    def of(cls, target: Target, name: str = "") -> Objective:
        """Make the objective of one target.

        Parameters
        ----------
        target : Target
            What to excite.
        name : str
            What it is called.

        Returns
        -------
        Objective
        """
        return cls(((1.0, target),), name=name)

    @property
    def nodes(self) -> tuple[str, ...]:
        """The nodes whose values count, each once, in the order of the terms."""
        return tuple(dict.fromkeys(target.of for _, target in self.terms))

    def __add__(self, other: Objective) -> Objective:
        return Objective(self.terms + other.terms)

    def __sub__(self, other: Objective) -> Objective:
        return self + -other

    def __neg__(self) -> Objective:
        return -1 * self

    def __rmul__(self, weight: float) -> Objective:
        return Objective(tuple((weight * w, target) for w, target in self.terms))

    def __str__(self) -> str:
        if self.name:
            return self.name
        text = ""
        for weight, target in self.terms:
            sign = "-" if weight < 0 else "+"
            text += f" {sign} " if text else sign.strip("+")
            text += f"{target}" if abs(weight) == 1 else f"{abs(weight):g}*{target}"
        return text

    def score(self, node: str, value: Array) -> float:
        """Score one sample's value at a node: the weighted sum of the terms about it.

        Parameters
        ----------
        node : str
            One of `nodes`.
        value : ndarray
            Without the batch axis.

        Returns
        -------
        float
        """
        return sum(w * target.score(value) for w, target in self.terms if target.of == node)

    def gradient(self, node: str, value: Array) -> Array:
        """Differentiate `score` by the value.

        Parameters
        ----------
        node : str
            One of `nodes`.
        value : ndarray
            Without the batch axis.

        Returns
        -------
        ndarray
            Of the value's shape and type; 0 where no term is about the node.
        """
        gradient = np.zeros_like(value)
        for weight, target in self.terms:
            if target.of == node:
                gradient += weight * target.gradient(value)
        return gradient


class Coupling(Protocol):
    """A score of a whole batch at a node, which ties its pictures together.

    Attributes
    ----------
    of : str
        The layer's node.
    """

    @property
    def of(self) -> str:
        """The layer's node."""
        ...

    def scores(self, value: Array) -> Array:
        """Give each picture's share of the score.

        Parameters
        ----------
        value : ndarray (N, ...)
            The batch's values at the node.

        Returns
        -------
        ndarray (N,)
        """
        ...

    def gradient(self, value: Array) -> Array:
        """Differentiate the sum of the scores by the values.

        Parameters
        ----------
        value : ndarray (N, ...)
            The batch's values at the node.

        Returns
        -------
        ndarray (N, ...)
            Of the values' type.
        """
        ...


@dataclass(frozen=True, eq=False)
class Pulled:
    """What a batch scores, and which way its pictures would score more.

    Attributes
    ----------
    scores : ndarray (N,)
        Of the objectives alone.
    shared : ndarray (N,)
        Of the coupling; 0 where there is none.
    gradient : ndarray (N, H, W, C)
        Of the sum of both, by the network's input.
    """

    scores: Array
    shared: Array
    gradient: Array


def pull(
    model: Model,
    x: Array,
    objectives: Sequence[Objective],
    *,
    coupling: Coupling | None = None,
    rule: BackwardRule = STANDARD,
    instead: Mapping[str, str] = MappingProxyType({}),
) -> Pulled:
    """Score a batch, and differentiate the scores by the network's input.

    Each distinct node takes one pass, with the pictures whose objectives are about it.

    Parameters
    ----------
    model : Model
        The network, which offers "gradient".
    x : ndarray (N, H, W, C)
        In the network's own value range.
    objectives : sequence of Objective
        One for each picture.
    coupling : Coupling, optional
        What ties the pictures together.
    rule : BackwardRule
        How the gradient passes rectifiers.
    instead : mapping of str to str
        Nodes in the place of others: values of the same shape that are scored and differentiated
        for them, such as those before a rectifier.

    Returns
    -------
    Pulled

    Raises
    ------
    TargetError
        If the numbers differ, or a target does not fit the layer's values.
    RuleError
        If the rule would change nothing.
    """
    if len(objectives) != len(x):
        raise TargetError(
            f"{len(objectives)} objectives were given for {len(x)} pictures",
            "one for each picture",
            "repeat it",
        )
    gradient, scores, shared = np.zeros_like(x), np.zeros(len(x), x.dtype), np.zeros(len(x))
    nodes = [node for objective in objectives for node in objective.nodes]
    for node in dict.fromkeys([*nodes, *([coupling.of] if coupling else [])]):
        tied = coupling if coupling is not None and coupling.of == node else None
        rows = [i for i, o in enumerate(objectives) if tied is not None or node in o.nodes]
        asked = [objectives[i] for i in rows]
        of = instead.get(node, node)
        back = model.pullback(x[rows], _cotangent(asked, node, tied), of=of, rule=rule)
        value = back.values[of]
        gradient[rows] += back.gradients[INPUT]
        scores[rows] += [each.score(node, v) for each, v in zip(asked, value, strict=True)]
        if tied is not None:
            shared += tied.scores(value)
    return Pulled(scores, shared.astype(x.dtype), gradient)


def _cotangent(
    objectives: Sequence[Objective], node: str, tied: Coupling | None
) -> Callable[[Array], Array]:
    """Give the function from the values at a node to the gradient of all scores by them."""

    def cotangent(value: Array) -> Array:
        own = np.stack([o.gradient(node, v) for o, v in zip(objectives, value, strict=True)])
        return own if tied is None else own + tied.gradient(value)

    return cotangent


def neuron(info: LayerInfo, channel: int, at: tuple[int, int] | None = None) -> Neuron:
    """Make the target of one neuron of a layer.

    Parameters
    ----------
    info : LayerInfo
        The layer, with a grid of (h, w) positions.
    channel : int
        Which channel, counted from 0.
    at : tuple of int, optional
        (row, column), counted from 0; the middle of the grid if left out.

    Returns
    -------
    Neuron

    Raises
    ------
    UnknownLayerError
        If the layer has no grid of rows and columns.
    TargetError
        If the position is outside it.
    """
    if info.grid is None or len(info.grid) != 2:
        raise UnknownLayerError(
            f"layer {info.name!r} has no grid of rows and columns; it gives {info.shape}",
            "a layer with an output of (h, w, channels)",
            "leave the position out, to excite the whole channel",
        )
    h, w = info.grid
    row, column = at or (h // 2, w // 2)
    if not (0 <= row < h and 0 <= column < w):
        raise TargetError(
            f"position {row},{column} is outside the grid of layer {info.name!r}",
            f"rows from 0 to {h - 1} and columns from 0 to {w - 1}",
            "count from 0",
        )
    if len(info.shape) == 3:
        return Neuron(info.name, (row, column, channel))
    return Neuron(info.name, (info.prefix + row * w + column, channel))
