"""Explanations made by hand, for the tests of what is done with them."""

from __future__ import annotations

import numpy as np

from cnnviz.explanation import Explanation
from cnnviz.preprocess import Geometry
from cnnviz_core.explainer import Presentation, present
from cnnviz_core.targets import ClassScore

SIZE = (12, 9)
ORIGINALS = ((30, 41), (12, 9), (7, 50), (40, 40))


def geometry_of(original):
    """The geometry of a resize of the whole picture with a crop, but for the input's own size."""
    if original == SIZE:
        return Geometry.identity(SIZE)
    return Geometry(original, (16, 13), (2, 2), SIZE)


def explanation(n=3, *, sign="positive", fine=False, seed=0, **changes):
    """An explanation of n samples whose pictures have different sizes."""
    rng = np.random.default_rng(seed)
    raw = rng.normal(size=(n, *SIZE, 3) if fine else (n, 4, 3)).astype(np.float32)
    presentation = Presentation(sign=sign, reduce="sum" if sign == "signed" else "max-abs")
    maps, status = present(raw, SIZE, presentation)
    originals = [ORIGINALS[i % len(ORIGINALS)] for i in range(n)]
    given = {
        "maps": maps,
        "raw": raw,
        "scores": rng.normal(size=n).astype(np.float32),
        "targets": tuple(ClassScore(i) for i in range(n)),
        "target_labels": tuple(f"class {i}" for i in range(n)),
        "probabilities": rng.random(n).astype(np.float32),
        "predictions": tuple((("bee", 0.75), (f"class {i}", 0.125)) for i in range(n)),
        "method": "grad-cam",
        "params": {"window": 32, "fill": "mean", "seed": None},
        "layer": "conv3",
        "status": tuple(status),
        "presentation": presentation,
        "geometry": tuple(map(geometry_of, originals)),
        "pictures": tuple(rng.integers(0, 256, (*o, 3), dtype=np.uint8) for o in originals),
        "names": tuple(f"picture-{i}.png" for i in range(n)),
        "extras": {"weights": rng.normal(size=(n, 5))},
        "provenance": {"model": "plain", "framework": "numpy"},
    }
    return Explanation(**{**given, **changes})
