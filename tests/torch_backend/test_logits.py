"""`LOGITS` is what the network's final softmax or sigmoid is given, exactly."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cnnviz_core.errors import ParameterError, UnsupportedModelError
from cnnviz_core.model import INPUT, LOGITS, OUTPUT
from cnnviz_torch.logits import HeadFinder
from cnnviz_torch.model import wrap
from support.torch_nets import assert_gradients_are_slopes, native, picture, seeded


class Net(nn.Module):
    """A small network with an attention-like sigmoid inside, and a head of the caller's."""

    def __init__(self, head, *modules):
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3)
        self.gate = nn.Conv2d(5, 5, 1)
        self.ends = nn.ModuleList(modules)
        self.head = head

    def forward(self, x):
        return self.head(self, self.scores(x))

    def scores(self, x):
        x = self.conv(x)
        x = x * torch.sigmoid(self.gate(x.mean((2, 3), keepdim=True)))
        return torch.tanh(x).mean((2, 3)) * 3


def nested(kind):
    """Make a head of modules."""
    return lambda: Net(lambda n, z: n.ends[0](z), nn.Sequential(nn.Identity(), kind))


HEADS = {
    "nn.Softmax": (nested(nn.Softmax(dim=1)), "softmax"),
    "nn.Softmax(-1)": (nested(nn.Softmax(dim=-1)), "softmax"),
    "nn.LogSoftmax": (nested(nn.LogSoftmax(dim=1)), "softmax"),
    "nn.Sigmoid": (nested(nn.Sigmoid()), "sigmoid"),
    "nn.LogSigmoid": (nested(nn.LogSigmoid()), "sigmoid"),
    "F.softmax": (lambda: Net(lambda n, z: F.softmax(z, 1)), "softmax"),
    "F.softmax(dim=)": (lambda: Net(lambda n, z: F.softmax(input=z, dim=1)), "softmax"),
    "torch.softmax": (lambda: Net(lambda n, z: torch.softmax(z, dim=-1)), "softmax"),
    "z.softmax": (lambda: Net(lambda n, z: z.softmax(1)), "softmax"),
    "F.log_softmax": (lambda: Net(lambda n, z: F.log_softmax(z, dim=1)), "softmax"),
    "torch.log_softmax": (lambda: Net(lambda n, z: torch.log_softmax(z, 1)), "softmax"),
    "torch.sigmoid": (lambda: Net(lambda n, z: torch.sigmoid(z)), "sigmoid"),
    "z.sigmoid": (lambda: Net(lambda n, z: z.sigmoid()), "sigmoid"),
    "z.sigmoid_": (lambda: Net(lambda n, z: z.sigmoid_()), "sigmoid"),
    "special.expit": (lambda: Net(lambda n, z: torch.special.expit(z)), "sigmoid"),
    "aten": (lambda: Net(lambda n, z: torch.ops.aten.softmax.int(z, 1)), "softmax"),
    "no head": (lambda: Net(lambda n, z: z), None),
    "scaled": (lambda: Net(lambda n, z: z.softmax(1) * 2), None),
    "overwritten": (lambda: Net(lambda n, z: z.softmax(1).mul_(2)), None),
    "over samples": (lambda: Net(lambda n, z: z.softmax(0)), None),
    "sum of two": (lambda: Net(lambda n, z: z.softmax(1) + z.softmax(1)), None),
}
TRAILING = {
    "squeeze": lambda n, z: z[:, :, None, None].softmax(1).squeeze(-1).squeeze(-1),
    "flatten": lambda n, z: torch.flatten(F.softmax(z.reshape(-1, 5, 1, 1), dim=1), 1),
    "view": lambda n, z: z[:, :, None].softmax(1).view(-1, 5),
    "reshape": lambda n, z: torch.sigmoid(z[:, :, None]).reshape(z.shape[0], 5),
    "to": lambda n, z: z.softmax(1).to(torch.float64).contiguous().clone(),
    "permute": lambda n, z: (
        z[:, :, None].softmax(1).permute(0, 2, 1)[:, 0]
        if n is None
        else z[:, None].softmax(2).transpose(1, 2).squeeze(2)
    ),
    "detach": lambda n, z: z.softmax(1).detach(),
}


@pytest.mark.parametrize("name", HEADS)
def test_heads(name):
    make, activation = HEADS[name]
    net, x = seeded(make), picture()
    model = wrap(net)
    scores = net.scores(native(x)).detach().numpy()
    trace = model.forward(x)
    assert model.activation == (activation or "softmax")
    with torch.no_grad():
        np.testing.assert_array_equal(trace.output, net(native(x)).numpy())
    np.testing.assert_array_equal(trace.logits, scores if activation else trace.output)
    if name == "overwritten":  # torch itself cannot differentiate it
        return
    assert_gradients_are_slopes(model, x, ["conv", INPUT], of=LOGITS)
    if name != "over samples":
        assert_gradients_are_slopes(model, x, ["conv", INPUT], of=OUTPUT)


@pytest.mark.parametrize("name", TRAILING)
def test_what_may_follow_the_activation(name):
    net, x = seeded(Net, TRAILING[name]), picture(3)
    model = wrap(net)
    scores = net.scores(native(x)).detach().numpy()
    assert model.forward(x).output.shape == scores.shape
    np.testing.assert_array_equal(model.forward(x).logits, scores)
    assert_gradients_are_slopes(model, x, ["conv"])


def test_the_gradient_at_the_logits_is_not_squashed():
    net = seeded(Net, lambda n, z: (50 * z).softmax(1))
    model, x = wrap(net), picture(1)
    one_hot = np.eye(5)[[2]]
    z = net.conv(native(x)).detach().requires_grad_()
    gated = torch.tanh(z * torch.sigmoid(net.gate(z.mean((2, 3), keepdim=True)))).mean((2, 3))
    (expected,) = torch.autograd.grad((150 * gated)[0, 2], z)
    actual = model.pullback(x, one_hot, wrt=["conv"]).gradients["conv"]
    np.testing.assert_allclose(actual, expected.movedim(1, -1).numpy(), rtol=1e-12)


def test_dense_heads():
    class Dense(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x):
            return {"out": self.conv(x).softmax(1)}

    net, x = seeded(Dense), picture(2, (7, 6))
    model = wrap(net)
    trace = model.forward(x)
    assert trace.output.shape == trace.logits.shape == (2, 5, 4, 4)
    np.testing.assert_allclose(trace.output.sum(-1), 1)
    np.testing.assert_array_equal(trace.logits, model.forward(x, capture=["conv"])["conv"])
    larger = model.forward(picture(1, (9, 9)))
    np.testing.assert_allclose(
        np.exp(larger.logits) / np.exp(larger.logits).sum(-1, keepdims=True), larger.output
    )


def test_attention_inside_is_no_head():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Conv2d(3, 4, 2, 2)
            self.fc = nn.Linear(4, 3)

        def forward(self, x):
            t = self.embed(x).flatten(2).transpose(1, 2)
            t = (t @ t.transpose(1, 2)).softmax(-1) @ t
            return self.fc(t.mean(1)).softmax(-1)

    net, x = seeded(Attention), picture(2, (6, 4))
    model = wrap(net)
    assert_gradients_are_slopes(model, x, ["embed", INPUT])
    trace = model.forward(x)
    assert not np.allclose(trace.logits, trace.output)


def test_what_other_activations_were_given_is_not_kept():
    scores, gate = torch.randn(2, 5), torch.randn(2, 7)
    with HeadFinder() as first:
        found = first.find(torch.softmax(scores, 1))
    assert found is not None
    with HeadFinder(found[0]) as finder:
        gates = torch.sigmoid(gate), torch.softmax(gate, 1), torch.sigmoid(scores)
        output = torch.softmax(scores, 1)
    assert all(finder.find(gate) is None for gate in gates)
    assert torch.equal(finder.find(output)[1], scores)


@pytest.mark.parametrize(
    ("declared", "head", "activation", "before"),
    [
        ("none", "nn.Softmax", "none", False),
        ("sigmoid", "no head", "sigmoid", False),
        ("none", "no head", "none", False),
        ("softmax", "nn.Softmax", "softmax", True),
        ("softmax", "nn.Sigmoid", "softmax", False),
    ],
)
def test_the_activation_can_be_declared(declared, head, activation, before):
    net, x = seeded(HEADS[head][0]), picture()
    model = wrap(net, activation=declared)
    assert model.activation == activation
    trace = model.forward(x)
    scores = net.scores(native(x)).detach().numpy()
    np.testing.assert_array_equal(trace.logits, scores if before else trace.output)


def test_an_unknown_activation_is_refused():
    with pytest.raises(ParameterError, match="relu"):
        wrap(seeded(HEADS["no head"][0]), activation="relu")


def test_the_activation_is_known_once_it_can_be():
    net = seeded(HEADS["nn.Sigmoid"][0])
    assert wrap(net, input_shape=(8, 8, 3)).activation == "sigmoid"
    model = wrap(net)
    assert model.activation == "softmax"
    model.forward(picture())
    assert model.activation == "sigmoid"


def test_a_head_that_comes_and_goes_is_reported():
    model = wrap(seeded(Net, lambda n, z: z.softmax(1) if z.sum() > -1e9 and n.on else z))
    model._network.module.on = True
    model.forward(picture())
    model._network.module.on = False
    with pytest.raises(UnsupportedModelError, match="softmax before"):
        model.forward(picture())
