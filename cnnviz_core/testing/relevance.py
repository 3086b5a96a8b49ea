"""How the reference model takes the steps of a backward rule: plainly, one operation at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from cnnviz_core.model import Array
from cnnviz_core.netspec import Op
from cnnviz_core.redistribution import Applied, Returned, modified, of_one, redistribute
from cnnviz_core.rules import BackwardRule
from cnnviz_core.steps import LinearStep, Part, PassStep, ReluStep, Step
from cnnviz_core.testing.operations import OPERATIONS

__all__ = ["KIND_OF", "Linear", "folded", "take_step"]

KIND_OF: Final[Mapping[str, str]] = {
    "conv": "conv",
    "linear": "linear",
    "relu": "relu",
    "relu6": "relu",
    "leaky_relu": "relu",
    "maxpool": "maxpool",
    "avgpool": "avgpool",
    "gap": "avgpool",
    "batchnorm": "batchnorm",
    "add": "add",
    "concat": "concat",
    "sigmoid": "activation",
    "silu": "activation",
}
"""From the kind of an operation of a `NetSpec` to what a rule calls it."""

PLACING: Final = frozenset({"flatten", "tokens"})
"""Operations that only place values anew."""


class _Functions:
    """NumPy's arrays, for `cnnviz_core.redistribution`."""

    def positive(self, values: Array) -> Array:
        return np.maximum(values, 0)

    def negative(self, values: Array) -> Array:
        return np.minimum(values, 0)

    def power(self, values: Array, exponent: float) -> Array:
        return np.abs(values) ** exponent

    def ones(self, values: Array) -> Array:
        return np.ones_like(values)

    def of_sign(self, values: Array, others: Array, positive: bool) -> Array:
        return np.where(others > 0 if positive else others < 0, values, 0)

    def divided(self, values: Array, by: Array, epsilon: float, factor: float) -> Array:
        stable = by + np.copysign(by.dtype.type(epsilon), by)
        return np.divide(factor * values, stable, out=np.zeros_like(stable), where=stable != 0)

    def unless_zero(
        self, values: Array, compute: Callable[[], Sequence[Array]], like: Sequence[Array]
    ) -> Sequence[Array]:
        return compute()


_FUNCTIONS: Final = _Functions()


@dataclass
class Linear:
    """An operation with constant weights; see `cnnviz_core.redistribution.LinearOperation`.

    Attributes
    ----------
    op : Op
        The operation.
    inputs : list of ndarray
        What it took.
    value : ndarray
        What it made of them, with the normalisation behind it where that is folded in.
    arrays : mapping of str to ndarray
        Its weight and bias.
    bounds : tuple, or None
        As of `BackwardRule`.
    """

    op: Op
    inputs: Sequence[Array]
    value: Array
    arrays: Mapping[str, Array]
    bounds: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    nonnegative: bool = field(default=False, init=False)

    def output(self) -> Array:
        """Give its value."""
        return self.value

    def bound(self, end: str) -> Array:
        """Fill an array of its input's shape with the least or greatest values."""
        low, high = self.bounds or ((), ())
        x = self.inputs[0]
        return np.broadcast_to(np.asarray(low if end == "low" else high, x.dtype), x.shape)

    def forward(self, terms: Sequence[Applied[Array]]) -> Array:
        """Add up what it makes of other inputs, with modified arrays."""
        return np.sum([self._applied(*term) for term in terms], axis=0)

    def backward(self, terms: Sequence[Returned[Array]]) -> Sequence[Array]:
        """Multiply values by its transposed modified weights and by other inputs, and add up."""
        given = [
            [x * part for x, part in zip(inputs, self._transposed(values, weight), strict=True)]
            for inputs, values, weight in terms
        ]
        return [np.sum(of_one_input, axis=0) for of_one_input in zip(*given, strict=True)]

    def _applied(self, inputs: Sequence[Array], weight: Part, bias: Part | None) -> Array:
        """Apply it to other inputs, with modified arrays."""
        factor = 1.0 if "weight" in self.arrays else of_one(weight)
        return factor * self._operation.forward(inputs, self._modified(weight, bias), self.op.attrs)

    def _transposed(self, values: Array, weight: Part) -> Sequence[Array]:
        """Multiply by its transposed modified weights."""
        factor = 1.0 if "weight" in self.arrays else of_one(weight)
        arrays = self._modified(weight, None)
        parts = self._operation.backward(values, self.inputs, self.value, arrays, self.op.attrs)
        return [factor * part for part in parts]

    @property
    def _operation(self) -> Any:
        return OPERATIONS[self.op.kind]

    def _modified(self, weight: Part, bias: Part | None) -> dict[str, Array]:
        """Give the weight and bias as parts of a term make them."""
        arrays = {}
        if "weight" in self.arrays:
            arrays["weight"] = modified(weight, self.arrays["weight"], _FUNCTIONS)
        if "bias" in self.arrays and bias is not None:
            arrays["bias"] = modified(bias, self.arrays["bias"], _FUNCTIONS)
        return arrays


def folded(
    arrays: Mapping[str, Array], norm: Mapping[str, Array], epsilon: float
) -> dict[str, Any]:
    """Fold a batch normalisation into the weight and bias of the layer before it.

    Parameters
    ----------
    arrays : mapping of str to ndarray
        The layer's weight, (..., C_out), and perhaps its bias.
    norm : mapping of str to ndarray
        The normalisation's scale, shift, mean and variance, each (C_out,).
    epsilon : float
        Its epsilon.

    Returns
    -------
    dict of str to ndarray
        "weight" and "bias" of one layer that computes both.
    """
    factor = norm["scale"] / np.sqrt(norm["variance"] + norm["variance"].dtype.type(epsilon))
    shift = norm["shift"] - norm["mean"] * factor
    return {
        "weight": arrays["weight"] * factor,
        "bias": arrays["bias"] * factor + shift if "bias" in arrays else shift,
    }


def take_step(
    step: Step | None, operation: Linear, arriving: Array, rule: BackwardRule
) -> Sequence[Array]:
    """Hand down what arrives at an operation.

    Parameters
    ----------
    step : step or None
        The rule's step there; None for the operation's own derivative.
    operation : Linear
        The operation; only that of a `LinearStep` need be linear.
    arriving : ndarray
        The gradient or relevance of its value.
    rule : BackwardRule
        The rule that the step is of.

    Returns
    -------
    sequence of ndarray
        One for each input of the operation, of its shape.
    """
    op = operation.op
    if isinstance(step, LinearStep):
        operation.bounds = rule.bounds
        return redistribute(step, operation, arriving, _FUNCTIONS)
    if isinstance(step, PassStep) or (isinstance(step, ReluStep) and not step.gate):
        parts = [arriving]
    else:
        parts = OPERATIONS[op.kind].backward(
            arriving, operation.inputs, operation.value, operation.arrays, op.attrs
        )
    if isinstance(step, ReluStep) and step.rectify:
        parts = [np.maximum(part, 0) for part in parts]
    return parts
