"""Class activation maps at the last layer."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from benchmarks.case import CLASS, Case, Way
from benchmarks.task import Make, Section, Task
from cnnviz_core.layers import find_layer
from cnnviz_core.memo import MemoModel
from cnnviz_core.targets import ClassScore

THREE = ("resnet50", "vgg16", "mobilenet_v2")
_BOTH = {"torch": THREE, "tensorflow": THREE}

_METHODS = ("grad-cam", "grad-cam++", "xgrad-cam", "layer-cam", "hires-cam")
_KERAS = ("tf-keras-vis", "xplique")
_GRADIENTS = ("captum", "torchcam", "pytorch-grad-cam", *_KERAS)
_TOGETHER = (*_METHODS, "grad-cam-elementwise")


def _gradient_cams(make: Make) -> Iterator[Task]:
    """One picture by each method, and a batch."""
    case = make(1)
    for method in _METHODS:
        yield Task(case, method, case.ours(method))
    eight = make(8)
    yield Task(eight, "grad-cam", eight.ours("grad-cam"), label="grad-cam, batch of 8")


def _classes(make: Make) -> Iterator[Task]:
    """Several classes of one picture."""
    for count in (5, 100):
        case = dataclasses.replace(make(1), classes=tuple(range(CLASS, CLASS + count)))
        yield Task(
            case, "grad-cam", of_classes(case), label=f"grad-cam, {count} classes", key="classes"
        )


def of_classes(case: Case) -> Way:
    """Explain all classes of a case, of its one picture, by Grad-CAM.

    Parameters
    ----------
    case : Case

    Returns
    -------
    callable
    """
    explainer = case.explainer("grad-cam")
    targets = [ClassScore(k) for k in case.classes]
    rows = case.x.repeat(len(targets), axis=0)
    return lambda: explainer.explain(case.model, rows, targets)


def _together(make: Make) -> Iterator[Task]:
    """Several methods of one layer."""
    case = make(1)
    explainers = [case.explainer(method) for method in _TOGETHER]

    def run() -> object:
        memo = MemoModel(case.model, case.x)
        return [each.explain(memo, case.x, [ClassScore(CLASS)]) for each in explainers]

    yield Task(case, "together", run, label=f"{len(_TOGETHER)} gradient CAMs")


def _eigen(make: Make) -> Iterator[Task]:
    """The first principal component of a layer."""
    case = make(1)
    yield Task(case, "eigen-cam", case.ours("eigen-cam"))


def _ablation(make: Make) -> Iterator[Task]:
    """All channels of a layer, each switched off."""
    case = make(1)
    yield Task(case, "ablation-cam", case.ours("ablation-cam"))


def _score(make: Make) -> Iterator[Task]:
    """All channels of a layer, each a mask."""
    case = make(1)
    masks = find_layer(case.model.layers, case.layer).shape[-1]
    yield Task(case, "score-cam", case.ours("score-cam"), units=masks)


SECTIONS = (
    Section("cams", "Gradient CAMs at the last layer", _BOTH, _gradient_cams, _GRADIENTS),
    Section("classes", "Grad-CAM for many classes of one picture", _BOTH, _classes, _GRADIENTS),
    Section("together", "Many methods of one layer", _BOTH, _together),
    Section("eigen-cam", "Eigen-CAM", _BOTH, _eigen, ("pytorch-grad-cam",)),
    Section("ablation-cam", "Ablation-CAM, all channels", _BOTH, _ablation, ("pytorch-grad-cam",)),
    Section(
        "score-cam",
        "Score-CAM, all channels",
        _BOTH,
        _score,
        ("torchcam", "pytorch-grad-cam", "tf-keras-vis"),
        unit="a mask",
    ),
)
