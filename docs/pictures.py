"""Makes the pictures of the pages on methods, and of the page on inspectors.

Run ``python docs/pictures.py MOBILENET SQUEEZENET``: the demo network needs nothing, and the
ImageNet networks are MobileNetV2 and SqueezeNet 1.1 with the weights in these files, npz with
torchvision's names.  MobileNetV2 was trained by TensorFlow (so with its padding, and inputs in
[-1, 1]).  The photographs are scikit-image's.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

import cnnviz
from cnnviz.demo import scenes
from cnnviz.pictures import Cell, contact_sheet
from cnnviz.sheets import write_image

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


def squeezenet(weights: Path) -> Any:
    """Give SqueezeNet 1.1 with its preprocessing and labels."""
    import torch
    import torchvision

    net = torchvision.models.squeezenet1_1(weights=None).eval()
    with np.load(weights) as arrays:
        net.load_state_dict({k: torch.from_numpy(arrays[k]) for k in arrays.files})
    steps = cnnviz.Preprocessing(
        size=(224, 224), resize=256, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
    )
    return cnnviz.wrap(net, preprocess=steps, labels="imagenet-1k", name="SqueezeNet 1.1")


def cuttings(side: int = 150) -> list[Any]:
    """Cut photographs into many."""
    from skimage import data

    photographs = (data.astronaut(), data.chelsea(), data.coffee(), data.rocket(), data.retina())
    return [
        photograph[top : top + side, left : left + side]
        for photograph in photographs
        for top in range(0, photograph.shape[0] - side + 1, side // 2)
        for left in range(0, photograph.shape[1] - side + 1, side // 2)
    ]


ON_THE_DEMO = {
    "perturbation": [
        "occlusion",
        "rise",
        "sobol",
        "hsic",
        "lime",
        "kernel-shap",
        "hierarchical-occlusion",
        "minimal-sufficient-region",
        "counterfactual-region",
        "meaningful-perturbation",
        "extremal-perturbation",
        "xrai",
    ],
}
"""Methods that would take too long on a large network for the sake of a picture."""

COMPOSITES = (
    "lrp-0",
    "epsilon",
    "epsilon-plus",
    "epsilon-plus-flat",
    "epsilon-gamma-box",
    "epsilon-alpha2-beta1",
    "epsilon-alpha2-beta1-flat",
)


def relevance(net: Any) -> None:
    """Draw the sheets of the page on relevance methods."""
    from skimage.data import chelsea, coffee

    methods = ["c-mwp", "excitation-backprop", "lrp", "deep-taylor", "grad-cam"]
    two = np.concatenate([chelsea()[30:230, 20:420], coffee()[90:290, 140:540]])
    scene = scenes()[0]
    for name, model, picture, classes in (
        ("classes", net, two, ["espresso", "Egyptian cat"]),
        ("demo", "demo", scene[0].pixels, [mark.label for mark in scene[1]]),
    ):
        asked = named(dict.fromkeys(classes, picture))
        comparison = cnnviz.compare(model, asked, methods, target=classes)
        comparison.save(IMAGES / f"relevance-{name}.jpg")
        print("relevance", name, comparison.skipped)
    cup = coffee()[40:380, 110:450]
    tiles = [Cell(cup, "picture")]
    for composite in COMPOSITES:
        found = cnnviz.explain(net, cup, "lrp", composite=composite)
        tiles.append(Cell(found.overlay(), composite))
    drawn = contact_sheet([tiles[:4], tiles[4:]], title="espresso, by LRP", cell=240)
    write_image(drawn, IMAGES / "relevance-composites.jpg")


def inside(mobile: Any, squeeze: Any, only: list[str] | None) -> None:
    """Draw the sheets of the page on inspectors."""
    from skimage.data import astronaut, chelsea, coffee, rocket

    sheets: dict[str, tuple[Any, Any, dict[str, Any]]] = {
        "filters": (squeeze, None, {}),
        "features": (squeeze, chelsea(), {"layer": "features.1", "count": 20}),
        "receptive-fields": (squeeze, chelsea(), {}),
        "projections": (
            squeeze,
            cuttings(),
            {"layer": "features.4,features.7", "count": 4, "per_picture": 1},
        ),
        "maximisation": (mobile, None, {"layer": "features.14", "channels": "0-5"}),
        "class-model": (squeeze, None, {"target": ["goldfish", "flamingo", "tabby", "volcano"]}),
        "class-model-demo": ("demo", None, {"target": ["0", "3", "5", "8"]}),
        "inversion": (squeeze, chelsea(), {}),
        "dream": (mobile, coffee(), {}),
        "invariance": (mobile, [chelsea(), coffee()], {"transform": "rotate"}),
        "occlusion-analysis": (mobile, chelsea(), {}),
        "errors": (
            squeeze,
            {
                "cat.jpg": chelsea(),
                "cup.jpg": coffee(),
                "rocket.jpg": rocket(),
                "suit.jpg": astronaut(),
            },
            {"truth": ["tabby", "cup", "missile", "suit"]},
        ),
    }
    for name, (net, images, params) in sheets.items():
        if not only or name in only:
            shown = named(images) if isinstance(images, dict) else images
            found = cnnviz.inspect(net, name.removesuffix("-demo"), shown, **params)
            found.save(IMAGES / f"inside-{name}.jpg", dpi=96)
            print(name, found.title)


def named(pictures: dict[str, Any]) -> list[Any]:
    """Give pictures names."""
    from cnnviz.images import read_picture

    return [read_picture(pixels, name=name) for name, pixels in pictures.items()]


def main() -> None:
    """Draw every sheet."""
    from skimage.data import chelsea, coffee

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("mobilenet", type=Path)
    parser.add_argument("squeezenet", type=Path)
    pages = [*PAGES, "relevance", "inside"]
    parser.add_argument("--pages", nargs="+", default=pages, choices=pages)
    parser.add_argument("--only", nargs="+", help="inspectors of the page on these")
    options = parser.parse_args()
    net = imagenet(options.mobilenet)
    if "relevance" in options.pages:
        relevance(net)
    if "inside" in options.pages:
        inside(net, squeezenet(options.squeezenet), options.only)
    scene = scenes()[0][0]
    for page in [page for page in options.pages if page in PAGES]:
        for name, model, picture, target in (
            ("imagenet", net, chelsea() if page == "gradient" else coffee(), None),
            ("demo", "demo", scene, "5" if page in ON_THE_DEMO else None),
        ):
            methods = ON_THE_DEMO.get(page, PAGES[page]) if name == "demo" else PAGES[page]
            comparison = cnnviz.compare(model, picture, methods, target)
            comparison.save(IMAGES / f"{page}-{name}.jpg")
            print(page, name, comparison.skipped)


if __name__ == "__main__":
    main()
