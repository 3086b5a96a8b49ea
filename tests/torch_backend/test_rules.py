"""Backward rules reach every rectifier, and are refused where they might miss one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cnnviz_core.errors import RuleError
from cnnviz_core.model import INPUT
from cnnviz_core.rules import DECONVNET, GUIDED, BackwardRule
from cnnviz_core.steps import ReluStep
from cnnviz_torch.model import wrap
from support.torch_nets import Residual, Vgg, native, picture, seeded

STRAIGHT = BackwardRule("straight-through", {"relu": ReluStep(gate=False, rectify=False)})
RULES = {rule.name: rule for rule in (GUIDED, DECONVNET, STRAIGHT)}


class Reference(torch.autograd.Function):
    """A rectifier with a rule's backward step written out: slope below zero, top, gate, rectify."""

    @staticmethod
    def forward(ctx, x, slope, top, step):
        ctx.save_for_backward(x)
        ctx.slope, ctx.top, ctx.step = slope, top, step
        return torch.where(x > 0, x, slope * x).clamp(max=top)

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        if ctx.step.gate:
            inside = (x > 0) & (x < ctx.top)
            gradient = torch.where(inside, gradient, ctx.slope * gradient * (x <= 0))
        if ctx.step.rectify:
            gradient = gradient * (gradient > 0)
        return gradient, None, None, None


class Net(nn.Module):
    """Two convolutions, each followed by a rectifier of the caller's."""

    def __init__(self, rectify):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 3)
        self.conv2 = nn.Conv2d(6, 6, 3)
        self.fc = nn.Linear(6, 4)
        self.rectify = rectify

    def forward(self, x):
        x = self.rectify(3 * self.conv1(x))
        return self.fc(self.rectify(3 * self.conv2(x)).mean((2, 3)))


INF = float("inf")
RECTIFIERS = {
    "nn.ReLU": (nn.ReLU(), 0, INF),
    "nn.ReLU(inplace)": (nn.ReLU(inplace=True), 0, INF),
    "F.relu": (F.relu, 0, INF),
    "F.relu_": (F.relu_, 0, INF),
    "torch.relu": (torch.relu, 0, INF),
    "x.relu_": (lambda x: x.relu_(), 0, INF),
    "clamp(min=0)": (lambda x: x.clamp(min=0), 0, INF),
    "clamp_min": (lambda x: x.clamp_min(0), 0, INF),
    "clamp_": (lambda x: x.clamp_(0), 0, INF),
    "clamp(0, 2)": (lambda x: x.clamp(0, 2), 0, 2),
    "clamp(tensor)": (lambda x: torch.clamp(x, min=torch.zeros((), dtype=x.dtype)), 0, INF),
    "F.threshold": (lambda x: F.threshold(x, 0, 0), 0, INF),
    "nn.ReLU6": (nn.ReLU6(), 0, 6),
    "nn.ReLU6(inplace)": (nn.ReLU6(inplace=True), 0, 6),
    "nn.Hardtanh(0, 3)": (nn.Hardtanh(0, 3), 0, 3),
    "F.relu6": (F.relu6, 0, 6),
    "nn.LeakyReLU": (nn.LeakyReLU(0.2), 0.2, INF),
    "nn.LeakyReLU(inplace)": (nn.LeakyReLU(0.2, inplace=True), 0.2, INF),
    "nn.RReLU": (nn.RReLU(0.1, 0.3), 0.2, INF),
    "torch.maximum": (lambda x: torch.maximum(x, torch.zeros_like(x)), 0, INF),
    "torch.maximum, zero first": (lambda x: torch.maximum(torch.zeros(1), x), 0, INF),
    "torch.fmax": (lambda x: torch.fmax(x, torch.zeros(1)), 0, INF),
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", RECTIFIERS)
def test_rectifiers_take_the_step(name, rule):
    rectify, slope, top = RECTIFIERS[name]
    step = RULES[rule].steps["relu"]
    net = seeded(Net, rectify)
    written_out = seeded(Net, lambda v: Reference.apply(v, slope, top, step))
    x = picture()
    leaf = native(x).requires_grad_()
    (expected,) = torch.autograd.grad(written_out(leaf)[:, 1].sum(), leaf)
    back = wrap(net).pullback(x, np.eye(4)[[1, 1]], rule=RULES[rule])
    actual = back.gradients[INPUT]
    np.testing.assert_allclose(actual, expected.movedim(1, -1).numpy(), rtol=1e-12, atol=1e-16)
    plain = wrap(net).pullback(x, np.eye(4)[[1, 1]]).gradients[INPUT]
    assert not np.allclose(actual, plain)


@pytest.mark.parametrize("inplace", [False, True])
def test_deconvnet_equals_an_explicit_deconvolution_network(inplace):
    """Unpooling to the switches, rectifying, and convolving with the transposed filters."""
    net, x = seeded(Vgg, inplace), picture(1)
    features, switches, sizes, value = list(net.features), [], [], native(x)
    for layer in features:
        if isinstance(layer, nn.MaxPool2d):
            sizes.append(value.shape)
            value, where = F.max_pool2d(value, 2, return_indices=True)
            switches.append(where)
        else:
            value = layer(value)
    top = torch.zeros_like(value)
    c, i, j = 3, 1, 1
    top[0, c, i, j] = value[0, c, i, j]
    signal = top
    for layer in reversed(features):
        if isinstance(layer, nn.MaxPool2d):
            signal = F.max_unpool2d(signal, switches.pop(), 2, output_size=sizes.pop())
        elif isinstance(layer, nn.ReLU):
            signal = signal.relu()
        else:
            signal = F.conv_transpose2d(signal, layer.weight, padding=1)
    one_hot = top.detach().movedim(1, -1).numpy()
    back = wrap(net).pullback(x, one_hot, of="features.7", rule=DECONVNET)
    expected = signal.detach().movedim(1, -1).numpy()
    np.testing.assert_allclose(back.gradients[INPUT], expected, rtol=1e-12, atol=1e-18)


def test_guided_equals_the_elementwise_definition_on_one_layer():
    net = seeded(lambda: nn.Sequential(nn.ReLU(), nn.Flatten(), nn.Linear(36, 2)))
    x = picture(1, (4, 3))
    weight = net[2].weight[1].detach().numpy().reshape(3, 4, 3).transpose(1, 2, 0)
    back = wrap(net).pullback(x, np.eye(2)[[1]], rule=GUIDED)
    np.testing.assert_allclose(back.gradients[INPUT][0], np.maximum(weight, 0) * (x[0] > 0))


def test_rules_between_layers():
    net, x = seeded(Residual), picture()
    model = wrap(net)
    model.forward(x)
    whole = model.pullback(x, np.ones_like, wrt=["stem", "bn1"], rule=GUIDED).gradients
    alone = model.pullback(x, np.ones_like, wrt=["bn1"], rule=GUIDED).gradients
    np.testing.assert_array_equal(whole["bn1"], alone["bn1"])
    with pytest.raises(RuleError, match="no relu between '@logits' and 'relu@2'"):
        model.pullback(x, np.ones_like, wrt=["relu@2"], rule=GUIDED)


def test_a_rectifier_beside_the_way_does_not_count():
    class Beside(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)
            self.side = nn.Conv2d(3, 4, 3)

        def forward(self, x):
            return (self.conv(x) + self.side(x).relu()).mean((2, 3))

    model, x = wrap(seeded(Beside)), picture()
    with pytest.raises(RuleError, match="no relu"):
        model.pullback(x, np.ones_like, wrt=["conv"], rule=GUIDED)
    model.pullback(x, np.ones_like, wrt=["side"], rule=GUIDED)
    model.pullback(x, np.ones_like, rule=GUIDED)


SMOOTH = {
    "nn.GELU": nn.GELU(),
    "nn.SiLU": nn.SiLU(),
    "nn.PReLU": nn.PReLU(),
    "nn.Hardtanh": nn.Hardtanh(-1, 1),
    "nn.Threshold": nn.Threshold(0.3, 0),
    "clamp(max)": lambda x: x.clamp(max=1),
    "clamp(min=1)": lambda x: x.clamp(min=1),
    "torch.maximum": lambda x: torch.maximum(x, x.flip(1)),
    "torch.maximum, learnt": lambda x: torch.maximum(x, x.new_zeros(1).requires_grad_()),
    "torch.maximum with one": lambda x: torch.maximum(x, torch.ones_like(x)),
}


@pytest.mark.parametrize("name", SMOOTH)
def test_networks_without_rectifiers_refuse_the_rule(name):
    model = wrap(seeded(Net, SMOOTH[name]))
    with pytest.raises(RuleError, match="would change nothing"):
        model.pullback(picture(), np.ones_like, rule=GUIDED)


class OwnRelu(torch.autograd.Function):
    """A user's own rectifier."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx, gradient):
        return gradient * (ctx.saved_tensors[0] > 0)


def _slice_in_place(x):
    x[:, :2].relu_()
    return x


@pytest.mark.parametrize(
    ("rectify", "name"),
    [(OwnRelu.apply, "OwnReluBackward"), (_slice_in_place, "CopySlices")],
    ids=["autograd.Function", "slice in place"],
)
def test_opaque_operations_are_refused(rectify, name):
    model, x = wrap(seeded(Net, rectify)), picture()
    model.pullback(x, np.ones_like)
    with pytest.raises(RuleError, match=name):
        model.pullback(x, np.ones_like, rule=GUIDED)
    with pytest.raises(RuleError, match="no relu"):
        model.pullback(x, np.ones_like, wrt=["fc"], rule=GUIDED)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_fused_scripted_part_is_refused():
    part = torch.jit.script(nn.Sequential(nn.Conv2d(6, 6, 1), nn.ReLU(), nn.Softmax(1)).double())
    for _ in range(3):  # fused once it was seen at work
        fused = part(torch.ones(1, 6, 4, 4, dtype=torch.float64, requires_grad=True))
    assert "DifferentiableGraph" in fused.grad_fn.name()

    class Mixed(Net):
        def __init__(self):
            super().__init__(F.relu)
            self.part = part

        def forward(self, x):
            return self.fc(self.part(self.conv1(x).relu()).mean((2, 3)))

    model, x = wrap(seeded(Mixed)), picture()
    model.pullback(x, np.ones_like)
    assert "part" not in model.layers
    with pytest.raises(RuleError, match="DifferentiableGraphBackward"):
        model.pullback(x, np.ones_like, rule=GUIDED)


def test_rules_leave_nothing_behind():
    net, x = seeded(Residual), picture()
    model = wrap(net)
    before = model.pullback(x, np.ones_like).gradients[INPUT]
    model.pullback(x, np.ones_like, rule=GUIDED)
    np.testing.assert_array_equal(model.pullback(x, np.ones_like).gradients[INPUT], before)
    leaf = native(x).requires_grad_()
    (own,) = torch.autograd.grad(net(leaf).sum(), leaf)
    np.testing.assert_allclose(before, own.movedim(1, -1).numpy(), rtol=1e-12)


@pytest.mark.parametrize("steps", [{"softmax": ReluStep(True, True)}, {"relu": "guided"}])
def test_unknown_steps_are_refused(steps):
    model, x = wrap(seeded(Residual)), picture()
    with pytest.raises(RuleError, match=r"has (the|a) step"):
        model.pullback(x, np.ones_like, rule=BackwardRule("odd", steps))
