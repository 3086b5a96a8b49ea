"""The conformance kit for inspectors: checks that any inspector must pass, run on NumPy alone.

Examples
--------
::

    from cnnviz_core.testing.inspectors import parametrize_with_checks

    @parametrize_with_checks([Kernels(), Kernels(layer="conv2")])
    def test_kernels(inspector, check):
        check(inspector)
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from cnnviz_core.errors import CnnvizError, UnknownLayerError
from cnnviz_core.exhibits import Curves, Exhibit, Gallery, Matrix, Table, Tile
from cnnviz_core.inspector import ArrayPictures, Findings, Inspector, Subject
from cnnviz_core.model import Array, Model
from cnnviz_core.parameters import parameters_of
from cnnviz_core.pixels import PixelSpace
from cnnviz_core.targets import ClassScore
from cnnviz_core.testing.explainers import Offering
from cnnviz_core.testing.nets import plain
from cnnviz_core.testing.reference import ReferenceModel

__all__ = ["CHECKS", "parametrize_with_checks"]

_SHAPE: Final = (12, 9, 3)
_LABELS: Final = ("ant", "bee", "cat", "dog", "big cat")


@dataclass(frozen=True, eq=False)
class _Pictures(ArrayPictures):
    """Pictures in memory, of which some cannot be read."""

    unreadable: frozenset[int] = frozenset()

    def read(self, index: int) -> Array | None:  # type: ignore[override]
        """Give one picture, if it can be read."""
        return None if index in self.unreadable else self.x[index]


def _subject(
    n: int = 3,
    *,
    dtype: str = "float32",
    unreadable: frozenset[int] = frozenset(),
    model: Model | None = None,
    batch_size: int = 16,
) -> Subject:
    """Give a network and labelled pictures that cannot be written to."""
    x = np.random.default_rng(9).uniform(size=(3, *_SHAPE)).astype(dtype)[:n]
    x.flags.writeable = False
    names = tuple(f"{k}.png" for k in range(n))
    classes = tuple(k % len(_LABELS) for k in range(n))
    return Subject(
        ReferenceModel(plain(), dtype) if model is None else model,
        _Pictures(x, names, classes, unreadable),
        PixelSpace.identity(3),
        _SHAPE,
        labels=_LABELS,
        name="plain",
        batch_size=batch_size,
    )


def _finite(values: Array) -> bool:
    """Tell whether an array holds finite real numbers, and at least one."""
    return values.dtype.kind in "fiub" and values.size > 0 and bool(np.isfinite(values).all())


def check_is_a_dataclass_with_a_schema(inspector: Inspector) -> None:
    """It is a frozen dataclass; each field has a default, a plain type and a line of help."""
    cls = type(inspector)
    assert dataclasses.is_dataclass(cls), f"{cls.__name__} is not a dataclass"
    assert cls.__dataclass_params__.frozen, f"{cls.__name__} is not frozen"  # type: ignore[attr-defined]
    for parameter in parameters_of(cls):
        assert parameter.help, f"parameter {parameter.name!r} has no Help(...)"
    cls()


def check_declares_its_needs(inspector: Inspector) -> None:
    """It runs on a model that offers what it declares, and nothing else."""
    assert isinstance(inspector.needs, frozenset), "needs is not a frozenset"
    inspector.inspect(_subject(model=Offering(ReferenceModel(plain()), inspector.needs)))


def check_findings(inspector: Inspector) -> None:
    """It gives a title, arrays of finite numbers that its docstring names, and JSON's facts.

    Of names that differ by layer or picture, as in "conv1/maps", the docstring has the last part.
    """
    found = inspector.inspect(_subject())
    assert isinstance(found, Findings), f"it returned a {type(found).__name__}, not Findings"
    assert found.title.strip(), "the findings have no title"
    assert "\n" not in found.title, "the title is longer than a line"
    assert found.arrays, "there is no array"
    told = type(inspector).__doc__ or ""
    for name, array in found.arrays.items():
        assert _finite(array), f"the array {name!r} is not of finite real numbers, at least one"
        assert name.rpartition("/")[2] in told, f"the docstring says nothing of the array {name!r}"
    try:
        json.dumps(dict(found.facts), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise AssertionError(f"the facts are no JSON values: {error}") from error


def check_exhibits_can_be_drawn(inspector: Inspector) -> None:
    """It shows something, and each exhibit is whole; so is each frame of an animation."""
    found = inspector.inspect(_subject())
    assert found.exhibits, "there is nothing to be seen"
    for exhibit in found.exhibits:
        _check_exhibit(exhibit)
    for frame in found.frames:
        assert frame.dtype == np.uint8, f"a frame is {frame.dtype}, not uint8"
        assert frame.shape == (*found.frames[0].shape[:2], 3), f"a frame is {frame.shape}"


def _check_exhibit(exhibit: Exhibit) -> None:
    """Check what the records of `cnnviz_core.exhibits` promise."""
    if isinstance(exhibit, Gallery):
        _check_gallery(exhibit)
    elif isinstance(exhibit, Curves):
        _check_curves(exhibit)
    elif isinstance(exhibit, Table):
        assert exhibit.rows, "a table has no row"
        assert set(exhibit.numeric) <= set(exhibit.columns), "`numeric` names no column"
    elif isinstance(exhibit, Matrix):
        assert _finite(exhibit.values), "a matrix is not of finite real numbers, at least one"
    else:
        raise AssertionError(f"an exhibit is a {type(exhibit).__name__}")


def _check_gallery(gallery: Gallery) -> None:
    """Check the tiles of a gallery."""
    tiles = [tile for row in gallery.rows for tile in row if tile is not None]
    assert tiles, "a gallery is empty"
    for tile in tiles:
        _check_tile(tile)


def _check_tile(tile: Tile) -> None:
    """Check the ranges of what a tile shows."""
    if tile.heat is not None:
        assert tile.heat.ndim == 2, f"heat has the shape {tile.heat.shape}"
        assert _finite(tile.heat), "heat is not of finite numbers"
        low = -1 if tile.signed else 0
        ends = tile.heat.min(), tile.heat.max()
        assert low <= ends[0] <= ends[1] <= 1, f"heat is from {ends[0]:g} to {ends[1]:g}"
    if tile.classes is not None:
        assert tile.classes.ndim == 2, f"classes have the shape {tile.classes.shape}"
        assert tile.classes.dtype.kind in "iu", f"classes are {tile.classes.dtype}"
    for x0, y0, x1, y1 in tile.boxes:
        assert x0 < x1, f"a box is from x = {x0:g} to {x1:g}"
        assert y0 < y1, f"a box is from y = {y0:g} to {y1:g}"


def _check_curves(curves: Curves) -> None:
    """Check curves and the pictures along their axis."""
    assert _finite(curves.x), "the axis of curves is not of finite numbers"
    assert curves.lines, "curves without a line"
    for line in curves.lines:
        assert line.y.dtype.kind in "fiub", f"the curve {line.name!r} is {line.y.dtype}"
        assert np.isfinite(line.y).any(), f"the curve {line.name!r} has no value"
        assert not np.isinf(line.y).any(), f"the curve {line.name!r} is infinite somewhere"
        if line.spread is not None:
            assert line.spread.shape == line.y.shape, f"the spread of {line.name!r} does not fit"
            assert not (line.spread < 0).any(), f"the spread of {line.name!r} is negative"
    for _, tile in curves.pictures:
        _check_tile(tile)


def check_is_deterministic(inspector: Inspector) -> None:
    """Two calls give the same arrays."""
    first, again = (inspector.inspect(_subject()) for _ in range(2))
    assert list(first.arrays) == list(again.arrays), "the second call gave other arrays"
    for name, array in first.arrays.items():
        np.testing.assert_array_equal(again.arrays[name], array, err_msg=name)


def check_leaves_all_as_it_was(inspector: Inspector) -> None:
    """It runs on pictures that cannot be written to, and the network stays what it was."""
    model = ReferenceModel(plain())
    before = {name: model.parameters(name) for name in model.layers}
    inspector.inspect(_subject(model=model))
    for layer, arrays in before.items():
        for name, array in model.parameters(layer).items():
            np.testing.assert_array_equal(array, arrays[name], err_msg=f"{layer}: {name}")


def check_takes_one_picture_and_several(inspector: Inspector) -> None:
    """It takes any number of pictures; how many go through the network at once is all one."""
    inspector.inspect(_subject(1))
    together, singly = (inspector.inspect(_subject(batch_size=size)) for size in (16, 1))
    for name, array in together.arrays.items():
        largest = np.abs(array.astype(float)).max()
        np.testing.assert_allclose(
            singly.arrays[name], array, rtol=1e-4, atol=1e-5 * largest, err_msg=name
        )


def check_leaves_out_what_cannot_be_read(inspector: Inspector) -> None:
    """A picture that cannot be read among others is left out."""
    inspector.inspect(_subject(unreadable=frozenset({1})))


def check_no_picture_is_reported(inspector: Inspector) -> None:
    """Where it cannot do without pictures, their lack is an error of cnnviz."""
    for subject in (_subject(0), _subject(2, unreadable=frozenset({0, 1}))):
        _check_findings_or_error(inspector, subject)


def check_bad_target_is_reported(inspector: Inspector) -> None:
    """A class that does not exist is an error of cnnviz, where it asks for one at all."""
    subject = dataclasses.replace(_subject(), targets=(ClassScore(99),))
    _check_findings_or_error(inspector, subject)


def _check_findings_or_error(inspector: Inspector, subject: Subject) -> None:
    """Check that it gives findings, or raises an error of cnnviz."""
    try:
        found = inspector.inspect(subject)
    except CnnvizError:
        return
    assert isinstance(found, Findings), f"it returned a {type(found).__name__}, not Findings"


def check_keeps_double_precision(inspector: Inspector) -> None:
    """A network that computes in float64 gives float64 arrays, where they are floating."""
    for name, array in inspector.inspect(_subject(dtype="float64")).arrays.items():
        if array.dtype.kind == "f":
            assert array.dtype == np.float64, f"the array {name!r} is {array.dtype}"


def check_wrong_layer_is_reported(inspector: Inspector) -> None:
    """A layer that does not exist is an error that lists others."""
    if "layer" not in {parameter.name for parameter in parameters_of(type(inspector))}:
        return
    wrong: Any = dataclasses.replace(inspector, layer="conv3")  # type: ignore[type-var]
    try:
        wrong.inspect(_subject())
    except UnknownLayerError as error:
        said = str(error)
    else:
        raise AssertionError("layer='conv3' was taken")
    assert "conv2" in said, f"the message does not mention 'conv2': {said}"


CHECKS: tuple[Callable[[Inspector], None], ...] = (
    check_is_a_dataclass_with_a_schema,
    check_declares_its_needs,
    check_findings,
    check_exhibits_can_be_drawn,
    check_is_deterministic,
    check_leaves_all_as_it_was,
    check_takes_one_picture_and_several,
    check_leaves_out_what_cannot_be_read,
    check_no_picture_is_reported,
    check_bad_target_is_reported,
    check_keeps_double_precision,
    check_wrong_layer_is_reported,
)
"""Every check: a function of an inspector that raises AssertionError where it fails."""


def parametrize_with_checks(inspectors: Sequence[Inspector]) -> Any:
    """Run a test with every check on every inspector.

    Parameters
    ----------
    inspectors : sequence of Inspector
        Made with the parameters to test; few steps of what takes many.

    Returns
    -------
    decorator
        For a test function with the arguments ``inspector`` and ``check``.
    """
    import pytest

    cases = [
        pytest.param(i, c, id=f"{type(i).__name__}-{c.__name__.removeprefix('check_')}")
        for i in inspectors
        for c in CHECKS
    ]
    return pytest.mark.parametrize(("inspector", "check"), cases)
