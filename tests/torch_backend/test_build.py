"""A network of a `NetSpec`: its modules, and what the conformance kit does not look at."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from cnnviz_core.errors import ParameterError
from cnnviz_core.netspec import NetSpec, Op
from cnnviz_core.testing.nets import NETS, random_input
from cnnviz_core.testing.reference import ReferenceModel
from cnnviz_torch.build import build
from cnnviz_torch.model import wrap


def test_layers_are_modules_of_their_names():
    net = NETS["branches"]()
    built = build(net)
    modules = dict(built.named_modules())
    assert {"stem", "relu0", "left", "right", "concat", "gap", "fc"} <= set(modules)
    assert not any(name.startswith("relu_") for name in modules)  # functional ones
    assert not any(module.training for module in built.modules())


def test_dots_nest():
    rng = np.random.default_rng(0)
    spec = NetSpec(
        {"image": (5, 6, 3)},
        (
            Op("a", "conv", ("image",), layer="block.conv"),
            Op("b", "relu", ("a",), layer="block.act.relu", attrs={"inplace": True}),
            Op("c", "linear", ("b",), layer="block.mix"),
            Op("d", "gap", ("c",)),
        ),
        {
            "block.conv.weight": rng.normal(size=(2, 2, 3, 4)),
            "block.mix.weight": rng.normal(size=(4, 2)),
        },
    )
    built = build(spec)
    assert isinstance(built.block.conv, nn.Conv2d)
    assert isinstance(built.block.act.relu, nn.ReLU)
    model = wrap(built)
    assert list(model.layers) == ["block.conv", "block.act.relu", "block.mix", "d"]
    assert model.layers["block.mix"].shape == (4, 5, 2)
    x = random_input(spec)["image"]
    nodes = list(model.layers)
    trace, expected = (
        m.forward(x, capture=nodes) for m in (model, ReferenceModel(spec, "float64"))
    )
    for node in nodes:
        np.testing.assert_allclose(trace[node], expected[node], rtol=1e-5, atol=1e-6)


def test_a_value_that_is_read_again_is_not_overwritten():
    weights = {"conv.weight": np.random.default_rng(0).normal(size=(1, 1, 3, 3))}
    relu = {"inplace": True}
    spec = NetSpec(
        {"image": (3, 3, 3)},
        (
            Op("r0", "relu", ("image",), attrs=relu),
            Op("conv", "conv", ("r0",)),
            Op("r1", "relu", ("conv",), attrs=relu),
            Op("sum", "add", ("r1", "conv")),
            Op("r2", "relu6", ("sum",), attrs=relu),
        ),
        weights,
    )
    built = build(spec)
    assert [built.get_submodule(name).inplace for name in ("r0", "r1", "r2")] == [
        False,
        False,
        True,
    ]
    x = random_input(spec)["image"]
    expected = ReferenceModel(spec, "float64").forward(x).output
    np.testing.assert_allclose(wrap(built).forward(x).output, expected, rtol=1e-5, atol=1e-6)


def test_types():
    assert build(NETS["plain"](), dtype="float64").conv1.weight.dtype == torch.float64
    assert build(NETS["plain"]()).conv1.weight.dtype == torch.float32
    with pytest.raises(ParameterError, match="float16"):
        build(NETS["plain"](), dtype="float16")


def test_building_draws_no_random_numbers():
    before = torch.get_rng_state()
    build(NETS["residual"]())
    assert torch.equal(torch.get_rng_state(), before)


def test_the_arrays_are_copies():
    net = NETS["plain"]()
    kept = net.parameters["conv1.bias"].copy()
    with torch.no_grad():
        build(net, dtype="float64").conv1.bias.zero_()
    np.testing.assert_array_equal(net.parameters["conv1.bias"], kept)


POOLED = {
    1: ({"window": (3,), "stride": (2,), "padding": ((1, 0),)}, (11,)),
    3: (
        {"window": (2, 1, 3), "stride": (1, 2, 2), "padding": ((1, 0), (0, 0), (0, 2))},
        (4, 5, 6),
    ),
}


@pytest.mark.parametrize("axes", POOLED)
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_pools_groups_and_uneven_padding_in_one_and_three_axes(axes, groups):
    attrs, size = POOLED[axes]
    rng = np.random.default_rng(0)
    uneven = {"padding": ((2, 0),) * axes, "groups": groups}
    spec = NetSpec(
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
    model, reference = wrap(build(spec, "float64")), ReferenceModel(spec, "float64")
    x = random_input(spec)["x"].astype(np.float64)
    nodes = ["conv", "pool", "mean", "mix", "norm", "silu", "both"]
    expected = reference.forward(x, capture=nodes)
    actual = model.forward(x, capture=nodes)
    np.testing.assert_allclose(actual.output, expected.output, rtol=1e-10, atol=1e-12)
    for node in nodes:
        assert model.layers[node].grid == reference.layers[node].grid
        np.testing.assert_allclose(actual[node], expected[node], rtol=1e-10, atol=1e-12)
    back = [m.pullback(x, np.cos, wrt=["@input", "conv"]) for m in (model, reference)]
    for node in ("@input", "conv"):
        np.testing.assert_allclose(*(b.gradients[node] for b in back), rtol=1e-9, atol=1e-12)


def test_tokens_are_as_torch_has_them():
    """Channels last, each token normalised and mapped by the layers of torch themselves."""
    built = build(NETS["tokens"]())
    assert type(built.norm1) is nn.LayerNorm
    assert type(built.expand) is nn.Linear
    x = torch.zeros(2, 3, 12, 9)
    assert built.tokens(built.patches(x)).shape == (2, 12, 8)


def test_nothing_slides_over_tokens():
    weights = {"conv.weight": np.ones((3, 2, 2))}
    ops = (Op("tokens", "tokens", ("x",)), Op("conv", "conv", ("tokens",)))
    with pytest.raises(ParameterError, match="slides over tokens"):
        build(NetSpec({"x": (3, 4, 2)}, ops, weights))
