"""``cnnviz methods``: what there is, and a method's parameters and papers."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import click

from cnnviz.cli.base import Command, as_json, json_option, print_table
from cnnviz.cli.describing import describe, parameter_records, records
from cnnviz.listing import MethodInfo, methods, short_reference, usual_name

__all__ = ["command"]

_WIDTHS = (31, 34, 20, 23)
"""Of the columns, where there is room; cells wrap."""


@click.command("methods", cls=Command)
@click.argument("name", required=False)
@click.option("--model", "-M", metavar="SOURCE", help="List only what this network can run.")
@json_option
def command(name: str | None, model: str | None, as_document: bool) -> None:
    """List the installed methods; with a NAME, tell its parameters, composites and papers."""
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
        as_json({"methods": records(listed, _record)})
        return
    _list(listed)


def _list(listed: Sequence[MethodInfo]) -> None:
    """Print the methods, a table for each family."""
    for family, group in itertools.groupby(listed, key=lambda method: method.family):
        rows = [
            (
                method.name + (" *" if method.class_agnostic else ""),
                method.cost,
                _needs(method) or "the output",
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


def _needs(method: MethodInfo) -> str:
    """Tell what a method needs, in short: rules of relevance need a step at every kind."""
    rules = [need for need in method.needs if need.startswith("rule:")]
    others = [need for need in method.needs if need not in rules]
    return ", ".join([*others, *(rules if len(rules) < 3 else ["rules of relevance"])])


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
        "parameters": parameter_records(method),
        "composites": [
            {
                "name": rule.name,
                "summary": rule.summary,
                "aliases": rule.aliases,
                "references": rule.references,
            }
            for rule in method.composites
        ],
    }


def _describe(method: MethodInfo) -> None:
    """Print all there is to say of a method."""
    said = {
        "family": method.family,
        "needs": _needs(method) or "nothing but the output",
        "costs": method.cost,
        "target": "none: the same map for every class" if method.class_agnostic else "",
        "also": ", ".join(method.aliases),
        "from": f"{method.distribution} {method.version}",
    }
    describe(f"{method.name}: {method.summary}", said, method.references, method.parameters)
    if method.composites:
        rows = [
            (rule.name, rule.summary, "; ".join(map(short_reference, rule.references)))
            for rule in method.composites
        ]
        print_table(("composite", "what it does", "paper"), rows)
