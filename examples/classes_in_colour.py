"""Several classes on one picture: each in its own colour, as opaque as its map is hot.

A map is made for each class, and scaled by its own maximum, so that a class with a low score is
seen too.  Where one class is alone, its colour lies over the grey picture.  Where others are nearly
as hot as the hottest, the place is contested: their colours alternate in stripes, since a mixture
would look like one more class.

Run ``python examples/classes_in_colour.py``: it asks three methods for the digits of a scene of the
demo network, and prints where each map is hottest and how much of it is contested.  For other
pictures and networks name them::

    python examples/classes_in_colour.py --model torchvision:resnet50 --classes 'boxer,tiger cat' \
        --out classes.png cat_and_dog.jpg

``--photograph`` takes picture and network from the folder of ``localisation_table.py``.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import cnnviz
from cnnviz.demo import network, scenes
from cnnviz.images import Picture, read_picture

Array = NDArray[Any]

# These differ in lightness too, so that people with a colour blindness tell them apart.
COLOURS = ("#ffb000", "#2f8fff", "#e8308a", "#00c08b", "#a06bff")
OPAQUE = 0.85
FAINT = 0.15
CONTESTED = 0.6
STRIPE = 14
SIDE = 448
DIM = 0.8
SCENE = 4
METHODS = "grad-cam,score-cam,eigen-cam"


class Asked(NamedTuple):
    """A picture, the classes to ask for, and their boxes where they are known."""

    picture: Picture
    classes: list[str]
    boxes: list[tuple[float, ...]]


def rivals(heat: Array) -> Array:
    """Count the classes that are about as hot as the hottest; where there are two, they contest.

    Parameters
    ----------
    heat : ndarray (K, H, W)
        The classes' maps, in [0, 1].

    Returns
    -------
    ndarray (H, W) of int
        0 where all are faint.
    """
    return ((heat > FAINT) & (heat >= CONTESTED * heat.max(axis=0))).sum(axis=0)


def blended(pixels: Array, heat: Array, colours: Array) -> Array:
    """Lay the maps of several classes over one picture.

    Parameters
    ----------
    pixels : ndarray (H, W, 3)
        The picture, in [0, 1].
    heat : ndarray (K, H, W)
        The classes' maps, in [0, 1].
    colours : ndarray (K, 3)
        One for each class, in [0, 1].

    Returns
    -------
    ndarray (H, W, 3)
        In [0, 1]: the picture in grey, the hottest class of each place in its colour, contested
        places in diagonal stripes of the contesting classes' colours.
    """
    order = np.argsort(-heat, axis=0, kind="stable")
    down, across = np.indices(heat.shape[1:])
    turn = (down + across) // STRIPE % np.maximum(rivals(heat), 1)
    shown = np.take_along_axis(order, turn[None], axis=0)
    hot = np.take_along_axis(heat, shown, axis=0)[0]
    opacity = OPAQUE * np.clip((hot - FAINT) / (1 - FAINT), 0, 1)[..., None]
    grey = DIM * (pixels @ np.array([0.299, 0.587, 0.114]))
    return (1 - opacity) * grey[..., None] + opacity * colours[shown[0]]


def enlarged(array: Array, side: int) -> Array:
    """Enlarge a picture or map smoothly, so that its longer side has at least so many pixels."""
    from skimage.transform import resize

    scale = max(1.0, side / max(array.shape[:2]))
    shape = [round(scale * n) for n in array.shape[:2]]
    return np.clip(resize(array, shape, order=1, mode="edge"), 0, 1)


def draw(asked: Asked, heat: Array, fields: Sequence[Any]) -> None:
    """Draw a row: the picture, each class by itself, and all of them on one picture."""
    from matplotlib.colors import to_rgb
    from matplotlib.patches import Patch, Rectangle

    names = asked.classes
    colours = np.array([to_rgb(COLOURS[k % len(COLOURS)]) for k in range(len(names))])
    pixels = enlarged(asked.picture.pixels / 255, SIDE)
    heat = np.stack([enlarged(map, SIDE) for map in heat])
    shown = {"": pixels}
    for k, name in enumerate(names):
        shown[name] = blended(pixels, heat[k : k + 1], colours[k : k + 1])
    shown["all classes"] = blended(pixels, heat, colours)
    for field, (title, image) in zip(fields, shown.items(), strict=False):
        field.set_axis_on()
        field.set(title=title, xticks=[], yticks=[])
        field.imshow(image, interpolation="lanczos")
    scale = len(pixels) / asked.picture.size[0]
    last = fields[len(shown) - 1]
    for (x0, y0, x1, y1), colour in zip(asked.boxes, colours, strict=False):
        corner, size = (scale * x0, scale * y0), (scale * (x1 - x0), scale * (y1 - y0))
        last.add_patch(Rectangle(corner, *size, fill=False, edgecolor=colour, linewidth=1.5))
    entries = [Patch(color=c, label=n) for c, n in zip(colours, names, strict=True)]
    last.legend(
        handles=entries, ncols=len(entries), frameon=False, loc="upper center",
        bbox_to_anchor=(0.5, 0.0), handlelength=1, handleheight=1, columnspacing=1,
    )  # fmt: skip


def figure(rows: Sequence[tuple[Asked, str, Array]], out: Path) -> None:
    """Draw a row for each picture and method, and write the figure to a file."""
    from matplotlib.figure import Figure

    columns = 2 + max(len(asked.classes) for asked, *_ in rows)
    paper = Figure(figsize=(2.3 * columns, 2.8 * len(rows)), layout="constrained")
    fields = paper.subplots(len(rows), columns, squeeze=False)
    for field in fields.flat:
        field.set_axis_off()
    for (asked, method, heat), own in zip(rows, fields, strict=True):
        draw(asked, heat, own)
        own[0].set_ylabel(method)
    paper.savefig(out, dpi=100, bbox_inches="tight", pad_inches=0.1)


def tell(asked: Asked, method: str, explanation: cnnviz.Explanation, heat: Array) -> None:
    """Print where each class's map is hottest, and how much of it others claim too."""
    both = rivals(heat) > 1
    for k, name in enumerate(asked.classes):
        row, column = np.unravel_index(heat[k].argmax(), heat[k].shape)
        inside = ""
        if asked.boxes:
            x0, y0, x1, y1 = asked.boxes[k]
            inside = "yes" if x0 <= column < x1 and y0 <= row < y1 else "no"
        assert explanation.probabilities is not None
        chance, shared = explanation.probabilities[k], heat[k][both].sum() / heat[k].sum()
        place = f"({column}, {row})"
        print(f"{method:18} {name:14} {chance:11.3f}  {place:12} {inside:10} {shared:9.2f}")


def digits() -> Asked:
    """Give a scene with digits that were drawn on a photograph."""
    scene, marks = scenes()[SCENE]
    return Asked(scene, [mark.label for mark in marks], [mark.box for mark in marks])


def photograph() -> tuple[cnnviz.Network, Asked]:
    """Give MobileNetV2, and a photograph of a dog and a cat, from the folder of test data."""
    from localisation_table import networks

    folder = Path(os.environ["CNNVIZ_TEST_DATA"])
    *_, mobilenet = networks(folder)
    whole = cnnviz.Preprocessing(size=(224, 224), scale=1 / 127.5, mean=(1, 1, 1))
    picture = read_picture(folder / "images" / "demo" / "both.png")
    asked = Asked(picture, ["bull mastiff", "tiger cat"], [])
    return cnnviz.wrap(mobilenet, preprocess=whole), asked


def draws(method: str) -> bool:
    """Tell whether a method draws at random."""
    own = (m.parameters for m in cnnviz.methods() if m.name == method)
    return any(parameter.name == "seed" for each in own for parameter in each)


def main(arguments: Sequence[str] | None = None) -> None:
    """Explain each class, print the table, and draw the figure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pictures", nargs="*", type=Path, help="a scene of the demo if left out")
    parser.add_argument("--model", default="demo", help="as for cnnviz explain --model")
    parser.add_argument("--backend", help="torch, tensorflow or numpy; the first installed one")
    parser.add_argument("--classes", help="names or numbers with commas, for your own pictures")
    parser.add_argument("--photograph", action="store_true", help="of the folder of test data")
    parser.add_argument("--methods", default=METHODS, help=f"names with commas ({METHODS})")
    parser.add_argument("--seed", type=int, default=0, help="of methods that draw (0)")
    parser.add_argument("--out", type=Path, default=Path("classes.png"), help="the figure")
    asked = parser.parse_args(arguments)

    if asked.photograph:
        if "CNNVIZ_TEST_DATA" not in os.environ:
            parser.error("set CNNVIZ_TEST_DATA to the folder of the photograph and the weights")
        net, one = photograph()
        questions = [one]
    elif asked.pictures:
        if not asked.classes:
            parser.error("name the classes, as in --classes 'boxer,tiger cat'")
        net, names = cnnviz.load(asked.model, backend=asked.backend), asked.classes.split(",")
        questions = [Asked(read_picture(path), names, []) for path in asked.pictures]
    else:
        net, questions = network(asked.backend), [digits()]

    heading = ("method", "class", "probability", "hottest", "in its box", "contested")
    print("{:18} {:14} {:>11}  {:12} {:10} {:>9}".format(*heading))
    rows = []
    for question in questions:
        pictures = [question.picture] * len(question.classes)
        for method in asked.methods.split(","):
            seeded = {"seed": asked.seed} if draws(method) else {}
            explanation = cnnviz.explain(net, pictures, method, question.classes, **seeded)
            heat = [np.clip(explanation.shown_heat(k), 0, 1) for k in range(len(pictures))]
            rows.append((question, method, np.stack(heat)))
            tell(question, method, explanation, rows[-1][-1])
    figure(rows, asked.out)
    print(f"\nwritten: {asked.out}")


if __name__ == "__main__":
    main()
