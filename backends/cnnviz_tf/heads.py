"""Keras models with global pooling and a linear layer in the place of their head."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np

from cnnviz_core.errors import UnsupportedModelError
from cnnviz_core.heads import BODY, EPSILON, Epoch, Head, Training
from cnnviz_core.model import Array, LayerInfo

__all__ = ["fitted", "pooled"]


def pooled(native: keras.Model, layer: LayerInfo, head: Head) -> keras.Sequential:
    """Cut a copy of a model behind a layer, and put a head there.

    Parameters
    ----------
    native : keras.Model
        A functional or Sequential model of one input; it is not changed.
    layer : LayerInfo
        A layer that it calls once, which returns (N, ...grid, C); it may be inside another such
        model.
    head : Head
        What is put there.

    Returns
    -------
    keras.Sequential
        With the layers "body", "conv" and "relu" where the head has a kernel, "pool" and "linear".

    Raises
    ------
    UnsupportedModelError
        If the model is of another kind or cannot be copied, or the layer is called several times.
    """
    with _python_random():
        call = int(layer.name.removeprefix(layer.path).removeprefix("@") or 0)
        cut = _cut(native, layer.path, call)
        body = keras.Model(cut.inputs[0], cut.outputs[0], name=BODY)
        dtype = "float64" if body.outputs[0].dtype == "float64" else "float32"
        network = keras.Sequential([body, *_parts(head, len(layer.shape) - 1, dtype)])
    for name, arrays in (("conv", head.kernel), ("linear", head.weight)):
        if arrays is not None:
            bias = head.bias if name == "linear" else np.zeros(arrays.shape[-1])
            network.get_layer(name).set_weights([arrays, bias])
    return network


def _cut(model: Any, path: str, call: int) -> keras.Model:
    """Copy what a model computes up to the end of a layer's call, counted from 0."""
    calls: dict[str, list[tuple[Any, Any]]] = {}

    def note(layer: Any, *args: Any, **kwargs: Any) -> Any:
        """Call a layer of the copy, and note what it was given and what it made."""
        made = layer(*args, **kwargs)
        calls.setdefault(layer.name, []).append((args, made))
        return made

    twin = _copy(model, note)
    name, _, inside = path.partition("/")
    found = calls.get(name, [])
    if call >= len(found) or (inside and len(found) > 1):
        raise UnsupportedModelError(
            f"layer {name!r} is called {len(found)} times in the graph of {model.name!r}",
            "a layer of the graph, and inside other models one that is called once",
            "name another layer; cnnviz.layers(model) lists them",
        )
    args, made = found[0 if inside else call]
    if inside:
        made = _cut(model.get_layer(name), inside, call)(*args)
    return keras.Model(twin.inputs[0] if len(twin.inputs) == 1 else twin.inputs, made)


def _copy(model: Any, call: Any = None) -> keras.Model:
    """Copy a functional or Sequential model with its weights; `call` calls each of its layers."""
    try:
        graph = model if call is None else keras.Model(model.inputs, model.outputs)
        with _python_random():
            twin = keras.models.clone_model(graph, call_function=call)
            twin.set_weights(model.get_weights())
            return twin
    except MemoryError:
        raise
    except Exception as error:  # whatever Keras and a user's own layers raise
        raise UnsupportedModelError(
            f"the model cannot be copied ({type(error).__name__}: {error})",
            "a functional or Sequential model of Keras 3 that was built, and whose own layers tell "
            "all arguments of their constructor in get_config",
            "write its forward pass as a functional model: keras.Model(inputs, outputs)",
        ) from error


@contextmanager
def _python_random() -> Iterator[None]:
    """Put Python's random state back, of which Keras draws seeds for what it makes."""
    state = random.getstate()
    try:
        yield
    finally:
        random.setstate(state)


def _parts(head: Head, axes: int, dtype: str) -> Iterator[Any]:
    """Make the layers of a head for a grid of so many axes."""
    layers = keras.layers
    common = {"dtype": dtype}
    if head.kernel is not None:
        conv = getattr(layers, f"Conv{axes}D")
        *size, _, filters = head.kernel.shape
        yield conv(filters, size, padding="same", name="conv", **common)
        yield layers.ReLU(name="relu", **common)
    kind = {"average": "Average", "max": "Max"}[head.pooling]
    yield getattr(layers, f"Global{kind}Pooling{axes}D")(name="pool", **common)
    yield layers.Dense(head.weight.shape[1], name="linear", **common)


def fitted(
    native: keras.Model,
    samples: tuple[Array, Array],
    validation: tuple[Array, Array] | None,
    training: Training,
) -> tuple[keras.Model, list[Epoch]]:
    """Train a copy of a model with ``fit``.

    Parameters
    ----------
    native : keras.Model
        A functional or Sequential model from (N, ...grid, C) to the scores of classes; it is not
        changed.  Layers that are not trainable stay as they are.
    samples : tuple of ndarray
        (N, ...grid, C) and the classes, (N,) of int.
    validation : tuple of ndarray, or None
        Likewise.
    training : Training
        How.

    Returns
    -------
    keras.Model
    list of Epoch

    Raises
    ------
    UnsupportedModelError
        If the model is of another kind or cannot be copied, or its head is to be trained and it was
        not made by `pooled`.
    """
    with _python_random():
        random.seed(training.seed)  # of which the copy's dropout draws its own
        network = _copy(native)
        fixed, learning = _halves(network) if training.train == "head" else (None, network)
        x, y = _answered(fixed, samples, training.batch_size)
        held = None
        if validation is not None:
            held = _answered(fixed, validation, training.batch_size)
        optimiser = {"adam": keras.optimizers.Adam, "sgd": keras.optimizers.SGD}
        precise = {"epsilon": EPSILON} if training.optimiser == "adam" else {}
        learning.compile(
            optimiser[training.optimiser](training.rate, **precise),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
            jit_compile=False,
        )
        how = {"batch_size": training.batch_size, "verbose": 0}
        epochs = []
        for order in training.orders(len(y)):
            seen = learning.fit(x[order], y[order], shuffle=False, **how).history
            share = None
            if held is not None:
                share = learning.evaluate(*held, return_dict=True, **how)["accuracy"]
            epochs.append(Epoch(seen["loss"][0], seen["accuracy"][0], share))
        return network, epochs


def _halves(network: Any) -> tuple[keras.Model, keras.Model]:
    """Split a pooled network before the first layer of its head that has parameters."""
    if not isinstance(network, keras.Sequential) or network.layers[0].name != BODY:
        raise UnsupportedModelError(
            f"a {type(network).__name__} has no head of ours to train",
            "a network that cnnviz.heads.pooled made",
            "train all of it: train='all'",
        )
    layers = network.layers
    first = next(i for i, layer in enumerate(layers) if i and layer.weights)
    learning = keras.Sequential([keras.Input(layers[first].input.shape[1:]), *layers[first:]])
    return keras.Model(network.inputs[0], layers[first].input), learning


def _answered(
    network: keras.Model | None, samples: tuple[Array, Array], batch_size: int
) -> tuple[Array, Array]:
    """Give samples as they are, or what a network makes of them."""
    x, y = samples
    if network is not None:
        x = network.predict(x, batch_size=batch_size, verbose=0)
    return x, np.asarray(y, np.int64)
