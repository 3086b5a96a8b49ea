"""A method's parameters, read from its dataclass fields."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

import numpy as np
import pytest

from cnnviz_core.errors import ParameterError
from cnnviz_core.parameters import Help, Parameter, Range, build, parameters_of, parse


@dataclass(frozen=True)
class Method:
    size: Annotated[int | None, Range(1), Help("how large")] = None
    share: Annotated[float, Range(0, 1, open_low=True)] = 0.5
    fill: Annotated[float | Literal["mean", "blur"], Help("what is shown")] = "mean"
    mode: Literal["a", "b"] = "a"
    deep: bool = False
    name: str = "auto"


def test_schema():
    size, share, fill, mode, deep, name = parameters_of(Method)
    assert size == Parameter("size", (int, type(None)), None, (), Range(1), "how large")
    assert size.accepts == "int or none, >= 1"
    assert share.accepts == "float, (0, 1]"
    assert (fill.types, fill.choices) == ((float,), ("mean", "blur"))
    assert fill.accepts == "float or 'mean' or 'blur'"
    assert fill.help == "what is shown"
    assert mode.choices == ("a", "b")
    assert mode.accepts == "'a' or 'b'"
    assert (deep.types, name.types) == ((bool,), (str,))


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"size": 3},
        {"size": np.int64(3)},
        {"share": 1},
        {"share": np.float32(0.5)},
        {"fill": 0.5},
        {"fill": 1},
        {"fill": "blur"},
        {"mode": "b"},
        {"deep": True},
    ],
)
def test_good_values(params):
    method = build(Method, params)
    for key, value in params.items():
        assert getattr(method, key) == value


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"size": 0}, "size=0"),
        ({"size": 1.5}, "size=1.5"),
        ({"size": True}, "size=True"),
        ({"share": 0}, "share=0"),
        ({"share": 1.01}, "share=1.01"),
        ({"share": float("nan")}, "share=nan"),
        ({"share": "half"}, "share='half'"),
        ({"mode": "c"}, "'a' or 'b'"),
        ({"fill": "sand"}, "fill='sand'"),
        ({"sise": 3}, "perhaps 'size'"),
    ],
)
def test_bad_values(params, message):
    with pytest.raises(ParameterError, match=message):
        build(Method, params, method="method")


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("size", "3", 3),
        ("size", "none", None),
        ("share", "0.25", 0.25),
        ("share", "1", 1.0),
        ("fill", "mean", "mean"),
        ("fill", "0", 0.0),
        ("mode", "b", "b"),
        ("deep", "yes", True),
        ("deep", "FALSE", False),
        ("name", "layer4", "layer4"),
    ],
)
def test_reading_from_the_command_line(name, text, value):
    parameter = {p.name: p for p in parameters_of(Method)}[name]
    assert parse(parameter, text) == value
    assert type(parse(parameter, text)) is type(value)


@pytest.mark.parametrize(
    ("name", "text"), [("size", "big"), ("mode", "c"), ("deep", "3"), ("fill", "sand")]
)
def test_unreadable_text(name, text):
    parameter = {p.name: p for p in parameters_of(Method)}[name]
    with pytest.raises(ParameterError, match=name):
        parse(parameter, text)


def test_what_is_no_schema():
    class Plain:
        pass

    @dataclass
    class NoDefault:
        size: int

    @dataclass
    class Odd:
        sizes: list[int] = field(default_factory=list)

    for cls, message in ((Plain, "dataclass"), (NoDefault, "no default"), (Odd, "type")):
        with pytest.raises(ParameterError, match=message):
            parameters_of(cls)
