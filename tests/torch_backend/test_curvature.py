"""Second derivatives: against central differences in float64, and torch's own Jacobians."""

from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cnnviz_core.errors import (
    ArrayError,
    MissingCapabilityError,
    UnknownLayerError,
    UnsupportedModelError,
)
from cnnviz_core.model import INPUT, LOGITS, OUTPUT, curved
from cnnviz_torch.model import wrap
from support.torch_nets import native, picture, seeded


class Smooth(nn.Module):
    """A skip around two layers, one activation called twice, and a softmax."""

    def __init__(self, activation=nn.SiLU, channels=5):
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 3, padding=1)
        self.act = activation()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(channels)
        self.head = nn.Linear(channels, 4)
        self.softmax = nn.Softmax(-1)

    def forward(self, x):
        x = self.act(self.stem(x))
        out = self.norm(self.conv(F.avg_pool2d(x, 2)))
        out += F.avg_pool2d(x, 2)
        return self.softmax(self.head(self.act(out).mean((2, 3))))


class Attending(nn.Module):
    """Tokens of patches, and a transformer's layer."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 2, 2)
        self.layer = nn.TransformerEncoderLayer(8, 2, 12, activation="gelu", batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        return self.head(self.layer(tokens).mean(1))


def assert_is_the_derivative(model, x, wrt, of=LOGITS, rtol=1e-7, step=1e-5):
    """Compare with central differences of `forward` and `pullback`."""
    rng = np.random.default_rng(3)
    start = model.forward(x, capture=[of, wrt])
    cotangent = rng.normal(size=start[of].shape)
    direction = rng.normal(size=start[wrt].shape)
    found = model.curvature(x, cotangent, direction, of=of, wrt=wrt)

    def ends(sign):
        if wrt == INPUT:
            moved = x + sign * step * direction
            back = model.pullback(moved, cotangent, of=of, wrt=[INPUT])
            return back.values[of], back.gradients[INPUT]
        value = start[wrt] + sign * step * direction
        return model.forward(x, capture=[of], replace={wrt: value})[of], None

    (top, slope), (low, slope_below) = ends(1), ends(-1)
    expected = (top - low) / (2 * step)
    assert abs(found.tangent - expected).max() <= rtol * abs(expected).max()
    exact = model.pullback(x, cotangent, of=of, wrt=[wrt]).gradients[wrt]
    # Torch's hardsigmoid has a sixth in single precision, also where it computes in double.
    assert abs(found.gradient - exact).max() <= rtol * abs(exact).max()
    for node in {of, wrt, LOGITS, OUTPUT} - {INPUT}:
        np.testing.assert_allclose(found.values[node], start[node], rtol=1e-9)
    assert set(found.values) == {of, wrt, LOGITS, OUTPUT} - {INPUT}
    if slope is not None:
        bend = (slope - slope_below) / (2 * step)
        assert abs(bend).max() > 0
        assert abs(found.bend - bend).max() <= rtol * abs(bend).max()
    return found


def hessian(net, layer, x, cotangent, direction):
    """Give ``(sum_k c_k H_k) v`` at a layer by torch's own functional derivatives."""
    module = net.get_submodule(layer)
    held = []
    with torch.no_grad():
        handle = module.register_forward_hook(lambda m, a, out: held.append(out.clone()))
        net(x)
        handle.remove()

    def score(value):
        handle = module.register_forward_hook(lambda m, a, out: value.clone())
        scores = []
        other = net.head.register_forward_hook(lambda m, a, out: scores.append(out))
        net(x)
        handle.remove()
        other.remove()
        return (scores[0] * cotangent).sum()

    return torch.autograd.functional.hvp(score, held[0], direction)[1]


@pytest.mark.parametrize("activation", [nn.SiLU, nn.GELU, nn.Softplus, nn.Tanh, nn.ReLU])
@pytest.mark.parametrize("of", [LOGITS, OUTPUT])
def test_at_the_input_it_is_the_slope_of_the_pullback(activation, of):
    if activation is nn.ReLU and of == LOGITS:
        return  # piecewise linear: see below
    model = wrap(seeded(Smooth, activation))
    assert_is_the_derivative(model, picture(), INPUT, of, rtol=1e-6)


@pytest.mark.parametrize("node", ["stem", "act@0", "conv", "norm", "act@1", "head"])
@pytest.mark.parametrize("of", [LOGITS, OUTPUT, "act@1"])
def test_at_a_layer_with_a_skip_around_it(node, of):
    if of == "act@1" and node in ("act@1", "head"):
        return
    assert_is_the_derivative(wrap(seeded(Smooth)), picture(), node, of)


@pytest.mark.parametrize("layer", ["stem", "conv", "norm"])
def test_the_bend_at_a_layer_is_torchs_hessian_vector_product(layer):
    net, x = seeded(Smooth), picture()
    model, rng = wrap(net), np.random.default_rng(0)
    direction = rng.normal(size=model.forward(x, capture=[layer])[layer].shape)
    cotangent = rng.normal(size=(2, 4))
    expected = hessian(net, layer, native(x), torch.from_numpy(cotangent), native(direction))
    found = model.curvature(x, cotangent, direction, wrt=layer).bend
    np.testing.assert_allclose(found, expected.movedim(1, -1), rtol=1e-9, atol=1e-13)
    assert abs(found).max() > 1e-4


def test_a_piecewise_linear_network_does_not_bend():
    model, x = wrap(seeded(Smooth, nn.ReLU)), picture()
    for node in (INPUT, "stem", "act@0", "norm"):
        found = model.curvature(x, np.ones_like, np.ones_like, wrt=node)
        assert not found.bend.any()
        assert found.tangent.any()
        assert found.gradient.any()


def test_the_hessian_is_symmetric_and_the_tangent_adjoint_to_the_gradient():
    model, x = wrap(seeded(Smooth)), picture()
    rng = np.random.default_rng(1)
    u, v = rng.normal(size=(2, *x.shape))
    cotangent = rng.normal(size=(2, 4))
    along_u, along_v = (model.curvature(x, cotangent, d, of=OUTPUT) for d in (u, v))
    assert (u * along_v.bend).sum() == pytest.approx((v * along_u.bend).sum(), rel=1e-10)
    assert (cotangent * along_v.tangent).sum() == pytest.approx(
        (along_v.gradient * v).sum(), rel=1e-10
    )


def test_a_node_with_respect_to_itself():
    model, x = wrap(seeded(Smooth)), picture()
    found = model.curvature(x, lambda v: v * 2, lambda v: v + 1, of="conv", wrt="conv")
    value = found.values["conv"]
    np.testing.assert_array_equal(found.gradient, 2 * value)
    np.testing.assert_array_equal(found.tangent, value + 1)
    assert not found.bend.any()


def test_cotangent_and_direction_may_be_functions_of_the_values():
    model, x = wrap(seeded(Smooth)), picture()
    asked = model.curvature(x, np.tanh, lambda v: v**2, wrt="conv")
    trace = model.forward(x, capture=["conv"])
    given = model.curvature(x, np.tanh(trace.logits), trace["conv"] ** 2, wrt="conv")
    for name in ("gradient", "tangent", "bend"):
        np.testing.assert_array_equal(getattr(asked, name), getattr(given, name))


def test_functions_cannot_change_what_is_returned():
    def spoils(value):
        value[...] = 0
        return np.ones_like(value)

    model, x = wrap(seeded(Smooth)), picture()
    found = model.curvature(x, spoils, spoils, wrt="conv")
    np.testing.assert_array_equal(found.values["conv"], model.forward(x, capture=["conv"])["conv"])
    np.testing.assert_array_equal(found.values[LOGITS], model.forward(x).logits)


def test_attention_and_layer_norm():
    model = wrap(seeded(Attending), input_shape=(8, 6, 3))
    fused = torch.backends.cuda.flash_sdp_enabled()
    assert_is_the_derivative(model, picture(size=(8, 6)), INPUT, rtol=1e-6)
    assert_is_the_derivative(model, picture(size=(8, 6)), "patches")
    assert torch.backends.cuda.flash_sdp_enabled() == fused


@pytest.mark.parametrize("layer", [nn.Hardsigmoid(), nn.Hardsigmoid(inplace=True), nn.Hardswish()])
def test_hard_activations(layer):
    # mobilenet_v3's; torch knows no second derivative of a hardsigmoid.
    class Gated(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.gate = nn.Conv2d(3, 4, 3), layer
            self.head = nn.Linear(4, 3)

        def forward(self, x):
            x = self.conv(x)
            return self.head((x * self.gate(3 * x)).mean((2, 3)))

    model = wrap(seeded(Gated))
    assert_is_the_derivative(model, picture(n=1), INPUT, rtol=1e-6, step=1e-7)


class Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**2

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g):
        return 2 * g * ctx.saved_tensors[0]


class Detaching(Once):
    @staticmethod
    def backward(ctx, g):
        return (2 * g * ctx.saved_tensors[0]).detach()


class Twice(Once):
    @staticmethod
    def backward(ctx, g):
        return 2 * g * ctx.saved_tensors[0]


class Applying(nn.Module):
    def __init__(self, function, beside):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.function, self.beside = function, beside

    def forward(self, x):
        x = self.conv(x)
        y = self.function(x)
        return (y + torch.sin(x) if self.beside else y).mean((2, 3))


@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize("function", [Once, Detaching])
def test_a_function_that_is_not_differentiable_twice_is_refused(function, beside):
    # Autograd itself gives a wrong derivative where such a function is one of two branches.
    model, x = wrap(seeded(Applying, function.apply, beside)), picture()
    model.pullback(x, np.ones_like)
    with pytest.raises(UnsupportedModelError, match="second derivative"):
        model.curvature(x, np.ones_like, np.ones_like)


def test_such_a_function_is_refused_also_where_the_numbers_do_not_tell():
    model = wrap(seeded(Applying, Once.apply, True))
    with pytest.raises(UnsupportedModelError, match="second derivative"):
        model.curvature(picture(), np.zeros_like, np.ones_like)


@pytest.mark.parametrize("beside", [False, True])
def test_a_function_that_is_differentiable_twice_is_taken(beside):
    model = wrap(seeded(Applying, Twice.apply, beside))
    assert_is_the_derivative(model, picture(), INPUT, rtol=1e-6)


def test_an_operation_without_second_derivative_is_named():
    def distances(x):
        rows = x.flatten(2)
        return x + torch.cdist(rows, rows + 1).mean()

    model, x = wrap(seeded(Applying, distances, False)), picture()
    model.pullback(x, np.ones_like)
    with pytest.raises(UnsupportedModelError, match="cdist"):
        model.curvature(x, np.ones_like, np.ones_like)


def test_rounding_hides_everything_before_it():
    model = wrap(seeded(Applying, lambda x: torch.round(x) + 0 * x, False))
    found = model.curvature(picture(), np.ones_like, np.ones_like)
    assert not found.gradient.any()
    assert not found.tangent.any()


def test_nan_on_the_way_is_handed_on():
    model = wrap(seeded(Applying, lambda x: torch.sqrt(x - 1e9), False))
    assert np.isnan(model.curvature(picture(), np.ones_like, np.ones_like).tangent).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_other_precisions(dtype):
    x, rng = picture(dtype=np.float32), np.random.default_rng(0)
    direction = rng.normal(size=x.shape).astype(np.float32)
    exact = wrap(seeded(Smooth)).curvature(x, np.ones_like, direction)
    found = wrap(seeded(Smooth, dtype=dtype)).curvature(x, np.ones_like, direction)
    for name in ("gradient", "tangent", "bend"):
        one, two = getattr(found, name), getattr(exact, name)
        assert one.dtype == np.float32
        assert abs(one - two).max() <= (1e-5 if dtype == torch.float32 else 0.1) * abs(two).max()


def test_an_exported_network():
    net, x = seeded(Smooth), picture()
    model = wrap(torch.export.export(net, (native(x),)))
    for node in (INPUT, "conv"):
        one, two = (
            m.curvature(x, np.ones_like, lambda v: v, of=OUTPUT, wrt=node)
            for m in (model, wrap(net))
        )
        np.testing.assert_allclose(one.bend, two.bend, rtol=1e-10, atol=1e-14)
        np.testing.assert_allclose(one.tangent, two.tangent, rtol=1e-10, atol=1e-14)


def test_a_frozen_network_called_without_recording():
    class Frozen(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = Smooth().requires_grad_(False), nn.Linear(4, 3)

        @torch.no_grad()
        def features(self, x):
            return self.body(x)

        def forward(self, x):
            return self.head(self.features(x))

    model = wrap(seeded(Frozen))
    with torch.no_grad():
        assert_is_the_derivative(model, picture(), INPUT, rtol=1e-6)


def test_a_scripted_network_does_not_offer_it():
    x = picture()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        model = wrap(torch.jit.trace(seeded(Smooth), native(x)))
    assert "curvature" not in model.capabilities
    with pytest.raises(MissingCapabilityError, match="curvature"):
        model.curvature(x, np.ones_like, np.ones_like)
    with pytest.raises(MissingCapabilityError, match="curvature"):
        curved(model)


@pytest.mark.parametrize(
    ("ask", "error", "message"),
    [
        ({"direction": np.ones((2, 1))}, ArrayError, "the direction at '@input'"),
        ({"direction": lambda v: v * np.nan}, ArrayError, "direction at '@input' holds NaN"),
        ({"cotangent": np.ones((2, 7))}, ArrayError, "cotangent"),
        ({"wrt": "nowhere"}, UnknownLayerError, "nowhere"),
        ({"of": "stem", "wrt": "conv"}, UnknownLayerError, "does not depend"),
        ({"of": INPUT}, UnknownLayerError, "not a value that the network computes"),
        ({"wrt": LOGITS}, UnknownLayerError, "not an input"),
    ],
)
def test_what_does_not_fit_is_an_error(ask, error, message):
    ask = {"cotangent": np.ones_like, "direction": np.ones_like, **ask}
    model, x = wrap(seeded(Smooth)), picture()
    with pytest.raises(error, match=message):
        model.curvature(x, **ask)


class Broken(Smooth):
    broken = False

    def forward(self, x):
        scores = super().forward(x)
        if self.broken:
            raise ZeroDivisionError("in the network")
        return scores


def everything(net):
    """Take down what a network holds, and the state of torch."""
    return (
        {k: v.clone().numpy().tolist() for k, v in net.state_dict().items()},
        [None if p.grad is None else p.grad.tolist() for p in net.parameters()],
        [(p.requires_grad, p.grad_fn, p.is_leaf) for p in net.parameters()],
        [(m.training, set(vars(m)), len(m._forward_hooks)) for m in net.modules()],
        torch.get_rng_state().tolist(),
        (torch.is_grad_enabled(), torch.backends.cuda.flash_sdp_enabled()),
    )


@pytest.mark.parametrize("fails", [None, "cotangent", "direction", "network"])
def test_a_network_in_training_stays_what_it_was(fails):
    def interrupted(value):
        raise ZeroDivisionError("in the caller's function")

    net, x = seeded(Broken).train(), picture()
    net.norm.eval()
    net.stem.weight.grad = torch.ones_like(net.stem.weight)
    net.head.bias.requires_grad_(False)
    net.conv.register_forward_hook(lambda m, a, out: None)
    model = wrap(net)
    model.forward(x)
    net.broken = fails == "network"
    ask = {"cotangent": np.ones_like, "direction": np.ones_like, "wrt": "conv"}
    if fails in ask:
        ask[fails] = interrupted
    before = everything(net)
    try:
        model.curvature(x, **ask)
    except ZeroDivisionError:
        assert fails is not None
    else:
        assert fails is None
    assert before == everything(net)


def test_several_threads_ask_at_once():
    model, x = wrap(seeded(Attending), input_shape=(8, 6, 3)), picture(size=(8, 6))
    flags = torch.backends.cuda.flash_sdp_enabled()
    expected = model.curvature(x, np.ones_like, np.ones_like).bend
    with ThreadPoolExecutor(4) as pool:
        found = list(
            pool.map(lambda _: model.curvature(x, np.ones_like, np.ones_like).bend, range(12))
        )
    for bend in found:
        np.testing.assert_array_equal(bend, expected)
    assert torch.backends.cuda.flash_sdp_enabled() == flags
