"""Metrics with settings that are quickly done."""

from __future__ import annotations

from cnnviz_core.parameters import parameters_of
from cnnviz_core.registry import get_registry

FEW = {"steps": 5, "samples": 8, "draws": 3, "cells": 3, "fractions": 4}
"""By the parameters' names: few of what takes many."""


def brief_metric(name):
    """Make a metric that does little."""
    registry = get_registry()
    takes = {parameter.name for parameter in parameters_of(registry.metric_class(name))}
    return registry.metric(name, **{key: few for key, few in FEW.items() if key in takes})
