"""Every method that is installed, with its defaults."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.task import Make, Section, Task
from cnnviz_core.registry import get_registry

_BESIDE = ("cam", "gradient")
"""The families whose defaults are as much work as what peers do."""


def _methods(make: Make) -> Iterator[Task]:
    """Walk the registry."""
    case = make(1)
    for method in get_registry().explainers:
        passes = case.passes(method)
        yield Task(
            case,
            method,
            case.ours(method),
            key=method if get_registry().spec(method).family in _BESIDE else "not beside peers",
            skipped=f"takes {passes:,} forward passes" if passes > case.work.budget else "",
        )


SECTIONS = (
    Section(
        "methods",
        "Every method, with its defaults",
        {"torch": ("mobilenet_v2",), "tensorflow": ("mobilenet_v2",)},
        _methods,
        ("captum", "torchcam", "pytorch-grad-cam", "zennit", "tf-keras-vis", "xplique"),
    ),
)
