"""Grad-CAM at the last layer on PyTorch: cnnviz beside captum and pytorch-grad-cam.

Run ``python benchmarks/grad_cam_torch.py``; it needs torchvision, captum and grad-cam.  The
networks have random weights: the cost does not depend on them.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from interleaved import measure, show

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from support.torchvision_ops import define

define()

import torchvision  # noqa: E402
from captum.attr import LayerGradCam  # noqa: E402
from pytorch_grad_cam import GradCAM as PeerGradCAM  # noqa: E402
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget  # noqa: E402

from cnnviz_core.registry import get_registry  # noqa: E402
from cnnviz_core.targets import ClassScore  # noqa: E402
from cnnviz_torch.model import wrap  # noqa: E402

LAYERS = {"resnet50": "layer4", "vgg16": "features.29", "mobilenet_v2": "features.18"}


def ways_of(network: str, batch: int) -> dict[str, Callable[[], object]]:
    """Give the ways of making one batch's maps for class 281."""
    torch.manual_seed(0)
    net = getattr(torchvision.models, network)(weights=None).eval()
    x = np.random.default_rng(0).normal(size=(batch, 224, 224, 3)).astype(np.float32)
    tensor = torch.from_numpy(x).permute(0, 3, 1, 2).contiguous()
    layer = net.get_submodule(LAYERS[network])
    explainer = get_registry().explainer("grad-cam", layer=LAYERS[network])
    model = wrap(net, input_shape=(224, 224, 3))
    captum = LayerGradCam(net, layer)
    peer = PeerGradCAM(net, [layer])

    def forward() -> object:
        with torch.no_grad():
            return net(tensor)

    def hooked(run: Callable[[], object]) -> Callable[[], object]:
        # pytorch-grad-cam keeps its hooks on the network: take them off for the others' turns.
        def with_hooks() -> object:
            peer.activations_and_grads.__init__(net, [layer], None)
            try:
                return run()
            finally:
                peer.activations_and_grads.release()

        return with_hooks

    peer.activations_and_grads.release()
    return {
        "plain forward": forward,
        "cnnviz": lambda: explainer.explain(model, x, [ClassScore(281)] * batch),
        "captum": lambda: captum.attribute(tensor, target=281),
        "pytorch-grad-cam": hooked(
            lambda: peer(input_tensor=tensor, targets=[ClassifierOutputTarget(281)] * batch)
        ),
    }


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", default=list(LAYERS), choices=list(LAYERS))
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    results = {n: measure(ways_of(n, options.batch), options.rounds) for n in options.networks}
    show(
        f"Grad-CAM, last layer, 224 x 224, batch {options.batch}, torch {torch.__version__}, "
        f"{torch.get_num_threads()} threads",
        results,
        "plain forward",
    )


if __name__ == "__main__":
    main()
