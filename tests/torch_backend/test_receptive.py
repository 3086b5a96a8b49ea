"""Receptive fields of torch networks: published numbers, and gradients as the oracle."""

from __future__ import annotations

import warnings
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from cnnviz_core.errors import MissingCapabilityError
from cnnviz_core.inputs import OneInput
from cnnviz_core.memo import MemoModel
from cnnviz_core.model import OUTPUT
from cnnviz_core.receptive import input_convolutions, receptive_field, receptive_fields
from cnnviz_core.testing.fields import assert_same_field, boxes_by_gradients
from cnnviz_torch.model import wrap
from support.torchvision_ops import define


class Fn(nn.Module):
    """A function as a layer."""

    def __init__(self, function, *layers):
        super().__init__()
        self.function = function
        self.layers = nn.ModuleList(layers)

    def forward(self, *x):
        return self.function(*x, *self.layers)


def conv(c_in=4, c_out=4, size=3, **kwargs):
    return nn.Conv2d(c_in, c_out, size, **kwargs)


def windows(x, conv):
    """Attention within windows of 3 by 3."""
    n, c, h, w = x.shape
    parts = x.view(n, c, h // 3, 3, w // 3, 3).permute(0, 2, 4, 3, 5, 1)
    tokens = parts.reshape(-1, 9, c)
    mixed = (tokens @ tokens.transpose(1, 2)).softmax(-1) @ tokens
    mixed = mixed.view(n, h // 3, w // 3, 3, 3, c).permute(0, 5, 1, 3, 2, 4)
    return conv(mixed.reshape(n, c, h, w))


def excited(x, conv, squeeze):
    """Squeeze and excitation."""
    y = conv(x)
    return y * torch.sigmoid(squeeze(y.mean((2, 3))))[..., None, None]


def u_net(x, first, down, middle, up, last):
    a = torch.tanh(first(x))
    b = torch.tanh(middle(down(a)))
    return last(torch.cat([a, F.interpolate(up(b), size=a.shape[2:])], 1))


def tokens(x, patches, norm, attention):
    y = patches(x).flatten(2).transpose(1, 2)
    y = torch.cat([torch.ones(len(x), 1, y.shape[-1], dtype=y.dtype), y], 1)
    y = attention(norm(y)) if attention is not None else norm(y)
    return y[:, 1:].transpose(1, 2).unflatten(2, (4, 4))


def in_channels_last(x, norm, linear):
    return linear(norm(x.permute(0, 2, 3, 1))).movedim(-1, 1)


def repeated(x):
    """Columns side by side with copies of themselves."""
    return x[..., None].expand(-1, -1, -1, -1, 2).flatten(3)


def patches_by_hand(x, linear):
    """Patches of 3 by 3 as a reshaping and a linear layer do them."""
    n, c, h, w = x.shape
    cut = x.view(n, c, h // 3, 3, w // 3, 3).permute(0, 2, 4, 1, 3, 5).flatten(3)
    return linear(cut).permute(0, 3, 1, 2)


CASES = {
    "plain": [conv(2), conv(4, 4, 5, padding=2)],
    "rectangular": [conv(2, 4, (3, 1), padding=(1, 0)), conv(4, 4, (2, 4), stride=(1, 2))],
    "dilated": [conv(2, dilation=2, padding=2), conv(dilation=3, padding=3)],
    "same, even kernel": [conv(2, 4, 4, padding="same"), conv(padding="same", dilation=2)],
    "grouped": [conv(2, 4, groups=2), conv(groups=4, stride=2)],
    "ceil mode": [nn.AvgPool2d(3, 2, 1, ceil_mode=True), conv(2)],
    "max pools": [nn.MaxPool2d(2), conv(2, padding=1), nn.MaxPool2d(3, 1, 1, dilation=1)],
    "dilated max pool": [nn.MaxPool2d(2, stride=2, dilation=3), conv(2, 4, 1)],
    "constant padding": [nn.ZeroPad2d((1, 2, 3, 0)), conv(2), nn.ZeroPad2d((-1, 1, 0, -2))],
    "reflection": [nn.ReflectionPad2d((2, 3, 1, 4)), conv(2)],
    "replication": [conv(2, padding=2, padding_mode="replicate"), conv()],
    "transposed": [conv(2, stride=2), nn.ConvTranspose2d(4, 4, 3, stride=2, output_padding=1)],
    "transposed, dilated": [nn.ConvTranspose2d(2, 4, 3, padding=1, dilation=2), conv()],
    "transposed, sparse": [conv(2, stride=3), nn.ConvTranspose2d(4, 4, 2, stride=3), conv()],
    "nearest": [conv(2, stride=2), nn.Upsample(scale_factor=2), conv(padding=1)],
    "nearest, to a size": [conv(2, stride=2), nn.Upsample(size=(7, 16)), conv()],
    "nearest, exact": [conv(2, stride=2), nn.Upsample(size=(8, 9), mode="nearest-exact")],
    "bilinear": [conv(2, stride=2), nn.Upsample(scale_factor=2, mode="bilinear"), conv()],
    "bilinear, smaller": [conv(2), nn.Upsample(size=(4, 5), mode="bilinear")],
    "bilinear, corners": [conv(2), nn.Upsample(size=(7, 19), mode="bilinear", align_corners=True)],
    "bicubic": [conv(2, stride=3), nn.Upsample(size=(9, 7), mode="bicubic")],
    "bicubic, corners": [
        conv(2, stride=3),
        nn.Upsample(size=(7, 9), mode="bicubic", align_corners=True),
    ],
    "adaptive": [conv(2), nn.AdaptiveAvgPool2d((4, 3)), conv(4, 4, 2)],
    "area": [conv(2), Fn(lambda x: F.interpolate(x, size=(7, 4), mode="area"))],
    "pixel shuffle": [conv(2, 8, stride=2), nn.PixelShuffle(2), conv(2)],
    "pixel unshuffle": [nn.PixelUnshuffle(2), conv(8), nn.ChannelShuffle(2)],
    "focus": [
        Fn(lambda x: torch.cat([x[..., i::2, j::2] for i in (0, 1) for j in (0, 1)], 1)),
        conv(8),
    ],
    "crops": [conv(2), Fn(lambda x: x[:, 1:, 2:-1, 3:].narrow(3, 0, 4)), conv(3)],
    "strips": [conv(2), Fn(lambda x: torch.cat([x[:, :, :2], x[:, :, 4:]], 2)), conv()],
    "split": [conv(2), Fn(lambda x: torch.cat(x.split([3, 7], 2)[1].chunk(2, 1), 1)), conv()],
    "one row": [conv(2), Fn(lambda x: x[:, :, 4:5] + x.select(2, -1)[:, :, None])],
    "rolled": [conv(2), Fn(lambda x: x.roll((1, -2), (2, 3)))],
    "residual": [
        Fn(lambda x, a, b: x[:, :1] + b(torch.tanh(a(x))), conv(2, padding=1), conv(padding=1))
    ],
    "inception": [
        Fn(
            lambda x, *branches: torch.cat([branch(x) for branch in branches], 1),
            conv(2, 4, 1),
            conv(2, 4, (1, 7), padding=(0, 3)),
            nn.Sequential(conv(2, padding=1), conv(4, 2, 3, padding=1)),
            nn.AvgPool2d(3, 1, 1),
        ),
        conv(12, 4, 2),
    ],
    "u-net": [
        Fn(
            u_net,
            conv(2, padding=1),
            nn.AvgPool2d(3),
            conv(padding=1),
            nn.Upsample(scale_factor=3, mode="bilinear"),
            conv(8),
        )
    ],
    "excitation": [Fn(excited, conv(2), nn.Linear(4, 4)), conv()],
    "normalised": [conv(2), nn.BatchNorm2d(4), nn.LocalResponseNorm(3), nn.GELU(), conv()],
    "group norm": [conv(2, stride=2), nn.GroupNorm(2, 4)],
    "instance norm": [conv(2, stride=2), nn.InstanceNorm2d(4)],
    "channels last": [
        conv(2),
        Fn(
            lambda x, n, a: a(n(x.permute(0, 2, 3, 1))).movedim(-1, 1),
            nn.LayerNorm(4),
            nn.Linear(4, 3),
        ),
    ],
    "einsum": [Fn(lambda x: torch.einsum("nchw,cd->ndhw", x, torch.ones(2, 4).to(x))), conv()],
    "columns": [conv(2), Fn(lambda x: x.softmax(2)), conv()],
    "channel softmax": [conv(2), nn.Softmax(1), conv()],
    "along rows": [conv(2), nn.Linear(10, 10), conv()],
    "repeated": [
        conv(2, stride=2),
        Fn(lambda x: x[..., None].expand(-1, -1, -1, -1, 2).flatten(3)),
    ],
    "patches": [Fn(tokens, conv(2, 4, 3, stride=3), nn.LayerNorm(4), None)],
    "attention": [
        Fn(
            tokens,
            conv(2, 4, 3, stride=3),
            nn.LayerNorm(4),
            Fn(
                lambda x, a: a(x, x, x, need_weights=False)[0],
                nn.MultiheadAttention(4, 2, batch_first=True),
            ),
        )
    ],
    "windows": [Fn(windows, conv())],
    "patches by hand": [Fn(patches_by_hand, nn.Linear(18, 5))],
}
"""Networks on pictures of 12 by 12 with two channels, "windows" on some with four."""

WITH_MAXIMA = {"max pools", "dilated max pool"}


def wrapped(layers, shape=(12, 12, 2)):
    torch.manual_seed(0)
    net = nn.Sequential(*layers).double().eval()
    for parameter in net.parameters():  # others may have used the layers before
        nn.init.normal_(parameter, std=0.4)
    return wrap(net, input_shape=shape)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("name", CASES)
def test_every_position_sees_where_its_gradients_are(name):
    channels = 4 if name == "windows" else 2
    model = wrapped(CASES[name], (12, 12, channels))
    field = receptive_field(model, OUTPUT)
    assert field.exact
    draws = 40 if name in WITH_MAXIMA else 2
    x = np.random.default_rng(0).normal(size=(draws, 12, 12, channels))
    positions = list(product(*map(range, field.grid)))
    found = boxes_by_gradients(model, x, OUTPUT, positions)
    assert found == [field.box(position) for position in positions]


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("name", [name for name in CASES if name != "strips"])
def test_without_borders_a_field_is_that_of_a_larger_picture(name):
    """What is said of an endless picture is what the middle of a large one sees."""
    field = receptive_field(wrapped(CASES[name], (12, 12, 4 if name == "windows" else 2)), OUTPUT)
    for ends, span, n in zip(field.unbounded, field.spans, field.pixels, strict=True):
        inside = (ends[:, 0] >= 0) & (ends[:, 1] <= n)
        np.testing.assert_array_equal(ends[inside], span[inside])
        assert (ends[:, 1] - ends[:, 0]).max() >= (span[:, 1] - span[:, 0]).max()


@pytest.mark.parametrize(
    ("layers", "size", "stride", "start"),
    [
        ([nn.Conv1d(2, 4, 5, stride=2), nn.MaxPool1d(3), nn.Conv1d(4, 4, 3)], 21, 6, 0),
        ([nn.Conv1d(2, 4, 3, padding=1), nn.Upsample(scale_factor=2, mode="linear")], 4, 0.5, -2),
        ([nn.AvgPool1d(4), nn.ConvTranspose1d(2, 3, 4, stride=4)], 4, 1, 0),
    ],
)
def test_signals(layers, size, stride, start):
    model = wrapped(layers, (40, 2))
    field = receptive_field(model, OUTPUT)
    assert (field.size, field.stride, field.start) == ((size,), (Fraction(stride),), (start,))
    x = np.random.default_rng(0).normal(size=(20, 40, 2))
    positions = [(k,) for k in range(field.grid[0])]
    assert boxes_by_gradients(model, x, OUTPUT, positions) == [field.box(p) for p in positions]


def test_volumes():
    layers = [nn.Conv3d(2, 4, (1, 2, 3)), nn.AvgPool3d((2, 1, 2)), nn.Conv3d(4, 3, 2, padding=1)]
    model = wrapped(layers, (6, 7, 8, 2))
    field = receptive_field(model, OUTPUT)
    assert (field.size, field.stride) == ((4, 3, 6), (2, 1, 2))
    x = np.random.default_rng(0).normal(size=(2, 6, 7, 8, 2))
    positions = list(product(*map(range, field.grid)))
    assert boxes_by_gradients(model, x, OUTPUT, positions) == [field.box(p) for p in positions]


def test_operations_that_are_not_understood_are_named_and_leave_no_pixel_out():
    class Own(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.flip(-1)

        @staticmethod
        def backward(ctx, g):
            return g.flip(-1)

    model = wrapped([conv(2), Fn(Own.apply), conv(), nn.AdaptiveAvgPool2d(1), conv(4, 4, 1)])
    before, behind, end = receptive_fields(model, ["0", "2", OUTPUT])
    assert before.exact
    assert not before.whole
    assert behind.whole
    assert behind.through == end.through == ("Own",)
    assert not behind.exact
    x = np.random.default_rng(0).normal(size=(2, 12, 12, 2))
    assert boxes_by_gradients(model, x, "2", [(0, 0)]) != [behind.box((0, 0))]


@pytest.mark.parametrize(
    "function",
    [
        lambda x: F.conv2d(x, x.mean((0, 2, 3)).view(2, 1, 1, 1), groups=2),
        lambda x: torch.addmm(x[0, 0], x[0, 0], torch.ones(12, 12).to(x))[None, None],
        lambda x: F.layer_norm(x, (12,), x[0, 0, 0], x[0, 0, 1]),
        lambda x: x[:, :, [3, 1, 2]],
        lambda x: x.cumsum(2),
    ],
)
def test_kernels_and_scales_made_of_the_input_leave_no_pixel_out(function):
    model = wrapped([Fn(function)])
    field = receptive_field(model, OUTPUT)
    assert field.through
    assert field.whole


def test_gates_can_be_left_out():
    model = wrapped([Fn(excited, conv(2), nn.Linear(4, 4)), nn.GroupNorm(2, 4), conv()])
    whole, local = (receptive_field(model, OUTPUT, local=local) for local in (False, True))
    assert whole.whole
    assert not local.whole
    assert local.size == (5, 5)
    assert local.box((0, 0)) == ((0, 5), (0, 5))
    mean = wrapped([conv(2), nn.AdaptiveAvgPool2d(1)])
    assert_same_field(receptive_field(mean, "1", local=True), receptive_field(mean, "1"))


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_exported_programs_tell_and_scripts_do_not():
    torch.manual_seed(0)
    net = nn.Sequential(conv(2, padding=1), nn.ReLU(), nn.MaxPool2d(2), conv()).eval()
    x = torch.zeros(1, 2, 12, 12)
    exported = wrap(torch.export.export(net, (x,)))
    expected = receptive_field(wrap(net, input_shape=(12, 12, 2)), "3")
    assert_same_field(receptive_field(exported, "3"), expected)
    assert [info.name for info in input_convolutions(exported)] == ["0"]
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        script = wrap(torch.jit.trace(net, x), input_shape=(12, 12, 2))
    with pytest.raises(MissingCapabilityError, match="geometry"):
        receptive_field(script, "3")


def test_sizes_are_those_of_the_input():
    model = wrap(nn.Sequential(conv(2), nn.AdaptiveAvgPool2d(2)))
    x = np.zeros((3, 20, 30, 2), np.float32)
    field = receptive_field(model, "1", x)
    assert field.pixels == (20, 30)
    assert field.box((1, 1)) == ((9, 20), (14, 30))


def test_frozen_and_hidden_parts_are_walked_through():
    class Frozen(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = conv(2), conv()

        def forward(self, x):
            with torch.no_grad():
                x = self.a(x)
            return self.b(F.relu(x, inplace=True))

    net = Frozen().requires_grad_(False)
    model = wrap(net, input_shape=(12, 12, 2))
    assert receptive_field(model, "b").size == (5, 5)
    assert not any(p.requires_grad or p.grad is not None for p in net.parameters())


def test_models_that_stand_for_others_pass_it_on():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = conv(2), conv(2, stride=2)

        def forward(self, x, y):
            return self.a(x).mean((2, 3)) + self.b(y).mean((2, 3))

    model = wrap(Two(), input_shape={"x": (12, 12, 2), "y": (9, 9, 2)})
    free = OneInput(model, "y", {"x": np.zeros((1, 12, 12, 2), np.float32)})
    y = np.zeros((1, 9, 9, 2), np.float32)
    expected = receptive_field(model, "b", wrt="@input:y")
    assert_same_field(receptive_field(free, "b", y), expected)
    assert_same_field(receptive_field(MemoModel(free, y), "b"), expected)


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ([conv(2), conv()], ["0"]),
        ([nn.BatchNorm2d(2), nn.ReflectionPad2d(1), conv(2)], ["2"]),
        ([nn.Upsample(scale_factor=2, mode="bilinear"), conv(2)], ["1"]),
        ([nn.PixelUnshuffle(2), conv(8)], []),
        ([nn.AvgPool2d(2), conv(2)], []),
        ([Fn(lambda x, a, b: a(x) + b(x), conv(2), conv(2)), conv()], ["0.layers.0", "0.layers.1"]),
        ([Fn(lambda x, a: torch.cat([a(x), x], 1), conv(2, padding=1)), conv(6)], ["0.layers.0"]),
    ],
)
def test_convolutions_of_the_picture(layers, expected):
    assert [info.name for info in input_convolutions(wrapped(layers))] == expected


# ---------------------------------------------------------------- published numbers

PUBLISHED = [
    # Araujo et al. (Distill 2019), and for VGG conv5_3 the usual table.
    ("alexnet", "features.0", 11, 4),
    ("alexnet", "features.10", 163, 16),
    ("alexnet", "features.12", 195, 32),
    ("vgg16", "features.28", 196, 16),
    ("vgg16", "features.30", 212, 32),
    ("resnet18", "conv1", 7, 2),
    ("resnet18", "layer4", 435, 32),
    ("resnet50", "conv1", 7, 2),
    ("resnet50", "layer4", 427, 32),  # the stride is in the 3 by 3 convolution
    ("mobilenet_v2", "features", 491, 32),
    ("inception_v3", "Mixed_7c", 1311, 32),
]


@pytest.fixture(scope="module")
def fields():
    """The fields of torchvision's networks, each built once."""
    define()
    from torchvision import models

    def of(name):
        if name not in known:
            options = {"init_weights": False} if name == "inception_v3" else {}
            size = 299 if name == "inception_v3" else 224
            net = getattr(models, name)(weights=None, **options).eval()
            known[name] = wrap(net, input_shape=(size, size, 3))
        return known[name]

    known = {}
    return of


@pytest.mark.slow
@pytest.mark.parametrize(("network", "layer", "size", "stride"), PUBLISHED)
def test_published_fields(fields, network, layer, size, stride):
    field = receptive_field(fields(network), layer)
    assert (field.size, field.stride) == ((size, size), (stride, stride))
    assert field.exact


@pytest.mark.slow
def test_resnet_50_with_the_stride_in_its_first_convolutions(fields):
    """He et al. put the stride into the 1 by 1 convolution at the beginning of a block."""
    define()
    from torchvision import models

    net = models.resnet50(weights=None).eval()
    for stage in (net.layer2, net.layer3, net.layer4):
        block = stage[0]
        block.conv1.stride, block.conv2.stride = block.conv2.stride, block.conv1.stride
    assert receptive_field(wrap(net, input_shape=(224, 224, 3)), "layer4").size == (483, 483)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "layer"),
    [
        ("alexnet", "features.10"),
        ("vgg16", "features.14"),
        ("resnet18", "layer2"),
        ("inception_v3", "Mixed_5c"),
        ("mobilenet_v2", "features.6"),
    ],
)
def test_fields_of_known_networks_are_where_gradients_are(fields, network, layer):
    model = fields(network)
    field = receptive_field(model, layer)
    x = np.random.default_rng(0).normal(size=(3, *field.pixels, 3)).astype(np.float32)
    positions = [(0, 0), field.middle, (-1, 3)]
    found = boxes_by_gradients(model, x, layer, positions)
    assert found == [field.box(position) for position in positions]


@pytest.mark.slow
def test_first_convolutions_of_known_networks(fields):
    found = {
        name: [info.name for info in input_convolutions(fields(name))]
        for name in ("alexnet", "vgg16", "resnet50", "inception_v3")
    }
    assert found == {
        "alexnet": ["features.0"],
        "vgg16": ["features.0"],
        "resnet50": ["conv1"],
        "inception_v3": ["Conv2d_1a_3x3.conv"],
    }
