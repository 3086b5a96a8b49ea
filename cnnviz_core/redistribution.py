"""How a `LinearStep` splits relevance: the one interpretation, which all backends share.

A backend offers an operation with constant weights as a `LinearOperation`, and a few functions of
its arrays as `ArrayFunctions`; everything else about a rule of relevance is here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias, TypeVar

from cnnviz_core.steps import Bound, LinearStep, Part, Power, Share, Slopes, Term

__all__ = [
    "Applied",
    "ArrayFunctions",
    "LinearOperation",
    "Returned",
    "modified",
    "of_one",
    "redistribute",
]

T = TypeVar("T")

Applied: TypeAlias = tuple[Sequence[T], Part, Part | None]
"""Inputs, and what is made of the weights and of the bias; None leaves the bias out."""

Returned: TypeAlias = tuple[Sequence[T], T, Part]
"""Inputs, values in the place of its results, and what is made of the weights."""


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

    def of_sign(self, values: T, others: T, positive: bool) -> T:
        """Give values where others are above zero, or else below, and zeros elsewhere."""
        ...

    def divided(self, values: T, by: T, epsilon: float, factor: float) -> T:
        """Give ``factor * values / (by + epsilon * sign(by))``; the sign of zero is +.

        Where the denominator vanishes, which takes an `epsilon` of zero, it gives zero.
        """
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

    def forward(self, terms: Sequence[Applied[T]]) -> T:
        """Add up what it makes of other inputs, with modified weights and biases."""
        ...

    def backward(self, terms: Sequence[Returned[T]]) -> Sequence[T]:
        """Multiply values by its transposed modified weights and by other inputs, and add up.

        That is one array for each of its inputs.
        """
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
    everywhere = [share for share in step.shares if share.where == "everywhere"]
    given: list[Sequence[T]] = []
    if everywhere:
        given.append(_split(everywhere, step.epsilon, operation, relevance, functions))
    for share in step.shares:
        if share.where != "everywhere":
            given.append(_split_at_some(share, step.epsilon, operation, relevance, functions))
    return _added(given)


def _split_at_some(
    share: Share,
    epsilon: float,
    operation: LinearOperation[T],
    relevance: T,
    functions: ArrayFunctions[T],
) -> Sequence[T]:
    """Split the share of the results of one sign."""
    kept = functions.of_sign(relevance, operation.output(), share.where == "positive")
    # Below a rectifier there is nothing at negative results, and half of the work with it.
    return functions.unless_zero(
        kept, lambda: _split([share], epsilon, operation, kept, functions), operation.inputs
    )


def _split(
    shares: Sequence[Share],
    epsilon: float,
    operation: LinearOperation[T],
    relevance: T,
    functions: ArrayFunctions[T],
) -> list[T]:
    """Split relevance in proportion to contributions."""
    inputs: dict[Part | Bound, Sequence[T]] = {}
    returned: dict[float, list[Returned[T]]] = {}
    for share in shares:
        terms = _terms_of(share, operation)
        if not terms:
            continue
        for term in terms:
            if term.input not in inputs:
                inputs[term.input] = _inputs_of(term.input, operation, functions)
        scaled = functions.divided(
            relevance, _denominator(terms, inputs, operation), epsilon, share.factor
        )
        for t in terms:
            returned.setdefault(t.sign, []).append((inputs[t.input], scaled, t.weight))
    given = [
        [_times(sign, part) for part in operation.backward(several)]
        for sign, several in returned.items()
    ]
    nothing: Sequence[Any] = operation.inputs
    return _added(given or [[0.0 * values for values in nothing]])


def _terms_of(share: Share, operation: LinearOperation[T]) -> list[Term]:
    """Give the terms of a share that an operation has, as it has them."""
    if not operation.nonnegative:
        return list(share.terms)
    found = []
    for term in share.terms:
        part = term.input
        if not isinstance(part, Slopes):
            found.append(term)
        elif part.positive or term.bias is not None:
            alike = Slopes(part.positive, part.positive)
            found.append(Term(alike, term.weight, term.bias, term.sign))
    return found


def _inputs_of(
    part: Part | Bound, operation: LinearOperation[T], functions: ArrayFunctions[T]
) -> Sequence[T]:
    """Give what a term makes of an operation's inputs."""
    if isinstance(part, Bound):
        return [operation.bound(part.end)]
    return [modified(part, values, functions) for values in operation.inputs]


def _denominator(
    terms: Sequence[Term],
    inputs: Mapping[Part | Bound, Sequence[T]],
    operation: LinearOperation[T],
) -> T:
    """Add up the contributions of all terms to each result."""
    made: list[Sequence[Any]] = []
    for sign in dict.fromkeys(term.sign for term in terms):
        alike = [term for term in terms if term.sign == sign]
        if alike == [Term(sign=sign)]:
            z = operation.output()
        else:
            z = operation.forward([(inputs[t.input], t.weight, t.bias) for t in alike])
        made.append([_times(sign, z)])
    (total,) = _added(made)
    return total


def _added(lists: Sequence[Sequence[Any]]) -> list[Any]:
    """Add up arrays that stand at the same place of several lists."""
    first, *others = lists
    total = list(first)
    for arrays in others:
        total = [a + b for a, b in zip(total, arrays, strict=True)]
    return total


def _times(factor: float, values: Any) -> Any:
    """Multiply by a number, which mostly is 1."""
    return values if factor == 1 else factor * values


def _scaled(factor: float, function: Callable[[Any], Any], values: Any) -> Any:
    """Scale what a function makes of values; None where nothing would be left."""
    if factor == 0:
        return None
    return _times(factor, function(values))
