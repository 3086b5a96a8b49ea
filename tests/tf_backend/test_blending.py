"""Batches that are described: made by TensorFlow as NumPy makes them, and run like any other."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from cnnviz_core.blended import BLEND, Blended
from cnnviz_core.errors import CnnvizError, OutOfMemoryError
from cnnviz_core.inputs import OneInput
from cnnviz_core.mask_forms import Affine, Drawn, NumPyArrays, Separable, draw
from cnnviz_core.memo import MemoModel
from cnnviz_core.model import INPUT
from cnnviz_core.registry import get_registry
from cnnviz_core.targets import ClassScore
from cnnviz_core.testing.blending import hard_forms, soft_forms
from cnnviz_core.testing.nets import NETS, random_input
from cnnviz_tf.blending import TensorFlowArrays, to_tensor
from cnnviz_tf.build import build
from cnnviz_tf.model import wrap

L = keras.layers
SIZES = [(7,), (6, 5), (4, 3, 5)]
X = np.random.default_rng(0).normal(size=(6, 5, 3)).astype(np.float32)
SOFT = soft_forms((6, 5))


def small(dtype="float32", shape=(6, 5, 3)):
    return keras.Sequential(
        [
            keras.Input(shape, dtype="float64" if dtype == "float64" else None),
            L.Conv2D(4, 3, activation="relu", dtype=dtype, name="conv"),
            L.GlobalAveragePooling2D(dtype=dtype),
            L.Dense(3, dtype=dtype),
        ]
    )


def logits(model, batch):
    return model.forward(batch).logits


# ------------------------------------------------------------------------------- the batch


@pytest.mark.parametrize("size", SIZES, ids=len)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_masks_are_those_of_numpy(size, dtype):
    for name, form in {**soft_forms(size), **hard_forms(size)}.items():
        actual = draw(form, TensorFlowArrays(tf.as_dtype(dtype)))
        assert actual.dtype == dtype, name
        eps = np.finfo(dtype).eps
        expected = draw(form, NumPyArrays(dtype))
        np.testing.assert_allclose(actual.numpy(), expected, rtol=4 * eps, atol=4 * eps)


def test_a_mask_that_is_constant_or_huge_stretches_as_in_numpy():
    weights = [np.ones((2, 6)), np.eye(3, 5)]
    values = np.stack([np.zeros((2, 3)), np.full((2, 3), 1.6e38) * [-1, 0, 1]])
    form = Separable(values, weights, stretch=True)
    actual = draw(form, TensorFlowArrays(tf.float32)).numpy()
    np.testing.assert_array_equal(actual, draw(form, NumPyArrays()))
    assert set(np.unique(actual[1])) == {0, 0.5, 1}


@pytest.mark.parametrize("fill", [0.5, [1, 2, 3], X[:1] * 2, X[::-1, ::-1]])
def test_the_tensor_is_the_batch(fill):
    for form in SOFT.values():
        batch = Blended(X, form, np.asarray(fill, np.float32))
        made = to_tensor(batch)
        assert made.dtype == tf.float32
        np.testing.assert_allclose(made.numpy(), np.asarray(batch), rtol=1e-6, atol=1e-6)


def test_weights_keep_all_their_digits():
    """Some devices shorten the factors of single-precision products."""
    seen = []

    class Noting(TensorFlowArrays):
        def combine(self, values, weights):
            product = tf.matmul
            try:
                tf.matmul = lambda a, b, **more: seen.append(a.dtype) or product(a, b, **more)
                return super().combine(values, weights)
            finally:
                tf.matmul = product

    draw(SOFT["separable"], Noting(tf.float32))
    assert seen == [tf.float64] * 2


# ------------------------------------------------------------------------------- networks


@pytest.mark.parametrize("given", [np.float32, np.float64])
def test_doubles_are_blended_in_doubles(given):
    model, x = wrap(small("float64")), X.astype(given)
    batch = Blended(x, SOFT["separable"], x.mean((0, 1)))
    made = np.asarray(batch.astype(np.float64))
    assert logits(model, batch).dtype == np.float64
    np.testing.assert_allclose(logits(model, batch), logits(model, made), rtol=1e-12)


def test_half_networks_are_given_singles():
    model, batch = wrap(small("mixed_float16")), Blended(X, SOFT["separable"], np.float32(1 / 3))
    made = np.asarray(batch)
    trace = model.forward(batch, capture=[INPUT])
    np.testing.assert_allclose(trace[INPUT], made, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(trace.logits, logits(model, made), rtol=5e-3, atol=5e-3)


def test_integers_are_blended_as_real_numbers():
    model, x = wrap(small()), np.arange(90).reshape(6, 5, 3)
    batch = Blended(x, SOFT["labelled"], np.array(4))
    made = np.asarray(batch.astype(np.float32))
    np.testing.assert_allclose(logits(model, batch), logits(model, made), rtol=1e-5, atol=1e-5)


def test_the_first_batch_may_be_described():
    model = wrap(small(shape=(None, None, 3)))
    batch = Blended(X, SOFT["stretched"], np.float32(0))
    found = logits(model, batch)
    assert model.layers["conv"].shape == (4, 3, 4)
    np.testing.assert_allclose(found, logits(model, np.asarray(batch)), rtol=1e-5, atol=1e-7)


def test_values_may_be_replaced_by_functions_of_them():
    model, batch = wrap(small()), Blended(X, SOFT["drawn"], np.float32(0))
    seen = []

    def halved(value):
        seen.append(value)
        return value / 2

    actual = model.forward(batch, replace={"conv": halved, INPUT: halved})
    expected = model.forward(np.asarray(batch), replace={"conv": halved, INPUT: halved})
    np.testing.assert_allclose(actual.logits, expected.logits, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(seen[0], np.asarray(batch), rtol=1e-6, atol=1e-6)


def test_exported_networks_offer_it(tmp_path):
    native, batch = small(), Blended(X, SOFT["separable"], np.float32(0))
    native.export(tmp_path, verbose=False)
    model = wrap(tf.saved_model.load(str(tmp_path)))
    assert BLEND in model.capabilities
    expected = logits(wrap(native), np.asarray(batch))
    np.testing.assert_allclose(logits(model, batch), expected, rtol=1e-5, atol=1e-6)


def test_one_of_several_inputs_is_described():
    net = NETS["two_inputs"]()
    x = random_input(net, 1)
    for free in x:
        held = {name: array for name, array in x.items() if name != free}
        model = OneInput(wrap(build(net)), free, held)
        assert BLEND in model.capabilities
        batch = Blended(x[free][0], soft_forms(x[free].shape[1:-1])["labelled"], np.float32(0))
        actual, expected = (model.forward(b, capture=[INPUT]) for b in (batch, np.asarray(batch)))
        np.testing.assert_allclose(actual.logits, expected.logits, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(actual[INPUT], expected[INPUT], rtol=1e-6, atol=1e-6)


def test_a_model_that_remembers_lets_it_through(monkeypatch):
    model = wrap(small())
    memo = MemoModel(model, X[None])
    known = logits(memo, X[None])
    batch = Blended(X, Affine(SOFT["drawn"], 0, 1), np.float32(0))  # the batch, five times
    made = never_made(monkeypatch)
    for part in (batch, batch[:1]):
        found = logits(memo, part)
        np.testing.assert_allclose(found, known.repeat(len(part), 0), rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(found, logits(model, part))
    np.testing.assert_array_equal(logits(memo, X[None]), known)
    assert not made


# ------------------------------------------------------------------------------- methods


def never_made(monkeypatch):
    """Let NumPy refuse to make a described batch; give the list of those that it was to make."""
    asked = []

    def refuse(self, dtype=None, copy=None):
        asked.append(self)
        raise AssertionError("NumPy made the batch")

    monkeypatch.setattr(Blended, "__array__", refuse)
    return asked


@pytest.mark.parametrize("name", ["rise", "occlusion", "score-cam"])
def test_methods_describe_their_batches(name, monkeypatch):
    net = NETS["plain"]()
    x = random_input(net, 1)["image"]
    known = {"samples": 40, "layer": "conv2"}
    fields = get_registry().parameters(name)
    params = {p.name: known[p.name] for p in fields if p.name in known}
    method = get_registry().explainer(name, **params)
    with monkeypatch.context() as patch:
        patch.setattr(type(wrap(build(net))), "capabilities", frozenset({"capture", "replace"}))
        expected = method.explain(wrap(build(net)), x, [ClassScore(1)]).raw
    never_made(monkeypatch)
    actual = method.explain(wrap(build(net)), x, [ClassScore(1)]).raw
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


# ------------------------------------------------------------------------------- memory


class Limited(tf.Module):
    """Has memory for three samples at once, as TensorFlow itself finds."""

    def __init__(self):
        super().__init__()
        self.net = small()

    def __call__(self, x):
        many = tf.cast(tf.shape(x)[0] > 3, tf.int64)
        return self.net(x) + tf.fill([1 + many * (1 << 52)], 0.0)[0]


def test_tensorflow_without_memory_is_told_apart():
    model, x = wrap(Limited(), input_shape=(6, 5, 3)), np.stack([X + n for n in range(5)])
    for ask in (logits, lambda m, x: m.pullback(x, np.ones_like)):
        with pytest.raises(OutOfMemoryError, match="batch_size='auto'") as caught:
            ask(model, x)
        assert isinstance(caught.value, MemoryError)
        assert isinstance(caught.value, CnnvizError)
        assert isinstance(caught.value.__cause__, tf.errors.ResourceExhaustedError)
        assert "(5, 6, 5, 3)" in caught.value.problem
        assert "\n" not in caught.value.problem
    assert logits(model, x[:3]).shape == (3, 3)


def test_a_measured_batch_size_ends_where_the_memory_does():
    net = Limited()
    expected = get_registry().explainer("rise", samples=20, cells=2)
    measured = get_registry().explainer("rise", samples=20, cells=2, batch_size="auto")
    maps = measured.explain(wrap(net, input_shape=(6, 5, 3)), X[None], [ClassScore(1)])
    plain = expected.explain(wrap(net.net), X[None], [ClassScore(1)])
    np.testing.assert_allclose(maps.raw, plain.raw, rtol=1e-4, atol=1e-6)


def test_a_batch_too_large_to_be_made_is_told_too(monkeypatch):
    def exhausted(*_, **__):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")

    monkeypatch.setattr(tf, "tile", exhausted)
    with pytest.raises(OutOfMemoryError, match="OOM when allocating"):
        wrap(small()).forward(Blended(X, Drawn(np.ones((2, 6, 5))), np.float32(0)))
