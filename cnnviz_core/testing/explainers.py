"""The conformance kit for explainers: checks that any explainer must pass, run on NumPy alone.

Examples
--------
::

    from cnnviz_core.testing.explainers import parametrize_with_checks

    @parametrize_with_checks([MyCAM(), MyCAM(layer="conv1")])
    def test_my_cam(explainer, check):
        check(explainer)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from cnnviz_core.delegate import Delegate
from cnnviz_core.errors import CnnvizError, MissingCapabilityError, UnknownLayerError
from cnnviz_core.explainer import Explainer, Maps, Presentation, present
from cnnviz_core.model import (
    INPUT,
    LOGITS,
    Array,
    Cotangent,
    Curvature,
    Inputs,
    Model,
    Pullback,
    Replacement,
    Trace,
)
from cnnviz_core.parameters import parameters_of
from cnnviz_core.rules import STANDARD, BackwardRule
from cnnviz_core.spatial import Geometry
from cnnviz_core.targets import ClassScore, Predicted, Target
from cnnviz_core.testing.nets import plain, random_input
from cnnviz_core.testing.reference import ReferenceModel

__all__ = ["CHECKS", "Offering", "parametrize_with_checks"]


class Offering(Delegate):
    """A model that offers only some of what another one can do.

    Parameters
    ----------
    model : Model
        The model that is asked.
    capabilities : frozenset of str
        What of it may be used; anything else raises `MissingCapabilityError`.
    """

    def __init__(self, model: Model, capabilities: frozenset[str]) -> None:
        super().__init__(model)
        self.capabilities = capabilities

    def forward(
        self,
        x: Inputs,
        *,
        capture: Sequence[str] = (),
        replace: Mapping[str, Replacement] | None = None,
    ) -> Trace:
        """Run the network; see `Model.forward`."""
        self._use(("capture", bool(capture)), ("replace", bool(replace)))
        return super().forward(x, capture=capture, replace=replace)

    def pullback(
        self,
        x: Inputs,
        cotangent: Cotangent,
        *,
        of: str = LOGITS,
        wrt: Sequence[str] = (INPUT,),
        rule: BackwardRule = STANDARD,
    ) -> Pullback:
        """Differentiate; see `Model.pullback`."""
        inner = any(not node.startswith(INPUT) for node in wrt)
        self._use(("gradient", True), ("capture", inner), *((n, True) for n in rule.needs))
        return super().pullback(x, cotangent, of=of, wrt=wrt, rule=rule)

    def curvature(
        self,
        x: Inputs,
        cotangent: Cotangent,
        direction: Cotangent,
        *,
        of: str = LOGITS,
        wrt: str = INPUT,
    ) -> Curvature:
        """Differentiate twice; see `CurvedModel.curvature`."""
        self._use(("curvature", True), ("capture", not wrt.startswith(INPUT)))
        return super().curvature(x, cotangent, direction, of=of, wrt=wrt)

    def geometry(
        self, nodes: Sequence[str], x: Inputs | None = None, *, wrt: str = INPUT
    ) -> Geometry:
        """Tell what is read; see `SpatialModel.geometry`."""
        self._use(("geometry", True))
        return super().geometry(nodes, x, wrt=wrt)

    def parameters(self, layer: str) -> Mapping[str, Array]:
        """Return a layer's arrays; see `Model.parameters`."""
        self._use(("parameters", True))
        return super().parameters(layer)

    def copied(self, parameters: Mapping[str, Mapping[str, Array]]) -> Model:
        """Copy the network; see `CopyableModel.copied`."""
        self._use(("copy", True))
        return super().copied(parameters)

    def _use(self, *used: tuple[str, bool]) -> None:
        """Raise where something is used that is not offered."""
        for need, is_used in used:
            if is_used and need not in self.capabilities:
                raise MissingCapabilityError(
                    f"{need!r} was used without being declared",
                    "an explainer whose `needs` name all that it uses",
                    f"add {need!r} to its needs",
                )


def _case(n: int = 3) -> tuple[ReferenceModel, Array, list[Target]]:
    """Give a network, a batch and a target for each sample."""
    net = plain()
    targets: list[Target] = [ClassScore(i % 5) for i in range(n)]
    return ReferenceModel(net), random_input(net, n, seed=9)["image"], targets


def _shown(maps: Maps) -> Array:
    """Present a result at the picture's size."""
    return present(maps.raw, (12, 9), maps.presentation)[0]


def check_is_a_dataclass_with_a_schema(explainer: Explainer) -> None:
    """It is a frozen dataclass; each field has a default, a plain type and a line of help."""
    cls = type(explainer)
    assert dataclasses.is_dataclass(cls), f"{cls.__name__} is not a dataclass"
    assert cls.__dataclass_params__.frozen, f"{cls.__name__} is not frozen"  # type: ignore[attr-defined]
    for parameter in parameters_of(cls):
        assert parameter.help, f"parameter {parameter.name!r} has no Help(...)"
    cls()


def check_declares_its_needs(explainer: Explainer) -> None:
    """It runs on a model that offers what it declares, and nothing else."""
    model, x, targets = _case()
    assert isinstance(explainer.needs, frozenset), "needs is not a frozenset"
    explainer.explain(Offering(model, explainer.needs), x, targets)


def check_result(explainer: Explainer) -> None:
    """It gives one finite map for each sample, of a grid or of the picture."""
    model, x, targets = _case()
    maps = explainer.explain(model, x, targets)
    assert isinstance(maps, Maps), f"it returned a {type(maps).__name__}, not Maps"
    assert len(maps.raw) == len(x), f"{len(maps.raw)} maps for {len(x)} samples"
    assert maps.raw.dtype.kind == "f", f"the maps are {maps.raw.dtype}"
    assert np.isfinite(maps.raw).all(), "the maps hold NaN or infinity"
    if maps.raw.ndim == 4:
        assert maps.raw.shape[1:3] == x.shape[1:3], "an attribution must have the picture's size"
    assert isinstance(maps.presentation, Presentation)
    shown, _ = present(maps.raw, x.shape[1:3], maps.presentation)
    assert shown.shape == x.shape[:3]
    assert np.abs(maps.raw).max() > 0, "every map is zero"
    if maps.scores is not None:
        logits = model.forward(x).logits
        expected = [t.score(v) for t, v in zip(targets, logits, strict=True)]
        np.testing.assert_allclose(maps.scores, expected, rtol=1e-4, atol=1e-6)
    if maps.targets:
        assert list(maps.targets) == targets, "the resolved targets are others"


def check_batch_equals_single_samples(explainer: Explainer) -> None:
    """A batch of N gives what N batches of one give, each sample with its own target."""
    model, x, targets = _case()
    whole = explainer.explain(model, x, targets)
    for i in range(len(x)):
        single = explainer.explain(model, x[i : i + 1], targets[i : i + 1])
        np.testing.assert_allclose(
            single.raw[0], whole.raw[i], rtol=1e-4, atol=1e-5 * np.abs(whole.raw).max()
        )


def check_targets_matter(explainer: Explainer) -> None:
    """Another target gives another map, unless the explainer says class_agnostic = True."""
    model, x, _ = _case()
    one = explainer.explain(model, x, [ClassScore(0)] * len(x))
    two = explainer.explain(model, x, [ClassScore(1)] * len(x))
    same = np.allclose(one.raw, two.raw)
    if getattr(explainer, "class_agnostic", False):
        assert same, "the maps of two classes differ, though it says class_agnostic = True"
    else:
        assert not same, (
            "the maps of two classes are the same; if that is meant, say class_agnostic = True"
        )


def check_predicted_is_the_class_that_is_predicted(explainer: Explainer) -> None:
    """Explaining the predicted class is explaining that class."""
    model, x, _ = _case()
    classes = model.forward(x).logits.argmax(-1)
    asked = explainer.explain(model, x, [Predicted()] * len(x))
    named = explainer.explain(model, x, [ClassScore(int(c)) for c in classes])
    np.testing.assert_allclose(asked.raw, named.raw, rtol=1e-6, atol=1e-7)
    if asked.targets:
        assert list(asked.targets) == [ClassScore(int(c)) for c in classes]


def check_is_deterministic(explainer: Explainer) -> None:
    """Two calls give the same numbers."""
    model, x, targets = _case()
    first = explainer.explain(model, x, targets)
    again = explainer.explain(model, x, targets)
    np.testing.assert_array_equal(first.raw, again.raw)


def check_leaves_its_input_alone(explainer: Explainer) -> None:
    """It runs on a batch that cannot be written to."""
    model, x, targets = _case()
    kept = x.copy()
    x.flags.writeable = False
    explainer.explain(model, x, targets)
    np.testing.assert_array_equal(x, kept)


def check_wrong_layer_is_reported(explainer: Explainer) -> None:
    """A layer that does not exist is an error that lists others; so is one without a grid."""
    if not any(f.name == "layer" for f in dataclasses.fields(explainer)):  # type: ignore[arg-type]
        return
    model, x, targets = _case()
    for layer, message in (("conv3", "conv2"), ("fc", "grid")):
        wrong: Any = dataclasses.replace(explainer, layer=layer)  # type: ignore[type-var]
        try:
            wrong.explain(model, x, targets)
        except UnknownLayerError as error:
            said = str(error)
        else:
            raise AssertionError(f"layer={layer!r} was taken")
        assert message in said, f"the message does not mention {message!r}: {said}"


def check_bad_target_is_reported(explainer: Explainer) -> None:
    """A class that does not exist, or too few targets, are errors of cnnviz."""
    model, x, targets = _case()
    for bad in ([ClassScore(99)] * len(x), targets[:1], []):
        try:
            explainer.explain(model, x, bad)
        except CnnvizError:
            continue
        raise AssertionError(f"the targets {bad} were taken for {len(x)} samples")


CHECKS: tuple[Callable[[Explainer], None], ...] = (
    check_is_a_dataclass_with_a_schema,
    check_declares_its_needs,
    check_result,
    check_batch_equals_single_samples,
    check_targets_matter,
    check_predicted_is_the_class_that_is_predicted,
    check_is_deterministic,
    check_leaves_its_input_alone,
    check_wrong_layer_is_reported,
    check_bad_target_is_reported,
)
"""Every check: a function of an explainer that raises AssertionError where it fails."""


def parametrize_with_checks(explainers: Sequence[Explainer]) -> Any:
    """Run a test with every check on every explainer.

    Parameters
    ----------
    explainers : sequence of Explainer
        Made with the parameters to test.

    Returns
    -------
    decorator
        For a test function with the arguments ``explainer`` and ``check``.
    """
    import pytest

    cases = [
        pytest.param(e, c, id=f"{type(e).__name__}-{c.__name__.removeprefix('check_')}")
        for e in explainers
        for c in CHECKS
    ]
    return pytest.mark.parametrize(("explainer", "check"), cases)
