"""The reference model passes the kit that it is the reference of, and its gradients are true."""

from __future__ import annotations

import numpy as np
import pytest

from cnnviz_core.model import INPUT, LOGITS, input_node
from cnnviz_core.testing.backend import BackendConformance, assert_close
from cnnviz_core.testing.nets import NETS, random_input
from cnnviz_core.testing.reference import ReferenceModel


class TestReference(BackendConformance):
    def build(self, net):
        return ReferenceModel(net, "float32")


@pytest.mark.parametrize("name", NETS)
def test_gradients_equal_finite_differences(name):
    net = NETS[name]()
    model = ReferenceModel(net, "float64")
    x = {k: v.astype(np.float64) for k, v in random_input(net, 1, seed=4).items()}
    shape = model.forward(x).logits.shape
    rng = np.random.default_rng(5)
    cotangent = rng.normal(size=shape)
    nodes = [input_node(k) for k in x]
    gradients = model.pullback(x, cotangent, wrt=nodes).gradients
    for key, array in x.items():
        direction = rng.normal(size=array.shape)
        step = 1e-6
        ends = [
            (cotangent * model.forward({**x, key: array + s * direction}).logits).sum()
            for s in (step, -step)
        ]
        slope = (ends[0] - ends[1]) / (2 * step)
        assert abs((gradients[input_node(key)] * direction).sum() - slope) < 1e-6 * max(
            1, abs(slope)
        )


@pytest.mark.parametrize("name", ["residual", "depthwise"])
def test_layer_gradients_equal_finite_differences(name):
    net = NETS[name]()
    model = ReferenceModel(net, "float64")
    x = next(iter(random_input(net, 1, seed=6).values())).astype(np.float64)
    rng = np.random.default_rng(7)
    for node, info in model.layers.items():
        if info.kind not in ("conv", "norm", "add", "relu"):
            continue
        back = model.pullback(x, np.ones_like, wrt=[node])
        direction = rng.normal(size=back.values[node].shape)
        ends = [
            model.forward(x, replace={node: back.values[node] + s * direction}).logits.sum()
            for s in (1e-6, -1e-6)
        ]
        slope = (ends[0] - ends[1]) / 2e-6
        assert abs((back.gradients[node] * direction).sum() - slope) < 1e-6 * max(1, abs(slope))


def test_convolution_equals_scipy():
    from scipy.signal import correlate2d

    net = NETS["plain"]()
    x = random_input(net, 1)["image"].astype(np.float64)
    out = ReferenceModel(net, "float64").forward(x, capture=["conv1"])["conv1"][0]
    weight, bias = net.parameters["conv1.weight"], net.parameters["conv1.bias"]
    for o in range(weight.shape[-1]):
        expected = bias[o] + sum(
            correlate2d(x[0, ..., i], weight[..., i, o], mode="same") for i in range(3)
        )
        np.testing.assert_allclose(out[..., o], expected, rtol=1e-12, atol=1e-12)


def test_first_input_is_the_default_node():
    net = NETS["plain"]()
    model = ReferenceModel(net)
    x = random_input(net)["image"]
    a = model.pullback(x, np.ones_like, of=LOGITS, wrt=[INPUT]).gradients[INPUT]
    b = model.pullback(x, np.ones_like, wrt=["@input:image"]).gradients["@input:image"]
    np.testing.assert_array_equal(a, b)


def test_assert_close_can_fail():
    with pytest.raises(AssertionError, match="differs by"):
        assert_close(np.array([1.0, 2.1]), np.array([1.0, 2.0]), 1e-3)
    with pytest.raises(AssertionError, match="shape"):
        assert_close(np.ones(2), np.ones(3), 1.0)
    with pytest.raises(AssertionError, match="differs by"):
        assert_close(np.full(2, 0.1), np.zeros(2), 1e-3)
