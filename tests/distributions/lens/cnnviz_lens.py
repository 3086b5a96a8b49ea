"""Inspectors as a stranger would write them."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from cnnviz_core.exhibits import Gallery, Table, Tile
from cnnviz_core.inspector import Findings
from cnnviz_core.layers import on_grid, resolve_layer
from cnnviz_core.parameters import Help, Range


@dataclass(frozen=True)
class Strength:
    """The mean magnitude of a layer's answer at each of its positions.

    ``strength`` (N, h, w), in the layer's own values; ``indices`` (N,), which pictures they are of.
    """

    layer: Annotated[str, Help("layer to look at")] = "auto"
    power: Annotated[float, Range(0, open_low=True), Help("exponent of the magnitude")] = 1.0
    batch_size: Annotated[int, Range(1), Help("pictures at once")] = 4

    needs: ClassVar[frozenset[str]] = frozenset({"capture"})

    def inspect(self, subject):
        """Measure each picture."""
        shown = subject.pictures.all()
        layer = resolve_layer(subject.model, self.layer, shown.x)
        maps, tiles = [], []
        for batch in subject.pictures.batches(self.batch_size):
            values = subject.model.forward(batch.x, capture=(layer.name,))[layer.name]
            strength = (np.abs(on_grid(values, layer)) ** self.power).mean(-1)
            maps.extend(strength)
            for index, x, each in zip(batch.indices, batch.x, strength, strict=True):
                name = subject.pictures.names[index]
                heat = each / max(each.max(), 1e-12)
                tiles.append((Tile(subject.space.pixels(x), heat, caption=name),))
        return Findings(
            {"strength": np.stack(maps), "indices": np.array(shown.indices)},
            (Gallery(tuple(tiles), title=f"Strength of {layer.name}"),),
            {"layer": layer.name, "at once": self.batch_size},
            f"How strongly {layer.name} of {subject.name} answers",
        )


@dataclass(frozen=True)
class LayerCount:
    """How many layers a network has: ``count`` (1,)."""

    needs: ClassVar[frozenset[str]] = frozenset()

    def inspect(self, subject):
        """Count them."""
        count = len(subject.model.layers)
        return Findings(
            {"count": np.array([count])},
            (Table(("layers",), ((str(count),),)),),
            {"layers": count},
            f"{subject.name} has {count} layers",
        )
