"""How often a network is traced, and how long what was traced is kept."""

from __future__ import annotations

import gc
import weakref

import keras
import numpy as np
import pytest

from cnnviz_core.model import INPUT, LOGITS, OUTPUT
from cnnviz_core.rules import GUIDED, STANDARD
from cnnviz_tf import graph as graph_module
from cnnviz_tf import model as model_module
from cnnviz_tf.model import wrap

L = keras.layers


@pytest.fixture
def counts(monkeypatch):
    """How many traces there were, and how many functions were cut out of them."""
    made = {"traces": 0, "functions": 0}
    trace, prune = model_module.trace, graph_module.Graph._prune

    def traced(*args):
        made["traces"] += 1
        return trace(*args)

    def pruned(*args):
        made["functions"] += 1
        return prune(*args)

    monkeypatch.setattr(model_module, "trace", traced)
    monkeypatch.setattr(graph_module.Graph, "_prune", pruned)
    return made


def layers():
    return [
        L.Conv2D(4, 3, activation="relu", name="one"),
        L.Conv2D(4, 3, activation="relu", name="two"),
        L.GlobalAveragePooling2D(name="pool"),
        L.Dense(3, name="head"),
    ]


class Subclassed(keras.Model):
    """A network that does not say what it takes."""

    def __init__(self):
        super().__init__()
        self.steps = layers()

    def call(self, x):
        for step in self.steps:
            x = step(x)
        return x


class ReadsItsSize(Subclassed):
    """One whose code decides by the picture's size."""

    def call(self, x):
        return super().call(x) * (2.0 if x.shape[1] == 16 else 1.0)


class NeedsItsSize(Subclassed):
    """One whose code cannot run without the picture's size."""

    def call(self, x):
        return super().call(x) * float(x.shape[1] // 8)


def functional():
    return keras.Sequential([keras.Input((None, None, 3)), *layers()])


def made(build):
    native = build()
    native(np.zeros((1, 16, 16, 3), np.float32))
    return native


def pictures(n, height=16, width=16, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, height, width, 3)).astype("float32")


def first_class(value):
    return np.eye(1, value.shape[1], dtype=value.dtype).repeat(len(value), 0)


def test_one_function_for_each_layer_and_rule(counts):
    """Neither repeated calls, ragged batches, sizes, cotangents nor targets make another one."""
    model = wrap(functional())
    for layer, rule in [(INPUT, STANDARD), ("one", STANDARD), ("two", STANDARD), ("one", GUIDED)]:
        before = counts["functions"]
        for n, height, width in [(4, 16, 16), (4, 16, 16), (3, 16, 16), (1, 20, 31), (2, 9, 12)]:
            x = pictures(n, height, width)
            model.pullback(x, first_class, wrt=(layer,), rule=rule)
            model.pullback(x, np.ones((n, 3), np.float32), wrt=(layer,), rule=rule)
        assert counts["functions"] - before == 1, (layer, rule)
    assert counts["traces"] == 1


def test_one_function_for_each_set_of_nodes(counts):
    model = wrap(functional())
    for n in (4, 3, 4):
        model.forward(pictures(n))
        model.forward(pictures(n, 12, 13), capture=("two",))
        model.forward(pictures(n), replace={"one": np.zeros((n, 14, 14, 4), np.float32)})
    # The fourth tells the shape that a replacement must have, where the graph leaves it open.
    assert counts == {"traces": 1, "functions": 4}


def test_repeated_rows_need_two_functions_more(counts):
    """One for what the rows have in common, and one for the rest."""
    model = wrap(functional())
    for n in (5, 3, 7):
        model.pullback(pictures(n), first_class, wrt=("two",))
        model.pullback(pictures(1).repeat(n, 0), first_class, wrt=("two",))
    assert counts == {"traces": 1, "functions": 3}


SIZES = [(16, 16), (16, 20), (24, 18), (16, 16), (31, 17), (20, 20)]


def test_a_network_that_does_not_say_its_size_is_traced_twice(counts):
    """Once for the size that comes first, and once for all others."""
    native = made(Subclassed)
    model = wrap(native)
    for height, width in SIZES:
        x = pictures(2, height, width)
        found = model.pullback(x, first_class, wrt=("two",))
        np.testing.assert_allclose(found.values[OUTPUT], native(x), rtol=1e-5, atol=1e-6)
        assert found.gradients["two"].shape == (2, height - 4, width - 4, 4)
    assert counts["traces"] == 2


@pytest.mark.parametrize("build", [ReadsItsSize, NeedsItsSize])
def test_a_network_whose_code_asks_for_the_size_is_traced_for_each(counts, build):
    native = made(build)
    model = wrap(native)
    for height, width in SIZES:
        x = pictures(2, height, width)
        expected = native(x)
        np.testing.assert_allclose(model.forward(x).output, expected, rtol=1e-5, atol=1e-6)
    before = counts["traces"]
    assert before <= len(set(SIZES)) + 2  # in vain for all sizes
    for height, width in SIZES:
        model.forward(pictures(3, height, width))
    assert counts["traces"] == before


def test_what_is_kept_is_bounded(monkeypatch, counts):
    monkeypatch.setattr(model_module, "_SIZES", 2)
    monkeypatch.setattr(graph_module, "_FUNCTIONS", 3)
    model = wrap(made(NeedsItsSize))
    for height, width in SIZES:
        for node in ("one", "two", "pool", LOGITS):
            model.forward(pictures(1, height, width), capture=(node,))
    assert len(model._graphs) == 2
    assert all(len(graph._functions) <= 3 for graph in model._graphs.values())


def test_a_graph_to_which_much_was_added_is_traced_anew(monkeypatch, counts):
    """Nothing can be taken from a graph again, so it gives way to a fresh one."""
    monkeypatch.setattr(graph_module, "_PROGRAMS", 3)
    model, x = wrap(functional()), pictures(2)
    results = [
        model.pullback(x, first_class, wrt=(node,)).gradients[node]
        for node in ("one", "two", "pool", "one", "two", INPUT, "one")
    ]
    assert counts["traces"] == 3
    np.testing.assert_array_equal(results[0], results[3])
    np.testing.assert_array_equal(results[0], results[6])


def test_traces_go_with_the_model():
    """Nothing else holds what was traced, nor does a trace hold the network."""
    native = functional()
    model = wrap(native)
    model.pullback(pictures(2), first_class, wrt=("one",))
    model.pullback(pictures(1).repeat(3, 0), first_class, wrt=("one",))
    (graph,) = model._graphs.values()
    held = [weakref.ref(graph), weakref.ref(graph._function.graph)]
    held += [weakref.ref(function.graph) for function in graph._functions.values()]
    held += [weakref.ref(native)]
    del model, graph, native
    keras.backend.clear_session()
    gc.collect()
    assert [ref() for ref in held] == [None] * len(held)
