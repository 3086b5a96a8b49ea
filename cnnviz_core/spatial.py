"""The places that operations read, as data: what a backend tells of a network's geometry.

A backend says which operations lie between an input and a value, and which places each of them
reads along every axis.  The arithmetic on these is done once for all backends, in
`cnnviz_core.receptive`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from types import MappingProxyType
from typing import Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = [
    "NOTHING",
    "SAME",
    "Bins",
    "Border",
    "Everything",
    "Geometry",
    "Kind",
    "Reading",
    "Resized",
    "Step",
    "Transposed",
    "Window",
]

Array: TypeAlias = npt.NDArray[np.int64]

Border: TypeAlias = Literal["nothing", "edge", "reflect", "symmetric", "wrap"]
"""What lies beyond the ends of an axis: nothing, or the axis again in one of NumPy's ways."""

Kind: TypeAlias = Literal["input", "same", "conv", "pool", "pad", "crop", "resize", "mix"]
"""What a step does with places; "same" keeps them, "mix" forgets them."""

NOTHING: Final = 2**40
"""The first pixel that is seen where none is; the last one is then minus this."""


class Reading(ABC):
    """Which positions of its input an operation reads along one axis, for each of its own.

    In all methods `size` counts the operation's positions, and `n` those of its input.
    """

    @abstractmethod
    def places(self, size: int, n: int) -> Iterable[Array]:
        """Give what is read, one position for each of the operation's: (size,), -1 for nothing."""

    @abstractmethod
    def reach(self, first: Array, last: Array, size: int, n: int) -> tuple[Array, Array]:
        """Give the ends of what the positions from `first` to `last` read, were there no ends."""

    @abstractmethod
    def pace(self, size: int, n: int) -> Fraction:
        """Give how many positions of the input lie from one position to the next."""

    def seen(self, first: Array, last: Array, size: int) -> tuple[Array, Array]:
        """Give the first and the last pixel that each position sees.

        Parameters
        ----------
        first, last : ndarray (n,) of int
            What the positions of the input see; `NOTHING` and its negative where they see nothing.
        size : int
            How many positions there are.

        Returns
        -------
        first, last : ndarray (size,) of int
        """
        low, high = np.full(size, NOTHING), np.full(size, -NOTHING)
        for place in self.places(size, len(first)):
            low = np.minimum(low, np.where(place < 0, NOTHING, first[place]))
            high = np.maximum(high, np.where(place < 0, -NOTHING, last[place]))
        return low, high


@dataclass(frozen=True)
class Window(Reading):
    """Position ``i`` reads ``i * stride - before + k * dilation`` for ``k`` from 0 to ``size - 1``.

    So do convolutions and pools; so do paddings and crops, which read one place each.

    Attributes
    ----------
    size, stride, dilation, before : int
        `before` is the padding at the beginning; negative for what is cut off there.
    border : str
        What lies beyond the ends.
    """

    size: int = 1
    stride: int = 1
    dilation: int = 1
    before: int = 0
    border: Border = "nothing"

    def places(self, size: int, n: int) -> Iterator[Array]:
        """See `Reading.places`."""
        start = np.arange(size) * self.stride - self.before
        for k in range(self.size):
            yield _within(start + k * self.dilation, n, self.border)

    def reach(self, first: Array, last: Array, size: int, n: int) -> tuple[Array, Array]:
        """See `Reading.reach`."""
        extent = (self.size - 1) * self.dilation
        return first * self.stride - self.before, last * self.stride - self.before + extent

    def pace(self, size: int, n: int) -> Fraction:
        """See `Reading.pace`."""
        return Fraction(self.stride)


SAME: Final = Window()
"""Every position reads the same position of the input."""


@dataclass(frozen=True)
class Transposed(Reading):
    """Position ``j`` of the input is read at ``j * stride - before + k * dilation``.

    So does a transposed convolution: it is the way back of a `Window`.

    Attributes
    ----------
    size, stride, dilation, before : int
    """

    size: int = 1
    stride: int = 1
    dilation: int = 1
    before: int = 0

    def places(self, size: int, n: int) -> Iterator[Array]:
        """See `Reading.places`."""
        for k in range(self.size):
            origin = np.arange(size) + self.before - k * self.dilation
            place = _within(origin // self.stride, n, "nothing")
            yield np.where(origin % self.stride == 0, place, -1)

    def reach(self, first: Array, last: Array, size: int, n: int) -> tuple[Array, Array]:
        """See `Reading.reach`."""
        low, high = np.full_like(first, NOTHING), np.full_like(last, -NOTHING)
        for k in range(self.size):
            origin = self.before - k * self.dilation
            start, end = -(-(first + origin) // self.stride), (last + origin) // self.stride
            low = np.where(start <= end, np.minimum(low, start), low)
            high = np.where(start <= end, np.maximum(high, end), high)
        return low, high

    def pace(self, size: int, n: int) -> Fraction:
        """See `Reading.pace`."""
        return Fraction(1, self.stride)


@dataclass(frozen=True)
class Resized(Reading):
    """Position ``i`` reads around ``(i + shift) * scale - shift``; beyond the ends lies the edge.

    Attributes
    ----------
    method : {"nearest", "round", "linear", "cubic"}
        "nearest" reads the position at or below ``(i + shift) * scale``, "round" the one nearest to
        it; the others read all that have a weight.
    scale : Fraction
        Positions of the input for each of the output.
    shift : Fraction
        1/2 where a position is the middle of its pixel, 0 where it is its corner.
    """

    method: Literal["nearest", "round", "linear", "cubic"]
    scale: Fraction
    shift: Fraction = Fraction(1, 2)

    def places(self, size: int, n: int) -> Iterator[Array]:
        """See `Reading.places`."""
        at = np.arange(size)
        first, last = self.reach(at, at, size, n)
        for k in range(int((last - first).max(initial=0)) + 1):
            yield _within(np.minimum(first + k, last), n, "edge")

    def reach(self, first: Array, last: Array, size: int, n: int) -> tuple[Array, Array]:
        """See `Reading.reach`."""
        back = {"nearest": Fraction(0), "round": Fraction(-1, 2)}.get(self.method, self.shift)
        origin = self.shift * self.scale - back
        unit = self.scale.denominator * origin.denominator  # so that all is in whole numbers
        low, high = (i * int(self.scale * unit) + int(origin * unit) for i in (first, last))
        if self.method in ("nearest", "round"):
            return low // unit, high // unit
        wider = int(self.method == "cubic")  # a place that is met exactly has all the weight
        return low // unit - wider * (low % unit > 0), -(-high // unit) + wider * (high % unit > 0)

    def pace(self, size: int, n: int) -> Fraction:
        """See `Reading.pace`."""
        return self.scale


@dataclass(frozen=True)
class Bins(Reading):
    """The axis is cut into as equal parts as can be, which may overlap: adaptive pools."""

    def places(self, size: int, n: int) -> Iterator[Array]:
        """See `Reading.places`."""
        at = np.arange(size)
        first, last = self.reach(at, at, size, n)
        for k in range(int((last - first).max(initial=0)) + 1):
            yield np.minimum(first + k, last)

    def reach(self, first: Array, last: Array, size: int, n: int) -> tuple[Array, Array]:
        """See `Reading.reach`."""
        return first * n // size, -(-(last + 1) * n // size) - 1

    def pace(self, size: int, n: int) -> Fraction:
        """See `Reading.pace`."""
        return Fraction(n, size)


@dataclass(frozen=True)
class Everything(Reading):
    """Every position reads all positions of the input."""

    def places(self, size: int, n: int) -> Iterator[Array]:
        """See `Reading.places`."""
        return (np.full(size, k) for k in range(n))

    def reach(self, first: Array, last: Array, size: int, n: int) -> tuple[Array, Array]:
        """See `Reading.reach`."""
        return np.zeros_like(first), np.full_like(last, n - 1)

    def pace(self, size: int, n: int) -> Fraction:
        """See `Reading.pace`."""
        return Fraction(0)

    def seen(self, first: Array, last: Array, size: int) -> tuple[Array, Array]:
        """See `Reading.seen`."""
        return np.full(size, first.min()), np.full(size, last.max())


def _within(place: Array, n: int, border: Border) -> Array:
    """Find the positions of an axis that lie under places, also beyond its ends."""
    match border:
        case "edge":
            return np.clip(place, 0, n - 1)
        case "wrap":
            return place % n
        case "reflect":
            around = place % max(2 * n - 2, 1)
            return np.minimum(around, 2 * n - 2 - around)
        case "symmetric":
            around = place % (2 * n)
            return np.minimum(around, 2 * n - 1 - around)
        case _:
            return np.where((place >= 0) & (place < n), place, -1)


@dataclass(frozen=True)
class Step:
    """One operation, as far as it concerns places.

    Attributes
    ----------
    kind : str
        One of `Kind`.
    grid : tuple of int
        Its positions along each axis of the input's grid: 1 where it has given the axis up.
    inputs : tuple of int
        Which earlier steps it reads, as indices.
    along : tuple of Reading
        How it reads all of them, one for each axis.  Where it keeps the places, an input with one
        position along an axis is read by all positions.
    operation : str
        Its name in the framework.
    understood : bool
        False where it is not known what it reads, so that it is taken to read everything.
    """

    kind: Kind
    grid: tuple[int, ...]
    inputs: tuple[int, ...] = ()
    along: tuple[Reading, ...] = ()
    operation: str = ""
    understood: bool = True


@dataclass(frozen=True)
class Geometry:
    """The operations between one input of a network and some of its nodes.

    Attributes
    ----------
    steps : tuple of Step
        Every step behind those that it reads; the first is the input.
    nodes : mapping of str to int
        For each node that was asked for, the step that makes its value.
    """

    steps: tuple[Step, ...]
    nodes: Mapping[str, int]

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", tuple(self.steps))
        object.__setattr__(self, "nodes", MappingProxyType(dict(self.nodes)))
