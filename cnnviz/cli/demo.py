"""``cnnviz demo``: the main job on a trained network and pictures that come with cnnviz."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cnnviz.cli.base import Command, as_json, json_option, make_folder, print_table, progress

if TYPE_CHECKING:
    from cnnviz.demo.run import Demo

__all__ = ["command"]

_BOTH = ("torch", "tensorflow")


@click.command("demo", cls=Command)
@click.option(
    "--backend",
    "-b",
    metavar="torch|tf|both|numpy",
    help="What runs the network; the first of torch, tf and numpy that is there if left out.",
)
@click.option(
    "--out",
    "-o",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    default="cnnviz-demo",
    show_default=True,
    help="The folder to write to; made if need be.",
)
@json_option
def command(backend: str | None, folder: Path, as_document: bool) -> None:
    """Ask a small trained network where it sees each digit, by seven methods.

    The network was told which handwritten digits lie on each photograph, never where.  Writes a
    contact sheet, demo.png, and a page, demo.html.  Works offline.
    """
    from cnnviz.demo.run import draw, run

    make_folder(folder)
    with progress():
        demos = [run(name) for name in (_BOTH if backend == "both" else (backend,))]
        demo = demos[0]
        sheet, page = folder / "demo.png", folder / "demo.html"
        _write(draw(demo), sheet)
        demo.comparison.save(page, boxes=True)
    document = _document(demos, [str(sheet), str(page)])
    if as_document:
        as_json(document)
    else:
        _print(document)


def _write(image: Any, path: Path) -> None:
    """Write a picture, whole or not at all."""
    from cnnviz.sheets import write_image

    write_image(image, path)


def _document(demos: list[Demo], files: list[str]) -> dict[str, Any]:
    """Give the results as JSON values."""
    from cnnviz.demo.run import THRESHOLD, differences, localise

    demo = demos[0]
    predictions: dict[str, Any] = {}
    some = next(iter(demo.comparison.values()))
    for i, (picture, marks) in enumerate(zip(demo.pictures, demo.truth, strict=True)):
        predictions[picture.name] = {
            "there": sorted(mark.label for mark in marks),
            "predicted": {label: p for label, p in some.predictions[i] if p >= 0.5},
        }
    localisation = {}
    for method, e in demo.comparison.items():
        scores = localise(e, demo.truth)
        localisation[method] = {
            "mean IoU": scores.mean_iou,
            "IoU >= 0.5": scores.found,
            "pointing": scores.hits,
        }
    document = {
        "network": demo.network.name,
        "backends": [each.network.model.framework for each in demos],
        "threshold": THRESHOLD,
        "digits": len(demo.truth),
        "predictions": predictions,
        "localisation": localisation,
        "skipped": demo.comparison.skipped,
        "files": files,
    }
    if len(demos) > 1:
        document["differences"] = differences(demo.comparison, demos[1].comparison)
    return document


def _print(document: dict[str, Any]) -> None:
    """Print the results."""
    rows = []
    for name, scene in document["predictions"].items():
        seen = sorted(scene["predicted"].items())
        shown = "  ".join(f"{label} ({p:.0%})" for label, p in seen)
        missed = [label for label in scene["there"] if label not in scene["predicted"]]
        wrong = [label for label, _ in seen if label not in scene["there"]]
        rows.append((name, *map(" ".join, (scene["there"], [shown], missed, wrong))))
    framework = " and ".join(document["backends"])
    print_table(
        ("scene", "digits there", "digits seen", "missed", "not there"),
        rows,
        title=f"{document['network']}, on {framework}",
    )
    apart = document.get("differences", {})
    scored = [
        (
            method,
            f"{scores['mean IoU']:.2f}",
            f"{scores['IoU >= 0.5']:.0%}",
            f"{scores['pointing']:.0%}",
            f"{apart[method]:.1e}" if method in apart else "",
        )
        for method, scores in document["localisation"].items()
    ]
    scored.sort(key=lambda row: row[1], reverse=True)
    numeric = ("mean IoU", "IoU >= 0.5", "points at it", "backends differ by")
    print_table(
        ("method", *numeric),
        scored,
        title=f"where the {document['digits']} digits are, told only which are there",
        numeric=numeric,
    )
    for method, reason in document["skipped"].items():
        click.echo(f"{method} was left out: {reason}")
    if apart:
        click.echo(
            "The backends differ by the largest difference of their raw maps, as a share of the "
            "largest value."
        )
    click.echo("Look at " + " or ".join(document["files"]))
