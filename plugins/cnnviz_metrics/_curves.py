"""The curve of a score over the pixels that have been changed: its record, summed up and drawn."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from cnnviz_core.exhibits import Curves, Exhibit, Line
from cnnviz_core.model import Array
from cnnviz_metrics._judging import mean_or_nan
from cnnviz_metrics._rows import measured
from cnnviz_metrics.pixel_order import curve_area


def summarise_curves(records: Mapping[str, Array]) -> Mapping[str, float]:
    """Sum up the record ``curve``: the area under the curves, and what they start and end with."""
    (curves,) = measured(records["curve"])
    return {
        "auc": mean_or_nan(curve_area(curves)),
        "start": mean_or_nan(curves[:, 0]),
        "end": mean_or_nan(curves[:, -1]),
    }


def draw_curves(
    records: Mapping[str, Array], title: str, x_title: str, score: str
) -> tuple[Exhibit, ...]:
    """Draw the mean of the record ``curve``, and its standard deviation over the pictures."""
    (curves,) = measured(records["curve"])
    if not len(curves):
        return ()
    line = Line("mean and standard deviation", curves.mean(axis=0), curves.std(axis=0))
    return (
        Curves(
            np.linspace(0, 1, curves.shape[1]),
            (line,),
            title=title,
            x_title=x_title,
            y_title="probability" if score == "probability" else "score",
            y_range=(0, 1) if score == "probability" else None,
        ),
    )
