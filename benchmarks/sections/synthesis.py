"""Activation maximisation."""

from __future__ import annotations

from collections.abc import Iterator

import cnnviz
from benchmarks.task import Make, Section, Task


def _maximisation(make: Make) -> Iterator[Task]:
    """The picture that excites one channel in the middle, each library with its own defaults."""
    case = make(1)
    side, steps = case.work.side, case.work.steps
    prepared = cnnviz.Preprocessing(size=(side, side), scale=1 / 127.5, mean=(1.0,))
    network = cnnviz.wrap(case.network, preprocess=prepared)

    def run() -> object:
        return cnnviz.inspect(network, "maximisation", layer=case.middle, channels="0", steps=steps)

    yield Task(case, "maximisation", run, label=f"maximisation, {steps} steps", units=steps)


SECTIONS = (
    Section(
        "maximisation",
        "Activation maximisation",
        {"torch": ("resnet50", "mobilenet_v2"), "tensorflow": ("resnet50", "mobilenet_v2")},
        _maximisation,
        ("lucent", "tf-keras-vis"),
        unit="a step",
    ),
)
