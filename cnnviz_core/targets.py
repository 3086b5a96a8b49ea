"""Targets: what of a network's output is to be explained.

A target turns one sample's value at a node into a score, and gives that score's gradient with
respect to the value.  It is NumPy, so a new question needs nothing new of a backend.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Final, Literal, Protocol, runtime_checkable

import numpy as np

from cnnviz_core.errors import TargetError, UnknownClassError
from cnnviz_core.model import LOGITS, OUTPUT, Array

__all__ = [
    "ClassProbability",
    "ClassScore",
    "Contrast",
    "Neuron",
    "Predicted",
    "Segment",
    "Similarity",
    "Target",
    "Weighted",
    "cotangent_of",
    "probabilities",
    "resolve_all",
    "saturation",
    "scores_of",
    "target_from_dict",
    "target_node",
    "target_to_dict",
    "top_k",
]


_SATURATED: Final = 1e-6
"""Below this a bounded score cannot change any more, and its gradient in float32 is rounding."""


@runtime_checkable
class Target(Protocol):
    """A score of one sample's value at a node.

    A bounded score may also have ``saturated(value) -> bool``: whether it is so near its bound that
    its gradient says nothing.

    Attributes
    ----------
    of : str
        The node whose value is scored: `LOGITS`, `OUTPUT`, or a layer's.
    """

    @property
    def of(self) -> str:
        """The node whose value is scored."""
        ...

    def score(self, value: Array) -> float:
        """Score the value.

        Parameters
        ----------
        value : ndarray
            One sample's value at `of`, without the batch axis.

        Returns
        -------
        float

        Raises
        ------
        TargetError
            If the value has not the shape that the target is about.
        """
        ...

    def gradient(self, value: Array) -> Array:
        """Differentiate the score with respect to the value.

        Parameters
        ----------
        value : ndarray
            One sample's value at `of`, without the batch axis.

        Returns
        -------
        ndarray
            Of the value's shape and type.
        """
        ...

    def resolve(self, value: Array) -> Target:
        """Fix what depends on the value, such as which class is predicted.

        Parameters
        ----------
        value : ndarray
            One sample's value at `of`, without the batch axis.

        Returns
        -------
        Target
            One whose meaning no longer depends on the sample.
        """
        ...


class _Fixed:
    """A target whose meaning does not depend on the sample; compares its arrays by value."""

    def resolve(self, value: Array) -> Any:
        """Return the target itself."""
        return self

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        mine = [getattr(self, f.name) for f in fields(self)]  # type: ignore[arg-type]
        theirs = [getattr(other, f.name) for f in fields(self)]  # type: ignore[arg-type]
        return all(np.array_equal(a, b) for a, b in zip(mine, theirs, strict=True))

    def __hash__(self) -> int:
        return hash((type(self).__name__, repr(self)))


def _class_vector(value: Array) -> Array:
    """Check that a value is a vector with one score for each class."""
    if value.ndim != 1:
        raise TargetError(
            f"the output of a sample has the shape {value.shape}",
            "a vector with one score for each class",
            "use Segment for dense outputs, Neuron or Weighted for any others",
        )
    return value


def _check_class(index: int, value: Array) -> int:
    """Check that a class exists."""
    n = value.shape[-1]
    if not 0 <= index < n:
        raise UnknownClassError(
            f"class {index} is out of range",
            f"a class from 0 to {n - 1}",
            "count the classes from 0",
        )
    return index


def _one_hot(value: Array, index: int | tuple[int, ...], entry: float = 1.0) -> Array:
    """Give zeros like `value` with one entry set."""
    gradient = np.zeros_like(value)
    gradient[index] = entry
    return gradient


@dataclass(frozen=True, eq=False)
class ClassScore(_Fixed):
    """The score of one class before the softmax or sigmoid.

    Attributes
    ----------
    index : int
        The class, counted from 0.
    """

    index: int
    of: ClassVar[str] = LOGITS

    def score(self, value: Array) -> float:
        """Return the class's score."""
        return float(_class_vector(value)[_check_class(self.index, value)])

    def gradient(self, value: Array) -> Array:
        """Return 1 at the class."""
        return _one_hot(_class_vector(value), _check_class(self.index, value))

    def __str__(self) -> str:
        return f"class {self.index}"


@dataclass(frozen=True, eq=False)
class ClassProbability(_Fixed):
    """The probability of one class.

    Attributes
    ----------
    index : int
        The class, counted from 0.
    activation : {"softmax", "sigmoid"}
        How scores become probabilities: classes that exclude each other, or that do not.
    """

    index: int
    activation: Literal["softmax", "sigmoid"] = "softmax"
    of: ClassVar[str] = LOGITS

    def _probabilities(self, value: Array) -> Array:
        _check_class(self.index, _class_vector(value))
        return probabilities(value, self.activation)

    def saturated(self, value: Array) -> bool:
        """Tell whether the probability is so near 0 or 1 that its gradient is mostly rounding."""
        p = float(self._probabilities(value)[self.index])
        return p * (1 - p) < _SATURATED

    def score(self, value: Array) -> float:
        """Return the class's probability."""
        return float(self._probabilities(value)[self.index])

    def gradient(self, value: Array) -> Array:
        """Return the derivative of the probability with respect to the scores."""
        p = self._probabilities(value)
        if self.activation == "sigmoid":
            return _one_hot(value, self.index, p[self.index] * (1 - p[self.index]))
        return p[self.index] * (_one_hot(value, self.index) - p)

    def __str__(self) -> str:
        return f"probability of class {self.index}"


@dataclass(frozen=True, eq=False)
class Contrast(_Fixed):
    """The score of one class less that of another, to ask why this one rather than that.

    Attributes
    ----------
    index, other : int
        The two classes, counted from 0.
    """

    index: int
    other: int
    of: ClassVar[str] = LOGITS

    def score(self, value: Array) -> float:
        """Return the difference of the two scores."""
        _class_vector(value)
        return float(
            value[_check_class(self.index, value)] - value[_check_class(self.other, value)]
        )

    def gradient(self, value: Array) -> Array:
        """Return 1 at the class, -1 at the other."""
        _class_vector(value)
        return _one_hot(value, _check_class(self.index, value)) - _one_hot(
            value, _check_class(self.other, value)
        )

    def __str__(self) -> str:
        return f"class {self.index} rather than {self.other}"


@dataclass(frozen=True, eq=False)
class Neuron(_Fixed):
    """One value of a layer's output, or the sum over a channel.

    Attributes
    ----------
    layer : str
        The layer's node.
    index : tuple of int
        Where, without the batch axis and channels last, (row, column, channel) for pictures; or
        (channel,) for the sum over the channel's positions.
    """

    layer: str
    index: tuple[int, ...]

    def __post_init__(self) -> None:
        given = (self.index,) if isinstance(self.index, int) else self.index
        object.__setattr__(self, "index", tuple(int(i) for i in given))

    @property
    def of(self) -> str:
        """The layer's node."""
        return self.layer

    def _where(self, value: Array) -> tuple[Any, ...]:
        whole = len(self.index) == 1
        if not whole and len(self.index) != value.ndim:
            raise TargetError(
                f"the index {self.index} has {len(self.index)} entries, and {self.layer!r} gives "
                f"{value.shape}",
                f"{value.ndim} entries, or one for a whole channel",
                "give (row, column, channel), or (channel,)",
            )
        sizes = value.shape[-1:] if whole else value.shape
        if any(not 0 <= i < n for i, n in zip(self.index, sizes, strict=True)):
            raise TargetError(
                f"the index {self.index} is out of range",
                f"entries below {sizes}",
                "count from 0",
            )
        return (..., self.index[0]) if whole else self.index

    def score(self, value: Array) -> float:
        """Return the value at the index, or the channel's sum."""
        return float(value[self._where(value)].sum())

    def gradient(self, value: Array) -> Array:
        """Return 1 at the index, or all over the channel."""
        return _one_hot(value, self._where(value))

    def __str__(self) -> str:
        return f"{self.layer}{list(self.index)}"


@dataclass(frozen=True, eq=False)
class Segment(_Fixed):
    """The score of a class summed over a region of a dense output (segmentation).

    Attributes
    ----------
    index : int
        The class, counted from 0.
    mask : ndarray (h, w) of bool, or None
        The region, at the output's size; None is where the class wins, which `resolve` fixes.
    """

    index: int
    mask: Array | None = None
    of: ClassVar[str] = LOGITS

    def __post_init__(self) -> None:
        if self.mask is not None:
            object.__setattr__(self, "mask", _frozen(np.asarray(self.mask, dtype=bool)))

    def _region(self, value: Array) -> Array:
        if value.ndim < 2:
            raise TargetError(
                f"the output of a sample has the shape {value.shape}",
                "a dense output, one score for each position and class",
                "use ClassScore for a vector of scores",
            )
        _check_class(self.index, value)
        region = value.argmax(-1) == self.index if self.mask is None else self.mask
        if region.shape != value.shape[:-1]:
            raise TargetError(
                f"the mask has the shape {region.shape}",
                f"the output's, {value.shape[:-1]}",
                "resize the mask to the output",
            )
        return region

    def resolve(self, value: Array) -> Segment:
        """Fix the region where the class wins."""
        return self if self.mask is not None else Segment(self.index, self._region(value))

    def score(self, value: Array) -> float:
        """Return the class's score, summed over the region."""
        return float(value[..., self.index][self._region(value)].sum())

    def gradient(self, value: Array) -> Array:
        """Return 1 at the class's positions in the region."""
        gradient = np.zeros_like(value)
        gradient[..., self.index] = self._region(value)
        return gradient

    def __str__(self) -> str:
        where = "where it wins" if self.mask is None else "in a region"
        return f"class {self.index} {where}"


@dataclass(frozen=True, eq=False)
class Similarity(_Fixed):
    """The cosine similarity of an embedding to a reference.

    Attributes
    ----------
    reference : ndarray
        The embedding to compare with, of the output's shape without the batch axis.
    of : str
        The node that gives the embedding.
    """

    reference: Array
    of: str = OUTPUT

    def __post_init__(self) -> None:
        reference = np.asarray(self.reference, dtype=np.float64)
        if not np.isfinite(reference).all() or not np.linalg.norm(reference) > 0:
            raise TargetError(
                "the reference embedding is zero or not finite",
                "a finite vector that is not zero",
                "take it from a forward pass over the picture to compare with",
            )
        object.__setattr__(self, "reference", _frozen(reference))

    def _parts(self, value: Array) -> tuple[Array, float, Array]:
        _same_shape(value, self.reference, "the reference embedding")
        v = value.astype(np.float64)
        return (
            v,
            float(np.linalg.norm(v)),
            self.reference / np.linalg.norm(self.reference),
        )

    def saturated(self, value: Array) -> bool:
        """Tell whether the embeddings are so alike that the gradient is mostly rounding."""
        return 1 - abs(self.score(value)) < _SATURATED

    def score(self, value: Array) -> float:
        """Return the cosine, in [-1, 1]; 0 for an embedding of zeros."""
        v, length, unit = self._parts(value)
        return float(np.sum(v * unit) / length) if length > 0 else 0.0

    def gradient(self, value: Array) -> Array:
        """Return the derivative of the cosine."""
        v, length, unit = self._parts(value)
        if length == 0:
            return np.zeros_like(value)
        cosine = np.sum(v * unit) / length
        return ((unit - cosine * v / length) / length).astype(value.dtype)

    def __str__(self) -> str:
        return "similarity to an embedding"


@dataclass(frozen=True, eq=False)
class Weighted(_Fixed):
    """The inner product of a node's value with given weights.

    Attributes
    ----------
    weights : ndarray
        Of the value's shape without the batch axis.
    of : str
        The node.
    """

    weights: Array
    of: str = LOGITS

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights", _frozen(np.asarray(self.weights, dtype=np.float64)))

    def score(self, value: Array) -> float:
        """Return the inner product."""
        _same_shape(value, self.weights, "the weights")
        return float(np.sum(value * self.weights))

    def gradient(self, value: Array) -> Array:
        """Return the weights."""
        _same_shape(value, self.weights, "the weights")
        return self.weights.astype(value.dtype)

    def __str__(self) -> str:
        return f"weighted sum of {self.of}"


@dataclass(frozen=True)
class Predicted:
    """The class that the network puts first, or at a given rank.

    Attributes
    ----------
    rank : int
        0 is the highest score, 1 the second, and so on.
    """

    rank: int = 0
    of: ClassVar[str] = LOGITS

    def resolve(self, value: Array) -> ClassScore:
        """Return the target of the class that has this rank."""
        _class_vector(value)
        if not 0 <= self.rank < len(value):
            raise TargetError(
                f"rank {self.rank} of the predicted classes is out of range",
                f"a rank from 0 to {len(value) - 1}",
                "ask for fewer classes",
            )
        # Of equal scores the lower class comes first, on every backend.
        return ClassScore(int(np.argsort(-value, kind="stable")[self.rank]))

    def score(self, value: Array) -> float:
        """Return the score of the class that has this rank."""
        return self.resolve(value).score(value)

    def gradient(self, value: Array) -> Array:
        """Return 1 at the class that has this rank."""
        return self.resolve(value).gradient(value)

    def __str__(self) -> str:
        return "predicted class" if self.rank == 0 else f"class predicted at rank {self.rank}"


def top_k(k: int) -> tuple[Predicted, ...]:
    """Give the targets of the k classes with the highest scores.

    Parameters
    ----------
    k : int
        How many, at least 1.

    Returns
    -------
    tuple of Predicted

    Raises
    ------
    TargetError
        If `k` is below 1.
    """
    if k < 1:
        raise TargetError(f"top-{k} was asked for", "k of at least 1", "ask for top-1 or more")
    return tuple(Predicted(rank) for rank in range(k))


def probabilities(logits: Array, activation: str) -> Array:
    """Turn scores into probabilities.

    Parameters
    ----------
    logits : ndarray (..., K)
        Scores.
    activation : {"softmax", "sigmoid", "none", "probabilities"}
        Classes that exclude each other, that do not, or scores as they are; the last also where
        they are probabilities already.

    Returns
    -------
    ndarray (..., K)
        In [0, 1] for the first two.
    """
    if activation == "softmax":
        e = np.exp(logits - logits.max(-1, keepdims=True))
        return e / e.sum(-1, keepdims=True)
    if activation == "sigmoid":
        # The two branches keep the exponent negative, so that nothing overflows.
        e = np.exp(-np.abs(logits))
        return np.where(logits >= 0, 1 / (1 + e), e / (1 + e)).astype(logits.dtype)
    return logits


def target_node(targets: Sequence[Target]) -> str:
    """Give the node that all targets of a batch are about.

    Parameters
    ----------
    targets : sequence of Target
        One for each sample.

    Returns
    -------
    str

    Raises
    ------
    TargetError
        If there are none, or they are about different nodes.
    """
    nodes = list(dict.fromkeys(target.of for target in targets))
    if len(nodes) != 1:
        raise TargetError(
            f"the targets are about {len(nodes)} nodes: {nodes}",
            "targets about one node in a batch",
            "explain the samples in several calls",
        )
    return nodes[0]


def scores_of(targets: Sequence[Target], value: Array) -> Array:
    """Score a batch.

    Parameters
    ----------
    targets : sequence of Target
        One for each sample.
    value : ndarray (N, ...)
        The value at the targets' node.

    Returns
    -------
    ndarray (N,)

    Raises
    ------
    TargetError
        If the numbers differ, or a target does not fit the value.
    """
    _check_number(targets, value)
    return np.array([t.score(v) for t, v in zip(targets, value, strict=True)], dtype=value.dtype)


def cotangent_of(targets: Sequence[Target]) -> Callable[[Array], Array]:
    """Give the function that turns the value at the targets' node into the scores' gradient.

    Parameters
    ----------
    targets : sequence of Target
        One for each sample.

    Returns
    -------
    callable
        From the value (N, ...) to an array of its shape, for `Model.pullback`.
    """

    def cotangent(value: Array) -> Array:
        _check_number(targets, value)
        return np.stack([t.gradient(v) for t, v in zip(targets, value, strict=True)]).astype(
            value.dtype, copy=False
        )

    return cotangent


def resolve_all(targets: Sequence[Target], value: Array) -> tuple[Target, ...]:
    """Fix what depends on the value, for every sample of a batch.

    Parameters
    ----------
    targets : sequence of Target
        One for each sample.
    value : ndarray (N, ...)
        The value at the targets' node.

    Returns
    -------
    tuple of Target
    """
    _check_number(targets, value)
    return tuple(t.resolve(v) for t, v in zip(targets, value, strict=True))


def saturation(targets: Sequence[Target], value: Array) -> list[bool]:
    """Tell of each sample whether its score is so near its bound that its gradient says nothing.

    Parameters
    ----------
    targets : sequence of Target
        One for each sample.
    value : ndarray (N, ...)
        The value at the targets' node.

    Returns
    -------
    list of bool
        False for targets without a bound.
    """
    _check_number(targets, value)
    asked = [getattr(target, "saturated", None) for target in targets]
    return [bool(ask(v)) if ask is not None else False for ask, v in zip(asked, value, strict=True)]


_KINDS: dict[str, type] = {
    kind.__name__: kind
    for kind in (
        ClassScore,
        ClassProbability,
        Contrast,
        Neuron,
        Segment,
        Similarity,
        Weighted,
        Predicted,
    )
}


def target_to_dict(target: Target) -> dict[str, Any]:
    """Give a target as JSON values.

    Parameters
    ----------
    target : Target
        One of this module's; of another class only its description is kept.

    Returns
    -------
    dict
        With the key "kind" and one for each field.
    """
    kind = type(target).__name__
    if _KINDS.get(kind) is not type(target):
        return {"kind": kind, "description": str(target)}

    def plain(value: Any) -> Any:
        return value.tolist() if isinstance(value, np.ndarray) else value

    return {
        "kind": kind,
        **{f.name: plain(getattr(target, f.name)) for f in fields(target)},  # type: ignore[arg-type]
    }


def target_from_dict(values: Mapping[str, Any]) -> Target:
    """Make the target that `target_to_dict` described.

    Parameters
    ----------
    values : mapping
        What `target_to_dict` gave.

    Returns
    -------
    Target

    Raises
    ------
    TargetError
        If the target was not of this module.
    """
    rest = dict(values)
    kind = _KINDS.get(rest.pop("kind", ""))
    if kind is None:
        raise TargetError(
            f"a target of the kind {values.get('kind')!r} cannot be made from data",
            f"one of {', '.join(_KINDS)}",
            "make it with its own class",
        )
    target: Target = kind(**rest)
    return target


def _frozen(array: Array) -> Array:
    """Give a read-only copy."""
    copy = array.copy()
    copy.flags.writeable = False
    return copy


def _same_shape(value: Array, mine: Array, what: str) -> None:
    """Check that a target's array fits the value."""
    if value.shape != mine.shape:
        raise TargetError(
            f"{what} has the shape {mine.shape}",
            f"the shape of a sample's value, {value.shape}",
            "give one entry for each value",
        )


def _check_number(targets: Sequence[Target], value: Array) -> None:
    """Check that there is a target for each sample."""
    if len(targets) != len(value):
        raise TargetError(
            f"{len(targets)} targets were given for {len(value)} samples",
            "one target for each sample",
            "pass one target, or a list as long as the batch",
        )
