"""Networks other than picture classifiers, against plain autograd that knows nothing of cnnviz."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cnnviz_core.errors import ArrayError
from cnnviz_core.layers import on_grid
from cnnviz_core.model import INPUT, LOGITS, OUTPUT, input_node
from cnnviz_core.registry import get_registry
from cnnviz_core.targets import ClassScore, Contrast, Neuron, Segment, Similarity
from cnnviz_torch.model import wrap
from support.torch_nets import assert_gradients_are_slopes, native, picture, seeded
from support.torchvision_ops import define


def explain(method, model, x, targets, **params):
    return get_registry().explainer(method, **params).explain(model, x, targets)


def by_autograd(net, module, x, total):
    """The value of a module and a score's gradients at it and at the input, as torch has them."""
    kept = []

    def keep(_module, _args, output):
        kept.append(output)
        return output.clone()  # what follows may be in place

    leaf = x.clone().requires_grad_()
    handle = module.register_forward_hook(keep)
    score = total(net(leaf))
    handle.remove()
    return kept[0].detach(), *torch.autograd.grad(score, [kept[0], leaf])


def channels_last(tensor):
    return tensor.movedim(1, -1).numpy()


def same(actual, expected):
    assert actual.shape == expected.shape
    assert np.abs(expected).max() > 0
    np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-12 * np.abs(expected).max())


def check_grad_cam_and_saliency(net, layer, x, targets, total):
    """Compare both with autograd, for a layer that has the channels on torch's second axis."""
    model = wrap(net)
    model.forward(x)
    value, gradient, at_input = by_autograd(net, net.get_submodule(layer), native(x), total)
    over = tuple(range(2, value.ndim))
    maps = explain("grad-cam", model, x, targets, layer=layer)
    same(maps.raw, (gradient.mean(over, keepdim=True) * value).sum(1).numpy())
    same(explain("saliency", model, x, targets).raw, channels_last(at_input))
    return model, maps


# ---------------------------------------------------------------- signals and volumes


class Signal(nn.Module):
    """Windows of a signal, made coarser by a stride, dilation and a pool."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv1d(2, 6, 5, stride=2, padding=2, bias=False)
        self.norm = nn.BatchNorm1d(6)
        self.pool = nn.MaxPool1d(3, 2, 1)
        self.conv = nn.Conv1d(6, 8, 3, dilation=2, padding=2, groups=2)
        self.relu = nn.ReLU(inplace=True)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        x = self.pool(self.relu(self.norm(self.stem(x))))
        return self.head(self.relu(self.conv(x)).mean(2))


class Volume(nn.Module):
    """Scans, whose three axes are of different length."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv3d(1, 4, 3, stride=(1, 2, 2), padding=1)
        self.norm = nn.BatchNorm3d(4)
        self.pool = nn.MaxPool3d((2, 1, 2))
        self.conv = nn.Conv3d(4, 6, 3, padding=1)
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        x = self.pool(F.relu(self.norm(self.stem(x))))
        return self.head(F.relu(self.conv(x)).mean((2, 3, 4)))


def signals(n=2, size=37, channels=2, seed=0):
    return np.random.default_rng(seed).normal(size=(n, size, channels))


def volumes(n=2, size=(6, 9, 7), channels=1, seed=0):
    return np.random.default_rng(seed).normal(size=(n, *size, channels))


@pytest.mark.parametrize(
    ("make", "x", "grids"),
    [
        (Signal, signals(), {"stem": (19,), "pool": (10,), "conv": (10,)}),
        (Volume, volumes(), {"stem": (6, 5, 4), "pool": (3, 5, 2), "conv": (3, 5, 2)}),
    ],
)
def test_signals_and_volumes(make, x, grids):
    net = seeded(make)
    for layer in ("stem", "norm", "pool", "conv"):
        model, _ = check_grad_cam_and_saliency(
            net, layer, x, [ClassScore(1)] * 2, lambda y: y[:, 1].sum()
        )
    for layer, grid in grids.items():
        assert model.layers[layer].grid == grid
        assert model.layers[layer].shape[:-1] == grid
    assert model.layers["head"].grid is None
    assert_gradients_are_slopes(model, x, ["stem", "pool", "conv", INPUT])


def test_cam_of_signals_averages_to_the_score():
    net, x = seeded(Signal), signals()
    maps = explain("cam", wrap(net), x, [Contrast(0, 2)] * 2)
    assert maps.layer == "relu@1"
    bias = net.head.bias.detach().numpy()
    np.testing.assert_allclose(maps.raw.mean(1), maps.scores - bias[0] + bias[2], rtol=1e-10)


@pytest.mark.parametrize("axes", [1, 3])
@pytest.mark.parametrize("groups", [1, 2, 6])
def test_convolutions_of_any_rank_give_their_kernel_first(axes, groups):
    size = (4,) if axes == 1 else (2, 1, 3)
    conv = {1: nn.Conv1d, 3: nn.Conv3d}[axes]
    net = seeded(lambda: nn.Sequential(conv(6, 12, size, groups=groups), nn.Flatten()))
    arrays = wrap(net).parameters("0")
    assert arrays["weight"].shape == (*size, 6 // groups, 12)
    x = np.random.default_rng(0).normal(size=(*size, 6))
    per = 6 // groups
    expected = arrays["bias"] + np.concatenate(
        [
            np.tensordot(x[..., g * per : (g + 1) * per], weight, axes=axes + 1)
            for g, weight in enumerate(np.split(arrays["weight"], groups, -1))
        ]
    )
    np.testing.assert_allclose(net(native(x[None]))[0].detach().numpy(), expected, rtol=1e-12)


# ---------------------------------------------------------------- vision transformers


class Vit(nn.Module):
    """A vision transformer with a class token and registers, in the order of modern ones."""

    def __init__(self, grid, prefix=1, dim=8, pooled=False):
        super().__init__()
        self.embed = {2: nn.Conv2d, 3: nn.Conv3d}[len(grid)](3, dim, 4, 4)
        self.prefix = nn.Parameter(torch.randn(1, prefix, dim))
        self.position = nn.Parameter(torch.randn(1, prefix + math.prod(grid), dim) * 0.1)
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = nn.MultiheadAttention(dim, 2, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(dim, 12), nn.GELU(), nn.Linear(12, dim))
        self.block = nn.TransformerEncoderLayer(dim, 2, 16, batch_first=True, norm_first=True)
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, 5)
        self.pooled = pooled

    def forward(self, x):
        x = self.embed(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.prefix.expand(len(x), -1, -1), x], 1) + self.position
        y = self.norm1(x)
        x = x + self.attention(y, y, y)[0]
        x = self.norm(self.block(x + self.mlp(self.norm2(x))))
        return self.head(x.mean(1) if self.pooled else x[:, 0])


def check_tokens(net, x, layers, grid, prefix):
    """Grad-CAM on tokens: channel weights are means over the grid, class tokens left out."""
    model = wrap(net)
    model.forward(x)

    def pick(y):
        return y[:, 2].sum()

    for layer in layers:
        info = model.layers[layer]
        assert (info.grid, info.prefix) == (grid, prefix), layer
        value, gradient, _ = by_autograd(net, net.get_submodule(layer), native(x), pick)
        value, gradient = (t[:, prefix:].reshape(len(x), *grid, -1) for t in (value, gradient))
        back = model.pullback(x, lambda v: np.eye(v.shape[1])[[2] * len(v)], wrt=[layer])
        same(on_grid(back.values[layer], info), value.numpy())
        same(on_grid(back.gradients[layer], info), gradient.numpy())
        over = tuple(range(1, 1 + len(grid)))
        expected = (gradient.mean(over, keepdim=True) * value).sum(-1)
        maps = explain("grad-cam", model, x, [ClassScore(2)] * len(x), layer=layer)
        same(maps.raw, expected.numpy())
    return model


@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize("prefix", [0, 1, 5])
def test_a_vision_transformer_on_a_picture_that_is_not_square(prefix, pooled):
    net = seeded(Vit, (3, 5), prefix or 1, pooled=pooled)
    if not prefix:  # no tokens but those of the patches
        net.prefix = nn.Parameter(net.prefix[:, :0])
        net.position = nn.Parameter(net.position[:, 1:])
    layers = ["norm1", "norm2", "mlp", "mlp.0", "mlp.1", "block.norm1"]
    if pooled:  # else the score depends on nothing but the class token from the last attention on
        layers += ["block.norm2", "block.linear1", "block", "norm"]
    model = check_tokens(net, picture(2, (12, 20)), layers, (3, 5), prefix)
    assert model.layers["embed"].grid == (3, 5)
    assert model.layers["attention"].grid == (3, 5)
    assert model.layers["head"].grid is None


def test_a_vision_transformer_on_volumes():
    net, x = seeded(Vit, (2, 3, 4), 1), volumes(2, (8, 12, 16), 3)
    model = check_tokens(net, x, ["norm1", "mlp.0", "block.norm1"], (2, 3, 4), 1)
    assert model.layers["embed"].grid == (2, 3, 4)


def test_the_vision_transformer_of_torchvision():
    define()
    from torchvision.models import VisionTransformer

    net = seeded(VisionTransformer, 24, 8, 2, 2, 8, 16, num_classes=5)
    nn.init.normal_(net.heads.head.weight, generator=torch.Generator().manual_seed(0))
    first, second = (f"encoder.layers.encoder_layer_{i}" for i in (0, 1))
    layers = [first, f"{first}.ln_1", f"{first}.ln_2", f"{first}.mlp.0", f"{second}.ln_1"]
    model = check_tokens(net, picture(2, (24, 24)), layers, (3, 3), 1)
    assert model.layers["conv_proj"].grid == (3, 3)
    assert model.layers["encoder.ln"].grid == (3, 3)
    assert model.layers[f"{second}.self_attention"].kind == "attention"


# ---------------------------------------------------------------- dense and several outputs


class Segmenter(nn.Module):
    """A fully convolutional network: a score for each class at each position."""

    def __init__(self):
        super().__init__()
        self.down = nn.Conv2d(3, 6, 3, stride=2, padding=1)
        self.mid = nn.Conv2d(6, 6, 3, padding=1)
        self.up = nn.ConvTranspose2d(6, 4, 2, stride=2)

    def forward(self, x):
        return {"out": self.up(F.relu(self.mid(F.relu(self.down(x))))), "aux": x}


def test_segmentation():
    net, x = seeded(Segmenter), picture(2, (8, 12))
    out = wrap(net).forward(x).logits
    np.testing.assert_array_equal(out, channels_last(net(native(x))["out"].detach()))
    wins = out.argmax(-1) == 1
    assert 0 < wins.sum() < wins.size
    for target, regions in ((Segment(1), wins), (Segment(1, wins[0]), wins[[0, 0]])):
        where = torch.from_numpy(regions)
        model, maps = check_grad_cam_and_saliency(
            net, "mid", x, [target] * 2, lambda y, where=where: (y["out"][:, 1] * where).sum()
        )
        assert model.layers["up"].grid == (8, 12)
        np.testing.assert_allclose(
            maps.scores, [o[r, 1].sum() for o, r in zip(out, regions, strict=True)]
        )
        np.testing.assert_array_equal([t.mask for t in maps.targets], regions)


@dataclass(frozen=True)
class BoxScore:
    """How sure a detector is that a box holds a class: a target as a user writes one."""

    box: int
    label: int
    of: str = LOGITS

    def score(self, value):
        return float(value[self.box, 4 + self.label])

    def gradient(self, value):
        gradient = np.zeros_like(value)
        gradient[self.box, 4 + self.label] = 1
        return gradient

    def resolve(self, value):
        return self


@dataclass(frozen=True)
class BestBox(BoxScore):
    """The box that is surest of a class, found when it is resolved."""

    box: int = -1
    label: int = 0

    def resolve(self, value):
        return BoxScore(int(value[:, 4 + self.label].argmax()), self.label)

    def score(self, value):
        return self.resolve(value).score(value)

    def gradient(self, value):
        return self.resolve(value).gradient(value)


class Detector(nn.Module):
    """Boxes with scores for three classes, two at each position of a grid."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, stride=2, padding=1)
        self.head = nn.Conv2d(6, 2 * 7, 1)

    def forward(self, x):
        y = self.head(F.silu(self.conv(x)))
        return y.unflatten(1, (2, 7)).permute(0, 3, 4, 1, 2).flatten(1, 3)


def test_one_box_of_a_detector():
    net, x = seeded(Detector), picture(2, (6, 8))
    model, maps = check_grad_cam_and_saliency(
        net, "conv", x, [BoxScore(5, 1), BoxScore(17, 2)], lambda y: y[0, 5, 5] + y[1, 17, 6]
    )
    assert model.forward(x).output.shape == (2, 24, 7)  # boxes, then box and classes, as it gave it
    best = explain("grad-cam", model, x, [BestBox(label=2)] * 2)
    boxes = net(native(x))[:, :, 6].argmax(1).tolist()
    assert list(best.targets) == [BoxScore(box, 2) for box in boxes]
    assert maps.scores.tolist() == [net(native(x))[0, 5, 5].item(), net(native(x))[1, 17, 6].item()]


class Reader(nn.Module):
    """Reads a line of text: columns of a picture become a sequence, with scores at each step."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 6, 3, padding=1)
        self.lstm = nn.LSTM(6, 5, batch_first=True, bidirectional=True)
        self.head = nn.Linear(10, 9)

    def forward(self, x):
        columns = F.relu(self.conv(x)).mean(2).transpose(1, 2)
        return self.head(self.lstm(columns)[0])


def test_one_step_of_a_sequence():
    net, x = seeded(Reader), picture(2, (5, 12), channels=1)
    model, maps = check_grad_cam_and_saliency(
        net, "conv", x, [Neuron(LOGITS, (7, 3))] * 2, lambda y: y[:, 7, 3].sum()
    )
    trace = model.forward(x, capture=["lstm", "head"])
    assert trace.logits.shape == (2, 12, 9)
    assert trace["lstm"].shape == (2, 12, 10)
    np.testing.assert_array_equal(trace["head"], trace.output)
    np.testing.assert_allclose(maps.scores, net(native(x))[:, 7, 3].detach())


@pytest.mark.parametrize("channels_last_head", [False, True])
def test_scores_for_each_step_of_a_signal(channels_last_head):
    """Steps come first and scores last, whichever way torch has them."""

    class Labels(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv1d(2, 6, 3, padding=1)
            self.head = nn.Linear(6, 4) if channels_last_head else nn.Conv1d(6, 4, 1)

        def forward(self, x):
            x = torch.tanh(self.conv(x))
            return self.head(x.transpose(1, 2) if channels_last_head else x)

    net, x = seeded(Labels), signals()
    where = (slice(None), 7, 3) if channels_last_head else (slice(None), 3, 7)
    model, _ = check_grad_cam_and_saliency(
        net, "conv", x, [Neuron(LOGITS, (7, 3))] * 2, lambda y: y[where].sum()
    )
    assert model.forward(x).logits.shape == (2, 37, 4)
    assert model.layers["head"].grid == (37,)


class Recurrent(nn.Module):
    """Reads a signal step by step; torch has the channels of such networks on the last axis."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(2, 6, batch_first=True)
        self.head = nn.Linear(6, 4)

    def forward(self, x):
        return self.head(self.lstm(x)[0][:, -1])


class Attentive(nn.Module):
    """A transformer on the steps of a signal."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(2, 6)
        self.block = nn.TransformerEncoderLayer(6, 2, 8, batch_first=True, norm_first=True)
        self.head = nn.Linear(6, 4)

    def forward(self, x):
        return self.head(torch.tanh(self.block(self.embed(x))).mean(1))


class Bare(nn.Module):
    """Attention on the signal itself."""

    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(2, 1, 8, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(2, 4)

    def forward(self, x):
        return self.head(self.encoder(x)[:, 3])


@pytest.mark.parametrize("size", [7, 2])  # as many steps as channels, too
@pytest.mark.parametrize("declared", [False, True])
@pytest.mark.parametrize(
    ("make", "layer"), [(Recurrent, "lstm"), (Attentive, "block"), (Bare, "encoder.layers.0")]
)
def test_networks_that_take_signals_with_the_channels_last(make, layer, declared, size):
    if make is Bare and size == 2:
        pytest.skip("it looks at the fourth step")
    net, x = seeded(make), signals(size=size)
    model = wrap(net, input_shape=(size, 2)) if declared else wrap(net)
    leaf = torch.tensor(x, requires_grad=True)
    out = net(leaf)
    (expected,) = torch.autograd.grad(out[:, 1].sum(), leaf)
    np.testing.assert_allclose(model.forward(x).output, out.detach(), rtol=1e-12)
    same(explain("saliency", model, x, [ClassScore(1)] * 2).raw, expected.numpy())
    assert model.layers[layer].grid == (size,)
    assert model.layers[layer].shape[0] == size
    assert_gradients_are_slopes(model, x, [layer, INPUT])
    moved = model.forward(x, replace={layer: lambda v: v * 2}).output
    assert not np.allclose(moved, out.detach())


def test_a_linear_layer_along_a_signal_keeps_the_channels_first():
    """Forecasters map all steps at once: their linear layer takes the steps, not the channels."""
    net, x = seeded(lambda: nn.Sequential(nn.Linear(7, 5), nn.Flatten())), signals(size=7)
    model = wrap(net)
    expected = net(native(x)).detach()
    np.testing.assert_array_equal(model.forward(x).output, expected)
    same(
        model.pullback(x, np.ones_like).gradients[INPUT][0, :, 0],
        net[0].weight.sum(0).detach().numpy(),
    )


@pytest.mark.parametrize("make", [Recurrent, Attentive, Bare])
def test_a_signal_of_other_channels_is_refused(make):
    with pytest.raises(ArrayError, match="'x' has the shape"):
        wrap(seeded(make)).forward(signals(size=7, channels=5))


def test_a_recurrent_layer_after_a_convolution_has_its_steps_first():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv1d(2, 6, 3)
            self.gru = nn.GRU(6, 5, batch_first=True)

        def forward(self, x):
            return self.gru(self.conv(x).transpose(1, 2))[0][:, -1]

    net, x = seeded(Net), signals(size=11)
    model = wrap(net)
    steps = model.forward(x, capture=["gru"])["gru"]
    assert (model.layers["gru"].shape, model.layers["gru"].grid) == ((9, 5), (9,))
    np.testing.assert_allclose(steps[:, -1], net(native(x)).detach(), rtol=1e-12)
    assert_gradients_are_slopes(model, x, ["conv", "gru", INPUT])


def test_an_embedding():
    class Embedder(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 6, 3)
            self.embed = nn.Linear(6, 8)

        def forward(self, x):
            return F.normalize(self.embed(F.relu(self.conv(x)).mean((2, 3))))

    net, x = seeded(Embedder), picture()
    other = net(native(picture(1, seed=7)))[0].detach()
    _, maps = check_grad_cam_and_saliency(
        net,
        "conv",
        x,
        [Similarity(other.numpy())] * 2,
        lambda y: F.cosine_similarity(y, other[None]).sum(),
    )
    assert np.abs(maps.scores).max() < 1


# ---------------------------------------------------------------- several inputs


class Joint(nn.Module):
    """A picture and a vector that says where to look."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.gate = nn.Linear(4, 6)
        self.head = nn.Linear(6, 5)

    def forward(self, image, vector):
        gate = torch.sigmoid(self.gate(vector))
        return self.head((F.relu(self.conv(image)) * gate[:, :, None, None]).mean((2, 3)))


@pytest.mark.parametrize("target", [ClassScore(3), Contrast(1, 4), Neuron("gate", (2,))])
def test_a_picture_and_a_vector(target):
    net = seeded(Joint)
    x = {"image": picture(2, (6, 8)), "vector": np.random.default_rng(1).normal(size=(2, 4))}
    model = wrap(net, input_shape={"image": (6, 8, 3), "vector": (4,)})
    kept = {}
    handles = [
        net.get_submodule(name).register_forward_hook(
            lambda _module, _args, output, name=name: kept.__setitem__(name, output)
        )
        for name in ("conv", "gate")
    ]
    leaves = [native(x["image"]).requires_grad_(), torch.tensor(x["vector"], requires_grad=True)]
    y = net(*leaves)
    for handle in handles:
        handle.remove()
    if isinstance(target, Neuron):
        total = kept["gate"][:, 2].sum()
        nodes, wanted = [input_node("vector")], [leaves[1]]
    else:
        weights = torch.tensor(target.gradient(np.zeros(5)))
        total = (y * weights).sum()
        nodes = ["conv", "gate", input_node("image"), input_node("vector")]
        wanted = [kept["conv"], kept["gate"], *leaves]
    gradients = torch.autograd.grad(total, wanted)
    back = model.pullback(
        x, lambda v: np.stack([target.gradient(row) for row in v]), of=target.of, wrt=nodes
    )
    for node, gradient in zip(nodes, gradients, strict=True):
        same(
            back.gradients[node],
            channels_last(gradient) if gradient.ndim == 4 else gradient.numpy(),
        )
    if not isinstance(target, Neuron):  # Grad-CAM from the protocol's parts
        weights = back.gradients["conv"].mean((1, 2), keepdims=True)
        expected = (gradients[0].mean((2, 3), keepdim=True) * kept["conv"]).sum(1).detach()
        same((weights * back.values["conv"]).sum(-1), expected.numpy())


def test_the_first_of_several_inputs_is_the_input():
    net = seeded(Joint)
    x = {"image": picture(2, (6, 8)), "vector": np.ones((2, 4))}
    model = wrap(net, input_shape={"image": (6, 8, 3), "vector": (4,)})
    back = model.pullback(x, np.ones_like, of=OUTPUT, wrt=[INPUT, input_node("image")])
    np.testing.assert_array_equal(back.gradients[INPUT], back.gradients[input_node("image")])
    assert back.gradients[INPUT].shape == (2, 6, 8, 3)
