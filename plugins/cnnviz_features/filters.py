"""The kernels of a convolution."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Final, Literal

import numpy as np

from cnnviz_core.errors import UnknownLayerError
from cnnviz_core.exhibits import Curves, Exhibit, Gallery, Line, Tile
from cnnviz_core.inspector import Findings, Subject
from cnnviz_core.layers import AUTO, find_layer, layers_of
from cnnviz_core.model import Array, LayerInfo
from cnnviz_core.parameters import Help, Range
from cnnviz_core.pixels import PixelSpace, as_pixels
from cnnviz_core.receptive import input_convolutions
from cnnviz_features._sheets import sheet

__all__ = ["Filters"]

_DEAD: Final = 0.001
"""A filter with at most this share of the largest norm does next to nothing."""
_SINGLE: Final = 96
"""How many filters of one tile each are shown if nobody says: all of AlexNet's."""
_ROWS: Final = 12
"""How many filters of several tiles each."""
_CURVES: Final = 8
"""How many filters of signals."""
_SIDE: Final = 64
"""About how many pixels wide a kernel is drawn."""
_TOLD: Final = 12
"""How many dead filters the note names."""
_SCALES: Final = {
    "filter": "Each filter by its own largest weight.",
    "joint": "All filters by the largest weight of all.",
    "min-max": "Each filter from its smallest weight to its largest.",
}


@dataclass(frozen=True)
class Filters:
    """The kernels of a convolution, as they are: neither signs nor a batch norm are folded in.

    A kernel whose input is the picture is shown in the picture's colours.  The network's values are
    ``x = colours @ matrix + offset`` (`cnnviz_core.pixels.PixelSpace`), so the weight of a colour
    is ``matrix @ weight``, whatever the order and the scale of the network's channels.  Mid-grey
    is a weight of zero; a filter of a bright red centre answers to red there, and one of cyan is
    silenced by red.

    A kernel further inside, or one that sees a part of the channels (grouped, depthwise), has no
    colours: each of its slices is a tile, with the filters in rows and their input channels in
    columns.  Kernels of signals are curves; those of volumes are laid out slice by slice along
    their first axis.

    Parameters
    ----------
    layer : str
        The convolution; "auto" is the first one whose input is the picture.
    count : int or None
        How many filters are shown; None is at most 96 of those of a single tile, 12 of those of a
        row of tiles, 8 of signals.
    inputs : int
        How many input channels of a kernel without colours are shown.
    order : {"index", "norm"}
        Whether filters (and input channels) come as the network numbers them, or those with the
        largest weights first (Euclidean norm).
    normalise : {"filter", "joint", "min-max"}
        What is the strongest colour: each filter's own largest magnitude, the largest of all that
        are shown, or, without a fixed zero, each filter's smallest and largest weight are the ends.

    Notes
    -----
    The arrays of the findings, for F filters of C input channels (C_in / groups), of which S are
    shown:

    - "channels" (F,): the output channels shown, in order.
    - "inputs" (S,): the input channels shown, counted within their group; not given in colours.
    - "norms" (C_out,): the Euclidean norm of every filter.
    - "kernels" (F, ...kernel, C): the weights.
    - "filters" (F, kh, kw, K): the weights of the K colours; or (F, ...kernel, S): those of the
      input channels shown.
    - "shown": `filters` as they are drawn, in [-1, 1], or in [0, 1] for "min-max".

    Its facts name as dead the filters whose norm is at most a thousandth of the largest: weight
    decay takes away what training does not use.

    References
    ----------
    Krizhevsky et al., "ImageNet classification with deep convolutional neural networks", NeurIPS
    2012, figure 3.
    """

    layer: Annotated[str, Help("a convolution; auto: the first one that sees the picture")] = AUTO
    count: Annotated[
        int | None, Range(1), Help("how many filters; none: as many as a sheet has room for")
    ] = None
    inputs: Annotated[int, Range(1), Help("how many input channels of a deeper kernel")] = 12
    order: Annotated[
        Literal["index", "norm"], Help("as they are numbered, or the largest weights first")
    ] = "index"
    normalise: Annotated[
        Literal["filter", "joint", "min-max"],
        Help("each filter by its own largest magnitude, all by one, or each from end to end"),
    ] = "filter"

    needs: ClassVar[frozenset[str]] = frozenset({"parameters"})

    def inspect(self, subject: Subject) -> Findings:
        """Show the kernels.

        Parameters
        ----------
        subject : Subject
            The network; pictures are not looked at.

        Returns
        -------
        Findings

        Raises
        ------
        UnknownLayerError
            If there is no such layer, or it is no convolution.
        """
        info, sees_picture = self._find(subject)
        kernels = np.moveaxis(subject.model.parameters(info.name)["weight"], -1, 0)
        coloured = sees_picture and _have_colours(kernels, subject.space)
        norms = np.sqrt(np.square(kernels).sum(tuple(range(1, kernels.ndim))))
        dead = np.flatnonzero(norms <= _DEAD * norms.max())
        channels = self._first(norms, self.count or _room(kernels, coloured))
        arrays = {"channels": channels, "norms": norms, "kernels": kernels[channels]}
        if coloured:
            arrays["filters"] = subject.space.pulled(arrays["kernels"])
        else:
            weights = np.square(kernels).sum(tuple(range(kernels.ndim - 1)))
            arrays["inputs"] = self._first(weights, self.inputs)
            arrays["filters"] = arrays["kernels"][..., arrays["inputs"]]
        arrays["shown"] = self._scaled(arrays["filters"])
        facts = {
            "layer": info.name,
            "kernel": list(kernels.shape[1:-1]),
            "inputs": kernels.shape[-1],
            "filters": len(kernels),
            "sees_picture": sees_picture,
            "dead": dead.tolist(),
        }
        title = f"The filters of {info.name} of {subject.name}"
        return Findings(arrays, self._exhibits(arrays, facts), facts, title)

    def _find(self, subject: Subject) -> tuple[LayerInfo, bool]:
        """Find the convolution, and tell whether its input is the picture."""
        model = subject.model
        x = np.zeros((1, *subject.shape), dtype=next(iter(model.inputs.values())).dtype)
        first = input_convolutions(model, x)
        if self.layer == AUTO and not first:
            raise UnknownLayerError(
                "no convolution of the network has the picture as its input",
                "a network that begins with a convolution",
                "name a layer; `cnnviz layers MODEL` lists them",
            )
        layers = layers_of(model, x)
        # The kernels of a layer that is called several times are those of any call.
        calls = [info for info in layers.values() if info.path == self.layer]
        named = first if self.layer == AUTO else calls
        info = named[0] if named else find_layer(layers, self.layer)
        if info.kind != "conv" or "weight" not in model.parameters(info.name):
            known = [each.name for each in layers.values() if each.kind == "conv"]
            raise UnknownLayerError(
                f"layer {info.name!r} ({info.type}) has no kernels",
                f"a convolution such as {', '.join(map(repr, known[:3]))}"
                if known
                else "a network with convolutions",
                "list the layers with cnnviz.layers(model) or `cnnviz layers MODEL`",
            )
        return info, info.path in {each.path for each in first}

    def _first(self, strengths: Array, count: int) -> Array:
        """Choose channels, in the order asked for; of equal strengths the lower comes first."""
        if self.order == "norm":
            return np.argsort(-strengths, kind="stable")[:count]
        return np.arange(len(strengths))[:count]

    def _scaled(self, kernels: Array) -> Array:
        """Bring kernels (F, ...) to [-1, 1], or to [0, 1] from end to end."""
        own = tuple(range(1, kernels.ndim))
        if self.normalise == "min-max":
            low, high = kernels.min(own, keepdims=True), kernels.max(own, keepdims=True)
            level = np.full_like(kernels, 0.5)
            return np.divide(kernels - low, high - low, out=level, where=high > low)
        top = np.abs(kernels).max(own if self.normalise == "filter" else None, keepdims=True)
        return kernels / np.where(top > 0, top, 1)

    def _exhibits(
        self, arrays: Mapping[str, Array], facts: Mapping[str, Any]
    ) -> tuple[Exhibit, ...]:
        """Show the kernels: in colours, as curves or as slices."""
        channels, dead, n = arrays["channels"], facts["dead"], facts["filters"]
        some = f"All {n}" if len(channels) == n else f"{len(channels)} of {n}"
        first = ", the largest norm first" if self.order == "norm" else ""
        drawn = _Drawn(
            kernels=arrays["shown"],
            names=[f"{i}, dead" if i in dead else str(i) for i in channels],
            signed=self.normalise != "min-max",
            title=f"{some} filters of {' x '.join(map(str, facts['kernel']))}{first}",
            note=_SCALES[self.normalise] + _of_the_dead(dead),
        )
        if "inputs" not in arrays:
            return (drawn.colours(),)
        inputs = [f"input {i}" for i in arrays["inputs"]]
        return drawn.curves(inputs) if drawn.kernels.ndim == 3 else (drawn.slices(inputs),)


@dataclass(frozen=True, eq=False)
class _Drawn:
    """Kernels (F, ...) in [-1, 1], or in [0, 1] if they are not signed."""

    kernels: Array
    names: list[str]
    signed: bool
    title: str
    note: str

    def colours(self) -> Gallery:
        """Show them as pictures."""
        pixels = as_pixels((self.kernels + 1) / 2 if self.signed else self.kernels)
        tiles = [Tile(p, caption=name) for p, name in zip(pixels, self.names, strict=True)]
        grey = "Mid-grey is zero. " if self.signed else ""
        return Gallery(sheet(tiles), self.title, note=grey + self.note, side=_SIDE)

    def slices(self, inputs: list[str]) -> Gallery:
        """Show their input channels, and of volumes the slices of these, side by side."""
        parts = np.moveaxis(self.kernels, -1, 1)
        if parts.ndim == 5:
            inputs = [f"{name}, slice {k}" for name in inputs for k in range(parts.shape[2])]
            parts = parts.reshape(len(parts), -1, *parts.shape[3:])
        rows = [[Tile(heat=part, signed=self.signed, fine=True) for part in row] for row in parts]
        if len(inputs) == 1:
            tiles = [replace(row[0], caption=n) for row, n in zip(rows, self.names, strict=True)]
            return Gallery(sheet(tiles), self.title, note=self.note, side=_SIDE)
        return Gallery(
            tuple(map(tuple, rows)),
            self.title,
            tuple(inputs),
            tuple(f"filter {name}" for name in self.names),
            self.note,
            _SIDE,
        )

    def curves(self, inputs: list[str]) -> tuple[Curves, ...]:
        """Show each filter of signals as curves."""
        return tuple(
            Curves(
                np.arange(len(kernel)),
                tuple(Line(i, line) for i, line in zip(inputs, kernel.T, strict=True)),
                f"Filter {name}",
                "tap",
                "weight, relative",
                (-1.05, 1.05) if self.signed else (-0.05, 1.05),
            )
            for name, kernel in zip(self.names, self.kernels, strict=True)
        )


def _have_colours(kernels: Array, space: PixelSpace) -> bool:
    """Tell whether kernels that see the picture see all its channels, and these are colours."""
    return kernels.ndim == 4 and kernels.shape[-1] == len(space.offset) and space.colours in (1, 3)


def _room(kernels: Array, coloured: bool) -> int:
    """Give how many filters a sheet has room for."""
    if kernels.ndim == 3:
        return _CURVES
    return _SINGLE if coloured or kernels.shape[-1] == 1 else _ROWS


def _of_the_dead(dead: Sequence[int]) -> str:
    """Say which filters hardly have any weight."""
    if not dead:
        return ""
    some = ", ".join(map(str, dead[:_TOLD])) + (" ..." if len(dead) > _TOLD else "")
    return f" Dead, with at most {_DEAD:.1%} of the largest norm: {some}."
