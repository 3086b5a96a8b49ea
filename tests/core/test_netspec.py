"""A network as data: its checks, its shapes, its file."""

from __future__ import annotations

import numpy as np
import pytest

from cnnviz_core.errors import ModelSourceError, ParameterError
from cnnviz_core.netspec import NetSpec, Op
from cnnviz_core.rules import DECONVNET, GUIDED, STANDARD, BackwardRule
from cnnviz_core.steps import ReluStep
from cnnviz_core.testing.nets import NETS, random_input
from cnnviz_core.testing.reference import ReferenceModel


@pytest.mark.parametrize("name", NETS)
def test_the_file_holds_all_of_it(name, tmp_path):
    net = NETS[name]()
    net.save(tmp_path / "net.npz")
    back = NetSpec.load(tmp_path / "net.npz")
    assert (back.name, back.ops, dict(back.inputs)) == (net.name, net.ops, dict(net.inputs))
    x = random_input(net)
    np.testing.assert_array_equal(
        ReferenceModel(back).forward(x).output, ReferenceModel(net).forward(x).output
    )


@pytest.mark.parametrize("name", NETS)
def test_shapes_are_those_of_the_values(name):
    net = NETS[name]()
    model = ReferenceModel(net)
    trace = model.forward(random_input(net, 1), capture=list(model.layers))
    shapes = net.shapes()
    for op in net.ops:
        if net.node(op) in model.layers:
            assert trace[net.node(op)].shape[1:] == shapes[op.name]


def test_what_is_no_network(tmp_path):
    other = tmp_path / "other.npz"
    np.savez(other, a=np.ones(3))
    torn = tmp_path / "torn.npz"
    NETS["plain"]().save(torn)
    torn.write_bytes(torn.read_bytes()[:200])
    for path in (other, torn):
        with pytest.raises(ModelSourceError, match="holds no network"):
            NetSpec.load(path)
    with pytest.raises(FileNotFoundError):
        NetSpec.load(tmp_path / "absent.npz")


@pytest.mark.parametrize(
    ("ops", "message"),
    [
        ([Op("a", "relu", ("b",))], "unknown"),
        ([Op("a", "relu", ("x",)), Op("a", "relu", ("x",))], "twice"),
        ([Op("a", "linear", ("x",))], "no weight"),
    ],
)
def test_a_graph_that_cannot_be_computed(ops, message):
    with pytest.raises(ParameterError, match=message):
        NetSpec({"x": (3,)}, ops, {})


def test_an_unknown_kind():
    with pytest.raises(ParameterError, match="swish"):
        Op("a", "swish", ("x",))


def test_rules_are_values():
    assert BackwardRule("guided", {"relu": ReluStep(True, True)}) == GUIDED
    assert len({GUIDED, DECONVNET, STANDARD, BackwardRule("standard")}) == 3
    assert STANDARD.needs == frozenset()
    assert DECONVNET.needs == {"rule:relu"}


def test_what_is_left_unsaid_follows_the_grid():
    rng = np.random.default_rng(0)
    for size in ((9,), (9, 8), (9, 8, 7)):
        axes = len(size)
        net = NetSpec(
            {"x": (*size, 2)},
            (
                Op("conv", "conv", ("x",)),
                Op("max", "maxpool", ("conv",)),
                Op("mean", "avgpool", ("max",), attrs={"window": [3] * axes}),
                Op("gap", "gap", ("mean",)),
            ),
            {"conv.weight": rng.normal(size=(*(2,) * axes, 2, 3))},
        )
        conv, largest, mean, _ = net.ops
        ones, none = (1,) * axes, ((0, 0),) * axes
        assert conv.attrs == {"stride": ones, "padding": none, "dilation": ones, "groups": 1}
        assert largest.attrs == {"window": (2,) * axes, "stride": (2,) * axes, "padding": none}
        assert mean.attrs == {"window": (3,) * axes, "stride": (3,) * axes}
        assert net.shapes()["conv"] == (*(n - 1 for n in size), 3)
        assert net.grids()["max"] == tuple((n - 1) // 2 for n in size)


@pytest.mark.parametrize(
    ("op", "message"),
    [
        (Op("a", "conv", ("x",), attrs={"stride": (1, 1)}), "stride"),
        (Op("a", "conv", ("x",), attrs={"padding": ((1, 1), (1, 1))}), "padding"),
        (Op("a", "maxpool", ("x",), attrs={"window": (2, 2)}), "window"),
        (Op("a", "conv", ("x",), layer="b"), "kernel"),
    ],
)
def test_attributes_of_another_rank_are_refused(op, message):
    weights = {"a.weight": np.ones((3, 2, 2)), "b.weight": np.ones((3, 3, 2, 2))}
    with pytest.raises(ParameterError, match=message):
        NetSpec({"x": (9, 2)}, (op,), weights)


def test_tokens_keep_the_grid_that_they_come_from():
    net = NETS["tokens"]()
    grids, shapes = net.grids(), net.shapes()
    for name in ("patches", "tokens", "norm1", "project", "add", "norm2"):
        assert grids[name] == (4, 3)
    assert shapes["tokens"] == (12, 8)
    assert grids["gap"] is None
    assert grids["fc"] is None


def test_pools_and_norms_are_their_formulas():
    """Written plainly, in one and in three axes."""
    rng = np.random.default_rng(1)
    scale, shift = rng.normal(size=(2, 3))
    for size in ((5,), (3, 4, 5)):
        x = rng.normal(size=(2, *size, 3))
        pool = {"window": (2,) * len(size), "stride": (1,) * len(size)}
        net = NetSpec(
            {"x": (*size, 3)},
            (
                Op("max", "maxpool", ("x",), attrs=pool),
                Op("mean", "avgpool", ("x",), attrs=pool),
                Op("norm", "layernorm", ("x",), attrs={"epsilon": 0.1}),
                Op("silu", "silu", ("x",)),
                Op("gap", "gap", ("x",)),
            ),
            {"norm.scale": scale, "norm.shift": shift},
        )
        trace = ReferenceModel(net, "float64").forward(x, capture=["max", "mean", "norm", "silu"])
        windows = np.lib.stride_tricks.sliding_window_view(
            x, pool["window"], tuple(range(1, x.ndim - 1))
        )
        inside = tuple(range(x.ndim, windows.ndim))
        np.testing.assert_allclose(trace["max"], windows.max(inside))
        np.testing.assert_allclose(trace["mean"], windows.mean(inside), rtol=1e-12)
        variance = x.var(-1, keepdims=True)
        expected = (x - x.mean(-1, keepdims=True)) / np.sqrt(variance + 0.1) * scale + shift
        np.testing.assert_allclose(trace["norm"], expected, rtol=1e-12)
        np.testing.assert_allclose(trace["silu"], x / (1 + np.exp(-x)), rtol=1e-12)
        np.testing.assert_allclose(trace.output, x.reshape(2, -1, 3).mean(1), rtol=1e-12)


@pytest.mark.parametrize("kind", ["silu", "layernorm", "tokens"])
def test_the_new_operations_gradients_equal_finite_differences(kind):
    rng = np.random.default_rng(2)
    arrays = {"a.scale": rng.normal(size=4), "a.shift": rng.normal(size=4)}
    net = NetSpec({"x": (3, 2, 4)}, (Op("a", kind, ("x",)),), arrays)
    model, x = ReferenceModel(net, "float64"), rng.normal(size=(2, 3, 2, 4))
    cotangent = rng.normal(size=model.forward(x).output.shape)
    gradient = model.pullback(x, cotangent).gradients["@input"]
    for _ in range(5):
        direction = rng.normal(size=x.shape)
        up, down = (model.forward(x + s * direction).output for s in (1e-6, -1e-6))
        slope = (cotangent * (up - down)).sum() / 2e-6
        assert (gradient * direction).sum() == pytest.approx(slope, rel=1e-6)
