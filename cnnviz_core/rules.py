"""Backward rules as data: how a gradient, or relevance, passes each kind of operation.

A rule maps a kind of operation to the step taken there; where it names no step, the operation's own
derivative is taken, or the rule refuses.  A backend interprets the steps with the means of its
framework.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final, Literal, TypeAlias, get_args

from cnnviz_core.errors import RuleError
from cnnviz_core.steps import (
    DERIVATIVE,
    PASS,
    DerivativeStep,
    LinearStep,
    PassStep,
    ReluStep,
    Step,
    epsilon,
    reads_bounds,
    without_bias,
)

__all__ = [
    "DECONVNET",
    "GUIDED",
    "RULE_KINDS",
    "STANDARD",
    "BackwardRule",
    "check_steps",
    "relevance_rule",
    "without_effect",
    "without_step",
]

Unknown: TypeAlias = Literal["differentiate", "refuse", "mark"]
"""What a rule does at an operation for which it has no step."""

RULE_KINDS: Final[Mapping[str, tuple[type, ...]]] = MappingProxyType(
    {
        "conv": (LinearStep, DerivativeStep),
        "linear": (LinearStep, DerivativeStep),
        "add": (LinearStep, DerivativeStep),
        "avgpool": (LinearStep, DerivativeStep),
        "relu": (ReluStep, PassStep, DerivativeStep),
        "activation": (PassStep, DerivativeStep),
        "batchnorm": (PassStep, DerivativeStep),
        "gate": (PassStep, DerivativeStep),
        "maxpool": (DerivativeStep,),
        "concat": (DerivativeStep,),
    }
)
"""The kinds of operation that a rule may name, each with the steps that it can take there.

``conv``
    Convolutions of any sort, with the constants that scale and shift their result (bias, batch
    normalisation) folded in where nothing else reads the values between, and with the zeros that
    are padded before them.
``linear``
    Dense layers, likewise.
``add``
    Sums of values that depend on the network's input.
``avgpool``
    Averages and sums over places, local and global.
``relu``
    Rectifiers: ReLU, ReLU6, leaky ReLU.
``activation``
    Every other function of single values: sigmoid, SiLU, GELU, tanh, hard swish.
``batchnorm``
    Scaling and shifting by constants that could not be folded into a convolution or dense layer.
``gate``
    Products of a signal and a gate, which is what a bounded activation (sigmoid, hard sigmoid)
    gives.
``maxpool``
    Local maxima.
``concat``
    Concatenations.

Operations that only place values anew (reshaping, transposing, slicing, padding) have no kind; what
arrives follows the values.
"""


@dataclass(frozen=True)
class BackwardRule:
    """How a gradient, or relevance, passes certain kinds of operation.

    Attributes
    ----------
    name : str
        For messages and provenance.
    steps : mapping of str to step
        From the kind of operation, one of `RULE_KINDS`, to the step taken there.
    first : mapping of str to step
        Instead of `steps` at convolutions and dense layers before which there is no other one: they
        read the network's input.
    last : mapping of str to step
        Instead of `steps` at convolutions and dense layers behind which there is no other one on
        the way from what is explained.  A layer that is both takes its step from here.
    unknown : {"differentiate", "refuse", "mark"}
        What to do at an operation without a step: take its own derivative; refuse, as relevance
        has no meaning behind it; or take the derivative and say so in `Pullback.unruled`.
    bounds : tuple of (tuple of float), or None
        The least and the greatest values of the network's input, one for each channel or one for
        all, for those among the `first` steps that need them.

    Examples
    --------
    >>> BackwardRule("rectified", {"relu": ReluStep(gate=True, rectify=True)}) == GUIDED
    False
    >>> GUIDED.needs
    frozenset({'rule:relu'})
    """

    name: str
    steps: Mapping[str, Step] = field(default_factory=dict)
    first: Mapping[str, Step] = field(default_factory=dict)
    last: Mapping[str, Step] = field(default_factory=dict)
    unknown: Unknown = "differentiate"
    bounds: tuple[tuple[float, ...], tuple[float, ...]] | None = None

    def __post_init__(self) -> None:
        for place in ("steps", "first", "last"):
            object.__setattr__(self, place, MappingProxyType(dict(getattr(self, place))))

    def __hash__(self) -> int:
        steps = (frozenset(steps.items()) for steps in (self.steps, self.first, self.last))
        return hash((self.name, *steps, self.unknown, self.bounds))

    def __reduce__(self) -> tuple[type[BackwardRule], tuple[object, ...]]:
        # A mapping proxy cannot be pickled.
        steps = (dict(steps) for steps in (self.steps, self.first, self.last))
        return BackwardRule, (self.name, *steps, self.unknown, self.bounds)

    @property
    def needs(self) -> frozenset[str]:
        """The capabilities that a model must have for this rule."""
        return frozenset(f"rule:{kind}" for kind in (*self.steps, *self.first, *self.last))

    @property
    def conserves(self) -> bool:
        """Whether it is about relevance: some step splits what arrives among an operation's inputs.

        Then a backend needs the values that each operation took.
        """
        return any(isinstance(step, LinearStep) for step in self._all())

    @property
    def needs_bounds(self) -> bool:
        """Whether a step needs `bounds`."""
        return any(map(reads_bounds, self._all()))

    def step(self, kind: str | None, *, first: bool = False, last: bool = False) -> Step | None:
        """Give the step to take at an operation.

        Parameters
        ----------
        kind : str or None
            Its kind; None where it is of none that a rule may name.
        first, last : bool
            Whether it is a convolution or dense layer before which, or behind which, there is no
            other one.

        Returns
        -------
        step or None
            None where the rule has none.
        """
        if kind is None:
            return None
        if last and kind in self.last:
            return self.last[kind]
        if first and kind in self.first:
            return self.first[kind]
        return self.steps.get(kind)

    def bounded(self, low: Sequence[float], high: Sequence[float]) -> BackwardRule:
        """Give the same rule for inputs between bounds.

        Parameters
        ----------
        low, high : sequence of float
            The least and the greatest values, one for each channel of the input or one for all, in
            the network's own value range.

        Returns
        -------
        BackwardRule
        """
        return replace(self, bounds=(tuple(map(float, low)), tuple(map(float, high))))

    def without_bias(self) -> BackwardRule:
        """Give the same rule with the bias left out of every step.

        Returns
        -------
        BackwardRule
        """

        def bare(steps: Mapping[str, Step]) -> dict[str, Step]:
            return {
                kind: without_bias(step) if isinstance(step, LinearStep) else step
                for kind, step in steps.items()
            }

        return replace(self, steps=bare(self.steps), first=bare(self.first), last=bare(self.last))

    def _all(self) -> Iterable[Step]:
        """Give every step."""
        return (*self.steps.values(), *self.first.values(), *self.last.values())


def relevance_rule(
    name: str,
    conv: LinearStep,
    linear: LinearStep | None = None,
    *,
    first: LinearStep | None = None,
    last: LinearStep | None = None,
    shared: LinearStep | None = None,
    unknown: Literal["refuse", "mark"] = "refuse",
) -> BackwardRule:
    """Make a rule of relevance of the steps at convolutions and dense layers.

    Everywhere else it does what is usual: sums and averages split relevance in proportion to what
    they add up, activations and normalisations hand it down unchanged, and at a max-pool it goes to
    the winner.

    Parameters
    ----------
    name : str
        For messages and provenance.
    conv : LinearStep
        At convolutions.
    linear : LinearStep, optional
        At dense layers; as at convolutions if left out.
    first : LinearStep, optional
        At those that read the network's input, instead.
    last : LinearStep, optional
        At those nearest to what is explained, instead.
    shared : LinearStep, optional
        At sums and averages, if not in proportion to their signed inputs.
    unknown : {"refuse", "mark"}
        As of `BackwardRule`.

    Returns
    -------
    BackwardRule

    Examples
    --------
    >>> from cnnviz_core.steps import z_plus
    >>> relevance_rule("z-plus", z_plus()).conserves
    True
    """

    def weighted(step: LinearStep | None) -> dict[str, Step]:
        return {} if step is None else {"conv": step, "linear": step}

    shared = shared or epsilon()
    return BackwardRule(
        name,
        {
            "conv": conv,
            "linear": linear or conv,
            "add": shared,
            "avgpool": shared,
            **dict.fromkeys(("relu", "activation", "batchnorm", "gate"), PASS),
            **dict.fromkeys(("maxpool", "concat"), DERIVATIVE),
        },
        first=weighted(first),
        last=weighted(last),
        unknown=unknown,
    )


def check_steps(rule: BackwardRule) -> None:
    """Check that every step of a rule is one that can be taken where it is named.

    Parameters
    ----------
    rule : BackwardRule
        The rule.

    Raises
    ------
    RuleError
        If a kind is unknown, a step does not fit its kind or its place, `unknown` is misspelt, or
        bounds are missing.
    """
    for place, steps in (("steps", rule.steps), ("first", rule.first), ("last", rule.last)):
        kinds = list(RULE_KINDS) if place == "steps" else ["conv", "linear"]
        for kind, step in steps.items():
            if kind not in kinds:
                raise RuleError(
                    f"the rule {rule.name!r} has a step for {kind!r} among its {place}",
                    f"steps for {', '.join(map(repr, kinds))}",
                    "name one of these kinds of operation",
                )
            if not isinstance(step, RULE_KINDS[kind]):
                raise RuleError(
                    f"the rule {rule.name!r} has the step {step!r} for {kind!r}",
                    f"a {' or '.join(cls.__name__ for cls in RULE_KINDS[kind])} there",
                    "see cnnviz_core.steps for what each of them does",
                )
            if place != "first" and reads_bounds(step):
                raise RuleError(
                    f"the rule {rule.name!r} has a step among its {place} that reads the bounds of "
                    "the network's input",
                    "such a step at the layers that read the input",
                    f"name it among the first: first={{{kind!r}: ...}}",
                )
    if rule.unknown not in get_args(Unknown):
        raise RuleError(
            f"the rule {rule.name!r} has unknown={rule.unknown!r}",
            f"one of {', '.join(map(repr, get_args(Unknown)))}",
            "say what to do at an operation without a step",
        )
    if rule.needs_bounds and rule.bounds is None:
        raise RuleError(
            f"the rule {rule.name!r} needs the least and the greatest value of the input",
            "a rule with bounds",
            "give them by rule.bounded(low, high), one value for each channel",
        )


def without_effect(rule: BackwardRule, between: str) -> RuleError:
    """Say that a rule would change nothing.

    Parameters
    ----------
    rule : BackwardRule
        The rule.
    between : str
        What lies between what: "between 'logits' and 'input'".

    Returns
    -------
    RuleError
    """
    kinds = " or ".join(dict.fromkeys((*rule.steps, *rule.first, *rule.last)))
    return RuleError(
        f"the rule {rule.name!r} would change nothing: there is no {kinds} {between}",
        f"a network with {kinds} on the way",
        "use the plain gradient (saliency), or a node before such a layer",
    )


def without_step(rule: BackwardRule, operations: Sequence[str], between: str) -> RuleError:
    """Say that a rule meets operations for which it has no step.

    Parameters
    ----------
    rule : BackwardRule
        The rule.
    operations : sequence of str
        What they are, by the names of the framework.
    between : str
        What they lie between: "between 'logits' and 'input'".

    Returns
    -------
    RuleError
    """
    named = list(dict.fromkeys(operations))
    more = f" and {len(named) - 3} more" if len(named) > 3 else ""
    return RuleError(
        f"the rule {rule.name!r} has no step for {', '.join(named[:3])}{more} {between}",
        f"operations of the kinds {', '.join(rule.steps)}",
        "choose a layer behind them, explain the score before the softmax, or have the gradient "
        "pass there, which the result then says: unknown='gradient' of a method, 'mark' of a rule",
    )


STANDARD: Final = BackwardRule("standard")
"""The plain gradient."""

GUIDED: Final = BackwardRule("guided", {"relu": ReluStep(gate=True, rectify=True)})
"""Guided backpropagation: Springenberg et al., "Striving for simplicity", 2015, figure 1."""

DECONVNET: Final = BackwardRule("deconvnet", {"relu": ReluStep(gate=False, rectify=True)})
"""Deconvnet: Zeiler & Fergus, "Visualizing and understanding convolutional networks", 2014."""
