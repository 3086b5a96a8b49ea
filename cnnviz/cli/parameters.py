"""Options that come from the parameters of methods and inspectors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import click

from cnnviz.cli.base import Command
from cnnviz_core.parameters import Parameter, parse
from cnnviz_core.registry import get_registry

__all__ = [
    "MethodCommand",
    "ParameterCommand",
    "given_parameters",
    "method_parameters",
    "named_methods",
]

_PREFIX: Final = "parameter_"
_SHORT: Final = {"layer": "-l"}
_METHODS: Final = "cnnviz.methods"
_ELSEWHERE: Final = frozenset({"layer", "batch_size"})


class ParameterCommand(Command, ABC):
    """A command of whose options some come from the parameters of methods or inspectors."""

    @abstractmethod
    def owners(self, ctx: click.Context) -> Mapping[str, Sequence[Parameter]]:
        """Say whose parameters become options.

        Parameters
        ----------
        ctx : Context
            Of this command.

        Returns
        -------
        mapping of str to sequence of Parameter
            For each method or inspector those that become options.
        """

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """List the command's own options and those that come from parameters."""
        own = super().get_params(ctx)
        taken = {option for param in own for option in param.opts}
        sharing: dict[str, list[tuple[str, Parameter]]] = {}
        for owner, parameters in self.owners(ctx).items():
            for parameter in parameters:
                sharing.setdefault(parameter.name, []).append((owner, parameter))
        return [*own, *(_option(name, shared, taken) for name, shared in sharing.items())]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the command's own options, then the others."""
        own: list[tuple[str, str]] = []
        theirs: list[tuple[str, str]] = []
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx) if isinstance(param, click.Option) else None
            if record is not None:
                (theirs if _is_of_a_parameter(param) else own).append(record)
        with formatter.section("Options"):
            formatter.write_dl(own)
        if theirs:
            with formatter.section(f"Options of {', '.join(self.owners(ctx))}"):
                formatter.write_dl(theirs)


class MethodCommand(ParameterCommand):
    """A command that takes the parameters of the methods named in its own arguments as options.

    Parameters
    ----------
    method_default : tuple of str
        The methods that are meant where none is named.
    **kwargs
        Handed to `Command`.
    """

    def __init__(self, *args: Any, method_default: tuple[str, ...] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.method_default = method_default

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Look at the methods first, then parse everything."""
        ctx.meta[_METHODS] = _methods_among(args)
        return super().parse_args(ctx, args)

    def owners(self, ctx: click.Context) -> Mapping[str, Sequence[Parameter]]:
        """Give the methods that are meant; see `ParameterCommand.owners`."""
        return {
            method: [p for p in get_registry().parameters(method) if p.name not in _ELSEWHERE]
            for method in ctx.meta.get(_METHODS) or self.method_default
        }

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, and how to see more of them."""
        super().format_options(ctx, formatter)
        formatter.write_paragraph()
        formatter.write_text("Name methods before --help to see their options.")


def named_methods(texts: Sequence[str]) -> tuple[str, ...]:
    """Take the names out of what was typed, where commas may separate them.

    Parameters
    ----------
    texts : sequence of str
        As typed: "grad-cam,cam".

    Returns
    -------
    tuple of str
        Each name once, "all" among them.
    """
    names = (name.strip() for text in texts for name in text.split(","))
    return tuple(dict.fromkeys(filter(None, names)))


def _methods_among(args: Sequence[str]) -> tuple[str, ...]:
    """Find the methods among arguments of which the rest is not understood yet."""
    option = click.Option(["--method", "--methods", "-m"], multiple=True)
    peek = click.Command("peek", params=[option], add_help_option=False)
    settings: dict[str, Any] = {"ignore_unknown_options": True, "allow_extra_args": True}
    ctx = peek.make_context("peek", list(args), resilient_parsing=True, **settings)
    # All methods have hundreds of options; those of the named ones are enough.
    return tuple(name for name in named_methods(ctx.params["method"] or ()) if name != "all")


def _option(name: str, owners: Sequence[tuple[str, Parameter]], taken: set[str]) -> click.Option:
    """Make one option of a parameter that one or several methods or inspectors have."""
    flags = ["--" + name.replace("_", "-")]
    if flags[0] in taken:
        flags = [f"--{owners[0][0]}-{name.replace('_', '-')}"]
    flags += [short for short in (_SHORT.get(name),) if short is not None and short not in taken]
    parameter = owners[0][1]
    default = "none" if parameter.default is None else parameter.default
    text = f"{parameter.help}  [{parameter.accepts}; default: {default}]".strip()
    kinds = [kind.__name__.upper() for kind in parameter.types if kind is not type(None)]
    kinds += ["CHOICE"] if parameter.choices else []
    return click.Option([*flags, _PREFIX + name], metavar="|".join(kinds), help=text)


def _is_of_a_parameter(param: click.Parameter) -> bool:
    """Tell an option that comes from a parameter from the command's own."""
    return param.name is not None and param.name.startswith(_PREFIX)


def method_parameters(method: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Read the parameters that were given for a method; see `given_parameters`.

    Parameters
    ----------
    method : str
        The method's name.
    given : mapping of str to str
        A command's arguments beyond its own.

    Returns
    -------
    dict of str to value
    """
    return given_parameters(get_registry().parameters(method), given)


def given_parameters(parameters: Iterable[Parameter], given: Mapping[str, Any]) -> dict[str, Any]:
    """Read the parameters that were given for a method or an inspector, leaving out others'.

    Parameters
    ----------
    parameters : iterable of Parameter
        All that it has.
    given : mapping of str to str
        A command's arguments beyond its own.

    Returns
    -------
    dict of str to value

    Raises
    ------
    ParameterError
        If a text cannot be read as the parameter's type.
    """
    return {
        parameter.name: parse(parameter, text)
        for parameter in parameters
        if (text := given.get(_PREFIX + parameter.name)) is not None
    }
