"""How much of the picture each layer sees."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Final

import numpy as np

from cnnviz_core.exhibits import Exhibit, Gallery, Table, Tile
from cnnviz_core.inspector import Findings, Subject
from cnnviz_core.layers import AUTO, layers_of, resolve_layers
from cnnviz_core.model import Array, LayerInfo
from cnnviz_core.parameters import Help
from cnnviz_core.receptive import ReceptiveField, receptive_fields

__all__ = ["ReceptiveFields"]

_GREY: Final = 160
_COLUMNS: Final = ("layer", "kind", "grid", "size", "stride", "start", "sees")
_MEANS: Final = "Layers with * see the rest too, by means over all positions."
_UNKNOWN: Final = "Of layers with ? it is not known that they see all of this: {} may read less."


@dataclass(frozen=True)
class ReceptiveFields:
    """Which part of the picture a position of each layer sees: size, stride and start.

    The numbers are exact, and as if the picture had no borders; the boxes are what the position in
    the middle of the layer's grid sees of the picture itself.  Means over all positions that only
    scale what else a layer sees (squeeze and excitation, group normalisation) are left out, and
    told of.

    Parameters
    ----------
    layer : str
        Names, patterns and positions, separated by commas; "auto" tells of all layers, and shows
        the last one of each resolution.
    every : bool
        Whether the table has also the layers that see what the one before them sees, such as
        rectifiers, and those with a single position.

    Notes
    -----
    The arrays of the findings, for each of L layers with a spatial grid along each of its A axes
    (of pictures two, rows and columns), in pixels of the input:

    - "sizes" (L, A): how many pixels a position sees; some may lie beyond the borders.
    - "strides" (L, A): how far the field moves from one position to the next; 0 where all see the
      same.
    - "offsets" (L, A): the first pixel that the first position sees; negative beyond the border.
    - "boxes" (L, A, 2): what the position in the middle of the grid sees of the picture; the first
      pixel, and the one after the last.
    - "shares" (L,): how much of the picture that is, in [0, 1].

    References
    ----------
    Araujo, Norris & Sim, "Computing receptive fields of convolutional neural networks", Distill
    2019.
    """

    layer: Annotated[str, Help("layers' names or patterns, by commas; auto: all layers")] = AUTO
    every: Annotated[bool, Help("list layers too that see what the one before them sees")] = False

    needs: ClassVar[frozenset[str]] = frozenset({"geometry"})

    def inspect(self, subject: Subject) -> Findings:
        """Tell what each layer sees.

        Parameters
        ----------
        subject : Subject
            The network, and pictures on which to show it, if there are any.

        Returns
        -------
        Findings

        Raises
        ------
        MissingCapabilityError
            If the network does not tell its geometry.
        ArrayError
            If its input has no spatial axes.
        UnknownLayerError
            If there is no such layer, or none has a spatial grid.
        """
        model, dtype = subject.model, next(iter(subject.model.inputs.values())).dtype
        x = np.zeros((1, *subject.shape), dtype)
        layers = layers_of(model, x)
        shown = [info.name for info in resolve_layers(model, self.layer, x)]
        asked = None if self.layer == AUTO else shown
        fields = receptive_fields(model, asked, x, local=True)
        boxes = np.array([field.box(field.middle) for field in fields])
        arrays = {
            "sizes": np.array([field.size for field in fields]),
            "strides": np.array([[float(n) for n in field.stride] for field in fields], dtype),
            "offsets": np.array([field.start for field in fields]),
            "boxes": boxes,
            "shares": np.array([_share(field) for field in fields], dtype),
        }
        facts = {
            "layers": [field.layer for field in fields],
            "grids": [list(field.grid) for field in fields],
            "by means": [field.layer for field in fields if field.by_means],
            "not understood": sorted({name for field in fields for name in field.through}),
        }
        exhibits: list[Exhibit] = [self._table(fields, layers)]
        if len(subject.shape) == 3:
            chosen = [field for field in fields if field.layer in shown]
            exhibits.insert(0, _gallery(subject, chosen))
        return Findings(arrays, tuple(exhibits), facts, f"What the layers of {subject.name} see")

    def _table(self, fields: Sequence[ReceptiveField], layers: Mapping[str, LayerInfo]) -> Table:
        """List the layers."""
        rows: list[tuple[str, ...]] = []
        for field in fields:
            row = (field.layer, layers[field.layer].kind, *_row(field))
            new = math.prod(field.grid) > 1 and not (rows and row[2:] == rows[-1][2:])
            if new or self.every or self.layer != AUTO:
                rows.append(row)
        notes = [_MEANS] if any(field.by_means for field in fields) else []
        unknown = sorted({name for field in fields for name in field.through})
        if unknown:
            notes.append(_UNKNOWN.format(", ".join(unknown)))
        axes = "rows and columns" if len(fields[0].pixels) == 2 else "along each axis"
        return Table(
            _COLUMNS,
            tuple(rows),
            "Receptive fields",
            " ".join([f"In pixels of the input, {axes} where they differ.", *notes]),
            numeric=_COLUMNS[2:],
        )


def _share(field: ReceptiveField) -> float:
    """Give how much of the picture the position in the middle sees."""
    sides = (stop - start for start, stop in field.box(field.middle))
    return math.prod(side / n for side, n in zip(sides, field.pixels, strict=True))


def _percent(field: ReceptiveField) -> str:
    """Write how much of the picture the position in the middle sees."""
    share = _share(field)
    return f"{share:.1%}" if share >= 0.0005 or not share else "< 0.1%"


def _row(field: ReceptiveField) -> tuple[str, ...]:
    """Give a table's cells for a field."""
    marks = "*" * field.by_means + "?" * (not field.exact)
    return (
        " × ".join(map(str, field.grid)),
        _short(field.size),
        _short(field.stride),
        _short(field.start),
        f"{_percent(field)}{marks}",
    )


def _short(values: Sequence[object]) -> str:
    """Give one number where it is the same along every axis."""
    return " × ".join(map(str, values if len(set(values)) > 1 else values[:1]))


def _gallery(subject: Subject, fields: Sequence[ReceptiveField]) -> Gallery:
    """Draw fields on the pictures: all in one, and each alone."""
    names: tuple[str, ...] = ()
    if len(subject.pictures):
        batch = subject.pictures.all()
        pictures = subject.space.pixels(batch.x)
        names = tuple(subject.pictures.names[i] for i in batch.indices)
    else:
        pictures = np.full((1, *subject.shape[:2], 3), _GREY, np.uint8)
    return Gallery(
        tuple(_tiles(pixels, fields) for pixels in pictures),
        "What the position in the middle of each layer sees",
        row_titles=names if len(names) > 1 else (),
        note="Size of the field without borders, and its share of the picture within them.",
    )


def _tiles(pixels: Array, fields: Sequence[ReceptiveField]) -> tuple[Tile, ...]:
    """Draw fields on one picture."""
    frames = [(field, field.frame(field.middle)) for field in fields]
    seen = [(field, frame) for field, frame in frames if frame[0] < frame[2]]
    alone = (
        Tile(
            pixels,
            boxes=(frame,),
            caption=f"{field.layer}: {_short(field.size)} px, {_percent(field)}",
        )
        for field, frame in seen
    )
    together = Tile(pixels, boxes=tuple(frame for _, frame in seen), caption="all of these")
    return (together, *alone)
