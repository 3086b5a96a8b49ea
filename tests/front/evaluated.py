"""Metrics and annotated pictures for the tests of evaluations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from cnnviz_core.exhibits import Curves, Line

N = 7


@dataclass(frozen=True)
class Inside:
    """Share of the map inside the boxes."""

    power: float = 1.0
    needs: ClassVar[frozenset[str]] = frozenset()
    higher_is_better: ClassVar[bool] = True
    asks: ClassVar[frozenset[str]] = frozenset({"boxes"})

    def measure(self, explained):
        shares = np.full(len(explained), np.nan)
        for i, annotation in enumerate(explained.annotations):
            inside = np.zeros(explained.size, bool)
            for x0, y0, x1, y1 in np.rint(annotation.boxes).astype(int):
                inside[y0:y1, x0:x1] = True
            heat = np.abs(explained.shown[i]) ** self.power
            if inside.any():
                shares[i] = heat[inside].sum() / heat.sum() if heat.sum() else 0.0
        return {"share": shares, "place": np.stack([shares, shares**2], axis=1)}

    def summarise(self, records):
        known = records["share"][np.isfinite(records["share"])]
        mean = float(known.mean()) if len(known) else float("nan")
        return {"share": mean, "squared": mean**2}

    def curves(self, records):
        x = np.linspace(0, 1, 4)
        known = records["place"][np.isfinite(records["share"])]
        lines = (
            Line("first", x * known[:, 0].mean(), np.ones(4)),
            Line("second", x * known[:, 1].mean()),
        )
        return (Curves(x, lines, title="Shares", x_title="place", y_title="share"),)


@dataclass(frozen=True)
class Asking:
    """Scores of changed pictures: three forward passes."""

    needs: ClassVar[frozenset[str]] = frozenset()
    higher_is_better: ClassVar[bool] = False

    def passes(self, model, x):
        return 3

    def measure(self, explained):
        rng = np.random.default_rng(explained.seed)
        noise = rng.normal(size=(3, *explained.x.shape[1:]))
        scores = [explained.model.forward(explained.x + each).logits[:, 0] for each in noise]
        return {"mean": np.mean(scores, axis=0)}

    def summarise(self, records):
        return {"mean": float(np.nanmean(records["mean"])) if len(records["mean"]) else np.nan}


def annotated():
    """Seven pictures of four sizes, of which one has no box."""
    rng = np.random.default_rng(8)
    sizes = [((30, 41), (12, 9), (24, 18), (13, 50))[i % 4] for i in range(N)]
    return {
        "pictures": [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes],
        "labels": [("ant", "cat", "dog")[i % 3] for i in range(N)],
        "boxes": [None if i == 3 else [[2, 1, w // 2, h - 1]] for i, (h, w) in enumerate(sizes)],
    }
