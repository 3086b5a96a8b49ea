"""Layer-wise relevance propagation."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.case import HIGH, LOW, Case, Way
from benchmarks.sections.cams import THREE
from benchmarks.task import Make, Section, Task
from cnnviz_core.model import INPUT
from cnnviz_core.registry import get_registry

_COMPOSITES = ("epsilon-plus", "epsilon-plus-flat", "epsilon-gamma-box", "epsilon-alpha2-beta1")


def _relevance(make: Make) -> Iterator[Task]:
    """From all the scores to the picture; ours starts from the user's network every time."""
    case = make(1)
    for name in _COMPOSITES:
        yield Task(case, "lrp", _ours(case, name), label=f"lrp {name}", key=f"lrp {name}")


def _ours(case: Case, composite: str) -> Way:
    """Propagate the relevance of all scores by one composite."""
    rule = get_registry().rule(composite)
    bounded = rule.bounded((LOW,), (HIGH,)) if rule.needs_bounds else rule
    return lambda: case.model.pullback(case.x, lambda value: value, wrt=(INPUT,), rule=bounded)


SECTIONS = (
    Section(
        "relevance",
        "Layer-wise relevance propagation, of all scores",
        {"torch": THREE, "tensorflow": THREE},
        _relevance,
        ("zennit",),
    ),
)
