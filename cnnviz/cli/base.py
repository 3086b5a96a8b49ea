"""What the commands share: errors, JSON, tables, progress bars."""

from __future__ import annotations

import contextlib
import json
import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

import click

from cnnviz_core.errors import CnnvizError, ParameterError, near
from cnnviz_core.progress import listening

__all__ = [
    "FAILED",
    "PARTLY",
    "Command",
    "Group",
    "as_json",
    "error_record",
    "json_option",
    "make_folder",
    "print_error",
    "print_notes",
    "print_table",
    "progress",
]

FAILED: Final = 1
"""Exit code: an error, explained on stderr."""

PARTLY: Final = 3
"""Exit code: some pictures failed and the others worked."""

json_option = click.option(
    "--json", "as_document", is_flag=True, help="Print one JSON document and nothing else."
)


class Command(click.Command):
    """A command that explains errors and turns them into an exit code."""

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        """Parse the arguments."""
        wants_json = "--json" in args
        try:
            return super().make_context(info_name, args, parent, **extra)
        except CnnvizError as error:
            _stop(error, wants_json)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except CnnvizError as error:
            _stop(error, bool(ctx.params.get("as_document")) or "--json" in ctx.args)


class Group(Command, click.Group):
    """A group of commands that explains errors, such as those of plugins, likewise."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that is meant, or name one that is called much like it."""
        if not ctx.resilient_parsing and self.get_command(ctx, args[0]) is None:
            alike = near(args[0], self.list_commands(ctx), n=1)
            if alike:
                ctx.fail(f"No such command {args[0]!r}.  Perhaps {alike[0]!r} was meant.")
        return super().resolve_command(ctx, args)


def _stop(error: CnnvizError, wants_json: bool) -> NoReturn:
    """Tell an error and exit."""
    if wants_json:
        as_json({"error": error_record(error)})
    print_error(error)
    raise click.exceptions.Exit(FAILED)


def error_record(error: CnnvizError) -> dict[str, str]:
    """Give an error as JSON values.

    Parameters
    ----------
    error : CnnvizError
        The error.

    Returns
    -------
    dict of str to str
        "type", "problem", "expected" and "remedy".
    """
    return {
        "type": type(error).__name__,
        "problem": error.problem,
        "expected": error.expected,
        "remedy": error.remedy,
    }


def print_error(error: CnnvizError, about: str = "") -> None:
    """Tell an error on stderr.

    Parameters
    ----------
    error : CnnvizError
        The error.
    about : str
        What it is about, such as a file.
    """
    label = click.style("error: ", fg="red", bold=True)
    click.echo(label + (f"{about}: " if about else "") + str(error), err=True)


def print_notes(notes: Iterable[tuple[str, Sequence[str]]]) -> None:
    """Print what a reader of maps must know, on stdout.

    Parameters
    ----------
    notes : iterable of (str, sequence of str)
        Of each result the method and its notes; what several have in common is printed once.
    """
    label = click.style("note: ", fg="yellow", bold=True)
    for method, note in dict.fromkeys((method, note) for method, told in notes for note in told):
        click.echo(f"{label}{method}: {note}")


def as_json(document: Any) -> None:
    """Print a JSON document on stdout; numbers that are not finite become null.

    Parameters
    ----------
    document : JSON value
        NumPy's scalars and arrays are taken too.
    """
    click.echo(json.dumps(_plain(document), indent=2, ensure_ascii=False, allow_nan=False))


def _plain(value: Any) -> Any:
    """Make JSON values of mappings, sequences and NumPy's types."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


def make_folder(folder: Path) -> None:
    """Make a folder to write to, with those above it.

    Parameters
    ----------
    folder : Path
        It may exist already.

    Raises
    ------
    ParameterError
        If it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ParameterError(
            f"the folder {str(folder)!r} cannot be made: {error.strerror}",
            "a folder in which files may be written",
            "name another with --out",
        ) from error


def print_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    title: str | None = None,
    numeric: Sequence[str] = (),
    widths: Sequence[int] = (),
) -> None:
    """Print a table on stdout.

    Parameters
    ----------
    columns : sequence of str
        The titles; columns that are empty in every row are left out.
    rows : sequence of sequence of str
        The cells.
    title : str, optional
        A line above.
    numeric : sequence of str
        Columns to be set flush right.
    widths : sequence of int
        The columns' widths, the same on a terminal and in a pipe; a narrow terminal takes from all
        but the first.  As wide as the cells if left out.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = [i for i in range(len(columns)) if any(row[i] for row in rows)]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for i in shown:
        right = columns[i] in numeric
        table.add_column(
            columns[i],
            justify="right" if right else "left",
            no_wrap=right,
            overflow="fold",
            min_width=widths[i] if widths and i == 0 else None,
            max_width=widths[i] if widths else None,
        )
    for row in rows:
        table.add_row(*(Text(row[i]) for i in shown))
    console = Console(file=sys.stdout)
    if not console.is_terminal:
        # In a pipe nothing is to be wrapped.
        console = Console(file=sys.stdout, width=10_000)
    if title:
        # A title of the table's own would be as narrow as the table.
        console.print(Text(title, style="bold"))
    console.print(table)


@contextlib.contextmanager
def progress() -> Iterator[None]:
    """Show the progress of the work in this block as bars on stderr, where that is a terminal."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Remaining())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        tasks: dict[str, TaskID] = {}

        def listener(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done, total=total)
            if done >= total:
                bars.remove_task(tasks.pop(what))

        with listening(listener):
            yield
