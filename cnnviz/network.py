"""A network, and what must be known of it to show it pictures and to name its classes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from cnnviz_core.errors import ParameterError
from cnnviz_core.model import Array, Model
from cnnviz_core.preprocessing import Described, Preprocessing
from cnnviz_core.registry import get_registry, import_string

__all__ = ["Labels", "Network", "Preprocess", "wrap"]

Preprocess: TypeAlias = Preprocessing | Callable[[npt.NDArray[np.uint8]], Array]
"""What a network wants done to a picture: data, or a function from (H, W, 3) uint8 to (h, w, C)."""

Labels: TypeAlias = Sequence[str] | Literal["imagenet-1k"]
"""The names of the classes in the order of the output, or the name of a list that we ship."""


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
    activation: Literal["softmax", "sigmoid", "none"] | None = None,
    name: str | None = None,
) -> Network:
    """Say of a network what cnnviz cannot find out by itself.

    Wrap a network once to explain it many times: what is learnt of it on the way is kept.

    Parameters
    ----------
    native : object
        A network of an installed framework, an object that obeys the `Model` protocol, or a
        `Network`, of which what is given here is changed.
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
    activation : {"softmax", "sigmoid", "none"}, optional
        What turns the scores into probabilities, where it cannot be seen from the network's end.
    name : str, optional
        What to call the network.

    Returns
    -------
    Network

    Raises
    ------
    UnsupportedModelError
        If no installed backend takes the object.

    Examples
    --------
    >>> from cnnviz.demo import netspec
    >>> from cnnviz_core.testing.reference import ReferenceModel
    >>> wrap(ReferenceModel(netspec()), labels="0123456789", name="digits")
    <Network 'digits' (numpy): no preprocessing, 10 labels>
    """
    how = {"input_shape": input_shape, "output": output, "activation": activation}
    how = {key: value for key, value in how.items() if value is not None}
    if isinstance(native, Network):
        model = native.model
        if how:
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
            described.name or type(described.native).__name__,
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


def _described(native: Any) -> Described:
    """Ask the backend of a network what its publisher says of it."""
    spec = get_registry().backend_of(native)
    if spec.describe is None:
        return Described(native)
    described: Described = import_string(spec.describe)(native)
    return described


def _behind_protocol(native: Any, how: dict[str, Any], preprocess: Preprocess | None) -> Model:
    """Put a framework's network behind the protocol; the preprocessing tells the input's shape."""
    behind: Callable[..., Model] = import_string(get_registry().backend_of(native).wrap)
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


def _names(labels: Labels | None) -> tuple[str, ...] | None:
    """Give class names as a tuple."""
    if labels is None:
        return None
    if isinstance(labels, str) and labels == "imagenet-1k":
        from cnnviz.labels import imagenet_labels

        return imagenet_labels()
    return tuple(str(label) for label in labels)
