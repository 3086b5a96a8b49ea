"""Every kind of Keras model: values and gradients equal what eager mode gives."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from cnnviz_core.errors import (
    ArrayError,
    ParameterError,
    UnknownLayerError,
    UnsupportedModelError,
)
from cnnviz_core.layers import auto_layer
from cnnviz_core.model import INPUT, LOGITS, OUTPUT, input_node
from cnnviz_core.rules import DECONVNET, GUIDED, STANDARD
from cnnviz_tf.model import wrap

L = keras.layers
RULES = {"standard": STANDARD, "guided": GUIDED, "deconvnet": DECONVNET}


def sequential():
    return keras.Sequential(
        [
            keras.Input((9, 7, 3)),
            L.Conv2D(4, 3, activation="relu", name="first"),
            L.ReLU(name="again"),
            L.Conv2D(5, 3, name="conv"),
            L.ReLU(max_value=6, name="relu6"),
            L.GlobalAveragePooling2D(),
            L.Dense(3),
        ]
    )


def deferred():
    """Built by its first call: Keras remembers that call's batch."""
    net = keras.Sequential(
        [L.Conv2D(4, 3, activation="relu", name="conv"), L.Flatten(), L.Dense(3)]
    )
    net(np.zeros((1, 9, 7, 3), np.float32))
    return net


def functional():
    x = keras.Input((9, 7, 3), name="image")
    a = L.Conv2D(4, 3, padding="same", name="conv")(x)
    b = L.LeakyReLU(0.3, name="leaky")(a)
    c = L.Add()([a, b])
    c = L.Concatenate()([c, L.MaxPooling2D(3, 1, padding="same")(keras.ops.relu(c))])
    return keras.Model(x, L.Dense(3)(L.Flatten()(c)))


def nested():
    inner = keras.Sequential(
        [keras.Input((9, 7, 3)), L.Conv2D(4, 3, name="conv"), L.ReLU(name="relu")], name="inner"
    )
    x = keras.Input((9, 7, 3))
    y = inner(x)
    return keras.Model(x, L.Dense(3, name="head")(L.GlobalMaxPooling2D()(y)))


class Block(keras.Layer):
    """A layer with layers inside, one of them in a list."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.convs = [L.Conv2D(4, 3, padding="same", name="a"), L.Conv2D(4, 1, name="b")]

    def build(self, shape):
        self.convs[0].build(shape)
        self.convs[1].build((*shape[:-1], 4))

    def call(self, x):
        for conv in self.convs:
            x = tf.nn.relu(conv(x))
        return x


class Subclassed(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.block = Block(name="block")
        self.norm = L.BatchNormalization(name="norm")
        self.head = L.Dense(3, name="head")

    def call(self, x, training=None):
        x = self.norm(self.block(x), training=training)
        return self.head(keras.ops.mean(x, axis=(1, 2)))


def subclassed():
    net = Subclassed()
    net(np.zeros((2, 9, 7, 3), np.float32))
    return net


def shared():
    x = keras.Input((9, 7, 3))
    conv = L.Conv2D(3, 3, padding="same", activation="relu", name="conv")
    return keras.Model(x, L.Dense(3)(L.Flatten()(conv(conv(conv(x))))))


def lambdas():
    x = keras.Input((9, 7, 3))
    y = L.Lambda(lambda t: tf.nn.relu6(t * 9), name="lambda")(L.Conv2D(4, 3, name="conv")(x))
    return keras.Model(x, L.Dense(3)(L.Flatten()(y)))


def jitted():
    net = sequential()
    net.compile(jit_compile=True)
    return net


def grouped():
    return keras.Sequential(
        [
            keras.Input((9, 7, 4)),
            L.Conv2D(8, 3, groups=4, strides=2, padding="same", name="conv"),
            L.DepthwiseConv2D(3, depth_multiplier=2, activation="relu", name="depthwise"),
            L.Flatten(),
            L.Dense(3),
        ]
    )


class Jitted(keras.Layer):
    @tf.function(jit_compile=True)
    def call(self, x):
        return tf.nn.relu(x) * 2


class Branching(keras.Layer):
    """A ``tf.function`` that needs AutoGraph."""

    @tf.function
    def call(self, x):
        if tf.reduce_sum(x) > 1e9:
            x = x + 1
        return tf.nn.relu(x)


def with_function(layer):
    x = keras.Input((9, 7, 3))
    y = layer(name="own")(L.Conv2D(4, 3, name="conv")(x))
    return keras.Model(x, L.Dense(3)(L.Flatten()(y)))


def function_layer():
    return with_function(Jitted)


def traced_function_layer():
    net = with_function(Jitted)
    net(np.zeros((2, 9, 7, 3), np.float32))
    return net


def regularised():
    return keras.Sequential(
        [
            keras.Input((9, 7, 3)),
            L.Conv2D(4, 3, name="conv", activity_regularizer="l2"),
            L.BatchNormalization(name="norm"),
            L.ReLU(),
            L.SpatialDropout2D(0.5, name="dropout"),
            L.GaussianNoise(1.0),
            L.Flatten(),
            L.Dense(3),
        ]
    )


def dynamic():
    return keras.Sequential(
        [
            keras.Input((None, None, 3)),
            L.Conv2D(4, 3, strides=2, activation="relu", name="conv"),
            L.GlobalAveragePooling2D(),
            L.Dense(3),
        ]
    )


MODELS = [
    sequential,
    deferred,
    functional,
    nested,
    subclassed,
    shared,
    lambdas,
    jitted,
    grouped,
    function_layer,
    traced_function_layer,
    regularised,
    dynamic,
]


def batch(native, rng, n=2):
    channels = 4 if native.layers and getattr(native.layers[0], "groups", 1) > 1 else 3
    return rng.normal(size=(n, 9, 7, channels)).astype(np.float32)


def close(actual, expected, rtol=2e-6):
    assert actual.shape == expected.shape
    assert np.abs(expected).max() > 0
    np.testing.assert_allclose(actual, expected, rtol=0, atol=rtol * np.abs(expected).max())


@pytest.mark.parametrize("make", MODELS)
def test_values_equal_eager_ones(make, rng):
    native = make()
    x = batch(native, rng, 3)
    model = wrap(native)
    trace = model.forward(x, capture=list(_layers(model, x)))
    close(trace.output, native(x, training=False).numpy())
    for node, info in model.layers.items():
        assert trace[node].shape == (3, *info.shape), node


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("make", MODELS)
def test_gradients_equal_eager_ones(make, rule, rng, eager_gradient):
    native = make()
    x = batch(native, rng)
    model = wrap(native)
    weights = rng.normal(size=(2, 3)).astype(np.float32)
    actual = model.pullback(x, weights, rule=RULES[rule]).gradients[INPUT]
    if make in (function_layer, traced_function_layer):
        native = _without_functions(native)
    close(actual, eager_gradient(native, x, rule=rule, weights=weights))


def _layers(model, x):
    model.forward(x)
    return model.layers


def _without_functions(native):
    """The same network with the ``tf.function`` taken off, for the eager oracle."""

    class Plain(keras.Layer):
        def call(self, x):
            return tf.nn.relu(x) * 2

    return keras.models.clone_model(
        native,
        clone_function=lambda layer: Plain(name="own") if layer.name == "own" else layer,
    )


# ---------------------------------------------------------------- names, calls, order


def test_a_layer_of_an_inner_model_is_found_by_its_path(rng):
    native = nested()
    model = wrap(native)
    names = list(model.layers)
    assert names[:3] == ["inner/conv", "inner/relu", "inner"]
    assert names[-1] == "head"
    assert model.layers["inner"].kind == "container"
    assert model.layers["inner"].same_as == "inner/relu"
    x = batch(native, rng)
    trace = model.forward(x, capture=["inner/conv", "inner"])
    conv = native.get_layer("inner").get_layer("conv")
    close(trace["inner/conv"], conv(x).numpy())
    close(trace["inner"], np.maximum(conv(x).numpy(), 0))


def test_layers_of_custom_layers_are_found(rng):
    model = wrap(subclassed())
    assert list(model.layers) == ["block/a", "block/b", "block", "norm", "head"]
    assert model.layers["block"].kind == "container"


def test_each_call_of_a_shared_layer_is_a_node(rng):
    native = shared()
    x = batch(native, rng)
    conv = native.get_layer("conv")
    model = wrap(native)
    first, second = conv(x).numpy(), conv(conv(x)).numpy()
    trace = model.forward(x, capture=["conv@0", "conv@1"])
    close(trace["conv@0"], first)
    close(trace["conv@1"], second)
    assert model.layers["conv@2"].calls == 3
    with pytest.raises(UnknownLayerError, match="conv@2"):
        model.forward(x, capture=["conv"])
    back = model.pullback(x, np.ones_like, wrt=["conv@0", "conv@2"])
    assert np.abs(back.gradients["conv@0"]).max() > 0
    assert back.gradients["conv@0"].shape == back.gradients["conv@2"].shape


def test_a_name_used_twice_in_one_place_gets_a_number():
    class Twins(keras.Model):
        def __init__(self):
            super().__init__()
            self.one = L.Dense(3, name="dense")
            self.two = L.Dense(3, name="dense")

        def call(self, x):
            return self.two(self.one(x))

    native = Twins()
    native(np.zeros((1, 4), np.float32))
    assert list(wrap(native).layers) == ["dense", "dense_2"]


def test_a_layer_that_hands_its_input_on_is_a_node_of_its_own(rng):
    x = keras.Input((9, 7, 3))
    conv = L.Conv2D(4, 3, name="conv")(x)
    dropped = L.Dropout(0.5, name="dropout")(conv)
    native = keras.Model(x, L.Flatten()(L.Add(name="add")([conv, dropped])))
    model = wrap(native)
    data = batch(native, rng)
    assert model.layers["dropout"].same_as is None
    one = model.forward(data, replace={"dropout": np.zeros_like}).output
    close(one, conv_value(model, data).reshape(2, -1))
    back = model.pullback(data, np.ones_like, wrt=["conv", "dropout"])
    assert np.all(back.gradients["conv"] == 2)
    assert np.all(back.gradients["dropout"] == 1)


def conv_value(model, x):
    return model.forward(x, capture=["conv"])["conv"]


# ---------------------------------------------------------------- kinds, shapes, grids


def test_kinds():
    x = keras.Input((8, 8, 4))
    layers = {
        L.Conv2D(4, 1): "conv",
        L.SeparableConv2D(4, 1): "conv",
        L.Conv2DTranspose(4, 1): "conv",
        L.ReLU(): "relu",
        L.Activation("relu6"): "relu",
        L.Activation("gelu"): "activation",
        L.PReLU(): "activation",
        L.MaxPooling2D(1): "pool",
        L.LayerNormalization(): "norm",
        L.BatchNormalization(): "norm",
        L.SpatialDropout2D(0.1): "dropout",
        L.ZeroPadding2D(0): "pad",
        L.Reshape((64, 4)): "reshape",
        L.MultiHeadAttention(1, 2, name="attention"): "attention",
        L.GlobalAveragePooling1D(): "pool",
        L.Dense(3): "linear",
        L.Softmax(): "activation",
    }
    y = x
    for layer in layers:
        y = layer(y, y) if layer.name == "attention" else layer(y)
    infos = wrap(keras.Model(x, y)).layers
    assert {layer.name: infos[layer.name].kind for layer in layers} == {
        layer.name: kind for layer, kind in layers.items()
    }


def test_own_classes_are_not_taken_for_keras_ones():
    class Conv(keras.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.inner = L.Dense(2)

        def build(self, shape):
            self.inner.build(shape)

        def call(self, x):
            return self.inner(x)

    x = keras.Input((4,))
    assert wrap(keras.Model(x, Conv(name="c")(x))).layers["c"].kind == "container"


def test_signals_and_volumes(rng):
    for rank, conv, size in ((1, L.Conv1D, (12,)), (3, L.Conv3D, (5, 6, 7))):
        native = keras.Sequential(
            [
                keras.Input((*size, 2)),
                conv(3, 3, activation="relu", name="conv"),
                L.Flatten(),
                L.Dense(2),
            ]
        )
        model = wrap(native)
        assert model.layers["conv"].grid == tuple(n - 2 for n in size)
        x = rng.normal(size=(2, *size, 2)).astype(np.float32)
        close(model.forward(x).output, native(x).numpy())
        back = model.pullback(x, np.ones_like, wrt=["conv", INPUT], rule=GUIDED)
        assert back.gradients["conv"].ndim == rank + 2


def test_tokens_have_the_grid_of_their_patches():
    class Tokens(keras.Layer):
        def build(self, shape):
            self.token = self.add_weight(shape=(1, 1, shape[-1]))

        def call(self, x):
            batch = tf.shape(x)[0]
            return tf.concat([tf.repeat(self.token, batch, 0), x], 1)

    x = keras.Input((12, 8, 3))
    patches = L.Conv2D(6, 4, 4, name="embed")(x)
    tokens = Tokens(name="tokens")(L.Reshape((6, 6), name="flat")(patches))
    y = L.MultiHeadAttention(2, 3, name="attention")(tokens, tokens)
    native = keras.Model(x, L.Dense(3)(L.Lambda(lambda t: t[:, 0])(y)))
    layers = wrap(native).layers
    assert (layers["flat"].grid, layers["flat"].prefix) == ((3, 2), 0)
    assert (layers["tokens"].grid, layers["tokens"].prefix) == ((3, 2), 1)
    assert (layers["attention"].grid, layers["attention"].prefix) == ((3, 2), 1)


def test_dynamic_sizes_need_a_shape_or_an_example(rng):
    native = dynamic()
    with pytest.raises(ArrayError, match="input_shape"):
        _ = wrap(native).layers
    assert wrap(native, input_shape=(21, 11, 3)).layers["conv"].shape == (10, 5, 4)
    model = wrap(native)
    for size in ((11, 9), (20, 33)):
        x = rng.normal(size=(2, *size, 3)).astype(np.float32)
        close(model.forward(x).output, native(x).numpy())
    assert model.layers["conv"].grid == (5, 4)
    with pytest.raises(ArrayError, match="input_shape"):
        wrap(native, input_shape=(21, 11, 4))
    with pytest.raises(ArrayError, match="shape"):
        wrap(native, input_shape=(21, 11, 3)).forward(np.zeros((1, 20, 11, 3)))


def test_a_picture_too_small_is_an_array_error():
    net = keras.Sequential([keras.Input((None, None, 3)), L.Conv2D(4, 3), L.GlobalMaxPooling2D()])
    with pytest.raises(ArrayError, match="size"):
        wrap(net).forward(np.zeros((1, 1, 1, 3)))


def test_a_subclassed_model_takes_any_size_it_can(rng):
    native = subclassed()
    model = wrap(native)
    assert model.inputs["input"].shape is None
    for size in ((9, 7), (12, 5)):
        x = rng.normal(size=(2, *size, 3)).astype(np.float32)
        close(model.forward(x, capture=["block"]).output, native(x, training=False).numpy())
    assert model.layers["block"].grid == (9, 7)


def test_a_network_that_must_know_its_batch_is_traced_for_each(rng):
    class Fixed(keras.Model):
        def __init__(self):
            super().__init__()
            self.conv = L.Conv2D(4, 3, activation="relu", name="conv")
            self.head = L.Dense(3, name="head")

        def call(self, x):
            return self.head(tf.reshape(self.conv(x), (x.shape[0], -1)))

    native = Fixed()
    native(np.zeros((2, 9, 7, 3), np.float32))
    model = wrap(native)
    assert model.layers["conv"].shape == (7, 5, 4)
    for n in (1, 3, 2):
        x = rng.normal(size=(n, 9, 7, 3)).astype(np.float32)
        close(model.forward(x).output, native(x).numpy())
        assert model.pullback(x, np.ones_like, rule=GUIDED).gradients[INPUT].shape == x.shape


def test_gradient_tapes_of_the_caller_do_not_mind(rng):
    native = sequential()
    x = batch(native, rng)
    with tf.GradientTape():
        inside = wrap(native).pullback(x, np.ones_like).gradients[INPUT]
    np.testing.assert_array_equal(inside, wrap(native).pullback(x, np.ones_like).gradients[INPUT])


def test_subclassed_models_know_their_layers_from_being_built():
    assert wrap(subclassed()).layers["block/a"].grid == (9, 7)


def test_auto_layer_of_a_nested_model():
    assert auto_layer(wrap(nested()).layers).name == "inner"


# ---------------------------------------------------------------- several inputs and outputs


def two_inputs(structure):
    a, b = keras.Input((6, 5, 3), name="image"), keras.Input((4,), name="vector")
    y = L.Concatenate()([L.Flatten()(L.Conv2D(2, 3, activation="relu")(a)), L.Dense(3)(b)])
    return keras.Model({"image": a, "vector": b} if structure is dict else [a, b], L.Dense(3)(y))


@pytest.mark.parametrize("structure", [dict, list])
def test_two_inputs(structure, rng):
    native = two_inputs(structure)
    x = {
        "image": rng.normal(size=(2, 6, 5, 3)).astype(np.float32),
        "vector": rng.normal(size=(2, 4)).astype(np.float32),
    }
    model = wrap(native)
    assert list(model.inputs) == ["image", "vector"]
    given = x if structure is dict else list(x.values())
    close(model.forward(x).output, native(given).numpy())
    back = model.pullback(x, np.ones_like, wrt=[input_node("vector"), INPUT])
    assert back.gradients[INPUT].shape == (2, 6, 5, 3)
    with tf.GradientTape() as tape:
        tensors = {k: tf.constant(v) for k, v in x.items()}
        tape.watch(tensors)
        total = tf.reduce_sum(native(tensors if structure is dict else list(tensors.values())))
    close(back.gradients["@input:vector"], tape.gradient(total, tensors["vector"]).numpy())


def test_inputs_of_a_subclassed_model_by_keyword_or_as_a_mapping(rng):
    class Pair(keras.Model):
        def __init__(self):
            super().__init__()
            self.d = L.Dense(3)

        def call(self, image, vector):
            return self.d(tf.concat([image, vector], -1))

    class Mapped(Pair):
        def call(self, inputs):
            return self.d(tf.concat([inputs["image"], inputs["vector"]], -1))

    x = {k: rng.normal(size=(2, 4)).astype(np.float32) for k in ("image", "vector")}
    shapes = {"image": (4,), "vector": (4,)}
    pair = Pair()
    pair(**x)
    close(wrap(pair, input_shape=shapes).forward(x).output, pair(**x).numpy())
    mapped = Mapped()
    mapped(x)
    close(wrap(mapped, input_shape=shapes).forward(x).output, mapped(x).numpy())


def several_outputs(kind):
    x = keras.Input((6,))
    a, b = L.Dense(2, name="a")(x), L.Dense(3, name="b")(x)
    return keras.Model(
        x, {"dict": {"z": a, "logits": b}, "out": {"z": a, "out": b}, "list": [a, b]}[kind]
    )


@pytest.mark.parametrize(
    ("kind", "output", "layer"),
    [
        ("dict", None, "b"),
        ("out", None, "b"),
        ("list", None, "a"),
        ("dict", "z", "a"),
        ("list", 1, "b"),
        ("list", lambda r: r[1], "b"),
    ],
)
def test_the_main_output(kind, output, layer, rng):
    native = several_outputs(kind)
    x = rng.normal(size=(2, 6)).astype(np.float32)
    actual = wrap(native, output=output).forward(x).output
    close(actual, native.get_layer(layer)(x).numpy())


@pytest.mark.parametrize(("kind", "output"), [("dict", "y"), ("list", 7)])
def test_an_unknown_output_is_named(kind, output):
    with pytest.raises(ParameterError, match="output"):
        _ = wrap(several_outputs(kind), output=output).layers


# ---------------------------------------------------------------- types


def test_mixed_precision(rng, eager_gradient):
    policy = keras.mixed_precision.dtype_policy()
    keras.mixed_precision.set_dtype_policy("mixed_float16")
    try:
        native = sequential()
    finally:
        keras.mixed_precision.set_dtype_policy(policy)
    x = batch(native, rng)
    model = wrap(native)
    trace = model.forward(x, capture=["conv"])
    assert trace["conv"].dtype == trace.output.dtype == np.float32
    close(trace.output, native(x, training=False).numpy().astype(np.float32), 2e-3)
    for name, rule in RULES.items():
        back = model.pullback(x, np.ones_like, wrt=[INPUT, "conv"], rule=rule)
        assert back.gradients["conv"].dtype == np.float32
        close(back.gradients[INPUT], eager_gradient(native, x, rule=name), 5e-3)
    swapped = model.forward(x, replace={"conv": np.zeros_like})
    assert np.isfinite(swapped.output).all()


def test_half_precision_values_reach_the_cotangent_in_single(rng):
    x = keras.Input((6,))
    native = keras.Model(x, L.Dense(3, dtype="bfloat16")(x))
    seen = []
    model = wrap(native)
    model.pullback(rng.normal(size=(2, 6)), lambda v: seen.append(v.dtype) or v)
    assert seen == [np.float32]
    assert model.forward(rng.normal(size=(2, 6))).output.dtype == np.float32


def test_double_precision_stays(rng):
    x = keras.Input((9, 7, 3), dtype="float64")
    y = L.Conv2D(4, 3, activation="relu", dtype="float64", name="conv")(x)
    native = keras.Model(x, L.Dense(3, dtype="float64")(L.Flatten(dtype="float64")(y)))
    model = wrap(native)
    data = rng.normal(size=(2, 9, 7, 3))
    assert model.inputs["input"].dtype == "float64"
    back = model.pullback(data, np.ones_like, wrt=[INPUT, "conv"], rule=GUIDED)
    assert {a.dtype for a in (*back.values.values(), *back.gradients.values())} == {np.dtype("f8")}
    close(back.values[OUTPUT], native(data).numpy(), 1e-14)


def test_floatx_of_double_precision(rng):
    keras.config.set_floatx("float64")
    try:
        native = sequential()
        subclass = subclassed()
        model, other = wrap(native), wrap(subclass)
        data = rng.normal(size=(1, 9, 7, 3))
        assert model.forward(data).output.dtype == np.float64
        close(model.forward(data).output, native(data).numpy(), 1e-14)
        close(other.forward(data).output, subclass(data).numpy(), 1e-14)
    finally:
        keras.config.set_floatx("float32")


def test_a_network_of_bytes_has_values_but_no_input_gradient(rng):
    x = keras.Input((6, 5, 3), dtype="uint8")
    y = L.Conv2D(2, 3, name="conv")(L.Rescaling(1 / 255)(x))
    native = keras.Model(x, L.GlobalAveragePooling2D()(y))
    data = rng.integers(0, 256, (2, 6, 5, 3))
    model = wrap(native)
    close(model.forward(data).output, native(data.astype("uint8")).numpy())
    assert model.pullback(data, np.ones_like, wrt=["conv"]).gradients["conv"].any()
    with pytest.raises(UnknownLayerError, match="gradient"):
        model.pullback(data, np.ones_like)


# ---------------------------------------------------------------- what is refused


def test_a_network_that_is_not_built_is_refused():
    with pytest.raises(UnsupportedModelError, match="not built"):
        wrap(Subclassed())


def test_channels_first_is_refused():
    native = keras.Sequential(
        [keras.Input((3, 8, 8)), L.Conv2D(2, 3, data_format="channels_first", name="conv")]
    )
    with pytest.raises(UnsupportedModelError, match="conv"):
        wrap(native)


def test_another_engine_is_named(monkeypatch):
    native = sequential()
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(UnsupportedModelError, match="jax"):
        wrap(native)


def test_conditions_on_tensors_outside_of_functions_are_refused():
    class Eager(keras.Model):
        def call(self, x):
            return x + 1 if tf.reduce_sum(x) > 0 else x

    net = Eager()
    net(np.ones((1, 3), np.float32))
    with pytest.raises(UnsupportedModelError, match="cannot be traced"):
        wrap(net).forward(np.ones((1, 3), np.float32))


def test_text_is_refused():
    native = keras.Sequential([keras.Input((1,), dtype="string"), L.Lambda(lambda t: t)])
    with pytest.raises(UnsupportedModelError, match="string"):
        wrap(native)


def test_graph_mode_is_refused():
    native = sequential()
    with tf.Graph().as_default(), pytest.raises(UnsupportedModelError, match="eager"):
        wrap(native)


def test_a_wrong_activation_is_refused():
    with pytest.raises(ParameterError, match="relu"):
        wrap(sequential(), activation="relu")


def test_unknown_nodes(rng):
    native = sequential()
    model = wrap(native)
    x = batch(native, rng)
    with pytest.raises(UnknownLayerError, match="'first'"):
        model.forward(x, capture=["frist"])
    with pytest.raises(UnknownLayerError, match="'input'"):
        model.pullback(x, np.ones_like, wrt=["@input:image"])
    with pytest.raises(UnknownLayerError, match="depend"):
        model.pullback(x, np.ones_like, of="first", wrt=["conv"])


# ---------------------------------------------------------------- replace


def test_replaced_values_are_exact_around_skips(rng):
    """Replacing a node by a value is the network from there on, skips around it included."""
    x = keras.Input((9, 7, 3))
    a = L.Conv2D(3, 3, padding="same", activation="relu", name="a")(x)
    b = L.Conv2D(3, 3, padding="same", name="b")(a)
    native = keras.Model(
        x, L.Dense(3, name="head")(L.Flatten(name="flat")(L.Add(name="sum")([x, a, b])))
    )
    model = wrap(native)
    data = batch(native, rng)
    new = rng.normal(size=(2, 9, 7, 3)).astype(np.float32)
    get = native.get_layer
    expected = get("head")(get("flat")(data + new + get("b")(new).numpy())).numpy()
    trace = model.forward(data, capture=["a"], replace={"a": new})
    close(trace.output, expected)
    np.testing.assert_array_equal(trace["a"], new)


def test_functions_see_what_earlier_replacements_made(rng):
    native = sequential()
    model = wrap(native)
    x = batch(native, rng)
    seen = {}

    def note(value):
        seen["conv"] = value
        return value + 1

    first = {"first": lambda v: np.zeros_like(v)}
    trace = model.forward(x, capture=["conv"], replace={"conv": note, **first})
    bias = native.get_layer("conv").bias.numpy()
    np.testing.assert_allclose(seen["conv"], np.broadcast_to(bias, seen["conv"].shape))
    np.testing.assert_array_equal(trace["conv"], seen["conv"] + 1)


def test_replacing_special_nodes(rng):
    native = sequential()
    model = wrap(native)
    x, y = batch(native, rng), batch(native, rng)
    np.testing.assert_array_equal(
        model.forward(x, replace={INPUT: y}).output, model.forward(y).output
    )
    scores = rng.normal(size=(2, 3)).astype(np.float32)
    trace = model.forward(x, replace={LOGITS: scores})
    np.testing.assert_array_equal(trace.logits, scores)


def test_replacement_in_a_network_of_open_size(rng):
    model = wrap(dynamic())
    x = rng.normal(size=(2, 11, 9, 3)).astype(np.float32)
    new = rng.normal(size=(2, 5, 4, 4)).astype(np.float32)
    trace = model.forward(x, capture=["conv"], replace={"conv": new})
    np.testing.assert_array_equal(trace["conv"], new)
    with pytest.raises(ArrayError, match="replacement"):
        model.forward(x, replace={"conv": new[:, :4]})
