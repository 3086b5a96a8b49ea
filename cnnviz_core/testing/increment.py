"""A `NetSpec` as the incremental engine takes networks, in NumPy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from cnnviz_core.blended import BLEND, Blended
from cnnviz_core.checks import check_inputs
from cnnviz_core.increment import Cut, Increment, Kind, Operation
from cnnviz_core.model import LOGITS, OUTPUT, Array, Inputs, Replacement, Trace
from cnnviz_core.netspec import NetSpec, Op
from cnnviz_core.spatial import Window
from cnnviz_core.testing.operations import OPERATIONS
from cnnviz_core.testing.reference import ReferenceModel

__all__ = [
    "IncrementalReference",
    "ReferenceArrays",
    "increment_operations",
    "reference_increment",
]

_KINDS: Final[Mapping[str, Kind]] = MappingProxyType(
    {
        "conv": "window",
        "maxpool": "window",
        "avgpool": "window",
        "gap": "mean",
        "concat": "concatenate",
        "flatten": "whole",
        "tokens": "whole",
    }
)
"""The others are pointwise."""


def increment_operations(net: NetSpec) -> list[Operation]:
    """Tell what of their inputs a network's operations need, and what they cost.

    Parameters
    ----------
    net : NetSpec
        The network.

    Returns
    -------
    list of Operation
        Its inputs, and then its operations, in order.
    """
    shapes = net.shapes()
    numbers = {name: k for k, name in enumerate(shapes)}
    made = [Operation("input", shape[:-1], shape[-1]) for shape in net.inputs.values()]
    for op in net.ops:
        *grid, channels = shapes[op.name]
        kind = _KINDS.get(op.kind, "pointwise")
        made.append(
            Operation(
                kind,
                tuple(grid),
                channels,
                tuple(numbers[name] for name in op.inputs),
                float(net.of_layer(op.layer).get("weight", np.empty(0)).size),
                _along(net, op) if kind == "window" else (),
                -math.inf if op.kind == "maxpool" else 0.0,
            )
        )
    return made


def _along(net: NetSpec, op: Op) -> tuple[Window, ...]:
    """Give the windows that an operation reads."""
    conv = op.kind == "conv"
    sizes = net.of_layer(op.layer)["weight"].shape[:-2] if conv else op.attrs["window"]
    dilation = op.attrs.get("dilation", (1,) * len(sizes))
    padding = op.attrs.get("padding", ((0, 0),) * len(sizes))
    each = zip(sizes, op.attrs["stride"], dilation, padding, strict=True)
    return tuple(Window(size, stride, gap, before) for size, stride, gap, (before, _) in each)


class ReferenceArrays:
    """The operations of a `NetSpec` and its values for one sample; see `IncrementArrays`.

    Parameters
    ----------
    net : NetSpec
        The network.
    x : mapping of str to ndarray
        A sample for each of its inputs, batches of one, of the type in which to compute.
    wanted : sequence of str
        The operations whose values are asked for.

    Attributes
    ----------
    work : float
        The multiply-adds that have been done for the changed samples.
    """

    def __init__(self, net: NetSpec, x: Mapping[str, Array], wanted: Sequence[str]) -> None:
        dtype = next(iter(x.values())).dtype
        self._ops = net.ops
        self._arrays = {
            op.layer: {k: v.astype(dtype) for k, v in net.of_layer(op.layer).items()}
            for op in net.ops
        }
        self._first = len(net.inputs)
        self._names = [*net.inputs, *(op.name for op in net.ops)]
        self._wanted = wanted
        self._clean = {name: x[name] for name in net.inputs}
        self._clean = self._all(self._clean)
        self.work = 0.0

    def patches(self, values: Array) -> Array:
        """Bring windows to where the network computes."""
        return values

    def clean(self, k: int, n: int) -> Array:
        """Give a clean value n times."""
        value = self._clean[self._names[k]]
        return np.broadcast_to(value, (n, *value.shape[1:]))

    def cut(self, k: int, cut: Cut, changed: Array | None) -> Array:
        """Cut windows out of a clean value, and lay what has changed on them."""
        value = self._clean[self._names[k]]
        channels = value.shape[-1]
        border = np.full((1, channels), cut.border, value.dtype)
        rows = np.concatenate([value.reshape(-1, channels), border])[cut.rows()]
        windows = rows.reshape(len(cut.window), *cut.window.extent, channels)
        for which, inside, of in cut.overlaps():
            assert changed is not None
            windows[which, *inside] = changed[which, *of]
        return windows

    def apply(self, k: int, inputs: Sequence[Array], windows: bool) -> Array:
        """Compute an operation."""
        op = self._ops[k - self._first]
        attrs: Mapping[str, Any] = op.attrs
        if windows and "padding" in attrs:
            attrs = {**attrs, "padding": ((0, 0),) * len(attrs["padding"])}
        made = OPERATIONS[op.kind].forward(inputs, self._arrays[op.layer], attrs)
        weight = self._arrays[op.layer].get("weight")
        self.work += 0.0 if weight is None else weight.size * made.size / made.shape[-1]
        return made

    def moved_mean(self, k: int, old: Array, new: Array) -> Array:
        """Compute a mean of which some terms have changed."""
        op = self._ops[k - self._first]
        positions = math.prod(self._clean[op.inputs[0]].shape[1:-1])
        moved: Array = (new - old).sum(tuple(range(1, new.ndim - 1))) / positions
        return self._clean[op.name] + moved

    def whole(self, batch: Blended) -> list[Array]:
        """Compute the wanted values of a batch in the plain way."""
        others = list(self._names[1 : self._first])
        given = {name: self.clean(self._names.index(name), len(batch)) for name in others}
        values = self._all({self._names[0]: np.asarray(batch), **given})
        return [values[name] for name in self._wanted]

    def joined(self, parts: Sequence[Array]) -> Array:
        """Put batches behind each other."""
        return np.concatenate(parts)

    def ordered(self, values: Array, places: Array) -> Array:
        """Give some of a batch."""
        return values[places]

    def _all(self, given: Mapping[str, Array]) -> dict[str, Array]:
        """Compute every value."""
        values = dict(given)
        for op in self._ops:
            inputs = [values[name] for name in op.inputs]
            values[op.name] = OPERATIONS[op.kind].forward(inputs, self._arrays[op.layer], op.attrs)
        return values


def reference_increment(
    net: NetSpec, x: Mapping[str, Array], wanted: Sequence[str]
) -> Increment[Array]:
    """Make the incremental engine of a network whose first input changes.

    Parameters
    ----------
    net : NetSpec
        The network.
    x : mapping of str to ndarray
        A sample for each of its inputs, batches of one, of the type in which to compute.
    wanted : sequence of str
        The operations whose values are asked for.

    Returns
    -------
    Increment
    """
    names = [*net.inputs, *(op.name for op in net.ops)]
    arrays = ReferenceArrays(net, x, wanted)
    return Increment(increment_operations(net), [names.index(name) for name in wanted], arrays)


class IncrementalReference(ReferenceModel):
    """The reference model of a network with one input, which computes samples under masks in parts.

    It shows what a backend does with the engine: the values of the last clean sample are kept, and
    a described batch is computed only where its masks reach.

    Parameters
    ----------
    net : NetSpec
        The network.
    dtype : {"float32", "float64"}
        The type in which it computes.
    """

    capabilities = ReferenceModel.capabilities | {BLEND}

    def __init__(self, net: NetSpec, dtype: str = "float32") -> None:
        super().__init__(net, dtype)
        self._last: tuple[Array, Increment[Array]] | None = None

    def forward(
        self,
        x: Inputs,
        *,
        capture: Sequence[str] = (),
        replace: Mapping[str, Replacement] | None = None,
    ) -> Trace:
        """Run the network; see `cnnviz_core.model.Model.forward`."""
        (batch,) = check_inputs(self.inputs, x, blended=True).values()
        if capture or replace or not isinstance(batch, Blended):
            return super().forward(x, capture=capture, replace=replace)
        if self._last is None or not np.array_equal(self._last[0], batch.sample):
            given = {name: batch.sample[None] for name in self.inputs}
            wanted = [self._value_name(node) for node in (OUTPUT, LOGITS)]
            self._last = batch.sample.copy(), reference_increment(self._net, given, wanted)
        output, logits = self._last[1].run(batch)
        return Trace({OUTPUT: output, LOGITS: logits})
