"""A prepared model gives what the model gives, by fewer operations, and touches nothing."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from cnnviz_core.blended import Blended
from cnnviz_core.fast import MANY, prepared
from cnnviz_core.mask_forms import Drawn
from cnnviz_core.model import INPUT, PREPARE
from cnnviz_core.testing.nets import NETS, random_input
from cnnviz_tf.build import build
from cnnviz_tf.model import PreparedModel, wrap

L = keras.layers


def randomised(native, seed=0):
    """Give every weight values of either sign, and variances above zero."""
    rng = np.random.default_rng(seed)
    for weight in native.weights:
        values = rng.normal(size=weight.shape) * 0.5
        weight.assign(np.abs(values) + 0.5 if "variance" in weight.path else values)
    return native


def network(dtype="float64", size=(None, None)):
    """Normalised convolutions with and without a bias, depthwise, dilated; and a dense layer."""
    keras.config.set_floatx(dtype)
    try:
        x = keras.Input((*size, 3))
        a = L.BatchNormalization(name="norm")(L.Conv2D(6, 3, padding="same", name="conv")(x))
        a = L.ReLU(max_value=6, name="relu")(a)
        b = L.DepthwiseConv2D(3, padding="same", use_bias=False, depth_multiplier=2)(a)
        b = L.ReLU()(L.BatchNormalization(scale=False)(b))
        b = L.Conv2D(6, 1, use_bias=False, name="project")(b)
        b = L.BatchNormalization(name="linear", center=False)(b)
        c = L.Add(name="add")([a, b])
        c = L.Conv2D(6, 3, padding="same", dilation_rate=2, name="dilated")(c)
        c = L.ReLU(name="last")(L.BatchNormalization()(c))
        d = L.Dense(7, name="dense")(L.GlobalAvgPool2D()(c))
        d = L.BatchNormalization(name="dense_norm")(d)
        return randomised(keras.Model(x, L.Dense(4, activation="softmax", name="head")(d)))
    finally:
        keras.config.set_floatx("float32")


def pictures(n, height=12, width=10, dtype="float64"):
    return np.random.default_rng(n).normal(size=(n, height, width, 3)).astype(dtype)


def agree(found, expected, rtol):
    assert found.keys() == expected.keys()
    for node, value in expected.items():
        atol = rtol * np.abs(value).max()
        np.testing.assert_allclose(found[node], value, rtol=0, atol=atol, err_msg=node)


def program(model):
    """The operations, but for those on sizes, of the folded program of a model's only graph."""
    (graph,) = model._graphs.values()
    (function,) = (f for key, f in graph._functions.items() if key[0] == "folded")
    ops = function.graph.get_operations()
    return [op.type for op in ops if any(t.dtype.is_floating for t in op.outputs)]


@pytest.mark.parametrize(("dtype", "rtol"), [("float32", 1e-5), ("float64", 1e-13)])
def test_it_gives_the_same_values_on_any_batch(dtype, rtol):
    """Also of ragged batches, other sizes, and at nodes that are folded away for others."""
    model = wrap(network(dtype))
    fast = model.prepared(pictures(2, dtype=dtype))
    assert isinstance(fast, PreparedModel)
    for capture in [(), ("last",), ("norm", "project"), ("conv", "linear", "dense"), (INPUT,)]:
        for x in (pictures(4, dtype=dtype), pictures(3, 9, 14, dtype), pictures(1, dtype=dtype)):
            expected = model.forward(x, capture=capture)
            agree(fast.forward(x, capture=capture).values, expected.values, rtol)


def test_normalisation_is_gone():
    """Of five normalised layers none has more than a convolution or product, and a bias."""
    model = wrap(network())
    model.prepared(pictures(2))
    types = program(model)
    assert types.count("BiasAdd") == 6
    assert not {"Rsqrt", "Sub"} & set(types)
    assert types.count("Mul") + types.count("AddV2") == 1  # the residual sum


@pytest.mark.parametrize("name", sorted(NETS))
def test_every_kind_of_network_can_be_prepared(name):
    net = NETS[name]()
    model = wrap(build(net, dtype="float64"))
    x = random_input(net, 3)
    agree(model.prepared(x).forward(x).values, model.forward(x).values, 1e-13)


def test_it_is_the_model_itself_where_nothing_can_be_folded(rng):
    native = keras.Sequential([keras.Input((8, 8, 3)), L.Conv2D(4, 3), L.ReLU(), L.Flatten()])
    model = wrap(native)
    assert model.prepared(rng.normal(size=(1, 8, 8, 3))) is model


class Draws(L.Layer):
    """Adds noise."""

    def call(self, x):
        return x + tf.random.uniform(tf.shape(x))


def test_it_is_the_model_itself_where_the_network_is_random(rng):
    layers = [L.Conv2D(4, 3), L.BatchNormalization(), Draws(), L.Flatten(), L.Dense(2)]
    model = wrap(keras.Sequential([keras.Input((8, 8, 3)), *layers]))
    assert model.prepared(rng.normal(size=(1, 8, 8, 3))) is model


def test_grouped_convolutions_work_in_either_way(rng):
    layers = [L.Conv2D(8, 3, groups=4), L.BatchNormalization(), L.ReLU(), L.Flatten(), L.Dense(2)]
    native = randomised(keras.Sequential([keras.Input((8, 8, 8)), *layers]))
    model, x = wrap(native), rng.normal(size=(3, 8, 8, 8))
    agree(model.prepared(x).forward(x).values, model.forward(x).values, 1e-5)


def test_new_weights_are_seen_by_the_next_one():
    """It is built once: another one only folds the weights anew."""
    native = network()
    model, x = wrap(native), pictures(2)
    first = model.prepared(x)
    before = first.forward(x)
    (graph,) = model._graphs.values()
    functions = list(graph._functions)
    randomised(native, seed=5)
    agree(model.prepared(x).forward(x).values, wrap(native).forward(x).values, 1e-13)
    assert list(graph._functions) == functions
    assert not np.allclose(model.forward(x).output, before.output)


def test_the_network_is_not_changed():
    native = network()
    weights = native.get_weights()
    wrap(native).prepared(pictures(2)).forward(pictures(3))
    for one, other in zip(native.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_copy_is_prepared_with_its_own_weights():
    model, x = wrap(network()), pictures(2)
    kernel = model.parameters("conv")["weight"]
    copied = model.copied({"conv": {"weight": -kernel}})
    model.prepared(x)
    fast = copied.prepared(x)
    assert isinstance(fast, PreparedModel)
    agree(fast.forward(x).values, copied.forward(x).values, 1e-13)


def test_what_it_does_not_do_faster_is_the_models():
    model, x = wrap(network()), pictures(3)
    fast = model.prepared(x)
    assert PREPARE in model.capabilities
    assert fast.capabilities == model.capabilities - {PREPARE}
    assert fast.layers == model.layers
    new = {"add": np.zeros((3, 12, 10, 6))}
    agree(fast.forward(x, replace=new).values, model.forward(x, replace=new).values, 1e-13)
    found, expected = (m.pullback(x, np.ones_like, wrt=("last", INPUT)) for m in (fast, model))
    agree(found.gradients, expected.gradients, 1e-13)


def test_described_batches_are_made_where_it_computes(rng):
    model, x = wrap(network()), pictures(1)[0]
    batch = Blended(x, Drawn(rng.random(size=(5, 12, 10))), np.zeros(3))
    agree(
        model.prepared(x[None]).forward(batch).values,
        model.forward(np.asarray(batch)).values,
        1e-13,
    )


def test_core_prepares_where_many_samples_follow(monkeypatch):
    model, x = wrap(network()), pictures(2)
    few, many = MANY, 1000  # a graph takes longer to make than a list of operations
    assert prepared(model, x, few) is model
    assert isinstance(prepared(model, x, many), PreparedModel)
    monkeypatch.setenv("CNNVIZ_FAST", "0")
    assert prepared(model, x, many) is model
