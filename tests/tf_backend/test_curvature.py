"""Second derivatives: against central differences of the pullback and the forward pass."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from cnnviz_core.errors import ArrayError, UnknownLayerError, UnsupportedModelError
from cnnviz_core.model import INPUT, LOGITS, OUTPUT
from cnnviz_core.rules import GUIDED
from cnnviz_tf.model import wrap

L = keras.layers


@pytest.fixture(autouse=True)
def _double():
    """Build every network in float64."""
    before = keras.config.floatx()
    keras.config.set_floatx("float64")
    yield
    keras.config.set_floatx(before)


def net(*layers, head=None, shape=(8, 6, 3)):
    """Put layers between a convolution and a head."""
    x = inputs = keras.Input(shape, name="picture")
    x = start = L.Conv2D(4, 3, padding="same", name="conv")(x)
    for layer in layers:
        x = layer(x)
    if x.shape == start.shape:
        x = L.Add(name="add")([x, start])
    x = L.GlobalAveragePooling2D(name="gap")(x)
    return keras.Model(inputs, L.Dense(3, activation=head, name="fc")(x))


def picture(shape=(8, 6, 3), n=2):
    return np.random.default_rng(1).normal(size=(n, *shape))


def assert_is_the_derivative(model, x, wrt=INPUT, of=OUTPUT, rtol=1e-6, step=1e-6, bends=True):
    rng = np.random.default_rng(3)
    start = model.forward(x, capture=[of, wrt])
    cotangent = rng.normal(size=start[of].shape)
    direction = rng.normal(size=start[wrt].shape)
    found = model.curvature(x, cotangent, direction, of=of, wrt=wrt)

    def ends(sign):
        if wrt == INPUT:
            back = model.pullback(x + sign * step * direction, cotangent, of=of)
            return back.values[of], back.gradients[INPUT]
        value = start[wrt] + sign * step * direction
        return model.forward(x, capture=[of], replace={wrt: value})[of], None

    (top, slope), (low, slope_below) = ends(1), ends(-1)
    assert_near(found.tangent, (top - low) / (2 * step), rtol)
    exact = model.pullback(x, cotangent, of=of, wrt=[wrt])
    assert_near(found.gradient, exact.gradients[wrt], 1e-12 if step < 1e-4 else 1e-6)
    assert found.gradient.dtype == found.tangent.dtype == found.bend.dtype == start[of].dtype
    assert set(found.values) == {of, wrt, LOGITS, OUTPUT} - {INPUT}
    for node, value in found.values.items():
        np.testing.assert_array_equal(value, model.forward(x, capture=[node])[node])
    if slope is not None:
        assert_near(found.bend, (slope - slope_below) / (2 * step), rtol)
    assert found.bend.any() == bends
    # The gradient and the tangent are adjoint, whatever the network.
    assert (found.gradient * direction).sum() == pytest.approx(
        (cotangent * found.tangent).sum(), rel=1e-9 if step < 1e-4 else 1e-5
    )
    return found


def assert_near(actual, expected, rtol):
    assert abs(actual - expected).max() <= rtol * max(abs(expected).max(), 1e-2)


@pytest.mark.parametrize(
    "activation", ["silu", "gelu", "softplus", "tanh", "elu", "selu", "sigmoid", "mish"]
)
def test_activations(activation):
    model = wrap(net(L.Activation(activation), L.Conv2D(4, 3, padding="same")))
    assert_is_the_derivative(model, picture())
    assert_is_the_derivative(model, picture(), wrt="conv")


@pytest.mark.parametrize("activation", ["relu", "relu6", "leaky_relu", "hard_sigmoid"])
def test_rectifiers_do_not_bend_and_the_softmax_behind_them_does(activation):
    def build(head):
        return wrap(net(L.Activation(activation), L.MaxPooling2D(2), head=head))

    assert_is_the_derivative(build("softmax"), picture())
    assert_is_the_derivative(build("softmax"), picture(), of=LOGITS, bends=False)
    assert_is_the_derivative(build("sigmoid"), picture(), wrt="conv")


@pytest.mark.parametrize(
    "layer",
    [
        lambda: L.BatchNormalization(),
        lambda: L.LayerNormalization(),  # TensorFlow's own is wrong here: see cnnviz_tf.second
        lambda: L.GroupNormalization(2),
        lambda: L.UnitNormalization(),
        lambda: L.UpSampling2D(2, interpolation="nearest"),
        lambda: L.MaxPooling2D(3, 2, padding="same"),
        lambda: L.AveragePooling2D(2, padding="same"),
        lambda: L.Conv2DTranspose(4, 3, 2),
        lambda: L.DepthwiseConv2D(3, 2),
        lambda: L.SeparableConv2D(4, 3),
        lambda: L.Conv2D(4, 3, dilation_rate=2, padding="same"),
        lambda: L.Conv2D(4, 3, strides=2, groups=2),
        lambda: L.SpatialDropout2D(0.5),
        lambda: L.PReLU(),
    ],
)
def test_layers(layer):
    built = net(L.Activation("tanh"), layer(), L.Activation("tanh"))
    for variable in built.non_trainable_variables:
        if "moving" in variable.path:
            variable.assign(np.random.default_rng(0).uniform(0.5, 1.5, variable.shape))
    assert_is_the_derivative(wrap(built), picture(), rtol=3e-6)


@pytest.mark.parametrize(
    "layer",
    [
        lambda: L.UpSampling2D(2, interpolation="bilinear"),  # TensorFlow's own is wrong here, too
        lambda: L.UpSampling2D(2, interpolation="bicubic"),
        lambda: L.Resizing(5, 7),
        lambda: L.Resizing(16, 12, interpolation="nearest"),
    ],
)
def test_resizings_which_compute_in_single_precision(layer):
    model = wrap(net(L.Activation("tanh"), layer(), L.Activation("tanh")))
    assert_is_the_derivative(model, picture(), rtol=1e-3, step=3e-3)


@pytest.mark.parametrize(
    ("shape", "layers"),
    [
        ((11, 3), lambda: (L.Conv1D(4, 2, activation="silu", name="conv"), L.MaxPooling1D(2))),
        # On a CPU, pools of volumes compute in single precision only; the kit looks at these.
        ((5, 6, 4, 2), lambda: (L.Conv3D(4, 2, activation="silu", name="conv"), L.Conv3D(3, 2, 2))),
    ],
)
def test_signals_and_volumes(shape, layers):
    head = (L.Flatten(), L.Dense(3, activation="softmax"))
    model = wrap(keras.Sequential([keras.Input(shape), *layers(), *head]))
    assert_is_the_derivative(model, picture(shape))
    assert_is_the_derivative(model, picture(shape), wrt="conv")


def test_attention():
    inputs = keras.Input((6, 4))
    x = L.MultiHeadAttention(2, 3, name="attention")(inputs, inputs)
    x = L.LayerNormalization(name="norm")(L.Add()([x, inputs]))
    model = wrap(keras.Model(inputs, L.Dense(3)(L.GlobalAveragePooling1D()(x))))
    assert_is_the_derivative(model, picture((6, 4)))
    assert_is_the_derivative(model, picture((6, 4)), wrt="attention")


@pytest.mark.parametrize("layer", ["LSTM", "GRU"])
def test_recurrent_layers(layer):
    built = keras.Sequential([keras.Input((5, 3)), getattr(L, layer)(4), L.Dense(2)])
    assert_is_the_derivative(wrap(built), picture((5, 3)))


def test_a_subclassed_network_with_nested_parts_called_twice():
    class Whole(keras.Model):
        def __init__(self):
            super().__init__()
            self.part = keras.Sequential([L.Conv2D(3, 3, padding="same"), L.Activation("silu")])
            self.head = L.Dense(2)

        def call(self, x):
            return self.head(tf.reduce_mean(self.part(self.part(x)) + x, (1, 2)))

    built = Whole()
    built(picture())
    model = wrap(built)
    model.forward(picture())
    assert_is_the_derivative(model, picture())
    node = next(n for n in model.layers if n.endswith("@0") and model.layers[n].kind == "conv")
    assert_is_the_derivative(model, picture(), wrt=node)


@pytest.mark.parametrize("activation", ["silu", "layer_norm"])
def test_an_exported_network(tmp_path, activation):
    layer = L.LayerNormalization() if activation == "layer_norm" else L.Activation(activation)
    built = net(layer, L.Activation("tanh"), head="softmax")
    built.export(tmp_path, verbose=False)
    model, exact = wrap(tf.saved_model.load(tmp_path)), wrap(built)
    found, expected = (m.curvature(picture(), np.ones_like, np.square) for m in (model, exact))
    assert_near(found.bend, expected.bend, 1e-10)
    assert_near(found.tangent, expected.tangent, 1e-10)
    assert_is_the_derivative(model, picture())


def test_a_jitted_function():
    kernel = tf.constant(np.random.default_rng(0).normal(size=(3, 3, 3, 4)), tf.float32)

    @tf.function(jit_compile=True)
    def network(x):
        return tf.reduce_mean(tf.nn.silu(tf.nn.conv2d(x, kernel, 1, "SAME")), (1, 2))

    model = wrap(network, input_shape=(8, 6, 3))
    assert_is_the_derivative(model, picture().astype(np.float32), rtol=3e-3, step=1e-2)


def test_the_hessian_is_symmetric():
    model, x = wrap(net(L.Activation("silu"), head="softmax")), picture()
    rng = np.random.default_rng(1)
    u, v = rng.normal(size=(2, *x.shape))
    cotangent = rng.normal(size=(2, 3))
    along_u, along_v = (model.curvature(x, cotangent, d, of=OUTPUT).bend for d in (u, v))
    assert (u * along_v).sum() == pytest.approx((v * along_u).sum(), rel=1e-10)


def test_a_node_with_respect_to_itself():
    model, x = wrap(net(L.Activation("silu"))), picture()
    found = model.curvature(x, lambda v: v * 2, lambda v: v + 1, of="conv", wrt="conv")
    value = found.values["conv"]
    np.testing.assert_array_equal(found.gradient, 2 * value)
    np.testing.assert_array_equal(found.tangent, value + 1)
    assert not found.bend.any()


def test_one_graph_serves_every_cotangent_and_direction():
    model, x = wrap(net(L.Activation("silu"))), picture()
    one = model.curvature(x, np.ones_like, np.ones_like, wrt="conv")
    graph = model._graph()
    size = len(graph._function.graph.get_operations())
    two = model.curvature(
        x, lambda z: 2 * np.ones_like(z), lambda a: np.full_like(a, 3), wrt="conv"
    )
    assert len(graph._function.graph.get_operations()) == size
    np.testing.assert_allclose(two.gradient, 2 * one.gradient, rtol=1e-12)
    np.testing.assert_allclose(two.tangent, 3 * one.tangent, rtol=1e-12)
    np.testing.assert_allclose(two.bend, 6 * one.bend, rtol=1e-12, atol=1e-18)


def test_the_first_derivative_and_the_rules_stay_what_they_are():
    built = net(L.LayerNormalization(), L.ReLU(), L.Activation("silu"))
    fresh, used = wrap(built), wrap(built)
    x = picture()
    used.curvature(x, np.ones_like, np.ones_like)
    for rule in ({}, {"rule": GUIDED}):
        expected = fresh.pullback(x, np.ones_like, **rule).gradients[INPUT]
        found = used.pullback(x, np.ones_like, **rule).gradients[INPUT]
        np.testing.assert_array_equal(found, expected)


def test_a_stopped_gradient_of_the_users_stays_stopped():
    inputs = keras.Input((4,))
    x = L.Dense(3, activation="tanh", name="dense")(inputs)
    model = wrap(keras.Model(inputs, x * keras.ops.stop_gradient(x)))
    found = model.curvature(picture((4,)), np.ones_like, np.ones_like, wrt="dense")
    np.testing.assert_allclose(found.gradient, found.values["dense"])
    assert not found.bend.any()


class Quantised(L.Layer):
    def call(self, x):
        return tf.cast(tf.quantization.fake_quant_with_min_max_args(tf.cast(x, "float32")), x.dtype)


class Normalised(L.Layer):
    def call(self, x):
        return tf.cast(tf.nn.local_response_normalization(tf.cast(x, "float32")), x.dtype)


@pytest.mark.parametrize(("layer", "named"), [(Quantised, "FakeQuant"), (Normalised, "LRN")])
def test_an_operation_without_second_derivative_is_named(layer, named):
    # TensorFlow takes the derivative of the first for a constant, and gives zeros.
    model, x = wrap(net(L.Activation("tanh"), layer())), picture()
    model.pullback(x, np.ones_like)
    with pytest.raises(UnsupportedModelError, match=named):
        model.curvature(x, np.ones_like, np.ones_like)


@pytest.mark.parametrize(
    ("ask", "error", "message"),
    [
        ({"direction": np.ones((2, 1))}, ArrayError, "the direction at '@input'"),
        ({"direction": lambda v: v * np.nan}, ArrayError, "direction at '@input' holds NaN"),
        ({"cotangent": np.ones((2, 7))}, ArrayError, "cotangent"),
        ({"wrt": "nowhere"}, UnknownLayerError, "nowhere"),
        ({"of": "conv", "wrt": "gap"}, UnknownLayerError, "does not depend"),
        ({"wrt": "@input:nowhere"}, UnknownLayerError, "no input 'nowhere'"),
    ],
)
def test_what_does_not_fit_is_an_error(ask, error, message):
    ask = {"cotangent": np.ones_like, "direction": np.ones_like, **ask}
    model, x = wrap(net(L.Activation("silu"))), picture()
    with pytest.raises(error, match=message):
        model.curvature(x, **ask)
    assert model.curvature(x, np.ones_like, np.ones_like).bend.any()


def test_the_network_stays_what_it_was():
    built, x = net(L.BatchNormalization(), L.Activation("silu"), L.Dropout(0.5)), picture()
    built.trainable = True
    before = [np.array(w) for w in built.get_weights()]
    attributes = [dict(vars(layer)) for layer in built.layers]
    model = wrap(built)
    model.curvature(x, np.ones_like, np.ones_like, wrt="conv")

    def broken(value):
        raise ZeroDivisionError("in the direction")

    with pytest.raises(ZeroDivisionError, match="in the direction"):
        model.curvature(x, np.ones_like, broken)
    for one, two in zip(before, built.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)
    for layer, known in zip(built.layers, attributes, strict=True):
        assert {k: id(v) for k, v in vars(layer).items()} == {k: id(v) for k, v in known.items()}


def test_a_change_of_the_weights_shows_at_once():
    built, x = net(L.Activation("silu")), picture()
    model = wrap(built)
    before = model.curvature(x, np.ones_like, np.ones_like)
    built.get_layer("fc").kernel.assign(2 * built.get_layer("fc").kernel)
    after = model.curvature(x, np.ones_like, np.ones_like)
    np.testing.assert_allclose(after.bend, 2 * before.bend, rtol=1e-12, atol=1e-18)
