"""Exported networks: their graphs are flattened, so that layers and rules are in sight."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from cnnviz_core.errors import (
    ArrayError,
    MissingCapabilityError,
    RuleError,
    UnknownLayerError,
    UnsupportedModelError,
)
from cnnviz_core.model import INPUT
from cnnviz_core.rules import DECONVNET, GUIDED, RULE_KINDS, STANDARD
from cnnviz_tf import inline
from cnnviz_tf.accepts import accepts
from cnnviz_tf.model import wrap

L = keras.layers
RULES = [STANDARD, GUIDED, DECONVNET]


class Jitted(keras.Layer):
    @tf.function(jit_compile=True)
    def call(self, x):
        return tf.nn.relu(x) * 2


class Branching(keras.Layer):
    """Needs AutoGraph, so it stays a call in the trace."""

    @tf.function
    def call(self, x):
        if tf.reduce_sum(x) > 1e9:
            x = x + 1
        return tf.nn.relu(x)


class Conditional(keras.Layer):
    def call(self, x):
        return tf.cond(tf.reduce_sum(x) > 1e9, lambda: tf.nn.relu(x) * 2, lambda: tf.nn.relu(x))


def network(*layers, shape=(9, 7, 3)):
    return keras.Sequential(
        [
            keras.Input(shape),
            L.Conv2D(4, 3, activation="relu", name="conv"),
            *layers,
            L.DepthwiseConv2D(3, name="depthwise"),
            L.GlobalAveragePooling2D(name="pool"),
            L.Dense(3, activation="softmax", name="head"),
        ]
    )


NETWORKS = {
    "plain": lambda: network(L.ReLU(6.0)),
    "norm": lambda: network(L.BatchNormalization(), L.LeakyReLU()),
    "grouped": lambda: network(L.Conv2D(4, 3, groups=2, activation="relu")),
    "jitted": lambda: network(Jitted()),
    "branching": lambda: network(Branching()),
    "conditional": lambda: network(Conditional()),
    "dynamic": lambda: network(L.ReLU(), shape=(None, None, 3)),
}


def exported(native, folder):
    native.export(folder, verbose=False)
    return tf.saved_model.load(str(folder))


def saved(native, folder):
    tf.saved_model.save(native, str(folder))
    return tf.saved_model.load(str(folder))


def signature(native, folder):
    loaded = exported(native, folder)
    function = loaded.signatures["serving_default"]
    function.loaded = loaded  # a bare function does not keep its variables
    return function


def layer(native, folder):
    native.export(folder, verbose=False)
    return keras.Sequential(
        [keras.Input(native.input_shape[1:]), keras.layers.TFSMLayer(folder, call_endpoint="serve")]
    )


@pytest.mark.parametrize("route", [exported, saved, signature, layer])
@pytest.mark.parametrize("kind", NETWORKS)
def test_equal_to_the_network_that_was_saved(kind, route, rng, tmp_path):
    native = NETWORKS[kind]()
    x = rng.normal(size=(3, 9, 7, 3)).astype(np.float32)
    weights = rng.normal(size=(3, 3)).astype(np.float32)
    loaded = route(native, tmp_path)
    assert accepts(loaded)
    original, model = wrap(native), wrap(loaded)
    expected, actual = original.forward(x), model.forward(x)
    np.testing.assert_allclose(actual.output, expected.output, atol=1e-6)
    np.testing.assert_allclose(actual.logits, expected.logits, atol=1e-6)
    for rule in RULES:
        g = original.pullback(x, weights, rule=rule).gradients[INPUT]
        h = model.pullback(x, weights, rule=rule).gradients[INPUT]
        np.testing.assert_allclose(h, g, rtol=0, atol=1e-6 * np.abs(g).max())


@pytest.mark.parametrize("kind", ["jitted", "branching", "conditional"])
def test_functions_inside_a_keras_model_obey_rules(kind, rng):
    """The oracle is the same network with the function's one rectifier in plain sight."""
    native = NETWORKS[kind]()
    factor = 2.0 if kind == "jitted" else 1.0
    plain = network(L.Lambda(lambda t: tf.nn.relu(t) * factor))
    plain.set_weights(native.get_weights())
    x = rng.normal(size=(2, 9, 7, 3)).astype(np.float32)
    weights = rng.normal(size=(2, 3)).astype(np.float32)
    for rule in RULES:
        g = wrap(plain).pullback(x, weights, rule=rule).gradients[INPUT]
        h = wrap(native).pullback(x, weights, rule=rule).gradients[INPUT]
        np.testing.assert_allclose(h, g, rtol=0, atol=1e-6 * np.abs(g).max())


def test_operations_are_layers(rng, tmp_path):
    native = network()
    model = wrap(exported(native, tmp_path))
    x = rng.normal(size=(2, 9, 7, 3)).astype(np.float32)
    layers = model.layers
    types = [info.type for info in layers.values()]
    main = ["Conv2D", "Relu", "DepthwiseConv2dNative", "Mean", "MatMul", "Softmax"]
    assert [name for name in types if name in main] == main
    assert next(iter(layers)).startswith("conv")
    assert next(iter(layers.values())).kind == "conv"
    relu = next(name for name, info in layers.items() if info.kind == "relu")
    assert layers[relu].grid == (7, 5)
    trace = model.forward(x, capture=[relu])
    np.testing.assert_allclose(trace[relu], native.get_layer("conv")(x).numpy(), atol=1e-6)
    changed = model.forward(x, replace={relu: np.zeros_like})
    head = native.get_layer("head")
    zero = native.get_layer("depthwise")(np.zeros((2, 7, 5, 4), np.float32))
    np.testing.assert_allclose(
        changed.output, head(native.get_layer("pool")(zero)).numpy(), atol=1e-6
    )
    grads = model.pullback(x, np.ones_like, wrt=[relu]).gradients[relu]
    expected = wrap(native).pullback(x, np.ones_like, wrt=["conv"]).gradients["conv"]
    np.testing.assert_allclose(grads, expected, atol=1e-7)


def test_what_an_exported_network_does_not_offer(tmp_path):
    model = wrap(exported(network(), tmp_path))
    offered = {"blend", "capture", "replace", "gradient", "curvature", "geometry", "prepare"}
    assert model.capabilities == offered | {f"rule:{kind}" for kind in RULE_KINDS}
    with pytest.raises(MissingCapabilityError, match="Keras"):
        model.parameters("conv")
    with pytest.raises(UnknownLayerError, match="conv"):
        model.forward(np.zeros((1, 9, 7, 3)), capture=["conv2"])


def test_a_swish_has_its_own_derivative_after_loading(rng, tmp_path):
    """Its custom gradient refers to a graph that is gone; the plain derivative is the same."""
    native = network(L.Activation("swish"))
    x = rng.normal(size=(2, 9, 7, 3)).astype(np.float32)
    g = wrap(native).pullback(x, np.ones_like).gradients[INPUT]
    h = wrap(exported(native, tmp_path)).pullback(x, np.ones_like).gradients[INPUT]
    np.testing.assert_allclose(h, g, rtol=0, atol=1e-6 * np.abs(g).max())


def test_loops_keep_their_gradient(rng, tmp_path):
    x = keras.Input((6, 5))
    native = keras.Model(x, L.Dense(3)(L.LSTM(4)(L.Conv1D(5, 3, activation="relu")(x))))
    data = rng.normal(size=(2, 6, 5)).astype(np.float32)
    model = wrap(exported(native, tmp_path))
    assert "conv" in {info.kind for info in model.layers.values()}
    for rule in RULES:
        g = wrap(native).pullback(data, np.ones_like, rule=rule).gradients[INPUT]
        h = model.pullback(data, np.ones_like, rule=rule).gradients[INPUT]
        np.testing.assert_allclose(h, g, rtol=0, atol=1e-6 * np.abs(g).max())


def test_the_loaded_object_need_not_be_kept(rng, tmp_path):
    model = wrap(exported(network(), tmp_path))
    assert np.isfinite(model.forward(rng.normal(size=(1, 9, 7, 3))).output).all()


def test_where_flattening_fails_all_but_rules_and_layers_works(rng, tmp_path, monkeypatch):
    native = network(Jitted())
    x = rng.normal(size=(2, 9, 7, 3)).astype(np.float32)

    def fails(*_):
        raise AttributeError("no such interface in this TensorFlow")

    monkeypatch.setattr(inline, "_inlined", fails)
    model = wrap(exported(native, tmp_path))
    np.testing.assert_allclose(model.forward(x).output, native(x).numpy(), atol=1e-6)
    assert model.pullback(x, np.ones_like, of="@output").gradients[INPUT].shape == x.shape
    with pytest.raises(RuleError, match="cannot reach"):
        model.pullback(x, np.ones_like, of="@output", rule=GUIDED)


# ---------------------------------------------------------------- modules and functions


class Module(tf.Module):
    """A network without Keras."""

    def __init__(self, signature=None):
        super().__init__()
        rng = np.random.default_rng(1)
        self.kernel = tf.Variable(rng.normal(size=(3, 3, 3, 4)).astype(np.float32))
        self.matrix = tf.Variable(rng.normal(size=(4, 2)).astype(np.float32))
        self.function = tf.function(self._call, input_signature=signature)

    def _call(self, x):
        maps = tf.nn.relu(tf.nn.conv2d(x, self.kernel, 1, "VALID"), name="maps")
        return tf.reduce_mean(maps, [1, 2]) @ self.matrix

    def __call__(self, x, training=True):
        assert not training
        return self._call(x)


def expected(module, x):
    return module._call(tf.constant(x)).numpy()


def test_a_module_and_its_functions(rng, tmp_path):
    spec = [tf.TensorSpec([None, 9, 7, 3])]
    module = Module(spec)
    x = rng.normal(size=(2, 9, 7, 3)).astype(np.float32)
    concrete = module.function.get_concrete_function()
    tf.saved_model.save(module, str(tmp_path), signatures=None)
    loaded = tf.saved_model.load(str(tmp_path))
    gradients = []
    for native in (module, module.function, concrete, Module().function, loaded):
        assert accepts(native)
        model = wrap(native)
        assert model.framework == "tensorflow"
        np.testing.assert_allclose(model.forward(x).output, expected(module, x), atol=1e-5)
        gradients.append(model.pullback(x, np.ones_like, rule=GUIDED).gradients[INPUT])
        relu = next(name for name, info in model.layers.items() if info.kind == "relu")
        assert model.layers[relu].shape == (7, 5, 4)
    for other in gradients[1:]:
        np.testing.assert_allclose(other, gradients[0], atol=1e-6)


def test_a_function_without_signature_needs_a_shape_or_an_example(rng):
    model = wrap(Module().function)
    for attribute in ("layers", "activation"):
        with pytest.raises(ArrayError, match="input_shape"):
            getattr(model, attribute)
    assert wrap(Module().function, input_shape=(9, 7, 3)).layers
    model.forward(rng.normal(size=(2, 9, 7, 3)))
    assert model.layers
    assert model.activation == "softmax"


def test_calling_does_not_trace_the_users_function():
    module = Module()
    wrap(module.function).forward(np.zeros((1, 9, 7, 3)))
    assert module.function.experimental_get_tracing_count() == 0


def test_a_fixed_batch_is_said(rng):
    module = Module([tf.TensorSpec([2, 9, 7, 3])])
    model = wrap(module.function)
    x = rng.normal(size=(2, 9, 7, 3)).astype(np.float32)
    np.testing.assert_allclose(model.forward(x).output, expected(module, x), atol=1e-5)
    assert model.layers
    with pytest.raises(ArrayError, match="batches of 2"):
        model.forward(x[:1])


def test_what_cannot_be_called_is_refused(tmp_path):
    tf.saved_model.save(tf.Module(), str(tmp_path))
    with pytest.raises(UnsupportedModelError, match="signature"):
        wrap(tf.saved_model.load(str(tmp_path)))
    with pytest.raises(UnsupportedModelError, match="cannot be called"):
        wrap(tf.Module())
    assert not accepts(object())
    assert not accepts(np.ones(3))
    assert not accepts(tf.constant(1.0))
