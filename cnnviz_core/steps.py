"""The steps that a backward rule takes at an operation, as data.

What travels downwards is a gradient under one rule, and relevance under another: a share of the
score, which an operation splits among its inputs.  A step says how.  It is made of numbers only, so
that every backend reads it alike; `cnnviz_core.redistribution` is how they read a `LinearStep`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeAlias

from cnnviz_core.errors import ParameterError

__all__ = [
    "AS_IS",
    "DERIVATIVE",
    "NEGATIVE",
    "ONES",
    "PASS",
    "POSITIVE",
    "SQUARES",
    "Bound",
    "DerivativeStep",
    "LinearStep",
    "Part",
    "PassStep",
    "Power",
    "ReluStep",
    "Share",
    "Slopes",
    "Step",
    "Term",
    "alpha_beta",
    "epsilon",
    "flat",
    "gamma",
    "reads_bounds",
    "w_square",
    "without_bias",
    "z_box",
    "z_plus",
]

STABILISER: Final = 1e-6
"""What keeps denominators away from zero, unless a step says otherwise."""


@dataclass(frozen=True)
class ReluStep:
    """The backward step of a gradient at a rectifier (ReLU, ReLU6, leaky ReLU).

    With ``g`` the gradient that arrives from above and ``d`` the rectifier's own derivative, the
    gradient handed down is ``gate(g)``, rectified where asked: ``gate(g) = d * g`` or ``g``.

    Attributes
    ----------
    gate : bool
        Multiply by the rectifier's own derivative (1 where it let the signal through).
    rectify : bool
        Keep only the positive part.
    """

    gate: bool
    rectify: bool


@dataclass(frozen=True)
class PassStep:
    """What arrives is handed down unchanged: the step of relevance where one value makes one other.

    So activations of any form, scalings and shifts by constants, and gates, where all of it goes to
    the signal and nothing to the gate (Arras et al., "Explaining and interpreting LSTMs", 2019,
    section 3).
    """


@dataclass(frozen=True)
class DerivativeStep:
    """What arrives is multiplied by the operation's own derivative, as a gradient is.

    That sends relevance back along the way of the values where an operation only picks or places
    them: to the winner of a max-pool, to the parts of a concatenation.
    """


PASS: Final = PassStep()
"""Hand down what arrives."""

DERIVATIVE: Final = DerivativeStep()
"""Multiply what arrives by the operation's own derivative."""


@dataclass(frozen=True)
class Slopes:
    """Values of which the positive and the negative ones are scaled differently.

    ``v`` becomes ``positive * max(v, 0) + negative * min(v, 0)``.

    Attributes
    ----------
    positive, negative : float
        The factors.
    """

    positive: float = 1.0
    negative: float = 1.0


@dataclass(frozen=True)
class Power:
    """The magnitude of values, raised to a power: ``v`` becomes ``abs(v) ** exponent``.

    Attributes
    ----------
    exponent : float
        0 makes ones of everything.
    """

    exponent: float


@dataclass(frozen=True)
class Bound:
    """The least or the greatest value that the network's input can have.

    Attributes
    ----------
    end : {"low", "high"}
        Which; `cnnviz_core.rules.BackwardRule.bounds` holds the values.
    """

    end: Literal["low", "high"]


Part: TypeAlias = Slopes | Power
"""What is made of values before a term is computed with them."""

AS_IS: Final = Slopes()
"""The values themselves."""

POSITIVE: Final = Slopes(1.0, 0.0)
"""Their positive part, ``max(v, 0)``."""

NEGATIVE: Final = Slopes(0.0, 1.0)
"""Their negative part, ``min(v, 0)``."""

SQUARES: Final = Power(2.0)
"""Their squares."""

ONES: Final = Power(0.0)
"""Ones in their place."""


@dataclass(frozen=True)
class Term:
    """Contributions of inputs to results: ``c_ij = sign * part(x_i) * part(w_ij)``.

    Attributes
    ----------
    input : Slopes, Power or Bound
        What is made of the inputs ``x``.
    weight : Slopes or Power
        What is made of the weights ``w``.
    bias : Slopes, Power or None
        What is made of the bias, which takes a part of the relevance that no input gets; None
        leaves it out.
    sign : float
        1 or -1.
    """

    input: Part | Bound = AS_IS
    weight: Part = AS_IS
    bias: Part | None = AS_IS
    sign: float = 1.0


@dataclass(frozen=True)
class Share:
    """A share of the relevance, split in proportion to the sum of some contributions.

    With ``z_j = sum_i c_ij + b_j`` over all its terms, input ``i`` gets
    ``factor * sum_j c_ij R_j / (z_j + epsilon * sign(z_j))`` of the relevance ``R``.

    Attributes
    ----------
    terms : tuple of Term
        Whose contributions count.
    factor : float
        How much of the relevance is split: 1 is all of it.
    where : {"everywhere", "positive", "negative"}
        At which results of the operation: all, those above zero, or those below.
    """

    terms: tuple[Term, ...]
    factor: float = 1.0
    where: Literal["everywhere", "positive", "negative"] = "everywhere"

    def __post_init__(self) -> None:
        object.__setattr__(self, "terms", tuple(self.terms))


@dataclass(frozen=True)
class LinearStep:
    """How an operation that is linear in its inputs splits relevance among them.

    That is a convolution or a dense layer, with the batch normalisation behind it folded in; a sum,
    whose weights are 1; and an average, whose weights are all alike.

    Attributes
    ----------
    shares : tuple of Share
        What the inputs get is their sum.
    epsilon : float
        Added to every denominator with its sign (that of zero is +).  0 is allowed: where the
        denominator vanishes, nothing is handed down.

    Examples
    --------
    Relevance in proportion to the magnitude of contributions, whatever their sign:

    >>> either = Term(Power(1.0), Power(1.0), bias=None)
    >>> LinearStep((Share((either,)),)).epsilon
    1e-06
    """

    shares: tuple[Share, ...]
    epsilon: float = STABILISER

    def __post_init__(self) -> None:
        object.__setattr__(self, "shares", tuple(self.shares))
        if not self.shares or not math.isfinite(self.epsilon) or self.epsilon < 0:
            raise ParameterError(
                f"a step of {len(self.shares)} shares with an epsilon of {self.epsilon}",
                "one share at least, and an epsilon of zero or more",
                "describe what the inputs get",
            )


Step: TypeAlias = ReluStep | PassStep | DerivativeStep | LinearStep
"""What a rule may do at an operation."""


def epsilon(epsilon: float = STABILISER) -> LinearStep:
    """Split relevance in proportion to the contributions ``x_i w_ij``.

    Parameters
    ----------
    epsilon : float
        Takes relevance away where contributions cancel out; 0 is LRP-0.

    Returns
    -------
    LinearStep

    References
    ----------
    Bach et al., "On pixel-wise explanations for non-linear classifier decisions by layer-wise
    relevance propagation", PLOS ONE 2015, equations 56 and 58.
    """
    return LinearStep((Share((Term(),)),), epsilon)


def gamma(gamma: float = 0.25, epsilon: float = STABILISER) -> LinearStep:
    """Split relevance by contributions of which those of the result's own sign are enlarged.

    Parameters
    ----------
    gamma : float
        At a positive result, positive contributions count ``1 + gamma`` fold; at a negative one,
        negative ones do.
    epsilon : float
        Stabilises the denominators.

    Returns
    -------
    LinearStep

    References
    ----------
    Montavon et al., "Layer-wise relevance propagation: an overview", 2019, section 10.2.1; for
    inputs and results of either sign, Andeol et al., "Learning domain invariant representations by
    joint Wasserstein distance minimization", 2021.
    """
    up, down = Slopes(1 + gamma, 1.0), Slopes(1.0, 1 + gamma)
    return LinearStep(
        (
            Share((Term(POSITIVE, up, up), Term(NEGATIVE, down, None)), where="positive"),
            Share((Term(POSITIVE, down, down), Term(NEGATIVE, up, None)), where="negative"),
        ),
        epsilon,
    )


def alpha_beta(alpha: float = 2.0, beta: float = 1.0, epsilon: float = STABILISER) -> LinearStep:
    """Split relevance by the positive contributions and by the negative ones, each for itself.

    Parameters
    ----------
    alpha : float
        How much goes to the positive ones, 1 or more.
    beta : float
        How much the negative ones take: ``alpha - 1``.
    epsilon : float
        Stabilises the denominators.

    Returns
    -------
    LinearStep

    Raises
    ------
    ParameterError
        If `beta` is negative, or `alpha` is not 1 more: relevance would not be conserved.

    References
    ----------
    Bach et al., PLOS ONE 2015, equation 60.
    """
    if beta < 0 or not math.isclose(alpha - beta, 1):
        raise ParameterError(
            f"alpha is {alpha} and beta {beta}",
            "a beta of zero or more, and an alpha of 1 more than that",
            "use alpha=2, beta=1, or alpha=1, beta=0",
        )
    positive = (Term(POSITIVE, POSITIVE, POSITIVE), Term(NEGATIVE, NEGATIVE, None))
    negative = (Term(POSITIVE, NEGATIVE, NEGATIVE), Term(NEGATIVE, POSITIVE, None))
    shares = (Share(positive, alpha), *([Share(negative, -beta)] if beta else []))
    return LinearStep(shares, epsilon)


def z_plus(epsilon: float = STABILISER) -> LinearStep:
    """Split relevance in proportion to the positive contributions: `alpha_beta` with 1 and 0.

    Parameters
    ----------
    epsilon : float
        Stabilises the denominators.

    Returns
    -------
    LinearStep

    References
    ----------
    Montavon et al., "Explaining nonlinear classification decisions with deep Taylor decomposition",
    Pattern Recognition 2017, section 4.2; for inputs of either sign as in Bach et al. 2015.
    """
    return alpha_beta(1.0, 0.0, epsilon)


def z_box(epsilon: float = STABILISER) -> LinearStep:
    """Split relevance among values that lie between a least and a greatest one, such as pixels.

    Parameters
    ----------
    epsilon : float
        Stabilises the denominators.

    Returns
    -------
    LinearStep
        For the `first` steps of a rule with `cnnviz_core.rules.BackwardRule.bounds`.

    References
    ----------
    Montavon et al., Pattern Recognition 2017, section 4.2: contributions are
    ``x_i w_ij - l_i max(w_ij, 0) - h_i min(w_ij, 0)``.
    """
    low = Term(Bound("low"), POSITIVE, POSITIVE, sign=-1.0)
    high = Term(Bound("high"), NEGATIVE, NEGATIVE, sign=-1.0)
    return LinearStep((Share((Term(), low, high)),), epsilon)


def w_square(epsilon: float = STABILISER) -> LinearStep:
    """Split relevance in proportion to the squared weights, whatever the inputs.

    Parameters
    ----------
    epsilon : float
        Stabilises the denominators.

    Returns
    -------
    LinearStep

    References
    ----------
    Montavon et al., Pattern Recognition 2017, section 4.1.
    """
    return LinearStep((Share((Term(ONES, SQUARES, SQUARES),)),), epsilon)


def flat(epsilon: float = STABILISER) -> LinearStep:
    """Split relevance evenly among the inputs.

    Parameters
    ----------
    epsilon : float
        Stabilises the denominators.

    Returns
    -------
    LinearStep

    References
    ----------
    Lapuschkin et al., "Unmasking Clever Hans predictors and assessing what machines really learn",
    Nature Communications 2019.
    """
    return LinearStep((Share((Term(ONES, ONES, None),)),), epsilon)


def reads_bounds(step: Step) -> bool:
    """Tell whether a step reads the bounds of the network's input.

    Parameters
    ----------
    step : step
        Any.

    Returns
    -------
    bool
    """
    return isinstance(step, LinearStep) and any(
        isinstance(term.input, Bound) for share in step.shares for term in share.terms
    )


def without_bias(step: LinearStep) -> LinearStep:
    """Leave the bias out of a step, so that no relevance is lost to it.

    Parameters
    ----------
    step : LinearStep
        Any.

    Returns
    -------
    LinearStep
    """
    shares = (
        replace(share, terms=tuple(replace(term, bias=None) for term in share.terms))
        for share in step.shares
    )
    return replace(step, shares=tuple(shares))
