"""One batch of pictures of a data set: explained by a method, measured by metrics."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from cnnviz.datasets import Item, Problem
from cnnviz.evaluation.asking import Measure, Method
from cnnviz.evaluation.store import Seen
from cnnviz.network import Network
from cnnviz.spaces import bounded
from cnnviz.targeting import target_label
from cnnviz_core.errors import ArrayError
from cnnviz_core.explainer import present
from cnnviz_core.memo import MemoModel
from cnnviz_core.metric import Annotation, Explained
from cnnviz_core.model import LOGITS, OUTPUT, Array, Model
from cnnviz_core.targets import Target, resolve_all, scores_of, target_node

__all__ = ["Batch", "Entry", "Ready", "Running", "batches_of", "explained", "measured", "seen"]


@dataclass(frozen=True, eq=False)
class Entry:
    """An item that is evaluated.

    Attributes
    ----------
    item : Item
        The item.
    key : str
        See `cnnviz.evaluation.identity.item_key`.
    target : Target
        What is asked of the network.
    """

    item: Item
    key: str
    target: Target


@dataclass(frozen=True, eq=False)
class Ready:
    """An entry whose picture has been read and prepared.

    Attributes
    ----------
    entry : Entry
        The entry.
    x : ndarray (H, W, C)
        The picture, in the network's own value range.
    annotation : Annotation
        What is known of it, in the input's coordinates.
    problems : tuple of Problem
        What of its annotation the input does not show.
    """

    entry: Entry
    x: Array
    annotation: Annotation
    problems: tuple[Problem, ...]


@dataclass(frozen=True, eq=False)
class Running:
    """What the batches of one run share; nothing of it outlives the run.

    Attributes
    ----------
    network : Network
        The network.
    model : Model
        The network, or a faster copy of it.
    kept : dict
        As of `Explained`.
    """

    network: Network
    model: Model
    kept: dict[Hashable, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Batch:
    """Pictures of one input size, and a model that remembers what it computed of them.

    Attributes
    ----------
    running : Running
        What it shares with others.
    ready : tuple of Ready
        The pictures.
    x : ndarray (N, H, W, C)
        The same as the network takes them.
    model : MemoModel
        The network.  Methods and metrics share their passes of these very pictures.
    """

    running: Running
    ready: tuple[Ready, ...]
    x: Array
    model: MemoModel

    @classmethod
    def of(cls, running: Running, ready: Sequence[Ready]) -> Batch:
        """Make a batch.

        Parameters
        ----------
        running : Running
            What it shares with others.
        ready : sequence of Ready
            Of one input size.

        Returns
        -------
        Batch
        """
        x = np.stack([each.x for each in ready])
        # One array for all, so that the model knows it again without comparing values.
        x.flags.writeable = False
        return cls(running, tuple(ready), x, MemoModel(running.model, x))

    def __len__(self) -> int:
        return len(self.ready)

    @property
    def keys(self) -> list[str]:
        """The items' keys."""
        return [each.entry.key for each in self.ready]

    def only(self, keys: Sequence[str]) -> Batch:
        """Give the part of a batch with some items; itself where these are all.

        Parameters
        ----------
        keys : sequence of str
            The items' keys, in any order.

        Returns
        -------
        Batch
        """
        chosen = [each for each in self.ready if each.entry.key in set(keys)]
        return self if len(chosen) == len(self) else Batch.of(self.running, chosen)

    @property
    def asked(self) -> list[Target]:
        """What is asked of the network, a target for each picture."""
        return [each.entry.target for each in self.ready]

    def targets(self) -> tuple[tuple[Target, ...], Array]:
        """Resolve the targets, and score them.

        Returns
        -------
        targets : tuple of Target
            The predicted class has become the class that was predicted.
        scores : ndarray (N,)
        """
        node = target_node(self.asked)
        value = self.model.forward(self.x, capture=() if node in (LOGITS, OUTPUT) else (node,))
        targets = resolve_all(self.asked, value[node])
        return targets, scores_of(targets, value[node])


def batches_of(running: Running, ready: Sequence[Ready]) -> Iterator[Batch]:
    """Put pictures of one input size together.

    Parameters
    ----------
    running : Running
        What the batches share.
    ready : sequence of Ready
        In any order; those of a batch keep theirs.

    Yields
    ------
    Batch
    """
    shapes: dict[tuple[int, ...], list[Ready]] = {}
    for each in ready:
        shapes.setdefault(each.x.shape, []).append(each)
    for alike in shapes.values():
        yield Batch.of(running, alike)


def explained(method: Method, batch: Batch, batch_size: int, seed: int) -> Explained:
    """Explain a batch by a method.

    Parameters
    ----------
    method : Method
        The method; it is told the bounds of the input if it asks for them.
    batch : Batch
        The pictures.
    batch_size, seed : int
        As of `Explained`.

    Returns
    -------
    Explained

    Raises
    ------
    ArrayError
        If the method gives another number of maps.
    """
    explainer = bounded(method.explainer, batch.running.network, batch.x.shape[1:])
    maps = explainer.explain(batch.model, batch.x, batch.asked)
    if len(maps.raw) != len(batch):
        raise ArrayError(
            f"{method.label} gave {len(maps.raw)} maps for {len(batch)} samples",
            "one map for each sample",
            "report it to the explainer's author",
        )
    # Afterwards, for the method's own pass of these pictures has mostly told the scores.
    targets, scores = batch.targets()
    maps = replace(maps, targets=targets, scores=scores if maps.scores is None else maps.scores)
    annotations = tuple(each.annotation for each in batch.ready)
    return Explained(
        batch.model, explainer, batch.x, maps, annotations, batch_size, seed, batch.running.kept
    )


def seen(batch: Batch, explained: Explained) -> dict[str, Seen]:
    """Say of each explanation what is known beside its records.

    Parameters
    ----------
    batch : Batch
        The pictures.
    explained : Explained
        The same, explained.

    Returns
    -------
    dict of str to Seen
        By the items' keys.
    """
    maps = explained.maps
    _, status = present(maps.raw, explained.size, maps.presentation)
    scores = np.asarray(maps.scores, dtype=np.float64)
    return {
        key: Seen(target_label(target, batch.running.network.labels), float(score), how)
        for key, target, score, how in zip(batch.keys, maps.targets, scores, status, strict=True)
    }


def measured(measure: Measure, batch: Batch, explained: Explained) -> dict[str, dict[str, Any]]:
    """Measure a batch that was explained.

    Parameters
    ----------
    measure : Measure
        The metric.
    batch : Batch
        The pictures.
    explained : Explained
        The same, explained.

    Returns
    -------
    dict of str to dict of str to ndarray
        By the items' keys their records.

    Raises
    ------
    ArrayError
        If the metric gives no record, or another number of rows.
    """
    given: Mapping[str, Array] = measure.metric.measure(explained)
    record = {name: np.asarray(values) for name, values in given.items()}
    wrong = [name for name, values in record.items() if values.shape[:1] != (len(batch),)]
    if wrong or not record:
        raise ArrayError(
            f"{measure.label} gave a record {wrong[0]!r} of the shape {record[wrong[0]].shape} for "
            f"{len(batch)} pictures"
            if wrong
            else f"{measure.label} gave no record",
            "a row for each picture",
            "report it to the metric's author",
        )
    return {
        key: {name: values[i] for name, values in record.items()}
        for i, key in enumerate(batch.keys)
    }
