"""Methods as tests run them on every backend."""

from __future__ import annotations

from cnnviz_core.registry import get_registry

FEW = {"samples": 2, "steps": 3, "nodes": 3, "draws": 2, "channels": 5, "concepts": 2, "cells": 3}

LIGHT = {
    "hsic": {"samples": 12},
    "hierarchical-occlusion": {"samples": 12},
    "kernel-shap": {"segments": 4, "segmentation": "grid", "samples": 12},
    "lime": {"segments": 4, "segmentation": "grid", "samples": 12},
    "rise": {"samples": 12},
    "shapley-values": {"segments": 4, "segmentation": "grid"},
}
"""What some methods need to be told beside, or in the place of, the few draws of all."""


def light(method):
    """Give parameters with which a method does as little work as makes sense."""
    known = {parameter.name: parameter for parameter in get_registry().parameters(method)}
    few = {name: n for name, n in FEW.items() if name in known and int in known[name].types}
    return {**few, **LIGHT.get(method, {})}


def bearable(method):
    """Give parameters with which a method that asks a network thousands of times does not."""
    return light(method) if get_registry().spec(method).family == "perturbation" else {}


def brief(method, **params):
    """Make a method with fewer draws, steps and channels than by default: parity needs no more."""
    return get_registry().explainer(method, **{**light(method), **params})
