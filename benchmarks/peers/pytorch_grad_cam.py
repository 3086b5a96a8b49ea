"""What pytorch-grad-cam does."""

from __future__ import annotations

from functools import partial
from typing import TypeAlias

import pytorch_grad_cam
import torch
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

from benchmarks.case import CLASS, Case, Way, Ways

_NAMES = {
    "grad-cam": "GradCAM",
    "grad-cam++": "GradCAMPlusPlus",
    "xgrad-cam": "XGradCAM",
    "layer-cam": "LayerCAM",
    "hires-cam": "HiResCAM",
    "grad-cam-elementwise": "GradCAMElementWise",
    "eigen-cam": "EigenCAM",
    "eigen-grad-cam": "EigenGradCAM",
    "kpca-cam": "KPCA_CAM",
    "fem": "FEM",
    "score-cam": "ScoreCAM",
    "ablation-cam": "AblationCAM",
    "finer-cam": "FinerCAM",
    "shapley-cam": "ShapleyCAM",
    "full-grad": "FullGrad",
    "random-cam": "RandomCAM",
}
_TOGETHER = 8
"""How many classes of one picture are asked for at once: a row of the batch each."""

Asked: TypeAlias = tuple[torch.Tensor, list[int]]
"""A batch, and the class of each of its rows."""


def ways(case: Case) -> Ways:
    """Give what pytorch-grad-cam does with a case; see `benchmarks.case.Ways`."""
    known = {method: name for method, name in _NAMES.items() if hasattr(pytorch_grad_cam, name)}
    once = [(case.tensor, [CLASS] * len(case.x))]
    made = {method: partial(_way, case, name, once) for method, name in known.items()}
    return {**made, "classes": lambda: _way(case, "GradCAM", _repeated(case))}


def _repeated(case: Case) -> list[Asked]:
    """Give the batches in which several classes of one picture are asked for."""
    starts = range(0, len(case.classes), _TOGETHER)
    asked = [case.classes[start : start + _TOGETHER] for start in starts]
    return [(case.tensor.repeat(len(some), 1, 1, 1), list(some)) for some in asked]


def _way(case: Case, name: str, asked: list[Asked]) -> Way:
    """Give one of its methods, for batches with a class for each row."""
    batches = [(x, [ClassifierOutputTarget(k) for k in classes]) for x, classes in asked]
    layer = case.native.get_submodule(case.layer)

    # Made anew for each call: its hooks would stay on the network in the others' turns.
    def run() -> object:
        cam = getattr(pytorch_grad_cam, name)(case.native, [layer])
        try:
            return [cam(input_tensor=x, targets=targets) for x, targets in batches]
        finally:
            getattr(cam, "base_cam", cam).activations_and_grads.release()

    return run
