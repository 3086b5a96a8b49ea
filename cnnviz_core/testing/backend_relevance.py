"""The part of the conformance kit for backends that is about rules of relevance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Final

import numpy as np
import pytest

from cnnviz_core.errors import RuleError
from cnnviz_core.model import INPUT, LOGITS, OUTPUT, Array, Model, Pullback, input_node
from cnnviz_core.netspec import NetSpec
from cnnviz_core.rules import BackwardRule, relevance_rule
from cnnviz_core.steps import (
    DERIVATIVE,
    NEGATIVE,
    POSITIVE,
    LinearStep,
    Power,
    ReluStep,
    Share,
    Step,
    Term,
    alpha_beta,
    epsilon,
    flat,
    gamma,
    w_square,
    without_bias,
    z_box,
    z_plus,
)
from cnnviz_core.testing.comparing import assert_close
from cnnviz_core.testing.nets import NETS, random_input
from cnnviz_core.testing.reference import ReferenceModel

__all__ = ["RELEVANCE", "RelevanceConformance"]

# Where contributions of both signs cancel out, a small epsilon would magnify mere rounding.
_STABLE: Final = epsilon(0.1)

_UNUSUAL: Final = LinearStep(
    (
        Share((Term(Power(1.0), Power(1.0), Power(1.0)),), 0.75),
        Share(
            (Term(POSITIVE, POSITIVE, None), Term(NEGATIVE, POSITIVE, None, sign=-1.0)),
            0.25,
            "negative",
        ),
    ),
    0.0,
)
"""A step of all that the built-in ones do not use: other powers, signs, places, no epsilon."""


def _rule(name: str, *steps: LinearStep, **places: Any) -> BackwardRule:
    """Make a rule for networks of any operations."""
    return relevance_rule(name, *steps, **{"unknown": "mark", "shared": _STABLE, **places})


RELEVANCE: Final = {
    rule.name: rule
    for rule in (
        _rule("epsilon", _STABLE),
        _rule("gamma", gamma(), _STABLE, shared=gamma(1.0)),
        _rule("alpha-beta", alpha_beta(), _STABLE, first=flat(), shared=z_plus()),
        _rule("z-plus", z_plus(), first=w_square(), last=_STABLE),
        _rule("z-box", without_bias(z_plus()), without_bias(_STABLE), first=z_box()).bounded(
            [-5], [6]
        ),
        _rule("unusual", _UNUSUAL, shared=_UNUSUAL),
    )
}
"""Rules of relevance by name, which together take every built-in step, and others."""

_NAMES: Final = [*RELEVANCE, *RELEVANCE]
CASES: Final = [
    # Each step on some networks, in turn, and all of them on one: tracing them all takes long.
    (name, list(RELEVANCE) if name == "residual" else _NAMES[i % len(RELEVANCE) :][:2])
    for i, name in enumerate(NETS)
]
"""Networks, each with the names of the rules that are taken on it."""

_HEADS: Final = ("softmax", "sigmoid")


class RelevanceConformance:
    """What every backend must do that offers rules of relevance, "rule:conv" and so on.

    Attributes
    ----------
    capabilities : frozenset of str
        What the backend offers for networks of its own.
    rtol : float
        The largest difference from the reference, as a fraction of the largest value.
    """

    capabilities: ClassVar[frozenset[str]]
    rtol: ClassVar[float]

    def build(self, net: NetSpec) -> Model:
        """Build the network in the framework, in inference mode, and wrap it."""
        raise NotImplementedError

    def _ruled(self, name: str) -> tuple[Model, ReferenceModel, Any, NetSpec]:
        """Give a network in the framework, its reference, a batch, and what it was built from."""
        net = NETS[name]()
        given = random_input(net)
        x: Any = given if len(given) > 1 else next(iter(given.values()))
        model = self.build(net)
        model.forward(x)
        needs = {"gradient", "capture", *RELEVANCE["epsilon"].needs}
        missing = needs - (self.capabilities | model.capabilities)
        if missing:
            pytest.skip(f"the backend does not offer {', '.join(sorted(missing))}")
        return model, ReferenceModel(net, "float64"), x, net

    def _same_relevance(
        self,
        model: Model,
        reference: ReferenceModel,
        x: Any,
        rule: BackwardRule,
        wrt: Sequence[str] = (INPUT,),
        of: str = LOGITS,
    ) -> Pullback:
        """Compare the relevance of some nodes with the reference's."""
        shape = reference.forward(x, capture=[of])[of].shape
        relevance = np.random.default_rng(3).normal(size=shape).astype(np.float32)
        actual = model.pullback(x, relevance, of=of, wrt=wrt, rule=rule)
        expected = reference.pullback(x, relevance, of=of, wrt=wrt, rule=rule)
        assert set(actual.gradients) == set(wrt)
        for node in wrt:
            what = f"relevance of {of} at {node} by {rule.name}"
            assert_close(actual.gradients[node], expected.gradients[node], self.rtol, what)
        assert bool(actual.unruled) == bool(expected.unruled), actual.unruled
        return actual

    # ---------------------------------------------------------------- the reference's numbers

    @pytest.mark.parametrize(("name", "rules"), CASES)
    def test_relevance_at_the_inputs_and_every_layer(self, name: str, rules: list[str]) -> None:
        """It is the reference's, also inside a chain that is folded into one layer."""
        model, reference, x, net = self._ruled(name)
        inputs = [input_node(n) for n in net.inputs] if len(net.inputs) > 1 else [INPUT]
        nodes = [n for n in reference.layers if n in model.layers and n not in _HEADS]
        for rule in rules:
            self._same_relevance(model, reference, x, RELEVANCE[rule], [*inputs, *nodes])

    def test_relevance_at_one_layer_at_a_time(self) -> None:
        """It is the reference's, wherever the way ends."""
        model, reference, x, _ = self._ruled("residual")
        for node in ("stem", "relu@1", "bn2a", "gap"):
            self._same_relevance(model, reference, x, RELEVANCE["z-box"], [node])

    def test_values_inside_a_folded_layer_have_its_relevance(self) -> None:
        """A normalisation that is folded into a convolution hands down what it is given."""
        model, _, x, _ = self._ruled("residual")
        nodes = ["conv1a", "bn1a", "stem", "bn0"]
        relevance = model.pullback(x, np.ones_like, wrt=nodes, rule=RELEVANCE["epsilon"]).gradients
        np.testing.assert_array_equal(relevance["conv1a"], relevance["bn1a"])
        np.testing.assert_array_equal(relevance["stem"], relevance["bn0"])

    def test_relevance_of_a_layer(self) -> None:
        """The last layer is the one nearest to what is explained, wherever that is."""
        model, reference, x, _ = self._ruled("residual")
        rule = RELEVANCE["z-plus"]
        for of, wrt in (("bn2b", INPUT), ("relu@1", "relu@0"), ("conv1a", "stem"), (OUTPUT, INPUT)):
            self._same_relevance(model, reference, x, rule, [wrt], of)

    def test_relevance_of_one_of_two_inputs(self) -> None:
        """The first layer is one that reads an input, whether that is asked for or not."""
        model, reference, x, _ = self._ruled("two_inputs")
        for node in (input_node("vector"), input_node("image")):
            self._same_relevance(model, reference, x, RELEVANCE["alpha-beta"], [node])

    def test_bounds_of_each_channel(self) -> None:
        """They are the bounds of the input's channels."""
        model, reference, x, _ = self._ruled("strided")
        low, high = np.min(x, (0, 1, 2)), np.max(x, (0, 1, 2)) + np.arange(3)
        self._same_relevance(model, reference, x, RELEVANCE["z-box"].bounded(low, high))

    def test_derivatives_among_the_steps(self) -> None:
        """A rule may take an operation's own derivative, or a rectifier's step, beside shares."""
        model, reference, x, _ = self._ruled("strided")
        others: tuple[dict[str, Step], ...] = (
            {"conv": DERIVATIVE, "avgpool": DERIVATIVE},
            {"linear": DERIVATIVE, "relu": ReluStep(gate=True, rectify=True)},
        )
        for other in others:
            steps = {**RELEVANCE["epsilon"].steps, **other}
            rule = BackwardRule("mixed", steps, unknown="refuse")
            self._same_relevance(model, reference, x, rule)

    def test_a_rule_of_few_steps(self) -> None:
        """Elsewhere it differentiates; what is folded into a convolution needs no step."""
        model, reference, x, _ = self._ruled("residual")
        self._same_relevance(model, reference, x, BackwardRule("few", {"linear": _STABLE}))
        steps: dict[str, Step] = dict(RELEVANCE["epsilon"].steps)
        del steps["batchnorm"]
        self._same_relevance(model, reference, x, BackwardRule("few", steps, unknown="refuse"))

    def test_relevance_does_not_outlive_its_call(self) -> None:
        """The gradient after it is the plain one, and the other way round."""
        model, reference, x, _ = self._ruled("plain")
        rule = RELEVANCE["z-plus"]
        for given in (rule, BackwardRule("standard"), rule):
            self._same_relevance(model, reference, x, given)

    # ---------------------------------------------------------------- what it refuses

    def test_operations_without_a_step_are_marked_or_refused(self) -> None:
        """A normalisation over a sample's own values is of no kind that a rule may name."""
        model, reference, x, _ = self._ruled("tokens")
        marked = self._same_relevance(model, reference, x, RELEVANCE["epsilon"])
        assert marked.unruled
        refusing = relevance_rule("refusing", _STABLE)
        with pytest.raises(RuleError, match="no step for"):
            model.pullback(x, np.ones_like, rule=refusing)
        behind = model.pullback(x, np.ones_like, wrt=["gap"], rule=refusing)
        assert not behind.unruled
        plainly = BackwardRule("plainly", dict(refusing.steps))
        assert not self._same_relevance(model, reference, x, plainly).unruled

    def test_a_softmax_is_refused_where_its_result_is_explained(self) -> None:
        """The score before it has relevance, and the probability has none."""
        model, reference, x, _ = self._ruled("softmax_head")
        marked = self._same_relevance(model, reference, x, RELEVANCE["epsilon"], of=OUTPUT)
        assert marked.unruled
        with pytest.raises(RuleError, match="no step for"):
            model.pullback(x, np.ones_like, of=OUTPUT, rule=relevance_rule("refusing", _STABLE))

    def test_a_step_that_meets_nothing_is_refused(self) -> None:
        """There is no convolution behind the global average."""
        model, _, x, _ = self._ruled("plain")
        with pytest.raises(RuleError, match="conv"):
            model.pullback(x, np.ones_like, wrt=["gap"], rule=BackwardRule("c", {"conv": _STABLE}))

    def test_steps_that_cannot_be_taken_are_refused(self) -> None:
        """The message names the kind, or says what to do; the next call is as before."""
        model, _, x, _ = self._ruled("plain")
        before: Array = model.pullback(x, np.ones_like).gradients[INPUT]
        for rule, said in (
            (BackwardRule("bad", {"conv": ReluStep(True, True)}), "'conv'"),
            (BackwardRule("bad", {"conv": _STABLE, "relu": _STABLE}), "'relu'"),
            (BackwardRule("bad", {"conv": _STABLE, "warp": _STABLE}), "'warp'"),
            (BackwardRule("bad", {"conv": _STABLE}, first={"add": _STABLE}), "'add'"),
            (relevance_rule("bad", _STABLE, first=z_box()), "bounded"),
        ):
            with pytest.raises(RuleError, match=said):
                model.pullback(x, np.ones_like, rule=rule)
        np.testing.assert_array_equal(model.pullback(x, np.ones_like).gradients[INPUT], before)
