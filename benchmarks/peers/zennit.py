"""What zennit does."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import torch
from zennit import attribution, composites
from zennit.canonizers import SequentialMergeBatchNorm
from zennit.torchvision import ResNetCanonizer

from benchmarks.case import CLASS, HIGH, LOW, Case, Way, Ways

_COMPOSITES = {
    "epsilon-plus": composites.EpsilonPlus,
    "epsilon-plus-flat": composites.EpsilonPlusFlat,
    "epsilon-gamma-box": partial(composites.EpsilonGammaBox, LOW, HIGH),
    "epsilon-alpha2-beta1": composites.EpsilonAlpha2Beta1,
}


def ways(case: Case) -> Ways:
    """Give what zennit does with a case; see `benchmarks.case.Ways`."""
    work = case.work
    rgb = case.tensor.shape[1]
    patch = {"window": (rgb, work.window, work.window), "stride": (rgb, work.stride, work.stride)}
    return {
        "saliency": partial(_attributed, case, attribution.Gradient),
        "guided-backprop": lambda: _attributed(
            case, attribution.Gradient, composite=composites.GuidedBackprop()
        ),
        "deconvnet": lambda: _attributed(
            case, attribution.Gradient, composite=composites.DeconvNet()
        ),
        "integrated-gradients": partial(
            _attributed, case, attribution.IntegratedGradients, n_iter=50
        ),
        "smoothgrad": partial(
            _attributed, case, attribution.SmoothGrad, n_iter=25, noise_level=0.15
        ),
        "occlusion": partial(_attributed, case, attribution.Occlusion, **patch),
        **{f"lrp {name}": partial(_relevance, case, name) for name in _COMPOSITES},
    }


def _attributed(case: Case, kind: Any, **settings: Any) -> Way:
    """Give one of its attributors, of one class."""
    x = case.tensor
    one_hot = torch.zeros(len(x), 1000, device=x.device)
    one_hot[:, CLASS] = 1

    def run() -> object:
        with kind(case.native, **settings) as method:
            return method(x.clone(), one_hot)

    return run


def _relevance(case: Case, name: str) -> Way:
    """Give the relevance of all scores; its composite is registered before the clock starts."""
    resnet = case.name.startswith("resnet")
    canonizer = ResNetCanonizer() if resnet else SequentialMergeBatchNorm()
    changed = copy.deepcopy(case.native)
    _COMPOSITES[name](canonizers=[canonizer]).register(changed)

    def run() -> object:
        leaf = case.tensor.clone().requires_grad_()
        scores = changed(leaf)
        return torch.autograd.grad(scores, leaf, scores.detach())

    return run
