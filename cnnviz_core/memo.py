"""A model that remembers, so that several methods share one forward and one backward pass."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from cnnviz_core.model import (
    INPUT,
    LOGITS,
    OUTPUT,
    Array,
    Cotangent,
    InputInfo,
    Inputs,
    LayerInfo,
    Model,
    Pullback,
    Replacement,
    Trace,
)
from cnnviz_core.rules import STANDARD, BackwardRule

__all__ = ["MemoModel"]


class MemoModel:
    """A model that answers again what it was asked before.

    It stands for another model and obeys the same protocol, so no explainer need know.  A pullback
    whose cotangent is a function is remembered under the array that the function gives, so two
    explainers with targets of their own share one backward pass where the targets agree.

    Parameters
    ----------
    model : Model
        The model that is asked.  Its weights must not change while it is remembered.
    entries : int
        How many answers to keep; the one asked for longest ago goes first.
    """

    def __init__(self, model: Model, entries: int = 8) -> None:
        self._model = model
        self._entries = entries
        self._known: OrderedDict[Hashable, Any] = OrderedDict()
        self.framework = model.framework
        self.capabilities = model.capabilities

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
        """Run the network, or answer from what an earlier pass gave; see `Model.forward`."""
        if replace:
            return self._model.forward(x, capture=capture, replace=replace)
        key = _fingerprint(x)
        wanted = {LOGITS, OUTPUT, *capture}
        values = self._values(key)
        if not wanted <= values.keys():
            trace = self._model.forward(x, capture=[n for n in capture if n not in values])
            values = self._remember_values(key, trace.values)
        return Trace({node: values[node] for node in wanted})

    def pullback(
        self,
        x: Inputs,
        cotangent: Cotangent,
        *,
        of: str = LOGITS,
        wrt: Sequence[str] = (INPUT,),
        rule: BackwardRule = STANDARD,
    ) -> Pullback:
        """Differentiate, or answer from what an earlier pass gave; see `Model.pullback`."""
        key = _fingerprint(x)
        values = self._values(key)
        if callable(cotangent):
            if of not in values:
                return self._first_pullback(x, cotangent, of, wrt, rule, key)
            cotangent = cotangent(values[of])
        asked = (key, of, tuple(wrt), rule, _digest(np.asarray(cotangent)))
        if asked not in self._known:
            self._put(asked, self._model.pullback(x, cotangent, of=of, wrt=wrt, rule=rule))
            self._remember_values(key, self._known[asked].values)
        self._known.move_to_end(asked)
        answer: Pullback = self._known[asked]
        return answer

    def _first_pullback(
        self,
        x: Inputs,
        cotangent: Any,
        of: str,
        wrt: Sequence[str],
        rule: BackwardRule,
        key: Hashable,
    ) -> Pullback:
        """Differentiate where the value at `of` is not known yet: one pass gives both."""
        given: list[Array] = []

        def noted(value: Array) -> Array:
            given.append(np.asarray(cotangent(value)))
            return given[-1]

        answer = self._model.pullback(x, noted, of=of, wrt=wrt, rule=rule)
        self._remember_values(key, answer.values)
        self._put((key, of, tuple(wrt), rule, _digest(given[-1])), answer)
        return answer

    def _values(self, key: Hashable) -> dict[str, Array]:
        """Give the values that are known for an input."""
        values: dict[str, Array] = self._known.get(("values", key), {})
        return values

    def _remember_values(self, key: Hashable, values: Mapping[str, Array]) -> dict[str, Array]:
        """Add values to those that are known for an input."""
        known = {**self._values(key), **values}
        self._put(("values", key), known)
        return known

    def _put(self, key: Hashable, answer: Any) -> None:
        """Keep an answer, and forget the one asked for longest ago."""
        self._known[key] = answer
        self._known.move_to_end(key)
        while len(self._known) > self._entries:
            self._known.popitem(last=False)


def _fingerprint(x: Inputs) -> Hashable:
    """Tell inputs apart by their content."""
    if isinstance(x, Mapping):
        return tuple((name, _digest(np.asarray(array))) for name, array in x.items())
    return _digest(np.asarray(x))


def _digest(array: Array) -> Hashable:
    """Tell arrays apart by their content."""
    data = np.ascontiguousarray(array)
    return (
        array.shape,
        array.dtype.str,
        hashlib.blake2b(data.data, digest_size=16).digest(),
    )
