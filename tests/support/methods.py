"""Methods as tests run them on every backend."""

from __future__ import annotations

from cnnviz_core.registry import get_registry

FEW = {"samples": 2, "steps": 3, "nodes": 3, "draws": 2, "channels": 5, "concepts": 2}


def brief(method, **params):
    """Make a method with fewer draws, steps and channels than by default: parity needs no more."""
    known = {parameter.name: parameter for parameter in get_registry().parameters(method)}
    few = {name: n for name, n in FEW.items() if name in known and int in known[name].types}
    return get_registry().explainer(method, **{**few, **params})
