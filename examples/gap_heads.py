"""Swap dense layers for global pooling: the accuracy it costs, the localisation it gives.

A small network in the style of VGG, with two dense layers, learns CIFAR-10's classes from scenes of
64 x 64: one picture of 32 x 32 at a random place of a background of shuffled pieces of others.
Then `cnnviz.heads.pooled` cuts copies of it behind the last convolution and puts global average or
max pooling and a linear layer there, of which three kinds are compared: fitted in closed form,
trained alone, and trained with all layers.  Dense layers are explained by Grad-CAM, which needs no
pooling; pooled networks by CAM.

Two questions are asked of each map, of the class that is there:

- Scenes: the box around the largest part above 20 % of the maximum, against the picture's box.
- Mosaics of four pictures of four classes, one in each quarter: does the highest point of the map
  of one class lie in its quarter, and which share of the map does (Boehle et al., "Convolutional
  dynamic alignment networks for interpretable classifications", CVPR 2021)?

Run ``python examples/gap_heads.py PICTURES.zip``, where the archive holds train/CLASS/*.jpg and
test/CLASS/*.jpg of 32 x 32; without an argument it is sought in the folder CNNVIZ_TEST_DATA.
"""

from __future__ import annotations

import argparse
import os
import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

import cnnviz
from cnnviz.heads import fitted, pooled
from cnnviz_core.importing import import_string
from cnnviz_core.maps.boxes import boxes_of, iou
from cnnviz_core.model import Array
from cnnviz_core.netspec import NetSpec, Op
from cnnviz_core.registry import get_registry

ARCHIVE = "images/cifar10/cifar10_jpeg.zip"
TILE, SIDE, PIECE = 32, 64, 8
TRAIN, TEST, MOSAICS = 8000, 1000, 400
EPOCHS, MORE = 5, 1
SAME = ((1, 1), (1, 1))


class Scenes(NamedTuple):
    """Pictures as a network takes them, and what is in them.

    Attributes
    ----------
    x : ndarray (N, 64, 64, 3) of float32
        From -1 to 1.
    classes : ndarray (N,) of int
        The class that is asked for.
    boxes : ndarray (N, 4) of int
        (x0, y0, x1, y1), half-open, of the picture of that class.
    """

    x: Array
    classes: Array
    boxes: Array


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
        paths = sorted(n for n in files.namelist() if n.startswith(f"{part}/") and n[-4:] == ".jpg")
        names = sorted({path.split("/")[1] for path in paths})
        chosen = [
            (path, label)
            for label, name in enumerate(names)
            for path in [p for p in paths if p.split("/")[1] == name][: count // len(names)]
        ]
        pictures = [np.array(Image.open(BytesIO(files.read(p))).convert("RGB")) for p, _ in chosen]
    return np.stack(pictures), np.array([label for _, label in chosen]), names


def backgrounds(pictures: Array, rng: np.random.Generator) -> Iterator[Array]:
    """Make backgrounds of shuffled pieces of pictures.

    Parameters
    ----------
    pictures : ndarray (N, 32, 32, 3)
        What they are cut from.
    rng : Generator
        Where the randomness comes from.

    Yields
    ------
    ndarray (64, 64, 3) of uint8
    """
    across = SIDE // PIECE
    while True:
        shape = (across, across)
        which = rng.integers(len(pictures), size=shape)
        rows, columns = rng.integers(TILE // PIECE, size=(2, *shape)) * PIECE
        ground = np.empty((SIDE, SIDE, 3), np.uint8)
        for i, j in np.ndindex(shape):
            y, x = rows[i, j], columns[i, j]
            piece = pictures[which[i, j], y : y + PIECE, x : x + PIECE]
            ground[i * PIECE : (i + 1) * PIECE, j * PIECE : (j + 1) * PIECE] = piece
        yield ground


def scenes(pictures: Array, classes: Array, seed: int) -> Scenes:
    """Put each picture at a random place of a background.

    Parameters
    ----------
    pictures : ndarray (N, 32, 32, 3)
        One for each scene.
    classes : ndarray (N,)
        Their classes.
    seed : int
        Of the places and the backgrounds.

    Returns
    -------
    Scenes
    """
    rng = np.random.default_rng(seed)
    corners = rng.integers(SIDE - TILE + 1, size=(len(pictures), 2))
    made = np.empty((len(pictures), SIDE, SIDE, 3), np.float32)
    grounds = backgrounds(pictures, rng)
    for scene, ground, picture, (x, y) in zip(made, grounds, pictures, corners, strict=False):
        ground[y : y + TILE, x : x + TILE] = picture
        scene[:] = ground / 127.5 - 1
    return Scenes(made, classes, np.hstack([corners, corners + TILE]))


def mosaics(pictures: Array, classes: Array, count: int, seed: int) -> Scenes:
    """Lay four pictures of four classes side by side, and ask for one of them.

    Parameters
    ----------
    pictures : ndarray (N, 32, 32, 3)
        What is drawn from.
    classes : ndarray (N,)
        Their classes.
    count : int
        How many mosaics.
    seed : int
        Of the draws.

    Returns
    -------
    Scenes
    """
    rng = np.random.default_rng(seed)
    made = np.empty((count, SIDE, SIDE, 3), np.float32)
    asked, boxes = np.empty(count, int), np.empty((count, 4), int)
    corners = [(0, 0), (TILE, 0), (0, TILE), (TILE, TILE)]
    for k in range(count):
        four = rng.choice(classes.max() + 1, 4, replace=False)
        for label, (x, y) in zip(four, corners, strict=True):
            picture = pictures[rng.choice(np.flatnonzero(classes == label))]
            made[k, y : y + TILE, x : x + TILE] = picture / 127.5 - 1
        place = rng.integers(4)
        asked[k], boxes[k, :2] = four[place], corners[place]
    boxes[:, 2:] = boxes[:, :2] + TILE
    return Scenes(made, asked, boxes)


def vgg(classes: int, seed: int) -> NetSpec:
    """Describe a network of four convolutions, three max-pools and two dense layers.

    Parameters
    ----------
    classes : int
        How many scores it gives.
    seed : int
        Of its weights, which are drawn as He et al. do, ICCV 2015.

    Returns
    -------
    NetSpec
    """
    rng = np.random.default_rng(seed)
    sizes = {
        "conv1": (3, 3, 3, 16),
        "conv2": (3, 3, 16, 32),
        "conv3": (3, 3, 32, 64),
        "conv4": (3, 3, 64, 64),
        "dense1": (64 * (SIDE // 8) ** 2, 128),
        "dense2": (128, classes),
    }
    arrays = {}
    for name, size in sizes.items():
        spread = np.sqrt(2 / np.prod(size[:-1]))
        arrays[f"{name}.weight"] = rng.normal(0, spread, size)
        arrays[f"{name}.bias"] = np.zeros(size[-1])
    ops, last = [], "picture"
    for kind, name in (
        *(("conv", "conv1"), ("relu", "relu1"), ("maxpool", "pool1")),
        *(("conv", "conv2"), ("relu", "relu2"), ("maxpool", "pool2")),
        *(("conv", "conv3"), ("relu", "relu3"), ("conv", "conv4"), ("relu", "relu4")),
        *(("maxpool", "pool4"), ("flatten", "flat")),
        *(("linear", "dense1"), ("relu", "relu5"), ("linear", "dense2")),
    ):
        ops.append(Op(name, kind, (last,), attrs={"padding": SAME} if kind == "conv" else {}))
        last = name
    return NetSpec({"picture": (SIDE, SIDE, 3)}, tuple(ops), arrays, "vgg")


def accuracy(network: Any, test: Scenes) -> float:
    """Tell of how many scenes a network knows the class.

    Parameters
    ----------
    network : object
        A framework's network.
    test : Scenes
        What it is shown.

    Returns
    -------
    float
        The share.
    """
    model = cnnviz.wrap(network, input_shape=(SIDE, SIDE, 3)).model
    parts = np.array_split(np.arange(len(test.x)), max(1, len(test.x) // 100))
    scores = np.concatenate([model.forward(test.x[rows]).logits for rows in parts])
    return float((scores.argmax(1) == test.classes).mean())


def located(network: Any, method: str, test: Scenes) -> tuple[float, float, float]:
    """Tell how well maps of the classes that are asked for show where they are.

    Parameters
    ----------
    network : object
        A framework's network.
    method : str
        Which explainer.
    test : Scenes
        What is explained.

    Returns
    -------
    pointing : float
        The share of the maps whose highest point is in the box.
    energy : float
        The mean share of a map's sum that is in the box; 0 of a map that is nowhere positive.
    overlap : float
        The mean intersection over union of box and box.
    """
    net = cnnviz.wrap(network, input_shape=(SIDE, SIDE, 3))
    asked = [int(label) for label in test.classes]
    maps = cnnviz.explain(net, test.x, method, asked, preprocessed=True).maps
    hits, shares, overlaps = [], [], []
    for map, box in zip(np.maximum(maps, 0), test.boxes, strict=True):
        x0, y0, x1, y1 = box
        y, x = np.unravel_index(map.argmax(), map.shape)
        hits.append(bool(map.any() and x0 <= x < x1 and y0 <= y < y1))
        shares.append(map[y0:y1, x0:x1].sum() / (map.sum() or 1))
        found = boxes_of(map, 0.2)
        overlaps.append(float(iou(found, box[None]).max()) if len(found) else 0.0)
    return float(np.mean(hits)), float(np.mean(shares)), float(np.mean(overlaps))


def networks(native: Any, train: Scenes, seed: int) -> Iterator[tuple[str, str, Any]]:
    """Train the network with dense layers, and make pooled ones of it.

    Parameters
    ----------
    native : object
        The untrained network.
    train : Scenes
        What they learn from.
    seed : int
        Of the order of the scenes, and of the new layers.

    Yields
    ------
    tuple
        What to call it, how it is explained, and the network.
    """
    data = (train.x, train.classes)
    how: dict[str, Any] = {"batch_size": 32, "seed": seed}
    dense = fitted(native, data, epochs=EPOCHS, train="all", **how).network
    yield "dense layers", "grad-cam", dense
    longer = fitted(dense, data, epochs=MORE, train="all", **how).network
    yield "dense layers, trained longer", "grad-cam", longer
    for pooling in ("average", "max"):
        start = pooled(dense, pooling=pooling, start="least-squares", data=data)
        yield f"{pooling} pooling, closed form", "cam", start
        drawn = pooled(dense, pooling=pooling, seed=seed)
        head = fitted(drawn, data, epochs=20, rate=1e-2, **how).network
        yield f"{pooling} pooling, head trained", "cam", head
        every = fitted(head, data, epochs=MORE, train="all", **how).network
        yield f"{pooling} pooling, all trained", "cam", every


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    folder = Path(os.environ.get("CNNVIZ_TEST_DATA", "shared/data"))
    parser.add_argument("archive", type=Path, nargs="?", default=folder / ARCHIVE)
    parser.add_argument("--backend", choices=("torch", "tensorflow"), default="torch")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()

    pictures, classes, names = read(asked.archive, "train", TRAIN)
    train = scenes(pictures, classes, asked.seed)
    pictures, classes, _ = read(asked.archive, "test", TEST)
    test = scenes(pictures, classes, asked.seed + 1)
    quarters = mosaics(pictures, classes, MOSAICS, asked.seed + 2)

    build = import_string(get_registry().backend(asked.backend).build)
    native = build(vgg(len(names), asked.seed))
    line = "{:<31}{:<11}{:>8}{:>7}{:>10}{:>8}"
    print(line.format("network", "map", "accuracy", "IoU", "pointing", "energy"))
    for title, method, network in networks(native, train, asked.seed):
        overlap = located(network, method, test)[2]
        pointing, energy, _ = located(network, method, quarters)
        found = (accuracy(network, test), overlap, pointing, energy)
        print(line.format(title, method, *(f"{value:.3f}" for value in found)), flush=True)
    whole = iou(np.array([[0, 0, SIDE, SIDE]]), test.boxes).mean()
    found = (1 / len(names), float(whole), 0.25, 0.25)
    print(line.format("chance", "everywhere", *(f"{value:.3f}" for value in found)))


if __name__ == "__main__":
    main()
