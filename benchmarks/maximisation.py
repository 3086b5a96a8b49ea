"""A step of activation maximisation: cnnviz beside lucent on PyTorch, tf-keras-vis on TensorFlow.

Run ``python benchmarks/maximisation.py torch`` (needs torchvision, torch-lucent and kornia) or
``python benchmarks/maximisation.py tensorflow`` (needs tf-keras-vis).  The networks have random
weights: the cost does not depend on them.
"""

from __future__ import annotations

import argparse
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from interleaved import measure, show

import cnnviz

STEPS = 16
LAYERS = {
    "torch": {"resnet50": "layer3", "mobilenet_v2": "features.14"},
    "tensorflow": {"ResNet50": "conv4_block6_out", "MobileNetV2": "block_14_add"},
}
Ways = dict[str, Callable[[], object]]


def ours(net: Any, layer: str, forward: Callable[[Any], object]) -> Ways:
    """Give our ways: a plain forward pass, and an ascent."""
    network = cnnviz.wrap(
        net, preprocess=cnnviz.Preprocessing(size=(224, 224), scale=1 / 127.5, mean=(1.0,))
    )
    x = np.random.default_rng(0).normal(size=(1, 224, 224, 3)).astype(np.float32)

    def ascent() -> object:
        return cnnviz.inspect(network, "maximisation", layer=layer, channels="0", steps=STEPS)

    return {f"{STEPS} forward": lambda: [forward(x) for _ in range(STEPS)], "cnnviz": ascent}


def torch_ways(name: str, layer: str) -> Ways:
    """Give cnnviz and lucent on PyTorch."""
    import torch

    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from support.torchvision_ops import define

    define()
    import torchvision

    torch.manual_seed(0)
    net = getattr(torchvision.models, name)(weights=None).eval()

    def forward(x: Any) -> object:
        with torch.no_grad():
            return net(torch.from_numpy(x).permute(0, 3, 1, 2))

    param, render = lucent()
    objective = f"{layer.replace('.', '_')}:0"

    def theirs() -> object:
        return render.render_vis(
            net,
            objective,
            param_f=lambda: param.image(224),
            thresholds=(STEPS,),
            show_image=False,
            progress=False,
        )

    return {**ours(net, layer, forward), "lucent": theirs}


def lucent() -> tuple[Any, Any]:
    """Import lucent, with what it expects of IPython and of older versions of kornia."""
    import kornia
    from kornia.geometry import transform

    for name in ("get_rotation_matrix2d", "warp_affine", "warp_perspective"):
        setattr(kornia, name, getattr(transform, name))
    display = types.ModuleType("IPython.display")
    display.display = display.Image = display.HTML = lambda *args, **kwargs: None  # type: ignore[attr-defined]
    sys.modules.setdefault("IPython", types.ModuleType("IPython"))
    sys.modules.setdefault("IPython.display", display)
    from lucent.optvis import param, render

    return param, render


def tensorflow_ways(name: str, layer: str) -> Ways:
    """Give cnnviz and tf-keras-vis on TensorFlow."""
    import keras
    import tensorflow as tf
    from tf_keras_vis.activation_maximization import ActivationMaximization
    from tf_keras_vis.utils.model_modifiers import ExtractIntermediateLayer

    keras.utils.set_random_seed(0)
    net = getattr(keras.applications, name)(weights=None)
    traced = tf.function(net)
    peer = ActivationMaximization(net, ExtractIntermediateLayer(layer), clone=True)

    def theirs() -> object:
        return peer(lambda value: value[..., 0], steps=STEPS)

    return {**ours(net, layer, lambda x: traced(tf.constant(x)).numpy()), "tf-keras-vis": theirs}


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("backend", choices=list(LAYERS))
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    ways_of = torch_ways if options.backend == "torch" else tensorflow_ways
    results = {
        network: measure(ways_of(network, layer), options.rounds, warm_up=1)
        for network, layer in LAYERS[options.backend].items()
    }
    show(f"{STEPS} steps of activation maximisation", results, f"{STEPS} forward")


if __name__ == "__main__":
    main()
