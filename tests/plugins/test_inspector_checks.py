"""Every built-in inspector passes the checks for inspectors, on NumPy alone."""

from __future__ import annotations

import pytest

from cnnviz_core.registry import get_registry
from cnnviz_core.testing.inspectors import parametrize_with_checks
from support.inspectors import BRIEF

INSPECTORS = get_registry().inspectors
BUILT_IN = [get_registry().inspector(name, **BRIEF.get(name, {})) for name in INSPECTORS]

SPELT = {
    "kernels": "filters",
    "FeatureMaps": "features",
    "activations": "features",
    "ReceptiveField": "receptive-fields",
    "TopActivations": "projections",
    "lucid": "maximisation",
    "ActivationMaximization": "maximisation",
    "FeatureVisualization": "maximisation",
    "ClassModelImage": "class-model",
    "FeatureInversion": "inversion",
    "DeepDream": "dream",
    "Inceptionism": "dream",
    "ErrorAnalysis": "errors",
}
"""The same under other names."""


@parametrize_with_checks(BUILT_IN)
def test_built_in(inspector, check):
    check(inspector)


@pytest.mark.parametrize("spelt", SPELT)
def test_an_inspector_is_found_by_its_other_names(spelt):
    assert get_registry().inspector_spec(spelt).name == SPELT[spelt]


@pytest.mark.parametrize("name", list(INSPECTORS))
def test_what_is_announced_is_what_the_class_says(name):
    spec, inspector = INSPECTORS[name], get_registry().inspector(name)
    assert spec.needs <= inspector.needs
    assert spec.cost
    assert spec.summary[0].isupper()
    assert not spec.summary.endswith(".")
    assert spec.references or name == "errors"
