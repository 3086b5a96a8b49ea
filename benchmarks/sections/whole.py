"""Whole calls, as users write them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import cnnviz
from benchmarks.case import CLASS
from benchmarks.task import Make, Section, Task

_METHODS = ("grad-cam", "layer-cam", "saliency")


def _whole(make: Make) -> Iterator[Task]:
    """One class, five classes, and several methods, maps of the picture's size included."""
    case = dataclasses.replace(make(1), classes=tuple(range(CLASS, CLASS + 5)))
    how: dict[str, Any] = {"layer": case.layer, "preprocessed": True}

    def explain() -> object:
        return cnnviz.explain(case.network, case.x, "grad-cam", CLASS, **how)

    def explain_five() -> object:
        return cnnviz.explain(case.network, case.x, "grad-cam", "top-5", **how)

    def compare() -> object:
        return cnnviz.compare(case.network, case.x, _METHODS, CLASS, **how)

    yield Task(case, "explain", explain, label="explain, grad-cam", key="grad-cam")
    yield Task(case, "explain", explain_five, label="explain, grad-cam, top-5", key="classes")
    yield Task(case, "compare", compare, label=f"compare, {', '.join(_METHODS)}")


SECTIONS = (
    Section(
        "whole",
        "Whole calls of cnnviz.explain and cnnviz.compare",
        {"torch": ("mobilenet_v2",), "tensorflow": ("mobilenet_v2",)},
        _whole,
        ("pytorch-grad-cam", "tf-keras-vis"),
    ),
)
