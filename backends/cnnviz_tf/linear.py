"""The linear operations of a graph, as `cnnviz_core.redistribution` asks for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import tensorflow as tf

from cnnviz_core.errors import RuleError
from cnnviz_core.redistribution import modified, of_one
from cnnviz_core.steps import Part
from cnnviz_tf.derivative import derivative, replayed
from cnnviz_tf.folding import Folded, through_moves, weight_and_bias
from cnnviz_tf.precision import wide

__all__ = ["Average", "Functions", "Sum", "Weighted"]


class Functions:
    """TensorFlow's arrays of one type; see `cnnviz_core.redistribution.ArrayFunctions`.

    Parameters
    ----------
    dtype : tf.DType
        The type.
    """

    def __init__(self, dtype: tf.DType) -> None:
        self._dtype = dtype

    def positive(self, values: tf.Tensor) -> tf.Tensor:
        """Give ``max(values, 0)``."""
        return tf.nn.relu(values)

    def negative(self, values: tf.Tensor) -> tf.Tensor:
        """Give ``min(values, 0)``."""
        return tf.minimum(values, tf.zeros((), self._dtype))

    def power(self, values: tf.Tensor, exponent: float) -> tf.Tensor:
        """Give ``abs(values) ** exponent``."""
        if exponent == 2:
            return tf.square(values)
        return tf.abs(values) if exponent == 1 else tf.abs(values) ** exponent

    def ones(self, values: tf.Tensor) -> tf.Tensor:
        """Give ones of the shape and type of values."""
        return tf.ones_like(values)

    def where(
        self, condition: tf.Tensor, one: tf.Tensor | float, other: tf.Tensor | float
    ) -> tf.Tensor:
        """Choose one where a condition holds, and another elsewhere."""
        chosen = [tf.convert_to_tensor(values, self._dtype) for values in (one, other)]
        return tf.where(condition, *chosen)

    def stabilised(self, values: tf.Tensor, epsilon: float) -> tf.Tensor:
        """Add a number to values with their sign; that of zero is +."""
        return values + self.where(values >= 0, epsilon, -epsilon)

    def unless_zero(
        self,
        values: tf.Tensor,
        compute: Callable[[], Sequence[tf.Tensor]],
        like: Sequence[tf.Tensor],
    ) -> Sequence[tf.Tensor]:
        """Compute something, or give zeros where all values are zero, without computing it."""
        some = tf.reduce_any(tf.not_equal(values, tf.zeros((), self._dtype)))
        results = tf.cond(some, lambda: list(compute()), lambda: list(map(tf.zeros_like, like)))
        for result, one in zip(results, like, strict=True):
            result.set_shape(one.shape)
        return results


class Weighted:
    """A convolution or dense layer with what is folded into it.

    Parameters
    ----------
    folded : Folded
        The layer.
    nonnegative : bool
        Whether its input is known to hold nothing negative.
    bound : callable
        From "low" or "high" to the least or greatest values that it can take.
    """

    def __init__(
        self, folded: Folded, nonnegative: bool, bound: Callable[[str], tf.Tensor]
    ) -> None:
        self._folded = folded
        self._bound = bound
        self._weight, self._bias = weight_and_bias(folded)
        self._weights: dict[tuple[tf.Graph, Part], tf.Tensor] = {}
        self.inputs: Final = [wide(folded.input)]
        self.nonnegative: Final = nonnegative

    def output(self) -> tf.Tensor:
        """Give its value, behind the folded constants."""
        value = wide(self._folded.end)
        for op in reversed(self._folded.after):
            value = through_moves(op, value)
        return value

    def bound(self, end: str) -> tf.Tensor:
        """Give an array of its input's shape that holds the least or greatest values."""
        return wide(self._bound(end))

    def forward(self, inputs: Sequence[tf.Tensor], weight: Part, bias: Part | None) -> tf.Tensor:
        """Apply it to other inputs, with a modified weight and a modified bias or none."""
        (values,) = inputs
        for op in self._folded.before:
            values = replayed(op, {0: values}).outputs[0]
        result = self._applied(values, weight).outputs[0]
        if bias is None or self._bias is None:
            return result
        shift = modified(bias, self._bias, Functions(result.dtype))
        if self._folded.channels_first:
            shift = tf.reshape(shift, [-1, *[1] * (result.shape.rank - 2)])
        return result + shift

    def backward(self, values: tf.Tensor, weight: Part) -> list[tf.Tensor]:
        """Multiply by its transposed modified weight."""
        core, index = self._folded.core, self._folded.data
        op = self._applied(wide(core.inputs[index]), weight)
        part = derivative(op, [values])[index]
        for op in reversed(self._folded.before):
            part = derivative(op, [part])[0]
        return [part]

    def _applied(self, values: tf.Tensor, weight: Part) -> tf.Operation:
        """Apply the core to what is padded already."""
        folded = self._folded
        return replayed(folded.core, {folded.data: values, folded.weight: self._modified(weight)})

    def _modified(self, part: Part) -> tf.Tensor:
        """Give the weight as a part of a term makes it; a branch of the graph has its own."""
        key = (tf.compat.v1.get_default_graph(), part)
        if key not in self._weights:
            self._weights[key] = modified(part, self._weight, Functions(self._weight.dtype))
        return self._weights[key]


class Sum:
    """A sum, or a difference, of values that all depend on the network's inputs.

    Parameters
    ----------
    op : tf.Operation
        The operation.
    nonnegative : bool
        Whether no operand is known to hold anything negative.
    """

    def __init__(self, op: tf.Operation, nonnegative: bool) -> None:
        self._op = op
        self._signs = [-1 if op.type == "Sub" and index else 1 for index in range(len(op.inputs))]
        self.inputs: Final = [
            wide(tensor) if sign == 1 else -wide(tensor)
            for tensor, sign in zip(op.inputs, self._signs, strict=True)
        ]
        self.nonnegative: Final = nonnegative and -1 not in self._signs

    def output(self) -> tf.Tensor:
        """Give its value."""
        return wide(self._op.outputs[0])

    def bound(self, end: str) -> tf.Tensor:
        """There is none: only the network's input has bounds."""
        raise _without_bounds(self._op)

    def forward(self, inputs: Sequence[tf.Tensor], weight: Part, bias: Part | None) -> tf.Tensor:
        """Add other values."""
        factor, (total, *more) = of_one(weight), inputs
        for values in more:
            total = total + values
        return total if factor == 1 else factor * total

    def backward(self, values: tf.Tensor, weight: Part) -> list[tf.Tensor]:
        """Hand values down to every operand, added up where it was broadcast."""
        factor = of_one(weight)
        parts = derivative(self._op, [values])
        return [
            part if factor * sign == 1 else factor * sign * part
            for part, sign in zip(parts, self._signs, strict=True)
        ]


class Average:
    """An average or a sum over places.

    Parameters
    ----------
    op : tf.Operation
        The operation.
    nonnegative : bool
        Whether its input is known to hold nothing negative.
    """

    def __init__(self, op: tf.Operation, nonnegative: bool) -> None:
        self._op = op
        self.inputs: Final = [wide(op.inputs[0])]
        self.nonnegative: Final = nonnegative

    def output(self) -> tf.Tensor:
        """Give its value."""
        return wide(self._op.outputs[0])

    def bound(self, end: str) -> tf.Tensor:
        """There is none: only the network's input has bounds."""
        raise _without_bounds(self._op)

    def forward(self, inputs: Sequence[tf.Tensor], weight: Part, bias: Part | None) -> tf.Tensor:
        """Average other values."""
        factor = of_one(weight)
        result = replayed(self._op, {0: inputs[0]}).outputs[0]
        return result if factor == 1 else factor * result

    def backward(self, values: tf.Tensor, weight: Part) -> list[tf.Tensor]:
        """Spread values over the places."""
        factor = of_one(weight)
        part = derivative(self._op, [values])[0]
        return [part if factor == 1 else factor * part]


def _without_bounds(op: tf.Operation) -> RuleError:
    """Say that a sum or an average has no bounds."""
    return RuleError(
        f"a rule asks for the least and the greatest value that {op.name!r} can take",
        "steps with bounds at convolutions and dense layers that read the network's input only",
        "give such a step as first= of the rule",
    )
