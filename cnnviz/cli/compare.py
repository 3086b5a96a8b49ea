"""``cnnviz compare``: several methods side by side, on one sheet or page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from cnnviz.cli.base import (
    FAILED,
    PARTLY,
    as_json,
    error_record,
    json_option,
    make_folder,
    print_error,
    print_notes,
    print_table,
    progress,
)
from cnnviz.cli.options import (
    box_options,
    model_options,
    open_network,
    presentation_of,
    presentation_options,
    sample_options,
)
from cnnviz.cli.parameters import MethodCommand, method_parameters, named_methods
from cnnviz_core.errors import CnnvizError, ImageError, ParameterError
from cnnviz_core.pace import BatchSize

__all__ = ["command"]


@click.command("compare", cls=MethodCommand)
@click.argument("pictures", nargs=-1, required=True, metavar="PICTURE...")
@model_options
@click.option(
    "--methods",
    "--method",
    "-m",
    "methods",
    multiple=True,
    metavar="NAME[,NAME...]|all",
    help="Which, with commas or given several times.  All that the network can run and the budget "
    "allows if left out, or for 'all'; methods named beside it run whatever they cost.",
)
@click.option(
    "--budget",
    metavar="N|none",
    default="1000",
    show_default=True,
    help="How many forward passes a picture a method may cost that was not named; a backward pass "
    "counts as two.",
)
@sample_options
@presentation_options
@box_options
@click.option(
    "--out",
    "-o",
    "file",
    type=click.Path(dir_okay=False, path_type=Path),
    default="comparison.html",
    show_default=True,
    help="What to write: a page (.html) or a sheet (.png, .jpg, .webp).",
)
@json_option
def command(
    pictures: tuple[str, ...],
    model: str,
    backend: str | None,
    labels: str | None,
    preprocess: str | None,
    methods: tuple[str, ...],
    budget: str,
    target: str | None,
    layer: str,
    batch_size: BatchSize | None,
    boxes: bool,
    threshold: float | None,
    file: Path,
    as_document: bool,
    **given: Any,
) -> None:
    """Show side by side what several methods find in each PICTURE."""
    from cnnviz.comparing import ALL, run_methods
    from cnnviz.explanation import THRESHOLD
    from cnnviz.images import Picture, read_picture
    from cnnviz.samples import samples_of

    how, normalise = presentation_of(given)
    asked = {
        method: {} if method == ALL else method_parameters(method, given)
        for method in named_methods(methods) or (ALL,)
    }
    read: list[Picture] = []
    failures: list[tuple[str, CnnvizError]] = []
    for picture in pictures:
        try:
            read.append(read_picture(picture))
        except ImageError as error:
            failures.append((picture, error))
    document: dict[str, Any] = {
        "failures": [{"picture": p, "error": error_record(e)} for p, e in failures]
    }
    if read:
        make_folder(file.parent)
        network = open_network(model, backend, labels, preprocess)
        with progress():
            samples = samples_of(network, read)
            comparison = run_methods(
                network,
                samples,
                asked,
                target,
                layer,
                budget=_limit(budget),
                batch_size=batch_size,
            )
            if how:
                comparison = comparison.shown(**how)
            comparison.save(
                file,
                boxes=boxes,
                threshold=THRESHOLD if threshold is None else threshold,
                normalise=normalise,
            )
        first = next(iter(comparison.explanations.values()))
        document |= {
            "model": network.name,
            "framework": network.model.framework,
            "file": str(file),
            "pictures": first.names,
            "targets": first.target_labels,
            "methods": {
                m: {"layer": e.layer, "status": e.status, "notes": e.notes}
                for m, e in comparison.items()
            },
            "skipped": comparison.skipped,
        }
        if not as_document:
            _print(document)
    if as_document:
        as_json(document)
    for picture, failure in failures:
        print_error(failure, picture)
    if failures:
        raise click.exceptions.Exit(PARTLY if read else FAILED)


def _limit(text: str) -> int | None:
    """Read the budget."""
    if text.strip().casefold() == "none":
        return None
    if text.strip().isdecimal() and int(text) > 0:
        return int(text)
    raise ParameterError(
        f"--budget is {text!r}",
        "a whole number of at least 1, or none",
        "write --budget 5000, or --budget none for no limit",
    )


def _print(document: dict[str, Any]) -> None:
    """Print the result as a table."""
    rows = [
        (method, result["layer"] or "", _told(result["status"]))
        for method, result in document["methods"].items()
    ]
    rows += [(method, "", f"left out: {reason}") for method, reason in document["skipped"].items()]
    title = f"{document['model']} ({document['framework']})"
    print_table(("method", "layer", ""), rows, title=title)
    print_notes((method, result["notes"]) for method, result in document["methods"].items())
    click.echo(f"Look at {document['file']}")


def _told(status: Sequence[str]) -> str:
    """Say of which pictures nothing is shown, and why."""
    kinds = Counter(each for each in status if each != "ok")
    return ", ".join(
        kind if len(status) == 1 else f"{kind}: {n} of {len(status)}" for kind, n in kinds.items()
    )
