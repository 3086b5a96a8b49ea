"""Makes the pictures of the pages on methods.

Run ``python docs/pictures.py WEIGHTS``: the demo network needs nothing, and the ImageNet network is
MobileNetV2 with the weights in the file WEIGHTS, an npz with torchvision's names, trained by
TensorFlow (so with its padding, and inputs in [-1, 1]).  The photographs are scikit-image's.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

import cnnviz
from cnnviz.demo import scenes

IMAGES = Path(__file__).parent / "images"

PAGES = {
    "cam": [
        "grad-cam",
        "grad-cam++",
        "xgrad-cam",
        "layer-cam",
        "hires-cam",
        "grad-cam-elementwise",
        "finer-cam",
        "counterfactual-grad-cam",
        "smooth-grad-cam++",
        "score-cam",
        "ablation-cam",
        "full-grad",
        "eigen-cam",
        "eigen-grad-cam",
        "kpca-cam",
        "fem",
        "deep-feature-factorisation",
    ],
    "gradient": [
        "saliency",
        "gradient-x-input",
        "smoothgrad",
        "smoothgrad-squared",
        "vargrad",
        "integrated-gradients",
        "blur-integrated-gradients",
        "guided-integrated-gradients",
        "expected-gradients",
        "guided-backprop",
        "deconvnet",
        "guided-grad-cam",
    ],
    "perturbation": ["occlusion", "score-cam", "ablation-cam"],
    "control": ["grad-cam", "random-cam", "centre-gaussian"],
    "wrapper": [
        "grad-cam",
        "noise-tunnel",
        "test-time-augmentation",
        "eigen-smoothing",
        "layer-fusion",
    ],
}


def imagenet(weights: Path) -> Any:
    """Give MobileNetV2 with its preprocessing and labels."""
    import torch
    from torch import nn

    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from support.torchvision_ops import define

    define()
    import torchvision

    net = torchvision.models.mobilenet_v2(weights=None).eval()
    with np.load(weights) as arrays:
        net.load_state_dict({k: torch.from_numpy(arrays[k]) for k in arrays.files})
    for block in list(net.modules()):
        if isinstance(block, nn.Sequential):
            for i, layer in enumerate(list(block)):
                if isinstance(layer, nn.Conv2d) and layer.stride == (2, 2):
                    # TensorFlow pads an even size on the right and at the bottom only.
                    layer.padding = (0, 0)
                    block[i] = nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), layer)
    steps = cnnviz.Preprocessing(size=(224, 224), resize=256, scale=1 / 127.5, mean=(1.0,))
    return cnnviz.wrap(net, preprocess=steps, labels="imagenet-1k", name="MobileNetV2")


def main() -> None:
    """Draw every sheet."""
    from skimage.data import chelsea, coffee

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", type=Path)
    parser.add_argument("--pages", nargs="+", default=list(PAGES), choices=list(PAGES))
    options = parser.parse_args()
    net = imagenet(options.weights)
    scene = scenes()[0][0]
    for page in options.pages:
        for name, model, picture, target in (
            ("imagenet", net, chelsea() if page == "gradient" else coffee(), None),
            ("demo", "demo", scene, None),
        ):
            comparison = cnnviz.compare(model, picture, PAGES[page], target)
            comparison.save(IMAGES / f"{page}-{name}.jpg")
            print(page, name, comparison.skipped)


if __name__ == "__main__":
    main()
