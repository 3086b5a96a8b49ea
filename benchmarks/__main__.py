"""The command ``python -m benchmarks``; see README.md beside it."""

from __future__ import annotations

import argparse
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.threads import limit_threads

SCALING = "scaling"
SCRIPTS = ("startup", "maps")
"""What is no table of a network's costs: each is a file that runs by itself, too."""


def main(arguments: list[str]) -> int:
    """Run the suite, or one of the parts beside it.

    Parameters
    ----------
    arguments : list of str
        The command line.

    Returns
    -------
    int
        The exit code: 0; 1 where one of our own methods failed; that of a script.
    """
    part, rest = "".join(arguments[:1]), arguments[1:]
    if part in SCRIPTS:
        script = Path(__file__).with_name(f"{part}.py")
        return subprocess.run([sys.executable, str(script), *rest], check=False).returncode
    if part == SCALING:
        from benchmarks.scaling import command

        command.main(rest)
        return 0
    options = _parser().parse_args(arguments)
    limit_threads(options.threads)
    return _tables(options)


def installed() -> list[str]:
    """List the frameworks that are installed.

    Returns
    -------
    list of str
    """
    return [name for name in ("torch", "tensorflow") if find_spec(name)]


def _parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="What cnnviz costs, in forward passes of the network, beside other libraries.",
        epilog=f"With a command line of their own: {', '.join((SCALING, *SCRIPTS))} "
        "(python -m benchmarks scaling --help).",
    )
    several: dict[str, Any] = {"nargs": "+", "metavar": "NAME", "default": []}
    parser.add_argument("--framework", nargs="+", choices=["torch", "tensorflow"], default=None)
    parser.add_argument("--sections", **several, help="left out, all of them")
    parser.add_argument("--networks", **several, help="left out, those of each section")
    parser.add_argument("--methods", **several, help="left out, all of them")
    parser.add_argument("--rounds", type=int, default=9, help="how often a way is timed at most")
    parser.add_argument("--patience", type=float, default=20.0, metavar="SECONDS", help="for each")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--size", type=int, default=None, help="of the picture; 224 if left out")
    parser.add_argument("--samples", type=int, default=None, help="masks; 256 if left out")
    parser.add_argument("--batch-size", type=int, default=None, help="masks at once; 16 likewise")
    parser.add_argument("--budget", type=int, default=None, help="forward passes of a method")
    parser.add_argument("--quick", action="store_true", help="small networks and little work")
    parser.add_argument("--json", type=Path, help="where all numbers are written")
    parser.add_argument("--markdown", type=Path, help="where the tables are written, too")
    return parser


def _tables(options: argparse.Namespace) -> int:
    """Measure, print, and write files."""
    from benchmarks import suite
    from benchmarks.measuring import Patience
    from benchmarks.report import Report
    from benchmarks.sections import SECTIONS
    from benchmarks.work import Work

    unknown = [name for name in options.sections if name not in SECTIONS]
    if unknown:
        raise SystemExit(f"no section {', '.join(unknown)}; there are {', '.join(SECTIONS)}")
    given = {
        "side": options.size,
        "samples": options.samples,
        "batch_size": options.batch_size,
        "budget": options.budget,
    }
    work = suite.QUICK if options.quick else Work()
    patience = Patience(1, 0.1) if options.quick else Patience(options.rounds, options.patience)
    choice = suite.Choice(
        sections=options.sections or list(SECTIONS),
        networks=options.networks,
        methods=options.methods,
        work=replace(work, **{key: value for key, value in given.items() if value is not None}),
        patience=patience,
        threads=options.threads,
        quick=options.quick,
    )
    report = Report(options.markdown, options.json)
    for framework in options.framework or installed():
        suite.run(framework, choice, report)
    if not report.rows:
        raise SystemExit("nothing was measured: no section has such networks and methods")
    return int(report.failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
