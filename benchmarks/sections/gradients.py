"""Gradients at the input."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.sections.cams import THREE
from benchmarks.task import Make, Section, Task

_METHODS = ("saliency", "guided-backprop", "smoothgrad", "integrated-gradients")


def _gradients(make: Make) -> Iterator[Task]:
    """One gradient, 25 of noisy copies and 50 along a path."""
    case = make(1)
    for method in _METHODS:
        yield Task(case, method, case.ours(method))


SECTIONS = (
    Section(
        "gradients",
        "Gradients at the input (smoothgrad: 25 draws, integrated-gradients: 50 steps)",
        {"torch": THREE, "tensorflow": THREE},
        _gradients,
        ("captum", "zennit", "tf-keras-vis", "xplique"),
    ),
)
