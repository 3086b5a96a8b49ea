"""An explainer's parameters, read from its dataclass fields.

The fields are the only parameter list: the command line's options, the tables in the docs and the
checks of values all come from them.
"""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

import numpy as np
import numpy.typing as npt

from cnnviz_core.errors import ParameterError, near

__all__ = ["Help", "Parameter", "Range", "build", "parameters_of", "parse"]

_PLAIN: Final = (int, float, str, bool, type(None))
_NAMES: Final = {type(None): "none", np.ndarray: "array (.npy file)"}
_SUFFIX: Final = ".npy"


@dataclass(frozen=True)
class Range:
    """The values that a number may have, for ``Annotated[float, Range(0, 1)]``.

    Attributes
    ----------
    low, high : float or None
        The bounds; None is unbounded.
    open_low, open_high : bool
        Whether the bound itself is left out.
    """

    low: float | None = None
    high: float | None = None
    open_low: bool = False
    open_high: bool = False

    def __contains__(self, value: float) -> bool:
        above = self.low is None or (value > self.low if self.open_low else value >= self.low)
        below = self.high is None or (value < self.high if self.open_high else value <= self.high)
        return above and below

    def __str__(self) -> str:
        if self.high is None:
            return "any" if self.low is None else f"{'>' if self.open_low else '>='} {self.low:g}"
        if self.low is None:
            return f"{'<' if self.open_high else '<='} {self.high:g}"
        return (
            f"{'(' if self.open_low else '['}{self.low:g}, {self.high:g}"
            f"{')' if self.open_high else ']'}"
        )


@dataclass(frozen=True)
class Help:
    """One line on what a parameter does, for ``Annotated[float, Help("...")]``."""

    text: str


@dataclass(frozen=True)
class Parameter:
    """One parameter of an explainer.

    Attributes
    ----------
    name : str
        The field's name.
    types : tuple of type
        The types of which it takes any value: of int, float, str, bool, None and ndarray.
    default : object
        Its default.
    choices : tuple
        The values that it takes besides.
    range : Range or None
        The range of its numbers, also of those in an array.
    help : str
        One line.
    """

    name: str
    types: tuple[type, ...]
    default: Any
    choices: tuple[Any, ...] = ()
    range: Range | None = None
    help: str = ""

    @property
    def accepts(self) -> str:
        """What it takes, in words: "int, >= 1", "'mean' or 'black'", "array (.npy file)"."""
        names = [_NAMES.get(t, t.__name__) for t in self.types]
        words = " or ".join([*names, *map(repr, self.choices)])
        return words + (f", {self.range}" if self.range else "")


@functools.lru_cache(maxsize=512)
def parameters_of(explainer: type) -> tuple[Parameter, ...]:
    """Read the parameters of an explainer class.

    Parameters
    ----------
    explainer : type
        A dataclass whose fields all have defaults.

    Returns
    -------
    tuple of Parameter

    Raises
    ------
    ParameterError
        If the class is no dataclass, a field has no default or an array as default, or has a type
        that no command line can express.
    """
    if not dataclasses.is_dataclass(explainer):
        raise ParameterError(
            f"{explainer.__name__} is not a dataclass",
            "a frozen dataclass whose fields are the method's parameters",
            "decorate it with @dataclass(frozen=True)",
        )
    hints = typing.get_type_hints(explainer, include_extras=True)
    return tuple(_parameter(explainer, f, hints[f.name]) for f in dataclasses.fields(explainer))


def _parameter(owner: type, field: dataclasses.Field[Any], hint: Any) -> Parameter:
    """Read one field."""
    if field.default_factory is not dataclasses.MISSING:
        default = field.default_factory()
    elif field.default is not dataclasses.MISSING:
        default = field.default
    else:
        raise ParameterError(
            f"parameter {field.name!r} of {owner.__name__} has no default",
            "a default for every parameter, so that the method runs by its name alone",
            "give the field a default",
        )
    if isinstance(default, np.ndarray):
        raise ParameterError(
            f"parameter {field.name!r} of {owner.__name__} has an array as default",
            "a default that can be written in a line",
            "use None, and make the array where it is used",
        )
    extras: tuple[Any, ...] = ()
    if get_origin(hint) is Annotated:
        hint, *rest = get_args(hint)
        extras = tuple(rest)
    choices: list[Any] = []
    kinds: list[type] = []
    for part in get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,):
        if get_origin(part) is Literal:
            choices += get_args(part)
        elif part in _PLAIN:
            kinds.append(part)
        elif np.ndarray in (part, get_origin(part)):
            kinds.append(np.ndarray)
        else:
            raise ParameterError(
                f"parameter {field.name!r} of {owner.__name__} has the type {part}",
                "int, float, str, bool, None, a Literal of these, ndarray, or a union of these",
                "use one of these types",
            )
    return Parameter(
        name=field.name,
        types=tuple(dict.fromkeys(kinds)),
        default=default,
        choices=tuple(choices),
        range=next((e for e in extras if isinstance(e, Range)), None),
        help=next((e.text for e in extras if isinstance(e, Help)), ""),
    )


def _checked(parameter: Parameter, value: Any, method: str) -> Any:
    """Check one value, taking an int for a float, and NumPy's scalars for Python's.

    An array is copied, so that what is done to it later changes neither the method nor its record.
    """
    if isinstance(value, np.ndarray) and value.ndim and np.ndarray in parameter.types:
        return _checked_array(parameter, value, method)
    if hasattr(value, "item") and getattr(value, "shape", None) == ():
        value = value.item()
    if type(value) is int and float in parameter.types and int not in parameter.types:
        value = float(value)
    fits = type(value) in parameter.types
    if fits and parameter.range is not None and isinstance(value, (int, float)):
        fits = value in parameter.range
    fits = fits or any(type(value) is type(c) and value == c for c in parameter.choices)
    if not fits:
        raise _unfit(parameter, repr(value), method)
    return value


def _checked_array(parameter: Parameter, value: npt.NDArray[Any], method: str) -> npt.NDArray[Any]:
    """Check an array, and give a copy that cannot be written to."""
    shown = f"array of {value.dtype}, {value.shape}"
    if value.dtype.kind not in "fiub" or not value.size:
        raise _unfit(parameter, f"<{shown}>", method, "; an array of real numbers")
    if not np.isfinite(value).all():
        raise _unfit(parameter, f"<{shown}, with NaN or infinity>", method, "; finite numbers")
    ends = (value.min(), value.max())
    if parameter.range is not None and not all(float(end) in parameter.range for end in ends):
        raise _unfit(parameter, f"<{shown}, from {float(ends[0]):g} to {float(ends[1]):g}>", method)
    copy = value.copy()
    copy.flags.writeable = False
    return copy


def _unfit(parameter: Parameter, shown: str, method: str, more: str = "") -> ParameterError:
    """Make the error of a value that does not fit."""
    return ParameterError(
        f"{parameter.name}={shown} does not fit {method}",
        f"{parameter.accepts}{more} (default {parameter.default!r})",
        f"pass {parameter.name}={parameter.default!r} or leave it out",
    )


def build(explainer: type, params: Mapping[str, Any], *, method: str = "") -> Any:
    """Make an explainer of checked parameters.

    Parameters
    ----------
    explainer : type
        The explainer's dataclass.
    params : mapping of str to value
        The parameters that differ from their defaults.
    method : str
        The method's name, for messages.

    Returns
    -------
    Explainer

    Raises
    ------
    ParameterError
        If a parameter is unknown, of the wrong type, or out of its range.
    """
    method = method or explainer.__name__
    known = {p.name: p for p in parameters_of(explainer)}
    for name in params:
        if name not in known:
            alike = near(name, known) or list(known)
            raise ParameterError(
                f"{method} has no parameter {name!r}",
                f"one of {', '.join(known)}" if known else "no parameter at all",
                f"perhaps {alike[0]!r} was meant" if alike else "leave it out",
            )
    return explainer(**{k: _checked(known[k], v, method) for k, v in params.items()})


def parse(parameter: Parameter, text: str) -> Any:
    """Read a parameter's value from the command line.

    Parameters
    ----------
    parameter : Parameter
        Which one.
    text : str
        What was typed; for an array the path of a .npy file.

    Returns
    -------
    value
        Of the first of the parameter's types that the text can be read as.

    Raises
    ------
    ParameterError
        If it fits none of the types, or the file cannot be read.
    """
    for choice in parameter.choices:
        if text == str(choice):
            return choice
    folded = text.casefold()
    if type(None) in parameter.types and folded == "none":
        return None
    if bool in parameter.types and folded in (
        "true",
        "yes",
        "on",
        "false",
        "no",
        "off",
    ):
        return folded in ("true", "yes", "on")
    for kind in (int, float):
        if kind in parameter.types:
            try:
                return kind(text)
            except ValueError:
                continue
    if np.ndarray in parameter.types and folded.endswith(_SUFFIX):
        return _loaded(parameter, text)
    if str in parameter.types:
        return text
    raise ParameterError(
        f"{parameter.name} cannot be {text!r}",
        parameter.accepts,
        f"the default is {parameter.default!r}",
    )


def _loaded(parameter: Parameter, path: str) -> npt.NDArray[Any]:
    """Read an array from a file."""
    try:
        with Path(path).expanduser().open("rb") as file:
            array: npt.NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ParameterError(
            f"{parameter.name}: {path!r} cannot be read as an array ({error})",
            "the path of a file that numpy.save wrote",
            "write it with numpy.save(path, array), of numbers",
        ) from error
    return array
