"""The feature maps of a layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Final, Literal

import numpy as np

from cnnviz_core.errors import ParameterError
from cnnviz_core.exhibits import Curves, Exhibit, Gallery, Line, Tile
from cnnviz_core.inspector import Findings, Subject
from cnnviz_core.layers import AUTO, on_grid, resolve_layer
from cnnviz_core.model import Array, LayerInfo
from cnnviz_core.parameters import Help, Range
from cnnviz_core.pixels import PixelSpace, as_pixels
from cnnviz_features._sheets import sheet

__all__ = ["FeatureMaps"]

_SIDE: Final = 128
"""About how many pixels wide a map is drawn; alone over its picture it has three times that."""
_LINES: Final = 8
"""How many maps of a signal are drawn as curves over one axis."""
_SCALES: Final = {
    "map": "each map by its own strongest value",
    "joint": "all maps by the strongest value of all",
}
_ORDERS: Final = {
    "mean": ", the largest mean first",
    "max": ", the largest maximum first",
    "energy": ", the largest energy first",
    "index": "",
}


@dataclass(frozen=True)
class FeatureMaps:
    """What a layer makes of a picture: its channels as maps, the most active first.

    The maps are the layer's values as they are.  Those of a layer with negative values, such as a
    convolution before its rectifier, are drawn in the colours of signed maps.  The tokens of a
    transformer are laid out on their grid.  Maps of signals are drawn as curves, the first eight of
    them, stretched over the signal; of volumes the middle slice along the first axis is shown.

    Parameters
    ----------
    layer : str
        The layer; "auto" is the last one with a spatial grid.
    count : int
        How many maps are shown of each picture.
    order : {"mean", "max", "energy", "index"}
        By what the maps are ordered, the largest first: their mean, their largest value, or the
        mean of their squares, which counts negative values too; or as the network numbers them.
    common : bool
        Whether the same channels are shown of every picture, ordered by the mean of their strength
        over the pictures, so that pictures can be compared.
    normalise : {"map", "joint"}
        What is the strongest colour: each map's own largest magnitude, or the largest of all maps
        shown, of all pictures.
    channel : int or None
        Show this channel alone, large and over the picture.

    Notes
    -----
    The arrays of the findings:

    - "maps" (N, h, w, K): the values of the K maps shown of each of N pictures; of signals
      (N, l, K), of volumes (N, d, h, w, K).
    - "channels" (N, K): their channels, in order.
    - "strength" (N, K): by what they are ordered; for "index" the mean.

    References
    ----------
    Zeiler & Fergus, "Visualizing and understanding convolutional networks", ECCV 2014.
    """

    layer: Annotated[str, Help("a layer's name; auto: the last one with a spatial grid")] = AUTO
    count: Annotated[int, Range(1), Help("how many maps are shown of each picture")] = 35
    order: Annotated[
        Literal["mean", "max", "energy", "index"], Help("by what the maps are ordered")
    ] = "mean"
    common: Annotated[bool, Help("show the same channels of every picture")] = False
    normalise: Annotated[
        Literal["map", "joint"], Help("each map by its own largest magnitude, or all by one")
    ] = "map"
    channel: Annotated[
        int | None, Range(0), Help("show this channel alone, large and over the picture")
    ] = None

    needs: ClassVar[frozenset[str]] = frozenset({"capture"})

    def inspect(self, subject: Subject) -> Findings:
        """Show the maps.

        Parameters
        ----------
        subject : Subject
            The network, and the pictures to show it.

        Returns
        -------
        Findings

        Raises
        ------
        ArrayError
            If there is no picture.
        UnknownLayerError
            If there is no such layer, or it has no spatial grid.
        ParameterError
            If the layer has no such channel.
        """
        batch = subject.pictures.all()
        info = resolve_layer(subject.model, self.layer, batch.x)
        values = _values(subject, batch.x, info)
        strength = self._strength(values)
        channels = self._channels(strength, info)
        arrays = {
            "maps": np.stack([v[..., chosen] for v, chosen in zip(values, channels, strict=True)]),
            "channels": channels,
            "strength": np.take_along_axis(strength, channels, axis=1),
        }
        names = [subject.pictures.names[i] for i in batch.indices]
        signed = bool(values.min() < 0)
        facts = {
            "layer": info.name,
            "shape": list(values.shape[1:]),
            "signed": signed,
            "pictures": names,
        }
        seen = [
            _Seen(*one, signed=signed)
            for one in zip(
                names, batch.x, arrays["maps"], self._scaled(arrays["maps"]), channels, strict=True
            )
        ]
        return Findings(
            arrays,
            self._exhibits(seen, info, subject.space),
            facts,
            f"The feature maps of {info.name} of {subject.name}",
        )

    def _strength(self, values: Array) -> Array:
        """Measure how active each map is: (N, C)."""
        grid = tuple(range(1, values.ndim - 1))
        if self.order == "max":
            return np.asarray(values.max(grid))
        return np.asarray((np.square(values) if self.order == "energy" else values).mean(grid))

    def _channels(self, strength: Array, info: LayerInfo) -> Array:
        """Choose the channels of each picture, (N, K); of equal ones the lower comes first."""
        n, channels = strength.shape
        if self.channel is not None:
            if self.channel >= channels:
                raise ParameterError(
                    f"channel={self.channel} is out of range",
                    f"a channel from 0 to {channels - 1} of layer {info.name!r}",
                    "count the channels from 0",
                )
            return np.full((n, 1), self.channel)
        if self.order == "index":
            return np.tile(np.arange(channels)[: self.count], (n, 1))
        if self.common:
            strength = np.broadcast_to(strength.mean(0), strength.shape)
        return np.argsort(-strength, axis=1, kind="stable")[:, : self.count]

    def _scaled(self, maps: Array) -> Array:
        """Bring maps (N, ..., K) to [-1, 1]; zero stays zero."""
        grid = tuple(range(1, maps.ndim - 1))
        top = np.abs(maps).max(grid if self.normalise == "map" else None, keepdims=True)
        return maps / np.where(top > 0, top, 1)

    def _exhibits(
        self, seen: Sequence[_Seen], info: LayerInfo, space: PixelSpace
    ) -> tuple[Exhibit, ...]:
        """Show the maps of each picture, or one channel of all."""
        channels, count = info.shape[-1], len(seen[0].channels)
        some = f"all {channels}" if count == channels else f"{count} of {channels}"
        titles = [f"{each.name}: {some} maps{_ORDERS[self.order]}" for each in seen]
        if seen[0].x.ndim == 2:
            return tuple(
                curves
                for each, title in zip(seen, titles, strict=True)
                for curves in (each.signal(), each.curves(title))
            )
        note = f"Below each map its channel and strongest value; {_SCALES[self.normalise]}."
        if seen[0].x.ndim == 4:
            note += " The middle slice of each."
        if self.channel is not None:
            rows = tuple((each.picture(space), each.over(space)) for each in seen)
            return (Gallery(rows, f"Map {self.channel} of {info.name}", note=note, side=3 * _SIDE),)
        return tuple(
            Gallery(sheet([each.picture(space), *each.tiles()]), title, note=note, side=_SIDE)
            for each, title in zip(seen, titles, strict=True)
        )


@dataclass(frozen=True, eq=False)
class _Seen:
    """A picture (..., C) with its maps (..., K), as they are and as they are drawn."""

    name: str
    x: Array
    maps: Array
    heat: Array
    channels: Array
    signed: bool

    def picture(self, space: PixelSpace) -> Tile:
        """Show the picture."""
        if self.x.ndim == 3:
            return Tile(space.pixels(self.x), caption=self.name)
        grey = _middle(self.x).mean(-1, keepdims=True)
        low, high = grey.min(), grey.max()
        return Tile(as_pixels((grey - low) / (high - low or 1)), caption=self.name)

    def tiles(self) -> list[Tile]:
        """Show the maps."""
        heat = self.heat if self.x.ndim == 3 else _middle(self.heat)
        return [
            Tile(heat=heat[..., k], signed=self.signed, caption=f"{channel}: {value:.3g}")
            for k, (channel, value) in enumerate(zip(self.channels, self._strongest(), strict=True))
        ]

    def over(self, space: PixelSpace) -> Tile:
        """Show the first map over the picture."""
        return replace(self.tiles()[0], pixels=self.picture(space).pixels)

    def signal(self) -> Curves:
        """Show a signal."""
        lines = tuple(Line(f"input {c}", line) for c, line in enumerate(self.x.T))
        return Curves(np.arange(len(self.x)), lines, self.name, "position", "value")

    def curves(self, title: str) -> Curves:
        """Show the first maps of a signal."""
        lines = tuple(
            Line(f"map {channel}", line)
            for channel, line in zip(self.channels[:_LINES], self.maps.T[:_LINES], strict=True)
        )
        # The middle of each position of the map, in positions of the signal.
        middles = (np.arange(len(self.maps)) + 0.5) * len(self.x) / len(self.maps) - 0.5
        return Curves(middles, lines, title, "position", "activation")

    def _strongest(self) -> Array:
        """Give the value of the largest magnitude of each map."""
        flat = self.maps.reshape(-1, self.maps.shape[-1])
        return np.take_along_axis(flat, np.abs(flat).argmax(0)[None], axis=0)[0]


def _values(subject: Subject, x: Array, info: LayerInfo) -> Array:
    """Give the layer's values on its grid, (N, ..., C)."""
    size = subject.batch_size
    return np.concatenate(
        [
            on_grid(subject.model.forward(x[i : i + size], capture=(info.name,))[info.name], info)
            for i in range(0, len(x), size)
        ]
    )


def _middle(volume: Array) -> Array:
    """Give the middle slice along the first axis."""
    return volume[len(volume) // 2]
