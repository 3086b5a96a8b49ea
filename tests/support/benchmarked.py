"""The benchmarks' command, run as users run it, on small networks."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
SECTIONS = {
    "cams",
    "classes",
    "together",
    "eigen-cam",
    "ablation-cam",
    "score-cam",
    "gradients",
    "occlusion",
    "masks",
    "relevance",
    "maximisation",
    "whole",
    "methods",
}


@dataclass(frozen=True)
class Benchmarked:
    """What one run on one framework said and wrote."""

    printed: str
    markdown: str
    run: dict[str, Any]


def benchmarked(folder: Path, framework: str, *more: str, without: str = "") -> Benchmarked:
    """Run the quick suite on one framework, as if a module were not installed."""
    given = ["--framework", framework, "--quick", *more]
    files = ["--json", str(folder / "all.json"), "--markdown", str(folder / "all.md")]
    program = (
        f"import sys; sys.modules.update(dict.fromkeys({without.split()!r})); "
        f"from benchmarks.__main__ import main; sys.exit(main({given + files!r}))"
    )
    command = ["-c", program] if without else ["-m", "benchmarks", *given, *files]
    printed = python(*command)
    (run,) = json.loads((folder / "all.json").read_text(), parse_constant=_refused)["runs"]
    return Benchmarked(printed, (folder / "all.md").read_text(), run)


def python(*arguments: str) -> str:
    """Run Python in the checkout, and give what it printed."""
    done = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def check_rows(run: dict[str, Any]) -> None:
    """Check that every section has rows, and that each has its numbers."""
    assert {row["section"] for row in run["rows"] if not row["skipped"]} == SECTIONS
    for row in run["rows"]:
        spent = {"forward": row["forward"], "cnnviz": row["ours"], **row["peers"]}
        for name, one in {} if row["skipped"] else spent.items():
            where = f"{row['section']}, {row['label']}, {name}: {one}"
            assert not one["why"], where
            assert one["seconds"] > 0, where
            assert one["cost"] > 0, where
            assert one["mib"] is None or math.isfinite(one["mib"]), where
            assert one["rounds"] >= 1, where


def check_tables(markdown: str) -> None:
    """Check that every line of a table has as many cells as its head."""
    tables = [part for part in markdown.split("\n\n") if part.startswith("|")]
    assert len(tables) == len(SECTIONS)
    for table in tables:
        lines = table.strip().split("\n")
        assert len({line.count("|") for line in lines}) == 1, table
        assert len(lines) > 2, table


def _refused(constant: str) -> float:
    """Refuse what is no JSON."""
    raise ValueError(f"{constant} is no number of JSON")
