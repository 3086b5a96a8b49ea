"""Rules of relevance: the backend obeys them as the reference model does, in any spelling."""

from __future__ import annotations

from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf

from cnnviz_core import steps
from cnnviz_core.errors import RuleError
from cnnviz_core.model import INPUT, LOGITS, OUTPUT
from cnnviz_core.rules import RULE_KINDS, STANDARD, BackwardRule, relevance_rule
from cnnviz_core.steps import DERIVATIVE, PASS, ReluStep
from cnnviz_core.testing.nets import NETS, random_input
from cnnviz_core.testing.reference import ReferenceModel
from cnnviz_tf import derivative
from cnnviz_tf.build import build
from cnnviz_tf.model import wrap

L = keras.layers

EPSILON, PLUS, GAMMA = steps.epsilon(0.1), steps.z_plus(), steps.gamma()
RULES = {
    "z-plus, epsilon, z-box": relevance_rule(
        "one", PLUS, EPSILON, first=steps.z_box(), last=steps.w_square()
    ).bounded([-3.0], [3.0]),
    "alpha-beta, zero, flat": relevance_rule(
        "two", steps.alpha_beta(), steps.epsilon(0), first=steps.flat(), last=GAMMA
    ),
    "gamma, w-square, no bias": relevance_rule(
        "three", GAMMA, steps.w_square(), shared=PLUS
    ).without_bias(),
}
MORE_RULES = {
    "flat": relevance_rule("four", steps.flat(), shared=steps.flat(0.01)),
    "derivatives": BackwardRule("five", {"conv": PLUS, "batchnorm": DERIVATIVE}),
}
COMPOSITE = relevance_rule("epsilon-plus", PLUS, EPSILON)


def marked(rule):
    return replace(rule, unknown="mark")


def randomised(native, seed=0):
    """Give every weight of a Keras model values of either sign, and variances above zero."""
    rng = np.random.default_rng(seed)
    for weight in native.weights:
        values = rng.normal(size=weight.shape) * 0.5
        weight.assign(np.abs(values) + 0.5 if "variance" in weight.path else values)
    return native


def sequential(*layers, shape=(6, 7, 3), dtype="float64"):
    keras.config.set_floatx(dtype)
    try:
        return randomised(keras.Sequential([keras.Input(shape), *(make() for make in layers)]))
    finally:
        keras.config.set_floatx("float32")


def small():
    """A network of one block and a head."""
    return sequential(
        lambda: L.Conv2D(4, 3), L.BatchNormalization, L.ReLU, L.MaxPooling2D, lambda: L.Conv2D(2, 1)
    )


def relevance(native, x, rule, *wrt, of=LOGITS, seed=1):
    """The relevance at nodes, for a random relevance at the top."""

    def given(value):
        return np.random.default_rng(seed).normal(size=value.shape)

    found = wrap(native).pullback(x, given, of=of, wrt=wrt or (INPUT,), rule=rule).gradients
    return found[INPUT] if not wrt else [found[node] for node in wrt]


def close(actual, expected, rtol=1e-9):
    scale = np.abs(expected).max()
    np.testing.assert_allclose(actual, expected, rtol=0, atol=rtol * scale)


def different(actual, expected):
    assert np.abs(actual - expected).max() > 1e-3 * np.abs(expected).max()


# ---------------------------------------------------------------- the reference


@pytest.mark.parametrize("name", NETS)
def test_it_agrees_with_the_reference(name):
    """At the input and at every layer, under every step that there is."""
    net = NETS[name]()
    reference, model = ReferenceModel(net, "float64"), wrap(build(net, dtype="float64"))
    x = {key: value.astype(np.float64) for key, value in random_input(net).items()}
    weights = np.random.default_rng(1).normal(size=model.forward(x).values[LOGITS].shape)
    heads = ("softmax", "sigmoid")
    wrt = [INPUT, *(n for n in reference.layers if n in model.layers and n not in heads)]
    more = MORE_RULES.values() if name in ("strided", "residual", "swish") else ()
    for rule in map(marked, (*RULES.values(), *more)):
        ours = model.pullback(x, weights, wrt=wrt, rule=rule)
        theirs = reference.pullback(x, weights, wrt=wrt, rule=rule)
        assert bool(ours.unruled) == bool(theirs.unruled)
        for node in wrt:  # behind a layer norm, what cancels out is nothing but rounding
            scale = np.abs(theirs.gradients[node]).max()
            np.testing.assert_allclose(
                ours.gradients[node], theirs.gradients[node], rtol=0, atol=1e-9 * scale + 1e-15
            )


def test_it_starts_and_ends_at_inner_layers():
    net = NETS["residual"]()
    reference, model = ReferenceModel(net, "float64"), wrap(build(net, dtype="float64"))
    x = {key: value.astype(np.float64) for key, value in random_input(net).items()}
    weights = np.random.default_rng(1).normal(
        size=model.forward(x, capture=["add2"]).values["add2"].shape
    )
    rule = replace(COMPOSITE, last={"conv": GAMMA})
    ours = model.pullback(x, weights, of="add2", wrt=["conv1b", "bn1a"], rule=rule).gradients
    theirs = reference.pullback(x, weights, of="add2", wrt=["conv1b", "bn1a"], rule=rule).gradients
    for node in ours:
        close(ours[node], theirs[node])


def test_it_offers_every_kind():
    native = sequential(L.Flatten, lambda: L.Dense(2))
    assert {f"rule:{kind}" for kind in RULE_KINDS} <= wrap(native).capabilities


# ---------------------------------------------------------------- layers, against their matrices


def matrix_of(function, x):
    """The matrix and the shift of an affine function, from what it makes of single ones."""
    size = x[0].size
    ones = np.eye(size).reshape(size, *x.shape[1:])
    zero = function(np.zeros((1, *x.shape[1:]))).reshape(-1)
    return function(ones).reshape(size, -1) - zero, zero


def z_plus_of(matrix, shift, x, given):
    """Bach et al. 2015, equation 60 with alpha = 1, in matrices."""
    x, given = x.reshape(len(x), -1), given.reshape(len(given), -1)
    up, down = np.maximum(x, 0), np.minimum(x, 0)
    positive, negative = np.maximum(matrix, 0), np.minimum(matrix, 0)
    ratio = given / (up @ positive + down @ negative + np.maximum(shift, 0) + 1e-6)
    return up * (ratio @ positive.T) + down * (ratio @ negative.T)


LAYERS = {
    "convolution": (lambda: L.Conv2D(4, 3, strides=2), (6, 7, 3)),
    "convolution that pads": (lambda: L.Conv2D(4, 3, strides=2, padding="same"), (6, 7, 3)),
    "dilated": (lambda: L.Conv2D(2, 3, dilation_rate=2, padding="same"), (5, 7, 3)),
    "grouped": (lambda: L.Conv2D(4, 3, groups=2), (5, 5, 4)),
    "depthwise": (lambda: L.DepthwiseConv2D(3, depth_multiplier=2), (5, 6, 3)),
    "depthwise, dilated": (
        lambda: L.DepthwiseConv2D(3, dilation_rate=2, padding="same"),
        (5, 6, 3),
    ),
    "transposed": (lambda: L.Conv2DTranspose(2, 3, strides=2, padding="same"), (4, 3, 3)),
    "signals": (lambda: L.Conv1D(4, 3, padding="causal", dilation_rate=2), (8, 3)),
    "signals, transposed": (lambda: L.Conv1DTranspose(4, 3, strides=2), (5, 3)),
    "volumes": (lambda: L.Conv3D(3, 2), (3, 4, 3, 2)),
    "volumes, transposed": (lambda: L.Conv3DTranspose(2, 2, strides=2), (2, 3, 2, 2)),
    "dense": (lambda: L.Dense(5), (7,)),
    "dense on places": (lambda: L.Dense(5), (3, 2, 4)),
    "dense by letters": (
        lambda: L.EinsumDense("abc,cd->abd", (None, 5), bias_axes="d"),
        (4, 3),
    ),
    "dense by more letters": (lambda: L.EinsumDense("abc,dbc->ad", (5,), bias_axes="d"), (4, 3)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_with_a_normalisation_are_one_matrix(name, rng):
    """Whatever operations Keras makes of a layer and what follows, it is one affine function."""
    make, shape = LAYERS[name]
    native = sequential(
        make,
        lambda: L.BatchNormalization(scale=True, name="norm"),
        lambda: L.Rescaling(-2.0, 0.3),
        shape=shape,
    )
    x = rng.normal(size=(2, *shape))
    model = wrap(native)
    matrix, shift = matrix_of(lambda v: model.forward(v).values[OUTPUT], x)
    given = rng.normal(size=model.forward(x).values[OUTPUT].shape)
    pulled = model.pullback(x, given, wrt=[INPUT, "norm"], rule=relevance_rule("z-plus", PLUS))
    close(pulled.gradients[INPUT].reshape(2, -1), z_plus_of(matrix, shift, x, given))
    np.testing.assert_array_equal(pulled.gradients["norm"], given)


def test_what_is_read_between_is_not_folded(rng):
    """A second reader of the convolution keeps the normalisation a layer of its own."""
    x = keras.Input((5, 6, 3), dtype="float64")
    y = L.Conv2D(4, 3, name="conv", dtype="float64")(x)
    z = L.BatchNormalization(name="norm", dtype="float64")(y)
    native = randomised(keras.Model(x, L.Add(dtype="float64")([y, z])))
    model, data = wrap(native), rng.normal(size=(2, 5, 6, 3))
    rule = relevance_rule("z-plus", PLUS)
    given = rng.normal(size=(2, 3, 4, 4))
    wrt = [INPUT, "conv", "norm"]
    pulled = model.pullback(data, given, wrt=wrt, rule=rule).gradients
    values = model.forward(data, capture=["conv", "norm"]).values
    total = values["conv"] + values["norm"]
    stable = total + np.where(total >= 0, 1e-6, -1e-6)
    close(pulled["norm"], given * values["norm"] / stable)
    close(pulled["conv"], given * total / stable)
    matrix, shift = matrix_of(lambda v: model.forward(v, capture=["conv"]).values["conv"], data)
    close(pulled[INPUT].reshape(2, -1), z_plus_of(matrix, shift, data, pulled["conv"]))


# ---------------------------------------------------------------- spellings


@pytest.mark.parametrize("step", [steps.flat(), steps.z_box(), PLUS, GAMMA, EPSILON])
def test_padding_belongs_to_the_convolution(step, rng):
    x = rng.normal(size=(2, 6, 7, 3))
    head = (L.ReLU, lambda: L.Conv2D(2, 3))
    same = sequential(lambda: L.Conv2D(4, 3, padding="same"), *head)
    padded = sequential(lambda: L.ZeroPadding2D(1, name="pad"), lambda: L.Conv2D(4, 3), *head)
    rule = relevance_rule("padded", PLUS, first=step).bounded([-3.0, -2.0, -1.0], [3.0, 2.0, 1.0])
    inner, outer = relevance(padded, x, rule, INPUT, "pad")
    close(inner, relevance(same, x, rule))
    np.testing.assert_array_equal(outer[:, 1:-1, 1:-1], inner)
    assert outer.sum() == pytest.approx(inner.sum())


def test_a_separable_convolution_is_two(rng):
    x = rng.normal(size=(2, 6, 7, 3))
    whole = sequential(lambda: L.SeparableConv2D(4, 3), L.ReLU, lambda: L.Conv2D(2, 3))
    parts = sequential(
        lambda: L.DepthwiseConv2D(3, use_bias=False),
        lambda: L.Conv2D(4, 1),
        L.ReLU,
        lambda: L.Conv2D(2, 3),
    )
    parts.set_weights(whole.get_weights())
    for rule in RULES.values():
        close(relevance(whole, x, rule), relevance(parts, x, rule))


def test_subclassed_networks_and_exported_ones_agree(tmp_path, rng):
    class Block(keras.Model):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = L.Conv2D(4, 3), L.BatchNormalization()
            self.more, self.head = L.Conv2D(4, 1), L.Dense(3)

        def call(self, x):
            y = keras.ops.relu(self.norm(self.conv(x)))
            y = y + keras.ops.silu(self.more(y))
            return self.head(keras.ops.mean(y, (1, 2)))

    x = rng.normal(size=(2, 6, 7, 3)).astype(np.float32)
    own = Block()
    own(x)
    randomised(own)
    i = keras.Input((6, 7, 3))
    y = L.ReLU()(L.BatchNormalization()(L.Conv2D(4, 3)(i)))
    y = L.Add()([y, L.Activation("silu")(L.Conv2D(4, 1)(y))])
    functional = keras.Model(i, L.Dense(3)(L.GlobalAveragePooling2D()(y)))
    functional.set_weights(own.get_weights())
    functional.export(tmp_path, verbose=False)
    rule = relevance_rule("gamma", GAMMA, EPSILON)
    expected = relevance(functional, x, rule)
    for native in (own, tf.saved_model.load(str(tmp_path))):
        close(relevance(native, x, rule), expected, 1e-5)


# ---------------------------------------------------------------- activations and gates


@pytest.mark.parametrize(
    "activation",
    [
        "relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "mish", "silu", "hard_silu",
        "hard_sigmoid", "hard_tanh", "sigmoid", "tanh", "softplus", "softsign", "squareplus",
        "log_sigmoid", "soft_shrink", "tanh_shrink",
    ],
)  # fmt: skip
def test_activations_hand_relevance_down_unchanged(activation, rng):
    native = sequential(
        lambda: L.Dense(8, name="below"),
        lambda: L.Activation(activation, name="act"),
        lambda: L.Dense(3),
        shape=(6,),
    )
    below, above = relevance(native, rng.normal(size=(4, 6)), COMPOSITE, "below", "act")
    assert above.any()
    close(below, above)


@pytest.mark.parametrize(
    "layer",
    [
        lambda: L.PReLU(name="act"),
        lambda: L.ReLU(max_value=1.0, negative_slope=0.1, threshold=0.2, name="act"),
        lambda: L.Lambda(lambda t: t * tf.nn.sigmoid(1.7 * t), name="act"),
        lambda: L.Lambda(lambda t: tf.where(t > 0, t, tf.exp(t) - 1), name="act"),
        lambda: L.Lambda(lambda t: t * t, name="act"),
    ],
)
def test_activations_of_several_operations_too(layer, rng):
    native = sequential(lambda: L.Dense(8, name="below"), layer, lambda: L.Dense(3), shape=(6,))
    below, above = relevance(native, rng.normal(size=(4, 6)), COMPOSITE, "below", "act")
    assert above.any()
    close(below, above)


def test_what_a_constant_spreads_is_added_up_again(rng):
    constant = tf.constant(rng.normal(size=(3, 8)))
    native = sequential(
        lambda: L.Dense(8, name="below"),
        lambda: L.Lambda(lambda t: t[:, None] * constant, name="spread"),
        L.Flatten,
        lambda: L.Dense(3),
        shape=(6,),
    )
    below, spread = relevance(native, rng.normal(size=(4, 6)), COMPOSITE, "below", "spread")
    assert spread.shape == (4, 3, 8)
    close(below, spread.sum(1))


@pytest.mark.parametrize("activation", ["sigmoid", "hard_sigmoid"])
def test_a_gate_gets_nothing(activation, rng):
    """Squeeze and excitation: all relevance follows the signal."""
    keras.config.set_floatx("float64")
    x = keras.Input((5, 6, 3))
    y = L.Conv2D(4, 3, activation="relu", name="signal")(x)
    z = L.GlobalAveragePooling2D(keepdims=True, name="squeeze")(y)
    z = L.Conv2D(4, 1, activation=activation, name="gate")(z)
    native = randomised(keras.Model(x, L.Conv2D(2, 1)(L.Multiply(name="product")([y, z]))))
    keras.config.set_floatx("float32")
    data = rng.normal(size=(2, 5, 6, 3))
    signal, gate, squeeze, product = relevance(
        native, data, COMPOSITE, "signal", "gate", "squeeze", "product"
    )
    np.testing.assert_array_equal(signal, product)
    assert product.any()
    assert not gate.any()
    assert not squeeze.any()


def test_products_without_a_gate_are_refused(rng):
    x = keras.Input((5,))
    y = L.Multiply(name="product")([L.Dense(4)(x), L.Dense(4)(x)])
    native = randomised(keras.Model(x, L.Dense(3)(y)))
    data = rng.normal(size=(2, 5))
    with pytest.raises(RuleError, match=r"no step for Mul '.*product.*' between '@logits' and"):
        relevance(native, data, COMPOSITE)
    pulled = wrap(native).pullback(data, np.ones_like, rule=marked(COMPOSITE))
    (named,) = pulled.unruled
    assert named.startswith("Mul ")
    assert pulled.gradients[INPUT].any()


def test_differences_are_sums_of_signed_values(rng):
    keras.config.set_floatx("float64")
    x = keras.Input((5,))
    a, b = L.Dense(4, name="a")(x), L.Dense(1, name="b")(x)
    native = randomised(keras.Model(x, L.Subtract(name="difference")([a, b])))
    keras.config.set_floatx("float32")
    model, data = wrap(native), rng.normal(size=(3, 5))
    given = rng.normal(size=(3, 4))
    values = model.forward(data, capture=["a", "b"]).values
    ratio = given / (values["a"] - values["b"])
    rule = relevance_rule("zero", steps.epsilon(0), shared=steps.epsilon(0))
    pulled = model.pullback(data, given, wrt=["a", "b"], rule=rule).gradients
    close(pulled["a"], values["a"] * ratio)
    close(pulled["b"], (-values["b"] * ratio).sum(1, keepdims=True))


# ---------------------------------------------------------------- refusals and marks


def test_a_softmax_is_refused_by_name(rng):
    native = sequential(lambda: L.Dense(4), lambda: L.Softmax(name="probabilities"), shape=(6,))
    with pytest.raises(RuleError, match=r"no step for Softmax '.*probabilities"):
        relevance(native, rng.normal(size=(2, 6)), COMPOSITE, of=OUTPUT)


def test_a_normalisation_by_its_own_statistics_is_one_operation(rng):
    """Its derivative is taken as a whole, and it is named once."""
    native = sequential(
        lambda: L.Dense(4, name="below"),
        lambda: L.LayerNormalization(name="norm"),
        L.ReLU,
        lambda: L.Dense(2),
        shape=(6,),
    )
    data = rng.normal(size=(3, 6))
    with pytest.raises(RuleError, match="norm"):
        relevance(native, data, COMPOSITE)
    model = wrap(native)
    pulled = model.pullback(data, np.ones_like, wrt=["norm", "below"], rule=marked(COMPOSITE))
    (named,) = pulled.unruled
    assert "norm" in named
    arrived = pulled.gradients["norm"]
    plain = model.pullback(data, arrived, of="norm", wrt=["below"]).gradients["below"]
    close(pulled.gradients["below"], plain)


def test_recurrent_layers_are_refused(rng):
    x = keras.Input((6, 5))
    native = keras.Model(x, L.Dense(3)(L.LSTM(4)(L.Conv1D(5, 3)(x))))
    data = rng.normal(size=(2, 6, 5))
    with pytest.raises(RuleError, match=r"no step for .*While"):
        relevance(native, data, COMPOSITE)
    with pytest.raises(RuleError, match="cannot reach the linear inside"):
        relevance(native, data, BackwardRule("some", {"conv": PLUS, "linear": PLUS}))
    assert relevance(native, data, marked(COMPOSITE)).any()


def test_a_rule_must_have_something_to_do(rng):
    native = sequential(lambda: L.Flatten(name="flat"), lambda: L.Dense(3))
    x = rng.normal(size=(2, 6, 7, 3))
    with pytest.raises(RuleError, match="would change nothing: there is no conv between"):
        relevance(native, x, BackwardRule("some", {"conv": PLUS}))
    with pytest.raises(RuleError, match="has the step"):
        relevance(native, x, BackwardRule("odd", {"conv": PASS}))


def test_bounds_are_those_of_the_networks_input(rng):
    """A network that rescales its input takes bounds in the range of that input."""
    x = rng.uniform(0, 255, size=(2, 6, 7, 3))
    head = (lambda: L.Conv2D(4, 3, name="first"), L.ReLU, lambda: L.Conv2D(2, 3))
    plain = sequential(*head)
    rescaled = sequential(lambda: L.Rescaling(-1 / 128, 1.0), *head)
    rule = relevance_rule("box", PLUS, first=steps.z_box())
    close(
        relevance(rescaled, x, rule.bounded([0.0], [256.0])),
        relevance(plain, 1 - x / 128, rule.bounded([-1.0], [1.0])),
    )
    with pytest.raises(RuleError, match="bounds for 2 channels"):
        relevance(plain, x, rule.bounded([0.0, 0.0], [1.0, 1.0]))
    averaged = sequential(lambda: L.AveragePooling2D(2), lambda: L.Conv2D(4, 2))
    with pytest.raises(RuleError, match="nothing is known"):
        relevance(averaged, x, rule.bounded([0.0], [256.0]))


# ---------------------------------------------------------------- the network and its graph


def test_rectifiers_may_keep_their_own_step(rng):
    """A rule may split relevance at layers, and rectify it at rectifiers."""
    native = sequential(
        lambda: L.Dense(8, name="below"), lambda: L.ReLU(name="act"), lambda: L.Dense(3), shape=(6,)
    )
    step = ReluStep(gate=True, rectify=True)
    rule = BackwardRule("mixed", {"linear": EPSILON, "relu": step})
    below, above = relevance(native, rng.normal(size=(4, 6)), rule, "below", "act")
    assert (above < 0).any()
    np.testing.assert_array_equal(below, np.maximum(above, 0))


def test_nothing_of_the_network_changes(rng):
    native = sequential(
        lambda: L.Conv2D(4, 3), L.BatchNormalization, L.ReLU, lambda: L.Conv2D(2, 3)
    )
    model, x = wrap(native), rng.normal(size=(2, 6, 7, 3))
    before, weights = model.pullback(x, np.ones_like), native.get_weights()
    for rule in RULES.values():
        model.pullback(x, np.ones_like, rule=rule)
    after = model.pullback(x, np.ones_like)
    np.testing.assert_array_equal(after.gradients[INPUT], before.gradients[INPUT])
    np.testing.assert_array_equal(after.values[LOGITS], before.values[LOGITS])
    for one, other in zip(native.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(one, other)


def test_one_function_serves_batches_weights_and_cotangents(rng):
    native = sequential(
        lambda: L.Conv2D(4, 3), L.BatchNormalization, L.ReLU, lambda: L.Conv2D(2, 3)
    )
    model, x = wrap(native), rng.normal(size=(3, 6, 7, 3))
    whole = model.pullback(x, np.ones_like, rule=COMPOSITE).gradients[INPUT]
    (graph,) = model._graphs.values()
    functions = len(graph._functions)
    one = model.pullback(x[1:2], np.ones_like, rule=COMPOSITE).gradients[INPUT]
    close(one, whole[1:2])
    randomised(native, seed=5)
    changed = model.pullback(x, np.ones_like, rule=COMPOSITE).gradients[INPUT]
    different(changed, whole)
    close(changed, relevance_of_ones(native, x))
    same = replace(COMPOSITE, name="another name")
    close(model.pullback(x, lambda v: 2 * np.ones_like(v), rule=same).gradients[INPUT], 2 * changed)
    assert len(graph._functions) == functions


def relevance_of_ones(native, x):
    return wrap(native).pullback(x, np.ones_like, rule=COMPOSITE).gradients[INPUT]


def test_relevance_in_half_precision_is_finite_and_near(rng):
    def network(policy):
        keras.config.set_dtype_policy(policy)
        try:
            return sequential(
                lambda: L.Conv2D(4, 3, padding="same"),
                L.BatchNormalization,
                L.ReLU,
                L.MaxPooling2D,
                lambda: L.Conv2D(4, 3, padding="same"),
                L.ReLU,
                L.GlobalAveragePooling2D,
                lambda: L.Dense(3, dtype="float32"),
                dtype="float32",
            )
        finally:
            keras.config.set_dtype_policy("float32")

    x = rng.normal(size=(2, 6, 7, 3)).astype(np.float32)
    for rule in (COMPOSITE, relevance_rule("gamma", GAMMA)):
        half = relevance(network("mixed_float16"), x, rule)
        assert np.isfinite(half).all()
        close(half, relevance(network("float32"), x, rule), 0.05)


def test_it_works_without_the_private_part_of_tensorflow(monkeypatch, rng):
    native = small()
    x = rng.normal(size=(2, 6, 7, 3))
    expected = relevance(native, x, COMPOSITE)
    monkeypatch.setattr(derivative, "_registered", lambda op: None)
    close(relevance(native, x, COMPOSITE), expected)


def test_without_a_rule_it_is_the_gradient(rng):
    """Steps that are derivatives, all of them, make the plain gradient."""
    native = small()
    x = rng.normal(size=(2, 6, 7, 3))
    rule = BackwardRule("plain", {"conv": DERIVATIVE, "maxpool": DERIVATIVE})
    close(relevance(native, x, rule), relevance(native, x, STANDARD))
