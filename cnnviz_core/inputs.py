"""Explaining one input of a network that has several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from cnnviz_core.delegate import Delegate
from cnnviz_core.errors import ArrayError
from cnnviz_core.model import (
    INPUT,
    LOGITS,
    Array,
    Cotangent,
    Curvature,
    InputInfo,
    Inputs,
    Model,
    Pullback,
    Replacement,
    Trace,
    copyable,
    input_node,
)
from cnnviz_core.rules import STANDARD, BackwardRule
from cnnviz_core.spatial import Geometry

__all__ = ["OneInput"]


class OneInput(Delegate):
    """A network with several inputs, of which all but one are held.

    It obeys the protocol of a network with one input, so that every explainer can change that input
    as it likes: mask it, add noise to it, put many copies through at once.

    Parameters
    ----------
    model : Model
        The network.
    free : str
        The name of the input that is explained.
    held : mapping of str to ndarray (1, ...)
        A value for each other input: one sample, given again for each sample of a batch.

    Raises
    ------
    ArrayError
        If there is no input of that name, or another has not exactly one sample.
    """

    def __init__(self, model: Model, free: str, held: Mapping[str, Array]) -> None:
        names = list(model.inputs)
        if free not in names:
            raise ArrayError(
                f"the network has no input {free!r}", f"one of {', '.join(names)}", "name one"
            )
        others = [name for name in names if name != free]
        if set(held) != set(others):
            raise ArrayError(
                f"values were given for the inputs {sorted(held)}",
                f"one for each of {', '.join(others)}",
                f"give an array for each input but {free!r}",
            )
        for name in others:
            if np.ndim(held[name]) == 0 or len(held[name]) != 1:
                raise ArrayError(
                    f"the input {name!r} is held at an array of the shape {np.shape(held[name])}",
                    "one sample: (1, ...)",
                    "explain the samples one by one",
                )
        super().__init__(model)
        self._free = free
        self._held = {name: np.asarray(held[name]) for name in others}

    @property
    def inputs(self) -> Mapping[str, InputInfo]:
        """The input that is free."""
        return {self._free: self._model.inputs[self._free]}

    def forward(
        self,
        x: Inputs,
        *,
        capture: Sequence[str] = (),
        replace: Mapping[str, Replacement] | None = None,
    ) -> Trace:
        """Run the network; see `Model.forward`."""
        inner = {self._inner(node): value for node, value in (replace or {}).items()}
        nodes = {node: self._inner(node) for node in capture}
        trace = self._model.forward(self._all(x), capture=list(nodes.values()), replace=inner)
        return Trace({**trace.values, **{node: trace[known] for node, known in nodes.items()}})

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
        nodes = {node: self._inner(node) for node in wrt}
        back = self._model.pullback(
            self._all(x), cotangent, of=of, wrt=list(nodes.values()), rule=rule
        )
        gradients = {node: back.gradients[known] for node, known in nodes.items()}
        return Pullback(back.values, gradients)

    def curvature(
        self,
        x: Inputs,
        cotangent: Cotangent,
        direction: Cotangent,
        *,
        of: str = LOGITS,
        wrt: str = INPUT,
    ) -> Curvature:
        """Differentiate twice; see `CurvedModel.curvature`."""
        inner = self._inner(wrt)
        return super().curvature(self._all(x), cotangent, direction, of=of, wrt=inner)

    def geometry(
        self, nodes: Sequence[str], x: Inputs | None = None, *, wrt: str = INPUT
    ) -> Geometry:
        """Tell what is read; see `SpatialModel.geometry`."""
        given = None if x is None else self._all(x)
        return super().geometry(nodes, given, wrt=self._inner(wrt))

    def copied(self, parameters: Mapping[str, Mapping[str, Array]]) -> OneInput:
        """Copy the network, and hold the same inputs; see `CopyableModel.copied`."""
        return OneInput(copyable(self._model).copied(parameters), self._free, self._held)

    def _inner(self, node: str) -> str:
        """Give a node's name in the network with several inputs."""
        return input_node(self._free) if node == INPUT else node

    def _all(self, x: Inputs) -> dict[str, Array]:
        """Give a batch for every input, in the network's order."""
        free = x[self._free] if isinstance(x, Mapping) else x
        return {
            name: free
            if name == self._free
            else np.broadcast_to(self._held[name], (len(free), *self._held[name].shape[1:]))
            for name in self._model.inputs
        }
