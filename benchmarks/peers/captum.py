"""What captum does."""

from __future__ import annotations

import torch
from captum import attr

from benchmarks.case import CLASS, Case, Way, Ways


def ways(case: Case) -> Ways:
    """Give what captum does with a case; see `benchmarks.case.Ways`."""
    net, x = case.native, case.tensor
    zeros = torch.zeros_like(x)

    def layer() -> torch.nn.Module:
        return net.get_submodule(case.layer)

    def simple(method: attr.Attribution) -> Way:
        return lambda: method.attribute(x, target=CLASS)

    def classes() -> Way:
        method = attr.LayerGradCam(net, layer())
        return lambda: [method.attribute(x, target=k) for k in case.classes]

    def noisy(kind: str) -> Way:
        tunnel = attr.NoiseTunnel(attr.Saliency(net))
        return lambda: tunnel.attribute(
            x.clone(), nt_type=kind, nt_samples=25, nt_samples_batch_size=16, target=CLASS
        )

    def integrated() -> Way:
        method = attr.IntegratedGradients(net)
        return lambda: method.attribute(x, n_steps=50, internal_batch_size=16, target=CLASS)

    def expected() -> Way:
        method = attr.GradientShap(net)
        return lambda: method.attribute(x, zeros, n_samples=50, target=CLASS)

    return {
        "grad-cam": lambda: simple(attr.LayerGradCam(net, layer())),
        "classes": classes,
        "guided-grad-cam": lambda: simple(attr.GuidedGradCam(net, layer())),
        "saliency": lambda: simple(attr.Saliency(net)),
        "gradient-x-input": lambda: simple(attr.InputXGradient(net)),
        "guided-backprop": lambda: simple(attr.GuidedBackprop(net)),
        "deconvnet": lambda: simple(attr.Deconvolution(net)),
        "smoothgrad": lambda: noisy("smoothgrad"),
        "smoothgrad-squared": lambda: noisy("smoothgrad_sq"),
        "vargrad": lambda: noisy("vargrad"),
        "integrated-gradients": integrated,
        "expected-gradients": expected,
        **_masked(case),
    }


def _masked(case: Case) -> Ways:
    """Give the methods that ask of changed pictures."""
    net, x, work = case.native, case.tensor, case.work
    batched = {"target": CLASS, "baselines": 0.0, "perturbations_per_eval": work.batch_size}

    def occlusion() -> Way:
        method, channels = attr.Occlusion(net), x.shape[1]
        window, stride = ((channels, n, n) for n in (work.window, work.stride))
        return lambda: method.attribute(x, window, stride, **batched)

    def segmented(method: attr.Attribution, labels: object, samples: int) -> Way:
        mask = torch.as_tensor(labels, device=x.device)[None, None]
        return lambda: method.attribute(x, feature_mask=mask, n_samples=samples, **batched)

    # All orders of 8 would be 8!; so many, drawn, take as many passes as all coalitions.
    orders = 2**8 // 8
    return {
        "occlusion": occlusion,
        "lime": lambda: segmented(attr.Lime(net), work.blocks, work.samples),
        "kernel-shap": lambda: segmented(attr.KernelShap(net), work.blocks, work.samples),
        "shapley-values": lambda: segmented(attr.ShapleyValueSampling(net), work.few, orders),
    }
