"""Methods that ask a network of changed pictures."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.case import Case
from benchmarks.task import Make, Section, Task

_METHODS = ("rise", "lime", "kernel-shap", "shapley-values", "sobol", "hsic")


def _occlusion(make: Make) -> Iterator[Task]:
    """A window that moves over the picture."""
    case = make(1)
    yield Task(
        case,
        "occlusion",
        case.ours("occlusion", **case.work.settings("occlusion")),
        units=case.work.positions,
    )


def _masks(make: Make) -> Iterator[Task]:
    """As many masks for every library, as many at once."""
    case = make(1)
    for method in _METHODS:
        yield _masked(case, method)


def _masked(case: Case, method: str) -> Task:
    """One method, for as much work as its peers."""
    settings = case.work.settings(method)
    passes = case.passes(method, **settings)
    return Task(case, method, case.ours(method, **settings), units=passes)


SECTIONS = (
    Section(
        "occlusion",
        "Occlusion",
        {
            "torch": (
                "vgg16",
                "squeezenet1_0",
                "mobilenet_v2",
                "resnet18",
                "resnet50",
                "densenet121",
            ),
            "tensorflow": ("mobilenet_v2", "resnet50"),
        },
        _occlusion,
        ("captum", "zennit", "xplique"),
        unit="a position",
    ),
    Section(
        "masks",
        "Random masks, cells and segments",
        {"torch": ("nothing", "mobilenet_v2"), "tensorflow": ("nothing", "mobilenet_v2")},
        _masks,
        ("captum", "xplique"),
        unit="a mask",
    ),
)
