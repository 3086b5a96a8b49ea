"""Announces the metrics of maps."""

from __future__ import annotations

from cnnviz_core.hookspecs import hookimpl
from cnnviz_core.specs import MetricSpec


@hookimpl
def cnnviz_metrics() -> list[MetricSpec]:
    """Announce the metrics of maps."""
    return []
