"""Networks on PyTorch, and what captum and pytorch-grad-cam do with them, where installed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from peers import optional

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from support.torchvision_ops import define

define()

import torchvision  # noqa: E402

from cnnviz_torch.model import wrap  # noqa: E402

if TYPE_CHECKING:
    from blackbox import Work

captum = optional("captum.attr")
peer = optional("pytorch_grad_cam")

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


Peers = dict[str, tuple[str, Callable[[], object]]]


def network(x: np.ndarray, index: int) -> tuple[Any, str, Callable[[], object], Peers, str]:
    """Give the network behind the protocol, its layer, a plain forward pass, and the peers."""
    net = masked_networks()["mobilenet_v2"]()
    tensor = channels_first(x)
    peers = {**cams(net, tensor, index), **gradients(net, tensor, index)}
    return (
        wrap(net, input_shape=(224, 224, 3)),
        LAYER,
        plain_pass(net, x),
        peers,
        title("MobileNetV2"),
    )


def title(what: str) -> str:
    """Say what was measured, and on what."""
    return f"{what}, torch {torch.__version__}, {torch.get_num_threads()} threads"


def channels_first(x: np.ndarray) -> torch.Tensor:
    """Give a batch as PyTorch has it."""
    return torch.from_numpy(x).permute(0, 3, 1, 2).contiguous()


def plain_pass(net: torch.nn.Module, x: np.ndarray) -> Callable[[], object]:
    """Give a plain forward pass of a batch, without gradients."""
    tensor = channels_first(x)

    def forward() -> object:
        with torch.no_grad():
            return net(tensor)

    return forward


def cams(net: torch.nn.Module, tensor: torch.Tensor, index: int) -> Peers:
    """Give the CAMs of pytorch-grad-cam."""
    if peer is None:
        return {}
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    def cam(name: str) -> Callable[[], object]:
        # Made anew for each call: its hooks would stay on the network in the others' turns.
        def run() -> object:
            made = getattr(peer, name)(net, [net.get_submodule(LAYER)])
            try:
                return made(input_tensor=tensor, targets=[ClassifierOutputTarget(index)])
            finally:
                getattr(made, "base_cam", made).activations_and_grads.release()

        return run

    return {
        method: ("pytorch-grad-cam", cam(name))
        for method, name in CAMS.items()
        if hasattr(peer, name)
    }


def gradients(net: torch.nn.Module, tensor: torch.Tensor, index: int) -> Peers:
    """Give the gradient methods of captum, and its occlusion."""
    if captum is None:
        return {}

    def noisy(kind: str) -> Callable[[], object]:
        tunnel = captum.NoiseTunnel(captum.Saliency(net))
        return lambda: tunnel.attribute(
            tensor.clone(), nt_type=kind, nt_samples=25, nt_samples_batch_size=16, target=index
        )

    zeros = torch.zeros_like(tensor)
    ways = {
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
    }
    return {method: ("captum", run) for method, run in ways.items()}


class Nothing(torch.nn.Module):
    """A network that costs nothing: scores of one pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.scores = torch.nn.Linear(3, 1000)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Score (N, 3, H, W)."""
        return self.scores(x[:, :, 0, 0])


def small() -> torch.nn.Module:
    """Make two convolutions with steps of two, and a linear layer."""
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 16, 3, 2),
        torch.nn.ReLU(),
        torch.nn.Conv2d(16, 32, 3, 2),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(32, 1000),
    )


def masked_networks() -> Mapping[str, Callable[[], torch.nn.Module]]:
    """Give what makes each network on which black-box methods are timed, "nothing" among them."""

    def seeded(make: Callable[[], torch.nn.Module]) -> Callable[[], torch.nn.Module]:
        def made() -> torch.nn.Module:
            torch.manual_seed(0)
            return make().eval()

        return made

    models = torchvision.models
    return {
        "nothing": seeded(Nothing),
        "small": seeded(small),
        "squeezenet1_1": seeded(lambda: models.squeezenet1_1(weights=None)),
        "mobilenet_v2": seeded(lambda: models.mobilenet_v2(weights=None)),
    }


def masked(net: torch.nn.Module, x: np.ndarray, index: int, work: Work) -> Peers:
    """Give captum's black-box methods, for as much work as ours."""
    if captum is None:
        return {}
    tensor = channels_first(x)
    blocks, few = (torch.from_numpy(labels)[None, None] for labels in (work.blocks, work.few))
    batched = {"target": index, "baselines": 0.0, "perturbations_per_eval": work.batch_size}
    lime, shap = captum.Lime(net), captum.KernelShap(net)
    ways = {
        "occlusion": lambda: captum.Occlusion(net).attribute(
            tensor, (3, work.window, work.window), (3, work.stride, work.stride), **batched
        ),
        "lime": lambda: lime.attribute(
            tensor, feature_mask=blocks, n_samples=work.samples, **batched
        ),
        "kernel-shap": lambda: shap.attribute(
            tensor, feature_mask=blocks, n_samples=work.samples, **batched
        ),
        # All orders would be 8!; so many of them, drawn, take as many passes as all coalitions.
        "shapley-values": lambda: captum.ShapleyValueSampling(net).attribute(
            tensor, feature_mask=few, n_samples=2**8 // 8, **batched
        ),
    }
    return {method: ("captum", run) for method, run in ways.items()}
