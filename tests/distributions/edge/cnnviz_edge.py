"""An explainer as a stranger would write it."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from cnnviz_core.explainer import Maps
from cnnviz_core.layers import on_grid, resolve_layer
from cnnviz_core.parameters import Help, Range
from cnnviz_core.targets import cotangent_of, resolve_all, scores_of, target_node


@dataclass(frozen=True)
class EdgeCAM:
    """Feature maps times the gradient's magnitude, raised to a power."""

    layer: Annotated[str, Help("layer to look at")] = "auto"
    power: Annotated[float, Range(0, open_low=True), Help("exponent of the magnitude")] = 1.0

    needs: ClassVar[frozenset[str]] = frozenset({"capture", "gradient"})

    def explain(self, model, x, targets):
        """Explain the targets' scores on a batch."""
        layer = resolve_layer(model, self.layer, x)
        of = target_node(targets)
        back = model.pullback(x, cotangent_of(targets), of=of, wrt=(layer.name,))
        strength = np.abs(on_grid(back.gradients[layer.name], layer)) ** self.power
        raw = (on_grid(back.values[layer.name], layer) * strength).sum(-1)
        return Maps(
            raw=raw,
            scores=scores_of(targets, back.values[of]),
            targets=resolve_all(targets, back.values[of]),
            layer=layer.name,
        )
