"""Layers' values and gradients are those that the network computes, whatever follows them."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cnnviz_core.errors import ArrayError, UnknownLayerError
from cnnviz_core.model import INPUT, LOGITS, OUTPUT
from cnnviz_torch.model import wrap
from support.torch_nets import (
    Residual,
    Vgg,
    assert_gradients_are_slopes,
    native,
    picture,
    seeded,
)


class Head(nn.Module):
    """A convolution, something done in place to its result, and a pooled head."""

    def __init__(self, overwrite):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3)
        self.relu = nn.ReLU(inplace=True)
        self.fc = nn.Linear(6, 4)
        self.overwrite = overwrite

    def forward(self, x):
        return self.fc(self.overwrite(self, self.conv(x)).mean((2, 3)))


def _add_shifted(net, value):
    identity = value.roll(1, 2)
    value += identity
    return F.relu_(value)


OVERWRITES = {
    "F.relu_": (lambda net, v: F.relu_(v), lambda v: v.relu()),
    "F.relu(inplace)": (lambda net, v: F.relu(v, inplace=True), lambda v: v.relu()),
    "nn.ReLU(inplace)": (lambda net, v: net.relu(v), lambda v: v.relu()),
    "out += identity": (_add_shifted, lambda v: (v + v.roll(1, 2)).relu()),
    "mul_": (lambda net, v: v.mul_(2).tanh_(), lambda v: (2 * v).tanh()),
}


@pytest.mark.parametrize("how", OVERWRITES)
def test_in_place_operations_after_the_layer(how):
    overwrite, pure = OVERWRITES[how]
    net = seeded(Head, overwrite)
    model, x = wrap(net), picture()
    assert_gradients_are_slopes(model, x, ["conv", INPUT])

    value = net.conv(native(x)).detach().requires_grad_()
    scores = net.fc(pure(value).mean((2, 3)))
    (expected,) = torch.autograd.grad(scores[:, 1].sum(), value)
    one_hot = np.eye(4)[[1, 1]]
    back = model.pullback(x, one_hot, wrt=["conv"])
    kept = value.detach().movedim(1, -1).numpy()
    np.testing.assert_allclose(back.values["conv"], kept, rtol=1e-12)
    np.testing.assert_array_equal(model.forward(x, capture=["conv"])["conv"], back.values["conv"])
    actual = back.gradients["conv"]
    np.testing.assert_allclose(actual, expected.movedim(1, -1).numpy(), rtol=1e-12)


def test_a_layer_that_hands_its_input_on_keeps_its_value():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)
            self.same = nn.Identity()
            self.drop = nn.Dropout()

        def forward(self, x):
            x = self.conv(x)
            y = self.drop(self.same(x))
            x.mul_(-3)  # an alias of both layers' results
            return (y * x).mean((2, 3))

    net = seeded(Net)
    model, x = wrap(net), picture()
    expected = net.conv(native(x)).detach().movedim(1, -1).numpy()
    trace = model.forward(x, capture=["same", "drop", "conv"])
    for node in ("same", "drop", "conv"):
        np.testing.assert_allclose(trace[node], expected, rtol=1e-12)


def test_capturing_changes_no_bit_of_the_output():
    net = seeded(Residual, dtype=torch.float32)
    model, x = wrap(net), picture(dtype=np.float32)
    with torch.no_grad():
        expected = net(native(x)).numpy()
    np.testing.assert_array_equal(model.forward(x).output, expected)
    everything = model.forward(x, capture=list(model.layers))
    np.testing.assert_array_equal(everything.output, expected)
    np.testing.assert_array_equal(model.pullback(x, np.ones_like).values[LOGITS], expected)


@pytest.mark.parametrize("nodes", [["bn1"], ["relu@0", "bn2"], ["conv2", INPUT, "stem"]])
def test_skip_connections_around_the_layer(nodes):
    assert_gradients_are_slopes(wrap(seeded(Residual)), picture(), nodes)


def test_every_layer_of_a_residual_network():
    model, x = wrap(seeded(Residual)), picture(1)
    model.forward(x)
    for node in model.layers:
        assert_gradients_are_slopes(model, x, [node])


def test_gradient_of_a_layer_with_respect_to_layers():
    model, x = wrap(seeded(Residual)), picture()
    assert_gradients_are_slopes(model, x, ["stem", "relu@1", INPUT], of="bn2")


def test_several_nodes_at_once_equal_one_at_a_time():
    model, x = wrap(seeded(Residual)), picture()
    nodes = ["bn2", "stem", INPUT, "relu@1"]
    together = model.pullback(x, np.ones_like, wrt=nodes)
    for node in nodes:
        alone = model.pullback(x, np.ones_like, wrt=[node]).gradients[node]
        np.testing.assert_allclose(together.gradients[node], alone, rtol=1e-12, atol=1e-15)


def test_no_node_gives_the_values_alone():
    model, x = wrap(seeded(Residual)), picture()
    back = model.pullback(x, np.ones_like, wrt=[])
    assert dict(back.gradients) == {}
    np.testing.assert_array_equal(back.values[LOGITS], model.forward(x).logits)


def test_a_node_is_its_own_derivative():
    model, x = wrap(seeded(Residual)), picture()
    back = model.pullback(x, lambda v: 3 * v, of="bn2", wrt=["bn2"])
    np.testing.assert_allclose(back.gradients["bn2"], 3 * back.values["bn2"])


def test_reused_layers_are_told_apart():
    net = seeded(Residual)
    model, x = wrap(net), picture()
    trace = model.forward(x, capture=["relu@0", "relu@1", "relu@2"])
    assert [info.calls for info in model.layers.values() if info.path == "relu"] == [3, 3, 3]
    shapes = [trace[f"relu@{k}"].shape for k in range(3)]
    assert shapes == [(2, 12, 10, 6), (2, 6, 5, 6), (2, 6, 5, 6)]
    assert not np.array_equal(trace["relu@1"], trace["relu@2"])
    with pytest.raises(UnknownLayerError, match="3 times"):
        model.pullback(x, np.ones_like, wrt=["relu"])


class Pair(NamedTuple):
    count: torch.Tensor
    features: torch.Tensor


@dataclass
class Record:
    count: torch.Tensor
    features: torch.Tensor
    again: torch.Tensor


class ModelOutput(OrderedDict):
    """A mapping whose items are attributes too, as transformers' ModelOutput."""

    def __setitem__(self, key, value):
        super().__setitem__(key, value)
        super().__setattr__(key, value)


STRUCTURES = {
    "tuple": (lambda v: (torch.zeros(2, dtype=torch.int64), v), lambda o: o[1]),
    "list": (lambda v: [None, v, v], lambda o: o[2]),
    "nested": (lambda v: {"a": {"b": (v, "text")}}, lambda o: o["a"]["b"][0]),
    "namedtuple": (lambda v: Pair(torch.tensor(3), v), lambda o: o.features),
    "dataclass": (lambda v: Record(torch.tensor(3), v, v), lambda o: o.again),
    "ModelOutput": (
        lambda v: ModelOutput(count=torch.tensor(3), features=v),
        lambda o: o.features,
    ),
}


@pytest.mark.parametrize("kind", STRUCTURES)
def test_layers_that_return_structures(kind):
    make, take = STRUCTURES[kind]

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 5, 3)

        def forward(self, x):
            return make(self.conv(x))

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.block = Block()

        def forward(self, x):
            return F.relu_(take(self.block(x))).mean((2, 3))

    net = seeded(Net)
    model, x = wrap(net), picture()
    assert_gradients_are_slopes(model, x, ["block"])
    np.testing.assert_array_equal(
        model.forward(x, capture=["block"])["block"],
        net.block.conv(native(x)).detach().movedim(1, -1).numpy(),
    )
    zeros = model.forward(x, replace={"block": np.zeros_like}).output
    np.testing.assert_array_equal(zeros, np.zeros_like(zeros))


OUTPUTS = {
    "dict": (lambda y, z: {"aux": z, "out": y}, None),
    "logits": (lambda y, z: ModelOutput(loss=z, logits=y), None),
    "first": (lambda y, z: (y, z), None),
    "index": (lambda y, z: (z, y), 1),
    "key": (lambda y, z: {"out": z, "mine": y}, "mine"),
    "function": (lambda y, z: [z, {"deep": y}], lambda o: o[1]["deep"]),
    "attribute": (lambda y, z: Record(z, z, y), "again"),
}


@pytest.mark.parametrize("kind", OUTPUTS)
def test_networks_that_return_structures(kind):
    make, output = OUTPUTS[kind]

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x):
            y = self.conv(x).relu().mean((2, 3))
            return make(y, y[:, :2] * 100)

    net = seeded(Net)
    model, x = wrap(net, output=output), picture()
    expected = net.conv(native(x)).relu().mean((2, 3)).detach().numpy()
    np.testing.assert_allclose(model.forward(x).output, expected, rtol=1e-12)
    assert_gradients_are_slopes(model, x, ["conv"])


def test_results_are_nobody_elses_memory():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = Table()
            self.register_buffer("scores", torch.ones(1, 4))

        def forward(self, x):
            self.table()
            self.scores += 1
            return self.scores

    class Table(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1, 4, 2, 2))

        def forward(self):
            return self.weight

    net = seeded(Net)
    model = wrap(net)
    first = model.forward(picture(1), capture=["table"])
    first["table"][...] = 7
    kept = first.output.copy()
    model.forward(picture(1))
    np.testing.assert_array_equal(first.output, kept)
    assert not net.table.weight.any()


@pytest.mark.parametrize("shape", [(2, 8, 7, 3), (2, 8, 7, 1), (2, 6)])
def test_the_input_is_not_overwritten(shape):
    net = seeded(lambda: nn.Sequential(nn.ReLU(inplace=True), nn.Flatten()))
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    kept = x.copy()
    for writeable in (True, False):
        x.flags.writeable = writeable
        model = wrap(net)
        model.forward(x)
        model.pullback(x, np.ones_like)
        np.testing.assert_array_equal(x, kept)


def test_channels_last_views_are_taken():
    model = wrap(seeded(Residual))
    x = picture()
    turned = np.ascontiguousarray(x.transpose(3, 1, 2, 0)).transpose(3, 1, 2, 0)
    np.testing.assert_array_equal(model.forward(turned).output, model.forward(x).output)


@pytest.mark.parametrize(("node", "least", "most"), [("features.6", 1, 12), (INPUT, 13, 60)])
def test_only_what_follows_the_layer_is_recorded(node, least, most):
    net = seeded(Vgg)
    model, x = wrap(net), picture()
    model.forward(x)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: saved.append(t.shape) or t, lambda t: t
    ):
        model.pullback(x, np.ones_like, wrt=[node])
    assert least <= len(saved) <= most
    before = [shape for shape in saved if shape[-2:] == (12, 10)]
    assert bool(before) == (node == INPUT)


def test_frozen_weights():
    net = seeded(Residual).requires_grad_(False)
    assert_gradients_are_slopes(wrap(net), picture(), ["bn1", INPUT])


def test_a_frozen_backbone_under_no_grad_is_differentiated():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(True), nn.Conv2d(4, 4, 3))
            self.head = nn.Linear(4, 3)

        def forward(self, x):
            with torch.no_grad():
                x = self.backbone(x)
            return self.head(x.mean((2, 3)))

    assert_gradients_are_slopes(wrap(seeded(Net)), picture(), ["backbone.0", INPUT, "backbone.2"])


def test_a_way_that_is_partly_under_no_grad_is_followed_whole():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Conv2d(3, 4, 3, padding=1)
            self.second = nn.Conv2d(4, 4, 3, padding=1)

        def forward(self, x):
            with torch.no_grad():
                x = self.first(x)
            y = self.second(x.tanh())
            return (x + y).mean((2, 3))

    nodes = ["first", "second"]
    model, x = wrap(seeded(Net)), picture()
    assert_gradients_are_slopes(model, x, nodes)
    assert_gradients_are_slopes(model, x, nodes[:1])


def test_a_forward_under_no_grad_is_differentiated():
    class Net(Residual):
        forward = torch.no_grad()(Residual.forward)

    assert_gradients_are_slopes(wrap(seeded(Net)), picture(), ["stem"])
    assert_gradients_are_slopes(wrap(seeded(Net)), picture(), [INPUT])


@pytest.mark.parametrize("node", ["bn1", INPUT])
def test_a_forward_in_inference_mode_is_looked_at_but_not_differentiated(node):
    class Net(Residual):
        forward = torch.inference_mode()(Residual.forward)

    model, x = wrap(seeded(Net)), picture()
    expected = wrap(seeded(Residual)).forward(x, capture=["bn1"])["bn1"]
    np.testing.assert_array_equal(model.forward(x, capture=["bn1"])["bn1"], expected)
    with pytest.raises(UnknownLayerError, match="inference_mode"):
        model.pullback(x, np.ones_like, wrt=[node])


def test_detached_values_do_not_depend_on_the_layer():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x):
            return self.conv(x).detach().mean((2, 3))

    with pytest.raises(UnknownLayerError, match=r"'@logits' does not depend on 'conv'"):
        wrap(seeded(Net)).pullback(picture(), np.ones_like, wrt=["conv"])


def test_a_layer_called_for_some_inputs_only():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)
            self.extra = nn.ReLU()

        def forward(self, x):
            y = self.conv(x)
            return (self.extra(y) if x.mean() > 0 else y).mean((2, 3))

    model, x = wrap(seeded(Net)), np.ones((1, 8, 8, 3))
    model.forward(x, capture=["extra"])
    for ask in (
        lambda: model.forward(-x, capture=["extra"]),
        lambda: model.forward(-x, replace={"extra": np.zeros_like}),
        lambda: model.pullback(-x, np.ones_like, wrt=["extra"]),
    ):
        with pytest.raises(UnknownLayerError, match="was not called"):
            ask()


def test_special_nodes():
    model, x = wrap(seeded(Residual)), picture()
    trace = model.forward(x, capture=[INPUT, OUTPUT, "@input:x"])
    np.testing.assert_array_equal(trace[INPUT], x)
    np.testing.assert_array_equal(trace["@input:x"], x)
    both = model.pullback(x, np.ones_like, wrt=[INPUT, "@input:x"]).gradients
    np.testing.assert_array_equal(both[INPUT], both["@input:x"])
    for ask in (
        lambda: model.pullback(x, np.ones_like, wrt=["@input:y"]),
        lambda: model.pullback(x, np.ones_like, wrt=[LOGITS]),
        lambda: model.pullback(x, np.ones_like, of=INPUT),
        lambda: model.forward(x, replace={OUTPUT: np.zeros_like}),
    ):
        with pytest.raises(UnknownLayerError):
            ask()


def test_bad_replacements_and_cotangents():
    model, x = wrap(seeded(Residual)), picture()
    with pytest.raises(ArrayError, match="replacement"):
        model.forward(x, replace={"bn1": lambda v: None})
    with pytest.raises(ArrayError, match="cotangent"):
        model.pullback(x, lambda v: np.full_like(v, np.nan))


def test_threads_do_not_see_each_other():
    net = seeded(Residual)
    model = wrap(net)
    inputs = [picture(seed=k) for k in range(6)]
    nodes = ["bn1", "bn2", "stem"]
    expected = [model.pullback(x, np.ones_like, wrt=nodes) for x in inputs]
    plain = [net(native(x)).detach().numpy() for x in inputs]
    barrier = threading.Barrier(7)
    wrong = []

    def explain(k):
        barrier.wait()
        for _ in range(10):
            back = model.pullback(inputs[k], np.ones_like, wrt=nodes)
            if any(not np.array_equal(back.gradients[n], expected[k].gradients[n]) for n in nodes):
                wrong.append(k)

    def run_raw():
        barrier.wait()
        for k in range(30):
            with torch.no_grad():
                if not np.array_equal(net(native(inputs[k % 6])).numpy(), plain[k % 6]):
                    wrong.append("raw")

    threads = [threading.Thread(target=explain, args=(k,)) for k in range(6)]
    threads.append(threading.Thread(target=run_raw))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
