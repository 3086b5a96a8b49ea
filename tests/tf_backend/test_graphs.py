"""Traces and pruned functions are made once, and serve many threads."""

from __future__ import annotations

import gc
import threading
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
import tensorflow as tf

from cnnviz_core.model import INPUT, LOGITS
from cnnviz_core.rules import DECONVNET, GUIDED, STANDARD
from cnnviz_tf import graph as graphs
from cnnviz_tf.model import wrap

L = keras.layers
CALLS: list[str] = []


class Counting(keras.Layer):
    """Tells how often its Python code runs."""

    def call(self, x):
        CALLS.append("call")
        return tf.nn.relu(x)


def network():
    net = keras.Sequential(
        [
            keras.Input((9, 7, 3)),
            L.Conv2D(4, 3, name="conv"),
            Counting(name="relu"),
            L.Conv2D(4, 3, activation="relu", name="last"),
            L.GlobalAveragePooling2D(),
            L.Dense(3),
        ]
    )
    CALLS.clear()
    return net


def test_one_trace_serves_every_call(rng):
    net = network()
    model = wrap(net)
    for n in (1, 2, 3):
        x = rng.normal(size=(n, 9, 7, 3))
        model.forward(x, capture=["conv"])
        model.forward(x, replace={"conv": np.zeros_like})
        for rule in (STANDARD, GUIDED, DECONVNET):
            model.pullback(x, np.ones_like, wrt=[INPUT, "conv"], rule=rule)
        assert model.layers
    assert len(CALLS) == 1


def test_the_second_call_builds_nothing(rng):
    model = wrap(network())
    x = rng.normal(size=(2, 9, 7, 3))

    def everything():
        model.forward(x, capture=["conv"])
        model.forward(x, replace={"conv": np.zeros_like})
        model.pullback(x, np.ones_like, wrt=["last"])
        model.pullback(x, np.zeros((2, 3)), wrt=["last"])
        model.pullback(x, np.ones_like, rule=GUIDED)

    everything()
    (graph,) = model._graphs.values()
    before = len(graph._functions), len(graph._function.graph.get_operations())
    for _ in range(3):
        everything()
    assert (len(graph._functions), len(graph._function.graph.get_operations())) == before


def test_refused_rules_do_not_grow_the_graph(rng):
    net = keras.Sequential([keras.Input((6,)), L.Dense(4, activation="gelu"), L.Dense(2)])
    model = wrap(net)
    model.forward(np.ones((1, 6)))
    (graph,) = model._graphs.values()
    before = len(graph._function.graph.get_operations())
    for _ in range(3):
        with pytest.raises(ValueError, match="no relu"):
            model.pullback(np.ones((1, 6)), np.ones_like, rule=GUIDED)
    assert len(graph._function.graph.get_operations()) == before


def test_only_what_follows_the_layer_is_differentiated(rng):
    """With respect to a late layer, nothing before it is in the backward pass."""
    model = wrap(network())
    x = rng.normal(size=(2, 9, 7, 3))

    def backward_ops(wrt):
        model.pullback(x, np.ones_like, wrt=wrt)
        (graph,) = model._graphs.values()
        pruned = graph._functions["pullback", LOGITS, tuple(wrt), None]
        return [op.type for op in pruned.graph.get_operations() if "Backprop" in op.type]

    assert backward_ops(["last"]) == []
    assert backward_ops([INPUT]) == ["Conv2DBackpropInput"] * 2
    types = {op.type for op in next(iter(model._graphs.values()))._function.graph.get_operations()}
    pruned = next(iter(model._graphs.values()))._functions["pullback", LOGITS, (INPUT,), None]
    assert "Conv2DBackpropFilter" in types  # TensorFlow builds it, pruning takes it away
    assert "Conv2DBackpropFilter" not in {op.type for op in pruned.graph.get_operations()}


def test_eight_threads_on_one_model(rng):
    net = network()
    inputs = rng.normal(size=(32, 2, 9, 7, 3)).astype(np.float32)
    nodes = ["conv", "relu", "last", INPUT]
    rules = [STANDARD, GUIDED]

    def work(model, i):
        rule = rules[(i // 4) % 2] if nodes[i % 4] != "last" else STANDARD
        back = model.pullback(inputs[i], lambda v: v * (i + 1), wrt=[nodes[i % 4]], rule=rule)
        return back.gradients[nodes[i % 4]], model.forward(inputs[i], capture=["conv"])["conv"]

    alone = wrap(net)
    expected = [work(alone, i) for i in range(32)]
    shared = wrap(net)
    start = threading.Barrier(8)

    def task(i):
        if i < 8:
            start.wait()
        return work(shared, i)

    with ThreadPoolExecutor(8) as pool:
        actual = list(pool.map(task, range(32)))
    for (g, v), (h, w) in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(g, h)
        np.testing.assert_array_equal(v, w)


def test_others_may_use_the_network_while_it_is_traced(rng):
    """Threads run the raw network, and wrap it, while it is being traced by others."""
    net = network()
    x = rng.normal(size=(2, 9, 7, 3)).astype(np.float32)
    expected = net(x).numpy()
    stop = threading.Event()
    wrong: list[object] = []

    def run_raw():
        while not stop.is_set():
            try:
                if not np.array_equal(net(x).numpy(), expected):
                    wrong.append("value")
            except Exception as error:
                wrong.append(error)

    raw = [threading.Thread(target=run_raw) for _ in range(2)]
    for thread in raw:
        thread.start()
    with ThreadPoolExecutor(4) as pool:
        results = list(
            pool.map(lambda _: wrap(net).forward(x, capture=["conv", "relu"]), range(12))
        )
    stop.set()
    for thread in raw:
        thread.join()
    assert wrong == []
    for trace in results:
        np.testing.assert_allclose(trace.output, expected, atol=1e-6)
    assert not any("call" in vars(layer) for layer in net._flatten_layers())


def test_a_cotangent_may_ask_the_model_again(rng):
    model = wrap(network())
    x = rng.normal(size=(2, 9, 7, 3))
    nested = model.pullback(x, lambda v: model.forward(x).logits)
    plain = model.pullback(x, model.forward(x).logits)
    np.testing.assert_array_equal(nested.gradients[INPUT], plain.gradients[INPUT])


def test_cotangents_run_in_the_callers_context(rng):
    import contextvars

    place = contextvars.ContextVar("place", default="elsewhere")
    place.set("here")
    seen = []
    wrap(network()).pullback(rng.normal(size=(2, 9, 7, 3)), lambda v: seen.append(place.get()) or v)
    assert seen == ["here"]
    assert not graphs._REQUESTS


def test_a_wrapped_model_is_let_go(rng):
    import weakref

    model = wrap(network())
    model.pullback(rng.normal(size=(1, 9, 7, 3)), np.ones_like)
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None
