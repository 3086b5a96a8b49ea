"""The leaderboard of an evaluation, as a page that stands alone."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from cnnviz.evaluation.asking import Measure
from cnnviz.evaluation.result import Evaluation
from cnnviz.evaluation.summary import Score
from cnnviz.inspection import Inspection
from cnnviz.pages.inspected import inspected
from cnnviz.pages.templates import template_of
from cnnviz.pictures import ALPHA, FINE, SMOOTH
from cnnviz_core.exhibits import Exhibit

__all__ = ["render"]

_LISTED: Final = 200
"""Problems on a page; the table has them all."""
_BETTER: Final = {True: "higher is better", False: "lower is better", None: ""}


def render(evaluation: Evaluation, plots: Mapping[str, tuple[Exhibit, ...]]) -> str:
    """Make the page.

    Parameters
    ----------
    evaluation : Evaluation
        What was found.
    plots : mapping of str to tuple of Exhibit
        Of `Evaluation.plots`.

    Returns
    -------
    str
        HTML that needs no other file and no network.
    """
    drawn = Inspection(
        inspector="evaluation",
        title=evaluation.title,
        exhibits=tuple(each for group in plots.values() for each in group),
        facts={**evaluation.settings, "cost": str(evaluation.cost)},
        provenance=evaluation.provenance,
    )
    problems = _problems(evaluation)
    # Metrics that found nothing to measure are named in the notes.
    measured = {s.metric for s in evaluation.summary if s.pictures}
    shown = [m for m in evaluation.measures if m.label in measured]
    ranking = next((m for m in shown if m.higher_is_better is not None), None)
    page: str = template_of("evaluation.html").render(
        title=evaluation.title,
        part=inspected(drawn),
        alpha=ALPHA,
        looks={"smooth": SMOOTH, "fine": FINE},
        metrics=[
            {
                "label": measure.label,
                "summary": measure.summary,
                "caption": _caption(evaluation.summary, measure),
            }
            for measure in shown
        ],
        ranking=ranking.label if ranking else "",
        rows=_rows(evaluation, shown, ranking),
        others=[score for score in evaluation.summary if not score.headline],
        scores=list(evaluation.summary),
        pictures=len(evaluation.pictures),
        sure=any(math.isfinite(s.low) for s in evaluation.summary),
        notes=evaluation.notes,
        counts=Counter(kind for kind, *_ in problems).most_common(),
        problems=problems[:_LISTED],
        more=max(0, len(problems) - _LISTED),
        command=evaluation.command,
    )
    return page


def _rows(
    evaluation: Evaluation, shown: Sequence[Measure], ranking: Measure | None
) -> list[dict[str, Any]]:
    """Give the leaderboard's rows: best methods first, by the metric that ranks."""
    heads = {(s.method, s.metric): s for s in evaluation.summary if s.headline}
    drawn = [_bars([s for s in heads.values() if s.metric == m.label]) for m in shown]

    def place(method: str) -> float:
        score = None if ranking is None else heads.get((method, ranking.label))
        if ranking is None or score is None or score.value != score.value:
            return float("inf")
        return -score.value if ranking.higher_is_better else score.value

    return [
        {
            "method": method,
            "why": evaluation.left_out.get(method, ""),
            "scores": [
                (heads.get((method, measure.label)), bars.get(method))
                for measure, bars in zip(shown, drawn, strict=True)
            ],
        }
        for method in sorted(evaluation.methods, key=place)
    ]


def _bars(column: Sequence[Score]) -> dict[str, dict[str, float]]:
    """Place the numbers of a column and their intervals between its ends, in %, by method."""
    known = [value for s in column for value in (s.value, s.low, s.high) if math.isfinite(value)]
    if not known or min(known) == max(known):
        return {}
    low, high = min(known), max(known)

    def place(value: float) -> float:
        return round(100 * (value - low) / (high - low), 1)

    return {
        s.method: {
            "at": place(s.value),
            "low": place(s.low if math.isfinite(s.low) else s.value),
            "high": place(s.high if math.isfinite(s.high) else s.value),
        }
        for s in column
        if math.isfinite(s.value)
    }


def _caption(scores: Sequence[Score], measure: Measure) -> str:
    """Say what a metric's most important number is called, and how it is read."""
    heads = (s.name for s in scores if s.metric == measure.label and s.headline)
    name = next(heads, "").replace("_", " ")
    return ", ".join(filter(None, (name, _BETTER[measure.higher_is_better])))


def _problems(evaluation: Evaluation) -> list[tuple[str, str, str, str]]:
    """List all that went wrong: kind, where, what, remedy."""
    return [
        *(("left out", label, why, "") for label, why in evaluation.left_out.items()),
        *(("failed", f.where, f.what, f.remedy) for f in evaluation.failures),
        *((p.kind, p.where, p.what, p.remedy) for p in evaluation.problems),
    ]
