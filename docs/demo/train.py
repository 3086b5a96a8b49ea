"""Train the network of the embedded demo, and write all that ships with it.

``python docs/demo/train.py`` draws the scenes, trains, measures on held-out digits on held-out
photographs, and writes the network, a few scenes and their truth to ``cnnviz/demo/data``.  It needs
cnnviz with the extras ``torch`` and ``demo``.

The network is told which digits are in a scene, and nothing else: no boxes, no positions.  It is
in the style of VGG (3 x 3 convolutions, ReLU, max-pooling) and ends in global average pooling and
one linear layer, so that class activation maps say where it saw each digit.  Its last maps keep a
quarter of the scene's height and width, for digits are small.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from scenes import PHOTOGRAPHS, SIZE, Mark, draw_scene, showcase
from sklearn.metrics import average_precision_score
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from cnnviz_core.maps import boxes_of, iou, relu, resize, weight_channels
from cnnviz_core.netspec import NetSpec, Op
from cnnviz_torch.build import build

DATA: Final = Path(__file__).parents[2] / "cnnviz" / "demo" / "data"
STAGES: Final = ((16,), (32,), (48, 48, 64, 64, 64))
"""Channels of the convolutions, with a max-pool between stages."""
THRESHOLDS: Final = (0.15, 0.2, 0.3, 0.4, 0.5)
"""Shares of a map's maximum above which a box is drawn."""
_CHUNK: Final = 500
_MEAN: Final = 0.5


class Lesson(NamedTuple):
    """A part of the training.

    Attributes
    ----------
    scenes : int
        How many scenes are drawn.
    size : int
        Their height and width in pixels.
    odds : tuple of float
        The chances of a scene with no digit, one, two, ...
    epochs : int
        How often each is shown.
    batch : int
        How many are shown at once.
    rate : float
        The highest learning rate.
    """

    scenes: int
    size: int
    odds: tuple[float, ...]
    epochs: int
    batch: int
    rate: float


CURRICULUM: Final = (
    # One digit that fills much of a small scene teaches what digits look like.  Averaged over a
    # whole scene its share is so small that an untrained network would learn nothing for long.
    Lesson(20000, SIZE // 2, (0.1, 0.9), 5, 64, 4e-3),
    Lesson(18000, SIZE, (0.1, 0.3, 0.3, 0.3), 2, 32, 2e-3),
)
EXAM: Final = CURRICULUM[-1]._replace(scenes=1000)


class Drawn(NamedTuple):
    """Scenes as arrays.

    Attributes
    ----------
    pictures : ndarray
        (N, H, W, 3) uint8.
    present : ndarray
        (N, 10) float32, 1 for the digits that are there.
    marks : list of tuple of Mark
        Where they are; only ever used to measure.
    """

    pictures: NDArray[np.uint8]
    present: NDArray[np.float32]
    marks: list[tuple[Mark, ...]]


def draw_scenes(lesson: Lesson, seed: Sequence[int], *, held_out: bool, cores: int) -> Drawn:
    """Draw the scenes of a lesson; they do not depend on the number of cores.

    Parameters
    ----------
    lesson : Lesson
        How many, and of which kind.
    seed : sequence of int
        Where the randomness comes from.
    held_out : bool
        See `scenes.draw_scene`.
    cores : int
        How many processes draw.

    Returns
    -------
    Drawn
    """
    pictures = np.empty((lesson.scenes, lesson.size, lesson.size, 3), np.uint8)
    present = np.zeros((lesson.scenes, 10), np.float32)
    marks: list[tuple[Mark, ...]] = []
    starts = [*range(0, lesson.scenes, _CHUNK), lesson.scenes]
    tasks = [(lesson, (*seed, i), j - i, held_out) for i, j in pairwise(starts)]
    with ProcessPoolExecutor(cores, get_context("spawn")) as pool:
        for chunk in pool.map(_draw_chunk, tasks):
            for picture, found in chunk:
                pictures[len(marks)] = picture
                present[len(marks), [mark.label for mark in found]] = 1
                marks.append(found)
    return Drawn(pictures, present, marks)


def _draw_chunk(
    task: tuple[Lesson, tuple[int, ...], int, bool],
) -> list[tuple[NDArray[np.uint8], tuple[Mark, ...]]]:
    """Draw a part of the scenes, in a process of its own."""
    lesson, seed, count, held_out = task
    rng = np.random.default_rng(seed)
    scenes = (
        draw_scene(rng, held_out=held_out, odds=lesson.odds, size=lesson.size) for _ in range(count)
    )
    return [(scene.picture, scene.marks) for scene in scenes]


def layers() -> Iterator[tuple[str, str]]:
    """Name the layers in front of the global average pooling.

    Yields
    ------
    tuple of str
        The kind ("conv", "relu" or "maxpool") and the name.
    """
    for i, stage in enumerate(STAGES, 1):
        if i > 1:
            yield "maxpool", f"pool{i - 1}"
        for j in range(1, len(stage) + 1):
            yield "conv", f"conv{i}_{j}"
            yield "relu", f"relu{i}_{j}"


class Network(nn.Module):
    """The network while it learns: each convolution is followed by batch normalisation."""

    def __init__(self) -> None:
        super().__init__()
        widths = pairwise((3, *(width for stage in STAGES for width in stage)))
        self.features = nn.Sequential()
        for kind, name in layers():
            if kind == "conv":
                before, after = next(widths)
                conv = nn.Conv2d(before, after, 3, padding=1, bias=False)
                self.features.add_module(name, conv)
                self.features.add_module(f"norm_of_{name}", nn.BatchNorm2d(after))
            else:
                self.features.add_module(name, nn.ReLU() if kind == "relu" else nn.MaxPool2d(2))
        self.fc = nn.Linear(after, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the scores of the digits.

        Parameters
        ----------
        x : Tensor (N, 3, H, W)
            Pictures, -0.5 to 0.5.

        Returns
        -------
        Tensor (N, 10)
            Before the sigmoid.
        """
        return self.fc(self.features(x).mean((2, 3)))


def learn(network: Network, lesson: Lesson, drawn: Drawn, rng: np.random.Generator) -> None:
    """Train the network on the scenes of one lesson.

    Parameters
    ----------
    network : Network
        What learns.
    lesson : Lesson
        How.
    drawn : Drawn
        From what; the marks are not looked at.
    rng : Generator
        Where the randomness comes from.
    """
    whole = lesson.scenes // lesson.batch * lesson.batch
    batches = np.concatenate(
        [rng.permutation(whole).reshape(-1, lesson.batch) for _ in range(lesson.epochs)]
    )
    optimiser = torch.optim.AdamW(network.parameters(), weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, lesson.rate, total_steps=len(batches), pct_start=0.15
    )
    network.train()
    losses = []
    for step, chosen in enumerate(batches, 1):
        scores = network(vary(rng, to_tensor(drawn.pictures[chosen])))
        loss = F.binary_cross_entropy_with_logits(scores, torch.from_numpy(drawn.present[chosen]))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        losses.append(loss.item())
        if step % (len(batches) // 5) == 0:
            recent = np.mean(losses[-200:])
            print(f"  step {step} of {len(batches)}: loss {recent:.4f}", flush=True)


def to_tensor(pictures: NDArray[np.uint8]) -> torch.Tensor:
    """Bring pictures into the network's input space.

    Parameters
    ----------
    pictures : ndarray (N, H, W, 3)
        8 bits.

    Returns
    -------
    Tensor (N, 3, H, W)
        -0.5 to 0.5, with the channels last in memory.
    """
    return torch.from_numpy(pictures).permute(0, 3, 1, 2) / 255 - _MEAN


def vary(rng: np.random.Generator, x: torch.Tensor) -> torch.Tensor:
    """Swap the colours of each picture at random, turn it into its negative, change its contrast.

    Parameters
    ----------
    rng : Generator
        Where the randomness comes from.
    x : Tensor (N, 3, H, W)
        Pictures.

    Returns
    -------
    Tensor (N, 3, H, W)
    """
    n = len(x)
    channels = rng.permuted(np.tile(np.arange(3), (n, 1)), axis=1)
    gain, offset = rng.uniform((0.7, -0.12), (1.1, 0.12), (n, 2)).astype(np.float32).T
    gain *= rng.choice(np.array([-1, 1], np.float32), n)
    x = torch.stack([picture[order] for picture, order in zip(x, channels, strict=True)])
    gain, offset = (torch.from_numpy(v)[:, None, None, None] for v in (gain, offset))
    return (x * gain + offset).contiguous(memory_format=torch.channels_last)


def described(network: Network, seed: int) -> NetSpec:
    """Describe the trained network as data, with batch normalisation folded into the convolutions.

    Parameters
    ----------
    network : Network
        Trained.
    seed : int
        What its training started from.

    Returns
    -------
    NetSpec
        In its input space, RGB in 0 to 1 less 0.5; it ends in a sigmoid.
    """
    network.eval()
    ops, arrays, last = [], {}, "input"
    for kind, name in layers():
        attrs: dict[str, Any] = {}
        if kind == "conv":
            norm = network.features.get_submodule(f"norm_of_{name}")
            conv = fuse_conv_bn_eval(network.features.get_submodule(name), norm)
            arrays[f"{name}.weight"] = conv.weight.detach().permute(2, 3, 1, 0).numpy()
            arrays[f"{name}.bias"] = conv.bias.detach().numpy()
            attrs = {"padding": ((1, 1), (1, 1))}
        ops.append(Op(name, kind, (last,), attrs=attrs))
        last = name
    arrays["fc.weight"] = network.fc.weight.detach().T.numpy()
    arrays["fc.bias"] = network.fc.bias.detach().numpy()
    ops += [Op("gap", "gap", (last,)), Op("fc", "linear", ("gap",))]
    ops.append(Op("sigmoid", "sigmoid", ("fc",)))
    return NetSpec(
        inputs={"input": (SIZE, SIZE, 3)},
        ops=tuple(ops),
        parameters={key: np.ascontiguousarray(array) for key, array in arrays.items()},
        name="digits in the wild",
        meta={
            "labels": [str(digit) for digit in range(10)],
            "preprocessing": {"mean": [_MEAN] * 3, "std": [1.0] * 3},
            "training": {"script": "docs/demo/train.py", "seed": seed},
        },
    )


def measure(net: NetSpec, drawn: Drawn) -> dict[str, Any]:
    """Measure how well a network tells which digits are there, and where.

    Parameters
    ----------
    net : NetSpec
        The network.
    drawn : Drawn
        Scenes that it has not seen.

    Returns
    -------
    dict of str to value
        Shares, 0 to 1.  ``localisation`` has for each threshold what the boxes of class activation
        maps reach, for the digits that are there.
    """
    network = build(net)
    features: list[torch.Tensor] = []
    network.gap.register_forward_hook(lambda module, given, made: features.append(given[0]))
    scores = []
    overlaps: dict[float, list[float]] = {threshold: [] for threshold in THRESHOLDS}
    pointing = []
    for start in range(0, len(drawn.pictures), EXAM.batch):
        part = slice(start, start + EXAM.batch)
        with torch.no_grad():
            scores.append(network(to_tensor(drawn.pictures[part])).numpy())
        seen = features.pop().permute(0, 2, 3, 1).numpy()
        for maps, marks in zip(seen, drawn.marks[part], strict=True):
            for mark in marks:
                weights = net.parameters["fc.weight"][:, mark.label]
                cam = relu(resize(weight_channels(maps[None], weights[None]), (SIZE, SIZE)))[0]
                y, x = np.unravel_index(cam.argmax(), cam.shape)
                x0, y0, x1, y1 = mark.box
                pointing.append(x0 <= x < x1 and y0 <= y < y1)
                for threshold, found in overlaps.items():
                    box = boxes_of(cam, threshold)
                    found.append(float(iou(box, np.array([mark.box])).max(initial=0)))
    probabilities = np.concatenate(scores)
    predicted, present = probabilities > 0.5, drawn.present > 0.5
    empty = ~present.any(axis=1)
    return {
        "scenes": len(present),
        "digits": int(present.sum()),
        "exact": np.mean((predicted == present).all(axis=1)),
        "per label": np.mean(predicted == present),
        "mean average precision": average_precision_score(present, probabilities),
        "recall": np.mean(predicted[present]),
        "precision": np.mean(present[predicted]),
        "quiet on empty scenes": np.mean(~predicted[empty].any(axis=1)),
        "pointing": np.mean(pointing),
        "localisation": {
            threshold: {
                "mean IoU": np.mean(found),
                "IoU >= 0.5": np.mean(np.array(found) >= 0.5),
                "IoU >= 0.3": np.mean(np.array(found) >= 0.3),
            }
            for threshold, found in overlaps.items()
        },
    }


def report(measured: dict[str, Any]) -> None:
    """Print what was measured.

    Parameters
    ----------
    measured : dict
        By `measure`.
    """
    for name, value in measured.items():
        if name == "localisation":
            for threshold, shares in value.items():
                line = ", ".join(f"{key} {share:.3f}" for key, share in shares.items())
                print(f"  boxes above {threshold:.0%} of the map's maximum: {line}")
        else:
            print(f"  {name}: {value if isinstance(value, int) else f'{value:.4f}'}")


def write_scenes(folder: Path) -> None:
    """Write the scenes that ship with the demo, and the truth about them.

    Parameters
    ----------
    folder : Path
        Where to.
    """
    records = []
    for i, scene in enumerate(showcase()):
        file = f"scene_{i:02d}.png"
        Image.fromarray(scene.picture).save(folder / file, optimize=True)
        height, width = scene.picture.shape[:2]
        marks = [{"label": mark.label, "box": list(mark.box)} for mark in scene.marks]
        credit = PHOTOGRAPHS[scene.photograph].credit
        records.append(
            {"file": file, "width": width, "height": height, "marks": marks, "credit": credit}
        )
    text = json.dumps(records, indent=1, ensure_ascii=False) + "\n"
    (folder / "scenes.json").write_text(text, encoding="utf-8")


def main() -> None:
    """Do all of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=DATA, help="the folder to write to")
    parser.add_argument("--seed", type=int, default=0, help="what all randomness comes from")
    parser.add_argument("--cores", type=int, default=2, help="how many cores to use")
    parser.add_argument("--scenes-only", action="store_true", help="draw the scenes, train nothing")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    write_scenes(args.out)
    if args.scenes_only:
        return
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.cores)
    rng = np.random.default_rng(args.seed)
    network = Network().to(memory_format=torch.channels_last)
    began = time.perf_counter()
    for i, lesson in enumerate(CURRICULUM):
        print(f"{lesson.scenes} scenes of {lesson.size} x {lesson.size} pixels", flush=True)
        drawn = draw_scenes(lesson, (args.seed, i), held_out=False, cores=args.cores)
        if i:
            # The average is taken over more positions now, so that a digit counts for less.
            with torch.no_grad():
                network.fc.weight *= (lesson.size / CURRICULUM[i - 1].size) ** 2
        learn(network, lesson, drawn, rng)
    busy = sum(os.times()[:4])
    print(f"took {time.perf_counter() - began:.0f} s, and {busy:.0f} s of processor time")
    net = described(network, args.seed)
    net.save(args.out / "digits_in_the_wild.npz")
    print("held-out digits on held-out photographs:")
    exam = draw_scenes(EXAM, (args.seed, len(CURRICULUM)), held_out=True, cores=args.cores)
    report(measure(net, exam))


if __name__ == "__main__":
    main()
