"""Options that several commands take, and those that come from a method's parameters."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from cnnviz.cli.base import Command
from cnnviz_core.errors import ParameterError
from cnnviz_core.parameters import Parameter, parse
from cnnviz_core.preprocessing import Preprocessing
from cnnviz_core.registry import get_registry

__all__ = [
    "MethodCommand",
    "box_options",
    "method_parameters",
    "model_options",
    "named_methods",
    "open_network",
    "presentation_of",
    "presentation_options",
    "sample_options",
]

F = TypeVar("F", bound=Callable[..., Any])

_PREFIX: Final = "method_"
_METHODS: Final = "cnnviz.methods"
_ELSEWHERE: Final = frozenset({"layer", "batch_size"})

_IMAGENET: Final = Preprocessing(
    size=(224, 224),
    resize=256,
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
)
_PRESETS: Final[Mapping[str, Preprocessing]] = {
    "imagenet": _IMAGENET,
    "unit": Preprocessing(),
    "symmetric": Preprocessing(scale=1 / 127.5, mean=(1.0,)),
    "raw": Preprocessing(scale=1.0),
}


class MethodCommand(Command):
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

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """List the command's own options and the methods'."""
        own = super().get_params(ctx)
        taken = {option for param in own for option in param.opts}
        return [*own, *self._method_options(ctx, taken)]

    def _method_options(self, ctx: click.Context, taken: set[str]) -> list[click.Option]:
        """Make an option of each parameter of each method."""
        owners: dict[str, list[tuple[str, Parameter]]] = {}
        for method in ctx.meta.get(_METHODS) or self.method_default:
            for parameter in get_registry().parameters(method):
                if parameter.name not in _ELSEWHERE:
                    owners.setdefault(parameter.name, []).append((method, parameter))
        return [_option(name, shared, taken) for name, shared in owners.items()]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the command's own options, then the methods'."""
        own: list[tuple[str, str]] = []
        theirs: list[tuple[str, str]] = []
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx) if isinstance(param, click.Option) else None
            if record is not None:
                (theirs if _is_method_option(param) else own).append(record)
        with formatter.section("Options"):
            formatter.write_dl(own)
        named = ctx.meta.get(_METHODS) or self.method_default
        if theirs:
            with formatter.section(f"Options of {', '.join(named)}"):
                formatter.write_dl(theirs)
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
    """Make one option of a parameter that one or several methods have."""
    flag = "--" + name.replace("_", "-")
    if flag in taken:
        flag = f"--{owners[0][0]}-{name.replace('_', '-')}"
    parameter = owners[0][1]
    default = "none" if parameter.default is None else parameter.default
    text = f"{parameter.help}  [{parameter.accepts}; default: {default}]".strip()
    kinds = [kind.__name__ for kind in parameter.types if kind is not type(None)]
    return click.Option([flag, _PREFIX + name], metavar="|".join(kinds).upper(), help=text)


def _is_method_option(param: click.Parameter) -> bool:
    """Tell a method's option from the command's own."""
    return param.name is not None and param.name.startswith(_PREFIX)


def method_parameters(method: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Read the parameters that were given for a method, leaving out those of others.

    Parameters
    ----------
    method : str
        The method's name.
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
    params = {}
    for parameter in get_registry().parameters(method):
        text = given.get(_PREFIX + parameter.name)
        if text is not None:
            params[parameter.name] = parse(parameter, text)
    return params


def model_options(function: F) -> F:
    """Add the options that say which network is meant, and how it is fed."""
    for option in (
        click.option(
            "--preprocess",
            metavar="NAME|FILE",
            help="How pictures are prepared, if not as published with the network: "
            "imagenet, unit (0..1), symmetric (-1..1), raw (0..255), or a JSON file with the "
            "fields of cnnviz.Preprocessing.",
        ),
        click.option(
            "--labels",
            metavar="NAME|FILE",
            help="The classes' names: imagenet-1k, or a text file with one a line.",
        ),
        click.option("--backend", metavar="NAME", help="Which backend loads the network."),
        click.option(
            "--model",
            "-M",
            required=True,
            metavar="SOURCE",
            help="The network: torchvision:resnet50, timm:NAME, keras:NAME, a file, "
            "package.module:function, or demo.",
        ),
    ):
        function = option(function)
    return function


def sample_options(function: F) -> F:
    """Add the options that say what is explained, and where."""
    for option in (
        click.option(
            "--batch-size",
            type=click.IntRange(1),
            metavar="N",
            help="How many samples go through the network at once.",
        ),
        click.option(
            "--layer",
            "-l",
            default="auto",
            show_default=True,
            help="The layer to look at: its name, a pattern (layer4.*, the last that matches), or "
            "-1 for the last, as `cnnviz layers` numbers them.  Several, separated by commas, for "
            "methods that look at several.",
        ),
        click.option(
            "--target",
            "-t",
            metavar="CLASS",
            help="A class's number or name; 'tabby - boxer' or 'tabby rather than boxer' for what "
            "tells one from the other; 'p(tabby)' for its probability; top-3 for each of the first "
            "three.  The predicted class if left out.",
        ),
    ):
        function = option(function)
    return function


def box_options(function: F) -> F:
    """Add the options that say whether and where boxes are drawn."""
    for option in (
        click.option(
            "--threshold",
            type=click.FloatRange(0, 1, max_open=True),
            help="The share of the maximum above which a box is drawn.  [default: 0.15]",
        ),
        click.option("--boxes", is_flag=True, help="Draw the box around what is hottest."),
    ):
        function = option(function)
    return function


def presentation_options(function: F) -> F:
    """Add the options that say how maps are shown."""
    for option in (
        click.option(
            "--normalise",
            type=click.Choice(["max", "percentile", "min-max", "none"]),
            help="How heat is scaled: divided by its maximum; the same, clipped at the 99th "
            "percentile; from its least value to its largest; or not at all.  [default: percentile "
            "for attributions to single pixels, else max]",
        ),
        click.option(
            "--upsample",
            type=click.Choice(["bilinear", "bicubic", "nearest"]),
            help="How a layer's grid is brought to the picture's size.",
        ),
        click.option(
            "--reduce",
            type=click.Choice(["max-abs", "sum", "mean", "sum-abs", "mean-abs", "l2"]),
            help="How attributions to single values are reduced over the colours.",
        ),
        click.option(
            "--sign",
            type=click.Choice(["positive", "absolute", "signed"]),
            help="Whether the positive part is shown, the magnitude, or both signs.  If left out, "
            "all is as the method's authors show it.",
        ),
    ):
        function = option(function)
    return function


def presentation_of(given: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """Take what `presentation_options` added out of a command's arguments.

    Parameters
    ----------
    given : dict of str to value
        The arguments; those of the presentation are removed.

    Returns
    -------
    how : dict of str to str
        For `Explanation.shown`; empty if nothing was asked for.
    normalise : bool or str
        For `Explanation.save`.
    """
    how = {name: given.pop(name) for name in ("sign", "reduce", "upsample")}
    scale = given.pop("normalise")
    normalise = True if scale is None else False if scale == "none" else scale
    return {name: value for name, value in how.items() if value is not None}, normalise


def open_network(
    model: str, backend: str | None, labels: str | None, preprocess: str | None
) -> Any:
    """Load the network that the options name.

    Parameters
    ----------
    model, backend, labels, preprocess : str or None
        As typed.

    Returns
    -------
    Network
    """
    from cnnviz.network import wrap
    from cnnviz.sources import load

    return wrap(
        load(model, backend=backend),
        labels=None if labels is None else _labels(labels),
        preprocess=None if preprocess is None else _preprocessing(preprocess),
    )


def _labels(text: str) -> Any:
    """Read class names from a file, or take the name of a list."""
    if text == "imagenet-1k":
        return text
    return [line.strip() for line in _read(text, "labels").splitlines() if line.strip()]


def _preprocessing(text: str) -> Preprocessing:
    """Read a preprocessing from a JSON file, or take one that has a name."""
    if text in _PRESETS:
        return _PRESETS[text]
    content = _read(text, "preprocess")
    known = {field.name for field in dataclasses.fields(Preprocessing)}
    try:
        values = json.loads(content)
        unknown = sorted(set(values) - known)
        if unknown:
            raise ValueError(f"unknown field {unknown[0]!r}")
        fields: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in values.items()
        }
        return Preprocessing(**fields)
    except (ValueError, TypeError) as error:
        raise ParameterError(
            f"{text!r} describes no preprocessing: {error}",
            f"a JSON object with fields of {', '.join(sorted(known))}",
            'write for instance {"size": [224, 224], "mean": [0.5], "std": [0.5]}',
        ) from error


def _read(path: str, option: str) -> str:
    """Read a text file that an option names."""
    try:
        return Path(path).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        names = {"labels": "imagenet-1k", "preprocess": ", ".join(_PRESETS)}
        raise ParameterError(
            f"--{option}: {path!r} cannot be read ({type(error).__name__})",
            f"a text file, or {names[option]}",
            "check the path",
        ) from error
