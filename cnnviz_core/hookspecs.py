"""The hooks that a plugin may implement.

A distribution registers a small module under the entry-point group ``cnnviz``; the module
implements one or more of these hooks with `hookimpl`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import pluggy

from cnnviz_core.specs import BackendSpec, ExplainerSpec, InspectorSpec, MetricSpec, RuleSpec

__all__ = [
    "GROUP",
    "cnnviz_backends",
    "cnnviz_explainers",
    "cnnviz_inspectors",
    "cnnviz_metrics",
    "cnnviz_rules",
    "hookimpl",
]

GROUP: Final = "cnnviz"
"""The entry-point group, and the name of the pluggy project."""

hookimpl: Final = pluggy.HookimplMarker(GROUP)
"""Marks a function of a plugin as the implementation of a hook."""

_hookspec = pluggy.HookspecMarker(GROUP)


@_hookspec
def cnnviz_explainers() -> Iterable[ExplainerSpec]:  # type: ignore[empty-body]
    """Announce explainers."""


@_hookspec
def cnnviz_inspectors() -> Iterable[InspectorSpec]:  # type: ignore[empty-body]
    """Announce inspectors."""


@_hookspec
def cnnviz_backends() -> Iterable[BackendSpec]:  # type: ignore[empty-body]
    """Announce backends."""


@_hookspec
def cnnviz_rules() -> Iterable[RuleSpec]:  # type: ignore[empty-body]
    """Announce rules of relevance."""


@_hookspec
def cnnviz_metrics() -> Iterable[MetricSpec]:  # type: ignore[empty-body]
    """Announce metrics of maps."""
