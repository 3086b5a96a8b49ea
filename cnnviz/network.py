"""A network, and what must be known of it to show it pictures and to name its classes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from cnnviz_core.answering import AnsweringModel
from cnnviz_core.errors import ParameterError
from cnnviz_core.importing import import_string
from cnnviz_core.model import Array, Model
from cnnviz_core.preprocessing import Described, Preprocessing
from cnnviz_core.registry import get_registry

__all__ = ["Labels", "Network", "Preprocess", "wrap"]

Preprocess: TypeAlias = Preprocessing | Callable[[npt.NDArray[np.uint8]], Array]
"""What a network wants done to a picture: data, or a function from (H, W, 3) uint8 to (h, w, C)."""

Labels: TypeAlias = Sequence[str] | Literal["imagenet-1k"]
"""The names of the classes in the order of the output, or the name of a list that we ship."""

_OF_FUNCTIONS: Final = ("channels", "retry", "wait", "rate", "batch_size", "remember")
"""What `wrap` is told of functions only."""


@dataclass(frozen=True)
class Network:
    """A network behind the `Model` protocol, with its preprocessing and its class names.

    Attributes
    ----------
    model : Model
        What explainers work on.
    preprocessing : Preprocessing, callable or None
        What is done to a picture; a function takes (H, W, 3) uint8 and gives (h, w, C) float.
        None where it is not known.
    labels : tuple of str, or None
        The names of the classes in the order of the output; None where they are not known.
    name : str
        What to call the network.
    native : object
        The framework's own network, untouched.
    """

    model: Model
    preprocessing: Preprocess | None = None
    labels: tuple[str, ...] | None = None
    name: str = ""
    native: Any = field(default=None, repr=False)

    def __repr__(self) -> str:
        classes = f"{len(self.labels)} labels" if self.labels is not None else "no labels"
        known = "no preprocessing" if self.preprocessing is None else "preprocessing"
        return f"<Network {self.name!r} ({self.model.framework}): {known}, {classes}>"


def wrap(
    native: Any,
    *,
    preprocess: Preprocess | None = None,
    labels: Labels | None = None,
    input_shape: tuple[int, ...] | Mapping[str, tuple[int, ...]] | None = None,
    output: Any = None,
    activation: Literal["softmax", "sigmoid", "probabilities", "none"] | None = None,
    name: str | None = None,
    channels: int | None = None,
    retry: int | None = None,
    wait: float | None = None,
    rate: float | None = None,
    batch_size: int | None = None,
    remember: int | None = None,
) -> Network:
    """Say of a network what cnnviz cannot find out by itself.

    Wrap a network once to explain it many times: what is learnt of it on the way is kept.

    A function from an array (N, H, W, C) to scores (N, K) becomes a network too, of which all
    methods that need no gradients and no layers can ask.  What it answered is remembered, so that
    where it fails in the middle of an explanation, the same call made again goes on from there.

    Parameters
    ----------
    native : object
        A network of an installed framework, an object that obeys the `Model` protocol, a function
        or another object that is called like one, or a `Network`, of which what is given here is
        changed.
    preprocess : Preprocessing or callable, optional
        What is done to a picture before the network sees it; a function takes (H, W, 3) uint8 and
        gives (h, w, C) float.  Found by itself for networks of torchvision, timm and
        keras.applications.
    labels : sequence of str, or "imagenet-1k", optional
        The names of the classes in the order of the output.  Found likewise.
    input_shape : tuple of int, or mapping of str to tuple, optional
        (H, W, C) of the input, where neither the network nor the preprocessing tells; one for each
        of several inputs.
    output : str, int or callable, optional
        Which of several outputs is the main one: a key, an index, or a function that picks it.
    activation : {"softmax", "sigmoid", "probabilities", "none"}, optional
        What turns the scores into probabilities, where it cannot be seen from the network's end.
        Of functions also "probabilities": they return such; if left out it is learnt from their
        first answers, as `cnnviz_core.answering.AnsweringModel` says.
    name : str, optional
        What to call the network.
    channels : int, optional
        Of a function: how many channels its pictures have, where their size is free.
    retry : int, optional
        Of a function: how often a call that raised is made again; 0 if left out.
    wait : float, optional
        Of a function: seconds before the second try, doubled each time up to a minute; 1 if left
        out.
    rate : float, optional
        Of a function: how many calls a second are made at most.
    batch_size : int, optional
        Of a function: how many samples one call takes at most.
    remember : int, optional
        Of a function: how many answers are kept; 100 000 if left out, and never more than 256 MiB.

    Returns
    -------
    Network

    Raises
    ------
    UnsupportedModelError
        If no installed backend takes the object, and it is no function.
    ParameterError
        If something is said that does not fit the network, or is about functions only.

    Examples
    --------
    >>> from cnnviz.demo import netspec
    >>> from cnnviz_core.testing.reference import ReferenceModel
    >>> wrap(ReferenceModel(netspec()), labels="0123456789", name="digits")
    <Network 'digits' (numpy): no preprocessing, 10 labels>
    >>> wrap(lambda x: x.mean((1, 2)), labels=["red", "green", "blue"], name="colours", retry=3)
    <Network 'colours' (function): no preprocessing, 3 labels>
    """
    how: dict[str, Any] = {
        "input_shape": input_shape,
        "output": output,
        "activation": activation,
        "channels": channels,
        "retry": retry,
        "wait": wait,
        "rate": rate,
        "batch_size": batch_size,
        "remember": remember,
    }
    how = {key: value for key, value in how.items() if value is not None}
    if isinstance(native, Network):
        model = native.model
        if how and isinstance(model, AnsweringModel):
            model = model.changed(**how)
        elif how:
            model = _behind_protocol(native.native, how, native.preprocessing)
        known = native
    elif obeys_protocol(native):
        if how:
            raise ParameterError(
                f"{', '.join(how)} cannot be changed in a {type(native).__name__}",
                "a framework's own network, or nothing to change",
                "pass the network itself, or give these when the model is made",
            )
        model = native
        known = Network(model, name=getattr(native, "name", "") or type(native).__name__)
    else:
        described = native if isinstance(native, Described) else _described(native)
        preprocessing = described.preprocessing if preprocess is None else preprocess
        model = _behind_protocol(described.native, how, preprocessing)
        known = Network(
            model,
            described.preprocessing,
            _names(described.labels),
            described.name or _name(described.native),
            described.native,
        )
    return dataclasses.replace(
        known,
        model=model,
        preprocessing=known.preprocessing if preprocess is None else preprocess,
        labels=known.labels if labels is None else _names(labels),
        name=known.name if name is None else name,
    )


def obeys_protocol(native: Any) -> bool:
    """Tell whether an object is a `Model` already.

    Parameters
    ----------
    native : object
        Any object.

    Returns
    -------
    bool
    """
    # `isinstance(native, Model)` would evaluate `layers`, which may cost a forward pass.
    return callable(getattr(type(native), "pullback", None)) and hasattr(native, "capabilities")


def is_function(native: Any) -> bool:
    """Tell whether an object is a function, or is called like one, and is of no framework.

    Parameters
    ----------
    native : object
        Any object.

    Returns
    -------
    bool
        False for classes, and for objects of a class of a framework's, which a backend knows.
    """
    if not callable(native) or isinstance(native, type):
        return False
    frameworks = {package for spec in get_registry().backends.values() for package in spec.packages}
    return frameworks.isdisjoint(c.__module__.partition(".")[0] for c in type(native).__mro__)


def _name(native: Any) -> str:
    """Call a function by its name, and anything else by its class."""
    named = getattr(native, "__name__", "<") if is_function(native) else "<"
    return type(native).__name__ if named.startswith("<") else str(named)


def _described(native: Any) -> Described:
    """Ask the backend of a network what its publisher says of it."""
    if is_function(native):
        return Described(native)
    spec = get_registry().backend_of(native)
    if spec.describe is None:
        return Described(native)
    described: Described = import_string(spec.describe)(native)
    return described


def _behind_protocol(native: Any, how: dict[str, Any], preprocess: Preprocess | None) -> Model:
    """Put a framework's network behind the protocol; the preprocessing tells the input's shape."""
    behind: Callable[..., Model]
    if is_function(native):
        behind = AnsweringModel
    else:
        behind = import_string(get_registry().backend_of(native).wrap)
        _check_no_function(how, native)
    if not isinstance(preprocess, Preprocessing) or preprocess.size is None:
        return behind(native, **how)
    channels = 1 if preprocess.channels == "L" else 3
    try:
        return behind(native, **{"input_shape": (*preprocess.size, channels), **how})
    except ParameterError:
        # One shape says too little of a network with several inputs.
        model = behind(native, **how)
        if len(model.inputs) < 2:
            raise
        return model


def _check_no_function(how: Mapping[str, Any], native: Any) -> None:
    """Check that nothing is said of a framework's network that is about functions only."""
    foreign = [key for key in how if key in _OF_FUNCTIONS]
    if foreign:
        raise ParameterError(
            f"{' and '.join(foreign)} was given for a {type(native).__name__}",
            "a function from an array (N, H, W, C) to scores, which may be a remote one",
            "leave it out: a framework's network always answers, and tells what it takes",
        )


def _names(labels: Labels | None) -> tuple[str, ...] | None:
    """Give class names as a tuple."""
    if labels is None:
        return None
    if isinstance(labels, str) and labels == "imagenet-1k":
        from cnnviz.labels import imagenet_labels

        return imagenet_labels()
    return tuple(str(label) for label in labels)
