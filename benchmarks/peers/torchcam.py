"""What torchcam does."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torchcam import methods

from benchmarks.case import CLASS, Case, Way, Ways

_OF_GRADIENTS = {
    "grad-cam": "GradCAM",
    "grad-cam++": "GradCAMpp",
    "xgrad-cam": "XGradCAM",
    "layer-cam": "LayerCAM",
}
_OF_MASKS = {"score-cam": "ScoreCAM", "ss-cam": "SSCAM", "is-cam": "ISCAM"}


def ways(case: Case) -> Ways:
    """Give what torchcam does with a case; see `benchmarks.case.Ways`."""
    asked = {method: partial(_gradients, case, name) for method, name in _OF_GRADIENTS.items()}
    masked = {method: partial(_masks, case, name) for method, name in _OF_MASKS.items()}
    return {**asked, **masked, "classes": partial(_gradients, case, "GradCAM", case.classes)}


def _gradients(case: Case, name: str, classes: tuple[int, ...] = (CLASS,)) -> Way:
    """Give a method that differentiates, for classes one after the other of one forward pass."""

    def run() -> object:
        with getattr(methods, name)(case.native, case.layer) as cam:
            scores = case.native(case.tensor)
            more = len(classes) > 1
            return [cam(k, scores, **({"retain_graph": True} if more else {})) for k in classes]

    return run


def _masks(case: Case, name: str) -> Way:
    """Give a method that asks of masked pictures."""
    size: dict[str, Any] = {"batch_size": case.work.batch_size}

    def run() -> object:
        with getattr(methods, name)(case.native, case.layer, **size) as cam, torch.no_grad():
            case.native(case.tensor)
            return cam(CLASS)

    return run
