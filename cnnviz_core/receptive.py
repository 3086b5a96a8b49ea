"""Receptive fields: which pixels a position of a layer sees.

A backend tells which places each operation reads (`cnnviz_core.spatial`).  From that follow two
things, both in whole numbers and without approximation: what every position sees of this very
input, borders included; and the size, stride and start that would be the same for all positions
if the picture had no borders.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction

import numpy as np

from cnnviz_core.errors import ArrayError, UnknownLayerError
from cnnviz_core.layers import AUTO, auto_layer, find_layer, is_special
from cnnviz_core.model import INPUT, Array, Inputs, LayerInfo, Model, spatial
from cnnviz_core.spatial import NOTHING, SAME, Everything, Geometry, Reading, Step

__all__ = ["ReceptiveField", "input_convolutions", "receptive_field", "receptive_fields"]

_KEEPS_COLOURS = frozenset({"input", "same", "pad", "crop", "resize"})


@dataclass(frozen=True, eq=False)
class ReceptiveField:
    """Which pixels of the input the positions of a layer see.

    All tuples have one entry for each spatial axis, (rows, columns) for pictures.  Pixels are
    counted from 0; pixel ``k`` reaches from ``k`` to ``k + 1``, so boxes are half-open and the
    middle of the first pixel is 0.5.

    Attributes
    ----------
    layer : str
        The node.
    grid : tuple of int
        The layer's positions; 1 along every axis of a layer that has none.
    pixels : tuple of int
        The input's.
    size : tuple of int
        How many pixels a position sees, of which some may lie beyond the borders: what papers call
        the receptive field.  Behind an enlargement, where positions differ, the largest.
    stride : tuple of Fraction
        How many pixels the field moves from one position to the next: less than 1 where the grid is
        finer than the input, 0 where all positions see the same.
    start : tuple of int
        The first pixel that position 0 sees; negative where it lies beyond the border.
    spans : tuple of ndarray (n, 2) of int
        For every position along the axis, the first pixel that it sees of the input and the one
        after the last; (0, 0) where it sees nothing but padding.
    unbounded : tuple of ndarray (n, 2) of int
        The same, were there pixels beyond the borders.
    through : tuple of str
        The operations on the way of which it is not known what they read.  They are taken to read
        everything, so no pixel is left out.
    by_means : bool
        Whether positions see more than is said here, by means over all positions, which were left
        out (`receptive_field` with ``local=True``).

    Notes
    -----
    Pixels within the box may have no influence, behind dilated convolutions for example; the
    first and the last one along every axis have, save that a weight is 0, a rectifier closed or a
    maximum elsewhere.  Where places are cut into groups by a reshaping (windows of attention,
    pixels that become channels), each is taken to see what its group sees, as it does as soon as
    the group is mixed.

    References
    ----------
    Araujo, Norris & Sim, "Computing receptive fields of convolutional neural networks", Distill
    2019.
    """

    layer: str
    grid: tuple[int, ...]
    pixels: tuple[int, ...]
    size: tuple[int, ...]
    stride: tuple[Fraction, ...]
    start: tuple[int, ...]
    spans: tuple[Array, ...] = field(repr=False)
    unbounded: tuple[Array, ...] = field(repr=False)
    through: tuple[str, ...] = ()
    by_means: bool = False

    @property
    def exact(self) -> bool:
        """Whether every operation on the way is understood."""
        return not self.through

    @property
    def whole(self) -> bool:
        """Whether every position sees the whole input."""
        return all(
            bool((span[:, 0] == 0).all() and (span[:, 1] == n).all())
            for span, n in zip(self.spans, self.pixels, strict=True)
        )

    @property
    def middle(self) -> tuple[int, ...]:
        """The position in the middle of the grid."""
        return tuple(n // 2 for n in self.grid)

    def box(self, position: Sequence[int]) -> tuple[tuple[int, int], ...]:
        """Give what a position sees of the input.

        Parameters
        ----------
        position : sequence of int
            One number for each axis; negative ones count from the end.

        Returns
        -------
        tuple of (int, int)
            Along each axis the first pixel and the one after the last; (0, 0) where the position
            sees nothing but padding.

        Raises
        ------
        ArrayError
            If there is no such position.
        """
        at = self._checked(position)
        spans = [span[i] for span, i in zip(self.spans, at, strict=True)]
        if any(first == stop for first, stop in spans):  # nothing along one axis is nothing at all
            return ((0, 0),) * len(spans)
        return tuple((int(first), int(stop)) for first, stop in spans)

    def frame(self, position: Sequence[int]) -> tuple[int, int, int, int]:
        """Give what a position sees of a picture, as boxes are given everywhere.

        Parameters
        ----------
        position : (int, int)
            Row and column.

        Returns
        -------
        (x0, y0, x1, y1)
            Half-open, in pixels.

        Raises
        ------
        ArrayError
            If there is no such position, or the input is no picture.
        """
        if len(self.pixels) != 2:
            raise ArrayError(
                f"a frame was asked for in an input with {len(self.pixels)} axes",
                "a picture, with two",
                "use box(position)",
            )
        (y0, y1), (x0, x1) = self.box(position)
        return x0, y0, x1, y1

    def centre(self, position: Sequence[int]) -> tuple[float, ...]:
        """Give the middle of what a position sees, borders or not.

        Parameters
        ----------
        position : sequence of int
            One number for each axis; negative ones count from the end.

        Returns
        -------
        tuple of float
            In pixels; the middle of the first pixel is 0.5.

        Raises
        ------
        ArrayError
            If there is no such position.
        """
        at = self._checked(position)
        return tuple(float(ends[i].mean()) for ends, i in zip(self.unbounded, at, strict=True))

    def _checked(self, position: Sequence[int]) -> tuple[int, ...]:
        """Check that there is such a position."""
        at = tuple(position)
        if len(at) != len(self.grid) or any(
            not -n <= i < n for i, n in zip(at, self.grid, strict=True)
        ):
            raise ArrayError(
                f"layer {self.layer!r} has no position {at}",
                f"a position on its grid {self.grid}",
                "choose another; `middle` is one",
            )
        return at


def receptive_field(
    model: Model,
    layer: str = AUTO,
    x: Inputs | None = None,
    *,
    wrt: str = INPUT,
    local: bool = False,
) -> ReceptiveField:
    """Tell which pixels the positions of a layer see.

    Parameters
    ----------
    model : Model
        A network with the capability "geometry".
    layer : str
        What `cnnviz_core.layers.find_layer` takes; "auto" for the last layer with a spatial grid;
        or a special node.
    x : ndarray (N, ...), or mapping of str to ndarray, optional
        An input, of which the sizes count; by default one of the declared shape.
    wrt : str
        The input's node.
    local : bool
        Leave out what comes by a mean over all positions (squeeze and excitation, group
        normalisation), where something comes by another way too.

    Returns
    -------
    ReceptiveField

    Raises
    ------
    MissingCapabilityError
        If the model does not tell its geometry.
    ArrayError
        If `x` does not fit, or is not given and the network declares no shape; or if the input has
        no spatial axes.
    UnknownLayerError
        If there is no such layer, or it does not depend on the input.

    Examples
    --------
    >>> from cnnviz_core.testing.nets import plain
    >>> from cnnviz_core.testing.reference import ReferenceModel
    >>> field = receptive_field(ReferenceModel(plain()), "conv2")
    >>> field.size, field.start, field.box((0, 0))
    ((8, 8), (-3, -3), ((0, 5), (0, 5)))
    """
    return receptive_fields(model, [layer], x, wrt=wrt, local=local)[0]


def receptive_fields(
    model: Model,
    layers: Sequence[str] | None = None,
    x: Inputs | None = None,
    *,
    wrt: str = INPUT,
    local: bool = False,
) -> list[ReceptiveField]:
    """Tell which pixels the positions of several layers see, by one pass through the network.

    Parameters
    ----------
    model, x, wrt, local
        As for `receptive_field`.
    layers : sequence of str, optional
        What `receptive_field` takes as a layer; by default all layers that have a spatial grid and
        depend on the input, in forward order.

    Returns
    -------
    list of ReceptiveField
        One for each layer.

    Raises
    ------
    MissingCapabilityError, ArrayError, UnknownLayerError
        As `receptive_field` does.
    """
    telling = spatial(model)
    known = _layers_of(model, x)
    if layers is None:
        nodes = [name for name, info in known.items() if info.grid is not None]
    else:
        nodes = [_node(known, layer) for layer in layers]
    geometry = telling.geometry(list(dict.fromkeys(nodes)), x, wrt=wrt)
    if not geometry.steps[0].grid:
        raise ArrayError(
            f"the input {wrt!r} has no spatial axes",
            "pictures, signals or volumes",
            "name the input that has such axes, wrt='@input:name'",
        )
    missing = [node for node in nodes if node not in geometry.nodes]
    if missing and layers is not None:
        raise UnknownLayerError(
            f"{missing[0]!r} does not depend on {wrt!r}",
            "a node on the way from the input",
            "choose another layer",
        )
    whole = _Arithmetic(geometry, local=False)
    near = _Arithmetic(geometry, local=True) if local else None
    fields = []
    for node in nodes:
        if node in geometry.nodes:
            field = whole.field(node, known.get(node))
            if near is not None and near.sees(node):
                field = _with_more(near.field(node, known.get(node)), field)
            fields.append(field)
    return fields


def _with_more(local: ReceptiveField, whole: ReceptiveField) -> ReceptiveField:
    """Note whether the positions of a layer see more than a part of the ways brings."""
    same = all(map(np.array_equal, local.spans, whole.spans))
    return replace(local, by_means=not same)


def input_convolutions(model: Model, x: Inputs | None = None) -> list[LayerInfo]:
    """Find the convolutions whose input is the picture itself.

    Before them there is nothing but operations that keep the colours of every place (scaling,
    centring), paddings, crops and resizings.

    Parameters
    ----------
    model : Model
        A network; where it does not offer "geometry", the first convolution is given whose kernel
        has as many input channels as the picture.
    x : ndarray (N, ...), or mapping of str to ndarray, optional
        An input, of which the sizes count; by default one of the declared shape.

    Returns
    -------
    list of LayerInfo
        In forward order; none where the picture is cut into patches first, or mixed in any other
        way.

    Raises
    ------
    MissingCapabilityError
        If the network offers neither "geometry" nor "parameters".
    ArrayError
        If the network's layers are not known without an input.
    """
    known = _layers_of(model, x)
    convolutions = [info for info in known.values() if info.kind == "conv"]
    if "geometry" not in model.capabilities:
        channels = _shape_of(model, x)[-1]
        for info in convolutions:
            weight = model.parameters(info.name).get("weight")
            if weight is not None and weight.shape[-2] == channels:
                return [info]
        return []
    geometry = spatial(model).geometry([info.name for info in convolutions], x)
    plain = _plain(geometry.steps)
    return [
        info
        for info in convolutions
        if info.name in geometry.nodes and _convolves(geometry, geometry.nodes[info.name], plain)
    ]


def _plain(steps: Sequence[Step]) -> set[int]:
    """Give the steps whose values are the picture's own colours."""
    plain: set[int] = set()
    for k, step in enumerate(steps):
        # A crop that leaves out every other pixel makes channels of them.
        dense = step.kind != "crop" or all(r.pace(1, 1) == 1 for r in step.along)
        if step.kind in _KEEPS_COLOURS and dense and plain.issuperset(step.inputs):
            plain.add(k)
    return plain


def _convolves(geometry: Geometry, k: int, plain: set[int]) -> bool:
    """Tell whether a convolution's value comes from a convolution of such steps."""
    while geometry.steps[k].kind in ("same", "crop") and len(geometry.steps[k].inputs) == 1:
        k = geometry.steps[k].inputs[0]
    step = geometry.steps[k]
    return step.kind == "conv" and plain.issuperset(step.inputs)


# ---------------------------------------------------------------- layers


def _layers_of(model: Model, x: Inputs | None) -> Mapping[str, LayerInfo]:
    """Give a network's layers; some networks know them only once they have seen an input."""
    try:
        return model.layers
    except ArrayError:
        if x is None:
            raise
        model.forward(x)
        return model.layers


def _node(known: Mapping[str, LayerInfo], layer: str) -> str:
    """Give a node's name."""
    if is_special(layer):
        return layer
    return (auto_layer(known) if layer == AUTO else find_layer(known, layer)).name


def _shape_of(model: Model, x: Inputs | None) -> tuple[int | None, ...]:
    """Give the shape of the first input, as far as it is known."""
    name, info = next(iter(model.inputs.items()))
    if x is not None:
        return np.shape(x[name] if isinstance(x, Mapping) else x)[1:]
    return info.shape or (None,)


# ---------------------------------------------------------------- arithmetic


class _Arithmetic:
    """What the positions of the nodes of a geometry see."""

    def __init__(self, geometry: Geometry, *, local: bool) -> None:
        self._steps = geometry.steps
        self._nodes = geometry.nodes
        self._local = local
        tops = sorted(set(geometry.nodes.values()))
        axes = range(len(self._steps[0].grid))
        self._seen = [self._from_below(axis) for axis in axes]
        self._reached = [self._from_above(axis, tops) for axis in axes]
        self._paces = [self._pace(axis) for axis in axes]

    def sees(self, node: str) -> bool:
        """Tell whether a node's positions see anything."""
        top = self._nodes[node]
        return all((ends[top][1] >= 0).any() for ends in self._seen)

    def field(self, node: str, info: LayerInfo | None) -> ReceptiveField:
        """Put together what is to be said of a node."""
        top = self._nodes[node]
        own = self._steps[top].grid
        # The values of a layer without a grid are spoken of together.
        grid = own if info is None else info.grid or (1,) * len(own)
        spans, unbounded, strides = [], [], []
        for axis, (n, m) in enumerate(zip(grid, own, strict=True)):
            seen, reached = self._seen[axis][top], self._reached[axis][top]
            pace = self._paces[axis][top]
            if n != m:  # positions that were made of what has none: all see the same
                seen, reached = _for_all(seen, n), _for_all(reached, n)
                pace = Fraction(0)
            spans.append(_half_open(*seen))
            unbounded.append(_half_open(*reached))
            strides.append(pace)
        return ReceptiveField(
            layer=node,
            grid=grid,
            pixels=self._steps[0].grid,
            size=tuple(int((ends[:, 1] - ends[:, 0]).max()) for ends in unbounded),
            stride=tuple(strides),
            start=tuple(int(ends[0, 0]) for ends in unbounded),
            spans=tuple(spans),
            unbounded=tuple(unbounded),
            through=_not_understood(self._steps, top),
        )

    def _readings(self, k: int, axis: int) -> Iterator[tuple[int, Reading]]:
        """Give the steps that a step reads along an axis, and how."""
        step = self._steps[k]
        if self._local and _is_mean(step):
            return
        for i in step.inputs:
            # One position stands for all where the places are kept.
            spread = step.along[axis] == SAME and self._steps[i].grid[axis] == 1
            yield i, Everything() if spread else step.along[axis]

    def _from_below(self, axis: int) -> list[tuple[Array, Array]]:
        """Give, for every step, the first and the last pixel that each position sees."""
        pixels = np.arange(self._steps[0].grid[axis])
        found = [(pixels, pixels)]
        for k, step in enumerate(self._steps[1:], 1):
            ends = _nobody(step.grid[axis])
            for i, reading in self._readings(k, axis):
                ends = _both(ends, reading.seen(*found[i], step.grid[axis]))
            found.append(ends)
        return found

    def _from_above(self, axis: int, tops: Sequence[int]) -> dict[int, tuple[Array, Array]]:
        """Give, for some steps, the first and the last pixel of each position without borders.

        It goes down from all of them at once, with the first and the last place that each of their
        positions reads of every step.
        """
        sizes = [self._steps[top].grid[axis] for top in tops]
        starts = dict(zip(tops, np.cumsum([0, *sizes]), strict=False))
        below: dict[int, tuple[Array, Array]] = {}
        for k in range(max(tops, default=0), -1, -1):
            ends = below.pop(k, None) or _nobody(sum(sizes))
            size = self._steps[k].grid[axis]
            if k in starts:
                for end in ends:
                    end[starts[k] : starts[k] + size] = np.arange(size)
            below[k] = ends
            for i, reading in self._readings(k, axis):
                low, high = reading.reach(*ends, size, self._steps[i].grid[axis])
                # Where nothing is read, as between the places of a sparse enlargement, or nothing
                # comes from this step, nothing is said.
                nobody = (ends[0] > ends[1]) | (low > high)
                low, high = np.where(nobody, NOTHING, low), np.where(nobody, -1, high)
                below[i] = _both(below.get(i, (low, high)), (low, high))
        low, high = below[0]
        return {
            top: (low[starts[top] : starts[top] + n], high[starts[top] : starts[top] + n])
            for top, n in zip(tops, sizes, strict=True)
        }

    def _pace(self, axis: int) -> list[Fraction]:
        """Give, for every step, how many pixels lie from one position to the next."""
        found = [Fraction(1)]
        for k, step in enumerate(self._steps[1:], 1):
            size = step.grid[axis]
            paces = [
                found[i] * reading.pace(size, self._steps[i].grid[axis])
                for i, reading in self._readings(k, axis)
            ]
            found.append(max(paces, default=Fraction(0)))
        return found


def _is_mean(step: Step) -> bool:
    """Tell whether a step gives up all the axes along which it reads everything."""
    if step.kind != "mix" or not step.understood:
        return False
    readings = zip(step.grid, step.along, strict=True)
    return all(n == 1 for n, reading in readings if reading == Everything())


def _nobody(size: int) -> tuple[Array, Array]:
    """Give the ends of what positions see that see nothing."""
    return np.full(size, NOTHING), np.full(size, -NOTHING)


def _both(one: tuple[Array, Array], two: tuple[Array, Array]) -> tuple[Array, Array]:
    """Give the ends of what positions see in two ways."""
    return np.minimum(one[0], two[0]), np.maximum(one[1], two[1])


def _for_all(ends: tuple[Array, Array], size: int) -> tuple[Array, Array]:
    """Give the ends for positions that see what all of some positions see."""
    return np.full(size, ends[0].min()), np.full(size, ends[1].max())


def _half_open(first: Array, last: Array) -> Array:
    """Give intervals (n, 2); [0, 0) for nothing."""
    return np.where((first > last)[:, None], 0, np.stack([first, last + 1], 1))


def _not_understood(steps: Sequence[Step], top: int) -> tuple[str, ...]:
    """Name the operations below a step of which it is not known what they read."""
    below = {top}
    names: dict[str, None] = {}
    for k in range(top, 0, -1):
        if k in below:
            below.update(steps[k].inputs)
            if not steps[k].understood:
                names[steps[k].operation] = None
    return tuple(reversed(names))
