"""Networks with something that a list of operations may get wrong: right, or left alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cnnviz_core.errors import CnnvizError
from cnnviz_core.model import INPUT, LOGITS, OUTPUT
from cnnviz_torch.model import wrap
from cnnviz_torch.program.prepared import Prepared

SHAPE = (8, 8, 3)


class Base(nn.Module):
    """A stem, something of a subclass's, and a head."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.bn = nn.BatchNorm2d(6)
        self.act = nn.ReLU()
        self.fc = nn.Linear(6, 4)

    def forward(self, x):
        x = self.act(self.bn(self.stem(x)))
        return self.fc(self.middle(x).mean((2, 3)))

    def middle(self, x):
        return x


def base(name, middle, **modules):
    """Make a network of what happens in its middle."""

    def make():
        torch.manual_seed(0)
        network = type(name, (Base,), {"middle": middle})()
        for key, module in modules.items():
            setattr(network, key, module())
        with torch.no_grad():
            network.bn.running_mean.uniform_(-0.3, 0.3)
            network.bn.running_var.uniform_(0.5, 1.5)
        return network

    make.__name__ = name
    return make


class Reversed(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.view_as(x)

    @staticmethod
    def backward(ctx, g):
        return -g


class Twice(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 1

    @staticmethod
    def backward(ctx, g):
        return g * 1.01  # less off than gradients that agree by their numbers may be


def in_place_on_slice(self, x):
    x = x * 1
    x[:, 1:] += 1
    return x


def in_place_on_view(self, x):
    x = x * 1
    x.view(len(x), -1).mul_(2)
    return x


def filled_in(self, x):
    out = torch.zeros_like(x)
    out[:, :3] = x[:, 3:]
    return out


def overwritten_skip(self, x):
    y = x + 1
    kept = y
    y += 1
    return kept * x


def read_after_overwriting(self, x):
    y = x * 2
    view = y[:, :3]
    y.mul_(3)
    return torch.cat([view, y[:, 3:]], 1)


def chunk_overwritten(self, x):
    y = x - 0.5
    a, b = y[:, :3], y[:, 3:]
    whole = torch.cat([a, b], 1)
    return torch.cat([F.relu(a, inplace=True), b * 2], 1) + whole


def chunks_rectified(self, x):
    y = x - 0.5
    a, b = y.chunk(2, 1)
    return torch.cat([F.relu(a), b.sigmoid()], 1) + y


def branching_on_a_value(self, x):
    return x * 2 if x.sum() > 25 else x


def an_item(self, x):
    return x / x.max().item()


def by_numpy(self, x):
    return torch.from_numpy(np.tanh(x.detach().numpy()))


def decided_by_numpy(self, x):
    return x * 2 if np.abs(np.asarray(x.detach())).sum() > 1e9 else x


def decided_by_a_list(self, x):
    return x * 2 if max(x.detach().flatten().tolist()) > 1e9 else x


def gradient_of_data(self, x):
    y = x * 1
    y.data = x.data * 3
    return y


def dropout(self, x):
    return F.dropout(x, 0.5, training=True)


def noise(self, x):
    return x + torch.randn_like(x)


def arange(self, x):
    rows = torch.arange(len(x) * 64, dtype=x.dtype).reshape(len(x), 1, 8, 8)
    return x + (rows % 64) / 64


def zeros_of_the_batch(self, x):
    return torch.cat([x, torch.zeros(len(x), 6, 8, 8)], 1)[:, :6] * 2


def positions(self, x):
    y = x.flatten(2).transpose(1, 2) + self.embedding(torch.arange(64))
    return y.transpose(1, 2).unflatten(2, (8, 8))


def reshapes(self, x):
    return (
        x.reshape(len(x), -1)
        .view(-1, 6, 8, 8)
        .permute(0, 2, 3, 1)
        .reshape(-1, 6 * 64)
        .view(len(x), 8, 8, 6)
        .permute(0, 3, 1, 2)
    )


def squeezed(self, x):
    return x * x.mean((1, 2, 3)).squeeze().reshape(-1, 1, 1, 1)


def squeezed_batch(self, x):
    y = x.mean((2, 3), keepdim=True).squeeze()
    return x * y.view(len(x), 6, 1, 1)


def batch_mean(self, x):
    return x - x.mean(0)


def batch_statistics(self, x):
    return F.batch_norm(x, None, None, training=True)


def functional_norm(self, x):
    return F.batch_norm(x, self.bn.running_mean, self.bn.running_var, None, None)


def minibatch_deviation(self, x):
    n = 1 if len(x) % 2 else 2
    y = x.view(n, -1, 6, 8, 8)
    y = (y - y.mean(0)).square().mean(0).sqrt().mean((1, 2, 3)).view(-1, 1, 1, 1)
    return torch.cat([x, y.repeat(n, 1, 8, 8)], 1)[:, 1:]


def in_halves(self, x):
    return torch.cat([part * 2 for part in x.split(2)])


def times_the_batch(self, x):
    return x * min(len(x), 2)


def einsum(self, x):
    return torch.einsum("nchw,ndhw->ncd", x, x)[:, :, :, None] / 64


def attention(self, x):
    y = x.flatten(2).transpose(1, 2)
    return self.attention(y, y, y)[0].transpose(1, 2).unflatten(2, (8, 8))


def attention_with_the_batch_second(self, x):
    y = x.flatten(2).permute(2, 0, 1)
    return self.attention(y, y, y)[0].permute(1, 2, 0).unflatten(2, (8, 8))


def scaled_attention(self, x):
    y = x.flatten(2).transpose(1, 2)
    return F.scaled_dot_product_attention(y, y, y).transpose(1, 2).unflatten(2, (8, 8))


def encoder(self, x):
    return self.encoder(x.flatten(2).transpose(1, 2)).transpose(1, 2).unflatten(2, (8, 8))


def lstm(self, x):
    return self.lstm(x.flatten(2).transpose(1, 2))[0].transpose(1, 2).unflatten(2, (8, 8))


def transformed(self, x):
    return torch.fft.irfft2(torch.fft.rfft2(x) * 0.5, s=(8, 8))


def upsampled(self, x):
    return F.interpolate(self.up(x), scale_factor=2.0, mode="bilinear")


def identity_beside_itself(self, x):
    return self.identity(x) * 2 + x


def identity_overwritten(self, x):
    x = x - 0.5
    y = self.identity(x)
    return F.relu(x, inplace=True) + y


def twice_the_same(self, x):
    return self.shared(F.relu(self.shared(x)))


def reversed_gradient(self, x):
    return Reversed.apply(x)


def slightly_other_gradient(self, x):
    return Twice.apply(x)


def reversed_beside(self, x):
    self.side(Reversed.apply(x * 2))
    return x


def straight_through(self, x):
    return x + (x.round() - x).detach()


def hooked_gradient(self, x):
    y = x * 1
    if y.requires_grad:
        y.register_hook(lambda g: g * 1.01)
    return y


def hooked_node(self, x):
    y = x * 1
    if y.grad_fn is not None:
        y.grad_fn.register_prehook(lambda g: tuple(-part for part in g))
    return y


def unrecorded(self, x):
    with torch.no_grad():
        gate = x.mean((2, 3), keepdim=True).sigmoid()
    return x * (1 + 1e-3 * gate)


def in_inference_mode(self, x):
    with torch.inference_mode():
        gate = torch.full((1,), 2.0)
    return x * gate.clone()


def checkpointed(self, x):
    return torch.utils.checkpoint.checkpoint(self.shared, x, use_reentrant=False)


def reentrant(self, x):
    return torch.utils.checkpoint.checkpoint(self.shared, x, use_reentrant=True)


def autocast(self, x):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return self.shared(x).float()


def strided(self, x):
    return x.as_strided((len(x), 6, 8, 8), (384, 1, 48, 6)) + x


def many_ends(self, x):
    return {"all": (x, [x + 1])}["all"][1][0] * 2


def random_seeming(self, x):
    return x * self.scripted(x)


class Scripted(nn.Module):
    def forward(self, x):
        return x.sigmoid().mean((1, 2, 3), keepdim=True)


class Weightless(nn.Module):
    def forward(self, x):
        return torch.stack([x.mean((1, 2, 3)), x.amax((1, 2, 3))], 1)


class DictOutput(Base):
    def forward(self, x):
        return {"features": x * 1, "logits": super().forward(x)}


class ReturnedEarly(Base):
    """Returns what it goes on with."""

    def forward(self, x):
        y = self.stem(x)
        return y, self.act(self.bn(y))


class ReturnedBeforeRectifying(Base):
    """The same, with nothing in between."""

    def forward(self, x):
        y = self.stem(x)
        return y, self.act(y)


class Recurrent(nn.Module):
    """Takes signals as (N, L, C)."""

    shape = (9, 3)

    def __init__(self):
        super().__init__()
        self.stem = nn.LSTM(3, 5, batch_first=True)
        self.fc = nn.Linear(5, 4)

    def forward(self, x):
        return self.fc(F.relu(self.stem(x)[0])).mean(1)


class Activated(nn.Module):
    """Convolutions before every activation that may be joined with them, and before additions."""

    def __init__(self):
        super().__init__()
        acts = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.Sigmoid, nn.SiLU, nn.Hardswish, nn.Hardsigmoid)
        acts += (nn.GELU, nn.Tanh, nn.ELU, nn.Hardtanh)
        self.convs = nn.ModuleList([nn.Conv2d(3, 3, 3, padding=1, bias=k % 2) for k in range(18)])
        self.acts = nn.ModuleList([act() for act in acts])
        self.fc = nn.Linear(3, 4)

    def forward(self, x):
        convs = iter(self.convs)
        for act in self.acts:
            x = (
                act(next(convs)(x) * 2) + act(next(convs)(x))
                if act is self.acts[0]
                else act(next(convs)(x))
            )
        x = F.relu(next(convs)(x) + next(convs)(x))  # one of the two is joined with the addition
        x = F.silu(x + next(convs)(x))
        y = next(convs)(x)
        x = F.relu(y + y)
        y = next(convs)(x)
        x = torch.add(x, y, alpha=2) + y.mean((2, 3), keepdim=True)
        return self.fc(F.relu6(next(convs)(x) + x).mean((2, 3)))


def conv():
    return nn.Conv2d(6, 6, 3, padding=1, groups=2)


def normed(norm):
    return lambda: nn.Sequential(conv(), norm(), nn.SiLU(), conv(), nn.Hardswish(), nn.GELU())


# Whether the forward pass, and whether the gradient, is the program's.
RIGHT, FORWARD, REFUSED = (True, True), (True, False), (False, False)
CASES = {
    "plain": (base("Plain", Base.middle), RIGHT),
    "in place on a slice": (base("N", in_place_on_slice), REFUSED),
    "in place on a view": (base("N", in_place_on_view), REFUSED),
    "filled in": (base("N", filled_in), REFUSED),
    "overwritten skip": (base("N", overwritten_skip), RIGHT),
    "read after overwriting": (base("N", read_after_overwriting), REFUSED),
    "chunk overwritten": (base("N", chunk_overwritten), None),
    "chunks rectified": (base("N", chunks_rectified), RIGHT),
    "branching": (base("N", branching_on_a_value), REFUSED),
    "an item": (base("N", an_item), REFUSED),
    "by numpy": (base("N", by_numpy), REFUSED),
    "decided by numpy": (base("N", decided_by_numpy), REFUSED),
    "decided by a list": (base("N", decided_by_a_list), REFUSED),
    "data set": (base("N", gradient_of_data), REFUSED),
    "dropout": (base("N", dropout), REFUSED),
    "noise": (base("N", noise), REFUSED),
    "arange": (base("N", arange), RIGHT),
    "zeros of the batch": (base("N", zeros_of_the_batch), RIGHT),
    "positions": (base("N", positions, embedding=lambda: nn.Embedding(64, 6)), RIGHT),
    "reshapes": (base("N", reshapes), RIGHT),
    "squeezed": (base("N", squeezed), None),
    "squeezed batch": (base("N", squeezed_batch), RIGHT),
    "batch mean": (base("N", batch_mean), REFUSED),
    "batch statistics": (base("N", batch_statistics), REFUSED),
    "functional norm": (base("N", functional_norm), RIGHT),
    "minibatch deviation": (base("N", minibatch_deviation), REFUSED),
    "in halves": (base("N", in_halves), REFUSED),
    "times the batch": (base("N", times_the_batch), REFUSED),
    "einsum": (base("N", einsum), RIGHT),
    "attention": (
        base("N", attention, attention=lambda: nn.MultiheadAttention(6, 2, batch_first=True)),
        None,
    ),
    "attention, batch second": (
        base("N", attention_with_the_batch_second, attention=lambda: nn.MultiheadAttention(6, 2)),
        None,
    ),
    "scaled attention": (base("N", scaled_attention), None),
    "encoder": (
        base("N", encoder, encoder=lambda: nn.TransformerEncoderLayer(6, 2, 12, batch_first=True)),
        None,
    ),
    "lstm": (base("N", lstm, lstm=lambda: nn.LSTM(6, 6, batch_first=True)), None),
    "transformed": (base("N", transformed), RIGHT),
    "upsampled": (base("N", upsampled, up=lambda: nn.ConvTranspose2d(6, 6, 2, 2)), RIGHT),
    "identity beside itself": (
        base("N", identity_beside_itself, identity=nn.Identity),
        RIGHT,
    ),
    "identity overwritten": (base("N", identity_overwritten, identity=nn.Identity), None),
    "twice the same": (base("N", twice_the_same, shared=conv), RIGHT),
    "in place input": (lambda: nn.Sequential(nn.ReLU(inplace=True), conv_net()), RIGHT),
    "group norm": (base("N", lambda s, x: s.m(x), m=normed(lambda: nn.GroupNorm(2, 6))), RIGHT),
    "instance norm": (
        base("N", lambda s, x: s.m(x), m=normed(lambda: nn.InstanceNorm2d(6))),
        None,
    ),
    "layer norm": (base("N", lambda s, x: s.m(x), m=normed(lambda: nn.LayerNorm([8, 8]))), RIGHT),
    "batch norm": (base("N", lambda s, x: s.m(x), m=normed(lambda: nn.BatchNorm2d(6))), RIGHT),
    "weight norm": (
        base("N", twice_the_same, shared=lambda: nn.utils.parametrizations.weight_norm(conv())),
        RIGHT,
    ),
    "spectral norm": (
        base("N", twice_the_same, shared=lambda: nn.utils.parametrizations.spectral_norm(conv())),
        RIGHT,
    ),
    "reversed gradient": (base("N", reversed_gradient), FORWARD),
    "slightly other gradient": (base("N", slightly_other_gradient), FORWARD),
    "reversed beside": (base("N", reversed_beside, side=conv), FORWARD),
    "straight through": (base("N", straight_through), RIGHT),
    "hooked gradient": (base("N", hooked_gradient), FORWARD),
    "hooked node": (base("N", hooked_node), FORWARD),
    "unrecorded": (base("N", unrecorded), FORWARD),
    "in inference mode": (base("N", in_inference_mode), None),
    "checkpointed": (base("N", checkpointed, shared=conv), RIGHT),
    "reentrant": (base("N", reentrant, shared=conv), FORWARD),
    "autocast": (base("N", autocast, shared=conv), REFUSED),
    "strided": (base("N", strided), REFUSED),
    "many ends": (base("N", many_ends), RIGHT),
    "scripted part": (
        base("N", random_seeming, scripted=lambda: torch.jit.script(Scripted())),
        None,
    ),
    "activated": (Activated, RIGHT),
    "weightless": (Weightless, RIGHT),
    "dict": (DictOutput, RIGHT),
    "returned early": (ReturnedEarly, RIGHT),
    "returned before rectifying": (ReturnedBeforeRectifying, RIGHT),
    "channels last": (Recurrent, None),
    "bfloat16": (lambda: base("Plain", Base.middle)().bfloat16(), REFUSED),
    "double": (lambda: base("Plain", Base.middle)().double(), RIGHT),
    "frozen": (lambda: base("Plain", Base.middle)().requires_grad_(False), RIGHT),
}


def conv_net():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU6(inplace=True), nn.Flatten(), nn.Linear(144, 3)
    )


def state(network):
    """Tell all that may be changed of a network."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return [
        (
            name,
            module.training,
            [len(getattr(module, kind)) for kind in hooks],
            [(id(p), p.grad, p.requires_grad, p._version) for p in module.parameters(False)],
            [(id(b), b._version) for b in module.buffers(False)],
        )
        for name, module in network.named_modules()
    ]


def assert_same(actual, expected, what):
    assert actual.dtype == expected.dtype
    largest = np.nan_to_num(np.abs(expected)).max(initial=0)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=2e-5 * largest, err_msg=str(what))


def compare(model, prepared, x, questions):
    """Ask both the same, and compare what they say or raise."""
    for operation, asked in questions:
        try:
            expected = getattr(model, operation)(x, **asked)
        except (CnnvizError, RuntimeError) as error:
            with pytest.raises(type(error)):
                getattr(prepared, operation)(x, **asked)
            continue
        actual = getattr(prepared, operation)(x, **asked)
        for part in ("values", "gradients"):
            found, right = getattr(actual, part, {}), getattr(expected, part, {})
            assert set(found) == set(right)
            for node, value in right.items():
                assert_same(found[node], value, (operation, asked, node))


def batches(shape):
    """Make batches of several sizes, and some of which samples are equal."""
    rng = np.random.default_rng(0)
    for n in (1, 2, 3, 5):
        yield rng.random((n, *shape), np.float32)
    x = rng.random((5, *shape), np.float32)
    yield x[[0, 0, 1, 0, 1]]
    yield np.broadcast_to(x[:1], x.shape)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("case", CASES)
def test_right_or_left_alone(case):
    """Values, gradients and errors are the network's, and the network is as it was."""
    make, expected = CASES[case]
    network = make().train()
    shape = getattr(network, "shape", SHAPE)
    model = wrap(network, input_shape=shape)
    random = case in ("dropout", "noise")
    (first, *_) = batches(shape)
    model.forward(first)
    before, drawn = state(network), torch.get_rng_state()
    prepared = model.prepared(first)
    assert torch.equal(torch.get_rng_state(), drawn)
    assert state(network) == before
    if expected is not None:
        assert isinstance(prepared, Prepared) == expected[0]
    if random:
        return
    nodes = list(model.layers)
    for x in batches(shape):
        asked = [("forward", {"capture": nodes}), ("forward", {})]
        asked += [("pullback", {"cotangent": np.cos, "of": of}) for of in (LOGITS, OUTPUT)]
        compare(model, prepared, x, asked)
    values = model.forward(x, capture=nodes)
    for node in nodes:
        asked = [("forward", {"replace": {node: values[node][::-1] * 1.5}})]
        asked += [
            ("pullback", {"cotangent": np.cos, **what})
            for what in ({"wrt": [node]}, {"wrt": [INPUT, node]}, {"of": node})
        ]
        compare(model, prepared, x, asked)
    if isinstance(prepared, Prepared) and expected is not None:
        assert prepared._is_differentiable() == expected[1]
    assert state(network) == before
    assert torch.equal(torch.get_rng_state(), drawn)


@pytest.mark.parametrize("write", ["add_", "copy_"])
@pytest.mark.parametrize("part", [slice(None), slice(0, 1)])
def test_a_network_that_writes_to_its_buffers_is_left_alone(write, part):
    """To the whole of one, or to a part."""

    class Counting(Base):
        def __init__(self):
            super().__init__()
            self.register_buffer("count", torch.zeros(3))

        def middle(self, x):
            getattr(self.count[part] if part.start == 0 else self.count, write)(torch.ones(()))
            return x

    model = wrap(Counting(), input_shape=SHAPE)
    assert model.prepared(np.ones((1, *SHAPE), np.float32)) is model


def test_every_activation_and_addition_is_joined_that_can_be():
    """With the convolution before it; what is left are those that the library does not do."""
    model = wrap(Activated(), input_shape=SHAPE)
    prepared = model.prepared(np.ones((1, *SHAPE), np.float32))
    assert prepared._fused is not prepared._program
    left = sorted(call.name for call in prepared._fused.calls if "convolution" not in call.name)
    left = [name for name in left if name not in ("addmm", "mean", "mul")]
    others = ["elu", "gelu", "hardtanh", "relu", "relu", "silu", "tanh"]
    assert left == ["add"] * 4 + others
    plain = [call.name for call in prepared._program.calls]
    assert {"relu", "silu", "leaky_relu", "hardswish", "hardsigmoid", "sigmoid"} <= set(plain)
