"""A network as data: its checks, its shapes, its file."""

from __future__ import annotations

import numpy as np
import pytest

from cnnviz_core.errors import ModelSourceError, ParameterError
from cnnviz_core.netspec import NetSpec, Op
from cnnviz_core.rules import DECONVNET, GUIDED, STANDARD, BackwardRule, ReluStep
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
