"""What excites channels most, beside its projection to pixels."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

import numpy as np

from cnnviz_core.errors import ArrayError, ParameterError, RuleError
from cnnviz_core.exhibits import Gallery, Tile, mosaic
from cnnviz_core.inspector import Findings, Subject
from cnnviz_core.layers import AUTO, layers_of, resolve_layers
from cnnviz_core.maps import resize
from cnnviz_core.model import INPUT, Array, LayerInfo, Model
from cnnviz_core.parameters import Help, Range
from cnnviz_core.pixels import as_pixels
from cnnviz_core.progress import advance
from cnnviz_core.receptive import ReceptiveField, receptive_fields
from cnnviz_core.rules import DECONVNET, GUIDED, STANDARD, BackwardRule
from cnnviz_features.search import Strongest, strongest

__all__ = ["Projections"]

_RULES: Final = {"deconvnet": DECONVNET, "guided": GUIDED, "gradient": STANDARD}
_ROUNDING: Final = 1e-5
_GREY: Final = 0.5
_CONTRAST: Final = 4.0
"""At how many times its root mean square a projection is drawn in full colour."""
_CELL: Final = 112
"""About how many pixels of a figure the longer side of a crop takes."""
_GAP: Final = 3
"""How many pixels lie between two crops."""
_BESIDE: Final = 2
"""How many channels share a row of a figure."""


@dataclass(frozen=True)
class Projections:
    """The pictures that excite a channel most, and what in them does.

    The pictures go through the network once, and of every channel the strongest activations are
    kept, at most `per_picture` of one picture.  Each is shown twice: as the crop of its picture
    that the activation's position sees, and as the projection of this single activation to pixels,
    all others of the layer being 0, by the backward pass under a rule.  Under "deconvnet" that is
    the deconvolutional network of the paper: unpooling to the switches of the max pools,
    rectifying, filtering with the transposed kernels.  Where pools overlap, what several windows
    send to one switch adds up.

    Of the layers (auto: the last of each resolution) each has its own arrays, named by it; there C
    channels are shown with T activations each, in crops of h x w pixels:

    - ``LAYER/channels`` (C,): which channels.
    - ``LAYER/values`` (C, T): the activations, the strongest first.
    - ``LAYER/pictures`` (C, T): in which picture of the collection each is.
    - ``LAYER/positions`` (C, T, 2): its row and column on the layer's grid.
    - ``LAYER/boxes`` (C, T, 4): what it sees of the picture, (x0, y0, x1, y1), half-open, in
      pixels of the network's input.
    - ``LAYER/crops`` (C, T, h, w, 3) of uint8: the picture in this box, grey beyond it.
    - ``LAYER/projections`` (C, T, h, w, colours): the projection in the same window: the activation
      times its derivative, under the rule, by the colours in [0, 1].  It is drawn in a scale of its
      own, 0 as grey.

    The window is as large as the layer's receptive field, and at most as large as the picture.  Of
    a network that does not tell its geometry the box is the smallest around the projection's values
    other than 0, and the window the largest of these.

    Parameters
    ----------
    layer : str
        Names and patterns, separated by commas; "auto" for the last layer of each resolution, or
        the one before it where that is a rectifier that cuts large values off, as ReLU6 does.
    channels : str
        Which channels to show, as in "3,17"; if empty, those with the strongest activations, of
        channels that one picture excites most only the first while there are others.
    count : int
        How many channels to show of each layer, if they are not named.
    top : int
        How many activations of each channel.
    per_picture : int
        How many of them may be of one picture.
    rule : {"deconvnet", "guided", "gradient"}
        How the projection passes rectifiers.  Of a layer before any rectifier all are the same.  In
        a network without max pools, which alone remember the picture, all projections of a channel
        by "deconvnet" are alike; there "guided" tells more.
    state : str
        Path of an .npz file in which to keep how far the search has come; a search that was
        stopped goes on from there.  None if empty.

    References
    ----------
    Zeiler & Fergus, "Visualizing and understanding convolutional networks", ECCV 2014, sections 2.1
    and 4, and figure 2.  Springenberg et al., "Striving for simplicity: the all convolutional
    net", ICLR workshop 2015, section 3.4, on networks without max pools.
    """

    layer: Annotated[str, Help("layers, by names or patterns; auto: the last of each size")] = AUTO
    channels: Annotated[str, Help('channels, as in "3,17"; empty: the most excited ones')] = ""
    count: Annotated[int, Range(1), Help("how many channels of each layer")] = 6
    top: Annotated[int, Range(1), Help("how many activations of each channel")] = 9
    per_picture: Annotated[int, Range(1), Help("how many of them may be of one picture")] = 1
    rule: Annotated[
        Literal["deconvnet", "guided", "gradient"],
        Help("how the projection passes rectifiers"),
    ] = "deconvnet"
    state: Annotated[str, Help(".npz file from which a stopped search goes on; empty: none")] = ""

    @property
    def needs(self) -> frozenset[str]:
        """The capabilities that a model must have: those of the rule, and two more."""
        return frozenset({"capture", "gradient"}) | _RULES[self.rule].needs

    def inspect(self, subject: Subject) -> Findings:
        """Look for the strongest activations, and project them.

        Parameters
        ----------
        subject : Subject
            The network, and a collection of pictures of any size.

        Returns
        -------
        Findings
            One gallery for each layer.

        Raises
        ------
        ArrayError
            If no picture can be read, or one can be no more.
        ParameterError
            If `channels` names none of a layer's, or `state` is of another search.
        RuleError
            If there is no rectifier that the rule could change on the way to a layer, which is not
            an affine function of the picture either.
        UnknownLayerError
            If a layer does not exist or has no spatial grid.
        """
        model, x = subject.model, subject.pictures.first().x
        if x.ndim != 4:
            raise ArrayError(
                f"a batch of the shape {x.shape} was given",
                "pictures (N, H, W, C)",
                "use a network that takes pictures",
            )
        layers = resolve_layers(model, self.layer, x)
        if self.layer == AUTO:
            layers = [_before_a_cut(model, info, x) for info in layers]
        asked = [_parsed(self.channels, info) for info in layers]
        ways = _ways(model, layers, x, _RULES[self.rule])
        found = strongest(
            model,
            subject.pictures,
            layers,
            self.top,
            per_picture=self.per_picture,
            batch_size=subject.batch_size,
            state=self.state,
            name=subject.name,
        )
        shown = [
            _show(subject, each, channels or _excited(each, self.count), way)
            for each, channels, way in zip(found, asked, ways, strict=True)
        ]
        return Findings(
            arrays={f"{each.layer}/{k}": v for each in shown for k, v in each.arrays().items()},
            exhibits=tuple(each.gallery() for each in shown),
            facts={
                "pictures": len(subject.pictures),
                "layers": {each.layer: each.facts(subject.pictures.names) for each in shown},
            },
            title=f"What excites {subject.name} most in {len(subject.pictures)} pictures",
        )


# ---------------------------------------------------------------- what is looked at


def _before_a_cut(model: Model, info: LayerInfo, x: Array) -> LayerInfo:
    """Give the layer before a rectifier that cuts large values off, as ReLU6 does; or the layer.

    Of activations that are cut off none is the strongest, and no gradient passes them.  Where
    nothing is cut off, the value before a rectifier is the same, and so is its projection.
    """
    known = layers_of(model, x)
    origin = info
    while origin.same_as is not None and origin.same_as in known:
        origin = known[origin.same_as]
    names = list(known)
    at = names.index(origin.name)
    if origin.kind != "relu" or at == 0:
        return info
    before = known[names[at - 1]]
    trace = model.forward(x, capture=[info.name, before.name])
    value, below = trace[info.name], trace[before.name]
    cut = below.max() > value.max() and np.array_equal(np.clip(below, 0, value.max()), value)
    return before if cut else info


def _parsed(text: str, info: LayerInfo) -> tuple[int, ...]:
    """Read the numbers of channels; none where none is named."""
    there = info.shape[-1]
    try:
        channels = tuple(dict.fromkeys(int(part) for part in text.split(",") if part.strip()))
    except ValueError:
        channels = (there,)
    if any(not 0 <= channel < there for channel in channels):
        raise ParameterError(
            f"channels={text!r} names none of layer {info.name!r}",
            f"numbers from 0 to {there - 1}, separated by commas",
            "count the channels from 0, or leave them out for the most excited ones",
        )
    return channels


def _excited(found: Strongest, count: int) -> list[int]:
    """Give the most excited channels; of those that one picture excites most, the first go first.

    Where a single picture excites many channels, as with a score for each class, six of them would
    say the same.
    """
    order = np.argsort(-found.values[:, 0], kind="stable")
    _, of_new_pictures = np.unique(found.pictures[order, 0], return_index=True)
    again = np.ones(len(order), dtype=bool)
    again[of_new_pictures] = False
    return [int(channel) for channel in order[np.argsort(again, kind="stable")][:count]]


@dataclass(frozen=True, eq=False)
class _Way:
    """How a layer's activations are brought to pixels.

    The field is None where the model does not tell its geometry.  `same_for_all` tells that what is
    pulled back does not depend on the picture.
    """

    field: ReceptiveField | None
    rule: BackwardRule
    same_for_all: bool


def _ways(model: Model, layers: Sequence[LayerInfo], x: Array, rule: BackwardRule) -> list[_Way]:
    """Find the ways from some layers down to a picture."""
    names = [info.name for info in layers]
    told = "geometry" in model.capabilities
    fields = receptive_fields(model, names, x) if told else [None] * len(names)
    rules = [_rule_of(model, name, x, rule) for name in names]
    return [
        _Way(field, own, _same_for_all(model, name, x, own))
        for name, field, own in zip(names, fields, rules, strict=True)
    ]


def _rule_of(model: Model, layer: str, x: Array, rule: BackwardRule) -> BackwardRule:
    """Give the rule, or the plain gradient where a layer is an affine function of the picture."""
    try:
        model.pullback(x, np.zeros_like, of=layer, rule=rule)
    except RuleError:
        if not _same_for_all(model, layer, x, STANDARD):
            raise
        return STANDARD
    return rule


def _same_for_all(model: Model, layer: str, x: Array, rule: BackwardRule) -> bool:
    """Tell whether what is pulled back does not depend on the picture: one of another kind."""
    here, there = (
        model.pullback(each, np.ones_like, of=layer, rule=rule).gradients[INPUT]
        for each in (x, 1 - 2 * x[:, ::-1])
    )
    return bool(np.abs(here - there).max() <= _ROUNDING * np.abs(here).max())


# ---------------------------------------------------------------- what is seen


@dataclass(frozen=True, eq=False)
class _Shown:
    """What is seen of some channels of a layer; the arrays are those of the findings."""

    channels: tuple[int, ...]
    found: Strongest
    way: _Way
    boxes: Array
    crops: Array
    projections: Array

    @property
    def layer(self) -> str:
        """The layer's name."""
        return self.found.layer.name

    def arrays(self) -> dict[str, Array]:
        """Give all numbers."""
        return {
            "channels": np.array(self.channels),
            "values": self.found.values,
            "pictures": self.found.pictures,
            "positions": self.found.positions,
            "boxes": self.boxes,
            "crops": self.crops,
            "projections": self.projections,
        }

    def facts(self, names: Sequence[str]) -> dict[str, Any]:
        """Say which pictures they are, and how much is seen of them."""
        field = self.way.field
        return {
            "rule": self.way.rule.name,
            "grid": list(self.found.layer.grid or ()),
            "receptive field": field
            and {
                "size": list(field.size),
                "stride": [float(n) for n in field.stride],
                "exact": field.exact,
            },
            "cropped to": "the projection" if field is None else "the receptive field",
            "pictures": {
                str(channel): [names[i] for i in row]
                for channel, row in zip(self.channels, self.found.pictures, strict=True)
            },
        }

    def gallery(self) -> Gallery:
        """Lay out the channels: of each a square of projections beside one of crops."""
        squares = [
            (_square(_signed(_sized(projections))), _square(_sized(crops / 255)))
            for projections, crops in zip(self.projections, self.crops, strict=True)
        ]
        tiles: list[Tile | None] = []
        for channel, values, pair in zip(self.channels, self.found.values, squares, strict=True):
            told = f"channel {channel}: {values[0]:.3g} to {values[-1]:.3g}"
            tiles += [Tile(pixels=pair[0], caption=told), Tile(pixels=pair[1])]
        wide = 2 * min(_BESIDE, len(squares))
        tiles += [None] * (-len(tiles) % wide)
        return Gallery(
            tuple(tuple(tiles[k : k + wide]) for k in range(0, len(tiles), wide)),
            title=f"{self.layer}: the strongest activations, projected to pixels",
            column_titles=("projections", "crops") * (wide // 2),
            note=" ".join(self._notes()),
            side=math.ceil(math.sqrt(self.found.values.shape[1])) * _CELL,
        )

    def _notes(self) -> Iterator[str]:
        """Say what else must be known to read the gallery."""
        seen = "the extent of its projection" if self.way.field is None else "all that it sees"
        height, width = self.crops.shape[2:4]
        yield f"The crop of an activation is {seen}, in a window of {height} x {width} pixels."
        if self.way.same_for_all:
            yield "No max pool lies below: only the strength of projections depends on the picture."
        first, last = self.found.values[:, 0], self.found.values[:, -1]
        if self.found.values.shape[1] > 1 and ((first == last) & (first > 0)).any():
            yield (
                "Equal activations are in the order of the pictures; where a rectifier cuts them "
                "off, as ReLU6 does, the layer before it tells which is the strongest."
            )


def _show(
    subject: Subject,
    found: Strongest,
    channels: Sequence[int],
    way: _Way,
) -> _Shown:
    """Project some channels' activations, and cut pictures and projections to what is seen."""
    at = list(channels)
    chosen = Strongest(found.layer, found.values[at], found.pictures[at], found.positions[at])
    boxes, crops, projections = [], [], []
    for picture, projection, position in _projected(subject, chosen, at, way.rule):
        box = _extent(projection) if way.field is None else way.field.box(position.tolist())
        inside = tuple(slice(*ends) for ends in box)
        boxes.append(box)
        crops.append(subject.space.pixels(picture[inside]))
        projections.append(projection[inside].copy())
    ends = np.array(boxes)
    size, starts = _windows(ends, chosen.positions, way.field)
    whole = chosen.values.shape
    crop, projection = (
        np.stack([_placed(*each, size, fill) for each in zip(cut, ends, starts, strict=True)])
        for cut, fill in ((crops, as_pixels(np.full(1, _GREY))), (projections, 0))
    )
    return _Shown(
        channels=tuple(at),
        found=chosen,
        way=way,
        boxes=ends[:, [1, 0, 1, 0], [0, 0, 1, 1]].reshape(*whole, 4),
        crops=crop.reshape(*whole, *crop.shape[1:]),
        projections=projection.reshape(*whole, *projection.shape[1:]),
    )


def _projected(
    subject: Subject, chosen: Strongest, channels: Sequence[int], rule: BackwardRule
) -> Iterator[tuple[Array, Array, Array]]:
    """Give, one by one, an activation's picture, its projection in colours, and its position."""
    top = chosen.values.shape[1]
    pictures, positions = chosen.pictures.ravel(), chosen.positions.reshape(-1, 2)
    channel = np.repeat(channels, top)
    for start in range(0, len(pictures), subject.batch_size):
        rows = slice(start, start + subject.batch_size)
        x = np.stack([_read(subject, int(i)) for i in pictures[rows]])
        only = _Only(chosen.layer, positions[rows], channel[rows])
        back = subject.model.pullback(x, only, of=chosen.layer.name, rule=rule)
        yield from zip(x, subject.space.pulled(back.gradients[INPUT]), positions[rows], strict=True)
        advance(f"projections, {chosen.layer.name}", start + len(x), len(pictures))


@dataclass(frozen=True, eq=False)
class _Only:
    """A cotangent: of each sample's value one activation, and 0 elsewhere."""

    layer: LayerInfo
    positions: Array
    channels: Array

    def __call__(self, value: Array) -> Array:
        grid, at = self.layer.grid or (), tuple(self.positions.T)
        if value.ndim != len(grid) + 2:  # tokens: the grid's positions in one row
            at = (self.layer.prefix + np.ravel_multi_index(at, grid),)
        one = (np.arange(len(value)), *at, self.channels)
        kept = np.zeros_like(value)
        kept[one] = value[one]
        return kept


def _read(subject: Subject, index: int) -> Array:
    """Read a picture again."""
    x = subject.pictures.read(index)
    if x is None:
        raise ArrayError(
            f"{subject.pictures.names[index]} could be read by the search, and cannot any more",
            "pictures that stay where they are",
            "leave the folder as it is while it is looked at",
        )
    return x


# ---------------------------------------------------------------- windows


def _extent(projection: Array) -> tuple[tuple[int, int], ...]:
    """Give the smallest box around what is not 0; the whole picture where all is 0."""
    there = projection.any(-1)
    if not there.any():
        return tuple((0, n) for n in there.shape)
    along = (np.flatnonzero(np.any(there, axis=1 - axis)) for axis in range(2))
    return tuple((int(hit[0]), int(hit[-1]) + 1) for hit in along)


def _windows(
    ends: Array, positions: Array, field: ReceptiveField | None
) -> tuple[tuple[int, int], Array]:
    """Give the size that all windows have, and where each starts, for boxes (R, 2, 2)."""
    if field is None:
        extents = ends[..., 1] - ends[..., 0]
        size = extents.max(0)
        return tuple(size), ends[..., 0] - (size - extents) // 2
    size = np.minimum(field.size, field.pixels)
    starts = [
        span[at, 0] if field.size[axis] == size[axis] else np.zeros(len(ends), dtype=int)
        for axis, (span, at) in enumerate(
            zip(field.unbounded, positions.reshape(-1, 2).T, strict=True)
        )
    ]
    return tuple(size), np.stack(starts, axis=-1)


def _placed(cut: Array, ends: Array, start: Array, size: tuple[int, int], fill: Any) -> Array:
    """Put what was cut out of a picture into its window."""
    window = np.full((*size, cut.shape[-1]), fill, dtype=cut.dtype)
    y, x = ends[:, 0] - start
    window[y : y + cut.shape[0], x : x + cut.shape[1]] = cut
    return window


# ---------------------------------------------------------------- drawing


def _sized(pictures: Array) -> Array:
    """Shrink or enlarge pictures (T, h, w, K) to about the size at which they are drawn."""
    longer = max(pictures.shape[1:3])
    if longer <= _CELL:
        times = round(_CELL / longer)
        return pictures.repeat(times, 1).repeat(times, 2)
    height, width = (max(1, round(n * _CELL / longer)) for n in pictures.shape[1:3])
    return resize(pictures, (height, width), antialias=True)


def _signed(projections: Array) -> Array:
    """Bring each projection (T, h, w, K) to colours in a scale of its own, in which 0 is grey."""
    values = np.abs(projections)
    spread = _CONTRAST * np.sqrt(np.square(values).mean((1, 2, 3), keepdims=True))
    scale = np.minimum(values.max((1, 2, 3), keepdims=True), spread)
    return _GREY + _GREY * projections / np.where(scale > 0, scale, 1)


def _square(colours: Array) -> Array:
    """Lay pictures (T, h, w, K) out in about a square."""
    return mosaic(list(as_pixels(colours)), gap=_GAP)
