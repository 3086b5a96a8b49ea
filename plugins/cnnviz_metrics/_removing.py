"""What subsets of a picture's cells are attributed, and what their removal costs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np

from cnnviz_core.fills import Fill, filling
from cnnviz_core.masks import GridMasks
from cnnviz_core.metric import Explained
from cnnviz_core.model import Array
from cnnviz_core.perturb import score_masked
from cnnviz_metrics._judging import each_map, judged
from cnnviz_metrics.subsets import Attributed, attributions, cell_sums


def sums_and_drops(
    explained: Explained,
    removed: Array,
    grid: tuple[int, ...],
    *,
    attributed: Attributed,
    fill: Fill,
    score: Literal["probability", "target"],
    what: str,
) -> Iterator[tuple[int, Array, Array]]:
    """Give each finite map's row, its sums over the subsets (S, cells), and the drops they make.

    The drops lack the score of the whole picture: it is the same for all, and correlations need
    it not.
    """
    kept = (~removed).reshape(-1, *grid).astype(np.float64)
    masks = GridMasks(kept, explained.size, "nearest")
    targets = judged(explained, score)
    for row, map, doing in each_map(attributions(explained, attributed), what):
        (scores,) = score_masked(
            explained.model,
            explained.x[row],
            targets[row : row + 1],
            masks,
            filling(explained.x[row], fill, explained.seed),
            batch_size=explained.batch_size,
            what=doing,
        )
        yield row, removed @ cell_sums(map[None], grid).ravel(), -scores.astype(np.float64)
