"""The page on how cost grows: its text, its tables and its plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Final

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from benchmarks.scaling.points import BARE
from benchmarks.scaling.scales import SCALES, Scale
from benchmarks.tables import line, number, place_of
from cnnviz.figures.canvas import EMPTY, MUTED, styled

COMMAND: Final = "python -m benchmarks scaling --write docs"

# Colours that also people with a colour blindness tell apart (Okabe and Ito, 2008).
_COLOURS: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
_DASHES: Final = ("-", (0, (5, 2)), (0, (1.5, 1.5)))

Points = Sequence[Mapping[str, Any]]


def write(document: Mapping[str, Any], docs: Path) -> Path:
    """Write the page and its pictures.

    Parameters
    ----------
    document : mapping
        What ``scaling.json`` says.
    docs : pathlib.Path
        The folder of the docs; pictures go to ``images`` in it.

    Returns
    -------
    pathlib.Path
        The page.
    """
    images = docs / "images"
    images.mkdir(parents=True, exist_ok=True)
    parts = [_opening(document)]
    for name, scale in SCALES.items():
        points = [point for point in document["points"] if point["scale"] == name]
        if points:
            draw(scale, points, images / f"scaling-{name}.png")
            parts.append(_part(scale, points))
    page = docs / "scaling.md"
    page.write_text("\n\n".join(parts) + "\n")
    return page


def draw(scale: Scale, points: Points, path: Path) -> None:
    """Draw cost and memory over a scale.

    Parameters
    ----------
    scale : Scale
    points : sequence of mapping
        Of this scale.
    path : pathlib.Path
        The picture's file.
    """
    with styled():
        figure = Figure(figsize=(9.4, 3.9), dpi=160, layout="constrained")
        FigureCanvasAgg(figure)
        passes, memory = figure.subplots(1, 2)
        for look, (network, method), curve in _curves(points):
            name = f"{network}, {method}"
            if method != BARE:
                _plot(passes, curve, "cost", look, name)
            _plot(memory, curve, "mib", {**look, **_bare(method)}, name)
        _dress(passes, scale, "plain forward passes")
        _dress(memory, scale, "memory at most, MiB")
        handles, names = memory.get_legend_handles_labels()
        columns = len({point["network"] for point in points})
        figure.legend(handles, names, loc="outside lower center", ncols=columns, frameon=False)
        figure.savefig(path)


def _curves(points: Points) -> list[tuple[dict[str, Any], tuple[str, str], Points]]:
    """Divide points into curves: a colour for each method, dashes for each network."""
    methods = list(dict.fromkeys(p["method"] for p in points if p["method"] != BARE))
    networks = list(dict.fromkeys(p["network"] for p in points))
    curves: list[tuple[dict[str, Any], tuple[str, str], Points]] = []
    for network in networks:
        for method in (*methods, BARE):
            curve = [p for p in points if (p["network"], p["method"]) == (network, method)]
            colour = _COLOURS[methods.index(method)] if method in methods else MUTED
            look = {"color": colour, "linestyle": _DASHES[networks.index(network)]}
            if curve:
                curves.append((look, (network, method), curve))
    return curves


def _bare(method: str) -> dict[str, Any]:
    """Draw the forward pass itself thinly."""
    return {"lw": 1.1, "marker": ""} if method == BARE else {}


def _plot(axes: Any, curve: Points, what: str, look: Mapping[str, Any], name: str) -> None:
    """Draw a curve, where its numbers are known."""
    known = [(p["place"], p[what]) for p in curve if p[what] is not None]
    style = {"lw": 1.8, "marker": "o", "ms": 3.5, **look}
    axes.plot([x for x, _ in known], [y for _, y in known], label=name, **style)


def _dress(axes: Any, scale: Scale, y_title: str) -> None:
    """Give axes their scales, titles and numbers."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color=EMPTY, lw=1)
    axes.set_axisbelow(True)
    axes.set_xlabel(scale.x_title)
    axes.set_ylabel(y_title)
    plain = FuncFormatter(lambda value, _: f"{value:,.10g}")
    if scale.log:
        axes.set_xscale("log")
        places = sorted({x for drawn in axes.lines for x in drawn.get_xdata()})
        axes.set_xticks(places, [f"{x:g}" for x in places])
        axes.xaxis.set_minor_locator(NullLocator())
    values = [y for drawn in axes.lines for y in drawn.get_ydata() if y > 0]
    if values and max(values) > 20 * min(values):
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_minor_locator(NullLocator())
    else:
        axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(plain)


def _opening(document: Mapping[str, Any]) -> str:
    """Write what the page is about, and on what it was measured."""
    what = f"{document['framework']} {document['version']} and cnnviz {document['cnnviz']}"
    return f"""# How cost grows

This page is made by `{COMMAND}`, which measures on your machine
what it says ([the numbers](scaling.json)). What other libraries take for the same is in
[the benchmarks](../benchmarks/README.md).

Costs are in plain forward passes, without gradients, of the same network on the same batch, timed
in turn with the method; times are medians. Memory is by how much the process grew at most during
one call. The networks have random weights, on which the cost does not depend, and the picture has
224 x 224 pixels where nothing else is said.

Measured with {what} on {place_of(document)}."""


def _part(scale: Scale, points: Points) -> str:
    """Write the part on one scale."""
    picture = f"![{scale.title}: forward passes and memory](images/scaling-{scale.name}.png)"
    tables = "\n\n".join(
        _table(network, list(its)) for network, its in groupby(points, lambda p: p["network"])
    )
    return f"## {scale.title}\n\n{scale.says}\n\n{picture}\n\n{tables}"


def _table(network: str, points: Points) -> str:
    """Write the table of one network."""
    labels = list(dict.fromkeys(p["label"] for p in points))
    lines = [line([network, "", *labels]), line(["---", "---", *["---:"] * len(labels)])]
    for method in dict.fromkeys(p["method"] for p in points):
        its = {p["label"]: p for p in points if p["method"] == method}
        rows = {
            "passes": [number(its[label]["cost"]) for label in labels],
            "ms": [number(its[label]["ms"]) for label in labels],
            "MiB": [number(its[label]["mib"] or float("nan")) for label in labels],
        }
        if method == BARE:
            del rows["passes"]
        for title, what in zip([method, "", ""], rows, strict=False):
            lines.append(line([title, what, *rows[what]]))
    return "\n".join(lines)
