"""ReLU rules: they reach every rectifier or are refused; they never silently do nothing."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from cnnviz_core.errors import RuleError
from cnnviz_core.model import INPUT, LOGITS
from cnnviz_core.rules import DECONVNET, GUIDED, STANDARD, BackwardRule
from cnnviz_core.steps import ReluStep
from cnnviz_tf import rules
from cnnviz_tf.model import wrap

L = keras.layers


def dense(*layers, size=6):
    """A small network around some layers, with weights that make signs of all kinds."""
    return keras.Sequential([keras.Input((size,)), L.Dense(8), *layers, L.Dense(3)])


def gradient(native, x, rule, weights=None):
    cotangent = np.ones_like if weights is None else weights
    return wrap(native).pullback(x, cotangent, rule=rule).gradients[INPUT]


@pytest.mark.parametrize(
    ("activation", "derivative"),
    [
        ("relu", lambda v: v > 0),
        ("relu6", lambda v: (v > 0) & (v < 6)),
        ("leaky_relu", lambda v: np.where(v > 0, 1, 0.2)),
    ],
)
def test_steps_equal_their_definition(activation, derivative, rng):
    """The four steps on one rectifier, against matrix products by hand."""
    native = dense(L.Activation(activation))
    x = rng.normal(size=(4, 6)).astype(np.float32) * 5
    first, *_, last = native.layers
    value = x @ first.kernel.numpy() + first.bias.numpy()
    g = rng.normal(size=(4, 3)).astype(np.float32)
    above = g @ last.kernel.numpy().T
    for gate in (True, False):
        for rectify in (True, False):
            step = above * derivative(value) if gate else above
            step = np.maximum(step, 0) if rectify else step
            rule = BackwardRule("any", {"relu": ReluStep(gate=gate, rectify=rectify)})
            actual = gradient(native, x, rule, g)
            np.testing.assert_allclose(actual, step @ first.kernel.numpy().T, rtol=0, atol=2e-5)


def test_the_registered_gradients_are_the_graphs_own(rng):
    """Every rectifier of the trace carries our gradient, and without a rule it is TensorFlow's."""
    native = dense(L.ReLU(), L.ReLU(6.0), L.LeakyReLU())
    model = wrap(native)
    model.forward(np.ones((1, 6)))
    (graph,) = model._graphs.values()
    found = {
        op.type: op.get_attr("_gradient_op_type").decode()
        for op in graph._function.graph.get_operations()
        if op.type in rules.OVERRIDES
    }
    assert found == rules.OVERRIDES
    x = np.array([[0.0] * 6, [1.0] * 6], np.float32)  # zero is a tie: TensorFlow's own convention
    tensor = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(tensor)
        total = tf.reduce_sum(native(tensor))
    np.testing.assert_array_equal(
        gradient(native, x, STANDARD), tape.gradient(total, tensor).numpy()
    )


@pytest.mark.parametrize("activation", ["gelu", "swish", "tanh", "elu", "mish"])
def test_smooth_activations_refuse_a_rule(activation, rng):
    native = dense(L.Activation(activation))
    x = rng.normal(size=(2, 6))
    assert gradient(native, x, STANDARD).any()
    with pytest.raises(RuleError, match="no relu"):
        gradient(native, x, GUIDED)


@pytest.mark.parametrize(
    "rectify",
    [
        lambda t: keras.ops.maximum(t, 0.0),
        lambda t: tf.where(t > 0, t, 0.0),
        lambda t: t * tf.cast(t > 0, t.dtype),
    ],
)
def test_hand_written_rectifiers_are_refused_where_there_is_no_other(rectify, rng):
    with pytest.raises(RuleError, match="no relu"):
        gradient(dense(L.Lambda(rectify)), rng.normal(size=(2, 6)), GUIDED)


@pytest.mark.parametrize(
    "layer",
    [
        lambda: L.PReLU(),
        lambda: L.PReLU(shared_axes=[1], alpha_initializer="ones"),
        lambda: L.ReLU(negative_slope=0.1, max_value=4.0),
        lambda: L.ReLU(negative_slope=0.1, max_value=4.0, threshold=0.5),
        lambda: L.ReLU(negative_slope=0.1, threshold=0.5),
    ],
)
def test_activations_made_of_two_rectifiers_are_refused(layer, rng):
    native = dense(layer())
    x = rng.normal(size=(2, 6))
    assert gradient(native, x, STANDARD).any()
    for rule in (GUIDED, DECONVNET):
        with pytest.raises(RuleError, match="PReLU"):
            gradient(native, x, rule)
        with pytest.raises(RuleError, match="PReLU"):
            gradient(dense(L.ReLU(), L.Dense(4), layer()), x, rule)


def test_two_rectifiers_that_are_no_prelu_are_fine(rng, eager_gradient):
    """Concatenated ReLU keeps both halves apart: each is a rectifier of its own."""
    native = dense(L.Lambda(lambda t: tf.concat([tf.nn.relu(t), tf.nn.relu(-t)], -1)))
    x = rng.normal(size=(2, 6)).astype(np.float32)
    for name, rule in (("guided", GUIDED), ("deconvnet", DECONVNET)):
        np.testing.assert_allclose(
            gradient(native, x, rule), eager_gradient(native, x, rule=name), atol=1e-6
        )


def test_a_clipped_rectifier_has_a_guided_but_no_deconvnet_step(rng):
    native = dense(L.ReLU(max_value=1.0))
    x = rng.normal(size=(3, 6)).astype(np.float32)
    first, _, last = native.layers
    value = x @ first.kernel.numpy()
    assert (value > 1).any()
    above = np.ones((3, 3), np.float32) @ last.kernel.numpy().T
    step = np.maximum(above * ((value > 0) & (value < 1)), 0)
    np.testing.assert_allclose(
        gradient(native, x, GUIDED), step @ first.kernel.numpy().T, rtol=0, atol=1e-5
    )
    with pytest.raises(RuleError, match="max_value"):
        gradient(native, x, DECONVNET)


def test_a_rectifier_outside_the_gradients_way_does_not_count(rng, eager_gradient):
    """It stands before the layer, beside the way, or behind a stopped gradient."""
    native = keras.Sequential(
        [
            keras.Input((6,)),
            L.Dense(8, activation="relu", name="early"),
            L.Dense(8, name="middle"),
            L.Lambda(lambda t: t + tf.stop_gradient(tf.nn.relu(t))),
            L.Dense(3),
        ]
    )
    model = wrap(native)
    x = rng.normal(size=(2, 6)).astype(np.float32)
    with pytest.raises(RuleError, match="no relu between '@logits' and 'early'"):
        model.pullback(x, np.ones_like, wrt=["early"], rule=GUIDED)
    weights = np.array([[1, -1, 1]] * 2, np.float32)
    actual = model.pullback(x, weights, rule=GUIDED).gradients[INPUT]
    expected = eager_gradient(native, x, rule="guided", weights=weights)
    assert expected.any()
    np.testing.assert_allclose(actual, expected, atol=1e-6)
    with pytest.raises(RuleError, match="no relu"):
        model.pullback(x, np.ones_like, of="middle", wrt=["middle"], rule=GUIDED)


def test_rectifiers_inside_a_loop_are_refused(rng):
    def loop(t):
        return tf.while_loop(lambda i, v: i < 3, lambda i, v: (i + 1, tf.nn.relu(v)), (0, t))[1]

    native = dense(L.ReLU(), L.Lambda(loop, output_shape=(8,)))
    assert gradient(native, rng.normal(size=(2, 6)), STANDARD).any()
    with pytest.raises(RuleError, match="cannot reach"):
        gradient(native, rng.normal(size=(2, 6)), GUIDED)


def recurrent(activation):
    x = keras.Input((6, 5))
    y = L.Conv1D(5, 3, activation="relu")(x)
    return keras.Model(x, L.Dense(3)(L.LSTM(4, activation=activation)(y)))


def test_rectifiers_before_a_loop_are_reached(rng):
    native, data = recurrent("tanh"), rng.normal(size=(2, 6, 5))
    plain, guided = gradient(native, data, STANDARD), gradient(native, data, GUIDED)
    assert np.abs(plain - guided).max() > 1e-3


def test_rectifiers_inside_a_recurrent_layer_are_refused(rng):
    native, data = recurrent("relu"), rng.normal(size=(2, 6, 5))
    assert gradient(native, data, STANDARD).any()
    with pytest.raises(RuleError, match="cannot reach"):
        gradient(native, data, GUIDED)


def test_rectifiers_behind_a_custom_gradient_are_refused(rng):
    @tf.custom_gradient
    def own(t):
        y = tf.nn.relu(t)
        return y, lambda g: g * tf.cast(y > 0, g.dtype)

    native = dense(L.ReLU(), L.Lambda(own))
    with pytest.raises(RuleError, match="cannot reach"):
        gradient(native, rng.normal(size=(2, 6)), GUIDED)


def test_conditions_are_reached(rng, eager_gradient):
    def condition(t):
        return tf.cond(tf.reduce_sum(t) > 1e9, lambda: tf.nn.relu(t) * 2, lambda: tf.nn.relu(t))

    native = dense(L.Lambda(condition, output_shape=(8,)))
    x = rng.normal(size=(2, 6)).astype(np.float32)
    for name, rule in (("standard", STANDARD), ("guided", GUIDED), ("deconvnet", DECONVNET)):
        np.testing.assert_allclose(
            gradient(native, x, rule), eager_gradient(native, x, rule=name), atol=1e-6
        )


def test_unknown_steps_are_refused(rng):
    model, x = wrap(dense(L.ReLU())), rng.normal(size=(2, 6))
    for steps in ({"conv": ReluStep(True, True)}, {"relu": "backwards"}):
        with pytest.raises(RuleError, match="step"):
            model.pullback(x, np.ones_like, rule=BackwardRule("odd", steps))


def test_rules_of_equal_steps_share_a_function(rng):
    model, x = wrap(dense(L.ReLU())), rng.normal(size=(2, 6))
    model.pullback(x, np.ones_like, rule=GUIDED)
    (graph,) = model._graphs.values()
    before = len(graph._functions)
    model.pullback(x, np.ones_like, rule=BackwardRule("mine", {"relu": ReluStep(True, True)}))
    assert len(graph._functions) == before


def test_no_rule_is_left_behind(rng):
    model, x = wrap(dense(L.Activation("gelu"))), rng.normal(size=(2, 6))
    with pytest.raises(RuleError):
        model.pullback(x, np.ones_like, rule=GUIDED)
    assert rules._RULE.get() is None
    assert model.pullback(x, np.ones_like, of=LOGITS).gradients[INPUT].any()


def test_a_script_may_register_a_guided_relu_of_its_own():
    """The name that every tutorial uses stays free."""

    @tf.RegisterGradient("GuidedRelu")
    def _own(op, g):
        return g


def test_a_reloaded_module_still_rules(rng):
    import importlib

    importlib.reload(rules)
    native = dense(L.ReLU())
    x = rng.normal(size=(2, 6))
    assert np.abs(gradient(native, x, GUIDED) - gradient(native, x, STANDARD)).max() > 1e-3
