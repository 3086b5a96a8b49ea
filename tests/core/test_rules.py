"""Rules as data, the checks of them, and the kit by which a stranger's rule is checked."""

from __future__ import annotations

import copy
import doctest
import importlib
import pickle
from dataclasses import replace

import numpy as np
import pytest

from cnnviz_core import steps
from cnnviz_core.delegate import Delegate
from cnnviz_core.errors import (
    MissingBackendError,
    MissingCapabilityError,
    ParameterError,
    RuleError,
)
from cnnviz_core.model import Pullback
from cnnviz_core.rules import (
    DECONVNET,
    GUIDED,
    RULE_KINDS,
    STANDARD,
    BackwardRule,
    check_steps,
    relevance_rule,
    without_effect,
    without_step,
)
from cnnviz_core.specs import BackendSpec
from cnnviz_core.steps import (
    DERIVATIVE,
    PASS,
    LinearStep,
    ReluStep,
    Share,
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
from cnnviz_core.testing import rules as kit
from cnnviz_core.testing.backend_relevance import RELEVANCE
from cnnviz_core.testing.explainers import Offering
from cnnviz_core.testing.reference import ReferenceModel
from cnnviz_core.testing.rules import CHECKS, REFERENCE, parametrize_with_checks

BUILT_IN = [epsilon(), gamma(), alpha_beta(), z_plus(), z_box(), w_square(), flat()]


# ---------------------------------------------------------------- rules


def test_equal_rules_hash_alike_and_differ_where_they_differ():
    def made(name="r", **changes):
        rule = relevance_rule(name, z_plus(), epsilon(), first=flat(), last=gamma())
        return replace(rule, **changes)

    assert made() == made()
    assert hash(made()) == hash(made())
    others = [
        made("other"),
        made(steps={"conv": z_plus()}),
        made(first={}),
        made(last={"conv": flat()}),
        made(unknown="mark"),
        made(bounds=((0.0,), (1.0,))),
    ]
    assert len({made(), *others}) == 1 + len(others)
    assert made(first={"conv": flat()}, last={}) != made(last={"conv": flat()}, first={})


@pytest.mark.parametrize("rule", [STANDARD, GUIDED, DECONVNET, *RELEVANCE.values()])
def test_rules_can_be_copied_and_sent(rule):
    for made in (copy.copy(rule), copy.deepcopy(rule), pickle.loads(pickle.dumps(rule))):
        assert made == rule
        assert hash(made) == hash(rule)
        with pytest.raises(TypeError):
            made.steps["conv"] = PASS


def test_a_rule_is_not_changed_by_what_it_was_made_of():
    given = {"conv": epsilon()}
    rule = BackwardRule("r", given)
    given["linear"] = flat()
    assert dict(rule.steps) == {"conv": epsilon()}
    listed = LinearStep([Share([Term()])])
    assert listed == epsilon()
    assert hash(listed) == hash(epsilon())


def test_what_a_rule_needs_and_whether_it_conserves():
    assert STANDARD.needs == frozenset()
    assert BackwardRule("r", {"conv": flat()}, first={"linear": flat()}).needs == {
        "rule:conv",
        "rule:linear",
    }
    assert BackwardRule("r", last={"conv": flat()}).needs == {"rule:conv"}
    assert relevance_rule("r", flat()).needs == {f"rule:{kind}" for kind in RULE_KINDS}
    for rule in (STANDARD, GUIDED, BackwardRule("r", {"conv": DERIVATIVE, "relu": PASS})):
        assert not rule.conserves
    for place in ("steps", "first", "last"):
        assert BackwardRule("r", **{place: {"conv": flat()}}).conserves


def test_the_step_depends_on_the_kind_and_the_place():
    rule = relevance_rule("r", z_plus(), epsilon(), first=flat(), last=gamma())
    assert rule.step("conv") == z_plus()
    assert rule.step("linear") == epsilon()
    assert rule.step("conv", first=True) == rule.step("linear", first=True) == flat()
    assert rule.step("linear", last=True) == rule.step("conv", first=True, last=True) == gamma()
    assert rule.step("add", first=True) == rule.step("avgpool") == epsilon()
    assert rule.step("relu") is rule.step("gate") is rule.step("activation") is PASS
    assert rule.step("maxpool") is rule.step("concat") is DERIVATIVE
    assert rule.step(None) is None
    assert rule.step("conv-transpose") is None
    only = BackwardRule("r", {"linear": epsilon()}, first={"conv": flat()})
    assert only.step("conv") is None
    assert only.step("linear", first=True, last=True) == epsilon()


def test_a_usual_rule_of_one_step():
    rule = relevance_rule("r", gamma(), shared=flat(), unknown="mark")
    assert rule.steps["conv"] == rule.steps["linear"] == gamma()
    assert rule.steps["add"] == rule.steps["avgpool"] == flat()
    assert set(rule.steps) == set(RULE_KINDS)
    assert not rule.first
    assert not rule.last
    assert rule.unknown == "mark"
    assert relevance_rule("r", gamma()).unknown == "refuse"


def test_bounds():
    rule = relevance_rule("box", z_plus(), first=z_box())
    assert rule.needs_bounds
    assert not relevance_rule("r", z_plus()).needs_bounds
    assert rule.bounds is None
    given = rule.bounded(np.array([-1, -2]), [3, 4])
    assert given.bounds == ((-1.0, -2.0), (3.0, 4.0))
    assert replace(given, bounds=None) == rule
    check_steps(given)
    with pytest.raises(RuleError, match=r"rule\.bounded\(low, high\)"):
        check_steps(rule)


def test_without_bias_no_step_has_one():
    rule = relevance_rule(
        "r", gamma(), alpha_beta(), first=z_box(), last=w_square(), shared=epsilon()
    )
    bare = rule.without_bias()
    for step in (*bare.steps.values(), *bare.first.values(), *bare.last.values()):
        if isinstance(step, LinearStep):
            assert all(term.bias is None for share in step.shares for term in share.terms)
    assert bare.steps["relu"] is PASS
    assert bare.steps["conv"] == without_bias(gamma())
    assert bare.without_bias() == bare
    assert replace(bare, steps=rule.steps, first=rule.first, last=rule.last) == rule


def test_without_bias_keeps_all_else():
    for step in (*BUILT_IN, epsilon(0.3)):
        bare = without_bias(step)
        assert bare.epsilon == step.epsilon
        for one, two in zip(bare.shares, step.shares, strict=True):
            assert replace(one, terms=two.terms) == two
            for a, b in zip(one.terms, two.terms, strict=True):
                assert replace(a, bias=b.bias) == b


@pytest.mark.parametrize(
    ("changes", "said", "expected"),
    [
        ({"steps": {"pool": epsilon()}}, "a step for 'pool' among its steps", "'maxpool'"),
        ({"first": {"add": epsilon()}}, "a step for 'add' among its first", "'conv', 'linear'"),
        ({"last": {"relu": PASS}}, "a step for 'relu' among its last", "'conv', 'linear'"),
        ({"steps": {"relu": epsilon()}}, "for 'relu'", "ReluStep or PassStep or DerivativeStep"),
        ({"steps": {"conv": PASS}}, "for 'conv'", "a LinearStep or DerivativeStep"),
        ({"steps": {"maxpool": epsilon()}}, "for 'maxpool'", "a DerivativeStep"),
        ({"first": {"conv": ReluStep(True, True)}}, "for 'conv'", "LinearStep"),
        ({"first": {"conv": z_box()}}, "the least and the greatest value", "bounds"),
        ({"steps": {"conv": z_box()}}, "the bounds of the network's input", "read the input"),
        ({"last": {"linear": z_box()}}, "the bounds of the network's input", "read the input"),
    ],
)
def test_steps_that_cannot_be_taken(changes, said, expected):
    with pytest.raises(RuleError) as caught:
        check_steps(BackwardRule("strange", **changes))
    assert "'strange'" in caught.value.problem
    assert said in caught.value.problem
    assert expected in caught.value.expected


def test_every_step_that_fits_its_kind_is_taken():
    of_class = {
        "ReluStep": ReluStep(True, False),
        "PassStep": PASS,
        "DerivativeStep": DERIVATIVE,
        "LinearStep": flat(),
    }
    for kind, classes in RULE_KINDS.items():
        for cls in classes:
            check_steps(BackwardRule("r", {kind: of_class[cls.__name__]}))
    for rule in (STANDARD, GUIDED, DECONVNET):
        check_steps(rule)


def test_what_the_refusals_say():
    rule = BackwardRule("r", {"conv": flat()}, first={"conv": flat(), "linear": flat()})
    error = without_effect(rule, "between 'a' and 'b'")
    assert "'r' would change nothing: there is no conv or linear between 'a' and 'b'" in str(error)
    error = without_step(rule, ["softmax", "norm", "softmax", "x", "y", "z"], "between 'a' and 'b'")
    assert "no step for softmax, norm, x and 2 more between 'a' and 'b'" in error.problem
    assert "no step for softmax between" in without_step(rule, ["softmax"], "between").problem
    assert "'mark'" in error.remedy


# ---------------------------------------------------------------- steps


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: LinearStep(()),
        lambda: epsilon(-1e-9),
        lambda: gamma(epsilon=float("nan")),
        lambda: flat(float("inf")),
        lambda: alpha_beta(2.0, 0.5),
        lambda: alpha_beta(0.5, -0.5),
    ],
)
def test_steps_out_of_range(wrong):
    with pytest.raises(ParameterError):
        wrong()


def test_steps_that_are_others_in_disguise():
    assert z_plus() == alpha_beta(1.0, 0.0)
    assert epsilon(0.0) == epsilon(0)
    assert {epsilon(), epsilon(1e-6), z_plus(), alpha_beta(1, 0)} == {epsilon(), z_plus()}
    assert len(set(BUILT_IN)) == len(BUILT_IN)


@pytest.mark.parametrize("module", ["steps", "rules"])
def test_the_examples_are_right(module):
    results = doctest.testmod(importlib.import_module(f"cnnviz_core.{module}"))
    assert results.attempted > 0
    assert results.failed == 0


def test_the_built_in_steps_are_all_tried_on_backends():
    """Each of them is among the rules of the kit for backends, but for its stabiliser and bias."""
    others = {"reads_bounds", "without_bias"}
    functions = {name for name in steps.__all__ if name[0].islower()} - others
    assert len(functions) == len(BUILT_IN)
    tried = {
        without_bias(replace(step, epsilon=0.0))
        for rule in RELEVANCE.values()
        for step in (*rule.steps.values(), *rule.first.values(), *rule.last.values())
        if isinstance(step, LinearStep)
    }
    assert {without_bias(replace(step, epsilon=0.0)) for step in BUILT_IN} <= tried


# ---------------------------------------------------------------- the kit


MAGNITUDE = relevance_rule(
    "magnitude", LinearStep((Share((Term(steps.Power(1.0), steps.Power(1.0), bias=None),)),))
)
"""The rule of the kit's example."""


@parametrize_with_checks([*RELEVANCE.values(), MAGNITUDE], backends=[REFERENCE])
def test_the_rules_pass_the_kit(rule, backend, check):
    check(rule, backend)


def test_a_rule_that_lacks_steps_passes_where_it_can_be_taken():
    few = {k: s for k, s in MAGNITUDE.steps.items() if k not in ("maxpool", "activation")}
    for check in CHECKS:
        check(BackwardRule("few", few, unknown="refuse"), REFERENCE)
    rectifying = {**MAGNITUDE.steps, "relu": ReluStep(gate=True, rectify=True)}
    for check in CHECKS:
        check(BackwardRule("rectifying", rectifying, unknown="refuse"), REFERENCE)


def failing(rule, backend=REFERENCE):
    """Give the checks that a rule does not pass."""
    failed = set()
    for check in CHECKS:
        try:
            check(rule, backend)
        except AssertionError:
            failed.add(check.__name__.removeprefix("check_"))
    return failed


def test_what_is_no_rule_of_relevance_fails():
    assert "is_data" in failing(GUIDED)
    with pytest.raises(AssertionError, match="not a BackwardRule"):
        kit.check_is_data(epsilon(), REFERENCE)
    with pytest.raises(AssertionError, match="refuses every network"):
        kit.check_is_finite(BackwardRule("r", {"gate": PASS}, unknown="refuse"), REFERENCE)
    with pytest.raises(AssertionError, match="has no name"):
        kit.check_is_data(replace(MAGNITUDE, name=""), REFERENCE)
    with pytest.raises(RuleError, match="'relu'"):
        kit.check_is_data(BackwardRule("r", {"conv": flat(), "relu": flat()}), REFERENCE)


class Spoilt(Delegate):
    """A backend that hands relevance down wrongly."""

    def __init__(self, model, spoil):
        super().__init__(model)
        self._spoil = spoil
        self._calls = 0

    def pullback(self, x, cotangent, **how):
        self._calls += 1
        back = super().pullback(x, cotangent, **how)
        spoilt = {n: self._spoil(g, self._calls) for n, g in back.gradients.items()}
        return Pullback(back.values, spoilt, back.unruled)


class Careless(Delegate):
    """A backend that refuses nothing, and marks nothing."""

    def pullback(self, x, cotangent, **how):
        rule = replace(how["rule"], unknown="differentiate")
        return super().pullback(x, cotangent, **{**how, "rule": rule})


class Zealous(Delegate):
    """A backend that marks what nobody asked it to."""

    def pullback(self, x, cotangent, **how):
        return replace(super().pullback(x, cotangent, **how), unruled=("norm",))


@pytest.fixture
def backend(monkeypatch):
    """Make "other" the name of a backend that changes what the reference does."""

    spec = BackendSpec("other", "m:wrap", ("numpy",), "m:accepts", build="m:build")

    def make(change):
        class Registry:
            backends = {"other": spec}

            def backend(self, name):
                return self.backends[name]

        def build(net, *, dtype="float32"):
            return ReferenceModel(net, dtype)

        monkeypatch.setattr(kit, "get_registry", Registry)
        monkeypatch.setattr(kit, "import_string", {"m:wrap": change, "m:build": build}.get)
        kit._model.cache_clear()

    yield make
    kit._model.cache_clear()


def test_a_backend_that_does_as_the_reference_passes(backend):
    backend(Delegate)
    assert kit.backends_that_build() == (REFERENCE, "other")
    assert failing(MAGNITUDE, "other") == set()


@pytest.mark.parametrize(
    ("spoil", "check"),
    [
        (lambda g, calls: 1.0001 * g, "numbers_are_the_references"),
        (lambda g, calls: 1.01 * g, "single_precision"),
        (lambda g, calls: g + 0.01, "is_linear_in_what_arrives"),
        (lambda g, calls: g - g.mean(0), "batch_equals_single_samples"),
        (lambda g, calls: (1 + 1e-12 * calls) * g, "is_deterministic"),
        (lambda g, calls: g / np.where(g.any(), 1, 0), "is_finite"),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_a_backend_that_does_otherwise_fails(backend, spoil, check):
    backend(lambda model: Spoilt(model, spoil))
    with pytest.raises(AssertionError):
        getattr(kit, f"check_{check}")(MAGNITUDE, "other")


def test_a_backend_that_refuses_and_marks_nothing_fails(backend):
    backend(Careless)
    assert failing(MAGNITUDE, "other") == {"operations_without_a_step"}
    few = {k: s for k, s in MAGNITUDE.steps.items() if k != "maxpool"}
    refusing = BackwardRule("few", few, unknown="refuse")
    with pytest.raises(AssertionError, match="and the reference refuses"):
        kit.check_numbers_are_the_references(refusing, "other")


def test_a_backend_that_marks_everything_fails(backend):
    backend(Zealous)
    with pytest.raises(AssertionError, match="nobody asked"):
        kit.check_operations_without_a_step(MAGNITUDE, "other")


def test_backends_without_rules_are_left_out_unless_they_are_demanded(backend):
    backend(lambda model: Offering(model, frozenset({"capture", "gradient", "rule:relu"})))

    def outcome(**how):
        def test(rule, backend, check):
            check(rule, backend)

        (mark,) = parametrize_with_checks([MAGNITUDE], **how)(test).pytestmark
        return [case.values for case in mark.args[1]]

    cases = outcome()
    assert {backend for _, backend, _ in cases} == {REFERENCE, "other"}
    assert len(cases) == 2 * len(CHECKS)
    check = next(c for _, b, c in cases if b == "other" and "deterministic" in c.__name__)
    with pytest.raises(pytest.skip.Exception, match="'other' does not offer"):
        check(MAGNITUDE, "other")
    check = next(c for *_, c in outcome(backends=["other"]) if "deterministic" in c.__name__)
    with pytest.raises(MissingCapabilityError, match="rule:conv"):
        check(MAGNITUDE, "other")


def test_a_backend_that_is_not_there_is_an_error():
    with pytest.raises(MissingBackendError, match="no backend 'venus'"):
        kit.check_is_deterministic(MAGNITUDE, "venus")


def test_a_misspelt_word_for_what_to_do_is_refused():
    rule = BackwardRule("mine", {"relu": PASS}, unknown="reject")
    with pytest.raises(RuleError, match="'reject'"):
        check_steps(rule)
