"""``cnnviz.evaluate``: from what a person asks for to what was found."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cnnviz.datasets import open_dataset
from cnnviz.evaluation.asking import Asked as Chosen
from cnnviz.evaluation.asking import measures_of, methods_of
from cnnviz.evaluation.commands import command_of
from cnnviz.evaluation.engine import Plan
from cnnviz.evaluation.entries import TRUTH, entries_of
from cnnviz.evaluation.planned import Planned
from cnnviz.evaluation.result import Evaluation
from cnnviz.evaluation.store import FILE, Store
from cnnviz.evaluation.summary import Resampling
from cnnviz.evaluation.writing import make_folder
from cnnviz.explaining import BATCH, network_of
from cnnviz.looking import AskedLayer, layer_text
from cnnviz.network import Labels, Preprocess
from cnnviz.targeting import Asked
from cnnviz_core.layers import AUTO
from cnnviz_core.preprocessing import Preprocessing

__all__ = ["evaluate", "plan"]


def evaluate(
    model: Any,
    data: Any,
    methods: Chosen,
    metrics: Chosen,
    *,
    out: str | os.PathLike[str] | None = None,
    target: Asked = TRUTH,
    layer: AskedLayer = AUTO,
    batch_size: int = BATCH,
    seed: int = 0,
    limit: int | None = None,
    resamples: int = 1000,
    preprocess: Preprocess | None = None,
    labels: Labels | None = None,
    wnids: Sequence[str] | None = None,
    **reading: Any,
) -> Evaluation:
    """Say how good methods are at explaining a network, on annotated pictures.

    Pictures are read a batch at a time.  With `out`, what is done is kept there after each batch
    and method: the same call goes on where an earlier one was stopped, however it was, and ends
    with the same numbers.

    Parameters
    ----------
    model : network, function, Network or str
        As for `cnnviz.explain`.
    data : path, pictures, mapping or Dataset
        A folder, a CSV, COCO or VOC file, or pictures in memory: as for
        `cnnviz.datasets.open_dataset`.
    methods : str, sequence, or mapping
        "grad-cam, occlusion(window=48)"; a sequence of such names and of explainers; or a mapping:
        from names to parameters, from labels to explainers or to names with parameters.
    metrics : str, sequence, or mapping
        Likewise: "pointing-game, deletion(steps=28)"; `cnnviz.metrics` lists them.
    out : path, optional
        The folder to write to: records, tables, plots and a page, "leaderboard.html".  Nothing is
        written if left out.
    target : "truth", "predicted", int, str or Target
        What is asked of the network: the class that a picture is annotated with, the predicted
        one, or the same for all pictures, as for `cnnviz.explain`.
    layer : str, int, layer, or sequence of these
        The layer to look at, for the methods that look at one and are not told another.
    batch_size : int
        How many pictures are read and go through the network at once.
    seed : int
        Of what metrics draw, of `limit`, and of the resampling.
    limit : int, optional
        At most so many items, drawn evenly from all; a larger one draws the same and more.
    resamples : int
        How often the pictures are drawn again for the confidence intervals.
    preprocess : Preprocessing or callable, optional
        What is done to a picture, if it is not known or to be another.
    labels : sequence of str, or "imagenet-1k", optional
        The names of the classes, likewise.
    wnids : sequence of str, optional
        The WordNet ids of the classes in the order of the output, where these name the data's.
    **reading
        How `data` is read: format, annotations, images, split, classes, as for
        `cnnviz.datasets.open_dataset`.

    Returns
    -------
    Evaluation
        It prints as a table of methods and metrics.  A picture or a method that failed is among
        its `failures`, what is wrong with the data set among its `problems`.

    Raises
    ------
    CnnvizError
        If nothing can be evaluated: a method, metric or class is unknown, no picture can be used,
        or the network can run none of the methods.

    Examples
    --------
    >>> import cnnviz
    >>> from cnnviz.demo import scenes
    >>> scene, marks = scenes()[0]
    >>> data = {"pictures": [scene], "labels": [marks[0].label], "boxes": [[marks[0].box]]}
    >>> cnnviz.evaluate("demo", data, "grad-cam, saliency", "pointing-game")  # doctest: +SKIP
    """
    planned = plan(
        model,
        data,
        methods,
        metrics,
        out=out,
        target=target,
        layer=layer,
        batch_size=batch_size,
        seed=seed,
        limit=limit,
        resamples=resamples,
        preprocess=preprocess,
        labels=labels,
        wnids=wnids,
        **reading,
    )
    return planned.run()


def plan(
    model: Any,
    data: Any,
    methods: Chosen,
    metrics: Chosen,
    *,
    out: str | os.PathLike[str] | None = None,
    target: Asked = TRUTH,
    layer: AskedLayer = AUTO,
    batch_size: int = BATCH,
    seed: int = 0,
    limit: int | None = None,
    resamples: int = 1000,
    preprocess: Preprocess | None = None,
    labels: Labels | None = None,
    wnids: Sequence[str] | None = None,
    command: str | None = None,
    **reading: Any,
) -> Planned:
    """Prepare an evaluation, and find out what it costs.

    Parameters
    ----------
    model, data, methods, metrics, out, target, layer, batch_size, seed, limit, resamples
        As for `evaluate`.
    preprocess, labels, wnids, **reading
        As for `evaluate`.
    command : str, optional
        What reruns it on a command line; made of the other arguments where they can be written.

    Returns
    -------
    Planned
        ``print(planned.cost)``, then ``planned.run()``.
    """
    draws = Resampling(0, resamples, seed)  # a number that does not fit fails at once
    measures = measures_of(metrics)
    network = network_of(model, preprocess=preprocess, labels=labels)
    chosen = methods_of(methods, network, layer, batch_size)
    dataset = open_dataset(data, **reading)
    entries = entries_of(dataset, network, target, limit, seed, wnids)
    made = Plan(
        network=network,
        entries=entries.entries,
        numbers=entries.numbers,
        methods=chosen,
        measures=measures,
        store=_store(out),
        target=target,
        layer=layer_text(network, layer),
        batch_size=batch_size,
        seed=seed,
        problems=entries.problems,
    )
    asked = {
        "target": str(target),
        "layer": made.layer,
        "batch_size": batch_size,
        "seed": seed,
        "limit": limit,
        "resamples": resamples,
    }
    if command is None:
        told = {**asked, **reading, "out": out}
        typed = preprocess is None and labels is None and wnids is None
        command = command_of(model, data, methods, metrics, made, told) if typed else ""
    settings = {
        "data": str(data) if isinstance(data, (str, os.PathLike)) else dataset.name,
        "data_format": dataset.format,
        "data_fingerprint": dataset.fingerprint,
        **asked,
        "preprocessing": _said_of(network.preprocessing),
    }
    folder = None if out is None else Path(out).expanduser()
    drawn = replace(draws, pictures=len(made.entries))
    return Planned(made, dataset.name, drawn, settings, command, folder, dataset.notes)


def _store(out: str | os.PathLike[str] | None) -> Store:
    """Open the records of a folder, or make some in memory."""
    if out is None:
        return Store()
    folder = Path(out).expanduser()
    make_folder(folder)
    return Store(folder / FILE)


def _said_of(how: Preprocess | None) -> str:
    """Say what is done to a picture."""
    if how is None or isinstance(how, Preprocessing):
        return str(how or "unknown")
    return f"the function {getattr(how, '__qualname__', type(how).__qualname__)}"
