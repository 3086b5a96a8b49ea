"""A method's parameters, read from its dataclass fields."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
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

    @dataclass
    class ArrayDefault:
        values: npt.NDArray[Any] = field(default_factory=lambda: np.zeros(3))

    for cls, message in (
        (Plain, "dataclass"),
        (NoDefault, "no default"),
        (Odd, "type"),
        (ArrayDefault, "array as default"),
    ):
        with pytest.raises(ParameterError, match=message):
            parameters_of(cls)


@dataclass(frozen=True, eq=False)
class Compared:
    baseline: Annotated[
        float | Literal["mean"] | npt.NDArray[Any], Range(-1, 1), Help("what to start from")
    ] = 0.0
    background: npt.NDArray[np.float32] | None = None
    bare: np.ndarray | str = "none of them"


PARAMETERS = {p.name: p for p in parameters_of(Compared)}


def test_the_schema_of_arrays():
    baseline, background, bare = PARAMETERS.values()
    assert (baseline.types, baseline.choices) == ((float, np.ndarray), ("mean",))
    assert baseline.accepts == "float or array (.npy file) or 'mean', [-1, 1]"
    assert background.accepts == "array (.npy file) or none"
    assert bare.types == (np.ndarray, str)
    assert parameters_of(Compared) == (baseline, background, bare)
    assert repr(background).count("ndarray") == 1


def test_an_array_is_taken_as_a_copy_that_stays():
    values = np.linspace(-1, 1, 6).reshape(2, 3)
    method = build(Compared, {"baseline": values, "background": values})
    values[:] = 5
    for kept in (method.baseline, method.background):
        np.testing.assert_array_equal(kept, np.linspace(-1, 1, 6).reshape(2, 3))
        assert not kept.flags.writeable
    assert build(Compared, {"baseline": np.array(0.5)}).baseline == 0.5
    assert build(Compared, {"baseline": "mean", "background": None}).background is None


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"baseline": np.array(["a"])}, r"<U1, \(1,\).*"),
        ({"baseline": np.array([None])}, "real numbers"),
        ({"baseline": np.ones(2, dtype=complex)}, "real numbers"),
        ({"baseline": np.empty((0, 3))}, "real numbers"),
        ({"baseline": np.array([0.0, np.nan])}, "NaN or infinity"),
        ({"baseline": np.array([0.0, 1.5])}, "from 0 to 1.5"),
        ({"baseline": [0.0, 0.5]}, "baseline="),
        ({"baseline": 1.5}, "baseline=1.5"),
        ({"background": 1.5}, "background=1.5"),
    ],
)
def test_bad_arrays(params, message):
    with pytest.raises(ParameterError, match=message):
        build(Compared, params, method="method")


def test_an_array_where_none_fits_is_refused():
    with pytest.raises(ParameterError, match="size="):
        build(Method, {"size": np.ones((2, 2))})


def test_reading_arrays_from_the_command_line(tmp_path, monkeypatch):
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.save(tmp_path / "b.npy", values)
    for name in PARAMETERS:
        read = parse(PARAMETERS[name], str(tmp_path / "b.npy"))
        np.testing.assert_array_equal(read, values)
        assert read.dtype == np.float32
    monkeypatch.setenv("HOME", str(tmp_path))
    np.testing.assert_array_equal(parse(PARAMETERS["background"], "~/b.npy"), values)
    assert parse(PARAMETERS["baseline"], "0.5") == 0.5
    assert parse(PARAMETERS["baseline"], "mean") == "mean"
    assert parse(PARAMETERS["background"], "none") is None
    assert parse(PARAMETERS["bare"], "words") == "words"


def test_files_that_hold_no_array(tmp_path):
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    with (tmp_path / "several.npy").open("wb") as file:
        np.savez(file, a=np.ones(2), b=np.ones(3))
    (tmp_path / "text.npy").write_text("0.5")
    (tmp_path / "archive.npy").write_bytes((tmp_path / "several.npy").read_bytes()[:99])
    (tmp_path / "empty.npy").touch()
    np.save(tmp_path / "whole.npy", np.ones(99))
    (tmp_path / "half.npy").write_bytes((tmp_path / "whole.npy").read_bytes()[:-60])
    for name in ("objects", "several", "archive", "text", "empty", "half", "missing"):
        with pytest.raises(ParameterError, match="cannot be read as an array"):
            parse(PARAMETERS["background"], str(tmp_path / f"{name}.npy"))
    with pytest.raises(ParameterError, match=r"\.npy file"):
        parse(PARAMETERS["baseline"], "blurred")
