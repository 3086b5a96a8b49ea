"""``cnnviz methods``: what there is, and a method's parameters and papers."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import click

from cnnviz.cli.base import Command, as_json, json_option, print_table
from cnnviz.listing import MethodInfo, methods, short_reference, usual_name
from cnnviz_core.parameters import Parameter

__all__ = ["command"]

_WIDTHS = (29, 34, 20, 23)
"""Of the columns, where there is room; cells wrap."""


@click.command("methods", cls=Command)
@click.argument("name", required=False)
@click.option("--model", "-M", metavar="SOURCE", help="List only what this network can run.")
@json_option
def command(name: str | None, model: str | None, as_document: bool) -> None:
    """List the installed methods; with a NAME, tell its parameters and papers."""
    if name is not None:
        usual = usual_name(name)
        chosen = next(method for method in methods() if method.name == usual)
        if as_document:
            as_json(_record(chosen))
        else:
            _describe(chosen)
        return
    listed = methods(model)
    if as_document:
        as_json({"methods": [_record(method) for method in listed]})
        return
    _list(listed)


def _list(listed: Sequence[MethodInfo]) -> None:
    """Print the methods, a table for each family."""
    for family, group in itertools.groupby(listed, key=lambda method: method.family):
        rows = [
            (
                method.name + (" *" if method.class_agnostic else ""),
                method.cost,
                ", ".join(method.needs) or "the output",
                short_reference(method.references[0]) if method.references else "",
            )
            for method in group
        ]
        print_table(("method", "cost", "needs", "paper"), rows, title=family, widths=_WIDTHS)
    if any(method.class_agnostic for method in listed):
        click.echo("* the same map for every class: it does not ask what is explained")
    click.echo(
        f"{len(listed)} methods.  `cnnviz methods NAME` tells what one does, and its parameters."
    )


def _record(method: MethodInfo) -> dict[str, Any]:
    """Give a method as JSON values."""
    return {
        "name": method.name,
        "family": method.family,
        "summary": method.summary,
        "needs": method.needs,
        "cost": method.cost,
        "class_agnostic": method.class_agnostic,
        "aliases": method.aliases,
        "references": method.references,
        "distribution": method.distribution,
        "version": method.version,
        "parameters": [_parameter_record(p) for p in method.parameters],
    }


def _parameter_record(parameter: Parameter) -> dict[str, Any]:
    """Give a parameter as JSON values."""
    return {
        "name": parameter.name,
        "accepts": parameter.accepts,
        "default": parameter.default,
        "help": parameter.help,
    }


def _describe(method: MethodInfo) -> None:
    """Print all there is to say of a method."""
    click.secho(f"{method.name}: {method.summary}", bold=True)
    click.echo(f"  family    {method.family}")
    click.echo(f"  needs     {', '.join(method.needs) or 'nothing but the output'}")
    if method.cost:
        click.echo(f"  costs     {method.cost}")
    if method.class_agnostic:
        click.echo("  target    none: the same map for every class")
    if method.aliases:
        click.echo(f"  also      {', '.join(method.aliases)}")
    click.echo(f"  from      {method.distribution} {method.version}")
    for reference in method.references:
        click.echo(f"  paper     {reference}")
    if method.parameters:
        rows = [(p.name, p.accepts, _shown(p.default), p.help) for p in method.parameters]
        print_table(("parameter", "accepts", "default", ""), rows)


def _shown(value: Any) -> str:
    """Write a default as it is typed on the command line."""
    return "none" if value is None else str(value)
