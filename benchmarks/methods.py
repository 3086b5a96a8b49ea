"""What every method costs, in forward passes of the network, beside the peers' own.

Run ``python benchmarks/methods.py torch`` or ``python benchmarks/methods.py tensorflow``: it walks
the registry on MobileNetV2 (random weights, 224 x 224, batch 1).  Each method is timed in turn with
a plain forward pass and with the peer.  Last comes what several gradient CAMs cost together.
"""

from __future__ import annotations

import argparse
import statistics
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from interleaved import measure
from rich.console import Console
from rich.table import Table

from cnnviz_core.errors import CnnvizError
from cnnviz_core.explainer import passes_of
from cnnviz_core.memo import MemoModel
from cnnviz_core.registry import get_registry
from cnnviz_core.targets import ClassScore

Ways = Mapping[str, tuple[str, Callable[[], object]]]
"""For a method the name of a peer, and how it does the same."""

CLASS = 281
DEAR = 100
"""Above so many forward passes a method is timed once, not in every round."""

TOGETHER = ("grad-cam", "grad-cam++", "xgrad-cam", "layer-cam", "hires-cam", "grad-cam-elementwise")


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("backend", choices=["torch", "tensorflow"])
    parser.add_argument("--methods", nargs="+", default=list(get_registry().explainers))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--budget", type=int, default=3000, help="forward passes at most")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    x = np.random.default_rng(0).normal(size=(1, 224, 224, 3)).astype(np.float32)
    if options.backend == "torch":
        from peers_torch import network
    else:
        from peers_tf import network
    model, layer, forward, peers, title = network(x, CLASS)
    table = Table(title=title, caption="medians, as multiples of one plain forward pass in turn")
    for column in ("method", "forward, ms", "cnnviz", "peer", ""):
        table.add_column(column, justify="left" if column in ("method", "") else "right")
    for method in options.methods:
        table.add_row(method, *row(method, model, layer, x, forward, peers, options))
    shared = measure({"forward": forward, "all": lambda: together(model, layer, x)}, options.rounds)
    table.add_section()
    table.add_row(f"{len(TOGETHER)} gradient CAMs together", *cells(shared, "all"), "-", "")
    Console(width=110).print(table)


def row(
    method: str,
    model: Any,
    layer: str,
    x: np.ndarray,
    forward: Callable[[], object],
    peers: Ways,
    options: argparse.Namespace,
) -> tuple[str, ...]:
    """Time one method, and its peer where there is one."""
    fields = {p.name for p in get_registry().parameters(method)}
    explainer = get_registry().explainer(
        method, **({"layer": layer} if "layer" in fields and method != "layer-fusion" else {})
    )
    passes = passes_of(explainer, model, x) or 3
    if passes > options.budget:
        return "", f"({passes} passes)", "", "not run"
    ways = {"forward": forward, "ours": lambda: explainer.explain(model, x, [ClassScore(CLASS)])}
    try:
        ways["ours"]()
    except CnnvizError as error:
        return "", "-", "", error.problem.split("(")[0][:50]
    name, theirs = peers.get(method, ("", None))
    if theirs is not None:
        ways["theirs"] = theirs
    for _ in range(2):
        forward()  # the first traces
    seconds = measure(ways, 1, 0) if passes > DEAR else measure(ways, options.rounds)
    return (*cells(seconds, "ours"), cells(seconds, "theirs")[1] if theirs else "-", name)


def cells(seconds: Mapping[str, list[float]], way: str) -> tuple[str, str]:
    """Give the forward pass in milliseconds, and a way's median as a multiple of it."""
    one = statistics.median(seconds["forward"])
    return f"{1000 * one:.0f}", f"{statistics.median(seconds[way]) / one:.2f}"


def together(model: Any, layer: str, x: np.ndarray) -> None:
    """Make the maps of all gradient CAMs of one layer, as `cnnviz.compare` does."""
    memo = MemoModel(model, x)
    for method in TOGETHER:
        get_registry().explainer(method, layer=layer).explain(memo, x, [ClassScore(CLASS)])


if __name__ == "__main__":
    main()
