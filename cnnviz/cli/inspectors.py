"""``cnnviz inspectors``: what can be seen inside, and an inspector's parameters and papers."""

from __future__ import annotations

from typing import Any

import click

from cnnviz.cli.base import Command, as_json, json_option, print_table
from cnnviz.cli.describing import describe, parameter_records, records
from cnnviz.listing import InspectorInfo, inspectors, usual_inspector

__all__ = ["command"]

_WIDTHS = (22, 20, 48, 26)
"""Of the columns, where there is room; cells wrap."""


@click.command("inspectors", cls=Command)
@click.argument("name", required=False)
@click.option("--model", "-M", metavar="SOURCE", help="List only what can look at this network.")
@json_option
def command(name: str | None, model: str | None, as_document: bool) -> None:
    """List the installed inspectors; with a NAME, tell its parameters and papers."""
    if name is not None:
        usual = usual_inspector(name)
        chosen = next(inspector for inspector in inspectors() if inspector.name == usual)
        if as_document:
            as_json(_record(chosen))
        else:
            _describe(chosen)
        return
    listed = inspectors(model)
    if as_document:
        as_json({"inspectors": records(listed, _record)})
        return
    print_table(listed.columns, listed.cells, widths=_WIDTHS)
    click.echo(
        f"{len(listed)} inspectors, each a command: `cnnviz NAME --help`.  "
        "`cnnviz inspectors NAME` tells an inspector's parameters and papers."
    )


def _record(inspector: InspectorInfo) -> dict[str, Any]:
    """Give an inspector as JSON values."""
    return {
        "name": inspector.name,
        "summary": inspector.summary,
        "shown": inspector.shown,
        "targeted": inspector.targeted,
        "needs": inspector.needs,
        "cost": inspector.cost,
        "aliases": inspector.aliases,
        "references": inspector.references,
        "distribution": inspector.distribution,
        "version": inspector.version,
        "parameters": parameter_records(inspector),
    }


def _describe(inspector: InspectorInfo) -> None:
    """Print all there is to say of an inspector."""
    said = {
        "is shown": inspector.shown,
        "needs": ", ".join(inspector.needs) or "nothing but the output",
        "costs": inspector.cost,
        "also": ", ".join(inspector.aliases),
        "from": f"{inspector.distribution} {inspector.version}",
    }
    title = f"{inspector.name}: {inspector.summary}"
    describe(title, said, inspector.references, inspector.parameters)
