"""What starting costs: importing cnnviz, its command, and the first explanation of a process.

Run ``python benchmarks/startup.py`` or, for the first explanation too, ``python
benchmarks/startup.py torch`` (needs torchvision; captum and grad-cam where they are installed) or
``tensorflow``.  The network is a ResNet-50 with random weights, and the picture 224 x 224.

Everything runs in a process of its own with one thread.  What is shown is the processor time of
the whole process, and of an explanation that from the moment at which the framework is imported
and the network made.  The ways take turns, and medians are taken.  One round goes before, in which
Python stores the modules that it compiles.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import resource
import statistics
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

TESTS: Final = Path(__file__).parents[1] / "tests"
SETTINGS: Final = {
    **{name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")},
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}
TORCH: Final = f"""
import sys
import numpy as np
import torch
sys.path.insert(0, {str(TESTS)!r})
from support.torchvision_ops import define
define()
from torchvision.models import resnet50
torch.set_num_threads(1)
net = resnet50().eval()
picture = np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8)
x = torch.from_numpy(picture).permute(2, 0, 1)[None] / 255
"""
TENSORFLOW: Final = """
import numpy as np
import keras
net = keras.applications.ResNet50(weights=None)
picture = np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8)
x = picture[None].astype(np.float32)
"""
EXPLAIN: Final = "import cnnviz\ncnnviz.explain(net, picture, 'grad-cam')"
CAPTUM: Final = """
from captum.attr import LayerGradCam
LayerGradCam(net, net.layer4).attribute(x, target=int(net(x).argmax()))
"""
GRAD_CAM: Final = """
from pytorch_grad_cam import GradCAM
GradCAM(net, [net.layer4])(x, targets=None)
"""


@dataclass(frozen=True)
class Way:
    """One thing that a process can do.

    Attributes
    ----------
    name : str
        What it is called.
    arguments : tuple of str
        What Python is called with.  If it prints a number last, that is the milliseconds.
    over : str
        The way that does all of it but what is of interest.
    target_ms : float or None
        How much more than that it may take, in milliseconds.
    ms : float
        What it took.
    """

    name: str
    arguments: tuple[str, ...]
    over: str = "python"
    target_ms: float | None = None
    ms: float = float("nan")


def ways_of(backend: str | None) -> list[Way]:
    """List what is measured.

    Parameters
    ----------
    backend : {"torch", "tensorflow"} or None
        Whose first explanation is measured.

    Returns
    -------
    list of Way
    """
    ways = [
        Way("python", ("-c", "pass")),
        Way("import numpy", ("-c", "import numpy")),
        Way("import cnnviz", ("-c", "import cnnviz"), target_ms=150),
        Way("cnnviz.explain, the name", ("-c", "import cnnviz; cnnviz.explain"), "import numpy"),
        Way("cnnviz --help", ("-m", "cnnviz", "--help")),
        Way("cnnviz methods", ("-m", "cnnviz", "methods"), "import numpy"),
    ]
    first = "first forward pass"
    if backend == "torch":
        ways += [
            Way(first, timed(TORCH, "with torch.no_grad(): net(x)"), first),
            Way("import cnnviz and first Grad-CAM", timed(TORCH, EXPLAIN), first, 300),
        ]
        for package, name, code in (
            ("captum", "captum", CAPTUM),
            ("pytorch_grad_cam", "pytorch-grad-cam", GRAD_CAM),
        ):
            if importlib.util.find_spec(package):
                ways.append(Way(f"import {name} and first Grad-CAM", timed(TORCH, code), first))
    elif backend == "tensorflow":
        ways += [
            Way(first, timed(TENSORFLOW, "net.predict_on_batch(x)"), first),
            Way("import cnnviz and first Grad-CAM", timed(TENSORFLOW, EXPLAIN), first),
        ]
    return ways


def timed(before: str, code: str) -> tuple[str, ...]:
    """Have Python print how much processor time a part of a program takes.

    Parameters
    ----------
    before : str
        The part that is not timed.
    code : str
        The part that is.

    Returns
    -------
    tuple of str
        What Python is called with.
    """
    clock = "time.process_time()"
    program = (before, f"import time; start = {clock}", code, f"print(1000 * ({clock} - start))")
    return "-c", "\n".join(program)


def measured(ways: Sequence[Way], rounds: int) -> list[Way]:
    """Run each way once a round.

    Parameters
    ----------
    ways : sequence of Way
        What is measured.
    rounds : int
        How often; one round more goes before.

    Returns
    -------
    list of Way
        The same, with the medians.

    Raises
    ------
    CalledProcessError
        If a process fails.
    """
    spent: dict[str, list[float]] = {way.name: [] for way in ways}
    for _ in range(rounds + 1):
        for way in ways:
            spent[way.name].append(processor_ms(way.arguments))
    return [replace(way, ms=statistics.median(spent[way.name][1:])) for way in ways]


def processor_ms(arguments: Sequence[str]) -> float:
    """Run Python, and tell how much processor time it took.

    Parameters
    ----------
    arguments : sequence of str
        What it is called with.

    Returns
    -------
    float
        In milliseconds: what it printed last, if that is a number, or else that of the process.

    Raises
    ------
    CalledProcessError
        If it fails.
    """
    environment = {**os.environ, **SETTINGS}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    before = _children_seconds()
    done = subprocess.run(
        [sys.executable, *arguments], env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    spent = 1000 * (_children_seconds() - before)
    try:
        return float(done.stdout.split()[-1])
    except (IndexError, ValueError):
        return spent


def _children_seconds() -> float:
    """Tell how much processor time all ended children took."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def rows_of(ways: Iterable[Way]) -> list[dict[str, object]]:
    """Put the numbers in relation.

    Parameters
    ----------
    ways : iterable of Way
        What was measured.

    Returns
    -------
    list of dict
        With the keys ``name``, ``ms``, ``over``, ``more_ms`` and ``target_ms``.
    """
    known = {way.name: way for way in ways}
    rows = []
    for way in known.values():
        row = asdict(way) | {"more_ms": way.ms - known[way.over].ms}
        rows.append({key: row[key] for key in ("name", "ms", "over", "more_ms", "target_ms")})
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print a table in Markdown.

    Parameters
    ----------
    arguments : sequence of str, optional
        The command line's, if left out.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("backend", nargs="?", choices=["torch", "tensorflow"])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path, help="where the numbers are written, too")
    options = parser.parse_args(arguments)
    rows = rows_of(measured(ways_of(options.backend), options.rounds))
    print("Processor time, ms\n")
    print("| | ms | more | than | at most |\n|---|---|---|---|---|")
    for row in rows:
        at_most = "" if row["target_ms"] is None else f"{row['target_ms']:.0f}"
        more = ("", "") if row["name"] == row["over"] else (f"{row['more_ms']:.0f}", row["over"])
        print(f"| {row['name']} | {row['ms']:.0f} | {more[0]} | {more[1]} | {at_most} |")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
