"""Exhibits refuse what could not be drawn, and keep what they were given."""

from __future__ import annotations

import numpy as np
import pytest

from cnnviz_core.errors import ArrayError
from cnnviz_core.exhibits import Curves, Gallery, Line, Matrix, Table, Tile, mosaic

PIXELS = np.zeros((4, 3, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("match", "make"),
    [
        ("shows nothing", lambda: Tile()),
        ("float64 of the shape", lambda: Tile(np.zeros((2, 2, 3)))),
        ("uint8 of the shape", lambda: Tile(np.zeros((2, 2), dtype=np.uint8))),
        ("class 2, and its legend", lambda: Tile(classes=np.array([[0, 2]]), legend=("a", "b"))),
        ("2 titles", lambda: Gallery(((Tile(PIXELS),),), column_titles=("a", "b"))),
        ("gallery of 2 rows", lambda: Gallery(((Tile(PIXELS),),) * 2, row_titles=("a",))),
        ("another number of values", lambda: Curves(np.arange(3), (Line("a", np.arange(2)),))),
        ("row of 1 cells", lambda: Table(("a", "b"), (("1", "2"), ("1",)))),
        ("a matrix", lambda: Matrix(np.zeros((2, 2)), ("a", "b"), ("a",))),
        ("no picture given", lambda: mosaic([])),
        ("pictures of the shapes", lambda: mosaic([PIXELS, PIXELS[:2]])),
    ],
)
def test_what_cannot_be_drawn_is_refused(match, make):
    with pytest.raises(ArrayError, match=match):
        make()


def test_arrays_are_kept_as_they_were():
    pixels = PIXELS.copy()
    tile = Tile(pixels, boxes=[(0, 0, 1, 1)])
    pixels[:] = 9
    assert not tile.pixels.any()
    assert not tile.pixels.flags.writeable
    assert tile.boxes == ((0.0, 0.0, 1.0, 1.0),)


def test_a_mosaic_holds_every_picture_in_its_place():
    pictures = [np.full((2, 3, 3), k, dtype=np.uint8) for k in range(5)]
    sheet = mosaic(pictures, 2, gap=2)
    assert sheet.shape == (10, 8, 3)
    for k in range(5):
        top, left = k // 2 * 4, k % 2 * 5
        assert (sheet[top : top + 2, left : left + 3] == k).all()
    white = sheet == 255
    assert white.sum() == sheet.size - 5 * 2 * 3 * 3
