"""The linear operations of a graph, as `cnnviz_core.redistribution` asks for them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Final

import tensorflow as tf

from cnnviz_core.errors import RuleError
from cnnviz_core.redistribution import Applied, Returned, modified, of_one
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

    def of_sign(self, values: tf.Tensor, others: tf.Tensor, positive: bool) -> tf.Tensor:
        """Give values where others are above zero, or else below, and zeros elsewhere."""
        zero = tf.zeros((), self._dtype)
        return tf.where(others > zero if positive else others < zero, values, zero)

    def divided(self, values: tf.Tensor, by: tf.Tensor, epsilon: float, factor: float) -> tf.Tensor:
        """Give ``factor * values / (by + epsilon * sign(by))``, and zero where that is by zero."""
        if epsilon:
            # Faster than tf.where, and as exact: 2 epsilon - epsilon is epsilon.
            result = values / (by + (2 * epsilon * tf.cast(by >= 0, self._dtype) - epsilon))
        else:
            result = tf.math.divide_no_nan(values, by)
        return result if factor == 1 else factor * result

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


class _Linear(ABC):
    """Any of the operations here."""

    def forward(self, terms: Sequence[Applied[tf.Tensor]]) -> tf.Tensor:
        """Add up what it makes of other inputs, with modified weights and biases."""
        return _total([self._applied(*term) for term in terms])

    def backward(self, terms: Sequence[Returned[tf.Tensor]]) -> list[tf.Tensor]:
        """Multiply values by its transposed modified weights and by other inputs, and add up."""
        factors = {id(inputs): inputs for inputs, _, _ in terms}
        products: dict[int, list[list[tf.Tensor]]] = {key: [] for key in factors}
        for inputs, values, weight in terms:
            products[id(inputs)].append(self.transposed(values, weight))
        given = [
            [x * _total(parts) for x, *parts in zip(factors[key], *several, strict=True)]
            for key, several in products.items()
        ]
        return [_total(parts) for parts in zip(*given, strict=True)]

    @abstractmethod
    def transposed(self, values: tf.Tensor, weight: Part) -> list[tf.Tensor]:
        """Multiply by its transposed modified weights: one tensor for each input."""

    @abstractmethod
    def _applied(self, inputs: Sequence[tf.Tensor], weight: Part, bias: Part | None) -> tf.Tensor:
        """Apply it to other inputs, with modified weights and a modified bias or none."""


class Weighted(_Linear):
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

    def _applied(self, inputs: Sequence[tf.Tensor], weight: Part, bias: Part | None) -> tf.Tensor:
        """Apply it to other inputs, with a modified weight and a modified bias or none."""
        result = self._core(self._padded(inputs[0]), self._modified(weight)).outputs[0]
        return self._shifted(result, bias)

    def forward(self, terms: Sequence[Applied[tf.Tensor]]) -> tf.Tensor:
        """Add up what it makes of other inputs, with modified weights and biases."""
        if len(terms) == 1 or not self._light:
            return super().forward(terms)
        inputs = [self._padded(values) for (values,), _, _ in terms]
        weights = self._side_by_side([weight for _, weight, _ in terms])
        result = self._core(tf.concat(inputs, self._folded.channel_axis), weights).outputs[0]
        for _, _, bias in terms:
            result = self._shifted(result, bias)
        return result

    def backward(self, terms: Sequence[Returned[tf.Tensor]]) -> list[tf.Tensor]:
        """Multiply values by its transposed modified weights and by other inputs, and add up."""
        groups: dict[int, list[Returned[tf.Tensor]]] = {}
        for term in terms:
            groups.setdefault(id(term[1]), []).append(term)
        if not self._light or all(len(group) == 1 for group in groups.values()):
            return super().backward(terms)
        return [_total([self._at_once(group) for group in groups.values()])]

    def _at_once(self, terms: Sequence[Returned[tf.Tensor]]) -> tf.Tensor:
        """Do the products with the same values as one, with the inputs side by side."""
        axis, several = self._folded.channel_axis, len(terms)
        inputs = [wide(self._folded.core.inputs[self._folded.data])] * several
        op = self._core(
            tf.concat(inputs, axis), self._side_by_side([weight for _, _, weight in terms])
        )
        part = derivative(op, [terms[0][1]])[self._folded.data]
        parts = map(self._unpadded, tf.split(part, several, axis))
        return _total([x * part for ((x,), _, _), part in zip(terms, parts, strict=True)])

    def transposed(self, values: tf.Tensor, weight: Part) -> list[tf.Tensor]:
        """Multiply by its transposed modified weight."""
        core, index = self._folded.core, self._folded.data
        op = self._core(wide(core.inputs[index]), self._modified(weight))
        return [self._unpadded(derivative(op, [values])[index])]

    def _core(self, values: tf.Tensor, weight: tf.Tensor) -> tf.Operation:
        """Apply the core to what is padded already."""
        folded = self._folded
        return replayed(folded.core, {folded.data: values, folded.weight: weight})

    def _padded(self, values: tf.Tensor) -> tf.Tensor:
        """Pad as before the core."""
        for op in self._folded.before:
            values = replayed(op, {0: values}).outputs[0]
        return values

    def _unpadded(self, part: tf.Tensor) -> tf.Tensor:
        """Cut off what is padded before the core."""
        for op in reversed(self._folded.before):
            part = derivative(op, [part])[0]
        return part

    def _shifted(self, result: tf.Tensor, bias: Part | None) -> tf.Tensor:
        """Add a modified bias or none."""
        if bias is None or self._bias is None:
            return result
        shift = modified(bias, self._bias, Functions(result.dtype))
        if self._folded.channels_first:
            shift = tf.reshape(shift, [-1, *[1] * (result.shape.rank - 2)])
        return result + shift

    @property
    def _light(self) -> bool:
        """Whether copying weights, to do several products at once, is less work than it spares."""
        core, x = self._folded.core, self._folded.core.inputs[self._folded.data]
        if core.type not in ("Conv2D", "Conv3D") or not x.shape[1:].is_fully_defined():
            return False
        ungrouped = self._weight.shape[-2] == x.shape[self._folded.channel_axis]
        return ungrouped and self._weight.shape.num_elements() < x.shape[1:].num_elements()

    def _side_by_side(self, parts: Sequence[Part]) -> tf.Tensor:
        """Give modified weights one beside the other, along the channels that the core takes."""
        return tf.concat([self._modified(part) for part in parts], -2)

    def _modified(self, part: Part) -> tf.Tensor:
        """Give the weight as a part of a term makes it; a branch of the graph has its own."""
        key = (tf.compat.v1.get_default_graph(), part)
        if key not in self._weights:
            self._weights[key] = modified(part, self._weight, Functions(self._weight.dtype))
        return self._weights[key]


class Sum(_Linear):
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

    def _applied(self, inputs: Sequence[tf.Tensor], weight: Part, bias: Part | None) -> tf.Tensor:
        """Add other values."""
        factor, (total, *more) = of_one(weight), inputs
        for values in more:
            total = total + values
        return total if factor == 1 else factor * total

    def transposed(self, values: tf.Tensor, weight: Part) -> list[tf.Tensor]:
        """Hand values down to every operand, added up where it was broadcast."""
        factor = of_one(weight)
        parts = derivative(self._op, [values])
        return [
            part if factor * sign == 1 else factor * sign * part
            for part, sign in zip(parts, self._signs, strict=True)
        ]


class Average(_Linear):
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

    def _applied(self, inputs: Sequence[tf.Tensor], weight: Part, bias: Part | None) -> tf.Tensor:
        """Average other values."""
        factor = of_one(weight)
        result = replayed(self._op, {0: inputs[0]}).outputs[0]
        return result if factor == 1 else factor * result

    def transposed(self, values: tf.Tensor, weight: Part) -> list[tf.Tensor]:
        """Spread values over the places."""
        factor = of_one(weight)
        part = derivative(self._op, [values])[0]
        return [part if factor == 1 else factor * part]


def _total(tensors: Sequence[tf.Tensor]) -> tf.Tensor:
    """Add up."""
    return tensors[0] if len(tensors) == 1 else tf.add_n(tensors)


def _without_bounds(op: tf.Operation) -> RuleError:
    """Say that a sum or an average has no bounds."""
    return RuleError(
        f"a rule asks for the least and the greatest value that {op.name!r} can take",
        "steps with bounds at convolutions and dense layers that read the network's input only",
        "give such a step as first= of the rule",
    )
