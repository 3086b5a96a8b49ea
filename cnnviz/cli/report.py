"""``cnnviz report``: results that were saved, on one page."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cnnviz.cli.base import Command, as_json, json_option

if TYPE_CHECKING:
    from cnnviz.pages import Result

__all__ = ["command"]


@click.command("report", cls=Command)
@click.argument("results", nargs=-1, required=True, metavar="RESULT.npz...")
@click.option(
    "--out",
    "-o",
    default="report.html",
    show_default=True,
    metavar="FILE",
    help="The page to write; it needs no other file.",
)
@click.option("--title", default="", help="The page's title.")
@json_option
def command(results: tuple[str, ...], out: str, title: str, as_document: bool) -> None:
    """Put explanations and inspections that were saved as .npz on one page, in this order."""
    from cnnviz.pages import report

    loaded = [_load(Path(path).expanduser()) for path in results]
    written = report(loaded, out, title)
    if as_document:
        as_json({"results": results, "file": written})
    else:
        click.echo(f"Look at {written}")


def _load(path: Path) -> Result:
    """Read a result; what each kind calls its record tells them apart."""
    from cnnviz.explanation import Explanation
    from cnnviz.inspection import Inspection

    try:
        with zipfile.ZipFile(path) as archive:
            inspected = "inspection.npy" in archive.namelist()
    except (OSError, zipfile.BadZipFile):
        inspected = False
    return Inspection.load(path) if inspected else Explanation.load(path)
