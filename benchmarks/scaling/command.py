"""The command ``python -m benchmarks scaling``: the numbers, the plots and the page."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.threads import limit_threads


def main(arguments: Sequence[str]) -> None:
    """Measure, and write what was asked for.

    Parameters
    ----------
    arguments : sequence of str
        The command line.
    """
    options = _parser().parse_args(arguments)
    limit_threads(options.threads)
    from benchmarks.measuring import Patience
    from benchmarks.scaling import page, points

    if options.read:
        document = json.loads(options.read.read_text())
    else:
        patience = Patience(1, 0.1) if options.quick else Patience(options.rounds, options.patience)
        chosen = points.Chosen(
            options.framework, options.scales, options.networks, options.threads, options.quick
        )
        document = points.measured_points(chosen, patience)
    text = json.dumps(document, indent=1, allow_nan=False) + "\n"
    if options.json:
        options.json.write_text(text)
    if options.write:
        (options.write / "scaling.json").write_text(text)
        page.write(document, options.write)


def _parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks scaling",
        description="How cost and memory grow: over batch, picture, channels, classes, positions "
        "and depth.",
    )
    several: dict[str, Any] = {"nargs": "+", "metavar": "NAME", "default": ()}
    parser.add_argument("--framework", choices=["torch", "tensorflow"], default="torch")
    parser.add_argument("--networks", **several, help="left out, two small ones")
    parser.add_argument("--scales", **several, help="left out, all of them")
    parser.add_argument("--rounds", type=int, default=5, help="how often a way is timed at most")
    parser.add_argument("--patience", type=float, default=2.0, metavar="SECONDS", help="for each")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="a small network, the scales' ends")
    parser.add_argument("--json", type=Path, help="where the numbers are written")
    parser.add_argument("--read", type=Path, metavar="JSON", help="numbers, instead of measuring")
    parser.add_argument("--write", type=Path, metavar="DOCS", help="where the page is written")
    return parser
