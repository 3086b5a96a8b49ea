"""Writing an evaluation to a folder, and reading it again."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import importlib
import io
import json
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from cnnviz.datasets import Problem
from cnnviz.evaluation.asking import revived
from cnnviz.evaluation.cost import Cost
from cnnviz.evaluation.failures import Failure
from cnnviz.evaluation.result import Evaluation, Pictured, Row
from cnnviz.evaluation.store import FILE, Store
from cnnviz.evaluation.summary import Score, matrix
from cnnviz.wording import slug
from cnnviz_core.errors import ParameterError
from cnnviz_core.exhibits import Exhibit
from cnnviz_core.files import replacing
from cnnviz_core.importing import installed

__all__ = ["INDEX", "PAGE", "load", "make_folder", "save"]

INDEX: Final = "evaluation.json"
"""What is needed to read an evaluation again, beside its records."""
PAGE: Final = "leaderboard.html"
"""What a person looks at."""

_PLOTS: Final = "plots"
_VERSION: Final = 1
_LONGEST: Final = 120
_SCORES: Final = (
    "method", "metric", "name", "headline", "value", "low", "high", "pictures", "best", "close",
)  # fmt: skip
_PROBLEMS: Final = ("kind", "where", "what", "remedy")
_INFINITIES: Final = {"inf": math.inf, "-inf": -math.inf, None: math.nan}


def make_folder(folder: Path) -> None:
    """Make a folder, with those above it.

    Parameters
    ----------
    folder : Path
        It may exist already.

    Raises
    ------
    ParameterError
        If it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ParameterError(
            f"the folder {str(folder)!r} cannot be made: {error.strerror}",
            "a folder in which files may be written",
            "name another with out= (--out)",
        ) from error


def save(evaluation: Evaluation, folder: str | os.PathLike[str]) -> Path:
    """Write an evaluation to a folder; see `Evaluation.save`.

    Parameters
    ----------
    evaluation : Evaluation
        What was found.
    folder : path
        Made if need be.

    Returns
    -------
    pathlib.Path
        The page.
    """
    from cnnviz.evaluation.page import render

    target = Path(folder).expanduser()
    make_folder(target)
    _remove_earlier(target)
    evaluation.store.copy(target / FILE)
    _write_csv(target / "results.csv", Row._fields, evaluation.rows())
    scores = ([getattr(score, name) for name in _SCORES] for score in evaluation.summary)
    _write_csv(target / "summary.csv", _SCORES, scores)
    _write_csv(target / "problems.csv", _PROBLEMS, _problems(evaluation))
    _write_parquet(evaluation, target / "results.parquet")
    plots = evaluation.plots()
    files = _write_plots([each for group in plots.values() for each in group], target / _PLOTS)
    _write(target / PAGE, render(evaluation, plots))
    document = {**_document(evaluation), "plots": files}
    _write(target / INDEX, json.dumps(document, indent=1, allow_nan=False))
    return target / PAGE


def load(folder: str | os.PathLike[str]) -> Evaluation:
    """Read an evaluation from a folder; see `Evaluation.load`.

    Parameters
    ----------
    folder : path
        Where it was written.

    Returns
    -------
    Evaluation
    """
    source = Path(folder).expanduser()
    try:
        document = json.loads((source / INDEX).read_text(encoding="utf-8"))
        fits = document["version"] == _VERSION and (source / FILE).is_file()
    except (OSError, ValueError, KeyError, TypeError):
        fits = False
    if not fits:
        raise ParameterError(
            f"{source} holds no finished evaluation",
            f"a folder with {INDEX} and {FILE}, as cnnviz.evaluate(..., out=...) writes it",
            "run the same evaluation again: it goes on where it was stopped",
        )
    pictures = tuple(Pictured(*each) for each in document["pictures"])
    store = Store(source / FILE)
    store.want([picture.key for picture in pictures])
    measures = tuple(revived(label, identity) for label, identity in document["metrics"])
    scores = [Score(**{k: _number(k, v) for k, v in each.items()}) for each in document["scores"]]
    methods = tuple(document["methods"])
    return Evaluation(
        title=document["title"],
        pictures=pictures,
        methods=methods,
        measures=measures,
        summary=matrix(scores, methods, [measure.label for measure in measures]),
        problems=tuple(Problem(**each) for each in document["problems"]),
        failures=tuple(Failure(**each) for each in document["failures"]),
        left_out=document["left_out"],
        notes=tuple(document["notes"]),
        cost=Cost(**document["cost"]),
        settings=document["settings"],
        provenance=document["provenance"],
        command=document["command"],
        store=store,
        columns={(method, metric): number for method, metric, number in document["columns"]},
    )


def _document(evaluation: Evaluation) -> dict[str, Any]:
    """Give all but the records as JSON values."""
    return {
        "version": _VERSION,
        "title": evaluation.title,
        "command": evaluation.command,
        "settings": dict(evaluation.settings),
        "provenance": dict(evaluation.provenance),
        "cost": dataclasses.asdict(evaluation.cost),
        "methods": evaluation.methods,
        "metrics": [[measure.label, measure.identity] for measure in evaluation.measures],
        "scores": [
            {k: _text(v) for k, v in dataclasses.asdict(score).items()}
            for score in evaluation.summary
        ],
        "notes": evaluation.notes,
        "left_out": dict(evaluation.left_out),
        "failures": [dataclasses.asdict(failure) for failure in evaluation.failures],
        "problems": [dataclasses.asdict(problem) for problem in evaluation.problems],
        "columns": [[*key, number] for key, number in evaluation.columns.items()],
        "pictures": evaluation.pictures,
    }


def _text(value: Any) -> Any:
    """Write a number that JSON has not as one that it has."""
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value


def _number(name: str, value: Any) -> Any:
    """Read a number that `_text` wrote."""
    return _INFINITIES.get(value, value) if name in ("value", "low", "high") else value


def _write(path: Path, text: str) -> None:
    """Write a text, whole or not at all."""
    with replacing(path) as file:
        file.write(text.encode())


def _write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write rows as CSV: numbers with all their digits, what is not known as nothing."""
    with replacing(path) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(columns)
        for row in rows:
            writer.writerow(["" if _text(value) is None else value for value in row])
        text.detach()  # flushes, and leaves the file open


def _problems(evaluation: Evaluation) -> Iterator[tuple[str, ...]]:
    """Go through all that went wrong."""
    for problem in evaluation.problems:
        yield problem.kind, problem.where, problem.what, problem.remedy
    for failure in evaluation.failures:
        yield "failed", failure.where, failure.what, failure.remedy
    for label, reason in evaluation.left_out.items():
        yield "left out", label, reason, ""


def _write_parquet(evaluation: Evaluation, path: Path) -> None:
    """Write the numbers of single pictures as Parquet, where pyarrow is installed."""
    if not installed("pyarrow"):
        return
    arrow = importlib.import_module("pyarrow")
    parquet = importlib.import_module("pyarrow.parquet")
    # A column has one type, and classes may be names and numbers.
    rows = [
        row._replace(label=None if row.label is None else str(row.label))
        for row in evaluation.rows()
    ]
    columns = {name: [getattr(row, name) for row in rows] for name in Row._fields}
    with replacing(path) as file:
        parquet.write_table(arrow.table(columns), file)


def _remove_earlier(folder: Path) -> None:
    """Remove the plots of an earlier evaluation, and the index that says that it is finished."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        earlier = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        for name in earlier["plots"]:
            (folder / _PLOTS / Path(name).name).unlink(missing_ok=True)
    (folder / INDEX).unlink(missing_ok=True)


def _write_plots(exhibits: Sequence[Exhibit], folder: Path) -> list[str]:
    """Write each exhibit as a picture; give the files' names."""
    from cnnviz.exhibiting import draw, written

    if exhibits:
        make_folder(folder)
    files: list[str] = []
    for exhibit in exhibits:
        stem = slug(exhibit.title)[:_LONGEST] or "plot"
        name = f"{stem}.png" if f"{stem}.png" not in files else f"{stem}-{len(files)}.png"
        with replacing(folder / name) as file:
            file.write(written([draw([exhibit], title=exhibit.title)], ".png"))
        files.append(name)
    return files
