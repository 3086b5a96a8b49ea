"""What xplique does."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from xplique import attributions

from benchmarks.case import CLASS, Case, Way, Ways


def ways(case: Case) -> Ways:
    """Give what xplique does with a case; see `benchmarks.case.Ways`."""
    net, work = case.native, case.work
    size = work.batch_size
    layer = {"conv_layer": case.layer}
    made = partial(_way, case)
    return {
        "grad-cam": lambda: made(attributions.GradCAM(net, batch_size=size, **layer)),
        "classes": lambda: _classes(case),
        "grad-cam++": lambda: made(attributions.GradCAMPP(net, batch_size=size, **layer)),
        "saliency": lambda: made(attributions.Saliency(net, batch_size=size)),
        "gradient-x-input": lambda: made(attributions.GradientInput(net, batch_size=size)),
        "guided-backprop": lambda: made(attributions.GuidedBackprop(net, batch_size=size)),
        "deconvnet": lambda: made(attributions.DeconvNet(net, batch_size=size)),
        "integrated-gradients": lambda: made(
            attributions.IntegratedGradients(net, batch_size=size, steps=50)
        ),
        "smoothgrad": lambda: made(
            attributions.SmoothGrad(net, batch_size=size, nb_samples=25, noise=0.15)
        ),
        "occlusion": lambda: made(
            attributions.Occlusion(net, size, patch_size=work.window, patch_stride=work.stride)
        ),
        "rise": lambda: made(attributions.Rise(net, size, nb_samples=work.samples)),
        "lime": lambda: made(attributions.Lime(net, size, **_segmented(case))),
        "kernel-shap": lambda: made(attributions.KernelShap(net, size, **_segmented(case))),
        "sobol": lambda: made(
            attributions.SobolAttributionMethod(net, 8, work.designs, batch_size=size)
        ),
        "hsic": lambda: made(
            attributions.HsicAttributionMethod(net, 7, work.samples, batch_size=size)
        ),
    }


def _way(case: Case, method: Any) -> Way:
    """Explain one class on the batch."""
    one_hot = np.eye(1000, dtype=np.float32)[[CLASS] * len(case.x)]
    return lambda: method.explain(case.x, one_hot)


def _classes(case: Case) -> Way:
    """Give Grad-CAM for several classes of one picture: a row of the batch each."""
    method = attributions.GradCAM(
        case.native, batch_size=case.work.batch_size, conv_layer=case.layer
    )
    one_hot = np.eye(1000, dtype=np.float32)[list(case.classes)]
    rows = case.x.repeat(len(one_hot), axis=0)
    return lambda: method.explain(rows, one_hot)


def _segmented(case: Case) -> dict[str, Any]:
    """Give the parameters of the methods that switch segments off."""
    blocks = case.work.blocks.astype(np.int32)
    return {
        "map_to_interpret_space": lambda x: blocks,
        "nb_samples": case.work.samples,
        "ref_value": np.zeros(3),
    }
