"""The localisation table of the literature, on annotated photographs of ImageNet's classes.

Backprop (saliency, as it is and smoothed), c-MWP, Grad-CAM and, where the network allows it, CAM,
beside a bump in the centre of the picture; for SqueezeNet 1.1 and MobileNetV2:

* top-1 and top-5 error: the share of pictures of which no guess has both the right class and a
  right box, an overlap of at least a half; the box is put around the largest component above 15 %
  of the map's maximum;
* box error: the share of wrong boxes, if the class is given;
* pointing: the share of hottest pixels at most 15 pixels from a true box (the mean over classes);
* MaxBoxAccV2: the share of right boxes at the threshold that suits the method best.

Run ``CNNVIZ_TEST_DATA=FOLDER python examples/localisation_table.py``.  The folder holds photographs
of ILSVRC's validation set, warped to 227 x 227, with their boxes, and the networks' weights
(``photographs`` and ``networks`` below say in which form); neither comes with cnnviz.  For your own
copy of ILSVRC and torchvision's networks, ``cnnviz evaluate`` does the same: see
``docs/experiments.md``.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cnnviz
from cnnviz.evaluation import Evaluation, plan

METHODS = {
    "backprop (saliency)": "saliency",
    "backprop, smoothed": "gaussian-smoothing(of=saliency)",
    "c-MWP": "c-mwp",
    "Grad-CAM": "grad-cam",
    "CAM": "cam",
    "centre": "centre-gaussian",
}
METRICS = {
    "error": "localisation-error",
    "pointing": "pointing-game",
    "MaxBoxAccV2": "max-box-acc-v2",
}
COLUMNS = {
    "top-1 error": ("error", "top1_error"),
    "top-5 error": ("error", "top5_error"),
    "box error": ("error", "box_error"),
    "pointing": ("pointing", "accuracy"),
    "MaxBoxAccV2": ("MaxBoxAccV2", "accuracy"),
}


def networks(folder: Path) -> Iterator[cnnviz.Network]:
    """Load the networks: torchvision's, with weights that other frameworks have trained."""
    # The folder's own script builds the modules and fills them from npz files.  With weights of
    # torchvision, cnnviz.load("torchvision:mobilenet_v2") is all that is needed.
    spec = importlib.util.spec_from_file_location("load_weights", folder / "load_weights.py")
    assert spec is not None
    assert spec.loader is not None
    weights: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(weights)
    # The centre of 227 x 227 pixels: nothing is scaled, and nothing but the edge is cut off.
    seen: dict[str, Any] = {"resize": (227, 227), "size": (224, 224)}
    published = {
        "squeezenet1_1": cnnviz.Preprocessing(
            **seen, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
        ),
        "mobilenet_v2": cnnviz.Preprocessing(**seen, scale=1 / 127.5, mean=(1, 1, 1)),
    }
    for name, preprocessing in published.items():
        module = weights.torch_model(name)
        yield cnnviz.wrap(module, preprocess=preprocessing, labels="imagenet-1k", name=name)


def photographs(folder: Path) -> dict[str, list[Any]]:
    """Read which photographs there are, of which class, and where its objects are."""
    pictures = folder / "boxes" / "ilsvrc_val1000_227"
    records = json.loads(pictures.with_suffix(".json").read_text(encoding="utf-8"))

    def warped(record: dict[str, Any]) -> list[list[float]]:
        across, down = (227 / side for side in record["orig_size"])
        # ILSVRC's last column and row belong to the box.
        return [
            [x0 * across, y0 * down, (x1 + 1) * across, (y1 + 1) * down]
            for x0, y0, x1, y1 in record["boxes_orig"]
        ]

    return {
        "pictures": [pictures / record["file"] for record in records],
        "labels": [record["label"] for record in records],
        "boxes": [warped(record) for record in records],
        "names": [record["file"] for record in records],
    }


def line(title: str, cells: Iterable[object]) -> str:
    """Write one line of the table."""
    return " ".join([f"{title:19}", *(f"{cell!s:20}" for cell in cells)]).rstrip()


def show(evaluation: Evaluation) -> None:
    """Print the numbers of all methods that the network can run, with 95 % intervals."""
    scores = {(s.method, s.metric, s.name): s for s in evaluation.summary}
    wrong = [
        scores[evaluation.methods[0], "error", f"{guesses}_class_error"].value
        for guesses in ("top1", "top5")
    ]
    print(f"{evaluation.title}: its classes alone err by {wrong[0]:.3f} and {wrong[1]:.3f}\n")
    print(line("", COLUMNS))
    for method in evaluation.methods:
        if method not in evaluation.left_out:
            print(line(method, (scores[method, *number] for number in COLUMNS.values())))
    for method, reason in evaluation.left_out.items():
        print(f"{method} is left out: {reason}")
    if evaluation.failures:
        print(f"{len(evaluation.failures)} failures; the first: {evaluation.failures[0]}")
    print(flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Evaluate the methods on both networks, and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--limit", type=int, default=200, help="photographs, drawn by the seed")
    parser.add_argument("--resamples", type=int, default=1000, help="of the intervals (1000)")
    parser.add_argument("--seed", type=int, default=0, help="of --limit and the intervals (0)")
    parser.add_argument("--out", type=Path, help="a folder for the pages and the records")
    asked = parser.parse_args(arguments)
    if "CNNVIZ_TEST_DATA" not in os.environ:
        parser.error("set CNNVIZ_TEST_DATA to the folder of the photographs and the weights")

    folder = Path(os.environ["CNNVIZ_TEST_DATA"])
    for network in networks(folder):
        planned = plan(
            network,
            photographs(folder),
            METHODS,
            METRICS,
            out=None if asked.out is None else asked.out / str(network.name),
            limit=asked.limit,
            resamples=asked.resamples,
            seed=asked.seed,
        )
        print(planned.cost, flush=True)
        show(planned.run())


if __name__ == "__main__":
    main()
