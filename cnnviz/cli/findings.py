"""What an inspector found, in words on a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import click

from cnnviz.cli.base import print_table
from cnnviz_core.exhibits import Table

if TYPE_CHECKING:
    from cnnviz.inspection import Inspection

__all__ = ["print_findings"]

_ROOM: Final = 72
"""Characters for a fact."""

_ROWS: Final = 20
"""Of a table of facts."""


def print_findings(inspection: Inspection) -> None:
    """Print the title, the facts in short, those that are records as tables, and the tables.

    Parameters
    ----------
    inspection : Inspection
        What was found.
    """
    click.secho(inspection.title, bold=True)
    tables = {
        name: records
        for name, value in inspection.facts.items()
        if (records := _records(value)) is not None
    }
    said = {
        name.replace("_", " "): text
        for name, value in inspection.facts.items()
        if name not in tables and (text := _told(value))
    }
    width = max(map(len, said), default=0)
    for name, text in said.items():
        click.echo(f"  {name:<{width}}  {text}")
    for name, records in tables.items():
        _print_records(name.replace("_", " "), records)
    for exhibit in inspection.exhibits:
        if isinstance(exhibit, Table):
            _print_rows(exhibit.columns, exhibit.rows, exhibit.title, exhibit.numeric)


def _records(value: Any) -> list[dict[str, Any]] | None:
    """Take a fact for records, as a table has them, if it is made of mappings."""
    if isinstance(value, Mapping):
        named = [
            {"": key, **each} if isinstance(each, Mapping) else None for key, each in value.items()
        ]
    elif _is_list(value):
        named = [dict(each) if isinstance(each, Mapping) else None for each in value]
    else:
        return None
    records = [each for each in named if each is not None]
    return records if records and len(records) == len(named) else None


def _print_records(title: str, records: Sequence[Mapping[str, Any]]) -> None:
    """Print records as a table, of each what has room in a cell."""
    columns = [
        name
        for name in dict.fromkeys(key for record in records for key in record)
        if not any(_is_nested(record.get(name)) for record in records)
    ]
    rows = [[_told(record.get(name)) for name in columns] for record in records]
    numeric = [
        name for name in columns if all(isinstance(r.get(name), (int, float)) for r in records)
    ]
    titles = {name: name.replace("_", " ") for name in columns}
    _print_rows(list(titles.values()), rows, title, [titles[name] for name in numeric])


def _print_rows(
    columns: Sequence[str], rows: Sequence[Sequence[str]], title: str, numeric: Sequence[str]
) -> None:
    """Print a table, of a long one the beginning."""
    print_table(columns, rows[:_ROWS], title=title, numeric=numeric)
    if len(rows) > _ROWS:
        click.echo(f"... and {len(rows) - _ROWS} more, which --json shows")


def _is_nested(value: Any) -> bool:
    """Tell what has no room in a cell: mappings, and lists of more than plain values."""
    if _is_list(value):
        return any(_is_list(each) or isinstance(each, Mapping) for each in value)
    return isinstance(value, Mapping)


def _is_list(value: Any) -> bool:
    """Tell a list from a plain value."""
    return isinstance(value, (list, tuple))


def _told(value: Any) -> str:
    """Say a fact in a line, as far as there is room."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        parts = [f"{key}: {_told(each)}" for key, each in value.items()]
    elif _is_list(value):
        parts = [f"({_told(each)})" if _is_list(each) else _told(each) for each in value]
    else:
        return str(value)
    n = len(parts)
    while len(", ".join(parts)) > _ROOM and len(parts) > 1:
        del parts[-1]
    return ", ".join(parts) + (f", ... ({n})" if len(parts) < n else "")
