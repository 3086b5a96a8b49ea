"""The front door's other verb: inspect what a network has learnt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cnnviz.collection import Collection, Truth, entries_of, truth_by_folder, truth_of
from cnnviz.explaining import BATCH, network_of
from cnnviz.inspection import Inspection
from cnnviz.listing import plugin_of, usual_inspector
from cnnviz.looking import AskedLayer, layer_text
from cnnviz.network import Labels, Network, Preprocess
from cnnviz.provenance import provenance_of
from cnnviz.samples import Sample, samples_of, usual_input
from cnnviz.spaces import space_of
from cnnviz.targeting import Asked, targets_for
from cnnviz_core.errors import ArrayError, ParameterError, TargetError
from cnnviz_core.explainer import require
from cnnviz_core.inputs import OneInput
from cnnviz_core.inspector import ArrayPictures, Inspector, Pictures, Subject
from cnnviz_core.layers import AUTO
from cnnviz_core.model import Model
from cnnviz_core.parameters import parameters_of
from cnnviz_core.registry import get_registry
from cnnviz_core.targets import Target

__all__ = ["capable", "inspect", "make_inspector", "run_inspector", "subject_of"]


def inspect(
    model: Any,
    inspector: str = "filters",
    images: Any = None,
    *,
    layer: AskedLayer = AUTO,
    target: Asked | Sequence[Asked] = None,
    truth: Truth | None = None,
    preprocessed: bool = False,
    input: str | None = None,
    preprocess: Preprocess | None = None,
    labels: Labels | None = None,
    batch_size: int | None = None,
    **params: Any,
) -> Inspection:
    """Inspect what a network has learnt.

    Parameters
    ----------
    model : network, Network or str
        As for `explain`.
    inspector : str
        What to look at: "filters", "features", "projections", "maximisation", ...; `inspectors`
        lists them.
    images : path, PIL image, ndarray, sequence of these, or mapping of str to these, optional
        Pictures, for inspectors that look at some.  A folder stands for all pictures in it; they
        are read one after the other, so that there may be any number.
    layer : str, int, layer of the framework, or sequence of these
        The layer to look at, for inspectors that look at one or several; as for `explain`.
    target : int, str, Target, None, or a sequence of these
        The class to look at, for inspectors that look at one; a sequence has one for each picture.
    truth : mapping, sequence or path, optional
        The pictures' true classes, by name or in their order, or a CSV or JSON file of them; if
        left out the names of the sub-folders in which the pictures lie.
    preprocessed : bool
        Whether `images` is a prepared batch (N, H, W, C), or a mapping of such.
    input : str, optional
        Which of several inputs is looked at.  The others are held at what `images` says or, where
        there are no pictures, at zero.
    preprocess, labels
        As for `explain`.
    batch_size : int, optional
        How many pictures go through the network at once; 16 if left out.
    **params
        The inspector's own parameters; ``cnnviz inspectors NAME`` lists them.

    Returns
    -------
    Inspection

    Raises
    ------
    CnnvizError
        One of its kinds: the inspector, layer, class, picture or parameter is unknown or does not
        fit, or the network lacks what the inspector needs.

    Examples
    --------
    >>> inspect("demo", "filters").arrays["filters"].shape[-1]
    3
    """
    name = usual_inspector(inspector)
    network = network_of(model, preprocess=preprocess, labels=labels)
    made = make_inspector(name, layer_text(network, layer), params, batch_size)
    _check_asked(name, images, target, truth)
    subject = subject_of(
        network,
        images,
        target=target,
        truth=truth,
        preprocessed=preprocessed,
        input=input,
        batch_size=batch_size,
    )
    return run_inspector(name, made, subject, network)


def make_inspector(
    name: str, layer: str, params: Mapping[str, Any], batch_size: int | None = None
) -> Inspector:
    """Make an inspector of its parameters.

    Parameters
    ----------
    name : str
        Its usual name.
    layer : str
        The layer to look at, or "auto".
    params : mapping of str to value
        Its parameters.
    batch_size : int, optional
        How many pictures go through the network at once, for an inspector with such a parameter.

    Returns
    -------
    Inspector

    Raises
    ------
    ParameterError
        If a parameter is unknown or does not fit, or a layer is given and it looks at none.
    """
    registry = get_registry()
    fields = {parameter.name for parameter in parameters_of(registry.inspector_class(name))}
    if layer != AUTO and "layer" not in fields:
        raise ParameterError(
            f"layer={layer!r} was given, and {name} looks at no layer",
            "no layer",
            "leave it out",
        )
    chosen: dict[str, Any] = {} if layer == AUTO else {"layer": layer}
    if batch_size is not None and "batch_size" in fields:
        chosen["batch_size"] = batch_size
    made: Inspector = registry.inspector(name, **{**chosen, **params})
    return made


def run_inspector(
    name: str, inspector: Inspector, subject: Subject, network: Network
) -> Inspection:
    """Let an inspector look.

    Parameters
    ----------
    name : str
        Its usual name.
    inspector : Inspector
        It.
    subject : Subject
        What it looks at.
    network : Network
        Whose subject it is.

    Returns
    -------
    Inspection

    Raises
    ------
    MissingCapabilityError
        If the network lacks what the inspector needs.
    """
    require(inspector.needs, subject.model, name, capable(subject.model))
    found = inspector.inspect(subject)
    return Inspection(
        inspector=name,
        title=found.title or f"{name} of {subject.name}",
        arrays=found.arrays,
        facts=found.facts,
        exhibits=found.exhibits,
        frames=found.frames,
        params={p.name: getattr(inspector, p.name) for p in parameters_of(type(inspector))},
        provenance=provenance_of(network, plugin_of(name, "inspectors")),
    )


def capable(model: Model) -> list[str]:
    """List the inspectors that can look at a model.

    Parameters
    ----------
    model : Model
        The network.

    Returns
    -------
    list of str
        In the order in which they were announced.
    """
    inspectors = get_registry().inspectors
    return [name for name, spec in inspectors.items() if spec.needs <= model.capabilities]


def _check_asked(name: str, images: Any, target: Any, truth: Any) -> None:
    """Check that an inspector is given what it looks at, and nothing else."""
    spec = get_registry().inspectors[name]
    if images is None and spec.shown in ("pictures", "labelled pictures"):
        raise ParameterError(
            f"{name} looks at pictures, and none was given",
            "a picture, several, or a folder of them",
            "pass images=...",
        )
    unwanted = {
        "images": images is not None and spec.shown == "nothing",
        "target": target is not None and not spec.targeted,
        "truth": truth is not None and images is None,
    }
    for given, wrong in unwanted.items():
        if wrong:
            raise ParameterError(
                f"{given} was given, and {name} looks at the network alone"
                if given != "target"
                else f"a target was given, and {name} looks at no class",
                f"no {given}",
                "leave it out",
            )


def subject_of(
    network: Network,
    images: Any = None,
    *,
    target: Asked | Sequence[Asked] = None,
    truth: Truth | None = None,
    preprocessed: bool = False,
    input: str | None = None,
    batch_size: int | None = None,
) -> Subject:
    """Put together what an inspector looks at.

    Parameters
    ----------
    network : Network
        The network.
    images, target, truth, preprocessed, input, batch_size
        As for `inspect`.

    Returns
    -------
    Subject
    """
    if batch_size is not None and batch_size < 1:
        raise ParameterError(
            f"batch_size is {batch_size}", "a whole number of at least 1", "pass batch_size=16"
        )
    shown = _shown(network, images, truth, preprocessed, input)
    return Subject(
        model=shown.model,
        pictures=shown.pictures,
        space=space_of(network, shown.shape),
        shape=shown.shape,
        targets=_targets(network, target, shown),
        labels=network.labels,
        name=network.name or "the network",
        batch_size=batch_size or BATCH,
    )


@dataclass(frozen=True)
class _Shown:
    """Pictures, the network as one that takes them, and their shape when they are prepared."""

    model: Model
    pictures: Pictures
    shape: tuple[int, ...]


def _shown(
    network: Network, images: Any, truth: Truth | None, preprocessed: bool, input: str | None
) -> _Shown:
    """Prepare what is to be shown to the network."""
    if images is None:
        return _Shown(_alone(network.model), ArrayPictures(np.empty(0)), _declared_shape(network))
    if preprocessed or isinstance(images, Mapping):
        samples = samples_of(network, images, preprocessed=preprocessed, input=input)
        return _in_memory(network, samples, truth)
    entries = entries_of(images)
    if truth is None:
        classes = truth_by_folder(entries, network.labels)
    else:
        classes = truth_of([entry.name for entry in entries], truth, network.labels)
    collection = Collection(network, entries, classes)
    first = next((x for i in range(len(entries)) if (x := collection.read(i)) is not None), None)
    if first is None:
        raise next(iter(collection.failures.values()))
    return _Shown(network.model, collection, first.shape)


def _alone(model: Model) -> Model:
    """Give a network without pictures; of several inputs all but one are held at zero."""
    free = usual_input(model.inputs)
    held = {}
    for name, info in model.inputs.items():
        if name != free:
            if info.shape is None or None in info.shape:
                raise ArrayError(
                    f"the network leaves the size of its input {name!r} open: {info.shape}",
                    "a size, so that it can be held",
                    "pass images={name: ...}, with an array for each other input",
                )
            held[name] = np.zeros((1, *(n or 0 for n in info.shape)), info.dtype)
    return OneInput(model, free, held) if held else model


def _in_memory(network: Network, samples: Sequence[Sample], truth: Truth | None) -> _Shown:
    """Take samples that are prepared already."""
    if any(sample.held is not samples[0].held for sample in samples):
        raise ArrayError(
            "the pictures come with different values for the network's other inputs",
            "one row for each other input, which all pictures share",
            "inspect the pictures one by one",
        )
    names = tuple(sample.name for sample in samples)
    classes = () if truth is None else truth_of(names, truth, network.labels)
    x = np.stack([sample.x for sample in samples])
    pictures = ArrayPictures(x, names, tuple(classes))
    return _Shown(samples[0].model(network), pictures, x.shape[1:])


def _declared_shape(network: Network) -> tuple[int, ...]:
    """Give the shape of the network's input, where there is no picture to tell it."""
    inputs = network.model.inputs
    shape = inputs[usual_input(inputs)].shape
    size = getattr(network.preprocessing, "size", None)
    if shape is not None and size is not None and len(shape) == 3:
        shape = (*size, shape[-1])
    elif shape is None and size is not None:
        shape = (*size, 1 if getattr(network.preprocessing, "channels", "") == "L" else 3)
    if shape is None or None in shape:
        raise ArrayError(
            f"the network leaves the size of its input open: {shape}",
            "a size, so that there is something to look at",
            "pass pictures, or cnnviz.wrap(network, input_shape=(224, 224, 3))",
        )
    return tuple(int(n or 0) for n in shape)


def _targets(
    network: Network, target: Asked | Sequence[Asked], shown: _Shown
) -> tuple[Target, ...]:
    """Work out what is asked for: one target for each picture, or one for all."""
    if target is None:
        return ()
    several = isinstance(target, (list, tuple, np.ndarray))
    count = len(shown.pictures) if several and len(shown.pictures) else 1
    if several and not len(shown.pictures):
        count = len(target)  # type: ignore[arg-type]
    rows, targets = targets_for(
        target, count, network.labels, lambda: _activation(shown.model, shown.shape)
    )
    if rows != list(range(count)):
        raise TargetError(
            f"target={target!r} stands for several classes of each picture",
            "one class for each picture",
            "inspect them one by one",
        )
    return tuple(targets)


def _activation(model: Model, shape: tuple[int, ...]) -> str:
    """Ask what turns scores into probabilities; some networks tell only once they have run."""
    model.forward(np.zeros((1, *shape), dtype=next(iter(model.inputs.values())).dtype))
    return model.activation
