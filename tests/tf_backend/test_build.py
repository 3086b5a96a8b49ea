"""Keras models built of data: they compute what the reference computes, in both precisions."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from cnnviz_core.model import input_node
from cnnviz_core.netspec import NetSpec, Op
from cnnviz_core.testing.nets import NETS, random_input
from cnnviz_core.testing.reference import ReferenceModel
from cnnviz_tf.build import build
from cnnviz_tf.model import wrap

# Keras converts arrays for saving in a way that NumPy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.mark.parametrize("name", NETS)
def test_double_precision_equals_the_reference(name):
    net = NETS[name]()
    native = build(net, dtype="float64")
    x = {k: v.astype(np.float64) for k, v in random_input(net, 2).items()}
    model, reference = wrap(native), ReferenceModel(net, "float64")
    nodes = [input_node(k) for k in x]
    actual = model.pullback(x, lambda v: v * v, wrt=nodes)
    expected = reference.pullback(x, lambda v: v * v, wrt=nodes)
    # TensorFlow keeps the slope of a leaky ReLU in single precision
    rtol = 1e-8 if name == "branches" else 1e-14
    for node in nodes:
        g = expected.gradients[node]
        assert actual.gradients[node].dtype == np.float64
        np.testing.assert_allclose(actual.gradients[node], g, rtol=0, atol=rtol * np.abs(g).max())


def test_every_layer_bears_its_name():
    native = build(NETS["strided"]())
    assert isinstance(native, keras.Model)
    names = [layer.name for layer in native.layers]
    assert names[:5] == ["image", "conv1_pad", "conv1", "relu1", "pool1_pad"]
    assert native.name == "strided"
    functional = [layer.name for layer in build(NETS["branches"]()).layers]
    assert "relu_left" not in functional


def test_padding_never_wins_a_maximum():
    """Neither in the value nor in the gradient, though all values are far below zero."""
    pad = {"window": (2, 2), "stride": (1, 1), "padding": ((1, 0), (0, 1))}
    net = NetSpec({"image": (3, 4, 1)}, (Op("pool", "maxpool", ("image",), attrs=pad),), {}, "pad")
    x = -1e6 * np.arange(1, 13, dtype=np.float32).reshape(1, 3, 4, 1)
    model, reference = wrap(build(net)), ReferenceModel(net)
    np.testing.assert_array_equal(model.forward(x).output, reference.forward(x).output)
    actual = model.pullback(x, np.ones_like).gradients["@input"]
    np.testing.assert_array_equal(actual, reference.pullback(x, np.ones_like).gradients["@input"])
    assert actual.sum() == 12


POOLED = {
    1: ({"window": (3,), "stride": (2,), "padding": ((1, 0),)}, (11,), (1, 2, 4)),
    3: (
        {"window": (2, 1, 3), "stride": (1, 2, 2), "padding": ((1, 0), (0, 0), (0, 2))},
        (4, 5, 6),
        (1,),
    ),
}


@pytest.mark.parametrize(
    ("axes", "groups"), [(axes, g) for axes, (*_, groups) in POOLED.items() for g in groups]
)
def test_pools_groups_and_uneven_padding_in_one_and_three_axes(axes, groups):
    """In single precision: for volumes TensorFlow has no pools in double."""
    attrs, size, _ = POOLED[axes]
    rng = np.random.default_rng(0)
    # No two equal values in a window: TensorFlow's max-pool of volumes gives each of them the whole
    # gradient, where its max-pool of pictures, torch and the reference give it to the first.
    uneven = {"padding": ((1, 0),) * axes, "groups": groups}
    net = NetSpec(
        {"x": (*size, 4)},
        (
            Op("conv", "conv", ("x",), attrs=uneven),
            Op("pool", "maxpool", ("conv",), attrs=attrs),
            Op("mean", "avgpool", ("pool",), attrs={"stride": (1,) * axes}),
            Op("mix", "linear", ("mean",)),
            Op("norm", "layernorm", ("mix",)),
            Op("silu", "silu", ("norm",)),
            Op("both", "concat", ("silu", "mix")),
            Op("flat", "flatten", ("both",)),
        ),
        {
            "conv.weight": rng.normal(size=(*(2,) * axes, 4 // groups, 8)),
            "mix.weight": rng.normal(size=(8, 3)),
            "norm.scale": rng.normal(size=3),
            "norm.shift": rng.normal(size=3),
        },
    )
    model, reference = wrap(build(net)), ReferenceModel(net, "float64")
    x = random_input(net)["x"]
    nodes = ["conv", "pool", "mean", "mix", "norm", "silu", "both"]
    expected, actual = (m.forward(x, capture=nodes) for m in (reference, model))
    for node in (*nodes, "@output"):
        np.testing.assert_allclose(actual[node], expected[node], rtol=1e-4, atol=1e-5)
    for node in nodes:
        assert model.layers[node].grid == reference.layers[node].grid
    back = [m.pullback(x, np.cos, wrt=["@input", "conv"]) for m in (model, reference)]
    for node in ("@input", "conv"):
        np.testing.assert_allclose(*(b.gradients[node] for b in back), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["strided", "depthwise", "branches", "signal", "tokens"])
def test_it_can_be_saved_and_loaded(name, tmp_path):
    net = NETS[name]()
    native = build(net)
    native.save(tmp_path / "net.keras")
    loaded = keras.saving.load_model(tmp_path / "net.keras")
    (x,) = random_input(net).values()
    np.testing.assert_array_equal(loaded(x).numpy(), native(x).numpy())
