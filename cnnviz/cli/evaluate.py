"""``cnnviz evaluate``: how good methods are, on annotated pictures."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from cnnviz.cli.base import PARTLY, Command, as_json, json_option, print_table, progress
from cnnviz.cli.options import model_options, open_network

if TYPE_CHECKING:
    from cnnviz.evaluation import Evaluation

__all__ = ["command"]

_ARGUMENTS: Final = "cnnviz.arguments"
_LOST: Final = ("missing file", "unreadable file")
"""Problems of a data set by which a picture is not evaluated."""
_LISTED: Final = 10


class _Evaluate(Command):
    """A command that remembers how it was called."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Keep the arguments as they were typed."""
        ctx.meta[_ARGUMENTS] = list(args)
        return super().parse_args(ctx, args)


@click.command("evaluate", cls=_Evaluate)
@model_options
@click.option(
    "--data",
    "-d",
    required=True,
    metavar="FOLDER|FILE",
    help="The pictures: a folder, a folder with a sub-folder for each class, a CSV file, a JSON "
    "file of COCO's form or with a record for each picture, or VOC's XML files.",
)
@click.option(
    "--methods",
    "--method",
    "-m",
    "methods",
    multiple=True,
    required=True,
    metavar="NAME[,NAME...]",
    help="Which, with commas or given several times; with parameters as in "
    "'occlusion(window=48)'.  `cnnviz methods` lists them.",
)
@click.option(
    "--metrics",
    "--metric",
    "metrics",
    multiple=True,
    required=True,
    metavar="NAME[,NAME...]",
    help="By what, likewise: 'pointing-game,deletion(steps=28)'.  `cnnviz metrics` lists them.",
)
@click.option(
    "--out",
    "-o",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    default="evaluation",
    show_default=True,
    help="The folder to write to; made if need be.  What an earlier run has done there is kept.",
)
@click.option(
    "--target",
    "-t",
    default="truth",
    show_default=True,
    metavar="truth|predicted|CLASS",
    help="What is asked of the network: the class that a picture is annotated with, the predicted "
    "one, or the same class for all.",
)
@click.option(
    "--layer",
    "-l",
    default="auto",
    show_default=True,
    help="The layer to look at, for methods that look at one: its name, a pattern, or -1.",
)
@click.option(
    "--batch-size",
    type=click.IntRange(1),
    default=16,
    show_default=True,
    metavar="N",
    help="How many pictures are read and go through the network at once.",
)
@click.option(
    "--limit", type=click.IntRange(1), metavar="N", help="At most so many items, drawn evenly."
)
@click.option(
    "--resamples",
    type=click.IntRange(0),
    default=1000,
    show_default=True,
    metavar="N",
    help="How often pictures are drawn again for the confidence intervals.",
)
@click.option(
    "--seed", type=int, default=0, show_default=True, metavar="N", help="Of all that is drawn."
)
@click.option(
    "--format",
    "data_format",
    type=click.Choice(["folder", "imagefolder", "csv", "coco", "records", "voc"]),
    help="What the data are; found out if left out.",
)
@click.option(
    "--annotations",
    metavar="FOLDER|FILE",
    help="Where the annotations are, if --data is the folder of the pictures.",
)
@click.option(
    "--images",
    metavar="FOLDER",
    help="Where the pictures are, if they are not found beside the annotations.",
)
@click.option("--split", metavar="NAME", help="Of VOC: a list in ImageSets/Main, such as val.")
@click.option(
    "--classes",
    metavar="NAME[=CLASS][,...]",
    help="The classes to take, and what the network calls them: 'cat=tabby,dog=207'.",
)
@click.option(
    "--wnids",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="A text file whose lines begin with the classes' WordNet ids in the network's order.",
)
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    model: str,
    backend: str | None,
    labels: str | None,
    preprocess: str | None,
    data: str,
    methods: tuple[str, ...],
    metrics: tuple[str, ...],
    folder: Path,
    target: str,
    layer: str,
    batch_size: int,
    limit: int | None,
    resamples: int,
    seed: int,
    data_format: str | None,
    annotations: str | None,
    images: str | None,
    split: str | None,
    classes: str | None,
    wnids: Path | None,
    as_document: bool,
) -> None:
    """Say how good METHODS are on annotated pictures, by METRICS.

    Says first what it costs.  Stopped at any moment, the same command goes on where it was.  Writes
    the numbers of each picture, a summary with confidence intervals, plots, and a page.
    """
    from cnnviz.evaluation import plan

    network = open_network(model, backend, labels, preprocess)
    planned = plan(
        network,
        data,
        ",".join(methods),
        ",".join(metrics),
        out=folder,
        target=target,
        layer=layer,
        batch_size=batch_size,
        seed=seed,
        limit=limit,
        resamples=resamples,
        command=shlex.join(["cnnviz", "evaluate", *ctx.meta[_ARGUMENTS]]),
        format=data_format,
        annotations=annotations,
        images=images,
        split=split,
        classes=None if classes is None else _classes(classes),
        wnids=None if wnids is None else _first_words(wnids),
    )
    click.echo(planned.cost, err=True)
    with progress():
        evaluation = planned.run()
    if as_document:
        as_json(_document(evaluation, folder))
    else:
        _print(evaluation, folder)
    lost = any(problem.kind in _LOST for problem in evaluation.problems)
    if evaluation.failures or evaluation.left_out or lost:
        raise click.exceptions.Exit(PARTLY)


def _classes(text: str) -> Sequence[str] | Mapping[str, str | int]:
    """Read which classes to take, and what the network calls them."""
    pairs = [part.partition("=") for part in text.split(",") if part.strip()]
    if not any(sign for _, sign, _ in pairs):
        return [name.strip() for name, _, _ in pairs]
    called = {name.strip(): other.strip() or name.strip() for name, _, other in pairs}
    return {name: int(other) if other.isdecimal() else other for name, other in called.items()}


def _first_words(path: Path) -> list[str]:
    """Read the first word of each line."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line.split()[0] for line in lines if line.strip()]


def _document(evaluation: Evaluation, folder: Path) -> dict[str, Any]:
    """Give what was found as JSON values."""
    return {
        "title": evaluation.title,
        "folder": folder,
        "command": evaluation.command,
        "settings": evaluation.settings,
        "provenance": evaluation.provenance,
        "cost": dataclasses.asdict(evaluation.cost),
        "pictures": len(evaluation.pictures),
        "scores": [dataclasses.asdict(score) for score in evaluation.summary],
        "notes": evaluation.notes,
        "problems": evaluation.counts,
        "failures": [dataclasses.asdict(failure) for failure in evaluation.failures],
        "left_out": evaluation.left_out,
    }


def _print(evaluation: Evaluation, folder: Path) -> None:
    """Print the summary, and what a reader must know of it."""
    summary = evaluation.summary
    print_table(summary.columns, summary.cells, title=evaluation.title, numeric=summary.columns[1:])
    click.echo(
        f"95 % confidence intervals over {len(evaluation.pictures)} items; "
        "* is the best, ~ may be as good."
    )
    for note in evaluation.notes:
        click.echo(click.style("note: ", fg="yellow", bold=True) + note)
    for kind, count in evaluation.counts.items():
        click.echo(f"problems of the data set: {kind}: {count}")
    label = click.style("failed: ", fg="red", bold=True)
    for failure in evaluation.failures[:_LISTED]:
        click.echo(label + str(failure), err=True)
    if len(evaluation.failures) > _LISTED:
        more = len(evaluation.failures) - _LISTED
        click.echo(f"{label}and {more} more, which {folder / 'problems.csv'} lists", err=True)
    for what, reason in evaluation.left_out.items():
        click.echo(click.style("left out: ", fg="red", bold=True) + f"{what}: {reason}", err=True)
    click.echo(f"Look at {folder / 'leaderboard.html'}")
