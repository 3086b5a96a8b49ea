"""How a `LinearStep` splits relevance: the one interpretation, which all backends share.

A backend offers an operation with constant weights as a `LinearOperation`, and a few functions of
its arrays as `ArrayFunctions`; everything else about a rule of relevance is here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from cnnviz_core.steps import AS_IS, Bound, LinearStep, Part, Power, Share, Slopes, Term

__all__ = ["ArrayFunctions", "LinearOperation", "modified", "of_one", "redistribute"]

T = TypeVar("T")


class ArrayFunctions(Protocol[T]):
    """What must be known of a framework's arrays beside their operators."""

    def positive(self, values: T) -> T:
        """Give ``max(values, 0)``."""
        ...

    def negative(self, values: T) -> T:
        """Give ``min(values, 0)``."""
        ...

    def power(self, values: T, exponent: float) -> T:
        """Give ``abs(values) ** exponent``."""
        ...

    def ones(self, values: T) -> T:
        """Give ones of the shape and type of values."""
        ...

    def where(self, condition: T, one: T | float, other: T | float) -> T:
        """Choose one where a condition holds, and another elsewhere."""
        ...

    def stabilised(self, values: T, epsilon: float) -> T:
        """Add a number to values with their sign; that of zero is +."""
        ...

    def unless_zero(
        self, values: T, compute: Callable[[], Sequence[T]], like: Sequence[T]
    ) -> Sequence[T]:
        """Compute something, or give zeros like some arrays where all values are zero.

        A backend that cannot tell before it computes may compute it always.
        """
        ...


class LinearOperation(Protocol[T]):
    """An operation that is linear in its inputs, with constant weights, and perhaps a bias.

    Attributes
    ----------
    inputs : sequence of array
        What it took; several of a sum, one of any other.
    nonnegative : bool
        Whether no input is known to be negative, so that half of the work can be left out.
    """

    inputs: Sequence[T]
    nonnegative: bool

    def output(self) -> T:
        """Give what it made of its inputs, weights and bias as they are."""
        ...

    def bound(self, end: str) -> T:
        """Give an array of its input's shape that holds the least or greatest value possible."""
        ...

    def forward(self, inputs: Sequence[T], weight: Part, bias: Part | None) -> T:
        """Apply it to other inputs, with modified weights and a modified bias or none."""
        ...

    def backward(self, values: T, weight: Part) -> Sequence[T]:
        """Multiply by its transposed modified weights: one array for each input."""
        ...


def modified(part: Part, values: T, functions: ArrayFunctions[T]) -> T:
    """Make of values what a part of a term says.

    Parameters
    ----------
    part : Slopes or Power
        What.
    values : array
        Of any framework.
    functions : ArrayFunctions
        Those of the framework.

    Returns
    -------
    array
        Of the same shape.
    """
    v: Any = values
    if isinstance(part, Power):
        return functions.ones(v) if part.exponent == 0 else functions.power(v, part.exponent)
    if part.positive == part.negative:
        return v if part.positive == 1 else part.positive * v
    up = _scaled(part.positive, functions.positive, v)
    down = _scaled(part.negative, functions.negative, v)
    return down if up is None else up if down is None else up + down


def of_one(part: Part) -> float:
    """Give what a part makes of the number 1, the weight of sums and averages.

    Parameters
    ----------
    part : Slopes or Power
        What.

    Returns
    -------
    float
    """
    return 1.0 if isinstance(part, Power) else part.positive


def redistribute(
    step: LinearStep, operation: LinearOperation[T], relevance: T, functions: ArrayFunctions[T]
) -> list[T]:
    """Split the relevance of an operation's results among its inputs.

    Parameters
    ----------
    step : LinearStep
        How.
    operation : LinearOperation
        The operation.
    relevance : array
        Of the shape of the operation's result.
    functions : ArrayFunctions
        Those of the framework.

    Returns
    -------
    list of array
        The relevance of each input, of its shape.
    """
    total: list[Any] = []
    for share in step.shares:
        parts = _share_of(share, step.epsilon, operation, relevance, functions)
        total = [a + b for a, b in zip(total, parts, strict=True)] if total else list(parts)
    return total


def _share_of(
    share: Share,
    epsilon: float,
    operation: LinearOperation[T],
    relevance: T,
    functions: ArrayFunctions[T],
) -> Sequence[T]:
    """Split one share."""
    if share.where == "everywhere":
        return _split(share, epsilon, operation, relevance, functions)
    output: Any = operation.output()
    chosen = output > 0 if share.where == "positive" else output < 0
    kept = functions.where(chosen, relevance, 0.0)
    # Below a rectifier there is nothing at negative results, and half of the work with it.
    return functions.unless_zero(
        kept, lambda: _split(share, epsilon, operation, kept, functions), operation.inputs
    )


def _split(
    share: Share,
    epsilon: float,
    operation: LinearOperation[T],
    relevance: T,
    functions: ArrayFunctions[T],
) -> list[T]:
    """Split relevance in proportion to contributions."""
    terms = [term for term in share.terms if not _vanishes(term, operation)]
    inputs: list[Sequence[Any]] = [_inputs_of(term, operation, functions) for term in terms]
    denominator: Any = None
    for term, values in zip(terms, inputs, strict=True):
        plain = term.input == term.weight == term.bias == AS_IS
        z: Any = operation.output() if plain else operation.forward(values, term.weight, term.bias)
        z = z if term.sign == 1 else term.sign * z
        denominator = z if denominator is None else denominator + z
    parts: list[Any] = []
    scaled = _divided(relevance, denominator, epsilon, functions) if terms else relevance
    for term, values in zip(terms, inputs, strict=True):
        factor = term.sign * share.factor
        back: Sequence[Any] = operation.backward(scaled, term.weight)
        given = [
            v * g if factor == 1 else factor * (v * g) for v, g in zip(values, back, strict=True)
        ]
        parts = [a + b for a, b in zip(parts, given, strict=True)] if parts else given
    nothing: Sequence[Any] = operation.inputs
    return parts or [0.0 * values for values in nothing]


def _vanishes(term: Term, operation: LinearOperation[T]) -> bool:
    """Tell whether a term has no contributions, and none of a bias either."""
    negative_only = isinstance(term.input, Slopes) and term.input.positive == 0
    return operation.nonnegative and negative_only and term.bias is None


def _inputs_of(
    term: Term, operation: LinearOperation[T], functions: ArrayFunctions[T]
) -> Sequence[T]:
    """Give what a term makes of an operation's inputs."""
    part = term.input
    if isinstance(part, Bound):
        return [operation.bound(part.end)]
    if isinstance(part, Slopes) and operation.nonnegative:
        part = Slopes(part.positive, part.positive)
    return [modified(part, values, functions) for values in operation.inputs]


def _divided(relevance: Any, z: Any, epsilon: float, functions: ArrayFunctions[Any]) -> Any:
    """Divide relevance by a denominator that is kept away from zero."""
    if epsilon:
        return relevance / functions.stabilised(z, epsilon)
    some = z != 0
    return functions.where(some, relevance / functions.where(some, z, 1.0), 0.0)


def _scaled(factor: float, function: Callable[[Any], Any], values: Any) -> Any:
    """Scale what a function makes of values; None where nothing would be left."""
    if factor == 0:
        return None
    return function(values) if factor == 1 else factor * function(values)
