"""The command ``cnnviz``."""

from __future__ import annotations

import importlib
import os
import warnings
from collections.abc import Sequence
from typing import Any

import click

from cnnviz.cli.base import Group

__all__ = ["main"]

_EXPLAIN = ("demo", "explain", "compare", "evaluate", "report")
_LOOK_AROUND = ("methods", "inspectors", "metrics", "layers", "doctor")
_OWN = (*_EXPLAIN, "inspect", *_LOOK_AROUND)


class _Group(Group):
    """A group whose commands are imported when they are asked for; each inspector is one."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """List the commands, the first to try first."""
        names = [*_EXPLAIN, *_module("inspect").command.list_commands(ctx), "inspect"]
        return list(dict.fromkeys([*names, *_LOOK_AROUND]))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command; an inspector of the same name is left to ``cnnviz inspect``."""
        if cmd_name in _OWN:
            own: click.Command = _module(cmd_name).command
            return own
        inspector: click.Command | None = _module("inspect").command.get_command(ctx, cmd_name)
        return inspector

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands, by what one wants to know."""
        inside = [row for row in _module("inspect").summaries() if row[0] not in _OWN]
        sections = {
            "Explain": self._summaries(ctx, _EXPLAIN),
            "See inside": [*inside, *self._summaries(ctx, ("inspect",))],
            "Look around": self._summaries(ctx, _LOOK_AROUND),
        }
        width = max(len(name) for rows in sections.values() for name, _ in rows)
        for title, rows in sections.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(width), summary) for name, summary in rows])

    def _summaries(self, ctx: click.Context, names: Sequence[str]) -> list[tuple[str, str]]:
        """Give the first line on each of some commands."""
        commands = {name: self.get_command(ctx, name) for name in names}
        return [(n, c.get_short_help_str(limit=200)) for n, c in commands.items() if c is not None]

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; a warning is one line on stderr."""

        def show(message: Warning | str, *args: Any, **kwargs: Any) -> None:
            click.secho(f"warning: {message}", fg="yellow", err=True)

        # TensorFlow's notes about its own start are no news to a user of this command.
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        with warnings.catch_warnings():
            warnings.showwarning = show
            return super().invoke(ctx)


def _module(name: str) -> Any:
    """Import the module of a command."""
    return importlib.import_module(f"cnnviz.cli.{name}")


def _print_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    """Print the version and stop."""
    if wanted and not ctx.resilient_parsing:
        from importlib.metadata import version

        click.echo(f"cnnviz {version('cnnviz')}")
        ctx.exit()


@click.group(
    cls=_Group,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Print the version and exit.",
)
def main() -> None:
    """See what a convolutional network looks at.

    Try `cnnviz demo` first.  Exit codes: 0 all went well; 1 an error, explained on stderr; 2 the
    command was mistyped; 3 some pictures failed and the others worked.
    """
