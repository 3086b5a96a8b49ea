"""MobileNetV2 on PyTorch, and what captum and pytorch-grad-cam do with it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from support.torchvision_ops import define

define()

import captum.attr as captum  # noqa: E402
import pytorch_grad_cam as peer  # noqa: E402
import torchvision  # noqa: E402
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget  # noqa: E402

from cnnviz_torch.model import wrap  # noqa: E402

LAYER = "features.18"
CAMS = {
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


def network(x: np.ndarray, index: int) -> tuple[Any, str, Callable[[], object], dict, str]:
    """Give the network behind the protocol, its layer, a plain forward pass, and the peers."""
    torch.manual_seed(0)
    net = torchvision.models.mobilenet_v2(weights=None).eval()
    tensor = torch.from_numpy(x).permute(0, 3, 1, 2).contiguous()

    def forward() -> object:
        with torch.no_grad():
            return net(tensor)

    def cam(name: str) -> Callable[[], object]:
        # Made anew for each call: its hooks would stay on the network in the others' turns.
        def run() -> object:
            made = getattr(peer, name)(net, [net.get_submodule(LAYER)])
            try:
                return made(input_tensor=tensor, targets=[ClassifierOutputTarget(index)])
            finally:
                getattr(made, "base_cam", made).activations_and_grads.release()

        return run

    def noisy(kind: str) -> Callable[[], object]:
        tunnel = captum.NoiseTunnel(captum.Saliency(net))
        return lambda: tunnel.attribute(
            tensor.clone(), nt_type=kind, nt_samples=25, nt_samples_batch_size=16, target=index
        )

    zeros = torch.zeros_like(tensor)
    peers: dict[str, tuple[str, Callable[[], object]]] = {
        method: ("pytorch-grad-cam", cam(name))
        for method, name in CAMS.items()
        if hasattr(peer, name)
    }
    peers |= {
        method: ("captum", run)
        for method, run in {
            "saliency": lambda: captum.Saliency(net).attribute(tensor, target=index),
            "gradient-x-input": lambda: captum.InputXGradient(net).attribute(tensor, target=index),
            "smoothgrad": noisy("smoothgrad"),
            "smoothgrad-squared": noisy("smoothgrad_sq"),
            "vargrad": noisy("vargrad"),
            "integrated-gradients": lambda: captum.IntegratedGradients(net).attribute(
                tensor, n_steps=50, internal_batch_size=16, target=index
            ),
            "expected-gradients": lambda: captum.GradientShap(net).attribute(
                tensor, zeros, n_samples=50, target=index
            ),
            "occlusion": lambda: captum.Occlusion(net).attribute(
                tensor, (3, 32, 32), (3, 8, 8), target=index, perturbations_per_eval=16
            ),
        }.items()
    }
    title = f"MobileNetV2, torch {torch.__version__}, {torch.get_num_threads()} threads"
    return wrap(net, input_shape=(224, 224, 3)), LAYER, forward, peers, title
