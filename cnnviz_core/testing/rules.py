"""The conformance kit for rules of relevance: checks that any rule must pass, on every backend.

A rule is data, so it needs no code in a backend, and the checks need nothing but the rule.  They
run on the NumPy reference and on every installed backend that builds networks of data.

Examples
--------
Relevance in proportion to the magnitude of contributions, whatever their sign, in a module
``my_rules``::

    from cnnviz_core.rules import relevance_rule
    from cnnviz_core.steps import LinearStep, Power, Share, Term

    magnitude = relevance_rule(
        "magnitude", LinearStep((Share((Term(Power(1.0), Power(1.0), bias=None),)),))
    )

Its tests::

    from cnnviz_core.testing.rules import parametrize_with_checks

    @parametrize_with_checks([magnitude])
    def test_magnitude(rule, backend, check):
        check(rule, backend)

And the module that the distribution names under the entry-point group ``cnnviz``::

    from cnnviz_core.hookspecs import hookimpl
    from cnnviz_core.specs import RuleSpec

    @hookimpl
    def cnnviz_rules():
        return [RuleSpec("magnitude", "my_rules:magnitude", "By the magnitude of contributions")]
"""

from __future__ import annotations

import functools
import operator
import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final, TypeAlias

import numpy as np

from cnnviz_core.errors import MissingCapabilityError, RuleError
from cnnviz_core.importing import import_string, installed
from cnnviz_core.model import INPUT, LOGITS, Array, Cotangent, Inputs, Model, Pullback, input_node
from cnnviz_core.registry import get_registry
from cnnviz_core.rules import BackwardRule, check_steps
from cnnviz_core.steps import ReluStep
from cnnviz_core.testing.comparing import assert_close
from cnnviz_core.testing.nets import NETS, random_input
from cnnviz_core.testing.reference import ReferenceModel

__all__ = ["CHECKS", "REFERENCE", "backends_that_build", "parametrize_with_checks"]

REFERENCE: Final = "numpy"
"""What the reference model is called among the backends."""

Check: TypeAlias = Callable[[BackwardRule, str], None]
"""A function of a rule and a backend's name that raises AssertionError where it fails."""

LAYERS: Final = {
    "strided": "pool1",
    "residual": "bn1b",
    "depthwise": "relu2",
    "branches": "relu0",
    "two_inputs": "gap",
    "swish": "bn3",
}
"""Networks with every kind of operation but gates, each with a layer to look at."""

WITHOUT_KIND: Final = "tokens"
"""A network with operations of no kind that a rule may name: layer normalisations."""

BOUNDS: Final = (-6.0, 6.0)
"""Between these lie the values of the networks' inputs."""

RTOL: Final = {"float64": 1e-8, "float32": 1e-3}
"""How much may differ, as a fraction of the largest value.

Where contributions cancel out, a denominator is nearly zero, and rounding is magnified.
"""


def backends_that_build() -> tuple[str, ...]:
    """Name the reference and the installed backends that build networks of data.

    Returns
    -------
    tuple of str
        Of `REFERENCE` and the keys of `cnnviz_core.registry.Registry.backends`.
    """
    found = get_registry().backends.items()
    return (REFERENCE, *(n for n, s in found if s.build and installed(s.packages[0])))


@functools.cache
def _model(net: str, backend: str, dtype: str = "float64") -> Model:
    """Build one of the small networks."""
    spec = NETS[net]()
    if backend == REFERENCE:
        return ReferenceModel(spec, dtype)
    record = get_registry().backend(backend)
    if record.build is None:
        raise MissingCapabilityError(
            f"the backend {backend!r} builds no networks of data",
            "a backend whose BackendSpec names a `build`",
            f"choose among {', '.join(backends_that_build())}",
        )
    return import_string(record.wrap)(import_string(record.build)(spec, dtype=dtype))


def _offering(rule: BackwardRule, net: str, backend: str, dtype: str = "float64") -> Model:
    """Build a network, and check that it offers what a rule needs."""
    model = _model(net, backend, dtype)
    model.forward(_batch(net, dtype))
    missing = rule.needs | {"gradient", "capture"}
    missing -= model.capabilities
    if missing:
        raise MissingCapabilityError(
            f"the rule {rule.name!r} needs {', '.join(sorted(missing))}, "
            f"which the backend {backend!r} does not offer",
            "a backend with a step for every kind of operation that the rule names",
            f"check it on {REFERENCE!r} alone: backends=[{REFERENCE!r}]",
        )
    return model


def _batch(net: str, dtype: str = "float64") -> Inputs:
    """Draw a batch of two for a network."""
    given = {key: value.astype(dtype) for key, value in random_input(NETS[net]()).items()}
    return given if len(given) > 1 else next(iter(given.values()))


def _changed(x: Inputs, change: Callable[[Array], Array]) -> Inputs:
    """Change every array of a batch."""
    return {k: change(v) for k, v in x.items()} if isinstance(x, Mapping) else change(x)


def _relevance(value: Array, seed: int = 3) -> Array:
    """Draw what arrives at the top."""
    return np.random.default_rng(seed).normal(size=value.shape).astype(value.dtype)


def _handed_down(
    model: Model, net: str, rule: BackwardRule, x: Inputs, given: Cotangent = _relevance
) -> Pullback:
    """Hand relevance down to a network's inputs and to a layer."""
    names = list(NETS[net]().inputs)
    inputs = [input_node(name) for name in names] if len(names) > 1 else [INPUT]
    wrt = [*inputs, LAYERS[net]]
    return model.pullback(x, given, of=LOGITS, wrt=wrt, rule=rule)


def _bounded(rule: BackwardRule) -> BackwardRule:
    """Give a rule that needs them the bounds of the networks' inputs."""
    low, high = BOUNDS
    return rule.bounded([low], [high]) if rule.needs_bounds else rule


@functools.cache
def _taken(rule: BackwardRule) -> tuple[str, ...]:
    """Give the networks that a rule can be taken on, by the reference."""
    taken = []
    for net in LAYERS:
        try:
            _handed_down(_model(net, REFERENCE), net, _bounded(rule), _batch(net))
        except RuleError:
            continue
        taken.append(net)
    assert taken, f"the rule {rule.name!r} refuses every network: {', '.join(LAYERS)}"
    return tuple(taken)


@contextmanager
def _refused(otherwise: str, *said: str) -> Iterator[None]:
    """Demand that a rule is refused, in certain words."""
    try:
        yield
    except RuleError as error:
        message = str(error)
    else:
        raise AssertionError(otherwise)
    for words in said:
        assert words in message, f"the message does not say {words!r}: {message}"


def _assert_same(actual: Pullback, expected: Pullback, dtype: str, net: str) -> None:
    """Compare relevance."""
    for node, wanted in expected.gradients.items():
        assert_close(actual.gradients[node], wanted, RTOL[dtype], f"{net} at {node}")


def check_is_data(rule: BackwardRule, backend: str) -> None:
    """It is a rule of relevance: hashable data that is equal to its copies, with sound steps."""
    assert isinstance(rule, BackwardRule), f"it is a {type(rule).__name__}, not a BackwardRule"
    assert rule.name, "it has no name"
    assert rule.conserves, "it is no rule of relevance: none of its steps is a LinearStep"
    for copy in (replace(rule), pickle.loads(pickle.dumps(rule))):
        assert copy == rule, "a copy is not equal to it"
        assert hash(copy) == hash(rule), "a copy has another hash"
    check_steps(_bounded(rule))


def check_numbers_are_the_references(rule: BackwardRule, backend: str) -> None:
    """Relevance at the input and at a layer is the reference's, and so is what it refuses."""
    bounded, taken = _bounded(rule), _taken(rule)
    for net in LAYERS:
        model = _offering(rule, net, backend)
        if net not in taken:
            with _refused(f"{backend} takes the rule on {net!r}, and the reference refuses"):
                _handed_down(model, net, bounded, _batch(net))
            continue
        expected = _handed_down(_model(net, REFERENCE), net, bounded, _batch(net))
        _assert_same(_handed_down(model, net, bounded, _batch(net)), expected, "float64", net)


def check_single_precision(rule: BackwardRule, backend: str) -> None:
    """In single precision, relevance is nearly what it is in double precision."""
    for net in _taken(rule)[:2]:
        model = _offering(rule, net, backend, "float32")
        expected = _handed_down(_model(net, REFERENCE), net, _bounded(rule), _batch(net))
        actual = _handed_down(model, net, _bounded(rule), _batch(net, "float32"))
        _assert_same(actual, expected, "float32", net)


def check_is_linear_in_what_arrives(rule: BackwardRule, backend: str) -> None:
    """Twice the relevance gives twice the relevance, and that of a sum is the sum."""
    rectifies = any(isinstance(s, ReluStep) and s.rectify for s in rule.steps.values())

    def both(value: Array) -> Array:
        # What a step rectifies does not add up, and is only proportional to what arrives.
        other = 0 if rectifies else _relevance(value, seed=4)
        return 2 * _relevance(value) - 3 * other

    for net in _taken(rule)[:2]:
        model, x = _offering(rule, net, backend), _batch(net)
        one, two, sum_ = (
            _handed_down(model, net, _bounded(rule), x, given).gradients
            for given in (_relevance, functools.partial(_relevance, seed=4), both)
        )
        for node in one:
            expected = 2 * one[node] - (0 if rectifies else 3 * two[node])
            assert_close(sum_[node], expected, RTOL["float64"], f"{net} at {node}")


def check_batch_equals_single_samples(rule: BackwardRule, backend: str) -> None:
    """A batch of two gives what two batches of one give."""
    for net in _taken(rule)[:2]:
        model, x = _offering(rule, net, backend), _batch(net)
        whole = _handed_down(model, net, _bounded(rule), x)
        logits = model.forward(x).logits
        for i in (slice(0, 1), slice(1, 2)):
            sample, given = _changed(x, operator.itemgetter(i)), _relevance(logits)[i]
            single = _handed_down(model, net, _bounded(rule), sample, given)
            for node, expected in whole.gradients.items():
                what = f"sample {i.start} of {net} at {node}"
                assert_close(single.gradients[node], expected[i], RTOL["float64"], what)


def check_is_deterministic(rule: BackwardRule, backend: str) -> None:
    """Two calls give the same numbers."""
    for net in _taken(rule)[:2]:
        model, x = _offering(rule, net, backend), _batch(net)
        first, again = (_handed_down(model, net, _bounded(rule), x).gradients for _ in range(2))
        for node, expected in first.items():
            np.testing.assert_array_equal(again[node], expected)


def check_is_finite(rule: BackwardRule, backend: str) -> None:
    """No input makes NaN or infinity, not even one of zeros, where denominators may vanish."""
    for net in _taken(rule):
        model, x = _offering(rule, net, backend), _batch(net)
        for given in (x, _changed(x, np.zeros_like)):
            for node, found in _handed_down(model, net, _bounded(rule), given).gradients.items():
                assert np.isfinite(found).all(), f"NaN or infinity in {net} at {node}"


def check_operations_without_a_step(rule: BackwardRule, backend: str) -> None:
    """What has no step is refused, marked or differentiated, as the rule says."""
    model, x = _offering(rule, WITHOUT_KIND, backend), _batch(WITHOUT_KIND)
    refusing, marking, differentiating = (
        replace(_bounded(rule), unknown=unknown) for unknown in ("refuse", "mark", "differentiate")
    )
    with _refused("a layer normalisation was taken", rule.name, "no step for"):
        model.pullback(x, _relevance, rule=refusing)
    marked = model.pullback(x, _relevance, rule=marking)
    assert marked.unruled, "the layer normalisations are not among `Pullback.unruled`"
    plainly = model.pullback(x, _relevance, rule=differentiating)
    assert not plainly.unruled, f"{plainly.unruled} are marked, though nobody asked for it"
    reference = _model(WITHOUT_KIND, REFERENCE).pullback(x, _relevance, rule=marking)
    for found in (marked, plainly):
        _assert_same(found, reference, "float64", WITHOUT_KIND)


CHECKS: tuple[Check, ...] = (
    check_is_data,
    check_numbers_are_the_references,
    check_single_precision,
    check_is_linear_in_what_arrives,
    check_batch_equals_single_samples,
    check_is_deterministic,
    check_is_finite,
    check_operations_without_a_step,
)
"""Every check: a function of a rule and a backend's name; AssertionError where it fails.

`cnnviz_core.errors.MissingBackendError` says that a framework is not installed, and
`cnnviz_core.errors.MissingCapabilityError` that a backend has no steps for a rule to take.
"""


def parametrize_with_checks(
    rules: Sequence[BackwardRule], backends: Iterable[str] | None = None
) -> Any:
    """Run a test with every check on every rule and backend.

    Parameters
    ----------
    rules : sequence of BackwardRule
        With or without bounds; those of the kit's networks are put in their place.
    backends : iterable of str, optional
        The backends that must obey, `REFERENCE` among them.  If left out, it is the reference and
        those that are installed, without those that offer no rules of relevance.

    Returns
    -------
    decorator
        For a test function with the arguments ``rule``, ``backend`` and ``check``.
    """
    import pytest

    def if_offered(check: Check) -> Check:
        @functools.wraps(check)
        def run(rule: BackwardRule, backend: str) -> None:
            try:
                check(rule, backend)
            except MissingCapabilityError as error:
                pytest.skip(error.problem)

        return run

    names = backends_that_build() if backends is None else tuple(backends)
    cases = [
        pytest.param(
            rule,
            backend,
            if_offered(check) if backends is None else check,
            id=f"{rule.name}-{backend}-{check.__name__.removeprefix('check_')}",
        )
        for rule in rules
        for backend in names
        for check in CHECKS
    ]
    return pytest.mark.parametrize(("rule", "backend", "check"), cases)
