"""Making a geometry: following places through the operations of tensors.

A framework's tensors have axes; places lie along some of them, in an order that permutations and
reshapings change.  A `Sketch` follows both: the steps between places, and what every axis of every
tensor stands for.  A backend translates its operations to these few; of what it cannot translate
`Sketch.unclear` says that it may read everything.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import chain
from typing import Final, TypeAlias

from cnnviz_core.spatial import SAME, Everything, Geometry, Kind, Reading, Resized, Step, Window

__all__ = ["PLAIN", "Axis", "Layout", "Shape", "Sketch", "Unclear", "Value"]

Shape: TypeAlias = tuple[int, ...]
_Part: TypeAlias = tuple[int | None, int]
"""An axis of the grid, or None, and its size."""


class Unclear(Exception):
    """Says that it is not known which places an operation reads."""


@dataclass(frozen=True)
class Axis:
    """What lies along an axis of a tensor.

    Attributes
    ----------
    spatial : tuple of int
        Axes of the input's grid, the last the fastest; none along the batch and the channels.
    each : int
        How many values of every place lie side by side.
    times : int
        How often all these lie one behind the other.
    before : int
        How many values come before, which have no place (class tokens).
    """

    spatial: tuple[int, ...] = ()
    each: int = 1
    times: int = 1
    before: int = 0

    @property
    def plain(self) -> bool:
        """Whether it has nothing to do with places."""
        return not self.spatial

    @property
    def single(self) -> bool:
        """Whether it is one axis of the grid and nothing else."""
        return len(self.spatial) == self.each == self.times == 1 and not self.before


PLAIN: Final = Axis()
"""An axis that has nothing to do with places."""

Layout: TypeAlias = tuple[Axis, ...]


@dataclass(frozen=True)
class Value:
    """A tensor.

    Attributes
    ----------
    step : int
        What made it.
    shape : tuple of int
    layout : tuple of Axis
        What lies along each of its axes.
    """

    step: int
    shape: Shape
    layout: Layout

    def spatial(self, dims: Iterable[int]) -> tuple[int, ...]:
        """Give the axes of the grid that lie along some axes."""
        return tuple(chain.from_iterable(self.layout[dim].spatial for dim in dims))


class Sketch:
    """A geometry while it is made.

    Parameters
    ----------
    grid : tuple of int
        The input's positions.

    Attributes
    ----------
    steps : list of Step
        So far; the first is the input.
    """

    def __init__(self, grid: Shape) -> None:
        self.steps = [Step("input", tuple(grid))]

    @classmethod
    def of_input(cls, shape: Shape, *, channels_first: bool) -> tuple[Sketch, Value]:
        """Begin with an input, (N, C, ...) or (N, ..., C)."""
        axes = tuple(Axis((k,)) for k in range(len(shape) - 2))
        layout = (PLAIN, PLAIN, *axes) if channels_first else (PLAIN, *axes, PLAIN)
        grid = shape[2:] if channels_first else shape[1:-1]
        return cls(grid), Value(0, shape, layout[: len(shape)])

    def geometry(self, made: Mapping[str, Value | None]) -> Geometry:
        """Give what was sketched, with the nodes that depend on the input."""
        nodes = {
            name: self.settled(value).step for name, value in made.items() if value is not None
        }
        return Geometry(tuple(self.steps), nodes)

    # ---------------------------------------------------------------- steps

    def add(
        self,
        kind: Kind,
        grid: Shape,
        inputs: Iterable[int],
        along: Iterable[Reading] | None = None,
        operation: str = "",
        understood: bool = True,
    ) -> int:
        """Add a step, and give its index; without readings it keeps the places."""
        readings = (SAME,) * len(grid) if along is None else tuple(along)
        self.steps.append(Step(kind, tuple(grid), tuple(inputs), readings, operation, understood))
        return len(self.steps) - 1

    def same(self, inputs: Iterable[int], operation: str = "") -> int:
        """Add a step that joins others place by place; of one it is that one itself."""
        inputs = tuple(dict.fromkeys(inputs))
        if len(inputs) == 1:
            return inputs[0]
        return self.add("same", self._grid(inputs), inputs, operation=operation)

    def mix(
        self,
        inputs: Iterable[int],
        axes: Iterable[int] | None = None,
        *,
        keep: Shape | None = None,
        operation: str = "",
        understood: bool = True,
    ) -> int:
        """Add a step that reads everything along some axes, by default all.

        It has one position along these, or the grid `keep`.
        """
        inputs = tuple(dict.fromkeys(inputs))
        grid = self._grid(inputs)
        mixed = set(range(len(grid)) if axes is None else axes)
        if not any(grid[axis] > 1 for axis in mixed) and understood:
            return self.same(inputs, operation)
        along = [Everything() if axis in mixed else SAME for axis in range(len(grid))]
        grid = keep or tuple(1 if axis in mixed else n for axis, n in enumerate(grid))
        return self.add("mix", grid, inputs, along, operation, understood)

    def _grid(self, inputs: Iterable[int]) -> Shape:
        """Give the grid of steps that are joined."""
        return tuple(map(max, zip(*(self.steps[i].grid for i in inputs), strict=True)))

    # ---------------------------------------------------------------- tensors, place by place

    def unclear(self, values: Sequence[Value], shape: Shape, operation: str) -> Value:
        """An operation of which it is not known what it reads."""
        places = any(math.prod(self.steps[value.step].grid) > 1 for value in values)
        step = self.mix((v.step for v in values), operation=operation, understood=not places)
        return Value(step, shape, (PLAIN,) * len(shape))

    def pointwise(self, values: Sequence[Value], shape: Shape, operation: str = "") -> Value:
        """An operation on each value alone; shapes are made to fit as NumPy does."""
        if len(values) > 1:
            values = [self.settled(value) for value in values]
        layout = []
        for k in range(-len(shape), 0):
            fit = [v for v in values if k >= -len(v.shape) and v.shape[k] == shape[k]]
            layout.append(_common(value.layout[k] for value in fit))
        _check_once(layout)
        return Value(self.same((v.step for v in values), operation), shape, tuple(layout))

    def settled(self, x: Value) -> Value:
        """Make places of the values that lie side by side along an axis of the grid."""
        for dim, axis in enumerate(x.layout):
            if replace(axis, each=1).single and axis.each > 1:
                scale = Fraction(1, axis.each)
                step = self._regridded(x.step, axis.spatial[0], x.shape[dim], scale)
                layout = (*x.layout[:dim], Axis(axis.spatial), *x.layout[dim + 1 :])
                x = Value(step, x.shape, layout)
        return x

    def normalised(self, x: Value, dims: Iterable[int], operation: str) -> Value:
        """An operation on each value and on a mean along some axes."""
        spatial = x.spatial(dims)
        if not spatial:
            return x
        mean = self.mix([x.step], spatial, operation=operation)
        return Value(self.same([x.step, mean], operation), x.shape, x.layout)

    def along(self, x: Value, dim: int, operation: str) -> Value:
        """An operation that mixes what lies along an axis, and keeps the shape: a softmax."""
        spatial = x.spatial([dim])
        if not spatial:
            return x
        step = self.mix([x.step], spatial, keep=self.steps[x.step].grid, operation=operation)
        return Value(step, x.shape, x.layout)

    # ---------------------------------------------------------------- tensors, other shapes

    def permuted(self, x: Value, order: Sequence[int]) -> Value:
        """The same with its axes in another order."""
        shape = tuple(x.shape[dim] for dim in order)
        return Value(x.step, shape, tuple(x.layout[dim] for dim in order))

    def inserted(self, x: Value, dim: int, size: int = 1) -> Value:
        """The same with one more axis, along which it is repeated."""
        return Value(
            x.step,
            (*x.shape[:dim], size, *x.shape[dim:]),
            (*x.layout[:dim], PLAIN, *x.layout[dim:]),
        )

    def dropped(self, x: Value, dim: int) -> Value:
        """The same without an axis that has one position."""
        return Value(
            x.step,
            (*x.shape[:dim], *x.shape[dim + 1 :]),
            (*x.layout[:dim], *x.layout[dim + 1 :]),
        )

    def expanded(self, x: Value, shape: Shape) -> Value:
        """The same, repeated along axes with one position, and along new ones at the front."""
        new = len(shape) - len(x.shape)
        kept = (
            axis if n == m else PLAIN
            for axis, n, m in zip(x.layout, x.shape, shape[new:], strict=True)
        )
        return Value(x.step, shape, ((PLAIN,) * new + tuple(kept)))

    def reshaped(self, x: Value, shape: Shape) -> Value:
        """The same values in another shape, in the same order.

        Where an axis of places is cut into groups, a group sees what its places see.
        """
        layout: list[Axis] = []
        step = x.step
        for old, new in _blocks(x.shape, shape):
            axes = [x.layout[k] for k in old if x.shape[k] != 1]
            sizes = [shape[k] for k in new if shape[k] != 1]
            if all(axis.plain for axis in axes):
                found = [PLAIN] * len(sizes)
            elif len(axes) == len(sizes) == 1:
                found = axes
            elif any(axis.before for axis in axes):
                raise Unclear
            else:
                parts = self._parts(step, axes, [x.shape[k] for k in old if x.shape[k] != 1])
                found, cuts = _dealt(parts, sizes)
                for a, size, group in cuts:
                    step = self._regridded(step, a, size, Fraction(group))
            dealt = iter(found)
            layout += [next(dealt) if shape[k] != 1 else PLAIN for k in new]
        return Value(step, shape, tuple(layout))

    def _parts(self, step: int, axes: Sequence[Axis], sizes: Sequence[int]) -> list[_Part]:
        """Take the axes of a tensor apart: axes of the grid, and others (None)."""
        parts: list[_Part] = []
        for axis, size in zip(axes, sizes, strict=True):
            parts += [(None, axis.times if axis.spatial else size)]
            parts += [(a, self.steps[step].grid[a]) for a in axis.spatial]
            parts += [(None, axis.each)]
        return parts

    def _regridded(self, step: int, a: int, size: int, scale: Fraction) -> int:
        """Put the places along an axis into groups of `scale`, or make several of each."""
        grid = list(self.steps[step].grid)
        along: list[Reading] = [SAME] * len(grid)
        grid[a] = size
        finer = scale < 1
        along[a] = (
            Resized("nearest", scale, Fraction(0)) if finer else Window(int(scale), int(scale))
        )
        return self.add("resize" if finer else "pool", tuple(grid), [step], along)

    def cut(
        self, x: Value, dim: int, start: int, size: int, stride: int = 1, operation: str = ""
    ) -> Value:
        """Some positions of an axis."""
        x = self.settled(x) if x.layout[dim].each > 1 else x
        axis = x.layout[dim]
        shape = (*x.shape[:dim], size, *x.shape[dim + 1 :])
        if axis.plain or size == x.shape[dim]:
            return Value(x.step, shape, x.layout)
        if axis.single:
            reading = Window(1, stride, before=-start)
            return self.read(x, "crop", {dim: reading}, shape, operation)
        layout = list(x.layout)
        if axis.spatial and stride == 1:
            if start <= axis.before and start + size == x.shape[dim]:
                layout[dim] = replace(axis, before=axis.before - start)
                return Value(x.step, shape, tuple(layout))
            if start + size <= axis.before:  # class tokens: what they see, they see of all places
                layout[dim] = PLAIN
                step = self.mix([x.step], axis.spatial, operation=operation)
                return Value(step, shape, tuple(layout))
        raise Unclear

    def joined(
        self, parts: Sequence[tuple[Value, int]], dim: int, shape: Shape, operation: str
    ) -> Value:
        """Tensors one behind the other along an axis, each with the place where it begins."""
        if len(parts) > 1:
            parts = [(self.settled(value), start) for value, start in parts]
        values = [value for value, _ in parts]
        layout = [
            PLAIN if k == dim else _common(value.layout[k] for value in values)
            for k in range(len(shape))
        ]
        axes = {value.layout[dim] for value in values}
        if axes == {PLAIN}:
            step = self.same((v.step for v in values), operation)
        elif len(axes) == 1 and next(iter(axes)).single:
            (layout[dim],) = axes
            padded = [
                self.read(value, "pad", {dim: Window(1, before=start)}, shape, operation).step
                for value, start in parts
            ]
            step = self.same(padded, operation)
        elif len(parts) == 1:
            axis = values[0].layout[dim]
            layout[dim] = replace(axis, before=axis.before + parts[0][1])
            step = values[0].step
        else:
            raise Unclear
        _check_once(layout)
        return Value(step, shape, tuple(layout))

    # ---------------------------------------------------------------- tensors, other places

    def read(
        self,
        x: Value,
        kind: Kind,
        along: Mapping[int, Reading],
        shape: Shape,
        operation: str = "",
        channels: int | None = None,
    ) -> Value:
        """Read along some axes of a tensor, and everything along its channels if they are named."""
        x = self.settled(x)
        readings: list[Reading] = [SAME] * len(self.steps[0].grid)
        grid, layout = list(self.steps[x.step].grid), list(x.layout)
        for dim, reading in along.items():
            axis = x.layout[dim]
            if axis.plain or (reading == SAME and shape[dim] == x.shape[dim]):
                continue
            if not axis.single:
                raise Unclear
            (a,) = axis.spatial
            readings[a], grid[a] = reading, shape[dim]
        if channels is not None:
            for a in x.layout[channels].spatial:
                readings[a], grid[a] = Everything(), 1
            layout[channels] = PLAIN
        idle = tuple(grid) == self.steps[x.step].grid and set(readings) == {SAME}
        step = x.step
        if not idle or kind == "conv":
            step = self.add(kind, tuple(grid), [x.step], readings, operation)
        return Value(step, shape, tuple(layout))

    def reduced(self, x: Value, dims: Iterable[int], shape: Shape, operation: str) -> Value:
        """A mean or the like along some axes, which are kept or not as the shape has it."""
        dims = set(dims)
        keep = len(shape) == len(x.shape)
        layout = [
            PLAIN if dim in dims else axis
            for dim, axis in enumerate(x.layout)
            if keep or dim not in dims
        ]
        step = self.mix([x.step], x.spatial(dims), operation=operation)
        return Value(step, shape, tuple(layout))

    def contracted(self, a: Value | None, b: Value | None, shape: Shape, operation: str) -> Value:
        """A product of matrices (..., m, k) and (..., k, n), of which one may be constant."""
        if a is not None and b is not None:
            return self.mixed([a, b], (*a.layout[:-1], PLAIN), shape, operation)
        if a is not None:
            step = self.mix([a.step], a.layout[-1].spatial, operation=operation)
            return Value(step, shape, (*a.layout[:-1], PLAIN))
        if b is None:
            raise Unclear
        step = self.mix([b.step], b.layout[-2].spatial, operation=operation)
        return Value(step, shape, (*b.layout[:-2], PLAIN, b.layout[-1]))

    def mixed(
        self, values: Sequence[Value], layout: Sequence[Axis], shape: Shape, operation: str
    ) -> Value:
        """Every place of the first tensor with all places of all, as in attention.

        The places along the axes by which the matrices are many, in all tensors, do not mix.
        """
        many = {value.layout[:-2] for value in values}
        apart = {a for axis in many.pop() for a in axis.spatial} if len(many) == 1 else set()
        grid = self.steps[values[0].step].grid
        axes = set(range(len(grid))) - apart
        step = self.mix((v.step for v in values), axes, keep=grid, operation=operation)
        return Value(step, shape, tuple(layout))


def _common(axes: Iterable[Axis]) -> Axis:
    """Give what lies along the same axis of several tensors that are joined place by place."""
    found = {axis for axis in axes if not axis.plain}
    if len(found) > 1:
        raise Unclear
    return found.pop() if found else PLAIN


def _check_once(layout: Iterable[Axis]) -> None:
    """Check that no axis of the grid lies along two axes, as in a table of all pairs of places."""
    spatial = [a for axis in layout for a in axis.spatial]
    if len(set(spatial)) < len(spatial):
        raise Unclear


def _blocks(old: Shape, new: Shape) -> list[tuple[range, range]]:
    """Group the axes of two shapes, as finely as can be, so that groups have as many values."""
    blocks = []
    i = j = 0
    while i < len(old) or j < len(new):
        a, b = i, j
        have = want = 1
        while have != want or (i == a and j == b):
            if (have <= want and i < len(old)) or j == len(new):
                have *= old[i]
                i += 1
            else:
                want *= new[j]
                j += 1
        blocks.append((range(a, i), range(b, j)))
    return blocks


def _dealt(
    parts: Iterable[_Part], sizes: Sequence[int]
) -> tuple[list[Axis], list[tuple[int, int, int]]]:
    """Deal out what lies along some axes of a tensor to others, in the same order.

    Returns what lies along these, and which axes of the grid had to be cut: into how many groups,
    of how many places.
    """
    rest = [part for part in parts if part[1] > 1]
    found: list[Axis] = []
    cuts: list[tuple[int, int, int]] = []
    for size in sizes:
        taken: list[_Part] = []
        while size > 1:
            a, n = rest.pop(0)
            if n <= size:
                now, left = n, 1
            else:
                now, left = size, n // size
                rest.insert(0, (None, left))
                if a is not None:
                    cuts.append((a, now, left))
            if size % now or n != now * left:
                raise Unclear
            taken.append((a, now))
            size //= now
        found.append(_axis(taken))
    return found, cuts


def _axis(parts: Sequence[_Part]) -> Axis:
    """Give an axis along which places lie between others."""
    places = [k for k, (a, _) in enumerate(parts) if a is not None]
    if not places:
        return PLAIN
    spatial = tuple(a for a, _ in parts[places[0] : places[-1] + 1] if a is not None)
    if len(spatial) <= places[-1] - places[0]:
        raise Unclear
    times, each = parts[: places[0]], parts[places[-1] + 1 :]
    return Axis(spatial, math.prod(n for _, n in each), math.prod(n for _, n in times))
