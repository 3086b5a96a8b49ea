"""Operations that are linear in what they take, as `cnnviz_core.redistribution` asks for them."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, reduce
from typing import Any, Final, TypeAlias

import torch
import torch.nn.functional as F

from cnnviz_core.errors import RuleError
from cnnviz_core.redistribution import Applied, Returned, modified, of_one
from cnnviz_core.steps import AS_IS, POSITIVE, Part, Slopes
from cnnviz_torch.bounds import Rescaling

__all__ = [
    "FUNCTIONS",
    "Affine",
    "Average",
    "Bounds",
    "Convolution",
    "Dense",
    "Linear",
    "Sum",
    "padded_shape",
    "unpadded",
]

_MANY = 64  # Contributions of which those of either sign seldom add up to next to nothing.

Bounds: TypeAlias = tuple[tuple[float, ...], tuple[float, ...]] | None


class _Functions:
    """What `cnnviz_core.redistribution` needs to know of tensors."""

    def positive(self, values: torch.Tensor) -> torch.Tensor:
        """Give ``max(values, 0)``."""
        return values.clamp(min=0)

    def negative(self, values: torch.Tensor) -> torch.Tensor:
        """Give ``min(values, 0)``."""
        return values.clamp(max=0)

    def power(self, values: torch.Tensor, exponent: float) -> torch.Tensor:
        """Give ``abs(values) ** exponent``."""
        return values * values if exponent == 2 else values.abs() ** exponent

    def ones(self, values: torch.Tensor) -> torch.Tensor:
        """Give ones of the same shape."""
        return torch.ones_like(values)

    def of_sign(self, values: torch.Tensor, others: torch.Tensor, positive: bool) -> torch.Tensor:
        """Give values where others are above zero, or else below, and zeros elsewhere."""
        # The fastest way to choose on a processor: torch.where takes twenty times as long.
        ends = (0.0, math.inf) if positive else (-math.inf, 0.0)
        return torch.ops.aten.hardtanh_backward(values, others, *ends)

    def divided(
        self, values: torch.Tensor, by: torch.Tensor, epsilon: float, factor: float
    ) -> torch.Tensor:
        """Give ``factor * values / (by + epsilon * sign(by))``, and zero where that is by zero."""
        if epsilon:
            result = torch.copysign(by.new_tensor(epsilon), by).add_(by)
            torch.div(values, result, out=result)
        else:
            zero = (by == 0).to(by.dtype)
            result = torch.div(values, by + zero).mul_(1 - zero)
        return result if factor == 1 else result.mul_(factor)

    def unless_zero(
        self,
        values: torch.Tensor,
        compute: Callable[[], Sequence[torch.Tensor]],
        like: Sequence[torch.Tensor],
    ) -> Sequence[torch.Tensor]:
        """Compute something, or give zeros like some tensors where all values are zero."""
        low, high = torch.aminmax(values)
        return [torch.zeros_like(x) for x in like] if low == 0 == high else compute()


FUNCTIONS: Final = _Functions()
"""Those of tensors, for `cnnviz_core.redistribution`."""


@dataclass
class Linear(ABC):
    """Any of the operations here.

    Attributes
    ----------
    inputs : sequence of Tensor
        What it took.
    """

    inputs: Sequence[torch.Tensor]

    @cached_property
    def nonnegative(self) -> bool:
        """Whether no input is negative."""
        return all(not x.numel() or x.min().item() >= 0 for x in self.inputs)

    def output(self) -> torch.Tensor:
        """Give what it makes of its inputs."""
        return self.forward([(self.inputs, AS_IS, AS_IS)])

    def bound(self, end: str) -> torch.Tensor:
        """There is none: only layers that read the network's input have bounds."""
        raise RuleError(
            "a rule asks for the least and the greatest value of what a sum or an average takes",
            "steps with bounds at convolutions and dense layers that read the network's input only",
            "give such a step as first= of the rule",
        )

    def forward(self, terms: Sequence[Applied[torch.Tensor]]) -> torch.Tensor:
        """Add up what it makes of other inputs, with modified weights and biases."""
        first, *others = (self._forward(*term) for term in terms)
        return sum(others, first)

    def backward(self, terms: Sequence[Returned[torch.Tensor]]) -> Sequence[torch.Tensor]:
        """Multiply values by its transposed modified weights and by other inputs, and add up."""
        parts = [
            [x * part for x, part in zip(inputs, self.transposed(values, weight), strict=True)]
            for inputs, values, weight in terms
        ]
        return [sum(others, first) for first, *others in zip(*parts, strict=True)]

    @abstractmethod
    def _forward(
        self, inputs: Sequence[torch.Tensor], weight: Part, bias: Part | None
    ) -> torch.Tensor:
        """Apply it to other inputs, with modified weights and a modified bias or none."""

    @abstractmethod
    def transposed(self, values: torch.Tensor, weight: Part) -> Sequence[torch.Tensor]:
        """Multiply by its transposed modified weights."""


@dataclass
class Affine:
    """Constants that scale and shift a result along its channels, ``scale * y + shift``.

    Attributes
    ----------
    scale, shift : Tensor (C,) or (), or None
        None for 1 and 0.
    """

    scale: torch.Tensor | None = None
    shift: torch.Tensor | None = None

    def then(self, scale: torch.Tensor | None, shift: torch.Tensor | None) -> Affine:
        """Scale and shift once more."""
        return Affine(
            self.scale if scale is None else scale if self.scale is None else self.scale * scale,
            _sum(_product(self.shift, scale), shift),
        )

    def of_bias(self, bias: torch.Tensor | None) -> torch.Tensor | None:
        """Give the bias that an operation with a bias, or none, has with the constants in it."""
        return _sum(_product(bias, self.scale), self.shift)


@dataclass
class _Weighted(Linear):
    """An operation with weights, in which the constants behind it are folded.

    Attributes
    ----------
    weight : Tensor
        As the operation took it.
    bias : Tensor, or None
        Likewise.
    result : Tensor, or None
        What it made, where that was kept.
    behind : Affine
        The constants.
    bounds : tuple, or None
        As of `cnnviz_core.rules.BackwardRule`.
    before : Rescaling, or None
        What the network does to its input before.
    """

    weight: torch.Tensor
    bias: torch.Tensor | None
    result: torch.Tensor | None
    behind: Affine
    bounds: Bounds
    before: Rescaling | None = field(default=None, init=False)
    _made: dict[Hashable, torch.Tensor] = field(default_factory=dict, init=False)
    _ups: dict[bool, torch.Tensor] = field(default_factory=dict, init=False)

    def output(self) -> torch.Tensor:
        """Give its result behind the constants."""
        return self._output

    @cached_property
    def _output(self) -> torch.Tensor:
        """Its result behind the constants."""
        if self.result is None:
            return self._applied(self.inputs[0], AS_IS, AS_IS)
        y, behind = self.result, self.behind
        if behind.scale is not None:
            y = y * self._along(behind.scale, y)
        if behind.shift is not None:
            shift = self._along(behind.shift, y)
            y = y + shift if y is self.result else y.add_(shift)
        return y.to(self.weight.dtype)

    def bound(self, end: str) -> torch.Tensor:
        """Fill a tensor of its input's shape with the least or greatest values."""
        low, high = (self._filled(values) for values in self.bounds or ((), ()))
        if self.before is not None:
            return self.before.of_bounds(low, high, end)
        return low if end == "low" else high

    def backward(self, terms: Sequence[Returned[torch.Tensor]]) -> Sequence[torch.Tensor]:
        """Multiply values by its transposed modified weights and by other inputs, and add up."""
        total, *others = self._parts(terms)
        for part in others:
            total += part
        return [total]

    def _parts(self, terms: Sequence[Returned[torch.Tensor]]) -> Iterator[torch.Tensor]:
        """Give new tensors, of which the sum is what its input gets."""
        for group in _grouped(terms, lambda term: term[0][0]):
            x = group[0][0][0]
            yield self._product([(values, weight) for _, values, weight in group]).mul_(x)

    def _product(self, pairs: Sequence[tuple[torch.Tensor, Part]]) -> torch.Tensor:
        """Add up what transposed modified weights make of values."""
        (total,), *others = (self.transposed(*pair) for pair in pairs)
        for (part,) in others:
            total += part
        return total

    def _filled(self, given: Sequence[float]) -> torch.Tensor:
        """Fill a tensor of its input's shape with one value for each channel."""
        x = self.inputs[0]
        values = x.new_tensor(given)
        channels = x.shape[self._axis(x)]
        if len(values) not in (1, channels):
            raise RuleError(
                f"the bounds are those of {len(values)} channels, and the first layer takes "
                f"{channels} values",
                "one bound for all, or a first layer that takes the input's channels as they are",
                "give one least and one greatest value: rule.bounded([low], [high])",
            )
        return self._along(values, x).expand_as(x)

    def _forward(
        self, inputs: Sequence[torch.Tensor], weight: Part, bias: Part | None
    ) -> torch.Tensor:
        """Apply it to other inputs, with modified weights and a modified bias or none."""
        (x,) = inputs
        own = x is self.inputs[0] and self.result is not None and bias in (None, weight)
        if own and isinstance(weight, Slopes) and self._fan_in() >= _MANY:
            return self._of_signs(weight, bias is not None)
        return self._applied(x, weight, bias)

    def _of_signs(self, weight: Slopes, with_bias: bool) -> torch.Tensor:
        """Apply it to its own inputs, with weights scaled by their sign.

        What positive and negative weights make is in sum its output, so that one is enough.  The
        other comes out as a difference, exact only as long as it is not much smaller.
        """
        more = weight.positive - weight.negative
        up = self._up(with_bias) if more else None
        if weight.negative == 0 and up is not None:
            return up if more == 1 else more * up
        bias = None if with_bias else self.modified_bias(AS_IS)
        both = self.output()
        both = both if bias is None else both - self._along(bias, both)
        both = both if weight.negative == 1 else weight.negative * both
        return both if up is None else torch.add(both, up, alpha=more)

    def _up(self, with_bias: bool) -> torch.Tensor:
        """Apply its positive weights to its own inputs."""
        if with_bias not in self._ups:
            bias = POSITIVE if with_bias else None
            self._ups[with_bias] = self._applied(self.inputs[0], POSITIVE, bias)
        return self._ups[with_bias]

    def modified(self, part: Part) -> torch.Tensor:
        """Give the weight as a part of a term makes it."""
        if part not in self._made:
            self._made[part] = self._modified(part)
        return self._made[part]

    def _modified(self, part: Part) -> torch.Tensor:
        """Make the weight as a part of a term makes it."""
        if part == AS_IS:
            return self.weight if self.behind.scale is None else self._scaled(self.behind.scale)
        weight = self.modified(AS_IS)
        if isinstance(part, Slopes) and part.positive and part.negative:
            leaky = F.leaky_relu(weight, part.negative / part.positive)  # a single pass
            return leaky if part.positive == 1 else leaky.mul_(part.positive)
        return modified(part, weight, FUNCTIONS)

    def modified_bias(self, part: Part | None) -> torch.Tensor | None:
        """Give the bias as a part of a term makes it."""
        bias = None if part is None else self.behind.of_bias(self.bias)
        if bias is None or part is None:
            return None
        return modified(part, bias.to(self.weight), FUNCTIONS)

    @abstractmethod
    def _applied(self, x: torch.Tensor, weight: Part, bias: Part | None) -> torch.Tensor:
        """Apply it to an input, with modified weights and a modified bias or none."""

    @abstractmethod
    def _fan_in(self) -> int:
        """Tell how many values each result is made of, at most."""

    @abstractmethod
    def _axis(self, values: torch.Tensor) -> int:
        """Tell on which axis the channels of an input or a result are."""

    @abstractmethod
    def _scaled(self, scale: torch.Tensor) -> torch.Tensor:
        """Give the weight scaled along the channels that it makes."""

    def _along(self, values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """Lay values along the channels."""
        behind = like.ndim - self._axis(like) - 1
        return values.reshape(-1, *(1,) * behind) if values.ndim else values


@dataclass
class Convolution(_Weighted):
    """A convolution or a transposed one, and the zeros that are padded before it.

    Attributes
    ----------
    options : sequence
        Stride, padding, dilation, whether it is transposed, output padding, and groups, as
        ``torch.convolution`` takes them.
    border : sequence of int
        How many zeros are padded before, as `torch.nn.functional.pad` takes it; the input is what
        they are padded to.
    """

    options: Sequence[Any]
    border: Sequence[int] = ()

    def forward(self, terms: Sequence[Applied[torch.Tensor]]) -> torch.Tensor:
        """Add up what it makes of other inputs, with modified weights and biases."""
        if len(terms) == 1 or not self._light:
            return super().forward(terms)
        inputs = [x for (x,), _, _ in terms]
        weights = self._side_by_side([weight for _, weight, _ in terms], self._taken)
        biases = [self.modified_bias(bias) for _, _, bias in terms]
        x = torch.cat(inputs, self._axis(inputs[0]))
        return self._convolved(x, weights, reduce(_sum, biases))

    def _parts(self, terms: Sequence[Returned[torch.Tensor]]) -> Iterator[torch.Tensor]:
        """Give new tensors, of which the sum is what its input gets."""
        others: list[Returned[torch.Tensor]] = []
        for group in _grouped(terms, lambda term: term[1]):
            if len(group) == 1 or not self._light:
                others += group
                continue
            weights = self._side_by_side([weight for _, _, weight in group], self._taken)
            made = self._back(group[0][1], weights, len(group))
            parts = made.chunk(len(group), self._axis(made))
            yield from (part.mul_(x) for ((x,), _, _), part in zip(group, parts, strict=True))
        yield from super()._parts(others)

    def _product(self, pairs: Sequence[tuple[torch.Tensor, Part]]) -> torch.Tensor:
        """Add up what transposed modified weights make of values."""
        values = [arriving for arriving, _ in pairs]
        if len(pairs) == 1 or not self._light or values[0].numel() >= self.inputs[0].numel():
            return super()._product(pairs)
        weights = self._side_by_side([weight for _, weight in pairs], 1 - self._taken)
        return self._back(torch.cat(values, self._axis(values[0])), weights)

    @property
    def _light(self) -> bool:
        """Whether copying weights, to do several products at once, is less work than it spares."""
        return self.options[5] == 1 and self.weight.numel() < self.inputs[0].numel()

    @property
    def _taken(self) -> int:
        """On which axis of the weight the channels are that it takes."""
        return 0 if self.options[3] else 1

    def _side_by_side(self, parts: Sequence[Part], axis: int) -> torch.Tensor:
        """Give modified weights one beside the other."""
        key = axis, *parts
        if key not in self._made:
            self._made[key] = torch.cat([self.modified(part) for part in parts], axis)
        return self._made[key]

    def _applied(self, x: torch.Tensor, weight: Part, bias: Part | None) -> torch.Tensor:
        """Convolve."""
        return self._convolved(x, self.modified(weight), self.modified_bias(bias))

    def _convolved(
        self, x: torch.Tensor, weights: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor:
        """Convolve with weights and a bias as they are."""
        bias = bias if bias is None else bias.expand(self._channels())
        padded = F.pad(x, list(self.border)) if self.border else x
        return torch.convolution(padded, weights, bias, *self.options)

    def transposed(self, values: torch.Tensor, weight: Part) -> Sequence[torch.Tensor]:
        """Convolve with the transposed weights."""
        return [self._back(values, self.modified(weight))]

    def _back(self, values: torch.Tensor, weights: torch.Tensor, inputs: int = 1) -> torch.Tensor:
        """Convolve with transposed weights, perhaps those of several inputs side by side."""
        x = self.inputs[0]  # of which the shape matters
        if self.border or inputs > 1:
            shape = padded_shape(x.shape, self.border)
            shape[self._axis(x)] *= inputs
            x = x.new_empty(shape)
        back, _, _ = torch.ops.aten.convolution_backward(
            values, x, weights, None, *self.options, (True, False, False)
        )
        return unpadded(back, self.border)

    def _axis(self, values: torch.Tensor) -> int:
        """Tell on which axis the channels are: before those of places."""
        return values.ndim - self.weight.ndim + 1

    def _fan_in(self) -> int:
        """Tell how many values each result is made of, at most."""
        return self.weight.numel() // self._channels()

    def _channels(self) -> int:
        """Tell how many channels it makes."""
        transposed, groups = self.options[3], self.options[5]
        return int(self.weight.shape[1] * groups if transposed else self.weight.shape[0])

    def _scaled(self, scale: torch.Tensor) -> torch.Tensor:
        """Give the weight scaled along the channels that it makes."""
        w, (_, _, _, transposed, _, groups) = self.weight, self.options
        if not scale.ndim:
            return w * scale
        if not transposed:
            return (w * scale.reshape(-1, *(1,) * (w.ndim - 1))).to(w.dtype)
        by_group = w.unflatten(0, (groups, -1))  # (groups, C_in / groups, C_out / groups, ...)
        scales = scale.reshape(groups, 1, -1, *(1,) * (w.ndim - 2))
        return (by_group * scales).flatten(0, 1).to(w.dtype)


@dataclass
class Dense(_Weighted):
    """A product with a constant matrix, ``x @ weight + bias``, or ``weight @ x + bias``.

    Attributes
    ----------
    left : bool
        Whether the weight is the first factor.
    """

    left: bool = False

    def _applied(self, x: torch.Tensor, weight: Part, bias: Part | None) -> torch.Tensor:
        """Multiply."""
        w, b = self.modified(weight), self.modified_bias(bias)
        y = w @ x if self.left else x @ w
        return y if b is None else y + b

    def transposed(self, values: torch.Tensor, weight: Part) -> Sequence[torch.Tensor]:
        """Multiply by the transposed matrix."""
        w = self.modified(weight).mT
        return [w @ values if self.left else values @ w]

    def _fan_in(self) -> int:
        """Tell how many values each result is made of."""
        return self.weight.shape[-1 if self.left else -2]

    def _axis(self, values: torch.Tensor) -> int:
        """Tell on which axis the channels are: the last."""
        return values.ndim - 1

    def _scaled(self, scale: torch.Tensor) -> torch.Tensor:
        """Give the weight scaled along the channels that it makes."""
        return (self.weight * scale).to(self.weight.dtype)


@dataclass
class Sum(Linear):
    """A sum of several values of one shape."""

    def _forward(
        self, inputs: Sequence[torch.Tensor], weight: Part, bias: Part | None
    ) -> torch.Tensor:
        """Add up."""
        total = sum(inputs[1:], inputs[0])
        return total if of_one(weight) == 1 else of_one(weight) * total

    def transposed(self, values: torch.Tensor, weight: Part) -> Sequence[torch.Tensor]:
        """Hand the same down to each."""
        given = values if of_one(weight) == 1 else of_one(weight) * values
        return [given] * len(self.inputs)


@dataclass
class Average(Linear):
    """A mean or a sum over places.

    Attributes
    ----------
    apply, spread : callable
        The operation, of its input; and its derivative, of what arrives.
    """

    apply: Callable[[torch.Tensor], torch.Tensor]
    spread: Callable[[torch.Tensor], torch.Tensor]

    def _forward(
        self, inputs: Sequence[torch.Tensor], weight: Part, bias: Part | None
    ) -> torch.Tensor:
        """Average."""
        averaged = self.apply(inputs[0])
        return averaged if of_one(weight) == 1 else of_one(weight) * averaged

    def transposed(self, values: torch.Tensor, weight: Part) -> Sequence[torch.Tensor]:
        """Spread out."""
        given = self.spread(values)
        return [given if of_one(weight) == 1 else of_one(weight) * given]


def _grouped(
    terms: Sequence[Returned[torch.Tensor]],
    chosen: Callable[[Returned[torch.Tensor]], torch.Tensor],
) -> Iterable[list[Returned[torch.Tensor]]]:
    """Put the terms together that have the same tensor."""
    groups: dict[int, list[Returned[torch.Tensor]]] = defaultdict(list)
    for term in terms:
        groups[id(chosen(term))].append(term)
    return groups.values()


def unpadded(values: torch.Tensor, border: Sequence[int]) -> torch.Tensor:
    """Cut a border off.

    Parameters
    ----------
    values : Tensor
        Any.
    border : sequence of int
        As `torch.nn.functional.pad` took it: from the last axis on, before and after.

    Returns
    -------
    Tensor
        A view.
    """
    for k in range(len(border) // 2):
        axis = values.ndim - 1 - k
        before, after = border[2 * k : 2 * k + 2]
        values = values.narrow(axis, before, values.shape[axis] - before - after)
    return values


def padded_shape(shape: Sequence[int], border: Sequence[int]) -> list[int]:
    """Give the shape that values have with a border.

    Parameters
    ----------
    shape : sequence of int
        The shape without.
    border : sequence of int
        As `torch.nn.functional.pad` takes it.

    Returns
    -------
    list of int
    """
    sizes = list(shape)
    for k, n in enumerate(border):
        sizes[-1 - k // 2] += n
    return sizes


def _product(a: torch.Tensor | None, b: torch.Tensor | None) -> torch.Tensor | None:
    """Multiply; None stands for nothing as the first and for 1 as the second factor."""
    return a if a is None or b is None else a * b


def _sum(a: torch.Tensor | None, b: torch.Tensor | None) -> torch.Tensor | None:
    """Add; None stands for nothing."""
    return b if a is None else a if b is None else a + b
