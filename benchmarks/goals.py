"""How little the work is to cost: at most so much of a forward pass, or of a peer's cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

PASS = "forward pass"


@dataclass(frozen=True)
class Goal:
    """The most that something may cost.

    Attributes
    ----------
    most : float
    of : str
        In what: plain forward passes, or a peer's cost.
    """

    most: float
    of: str = PASS


def _passes(**most: float) -> dict[str, Goal]:
    """Give goals in forward passes, by network."""
    return {network: Goal(value) for network, value in most.items()}


def _each(most: float) -> dict[str, Goal]:
    """Give the three networks one goal in forward passes."""
    return _passes(resnet50=most, vgg16=most, mobilenet_v2=most)


_CAM = _passes(resnet50=0.95, vgg16=1.06, mobilenet_v2=0.95)

_TORCH: Mapping[tuple[str, str], Mapping[str, Goal]] = {
    ("cams", "grad-cam"): _CAM,
    ("cams", "grad-cam++"): _CAM,
    ("cams", "xgrad-cam"): _CAM,
    ("cams", "layer-cam"): _CAM,
    ("cams", "hires-cam"): _CAM,
    ("cams", "grad-cam, batch of 8"): _each(1.05),
    ("classes", "grad-cam, 5 classes"): _each(1.2),
    ("classes", "grad-cam, 100 classes"): _each(3.5),
    ("together", "6 gradient CAMs"): _each(1.2),
    ("eigen-cam", "eigen-cam"): _each(1.05),
    ("ablation-cam", "ablation-cam"): _passes(resnet50=1.05, vgg16=2.5, mobilenet_v2=1.05),
    ("score-cam", "score-cam"): _passes(resnet50=0.7, vgg16=0.85, mobilenet_v2=0.5),
    ("gradients", "saliency"): _passes(resnet50=2.0, vgg16=1.9, mobilenet_v2=1.9),
    ("gradients", "guided-backprop"): _each(2.1),
    ("gradients", "integrated-gradients"): _passes(resnet50=90, vgg16=90, mobilenet_v2=75),
    ("gradients", "smoothgrad"): _each(45),
    ("relevance", "lrp epsilon-plus-flat"): _each(6),
    ("occlusion", "occlusion"): {
        "vgg16": Goal(1 / 6, "captum"),
        "squeezenet1_0": Goal(1 / 6, "captum"),
        "mobilenet_v2": Goal(1 / 5, "captum"),
        "resnet18": Goal(1 / 3, "captum"),
        "resnet50": Goal(1 / 2.5, "captum"),
        "densenet121": Goal(1 / 2, "captum"),
    },
}

_TENSORFLOW: Mapping[tuple[str, str], Mapping[str, Goal]] = {
    ("cams", method): _each(1.15)
    for method in (
        "grad-cam",
        "grad-cam++",
        "xgrad-cam",
        "layer-cam",
        "hires-cam",
        "grad-cam, batch of 8",
    )
}


def goal_of(framework: str, section: str, label: str, network: str) -> Goal | None:
    """Find the goal of a task, at 224 x 224 on one thread of a processor.

    Parameters
    ----------
    framework, section, label, network : str
        As the rows of the tables have them.

    Returns
    -------
    Goal or None
    """
    goals = _TORCH if framework == "torch" else _TENSORFLOW
    return goals.get((section, label), {}).get(network)
