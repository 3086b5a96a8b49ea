"""An explainer's parameters, read from its dataclass fields.

The fields are the only parameter list: the command line's options, the tables in the docs and the
checks of values all come from them.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from cnnviz_core.errors import ParameterError, near

__all__ = ["Help", "Parameter", "Range", "build", "parameters_of", "parse"]


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
        The types of which it takes any value: of int, float, str, bool and None.
    default : object
        Its default.
    choices : tuple
        The values that it takes besides.
    range : Range or None
        The range of its numbers.
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
        """What it takes, in words: "int, >= 1", "'mean' or 'black'"."""
        names = ["none" if t is type(None) else t.__name__ for t in self.types]
        words = " or ".join([*names, *map(repr, self.choices)])
        return words + (f", {self.range}" if self.range else "")


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
        If the class is no dataclass, a field has no default, or has a type that no command line
        can express.
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
    extras: tuple[Any, ...] = ()
    if get_origin(hint) is Annotated:
        hint, *rest = get_args(hint)
        extras = tuple(rest)
    choices: list[Any] = []
    kinds: list[type] = []
    for part in get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,):
        if get_origin(part) is Literal:
            choices += get_args(part)
        elif part in (int, float, str, bool, type(None)):
            kinds.append(part)
        else:
            raise ParameterError(
                f"parameter {field.name!r} of {owner.__name__} has the type {part}",
                "int, float, str, bool, None, a Literal of these, or a union of these",
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
    """Check one value, taking an int for a float, and NumPy's scalars for Python's."""
    if hasattr(value, "item") and getattr(value, "shape", None) == ():
        value = value.item()
    if type(value) is int and float in parameter.types and int not in parameter.types:
        value = float(value)
    fits = type(value) in parameter.types
    if fits and parameter.range is not None and isinstance(value, (int, float)):
        fits = value in parameter.range
    fits = fits or any(type(value) is type(c) and value == c for c in parameter.choices)
    if not fits:
        raise ParameterError(
            f"{parameter.name}={value!r} does not fit {method}",
            f"{parameter.accepts} (default {parameter.default!r})",
            f"pass {parameter.name}={parameter.default!r} or leave it out",
        )
    return value


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
        What was typed.

    Returns
    -------
    value
        Of the first of the parameter's types that the text can be read as.

    Raises
    ------
    ParameterError
        If it fits none of the types.
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
    if str in parameter.types:
        return text
    raise ParameterError(
        f"{parameter.name} cannot be {text!r}",
        parameter.accepts,
        f"the default is {parameter.default!r}",
    )
