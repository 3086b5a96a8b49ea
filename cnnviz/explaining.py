"""The front door's one verb: explain what a network says of pictures."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cnnviz.explanation import Explanation
from cnnviz.lanes import Lanes
from cnnviz.listing import plugin_of, usual_name
from cnnviz.looking import AskedLayer, is_several, layer_text
from cnnviz.network import Labels, Network, Preprocess, wrap
from cnnviz.provenance import provenance_of
from cnnviz.samples import Sample, samples_of
from cnnviz.sources import load
from cnnviz.spaces import bounded
from cnnviz.targeting import Asked, target_class, target_label, targets_for
from cnnviz_core.errors import ArrayError, ParameterError, TargetError, UnknownLayerError
from cnnviz_core.explainer import Explainer, Maps, present, require
from cnnviz_core.labels import label_of
from cnnviz_core.layers import AUTO
from cnnviz_core.memo import MemoModel
from cnnviz_core.model import INPUT, LOGITS, OUTPUT, Array, Cotangent, Inputs, Model, Pullback
from cnnviz_core.pace import BatchSize
from cnnviz_core.parameters import parameters_of
from cnnviz_core.progress import advance
from cnnviz_core.registry import get_registry
from cnnviz_core.rules import STANDARD, BackwardRule
from cnnviz_core.targets import (
    Target,
    probabilities,
    resolve_all,
    saturation,
    scores_of,
    target_node,
)

__all__ = [
    "BATCH",
    "Task",
    "batches",
    "explain",
    "join",
    "make_explainers",
    "network_of",
    "one_layer",
    "runnable",
]

BATCH = 16
"""How many samples go through the network at once, if nothing else is asked for."""

_TOP = 5


def explain(
    model: Any,
    images: Any,
    method: str = "grad-cam",
    target: Asked | Sequence[Asked] = None,
    layer: AskedLayer = AUTO,
    *,
    preprocessed: bool = False,
    input: str | None = None,
    preprocess: Preprocess | None = None,
    labels: Labels | None = None,
    batch_size: BatchSize | None = None,
    **params: Any,
) -> Explanation:
    """Explain what a network looks at in pictures, signals or volumes.

    Parameters
    ----------
    model : network, function, Network or str
        A network of an installed framework; a function from an array (N, H, W, C) to scores; one
        of these that was wrapped with `wrap`, which is faster for many calls; or a source for
        `load`, such as "torchvision:resnet50".
    images : path, PIL image, ndarray, sequence of these, or mapping of str to these
        Pictures of any sizes: (H, W, 3) uint8, or float in [0, 1].  With `preprocessed`, an array
        (N, H, W, C) in the network's own value range, channels last for every framework; (N, L, C)
        for networks on signals, (N, D, H, W, C) for networks on volumes.  For a network with
        several inputs a mapping from their names: such pictures for the one that is explained, and
        for each other an array with a row for each sample or one row for all.
    method : str
        Which explainer; `methods` lists them.
    target : int, str, Target, None, or a sequence of these
        What is explained: a class's number or label, a target such as ``Contrast(281, 207)``, None
        for the predicted class; "tabby - boxer" is a contrast and "p(tabby)" a probability; "top-3"
        explains each picture three times; a sequence has one entry for each picture.
    layer : str, int, layer of the framework, or sequence of these
        The layer to look at, for methods that look at one: its name; a pattern such as "layer4.*",
        for the last that matches; -1 for the last of all (`layers` numbers them); the framework's
        own layer, as ``net.layer4``; "auto" for the last with a spatial grid.  A sequence is for
        methods that look at several, such as layer-fusion.
    preprocessed : bool
        Whether `images` is a prepared batch, or a mapping of such.
    input : str, optional
        Which of several inputs is explained; the first with a spatial grid if left out.  The others
        are held, and samples of which they differ go through the network one by one.
    preprocess : Preprocessing or callable, optional
        What is done to a picture before the network sees it, if it is not known or to be another.
    labels : sequence of str, or "imagenet-1k", optional
        The names of the classes, likewise.
    batch_size : int or "auto", optional
        How many samples go through the network at once; 16 if left out.
    **params
        The method's own parameters; ``cnnviz.methods()`` and ``cnnviz methods NAME`` list them.

    Returns
    -------
    Explanation

    Raises
    ------
    CnnvizError
        One of its kinds: the method, layer, class, picture or parameter is unknown or does not fit,
        or the network lacks what the method needs.

    Examples
    --------
    >>> from cnnviz.demo import scenes
    >>> e = explain("demo", [picture for picture, truth in scenes()][:2], "grad-cam", layer="auto")
    >>> len(e)
    2
    """
    network = network_of(model, preprocess=preprocess, labels=labels)
    where = layer_text(network, layer)
    ((name, explainer),) = make_explainers({method: params}, where, batch_size).items()
    require(explainer.needs, network.model, name, runnable(network.model))
    samples = samples_of(network, images, preprocessed=preprocessed, input=input)
    parts = []
    with one_layer(name, layer, where):
        for task in batches(network, samples, target, batch_size):
            parts.append(task.run(name, explainer))
            advance(name, sum(map(len, parts)), task.total)
    return join(parts)


@contextlib.contextmanager
def one_layer(method: str, asked: AskedLayer, where: str) -> Iterator[None]:
    """Say what is wrong where a method that looks at one layer was given several.

    Parameters
    ----------
    method : str
        The method.
    asked : str, int, layer, or sequence of these
        What was asked for.
    where : str
        The same in text.

    Raises
    ------
    UnknownLayerError
        If the method took the text of several layers for the name of one.
    """
    try:
        yield
    except UnknownLayerError as error:
        several = len(asked) > 1 if is_several(asked) else "," in where
        if several and repr(where) in error.problem:
            raise UnknownLayerError(
                f"{method} looks at one layer, and several were given: {where}",
                "one layer",
                "name one, or use a method that looks at several, such as layer-fusion",
            ) from error
        raise


def network_of(
    model: Any, *, preprocess: Preprocess | None = None, labels: Labels | None = None
) -> Network:
    """Give the network that a caller named, loaded or wrapped.

    Parameters
    ----------
    model : network, Network or str
        As for `explain`.
    preprocess : Preprocessing or callable, optional
        What is done to a picture, if not what is known.
    labels : sequence of str, or "imagenet-1k", optional
        The names of the classes, likewise.

    Returns
    -------
    Network
    """
    if isinstance(model, (str, os.PathLike)):
        model = load(os.fspath(model))
    return wrap(model, preprocess=preprocess, labels=labels)


def make_explainers(
    methods: Mapping[str, Mapping[str, Any]], layer: str = AUTO, batch_size: BatchSize | None = None
) -> dict[str, Explainer]:
    """Make the explainers of methods; layer and batch size go to those that have such a field.

    Parameters
    ----------
    methods : mapping of str to mapping
        Each method's own parameters.
    layer : str
        The layer to look at, or "auto".
    batch_size : int or "auto", optional
        How many samples go through the network at once.

    Returns
    -------
    dict of str to Explainer
        By the methods' usual names, in the order given.

    Raises
    ------
    UnknownMethodError
        If there is no such method.
    ParameterError
        If a parameter is unknown or does not fit, or a layer is given and no method looks at one.
    """
    sound = batch_size in (None, "auto") or (isinstance(batch_size, int) and batch_size >= 1)
    if not sound:
        raise ParameterError(
            f"batch_size is {batch_size!r}",
            "a whole number of at least 1, or 'auto'",
            "pass batch_size=16",
        )
    registry = get_registry()
    made: dict[str, Explainer] = {}
    looks = False
    for method, params in methods.items():
        fields = {parameter.name: parameter for parameter in registry.parameters(method)}
        looks = looks or "layer" in fields
        shared = {"layer": None if layer == AUTO else layer, "batch_size": batch_size}
        given = {k: v for k, v in shared.items() if v is not None and k in fields}
        if batch_size == "auto" and "auto" not in getattr(fields.get("batch_size"), "choices", ()):
            given.pop("batch_size", None)  # the method does not measure
        made[usual_name(method)] = registry.explainer(method, **{**given, **params})
    if made and layer != AUTO and not looks:
        raise ParameterError(
            f"layer={layer!r} was given, and {' and '.join(made)} "
            f"{'looks' if len(made) == 1 else 'look'} at no layer",
            "no layer",
            "leave it out, or use a method that looks at one, such as grad-cam",
        )
    return made


def runnable(model: Model) -> list[str]:
    """List the methods that a model can run.

    Parameters
    ----------
    model : Model
        The network.

    Returns
    -------
    list of str
        Sorted.
    """
    explainers = get_registry().explainers
    return [name for name, spec in explainers.items() if spec.needs <= model.capabilities]


class _Memory(MemoModel):
    """A model that remembers, and notes whether it was differentiated away from the batch."""

    away = False

    def pullback(
        self,
        x: Inputs,
        cotangent: Cotangent,
        *,
        of: str = LOGITS,
        wrt: Sequence[str] = (INPUT,),
        rule: BackwardRule = STANDARD,
    ) -> Pullback:
        """Differentiate; see `MemoModel.pullback`."""
        self.away = self.away or not self._remembers(x)
        return super().pullback(x, cotangent, of=of, wrt=wrt, rule=rule)


@dataclass(frozen=True)
class Task:
    """One batch: samples, a target for each, and a model that remembers what it computed.

    Attributes
    ----------
    network : Network
    samples : tuple of Sample
    targets : tuple of Target
    x : ndarray (N, ...)
        The samples as the network takes them.
    model : MemoModel
        The network.  Several methods that are run on one task share their passes through it.
    total : int
        How many explanations there are in all batches.
    lanes : Lanes
        Which model runs what.
    """

    network: Network
    samples: tuple[Sample, ...]
    targets: tuple[Target, ...]
    x: Array
    model: _Memory
    total: int
    lanes: Lanes

    def run(self, method: str, explainer: Explainer) -> Explanation:
        """Explain the batch.

        Parameters
        ----------
        method : str
            The method's usual name.
        explainer : Explainer
            The method.

        Returns
        -------
        Explanation
        """
        explainer = bounded(explainer, self.network, self.x.shape[1:])
        self.model.away = False
        self.model.elsewhere = self.lanes.further(self.samples[0], explainer)
        found = explainer.explain(self.model, self.x, self.targets)
        away = self.model.away
        self._check(method, found)
        maps, status = present(found.raw, self.x.shape[1:-1], found.presentation)
        targets, scores = self._scored(found, self.x)
        # A method that differentiates elsewhere, such as on the way from a baseline, is not blind.
        if "gradient" in explainer.needs and not away:
            status = self._saturated(targets, status)
        odds, predictions = self._classes(self.x, targets)
        return Explanation(
            maps=maps,
            raw=found.raw,
            scores=scores,
            targets=targets,
            target_labels=tuple(target_label(t, self.network.labels) for t in targets),
            probabilities=odds,
            predictions=predictions,
            method=method,
            params={
                p.name: getattr(explainer, p.name)
                for p in parameters_of(type(explainer))
                if p.name != "layer"
            },
            layer=found.layer,
            status=tuple(status),
            presentation=found.presentation,
            geometry=tuple(sample.geometry for sample in self.samples),
            pictures=tuple(sample.pixels for sample in self.samples),
            names=tuple(sample.name for sample in self.samples),
            extras=found.extras,
            provenance={
                **provenance_of(self.network, plugin_of(method)),
                **self._explained(),
            },
            notes=found.notes,
        )

    def _explained(self) -> dict[str, str]:
        """Say which of several inputs was explained."""
        held = self.samples[0].held
        return {} if held is None else {"input": held.free}

    def _check(self, method: str, found: Maps) -> None:
        """Check that a method gave one map for each sample."""
        if len(found.raw) != len(self.samples):
            raise ArrayError(
                f"{method} gave {len(found.raw)} maps for {len(self.samples)} samples",
                "one map for each sample",
                "report it to the explainer's author",
            )

    def _scored(self, found: Maps, x: Array) -> tuple[tuple[Target, ...], Array]:
        """Give the resolved targets and their scores, also where the method did not."""
        if found.targets and found.scores is not None:
            return found.targets, np.asarray(found.scores)
        node = target_node(self.targets)
        value = self.model.forward(x, capture=() if node in (LOGITS, OUTPUT) else (node,))[node]
        targets = found.targets or resolve_all(self.targets, value)
        return targets, scores_of(targets, value)

    def _saturated(self, targets: Sequence[Target], status: Sequence[str]) -> list[str]:
        """Mark the samples of which the score's gradient, and so the map, is rounding."""
        if not any(hasattr(target, "saturated") for target in targets):
            return list(status)
        node = target_node(targets)
        capture = () if node in (LOGITS, OUTPUT) else (node,)
        full = saturation(targets, self.model.forward(self.x, capture=capture)[node])
        return [
            "saturated" if flat and was != "non-finite" else was
            for was, flat in zip(status, full, strict=True)
        ]

    def _classes(
        self, x: Array, targets: Sequence[Target]
    ) -> tuple[Array | None, tuple[tuple[tuple[str, float], ...], ...]]:
        """Give the targets' probabilities and each sample's first classes, where there are any."""
        logits = self.model.forward(x).logits
        labels = self.network.labels
        if logits.ndim != 2 or self.model.activation == "none":
            return None, ()
        if labels is not None and len(labels) != logits.shape[1]:
            raise TargetError(
                f"{len(labels)} labels were given for the {logits.shape[1]} classes of "
                f"{self.network.name or 'the network'}",
                "one label for each class",
                "pass labels=[...] in the order of the output",
            )
        odds = probabilities(logits, self.model.activation)
        first = np.argsort(-odds, axis=1, kind="stable")[:, :_TOP]
        predictions = tuple(
            tuple((label_of(int(i), labels), float(row[i])) for i in order)
            for row, order in zip(odds, first, strict=True)
        )
        classes = [target_class(target) for target in targets]
        chosen = [np.nan if k is None else row[k] for row, k in zip(odds, classes, strict=True)]
        return np.array(chosen, dtype=odds.dtype), predictions


def batches(
    network: Network,
    samples: Sequence[Sample],
    target: Asked | Sequence[Asked] = None,
    batch_size: BatchSize | None = None,
) -> Iterator[Task]:
    """Divide samples into batches, each with its targets.

    Parameters
    ----------
    network : Network
        The network.
    samples : sequence of Sample
        All of one shape.
    target : int, str, Target, None, or a sequence of these
        As for `explain`.
    batch_size : int or "auto", optional
        How many samples go through the network at once; 16 if left out.

    Returns
    -------
    iterator of Task
        In the order of the samples.
    """

    def activation() -> str:
        # Some networks tell only once they have run.
        model = samples[0].model(network)
        model.forward(samples[0].x[None])
        return model.activation

    rows, targets = targets_for(target, len(samples), network.labels, activation)
    most = batch_size if isinstance(batch_size, int) else BATCH
    lanes = Lanes(network, len(set(rows)))
    for chosen in _divided([samples[i] for i in rows], most):
        batch = tuple(samples[i] for i in rows[chosen])
        x = np.stack([sample.x for sample in batch])
        # One array for all methods, so that the model knows it again without comparing values.
        x.flags.writeable = False
        memo = _Memory(lanes.first(batch[0]), x)
        yield Task(network, batch, tuple(targets[chosen]), x, memo, len(rows), lanes)


def _divided(samples: Sequence[Sample], most: int) -> Iterator[slice]:
    """Divide samples into runs of at most so many that share what the other inputs are held at."""
    start = 0
    for end in range(1, len(samples) + 1):
        last = end == len(samples)
        if last or end - start == most or samples[end].held is not samples[start].held:
            yield slice(start, end)
            start = end


def join(parts: Sequence[Explanation]) -> Explanation:
    """Make one explanation of those of several batches.

    Parameters
    ----------
    parts : sequence of Explanation
        Of one method and one network, in the order of the samples.

    Returns
    -------
    Explanation
    """
    first = parts[0]
    if len(parts) == 1:
        return first
    joined: dict[str, Any] = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in ("maps", "raw", "scores")
    }
    if first.probabilities is not None:
        joined["probabilities"] = np.concatenate([part.probabilities for part in parts])
    for name in (
        "targets",
        "target_labels",
        "predictions",
        "status",
        "geometry",
        "pictures",
        "names",
    ):
        joined[name] = tuple(each for part in parts for each in getattr(part, name))
    joined["extras"] = {
        name: np.concatenate([np.asarray(part.extras[name]) for part in parts])
        for name in first.extras
    }
    joined["notes"] = tuple(dict.fromkeys(note for part in parts for note in part.notes))
    return dataclasses.replace(first, **joined)
