"""``cnnviz metrics``: what maps can be measured by, and a metric's parameters and papers."""

from __future__ import annotations

from typing import Any

import click

from cnnviz.cli.base import Command, as_json, json_option, print_table
from cnnviz.cli.describing import describe, parameter_records, records
from cnnviz.listing import MetricInfo, metrics, usual_metric

__all__ = ["command"]

_WIDTHS = (22, 14, 44, 8, 16, 18)
"""Of the columns, where there is room; cells wrap."""


@click.command("metrics", cls=Command)
@click.argument("name", required=False)
@json_option
def command(name: str | None, as_document: bool) -> None:
    """List the installed metrics of maps; with a NAME, tell its parameters and papers."""
    if name is not None:
        usual = usual_metric(name)
        chosen = next(metric for metric in metrics() if metric.name == usual)
        if as_document:
            as_json(_record(chosen))
        else:
            _describe(chosen)
        return
    listed = metrics()
    if as_document:
        as_json({"metrics": records(listed, _record)})
        return
    print_table(listed.columns, listed.cells, widths=_WIDTHS)
    click.echo(
        f"{len(listed)} metrics, for `cnnviz evaluate --metrics`.  "
        "`cnnviz metrics NAME` tells a metric's parameters and papers."
    )


def _record(metric: MetricInfo) -> dict[str, Any]:
    """Give a metric as JSON values."""
    return {
        "name": metric.name,
        "family": metric.family,
        "summary": metric.summary,
        "higher_is_better": metric.higher_is_better,
        "asks": metric.asks,
        "needs": metric.needs,
        "cost": metric.cost,
        "aliases": metric.aliases,
        "references": metric.references,
        "distribution": metric.distribution,
        "version": metric.version,
        "parameters": parameter_records(metric),
    }


def _describe(metric: MetricInfo) -> None:
    """Print all there is to say of a metric."""
    better = {True: "the higher, the better", False: "the lower, the better", None: ""}
    said = {
        "judges": metric.family,
        "is read": better[metric.higher_is_better],
        "asks for": ", ".join(metric.asks) or "no annotation",
        "needs": ", ".join(metric.needs) or "nothing but the output",
        "costs": metric.cost,
        "also": ", ".join(metric.aliases),
        "from": f"{metric.distribution} {metric.version}",
    }
    describe(f"{metric.name}: {metric.summary}", said, metric.references, metric.parameters)
