"""What `cnnviz methods NAME`, `cnnviz inspectors NAME` and `cnnviz metrics NAME` share."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import click

from cnnviz.cli.base import print_table
from cnnviz.listing import InspectorInfo, MethodInfo, MetricInfo
from cnnviz_core.errors import PluginError
from cnnviz_core.parameters import Parameter

__all__ = ["describe", "parameter_records", "records"]

Info = TypeVar("Info", MethodInfo, InspectorInfo, MetricInfo)


def parameter_records(owner: MethodInfo | InspectorInfo | MetricInfo) -> list[dict[str, Any]]:
    """Give the parameters of a method, an inspector or a metric as JSON values.

    Parameters
    ----------
    owner : MethodInfo, InspectorInfo or MetricInfo
        Whose.

    Returns
    -------
    list of dict of str to value
    """
    return [
        {"name": p.name, "accepts": p.accepts, "default": p.default, "help": p.help}
        for p in owner.parameters
    ]


def records(owners: Iterable[Info], record: Callable[[Info], dict[str, Any]]) -> list[Any]:
    """Give records as JSON values; one whose module cannot be imported harms no other.

    Parameters
    ----------
    owners : iterable of MethodInfo, InspectorInfo or MetricInfo
        Which.
    record : callable
        Makes JSON values of one.

    Returns
    -------
    list of dict of str to value
        Those that can be imported; of each other one there is a warning.
    """
    made = []
    for owner in owners:
        try:
            made.append(record(owner))
        except PluginError as error:
            warnings.warn(str(error), RuntimeWarning, stacklevel=2)
    return made


def describe(
    title: str,
    said: Mapping[str, str],
    references: Sequence[str],
    parameters: Sequence[Parameter],
) -> None:
    """Print all there is to say of a method or an inspector.

    Parameters
    ----------
    title : str
        Its name and what it does.
    said : mapping of str to str
        What else there is, by words of at most 8 letters; what is empty is left out.
    references : sequence of str
        The papers.
    parameters : sequence of Parameter
    """
    click.secho(title, bold=True)
    papers = [("paper", reference) for reference in references]
    for word, text in (*said.items(), *papers):
        if text:
            click.echo(f"  {word:<8}  {text}")
    if parameters:
        rows = [(p.name, p.accepts, _shown(p.default), p.help) for p in parameters]
        print_table(("parameter", "accepts", "default", ""), rows)


def _shown(value: Any) -> str:
    """Write a default as it is typed on the command line."""
    return "none" if value is None else str(value)
