"""Every installed metric passes the checks for metrics, and is announced as it is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cnnviz_core.registry import get_registry
from cnnviz_core.testing.metrics import parametrize_with_checks
from support.metrics import brief_metric

METRICS = get_registry().metrics


@parametrize_with_checks([brief_metric(name) for name in METRICS])
def test_every_metric(metric, check):
    check(metric)


@pytest.mark.parametrize("name", METRICS)
def test_what_is_announced_is_true(name):
    spec, metric = METRICS[name], get_registry().metric(name)
    assert metric.needs == spec.needs
    assert spec.family in {"localisation", "faithfulness", "robustness", "complexity", "sanity"}
    assert spec.summary
    assert not spec.summary.endswith(".")
    assert all(re.search(r"\b(?:19|20)\d\d\b", reference) for reference in spec.references)
    tells = hasattr(metric, "passes") or hasattr(metric, "explanations")
    assert (spec.cost == "none") == (not tells)


def test_every_metric_is_on_its_page():
    page = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
    assert [name for name in METRICS if f"`{name}`" not in page] == []
