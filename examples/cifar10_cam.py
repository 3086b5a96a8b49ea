"""VGG16 with global average pooling on CIFAR-10: CAM by bicubic upsampling, beside saliency.

VGG16's thirteen convolutions, each with batch normalisation, are trained by Adam at 1e-3; its dense
layers give way to global average pooling and one linear layer, so that the network has class
activation maps (Zhou et al., "Learning deep features for discriminative localization", CVPR 2016).

On pictures of 32 x 32, VGG16's five max-pools leave one position, and a class activation map is one
number.  So only the first ``--pools`` of them are kept: 3 leave a grid of 4 x 4 behind the last
convolution, 2 one of 8 x 8, for more than twice the work.  Interpolation brings it to 32 x 32.

What is printed, for maps of the annotated class:

* on test pictures: insertion, deletion and average drop, which need no boxes;
* on mosaics of four test pictures of four classes: is the map of one class in its quarter?  By its
  highest point, by its sum ("energy"), and by the overlap of the quarter with the box around the
  largest part above 20 % of the maximum.

Run ``python examples/cifar10_cam.py PICTURES.zip``, where the archive holds train/CLASS/*.jpg and
test/CLASS/*.jpg of 32 x 32; without an argument it is sought in the folder CNNVIZ_TEST_DATA.  The
network has an eighth of VGG16's channels, and learns for 8 epochs; ``--full`` is the usual recipe,
all channels and 25 epochs, for a GPU.  With ``--weights FILE`` the trained network is kept, and the
next run begins with it.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

import cnnviz
from cnnviz.evaluation import plan
from cnnviz_core.explainer import Maps
from cnnviz_core.model import Array
from cnnviz_core.registry import get_registry

ARCHIVE = "images/cifar10/cifar10_jpeg.zip"
SIDE, SHIFT = 32, 4
BLOCKS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
INPUT = cnnviz.Preprocessing(scale=1 / 127.5, mean=(1,))
BATCH, RATE, ROWS = 64, 1e-3, 4


def read(archive: Path, part: str, count: int) -> tuple[Array, Array, list[str]]:
    """Read the first pictures of each class, equally many.

    Parameters
    ----------
    archive : Path
        A zip archive of part/CLASS/*.jpg.
    part : str
        "train" or "test".
    count : int
        How many in all.

    Returns
    -------
    pictures : ndarray (N, 32, 32, 3) of uint8
    classes : ndarray (N,) of int
    names : list of str
        Of the classes.
    """
    with zipfile.ZipFile(archive) as files:
        paths = [n for n in files.namelist() if n.startswith(f"{part}/") and n.endswith(".jpg")]
        names = sorted({path.split("/")[1] for path in paths})
        of_class: dict[str, list[str]] = {name: [] for name in names}
        for path in sorted(paths):
            of_class[path.split("/")[1]].append(path)
        each = count // len(names)
        chosen = [(p, label) for label, n in enumerate(names) for p in of_class[n][:each]]
        pictures = [np.array(Image.open(BytesIO(files.read(p))).convert("RGB")) for p, _ in chosen]
    return np.stack(pictures), np.array([label for _, label in chosen]), names


def vgg16(classes: int, width: float, pools: int) -> nn.Sequential:
    """Make VGG16's thirteen convolutions, with global average pooling and a linear layer.

    Parameters
    ----------
    classes : int
        How many scores it gives.
    width : float
        The share of VGG16's channels that it has.
    pools : int
        After how many of the five blocks the grid is halved.

    Returns
    -------
    nn.Sequential
        Of the parts "features", "pool", "flatten" and "linear", untrained.
    """
    features, channels = nn.Sequential(), 3
    for block, (full, convolutions) in enumerate(BLOCKS, start=1):
        for number in range(1, convolutions + 1):
            wide = max(1, round(full * width))
            name = f"{block}_{number}"
            # The normalisation has a bias of its own.
            features.add_module(f"conv{name}", nn.Conv2d(channels, wide, 3, padding=1, bias=False))
            features.add_module(f"norm{name}", nn.BatchNorm2d(wide))
            features.add_module(f"relu{name}", nn.ReLU())
            channels = wide
        if block <= pools:
            features.add_module(f"pool{block}", nn.MaxPool2d(2))
    network = nn.Sequential()
    network.add_module("features", features)
    network.add_module("pool", nn.AdaptiveAvgPool2d(1))
    network.add_module("flatten", nn.Flatten())
    network.add_module("linear", nn.Linear(channels, classes))
    return network


def tensor(pictures: Array) -> Tensor:
    """Bring pictures (N, H, W, 3) of bytes to a batch (N, 3, H, W) from -1 to 1."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2) / 127.5 - 1


def moved(pictures: Array, rng: np.random.Generator) -> Array:
    """Mirror half of the pictures, and shift all.

    Parameters
    ----------
    pictures : ndarray (N, 32, 32, 3) of uint8
        They are not changed.
    rng : Generator
        Where the randomness comes from.

    Returns
    -------
    ndarray (N, 32, 32, 3) of uint8
        Each shifted by up to 4 pixels in both directions; what comes in is mid-grey.
    """
    margins = ((0, 0), (SHIFT, SHIFT), (SHIFT, SHIFT), (0, 0))
    padded = np.pad(pictures, margins, constant_values=127)
    made = np.empty_like(pictures)
    corners = rng.integers(2 * SHIFT + 1, size=(len(pictures), 2))
    mirrored = rng.random(len(pictures)) < 0.5
    for one, source, (y, x), turn in zip(made, padded, corners, mirrored, strict=True):
        window = source[y : y + SIDE, x : x + SIDE]
        one[:] = window[:, ::-1] if turn else window
    return made


def train(network: nn.Module, pictures: Array, classes: Array, epochs: int, seed: int) -> None:
    """Train a network with Adam, and print how it goes.

    Parameters
    ----------
    network : nn.Module
        It is changed, and left in evaluation mode.
    pictures : ndarray (N, 32, 32, 3) of uint8
        What it learns from.
    classes : ndarray (N,) of int
        Their classes.
    epochs : int
        How often every picture is seen.
    seed : int
        Of the order of the pictures, and of their shifts and mirrorings.
    """
    rng = np.random.default_rng(seed)
    device = next(network.parameters()).device
    adam = torch.optim.Adam(network.parameters(), lr=RATE)
    network.train()
    for epoch in range(1, epochs + 1):
        order = rng.permutation(len(pictures))
        loss, right = 0.0, 0
        for rows in np.array_split(order, max(1, len(order) // BATCH)):
            x = tensor(moved(pictures[rows], rng)).to(device)
            y = torch.from_numpy(classes[rows]).to(device)
            scores = network(x)
            error = functional.cross_entropy(scores, y)
            adam.zero_grad()
            error.backward()
            adam.step()
            loss += float(error.detach()) * len(rows)
            right += int((scores.argmax(1) == y).sum())
        found = (loss / len(order), right / len(order))
        print("epoch {:2}  loss {:.3f}  accuracy {:.3f}".format(epoch, *found), flush=True)
    network.eval()


def accuracy(network: nn.Module, pictures: Array, classes: Array) -> float:
    """Tell of which share of the pictures a network knows the class."""
    device = next(network.parameters()).device
    with torch.inference_mode():
        parts = [network(x.to(device)).argmax(1) for x in tensor(pictures).split(100)]
    return float((torch.cat(parts).cpu().numpy() == classes).mean())


class Mosaics(NamedTuple):
    """Four pictures of four classes side by side, of which one is asked for.

    Attributes
    ----------
    pictures : ndarray (N, 64, 64, 3) of uint8
    classes : ndarray (N, 4) of int
        Upper left, upper right, lower left, lower right.
    asked : ndarray (N,) of int
        Which of the four.
    """

    pictures: Array
    classes: Array
    asked: Array

    def annotated(self) -> dict[str, Any]:
        """Give them as a data set: the class that is asked for, and the box of its quarter."""
        x, y = SIDE * (self.asked % 2), SIDE * (self.asked // 2)
        return {
            "pictures": list(self.pictures),
            "labels": np.take_along_axis(self.classes, self.asked[:, None], 1)[:, 0].tolist(),
            "boxes": np.stack([x, y, x + SIDE, y + SIDE], axis=-1)[:, None].tolist(),
        }


def mosaics(pictures: Array, classes: Array, count: int, seed: int) -> Mosaics:
    """Lay four pictures of four classes side by side, and ask for one of them.

    Parameters
    ----------
    pictures : ndarray (N, 32, 32, 3) of uint8
        What is drawn from.
    classes : ndarray (N,) of int
        Their classes, four or more.
    count : int
        How many mosaics.
    seed : int
        Of the draws.

    Returns
    -------
    Mosaics
    """
    rng = np.random.default_rng(seed)
    four = np.stack([rng.permutation(classes.max() + 1)[:4] for _ in range(count)])
    drawn = [[rng.choice(np.flatnonzero(classes == label)) for label in row] for row in four]
    tiles = pictures[np.array(drawn)].reshape(count, 2, 2, SIDE, SIDE, 3)
    made = tiles.transpose(0, 1, 3, 2, 4, 5).reshape(count, 2 * SIDE, 2 * SIDE, 3)
    return Mosaics(made, four, rng.integers(4, size=count))


@dataclass(frozen=True)
class Upsampled:
    """Class activation maps, brought to the picture's size in a way of one's choice.

    Any object with these members is a method that can be evaluated beside those of cnnviz.  For
    maps to look at, ``cnnviz.explain(...).shown(upsample="bicubic")`` is enough.

    Parameters
    ----------
    upsample : {"nearest", "bilinear", "bicubic"}
        How.
    """

    upsample: Literal["nearest", "bilinear", "bicubic"] = "bicubic"

    needs: ClassVar[frozenset[str]] = frozenset({"capture", "parameters"})

    def explain(self, model: Any, x: Any, targets: Any) -> Maps:
        """Explain the targets' scores on a batch (N, H, W, C)."""
        maps: Maps = get_registry().explainer("cam").explain(model, x, targets)
        how = dataclasses.replace(maps.presentation, upsample=self.upsample)
        return dataclasses.replace(maps, presentation=how)


METHODS = {
    "CAM, bicubic": Upsampled("bicubic"),
    "CAM, bilinear": Upsampled("bilinear"),
    "CAM, nearest": Upsampled("nearest"),
    "Grad-CAM": "grad-cam",
    "saliency": "saliency",
    "centre": "centre-gaussian",
    "random weights": "random-cam",
}
ON_PICTURES = {
    "insertion": ("insertion", "auc"),
    "deletion": ("deletion", "auc"),
    "average drop": ("average-drop", "average_drop_map_times_input"),
}
ON_MOSAICS = {
    "pointing": ("pointing-game(tolerance=0)", "pooled_accuracy"),
    "energy": ("energy-pointing-game", "energy"),
    "IoU": ("box-accuracy(rule=cam)", "mean_iou"),
}


def line(title: str, cells: Iterable[object]) -> str:
    """Write one line of a table."""
    return " ".join([f"{title:14}", *(f"{cell!s:20}" for cell in cells)]).rstrip()


def compare(
    net: cnnviz.Network,
    data: Mapping[str, Any],
    columns: Mapping[str, tuple[str, str]],
    limit: int,
    seed: int,
) -> None:
    """Evaluate all methods on annotated pictures, and print a table with 95 % intervals.

    Parameters
    ----------
    net : Network
        The network.
    data : mapping
        Pictures, and what is known of them, as `cnnviz.evaluate` takes them.
    columns : mapping of str to tuple of str
        What to write above a column; the metric, and which of its numbers.
    limit : int
        On how many pictures; the seed draws them.
    seed : int
        Of the draws, and of the intervals.
    """
    metrics = {title: metric for title, (metric, _) in columns.items()}
    planned = plan(net, data, METHODS, metrics, limit=limit, seed=seed)
    print(f"\n{planned.cost}\n", flush=True)
    evaluation = planned.run()
    if evaluation.failures:
        print(f"{len(evaluation.failures)} failures; the first: {evaluation.failures[0]}")
    scores = {(s.method, s.metric, s.name): s for s in evaluation.summary}
    print(line("", columns))
    for method in evaluation.methods:
        numbers = [scores[method, title, name] for title, (_, name) in columns.items()]
        print(line(method, numbers), flush=True)


def figure(net: cnnviz.Network, pictures: Array, asked: Sequence[int]) -> Image.Image:
    """Show pictures, their class activation maps on the grid and upsampled, and saliency.

    Parameters
    ----------
    net : Network
        The network.
    pictures : ndarray (N, H, W, 3) of uint8
        A row for each.
    asked : sequence of int
        Of which class.

    Returns
    -------
    PIL.Image.Image
    """
    found = cnnviz.compare(net, list(pictures), ["cam", "saliency"], list(asked))
    columns = {
        "CAM, nearest": found["cam"].shown(upsample="nearest"),
        "CAM, bicubic": found["cam"].shown(upsample="bicubic"),
        "saliency": found["saliency"],
    }
    named = {t: dataclasses.replace(e, names=e.target_labels) for t, e in columns.items()}
    return cnnviz.Comparison(named).sheet()


def trained(asked: argparse.Namespace) -> tuple[nn.Module, list[str]]:
    """Load the network whose weights are kept in a file, or train one and keep them there.

    Parameters
    ----------
    asked : Namespace
        The options; where the file is there, its network is taken, whatever they say.

    Returns
    -------
    nn.Module
        In evaluation mode.
    names : list of str
        Of its classes.
    """
    if asked.weights and asked.weights.is_file():
        kept = torch.load(asked.weights, map_location=asked.device, weights_only=True)
        network = vgg16(len(kept["names"]), kept["width"], kept["pools"])
        network.load_state_dict(kept["weights"])
        return network.to(asked.device).eval(), kept["names"]
    pictures, classes, names = read(asked.archive, "train", asked.pictures)
    torch.manual_seed(asked.seed)
    network = vgg16(len(names), asked.width, asked.pools)
    network.to(asked.device, memory_format=torch.channels_last)
    size = sum(parameter.numel() for parameter in network.parameters())
    print(f"{size:,} parameters, {len(pictures):,} pictures, {asked.epochs} epochs", flush=True)
    train(network, pictures, classes, asked.epochs, asked.seed)
    if asked.weights:
        shape = {"names": names, "width": asked.width, "pools": asked.pools}
        torch.save({**shape, "weights": network.state_dict()}, asked.weights)
    return network, names


def main(arguments: Sequence[str] | None = None) -> None:
    """Train the network, print what its maps are worth, and draw some."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    folder = Path(os.environ.get("CNNVIZ_TEST_DATA", "shared/data"))
    parser.add_argument("archive", type=Path, nargs="?", default=folder / ARCHIVE)
    parser.add_argument("--full", action="store_true", help="the usual recipe: width 1, 25 epochs")
    parser.add_argument("--width", type=float, help="share of VGG16's channels (0.125)")
    parser.add_argument("--epochs", type=int, help="(8)")
    parser.add_argument("--pools", type=int, default=3, help="max-pools that are kept (3)")
    parser.add_argument("--pictures", type=int, default=50000, help="to learn from (50000)")
    parser.add_argument("--limit", type=int, default=400, help="pictures and mosaics explained")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--weights", type=Path, help="file of the trained network: read, or made")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, default=Path("cifar10-cam.png"), help="the figure")
    asked = parser.parse_args(arguments)
    if asked.out.suffix.lower() not in Image.registered_extensions():
        parser.error(f"--out {asked.out}: a name that ends in .png or .jpg is expected")
    asked.width = asked.width or (1.0 if asked.full else 1 / 8)
    asked.epochs = asked.epochs or (25 if asked.full else 8)

    network, names = trained(asked)
    pictures, classes, _ = read(asked.archive, "test", 10000)
    share = accuracy(network, pictures, classes)
    print(f"accuracy on {len(pictures):,} test pictures: {share:.4f}", flush=True)
    net = cnnviz.wrap(network, preprocess=INPUT, labels=names, name="VGG16 with pooling")
    annotated = {"pictures": list(pictures), "labels": classes.tolist()}
    compare(net, annotated, ON_PICTURES, asked.limit, asked.seed)
    quarters = mosaics(pictures, classes, asked.limit, asked.seed)
    compare(net, quarters.annotated(), ON_MOSAICS, asked.limit, asked.seed)

    rows = [int(np.flatnonzero(classes == label)[0]) for label in range(ROWS)]
    left = figure(net, pictures[rows], classes[rows].tolist())
    right = figure(net, quarters.pictures[[0] * 4], quarters.classes[0].tolist())
    whole = Image.new("RGB", (left.width + right.width, max(left.height, right.height)), "white")
    whole.paste(left, (0, 0))
    whole.paste(right, (left.width, 0))
    whole.save(asked.out)
    print(f"\nwritten: {asked.out}")


if __name__ == "__main__":
    main()
