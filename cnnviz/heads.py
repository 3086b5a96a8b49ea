"""Swap a network's head for global pooling and a linear layer, on a copy, and train it.

Class activation maps (`cnnviz.explain` with "cam") need a network that ends in global pooling and
one linear layer.  VGG, AlexNet and other networks with dense layers do not; `pooled` makes one of
such a network, and `fitted` trains its head, or all of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np

from cnnviz.network import Network, wrap
from cnnviz_core.errors import (
    ArrayError,
    MissingCapabilityError,
    ParameterError,
    UnsupportedModelError,
)
from cnnviz_core.heads import BODY, Epoch, Head, Pooling, Training, ridge
from cnnviz_core.importing import import_string
from cnnviz_core.layers import AUTO, resolve_layer
from cnnviz_core.model import LOGITS, OUTPUT, Array, LayerInfo, Model
from cnnviz_core.registry import get_registry

__all__ = ["Fitted", "Labelled", "fitted", "pooled"]

Labelled: TypeAlias = tuple[Array, Array]
"""Inputs as the network takes them, (N, H, W, C), and their classes, (N,) of int."""

_TOLERANCE = 1e-3
_BATCH = 64


@dataclass(frozen=True)
class Fitted:
    """A trained network, and how its training went.

    Attributes
    ----------
    network : object
        Of the framework of the one that was given.
    epochs : tuple of Epoch
        Loss and accuracy of each.
    """

    network: Any = field(repr=False)
    epochs: tuple[Epoch, ...]


def pooled(
    network: Any,
    *,
    layer: str = AUTO,
    classes: int | None = None,
    pooling: Pooling = "average",
    extra: int = 0,
    start: Literal["draws", "zeros", "least-squares"] = "draws",
    data: Array | Labelled | None = None,
    ridge_strength: float = 0.01,
    input_shape: tuple[int, ...] | None = None,
    seed: int = 0,
) -> Any:
    """Copy a network up to a layer, and put global pooling and a linear layer behind it.

    Parameters
    ----------
    network : nn.Module, keras.Model or Network
        Of one input; it is never changed.  In PyTorch any module whose forward ``torch.fx`` can
        trace (all of torchvision's convolutional networks); what does not happen in modules, such
        as ``F.dropout``, stays as it is in evaluation mode.  In Keras 3 functional and Sequential
        models, also inside each other.
    layer : str
        The layer behind which the network is cut, as `cnnviz.explain` takes it; "auto" is the last
        one with a spatial grid that is no pooling.
    classes : int, optional
        How many classes the new network tells apart; as many as the old one if left out.
    pooling : {"average", "max"}
        Over all positions of the grid.
    extra : int
        The channels of a convolution of 3 x 3 with a rectifier between the layer and the pooling;
        0 for none.  Zhou et al. add one of 1024.
    start : {"draws", "zeros", "least-squares"}
        The linear layer: of normal numbers of variance 1 / K, of zeros, or fitted in closed form by
        ridge regression from the pooled channels of `data` to its classes (1 for a sample's class,
        0 for the others), or, where it has none, to the old network's scores.
    data : ndarray (N, H, W, C), or tuple of such an array and classes (N,), optional
        Inputs as the network takes them, channels last in every framework, for
        ``start="least-squares"``.  The first one also stands for the shape of the input, where the
        network does not tell it.
    ridge_strength : float
        How much the fit holds large weights back, as a share of the mean variance of the channels.
    input_shape : tuple of int, optional
        (H, W, C), where neither the network nor `data` tells.
    seed : int
        Of the draws, which are NumPy's: the same in every framework.

    Returns
    -------
    nn.Sequential or keras.Sequential
        A network without softmax of the framework of the given one, with the parts "body" (the
        copy), "conv" and "relu" (where there is `extra`), "pool", in PyTorch "flatten", and
        "linear".

    Raises
    ------
    UnsupportedModelError
        If the framework's backend cannot cut such a network, or what it cut does not compute what
        the network computes.
    UnknownLayerError
        If there is no such layer, or none with a spatial grid.
    ParameterError
        If an argument is out of its range, or data or a shape is missing.
    ArrayError
        If the data does not fit the network.

    References
    ----------
    Zhou et al., "Learning deep features for discriminative localization", CVPR 2016, section 3: the
    cut before the dense layers, and the added convolution; section 2 weighs average against max
    pooling.  Oquab et al., "Is object localization for free?", CVPR 2015: global max pooling.
    """
    if pooling not in ("average", "max"):
        raise ParameterError(
            f"pooling is {pooling!r}", "'average' or 'max'", "pass pooling='average'"
        )
    if start not in ("draws", "zeros", "least-squares"):
        raise ParameterError(
            f"start is {start!r}",
            "'draws', 'zeros' or 'least-squares'",
            "pass start='least-squares' with some of the data, or train with cnnviz.heads.fitted",
        )
    if extra < 0 or (classes is not None and classes < 1):
        raise ParameterError(
            f"extra={extra} and classes={classes} were given",
            "extra of at least 0, and classes of at least 1",
            "leave them out for no convolution and as many classes as the network has",
        )
    x, labels = _labelled(data) if isinstance(data, tuple) else (data, None)
    shape = input_shape if x is None else np.shape(x)[1:]
    old = _wrapped(network, shape)
    make = _of_backend(old.native, "pooled")
    if x is None:
        x = _sample(old.model, start)
    info = _layer(old.model, layer, x)
    trace = old.model.forward(x[:1], capture=(info.name, LOGITS))
    count = classes or trace[LOGITS].shape[-1]
    head = _drawn(info, count, pooling, extra, start == "draws", seed)
    made = make(old.native, info, head)
    new = _wrapped(made, x.shape[1:]).model
    _check_cut(new, x[:1], trace[info.name], info)
    if start != "least-squares":
        return made
    features, scores = _pairs(old.model, new, x, labels, count)
    weight, bias = ridge(features, scores, ridge_strength)
    return make(old.native, info, Head(pooling, weight, bias, head.kernel))


def fitted(
    network: Any,
    data: Labelled,
    *,
    epochs: int = 5,
    rate: float = 1e-3,
    batch_size: int = 32,
    seed: int = 0,
    train: Literal["head", "all"] = "head",
    optimiser: Literal["adam", "sgd"] = "adam",
    validation: Labelled | None = None,
) -> Fitted:
    """Train a copy of a network on labelled inputs that fit into memory.

    It minimises the cross-entropy of the softmax of the scores.  Where only the head is trained,
    what comes before is computed once.

    Parameters
    ----------
    network : nn.Module, keras.Model or Network
        From one input to the scores of classes, without a softmax, such as `pooled` gives; it is
        never changed.  What is frozen in it stays frozen.
    data : tuple of ndarray
        Inputs as the network takes them, (N, H, W, C), channels last in every framework, and their
        classes, (N,) of int.
    epochs : int
        How often every sample is seen.
    rate : float
        The learning rate.
    batch_size : int
        How many samples a step is made of.
    seed : int
        Of the order of the samples, which NumPy draws and which is the same in every framework, and
        of the framework's own dropout.
    train : {"head", "all"}
        The layers that `pooled` added, or all layers.
    optimiser : {"adam", "sgd"}
        Adam with the usual moments, or plain gradient descent.
    validation : tuple of ndarray, optional
        Likewise, to measure the accuracy on after each epoch.

    Returns
    -------
    Fitted
        The trained copy, and the loss and the accuracy of each epoch.

    Raises
    ------
    UnsupportedModelError
        If the network cannot be copied or ends in a softmax; if the head is to be trained of a
        network that `pooled` did not make.
    ParameterError
        If an argument is out of its range.
    ArrayError
        If the data does not fit the network.

    References
    ----------
    Kingma and Ba, "Adam: a method for stochastic optimization", ICLR 2015.
    """
    if train not in ("head", "all") or optimiser not in ("adam", "sgd"):
        raise ParameterError(
            f"train is {train!r} and the optimiser is {optimiser!r}",
            "train of 'head' or 'all', and an optimiser of 'adam' or 'sgd'",
            "pass train='head' to keep the copied layers as they are",
        )
    if not (epochs >= 1 and rate > 0 and batch_size >= 1):
        raise ParameterError(
            f"epochs={epochs}, rate={rate} and batch_size={batch_size} were given",
            "at least 1, more than 0 and at least 1",
            "leave them out for 5 epochs at 0.001 in batches of 32",
        )
    x, y = _labelled(data)
    known = _wrapped(network, x.shape[1:])
    ends = known.model.forward(x[:1], capture=(LOGITS, OUTPUT))
    if not np.array_equal(ends[LOGITS], ends[OUTPUT]):
        raise UnsupportedModelError(
            "the network returns something else than scores",
            "a network that ends in its scores, without a softmax",
            "leave its last activation away; it is part of the loss",
        )
    classes = ends[LOGITS].shape[-1]
    pairs = [_checked(known.model, pair, classes) for pair in ((x, y), validation) if pair]
    training = Training(epochs, rate, batch_size, seed, train, optimiser)
    held = pairs[1] if len(pairs) > 1 else None
    made, record = _of_backend(known.native, "fitted")(known.native, pairs[0], held, training)
    return Fitted(made, tuple(record))


def _wrapped(network: Any, shape: tuple[int, ...] | None) -> Network:
    """Put a framework's network behind the protocol, with the shape of its input if need be."""
    known = wrap(network)
    if known.native is None:
        raise UnsupportedModelError(
            f"{type(network).__name__} is no framework's network",
            "an nn.Module or a keras.Model",
            "pass the network itself",
        )
    if len(known.model.inputs) != 1:
        raise UnsupportedModelError(
            f"the network has {len(known.model.inputs)} inputs",
            "a network of one input",
            "make a network of the branch with the convolutions",
        )
    (info,) = known.model.inputs.values()
    if shape is not None and info.shape != tuple(shape):
        known = wrap(known, input_shape=tuple(shape))
    return known


def _of_backend(native: Any, operation: str) -> Any:
    """Import what the backend of a network has for an operation."""
    spec = get_registry().backend_of(native)
    found: str | None = getattr(spec, operation)
    if found is None:
        raise MissingCapabilityError(
            f"the backend {spec.name!r} cannot make such a network",
            f"a backend that announces {operation!r}",
            "use a network of PyTorch or Keras",
        )
    return import_string(found)


def _sample(model: Model, start: str) -> Array:
    """Draw one input of the declared shape."""
    if start == "least-squares":
        raise ParameterError(
            "start='least-squares' was asked for without data",
            "data that the linear layer is fitted to",
            "pass data=x, or data=(x, classes)",
        )
    (info,) = model.inputs.values()
    sizes = [size for size in info.shape or () if size is not None]
    if info.shape is None or len(sizes) < len(info.shape):
        raise ParameterError(
            f"the shape of the network's input is {info.shape}, which says too little",
            "the shape (H, W, C) in numbers",
            "pass input_shape=(224, 224, 3), or data",
        )
    return np.random.default_rng(0).uniform(0, 1, (1, *sizes)).astype(info.dtype)


def _layer(model: Model, layer: str, x: Array) -> LayerInfo:
    """Find the layer behind which to cut."""
    info = resolve_layer(model, layer, x)
    if info.grid is None or info.prefix or len(info.shape) != len(info.grid) + 1:
        raise UnsupportedModelError(
            f"layer {info.name!r} gives the shape {info.shape}, which is no grid of channels",
            "a convolutional layer with an output of (h, w, channels)",
            "choose a convolutional layer; cnnviz.layers(model) shows each layer's grid",
        )
    return info


def _drawn(
    info: LayerInfo, classes: int, pooling: Pooling, extra: int, draws: bool, seed: int
) -> Head:
    """Draw the arrays of a head; the convolution's as He et al. do, ICCV 2015."""
    rng = np.random.default_rng(seed)
    channels, kernel = info.shape[-1], None
    if extra:
        size = (3,) * (len(info.shape) - 1)
        inputs = int(np.prod(size)) * channels
        kernel = rng.normal(0, np.sqrt(2 / inputs), (*size, channels, extra))
        channels = extra
    weight = rng.normal(0, 1 / np.sqrt(channels), (channels, classes))
    return Head(pooling, weight if draws else np.zeros_like(weight), np.zeros(classes), kernel)


def _check_cut(model: Model, x: Array, expected: Array, info: LayerInfo) -> None:
    """Check that the copied part computes what the network does up to the layer."""
    problem = f"the network cut behind layer {info.name!r} does not compute what the layer gives"
    wanted = "a forward pass of modules or layers that does the same for every input"
    remedy = "cut behind another layer; cnnviz.layers(model) lists them"
    try:
        found = model.forward(x, capture=(BODY,))[BODY]
    except Exception as error:  # whatever a framework raises where the channels are elsewhere
        raise UnsupportedModelError(f"{problem} ({error})", wanted, remedy) from error
    scale = max(float(np.abs(expected).max()), 1e-12)
    if expected.shape != found.shape or np.abs(expected - found).max() > _TOLERANCE * scale:
        raise UnsupportedModelError(problem, wanted, remedy)


def _pairs(
    old: Model, new: Model, x: Array, labels: Array | None, classes: int
) -> tuple[Array, Array]:
    """Give the pooled channels of samples, and the scores that the linear layer is to give."""
    features, scores = [], []
    for at in range(0, len(x), _BATCH):
        part = x[at : at + _BATCH]
        features.append(new.forward(part, capture=("pool",))["pool"].reshape(len(part), -1))
        if labels is None:
            scores.append(old.forward(part).logits)
    if labels is not None:
        _check_classes(labels, classes)
        return np.concatenate(features), np.eye(classes)[labels]
    if scores[0].shape[1:] != (classes,):
        raise ParameterError(
            f"classes={classes} was given, and the network has scores of shape "
            f"{scores[0].shape[1:]}",
            "as many classes as the network has, or labelled data",
            "leave classes out, or pass data=(x, classes of the samples)",
        )
    return np.concatenate(features), np.concatenate(scores)


def _labelled(data: Any) -> Labelled:
    """Check that there are two arrays with as many entries."""
    if not isinstance(data, tuple) or len(data) != 2:
        raise ArrayError(
            f"the data is a {type(data).__name__}",
            "a pair of inputs (N, H, W, C) and classes (N,)",
            "pass (x, y)",
        )
    x, y = map(np.asarray, data)
    if y.shape != (len(x),) or not len(x) or not np.issubdtype(y.dtype, np.integer):
        raise ArrayError(
            f"inputs of shape {x.shape} and classes of shape {y.shape} of {y.dtype} were given",
            "(N, H, W, C) and (N,) of whole numbers, with N of at least 1",
            "give one class for each input, as its number",
        )
    return x, y


def _checked(model: Model, pair: Any, classes: int) -> Labelled:
    """Check labelled inputs, and give them in the type in which the network computes."""
    x, y = _labelled(pair)
    (info,) = model.inputs.values()
    _check_classes(y, classes)
    return x.astype(info.dtype, copy=False), y


def _check_classes(labels: Array, classes: int) -> None:
    """Check that the numbers of classes are such."""
    if labels.min() < 0 or labels.max() >= classes:
        raise ArrayError(
            f"the classes go from {labels.min()} to {labels.max()}",
            f"from 0 to {classes - 1}",
            "number the classes from 0 on, in the order of the network's output",
        )
