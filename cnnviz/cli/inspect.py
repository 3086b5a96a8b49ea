"""A command of each inspector: ``cnnviz filters``, ``cnnviz features`` and so on."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import click
import numpy as np

from cnnviz.cli.base import (
    PARTLY,
    Group,
    as_json,
    error_record,
    json_option,
    print_error,
    progress,
)
from cnnviz.cli.findings import print_findings
from cnnviz.cli.options import (
    batch_size_option,
    input_shape_option,
    model_option,
    network_options,
    open_network,
    target_option,
)
from cnnviz.cli.outputs import FORMATS, files_to_write, is_animated
from cnnviz.cli.parameters import ParameterCommand, given_parameters
from cnnviz.listing import usual_inspector
from cnnviz.wording import slug
from cnnviz_core.errors import ParameterError, UnknownMethodError
from cnnviz_core.exhibits import Table
from cnnviz_core.parameters import Parameter, parameters_of
from cnnviz_core.registry import get_registry
from cnnviz_core.specs import InspectorSpec

__all__ = ["command", "summaries"]

_LONGEST: Final = 120
"""Characters of a file's name; the rest of a long list of options is cut off."""


_EVERY: Final = 4
"""Of an animation for which nothing is said every so many steps are a frame."""


class _Inspectors(Group):
    """A group with a command for each installed inspector, imported when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """List the inspectors."""
        return list(get_registry().inspectors)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Make the command of an inspector, named in any of its spellings."""
        try:
            return _command_of(usual_inspector(cmd_name))
        except UnknownMethodError:
            return None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write what each inspector shows; none is imported for that."""
        with formatter.section("Inspectors"):
            formatter.write_dl(summaries())


def summaries() -> list[tuple[str, str]]:
    """List the inspectors' commands.

    Returns
    -------
    list of (str, str)
        The name of each, and a line on what it shows.
    """
    return [(name, f"{spec.summary}.") for name, spec in get_registry().inspectors.items()]


@click.group("inspect", cls=_Inspectors)
def command() -> None:
    """Look inside by any of these inspectors: `cnnviz inspect filters` is `cnnviz filters`."""


class _InspectorCommand(ParameterCommand):
    """A command that takes an inspector's parameters as options.

    Parameters
    ----------
    inspector : str
        Its usual name.
    **kwargs
        Handed to `ParameterCommand`.
    """

    def __init__(self, *args: Any, inspector: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.inspector = inspector

    def owners(self, ctx: click.Context) -> Mapping[str, Sequence[Parameter]]:
        """Give the inspector; see `ParameterCommand.owners`."""
        return {self.inspector: [p for p in _parameters(self.inspector) if p.name != "batch_size"]}


def _parameters(inspector: str) -> tuple[Parameter, ...]:
    """Give an inspector's parameters."""
    return parameters_of(get_registry().inspector_class(inspector))


def _command_of(name: str) -> click.Command:
    """Make the command of an inspector."""
    spec = get_registry().inspectors[name]

    def run(**given: Any) -> None:
        _run(name, spec, **given)

    paper = "".join(f"\n\n{reference}." for reference in spec.references)
    run.__doc__ = f"{spec.summary}.\n\nCost: {spec.cost or 'not told'}.{paper}"
    for option in reversed(_options(spec)):
        run = option(run)
    return click.command(name, cls=_InspectorCommand, inspector=name)(run)


def _options(spec: InspectorSpec) -> list[Callable[[Any], Any]]:
    """List the arguments and options of an inspector's command, but for its parameters."""
    alone, labelled = spec.shown == "nothing", spec.shown == "labelled pictures"
    if alone:
        options = [click.argument("network", required=False, metavar="MODEL")]
    else:
        must = spec.shown != "pictures or nothing"
        options = [
            click.argument(
                "pictures",
                nargs=-1,
                required=must,
                metavar="PICTURE|FOLDER..." if must else "[PICTURE|FOLDER]...",
            )
        ]
    options += [model_option(required=not alone), network_options, input_shape_option]
    if labelled:
        options.append(
            click.option(
                "--truth",
                metavar="FILE",
                help="The pictures' true classes: a CSV file with a picture and its label in each "
                "line, or a JSON mapping.  The names of the sub-folders that the pictures lie in "
                "if left out.",
            )
        )
    if spec.targeted:
        options.append(
            target_option(
                ".  May be given several times: one for each picture, shown or to be made.  Chosen "
                "by the inspector if left out.",
                multiple=True,
            )
        )
    return [
        *options,
        batch_size_option,
        click.option(
            "--out",
            "-o",
            default=".",
            show_default=True,
            metavar="FOLDER|FILE",
            help="The folder to write to, made if need be; or a file, whose suffix says what to "
            "write.",
        ),
        click.option(
            "--format",
            "-f",
            "formats",
            multiple=True,
            type=click.Choice(FORMATS),
            help="What to write; may be given several times.  npz holds all numbers; gif and mp4 "
            "an animation, where there is one.  [default: png]",
        ),
        click.option(
            "--pictures",
            "apart",
            metavar="FOLDER",
            help="Write each picture of the sheet to this folder too, in its own pixels.",
        ),
        json_option,
    ]


def _run(
    name: str,
    spec: InspectorSpec,
    *,
    model: str | None,
    backend: str | None,
    labels: str | None,
    preprocess: str | None,
    input_shape: str | None,
    batch_size: int | None,
    out: str,
    formats: tuple[str, ...],
    apart: str | None,
    as_document: bool,
    network: str | None = None,
    pictures: tuple[str, ...] = (),
    targets: tuple[str, ...] = (),
    truth: str | None = None,
    **given: Any,
) -> None:
    """Run an inspector and write what it found."""
    from cnnviz.inspecting import run_inspector, subject_of

    parameters = _parameters(name)
    params = given_parameters(parameters, given)
    if batch_size is not None and any(p.name == "batch_size" for p in parameters):
        params["batch_size"] = batch_size
    frames = _frames(name, parameters, params) if is_animated(out, formats) else {}
    inspector = get_registry().inspector(name, **params, **frames)
    if spec.shown == "labelled pictures" and truth is None and _is_truth(labels):
        labels, truth = None, labels
    opened = open_network(_one_model(model, network), backend, labels, preprocess, input_shape)
    stem = _stem(name, opened.name, pictures, targets, params)
    files = files_to_write(out, formats, stem)
    with progress(), warnings.catch_warnings():
        # What is left out is told at the end.
        warnings.filterwarnings("ignore", message="left out: ")
        subject = subject_of(
            opened,
            list(pictures) or None,
            target=targets[0] if len(targets) == 1 else targets or None,
            truth=truth,
            batch_size=batch_size,
        )
        inspection = run_inspector(name, inspector, subject, opened)
        replaced = [file for file in files if file.exists()]
        for file in files:
            inspection.save(file)
        pieces = [] if apart is None else inspection.save_pictures(apart)
    failures = getattr(subject.pictures, "failures", {})
    if as_document:
        as_json(
            {
                "inspector": name,
                "model": opened.name,
                "framework": opened.model.framework,
                "title": inspection.title,
                "facts": inspection.facts,
                "tables": [
                    {"title": each.title, "columns": each.columns, "rows": each.rows}
                    for each in inspection.exhibits
                    if isinstance(each, Table)
                ],
                "arrays": {
                    key: {"shape": array.shape, "dtype": array.dtype.name}
                    for key, array in inspection.arrays.items()
                },
                "files": files,
                "replaced": replaced,
                "pictures": pieces,
                "failures": [
                    {"picture": picture, "error": error_record(error)}
                    for picture, error in failures.items()
                ],
            }
        )
    else:
        print_findings(inspection)
        for file in files:
            click.echo(f"Look at {file}" + (" (written over)" if file in replaced else ""))
        if pieces:
            click.echo(f"{len(pieces)} pictures are in {apart}")
    for picture, error in failures.items():
        print_error(error, picture)
    if failures:
        raise click.exceptions.Exit(PARTLY)


def _frames(
    name: str, parameters: Sequence[Parameter], params: Mapping[str, Any]
) -> dict[str, int]:
    """Have frames kept where an animation is asked for and nothing is said of them."""
    known = {parameter.name for parameter in parameters}
    if "frames" not in known:
        raise ParameterError(
            f"an animation was asked for, and {name} makes none",
            "a picture, a page or numbers",
            "leave out gif and mp4",
        )
    told = any(params.get(key) for key in ("frames", "zoom_frames"))
    return {} if told else {"frames": _EVERY}


def _one_model(option: str | None, argument: str | None) -> str:
    """Take the network from the option or the argument, wherever it is."""
    if option is not None and argument is not None:
        raise click.UsageError(f"Two networks are named: {argument} and --model {option}.")
    model = argument if option is None else option
    if model is None:
        raise click.UsageError("Missing argument 'MODEL'.  Try demo, or torchvision:resnet50.")
    return model


def _is_truth(labels: str | None) -> bool:
    """Tell whether what was given for the classes' names tells the pictures' classes."""
    from cnnviz.collection import is_truth_file

    return labels is not None and is_truth_file(labels)


def _stem(
    name: str,
    network: str,
    pictures: Sequence[str],
    targets: Sequence[str],
    params: Mapping[str, Any],
) -> str:
    """Name the files after what makes the result: pictures, inspector, network, options."""
    parts = [slug(Path(pictures[0]).stem)] if pictures else []
    if len(pictures) > 1:
        parts.append(f"and-{len(pictures) - 1}-more")
    parts += [slug(part) for part in (name, network, *targets)]
    for key, value in params.items():
        # A word says by itself what it is, a number does not.
        told = "" if isinstance(value, np.ndarray) else f"-{value}"
        parts.append(slug(value if isinstance(value, str) else key + told))
    return "-".join(filter(None, parts))[:_LONGEST].rstrip("-.")
