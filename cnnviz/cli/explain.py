"""``cnnviz explain``: what a network looks at, in files of yours."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cnnviz.cli.base import (
    FAILED,
    PARTLY,
    as_json,
    error_record,
    json_option,
    make_folder,
    print_error,
    print_notes,
    print_table,
    progress,
)
from cnnviz.cli.options import (
    box_options,
    model_options,
    open_network,
    presentation_of,
    presentation_options,
    sample_options,
)
from cnnviz.cli.parameters import MethodCommand, method_parameters, named_methods
from cnnviz.wording import slug
from cnnviz_core.errors import CnnvizError, ImageError
from cnnviz_core.pace import BatchSize
from cnnviz_core.progress import advance

if TYPE_CHECKING:
    from cnnviz.explanation import Explanation
    from cnnviz.network import Network
    from cnnviz_core.explainer import Explainer

__all__ = ["command"]

_METHOD = ("grad-cam",)
_COLUMNS = ("picture", "method", "target", "probability", "layer", "box", "status", "file")


@click.command("explain", cls=MethodCommand, method_default=_METHOD)
@click.argument("pictures", nargs=-1, required=True, metavar="PICTURE...")
@model_options
@click.option(
    "--method",
    "--methods",
    "-m",
    "methods",
    multiple=True,
    default=_METHOD,
    show_default=True,
    help="How; may be given several times, or several with commas.",
)
@sample_options
@presentation_options
@box_options
@click.option(
    "--out",
    "-o",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=".",
    show_default=True,
    help="The folder to write to; made if need be.",
)
@click.option(
    "--format",
    "-f",
    "formats",
    multiple=True,
    type=click.Choice(["png", "jpg", "webp", "html", "npz"]),
    default=("png",),
    show_default=True,
    help="What to write; may be given several times.  npz holds all numbers.",
)
@json_option
def command(
    pictures: tuple[str, ...],
    model: str,
    backend: str | None,
    labels: str | None,
    preprocess: str | None,
    methods: tuple[str, ...],
    target: str | None,
    layer: str,
    batch_size: BatchSize | None,
    boxes: bool,
    threshold: float | None,
    folder: Path,
    formats: tuple[str, ...],
    as_document: bool,
    **given: Any,
) -> None:
    """Show what a network looks at in each PICTURE.

    One file is written for each picture, method and target: PICTURE-METHOD.png, with the target in
    its name where one is named.
    """
    from cnnviz.explaining import make_explainers, runnable
    from cnnviz.explanation import THRESHOLD
    from cnnviz_core.explainer import require

    how, normalise = presentation_of(given)
    chosen = {method: method_parameters(method, given) for method in named_methods(methods)}
    explainers = make_explainers(chosen, layer, batch_size)
    network = open_network(model, backend, labels, preprocess)
    for method, explainer in explainers.items():
        require(explainer.needs, network.model, method, runnable(network.model))
    make_folder(folder)
    threshold = THRESHOLD if threshold is None else threshold
    results: list[dict[str, Any]] = []
    failures: list[tuple[str, CnnvizError]] = []
    names = _Names()
    with progress():
        for i, picture in enumerate(pictures):
            advance("pictures", i, len(pictures))
            try:
                explained = _explain(network, picture, explainers, target, batch_size)
            except ImageError as error:
                failures.append((picture, error))
                continue
            for found in explained:
                explanation = found.shown(**how) if how else found
                stem = names.stem(picture, explanation, target)
                files = [folder / f"{stem}.{suffix}" for suffix in dict.fromkeys(formats)]
                for file in files:
                    explanation.save(file, boxes=boxes, threshold=threshold, normalise=normalise)
                results.append(_record(picture, explanation, files, threshold))
        advance("pictures", len(pictures), len(pictures))
    if as_document:
        as_json(
            {
                "model": network.name,
                "framework": network.model.framework,
                "results": results,
                "failures": [{"picture": p, "error": error_record(e)} for p, e in failures],
            }
        )
    elif results:
        title = f"{network.name} ({network.model.framework})"
        rows = [_row(result, boxes) for result in results]
        print_table(_COLUMNS, rows, title=title, numeric=("probability",))
        print_notes((result["method"], result["notes"]) for result in results)
    for picture, failure in failures:
        print_error(failure, picture)
    if failures:
        raise click.exceptions.Exit(PARTLY if results else FAILED)


def _explain(
    network: Network,
    picture: str,
    explainers: dict[str, Explainer],
    target: str | None,
    batch_size: BatchSize | None,
) -> list[Explanation]:
    """Explain one picture by every method, an explanation for each target."""
    from cnnviz.explaining import batches
    from cnnviz.samples import samples_of

    return [
        explanation
        for task in batches(network, samples_of(network, picture), target, batch_size)
        for method, explainer in explainers.items()
        for explanation in task.run(method, explainer)
    ]


class _Names:
    """The names of the files that are written, no two alike."""

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._stems: dict[str, str] = {}

    def stem(self, picture: str, explanation: Explanation, target: str | None) -> str:
        """Name the files of one explanation, without a suffix."""
        parts = [self._stem_of(picture), slug(explanation.method)]
        if target is not None:
            parts.append(slug(explanation.target_labels[0]) or "target")
        return self._unique("-".join(parts))

    def _stem_of(self, picture: str) -> str:
        """Name a picture; pictures of one name in several folders are numbered."""
        if picture not in self._stems:
            self._stems[picture] = self._unique(Path(picture).stem)
        return self._stems[picture]

    def _unique(self, name: str) -> str:
        """Number a name that is taken; some file systems do not tell a from A."""
        free, n = name, 1
        while free.casefold() in self._taken:
            n += 1
            free = f"{name}-{n}"
        self._taken.add(free.casefold())
        return free


def _record(
    picture: str, explanation: Explanation, files: Sequence[Path], threshold: float
) -> dict[str, Any]:
    """Give a result as JSON values; of a large array among the parameters its description."""
    import numpy as np

    from cnnviz.wording import described, is_short

    odds = explanation.probabilities
    return {
        "picture": picture,
        "method": explanation.method,
        "params": {
            name: described(value)
            if isinstance(value, np.ndarray) and not is_short(value)
            else value
            for name, value in explanation.params.items()
        },
        "target": explanation.target_labels[0],
        "score": None if explanation.scores is None else explanation.scores[0],
        "probability": None if odds is None else odds[0],
        "predictions": [
            {"label": label, "probability": p} for label, p in explanation.predictions[0]
        ],
        "layer": explanation.layer,
        "status": explanation.status[0],
        "notes": explanation.notes,
        "boxes": explanation.boxes(threshold)[0],
        "files": [str(file) for file in files],
    }


def _row(result: dict[str, Any], boxes: bool) -> tuple[str, ...]:
    """Give a result as a row of the table."""
    odds = result["probability"]
    known = odds is not None and odds == odds
    return (
        Path(result["picture"]).name,
        result["method"],
        result["target"],
        f"{odds:.1%}" if known else "",
        result["layer"] or "",
        "; ".join(", ".join(map(str, box)) for box in result["boxes"]) if boxes else "",
        "" if result["status"] == "ok" else result["status"],
        " ".join(result["files"]),
    )
