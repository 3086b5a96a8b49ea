"""What repeated rows have in common is computed once, and nothing comes out otherwise."""

from __future__ import annotations

from dataclasses import dataclass

import keras
import numpy as np
import pytest
import tensorflow as tf

from cnnviz_core import steps
from cnnviz_core.model import INPUT, LOGITS, OUTPUT
from cnnviz_core.rules import GUIDED, STANDARD, relevance_rule
from cnnviz_core.testing.nets import NETS, random_input
from cnnviz_tf import graph as graph_module
from cnnviz_tf.build import build
from cnnviz_tf.model import wrap

L = keras.layers
ROWS = [1, 0, 1, 1, 2, 0, 1]
RELEVANCE = relevance_rule("epsilon-plus", steps.z_plus(), steps.epsilon(0.1))


@pytest.fixture
def batches(monkeypatch):
    """The shapes of the pictures, or maps, with which the graph's functions are run."""
    seen: list[list[tuple[int, ...]]] = []
    run = graph_module._run

    def noted(function, fed):
        seen.append([tuple(tensor.shape) for tensor in fed if tensor.shape.rank])
        return run(function, fed)

    monkeypatch.setattr(graph_module, "_run", noted)
    return seen


def residual(dtype="float64"):
    """A network with a layer on a branch, one that is a cut, and one that a skip passes by."""
    keras.config.set_floatx(dtype)
    try:
        x = keras.Input((9, 8, 3))
        a = L.Conv2D(4, 3, padding="same", activation="relu", name="stem")(x)
        b = L.BatchNormalization(name="norm")(L.Conv2D(4, 3, padding="same", name="branch")(a))
        c = L.ReLU(name="joined")(L.Add(name="add")([a, b]))
        d = L.Flatten(name="flat")(L.MaxPooling2D(name="pool")(c))
        return keras.Model(x, L.Dense(5, activation="softmax", name="head")(d))
    finally:
        keras.config.set_floatx("float32")


@dataclass
class Cotangent:
    """A function of the value, which tells the rows apart."""

    factors: np.ndarray

    def __call__(self, value):
        return self.factors.reshape(-1, *[1] * (value.ndim - 1)) * np.cos(value)


def agree(found, expected):
    """Two answers of a model are the same but for rounding."""
    assert found.keys() == expected.keys()
    for node, value in expected.items():
        np.testing.assert_allclose(found[node], value, rtol=1e-12, atol=1e-14, err_msg=node)


def pullbacks_agree(monkeypatch, model, x, **options):
    """A pullback is that of a model that is told to take the plain way."""
    factors = np.arange(1.0, len(ROWS) + 1)
    found = model.pullback(x, Cotangent(factors), **options)
    monkeypatch.setenv("CNNVIZ_FAST", "0")
    plain = model.pullback(x, Cotangent(factors), **options)
    monkeypatch.delenv("CNNVIZ_FAST")
    agree(found.values, plain.values)
    agree(found.gradients, plain.gradients)
    return found


WRT = [
    ("joined",),
    ("branch",),
    ("norm", "stem"),
    ("stem", "joined"),
    ("branch", "add"),
    (LOGITS,),
    ("pool", LOGITS),
]


@pytest.mark.parametrize(
    ("wrt", "rule"),
    [*((wrt, STANDARD) for wrt in WRT), (WRT[1], RELEVANCE), (WRT[2], RELEVANCE)],
)
def test_a_pullback_is_as_without_sharing(monkeypatch, batches, rng, wrt, rule):
    """Also inside a residual block, where what goes past the layer is shared as well."""
    x = rng.normal(size=(3, 9, 8, 3))[ROWS]
    pullbacks_agree(monkeypatch, wrap(residual()), x, wrt=wrt, rule=rule)
    shared, rest = batches[:2]
    assert shared == [(3, 9, 8, 3)]
    assert {shape[0] for shape in rest} == {7}
    assert (7, 9, 8, 3) not in rest


def test_every_row_is_that_of_its_sample_alone(rng):
    """The oracle knows nothing of batches: each sample and cotangent in a call of its own."""
    model, x = wrap(residual()), rng.normal(size=(3, 9, 8, 3))[ROWS]
    cotangent = rng.normal(size=(7, 5))
    found = model.pullback(x, cotangent, wrt=("branch",), rule=GUIDED)
    for i in range(7):
        one = model.pullback(x[i : i + 1], cotangent[i : i + 1], wrt=("branch",), rule=GUIDED)
        np.testing.assert_allclose(found.gradients["branch"][i], one.gradients["branch"][0])
        np.testing.assert_allclose(found.values[OUTPUT][i], one.values[OUTPUT][0])


@pytest.mark.parametrize("name", sorted(NETS))
def test_every_kind_of_network_can_be_shared(monkeypatch, name):
    net = NETS[name]()
    model = wrap(build(net, dtype="float64"))
    x = {key: value[ROWS] for key, value in random_input(net, 3).items()}
    layers = list(model.layers)
    pullbacks_agree(monkeypatch, model, x, wrt=(layers[len(layers) // 2],))


@pytest.mark.parametrize("nodes", [("joined",), ("branch",), ("stem", "add"), (LOGITS,)])
def test_a_replacement_runs_only_what_follows_for_every_row(monkeypatch, batches, rng, nodes):
    model, x = wrap(residual()), rng.normal(size=(9, 8, 3))
    kept = model.forward(x[None], capture=nodes)
    new = {node: kept[node] * rng.uniform(size=(6, *[1] * (kept[node].ndim - 1))) for node in nodes}
    batches.clear()
    x = np.broadcast_to(x, (6, *x.shape))
    found = model.forward(x, capture=("stem", "pool"), replace=new)
    assert all((6, 9, 8, 3) not in shapes for shapes in batches)
    monkeypatch.setenv("CNNVIZ_FAST", "0")
    agree(found.values, model.forward(x, capture=("stem", "pool"), replace=new).values)


def test_repeated_rows_run_once_where_nothing_is_replaced(batches, rng):
    model, x = wrap(residual()), rng.normal(size=(3, 9, 8, 3))
    found = model.forward(x[ROWS], capture=("branch",))
    assert batches == [[(3, 9, 8, 3)]]
    for node, value in model.forward(x, capture=("branch",)).values.items():
        np.testing.assert_array_equal(found[node], value[ROWS])


def test_gradients_at_the_input_have_nothing_to_share(batches, rng):
    x = rng.normal(size=(3, 9, 8, 3))[ROWS]
    wrap(residual()).pullback(x, Cotangent(np.ones(7)), wrt=(INPUT, "stem"))
    assert batches == [[(7, 9, 8, 3)]]


class ReadsItsSize(keras.Model):
    """A model whose end asks the input how many samples there are."""

    def __init__(self):
        super().__init__()
        self.conv = L.Conv2D(4, 3, name="conv")
        self.head = L.Dense(2, name="head")

    def call(self, x):
        return self.head(tf.reshape(self.conv(x), (tf.shape(x)[0], 6 * 5 * 4)))


def test_sizes_read_of_the_input_are_those_of_all_rows(monkeypatch, rng):
    native = ReadsItsSize()
    x = rng.normal(size=(3, 8, 7, 3)).astype("float32")[ROWS]
    native(x)
    pullbacks_agree(monkeypatch, wrap(native), x, wrt=("conv",))


class Mixes(L.Layer):
    """Normalises by the batch, as a batch normalisation that is left in training does."""

    def call(self, x):
        return x - tf.reduce_mean(x, axis=0, keepdims=True)


class Draws(L.Layer):
    """Adds noise, other for each row."""

    def call(self, x):
        return x + tf.random.stateless_uniform(tf.shape(x), (1, 2), dtype=x.dtype)


class Windows(L.Layer):
    """Gives each quarter of a picture a row of its own."""

    def call(self, x):
        return tf.reshape(x, (-1, 4, *x.shape[1:-1], x.shape[-1] // 4))[:, 0]


@pytest.mark.parametrize("layer", [Mixes, Draws, Windows])
def test_rows_that_depend_on_others_are_not_shared(monkeypatch, batches, rng, layer):
    net = keras.Sequential(
        [keras.Input((6, 6, 4)), layer(), L.Conv2D(4, 3, name="conv"), L.Flatten(), L.Dense(2)]
    )
    x = rng.normal(size=(3, 6, 6, 4)).astype("float32")[ROWS]
    pullbacks_agree(monkeypatch, wrap(net), x, wrt=("conv",))
    assert batches[-1] == [(7, 6, 6, 4)]
