"""The command ``cnnviz``."""

from __future__ import annotations

import importlib
import os
import warnings
from typing import Any

import click

__all__ = ["main"]

_COMMANDS = ("demo", "explain", "compare", "methods", "layers", "doctor")


class _Group(click.Group):
    """A group whose commands are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """List the commands, the first to try first."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"cnnviz.cli.{cmd_name}").command
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; a warning is one line on stderr."""

        def show(message: Warning | str, *args: Any, **kwargs: Any) -> None:
            click.secho(f"warning: {message}", fg="yellow", err=True)

        # TensorFlow's notes about its own start are no news to a user of this command.
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        with warnings.catch_warnings():
            warnings.showwarning = show
            return super().invoke(ctx)


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
