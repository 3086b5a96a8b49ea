"""What black-box methods cost, in forward passes a mask, beside captum and xplique.

Run ``python benchmarks/blackbox.py torch`` (the peer is captum) or ``python benchmarks/blackbox.py
tensorflow`` (xplique), each only where it is installed.  All do as much work: as many masks, in
batches as large, of the same windows, cells or segments, on one picture of 224 x 224, the networks
having random weights.  Ours, theirs and plain forward passes take turns in one run.

What is spent outside of the network is what the method takes on a network that does nothing.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from interleaved import measure
from memory import growth

from cnnviz_core.explainer import passes_of
from cnnviz_core.registry import get_registry
from cnnviz_core.targets import ClassScore

CLASS = 281
SIDE = 224
METHODS = ("occlusion", "rise", "lime", "kernel-shap", "shapley-values", "sobol", "hsic")
COLUMNS = {
    "network": "network",
    "method": "method",
    "masks": "masks",
    "forward_ms": "forward pass, ms",
    "ours": "cnnviz",
    "theirs": "peer",
    "peer": "",
    "ratio": "cnnviz / peer",
    "ours_outside": "outside: cnnviz",
    "theirs_outside": "peer",
    "ours_mib": "MiB: cnnviz",
    "theirs_mib": "peer",
}


@dataclass(frozen=True)
class Work:
    """How much every library does.

    Attributes
    ----------
    samples : int
        How many masks; where a method cannot take any number, one near to it.
    batch_size : int
        How many go through the network at once.
    """

    samples: int
    batch_size: int
    window: int = 32

    @property
    def stride(self) -> int:
        """The windows' step, after which the last one is flush with the edge."""
        span = SIDE - self.window
        steps = [s for s in range(2, self.window + 1) if span % s == 0]
        return min(steps, key=lambda s: abs((span // s + 1) ** 2 - self.samples))

    @property
    def designs(self) -> int:
        """The rows of each design of Sobol's, for 8 x 8 cells."""
        return max(2, 2 ** round(math.log2(self.samples / (8 * 8 + 2))))

    @property
    def blocks(self) -> np.ndarray:
        """The segments: 7 x 7 blocks, numbered (H, W)."""
        return _blocks(7, 7)

    @property
    def few(self) -> np.ndarray:
        """The segments for Shapley values, of which all coalitions are taken: 2 x 4 blocks."""
        return _blocks(2, 4)

    def explainer(self, method: str) -> Any:
        """Make one of our methods."""
        settings: dict[str, dict[str, Any]] = {
            "occlusion": {"window": self.window, "stride": self.stride},
            "rise": {"samples": self.samples},
            "lime": {"samples": self.samples, "segmentation": self.blocks},
            "kernel-shap": {"samples": self.samples, "segmentation": self.blocks},
            "shapley-values": {"segmentation": self.few},
            "sobol": {"samples": self.designs, "cells": 8},
            "hsic": {"samples": self.samples, "cells": 7},
        }
        common = {"fill": 0.0, "batch_size": self.batch_size}
        return get_registry().explainer(method, **common, **settings[method])


def _blocks(rows: int, columns: int) -> np.ndarray:
    """Number the blocks of a grid at each pixel."""
    along = np.arange(SIDE)
    return (along * rows // SIDE)[:, None] * columns + along * columns // SIDE


def main() -> None:
    """Measure, and print a table in Markdown, each row when it is known."""
    options = parsed()
    warnings.simplefilter("ignore")
    if options.backend == "torch":
        import peers_torch as backend
    else:
        import peers_tf as backend
    made = backend.masked_networks()
    work = Work(options.samples, options.batch_size)
    x = np.random.default_rng(0).normal(size=(1, SIDE, SIDE, 3)).astype(np.float32)
    networks = options.networks or [name for name in made if name != "nothing"]
    print(f"{backend.title('Black-box methods')}; batches of {options.batch_size}\n")
    print(line(COLUMNS.values()), line("---" for _ in COLUMNS), sep="\n", flush=True)
    idle = dict(measured(backend, made["nothing"](), x, work, options))
    rows = []
    for name in networks:
        for method, found in measured(backend, made[name](), x, work, options):
            rows.append(row(name, method, found, idle[method]))
            print(line(cell(key, rows[-1].get(key)) for key in COLUMNS), flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


def parsed() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("backend", choices=["torch", "tensorflow"])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS, metavar="NAME")
    parser.add_argument("--networks", nargs="+", metavar="NAME", help="left out, all of them")
    parser.add_argument("--samples", type=int, default=500, help="masks of each method")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="where the numbers are written, too")
    return parser.parse_args()


def measured(
    backend: Any, net: Any, x: np.ndarray, work: Work, options: argparse.Namespace
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Time each method on one network, beside the peer's and a plain forward pass."""
    model = backend.wrap(net, input_shape=x.shape[1:])
    peers = backend.masked(net, x, CLASS, work)
    forward = backend.plain_pass(net, np.repeat(x, work.batch_size, 0))
    forward()  # the first may trace
    for method in options.methods:
        explainer = work.explainer(method)
        ways: dict[str, Callable[[], object]] = {
            "ours": lambda explainer=explainer: explainer.explain(model, x, [ClassScore(CLASS)])
        }
        peer, theirs = peers.get(method, ("", None))
        if theirs is not None:
            ways["theirs"] = theirs
        masks = passes_of(explainer, model, x)
        # A single pass would be too short to time; a quarter as many as the method takes will do.
        passes = max(1, masks // (4 * work.batch_size))
        ways["forward"] = lambda passes=passes: [forward() for _ in range(passes)]
        times = measure(ways, options.rounds, 1)
        seconds = {way: statistics.median(spent) for way, spent in times.items()}
        seconds["forward"] /= passes * work.batch_size
        yield (
            method,
            {
                "masks": masks,
                "peer": peer,
                "seconds": seconds,
                "mib": {way: growth(run) for way, run in ways.items()},
            },
        )


def row(
    network: str, method: str, found: Mapping[str, Any], idle: Mapping[str, Any]
) -> dict[str, Any]:
    """Put one method's numbers in relation."""
    seconds = found["seconds"]
    passes = found["masks"] * seconds["forward"]
    entries = {
        "network": network,
        "method": method,
        "masks": found["masks"],
        "forward_ms": 1000 * seconds["forward"],
        "forward_mib": found["mib"]["forward"],
        "peer": found["peer"],
    }
    for way in ("ours", "theirs"):
        if way in seconds:
            entries[way] = seconds[way] / passes
            entries[f"{way}_outside"] = idle["seconds"][way] / seconds[way]
            entries[f"{way}_outside_ms"] = 1000 * idle["seconds"][way] / found["masks"]
            entries[f"{way}_mib"] = found["mib"][way]
    if "theirs" in seconds:
        entries["ratio"] = seconds["ours"] / seconds["theirs"]
    return entries


def line(cells: Iterable[str]) -> str:
    """Write a line of a table in Markdown."""
    return f"| {' | '.join(cells)} |"


def cell(key: str, value: Any) -> str:
    """Write a number of a column."""
    if value is None:
        return ""
    if not isinstance(value, float):
        return str(value)
    if key.endswith("outside"):
        return f"{value:.1%}"
    return f"{value:.0f}" if key.endswith("mib") else f"{value:.2f}"


if __name__ == "__main__":
    main()
