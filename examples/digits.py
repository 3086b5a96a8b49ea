"""Weakly supervised localisation of digits: every method, beside the centre and random maps.

The demo network was told which digits are in a picture, never where.  Each digit of each test
scene is asked for, and the map is compared with the digit's box:

* MaxBoxAccV2: the share of digits with a right box, at the threshold that suits the method best;
* box: the same for a fixed rule, the largest component above 15 % of the maximum, and what is
  right is an overlap of at least a half; IoU is the mean overlap of these boxes;
* pointing: the share of maps whose hottest pixel lies in the box, without any tolerance.

Run ``python examples/digits.py``; it needs nothing but cnnviz.  Methods that cost more forward
passes a digit than ``--budget`` are left out, and named.  With ``--out FOLDER`` what is done is
kept, with a page and the plots: a run with a larger budget goes on from there.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import cnnviz
from cnnviz.demo import network, scenes
from cnnviz.evaluation import Evaluation, Score, plan

METRICS = {
    "MaxBoxAccV2": "max-box-acc-v2",
    "box": "box-accuracy",
    "pointing": "pointing-game(tolerance=0)",
}
COLUMNS = {
    "MaxBoxAccV2": ("MaxBoxAccV2", "accuracy"),
    "box": ("box", "accuracy"),
    "IoU": ("box", "mean_iou"),
    "pointing": ("pointing", "pooled_accuracy"),
}
CONTROLS = ("centre-gaussian", "random-cam", "random-cam(seed=1)", "random-cam(seed=2)")


def digits() -> dict[str, list[Any]]:
    """Give the digits of the test scenes as a data set: one item for each."""
    marked = [(scene, mark) for scene, marks in scenes() for mark in marks]
    return {
        "pictures": [scene for scene, _ in marked],
        "labels": [mark.label for _, mark in marked],
        "boxes": [[mark.box] for _, mark in marked],
        "names": [f"{scene.name}, {mark.label}" for scene, mark in marked],
    }


def affordable(net: cnnviz.Network, budget: int) -> tuple[list[str], list[str]]:
    """Divide the installed methods: names within the budget, and lines on those beyond it."""
    chosen, beyond = [], []
    for method in cnnviz.methods():
        # Wrappers smooth or fuse the maps of another method, and controls are named above.
        if method.family not in ("wrapper", "control"):
            passes = plan(net, digits(), method.name, METRICS, limit=1).cost.passes
            if passes <= budget:
                chosen.append(method.name)
            else:
                beyond.append(f"  {method.name:26} {passes:5,} ({method.cost})")
    return chosen, beyond


def line(title: str, cells: Iterable[object]) -> str:
    """Write one line of the table."""
    return " ".join([f"{title:34}", *(f"{cell!s:22}" for cell in cells)]).rstrip()


def show(evaluation: Evaluation) -> None:
    """Print the numbers of all methods, the best MaxBoxAccV2 first."""
    scores: Mapping[tuple[str, str, str], Score] = {
        (s.method, s.metric, s.name): s for s in evaluation.summary
    }

    def row(method: str) -> list[Score]:
        return [scores[method, *number] for number in COLUMNS.values()]

    blind = {method.name for method in cnnviz.methods() if method.class_agnostic}
    run = [method for method in evaluation.methods if method not in evaluation.left_out]
    print(line("", COLUMNS))
    for method in sorted(run, key=lambda m: [-s.value for s in row(m)]):
        mark = " °" if method.partition("(")[0] in blind else ""
        print(line(method + mark, row(method)))
    print("\n° the same map for whatever digit is asked for; in brackets: 95 % intervals")


def main(arguments: Sequence[str] | None = None) -> None:
    """Evaluate the methods, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--methods", help="names with commas, instead of all within the budget")
    parser.add_argument("--budget", type=int, default=1000, help="forward passes a digit (1000)")
    parser.add_argument("--limit", type=int, help="so many digits, drawn by the seed")
    parser.add_argument("--resamples", type=int, default=1000, help="of the intervals (1000)")
    parser.add_argument("--backend", help="torch, tensorflow or numpy; the first installed one")
    parser.add_argument("--seed", type=int, default=0, help="of --limit and the intervals (0)")
    parser.add_argument("--out", help="a folder for the page, the plots and the records")
    asked = parser.parse_args(arguments)

    net = network(asked.backend)
    if asked.methods:
        chosen, beyond = asked.methods.split(","), []
    else:
        chosen, beyond = affordable(net, asked.budget)
    planned = plan(
        net,
        digits(),
        [*chosen, *CONTROLS],
        METRICS,
        out=asked.out,
        limit=asked.limit,
        resamples=asked.resamples,
        seed=asked.seed,
    )
    print(planned.cost, end="\n\n", flush=True)
    evaluation = planned.run()
    show(evaluation)
    for method, reason in evaluation.left_out.items():
        print(f"{method} is left out: {reason}")
    if evaluation.failures:
        print(f"{len(evaluation.failures)} failures; the first: {evaluation.failures[0]}")
    if beyond:
        print(f"\nleft out, more than {asked.budget:,} forward passes a digit:")
        print(*beyond, sep="\n")


if __name__ == "__main__":
    main()
