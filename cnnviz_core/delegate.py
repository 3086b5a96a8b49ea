"""A model that stands for another one, to be made to differ in a single respect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cnnviz_core.model import (
    INPUT,
    LOGITS,
    PREPARE,
    Array,
    Cotangent,
    Curvature,
    InputInfo,
    Inputs,
    LayerInfo,
    Model,
    Pullback,
    Replacement,
    Trace,
    copyable,
    curved,
    spatial,
)
from cnnviz_core.rules import STANDARD, BackwardRule
from cnnviz_core.spatial import Geometry

__all__ = ["Delegate"]


class Delegate:
    """A model that asks another one everything; a subclass changes what it does differently.

    It does not offer "prepare": a faster copy of the other model would not differ as it does.

    Parameters
    ----------
    model : Model
        The model that is asked.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self.framework = model.framework
        self.capabilities = model.capabilities - {PREPARE}

    @property
    def activation(self) -> str:
        """What turns the logits into probabilities; some networks tell once they have run."""
        return self._model.activation

    @property
    def inputs(self) -> Mapping[str, InputInfo]:
        """The named inputs, in the order of the call."""
        return self._model.inputs

    @property
    def layers(self) -> Mapping[str, LayerInfo]:
        """Every call of every layer, in the order in which the calls end."""
        return self._model.layers

    def parameters(self, layer: str) -> Mapping[str, Array]:
        """Return a layer's arrays; see `Model.parameters`."""
        return self._model.parameters(layer)

    def forward(
        self,
        x: Inputs,
        *,
        capture: Sequence[str] = (),
        replace: Mapping[str, Replacement] | None = None,
    ) -> Trace:
        """Run the network; see `Model.forward`."""
        return self._model.forward(x, capture=capture, replace=replace)

    def pullback(
        self,
        x: Inputs,
        cotangent: Cotangent,
        *,
        of: str = LOGITS,
        wrt: Sequence[str] = (INPUT,),
        rule: BackwardRule = STANDARD,
    ) -> Pullback:
        """Differentiate; see `Model.pullback`."""
        return self._model.pullback(x, cotangent, of=of, wrt=wrt, rule=rule)

    def curvature(
        self,
        x: Inputs,
        cotangent: Cotangent,
        direction: Cotangent,
        *,
        of: str = LOGITS,
        wrt: str = INPUT,
    ) -> Curvature:
        """Differentiate twice, if the model can; see `CurvedModel.curvature`."""
        return curved(self._model).curvature(x, cotangent, direction, of=of, wrt=wrt)

    def geometry(
        self, nodes: Sequence[str], x: Inputs | None = None, *, wrt: str = INPUT
    ) -> Geometry:
        """Tell what is read, if the model can; see `SpatialModel.geometry`."""
        return spatial(self._model).geometry(nodes, x, wrt=wrt)

    def copied(self, parameters: Mapping[str, Mapping[str, Array]]) -> Model:
        """Copy the model that is asked, if it can; see `CopyableModel.copied`."""
        return copyable(self._model).copied(parameters)
