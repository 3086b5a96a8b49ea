"""Exhibits and inspections made by hand, for the tests of how they are drawn and kept."""

from __future__ import annotations

import numpy as np

from cnnviz.inspection import Inspection
from cnnviz_core.exhibits import Curves, Gallery, Line, Matrix, Table, Tile


def pixels(height, width, seed=0):
    """A picture of random colours."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def gallery(**changes):
    """A gallery with a tile of each kind, and an empty place."""
    heat = np.linspace(-1, 1, 12).reshape(3, 4)
    rows = (
        (Tile(pixels(7, 5), caption="Äpfel im Korb"), None, Tile(pixels(150, 120), heat=heat**2)),
        (
            Tile(heat=heat, signed=True, caption="signed $x_1$"),
            Tile(pixels(90, 90), boxes=((10, 20, 60, 70),), caption="a box"),
            Tile(pixels(80, 80), classes=[[0, 1], [1, -1]], legend=("ant", "bee")),
        ),
    )
    given = {
        "rows": rows,
        "title": "All kinds of tiles",
        "column_titles": ("first", "second", "third"),
        "row_titles": ("above", "below"),
        "note": "A note below.",
        "side": 96,
    }
    return Gallery(**{**given, **changes})


def curves(**changes):
    """Two curves with a gap, a band, pictures and marks."""
    x = np.array([-30.0, -15.0, 0.0, 15.0, 30.0])
    given = {
        "x": x,
        "lines": (
            Line("conv1", np.abs(x) / 30, spread=np.full(5, 0.1)),
            Line("conv2", np.array([0.5, np.nan, 0.0, 0.2, 0.4])),
        ),
        "title": "Distances",
        "x_title": "rotation (degrees)",
        "y_title": "distance",
        "y_range": (0.0, 1.2),
        "pictures": tuple((float(at), Tile(pixels(20, 20), caption=f"{at:g}")) for at in x),
        "marks": ((0.0, "as it is"), (2.0, "a little")),
    }
    return Curves(**{**given, **changes})


def matrix(**changes):
    """A matrix of three classes."""
    given = {
        "values": np.array([[7, 0, 1], [2, 9, 0], [0, 3, 4]]),
        "row_labels": ("ant", "bee", "cat"),
        "column_labels": ("an ant of many words", "a bee", "a cat"),
        "title": "Confusion",
        "row_title": "true",
        "column_title": "predicted",
        "note": "26 pictures",
    }
    return Matrix(**{**given, **changes})


def table(**changes):
    """A table with a column of numbers."""
    given = {
        "columns": ("picture", "probability"),
        "rows": (("one.png", "0.25"), ("two.png", "12.5")),
        "title": "Mistakes",
        "note": "The worst first.",
        "numeric": ("probability",),
    }
    return Table(**{**given, **changes})


def inspection(**changes):
    """An inspection with exhibits of all kinds and three frames."""
    given = {
        "inspector": "filters",
        "title": "What conv1 has learnt",
        "arrays": {"kernels": np.arange(12.0).reshape(3, 4), "order": np.array([2, 0, 1])},
        "facts": {"layer": "conv1", "dead": [3, 5], "share": np.float32(0.5), "more": {"a": None}},
        "exhibits": (gallery(), curves(), matrix(), table()),
        "frames": tuple(pixels(33, 47, seed) for seed in range(3)),
        "params": {"layer": "auto", "direction": np.ones(3), "top": 9, "rate": 0.05},
        "provenance": {"model": "plain", "framework": "numpy"},
    }
    return Inspection(**{**given, **changes})
