"""Options that several commands take."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from cnnviz_core.errors import ParameterError
from cnnviz_core.preprocessing import Preprocessing

__all__ = [
    "batch_size_option",
    "box_options",
    "input_shape_option",
    "model_option",
    "model_options",
    "network_options",
    "open_network",
    "presentation_of",
    "presentation_options",
    "read_shape",
    "sample_options",
    "target_option",
]

F = TypeVar("F", bound=Callable[..., Any])

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


def model_options(function: F) -> F:
    """Add the options that say which network is meant, and how it is fed."""
    return model_option(required=True)(network_options(function))


def model_option(*, required: bool) -> Callable[[F], F]:
    """Make the option that says which network is meant.

    Parameters
    ----------
    required : bool
        Whether nothing else says it.

    Returns
    -------
    decorator
    """
    return click.option(
        "--model",
        "-M",
        required=required,
        metavar="SOURCE",
        help="The network: torchvision:resnet50, timm:NAME, keras:NAME, a file, "
        "package.module:function, or demo.",
    )


def network_options(function: F) -> F:
    """Add the options that say how the network is loaded and fed."""
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
    ):
        function = option(function)
    return function


class _BatchSize(click.IntRange):
    """A whole number, or "auto"."""

    def convert(self, value: Any, *more: Any) -> Any:
        return value if value == "auto" else super().convert(value, *more)


batch_size_option: Final = click.option(
    "--batch-size",
    type=click.IntRange(1),
    metavar="N",
    help="How many samples go through the network at once.",
)
_measured_batch_size: Final = click.option(
    "--batch-size",
    type=_BatchSize(1),
    metavar="N|auto",
    help="How many samples go through the network at once; auto measures what pays, for methods "
    "that can.",
)


def target_option(more: str, *, multiple: bool = False) -> Callable[[F], F]:
    """Make the option that says what is asked of the network.

    Parameters
    ----------
    more : str
        The end of its help: what else may be asked, and what is meant where nothing is.
    multiple : bool
        Whether it may be given several times; it is called "targets" then.

    Returns
    -------
    decorator
    """
    return click.option(
        "--target",
        "-t",
        "targets" if multiple else "target",
        multiple=multiple,
        metavar="CLASS",
        help="A class's number or name; 'tabby - boxer' or 'tabby rather than boxer' for what "
        f"tells one from the other; 'p(tabby)' for its probability{more}",
    )


def sample_options(function: F) -> F:
    """Add the options that say what is explained, and where."""
    for option in (
        _measured_batch_size,
        click.option(
            "--layer",
            "-l",
            default="auto",
            show_default=True,
            help="The layer to look at: its name, a pattern (layer4.*, the last that matches), or "
            "-1 for the last, as `cnnviz layers` numbers them.  Several, separated by commas, for "
            "methods that look at several.",
        ),
        target_option(
            "; top-3 for each of the first three.  The predicted class if left out.",
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
            type=click.Choice(["positive", "absolute", "signed", "relative"]),
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


input_shape_option: Final = click.option(
    "--input-shape",
    metavar="H,W,C",
    help="The input's shape, where the network does not tell: 224,224,3.",
)


def read_shape(text: str) -> tuple[int, ...]:
    """Read what was typed for `input_shape_option`.

    Parameters
    ----------
    text : str
        Whole numbers with commas.

    Returns
    -------
    tuple of int

    Raises
    ------
    ParameterError
        If it is no shape.
    """
    try:
        shape = tuple(int(part) for part in text.replace("x", ",").split(","))
    except ValueError:
        shape = ()
    if not shape or min(shape) < 1:
        raise ParameterError(
            f"--input-shape is {text!r}", "whole numbers of at least 1", "write 224,224,3"
        )
    return shape


def open_network(
    model: str,
    backend: str | None,
    labels: str | None,
    preprocess: str | None,
    input_shape: str | None = None,
) -> Any:
    """Load the network that the options name.

    Parameters
    ----------
    model, backend, labels, preprocess, input_shape : str or None
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
        input_shape=None if input_shape is None else read_shape(input_shape),
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
