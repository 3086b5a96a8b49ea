"""The TensorFlow backend passes the conformance kit."""

from __future__ import annotations

import pytest

from cnnviz_core.testing.backend import KINDS, BackendConformance
from cnnviz_core.testing.nets import NETS
from cnnviz_tf.build import build
from cnnviz_tf.model import wrap


class TestTensorFlow(BackendConformance):
    def build(self, net):
        return wrap(build(net))

    @pytest.mark.parametrize("name", NETS)
    def test_layers_are_the_networks_in_forward_order(self, name):
        """Keras runs branches that do not depend on each other in an order of its own."""
        model, reference, x, net = self._pair(name)
        model.forward(x)
        expected = {n: i for n, i in reference.layers.items() if i.kind in KINDS}
        found = [n for n in model.layers if n in expected]
        assert set(found) == set(expected)
        before = {name: set() for name in net.inputs}
        for op in net.ops:
            before[op.name] = set(op.inputs).union(*(before[i] for i in op.inputs))
        nodes = {op.name: net.node(op) for op in net.ops}
        for op in net.ops:
            earlier = {nodes[n] for n in before[op.name] if n in nodes} & set(found)
            if nodes[op.name] in found:
                assert earlier <= set(found[: found.index(nodes[op.name])])
        for node, info in expected.items():
            layer = model.layers[node]
            assert (layer.name, layer.kind, layer.shape) == (node, info.kind, info.shape)
            assert layer.grid == info.grid
            assert (layer.path, layer.call, layer.calls) == (info.path, info.call, info.calls)
