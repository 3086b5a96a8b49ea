"""Torch networks computed again only where masks reach, against the networks themselves."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cnnviz_core.blended import Blended
from cnnviz_core.mask_forms import Labelled
from cnnviz_core.masks import SegmentMasks, WindowMasks
from cnnviz_core.testing.nets import NETS
from cnnviz_core.windows import Windows
from cnnviz_torch.blending import blended
from cnnviz_torch.build import build
from cnnviz_torch.program.fusing import activations_fused
from cnnviz_torch.program.increment import increment
from cnnviz_torch.program.locality import describe
from cnnviz_torch.program.lowering import channels_last, normalisations_folded
from cnnviz_torch.program.program import generalised
from cnnviz_torch.program.tape import Taping
from support.torch_nets import Residual, Vgg, picture, seeded
from support.torchvision_ops import define

SIZE = (20, 18)


class Rest(nn.Module):
    """A stem, a function of its six channels, and what a test needs of weights."""

    def __init__(self, function, **layers):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.layers = nn.ModuleDict(layers)
        self.position = nn.Parameter(torch.randn(6, *SIZE))
        self.channel = nn.Parameter(torch.randn(6, 1, 1))
        self.function = function

    def forward(self, x):
        return self.function(self, self.stem(x))


def of(function, **layers):
    """Make such a network, without inherited state."""
    return lambda: Rest(function, **{name: make() for name, make in layers.items()})


def layer(make):
    """Make such a network with one layer behind its stem."""
    return of(lambda net, x: net.layers["layer"](x), layer=make)


def excited(net, x):
    """Squeeze and excite, between convolutions."""
    y = net.layers["a"](x).relu()
    return net.layers["b"](y * y.mean((2, 3), keepdim=True).sigmoid())


def halves(net, x):
    """Cut the channels in two, and put them together again."""
    a, b = x.chunk(2, 1)
    return torch.cat([a.relu(), b], 1)


CASES = {
    # name: (network, the operation, how it is taken)
    "stride": (layer(lambda: nn.Conv2d(6, 4, 3, 2, 1)), "convolution", "window"),
    "groups": (layer(lambda: nn.Conv2d(6, 6, (3, 2), 1, (0, 1), 2, 3)), "convolution", "window"),
    "transposed": (layer(lambda: nn.ConvTranspose2d(6, 4, 3, 2, 1)), "convolution", "whole"),
    "max": (layer(lambda: nn.MaxPool2d(3, 2, 1)), "max_pool2d_with_indices", "window"),
    "ceil": (
        layer(lambda: nn.MaxPool2d(3, 2, ceil_mode=True)),
        "max_pool2d_with_indices",
        "window",
    ),
    "dilated": (layer(lambda: nn.MaxPool2d(2, 3, 1, 2)), "max_pool2d_with_indices", "window"),
    "average": (layer(lambda: nn.AvgPool2d(3, 2, 1)), "avg_pool2d", "window"),
    "counted": (
        layer(lambda: nn.AvgPool2d(3, 2, 1, count_include_pad=False)),
        "avg_pool2d",
        "whole",
    ),
    "unpadded": (layer(lambda: nn.AvgPool2d(2, count_include_pad=False)), "avg_pool2d", "window"),
    "ceil average": (layer(lambda: nn.AvgPool2d(4, ceil_mode=True)), "avg_pool2d", "whole"),
    "equal bins": (layer(lambda: nn.AdaptiveAvgPool2d((5, 9))), "_adaptive_avg_pool2d", "window"),
    "one to one": (layer(lambda: nn.AdaptiveAvgPool2d(SIZE)), "_adaptive_avg_pool2d", "window"),
    "unequal bins": (layer(lambda: nn.AdaptiveAvgPool2d((7, 4))), "_adaptive_avg_pool2d", "whole"),
    "all": (layer(lambda: nn.AdaptiveAvgPool2d(1)), "mean", "mean"),
    "rows": (of(lambda net, x: x.mean(2)), "mean", "whole"),
    "pad": (of(lambda net, x: F.pad(x, (1, 0, 2, 3), value=0.5)), "constant_pad_nd", "window"),
    "crop": (of(lambda net, x: F.pad(x, (-1, -2))), "constant_pad_nd", "window"),
    "channel pad": (of(lambda net, x: F.pad(x, (0, 0, 0, 0, 1, 1))), "constant_pad_nd", "whole"),
    "norm": (layer(lambda: nn.BatchNorm2d(6)), "native_batch_norm", "pointwise"),
    "group norm": (layer(lambda: nn.GroupNorm(2, 6)), "native_group_norm", "whole"),
    "prelu": (layer(lambda: nn.PReLU(6)), "_prelu_kernel", "pointwise"),
    "gelu": (layer(nn.GELU), "gelu", "pointwise"),
    "channel": (of(lambda net, x: x * net.channel), "mul", "pointwise"),
    "position": (of(lambda net, x: x + net.position), "add", "whole"),
    "number": (of(lambda net, x: 1 - 2 * x), "rsub", "pointwise"),
    "itself": (of(lambda net, x: x * x + x), "mul", "pointwise"),
    "channels": (of(lambda net, x: torch.cat([x, x.relu()], 1)), "cat", "concatenate"),
    "along rows": (of(lambda net, x: torch.cat([x, x], 2)), "cat", "whole"),
    "halves": (of(halves), "split", "pointwise"),
    "some": (of(lambda net, x: x[:, 1:5]), "slice", "pointwise"),
    "some rows": (of(lambda net, x: x[:, :, 2:9]), "slice", "whole"),
    "resized": (of(lambda net, x: F.interpolate(x, scale_factor=2)), "upsample_nearest2d", "whole"),
    "excited": (
        of(excited, a=lambda: nn.Conv2d(6, 6, 3), b=lambda: nn.Conv2d(6, 4, 3)),
        "mul",
        "pointwise",
    ),
    "flat": (
        of(lambda net, x: net.layers["dense"](x.flatten(1)), dense=lambda: nn.Linear(2160, 3)),
        "addmm",
        "whole",
    ),
}


def program_of(net, x):
    """Note a network's operations, for any size of a batch."""
    tapes = []
    for n in (2, 3):
        batch = x.expand(n, *x.shape[1:]).contiguous()
        with torch.no_grad(), Taping({"x": batch}) as taping:
            taping.mark("output", net(batch))
        tapes.append(taping.finished())
    return generalised(*tapes, (2, 3)).settled()


def prepared(net, sample, lowered=False):
    """Make the engine of a network and a sample."""
    x = torch.from_numpy(np.ascontiguousarray(np.moveaxis(sample, -1, 0)[None]))
    program = program_of(net, x)
    if lowered:
        program = activations_fused(channels_last(normalisations_folded(program)))
    source = program.inputs["x"]
    return program, increment(program, {source: x}, [program.marks["output"]], source)


def masks_of(size, seed=0):
    """Describe masks: windows over everything, and segments of all sizes."""
    rng = np.random.default_rng(seed)
    windows = WindowMasks(Windows.over(size, 4, 3))
    places = np.indices(size).sum(0) // 3
    segments = SegmentMasks(places, 1.0 - np.eye(places.max() + 1) * rng.random(places.max() + 1))
    return [each.form(0, len(each)) for each in (windows, segments)]


def assert_same(engine, net, sample, form, tolerance):
    """Compare with the network itself."""
    batch = Blended(sample, form, np.full(sample.shape[-1], 0.2, sample.dtype))
    with torch.no_grad():
        (found,) = engine.run(batch)
        expected = net(blended(batch, channels_first=True))
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= tolerance * expected.abs().max()


@pytest.mark.parametrize("name", CASES)
def test_every_operation_gives_what_the_network_gives(name):
    make, operation, kind = CASES[name]
    net, sample = seeded(make), picture(1, SIZE)[0]
    program, engine = prepared(net, sample)
    described = describe(program, program.inputs["x"])
    pairs = zip(described.entries, described.operations, strict=True)
    kinds = [o.kind for e, o in pairs if e.call is not None and e.call.name == operation]
    assert kinds[-1:] == [kind]
    for form in masks_of(SIZE):
        assert_same(engine, net, sample, form, 1e-12)
    corner = Labelled(np.arange(360).reshape(SIZE) // 100, np.array([[0.0, 1, 1, 1]]))
    assert_same(engine, net, sample, corner, 1e-12)


def test_most_operations_are_computed_in_windows_where_that_is_less():
    form = WindowMasks(Windows.over(SIZE, 4, 3)).form(0, 8)
    for name, (make, _, kind) in CASES.items():
        _, engine = prepared(seeded(make), picture(1, SIZE)[0])
        if kind != "whole" and name != "excited":
            assert engine.pays(form), name


@pytest.mark.parametrize("lowered", [False, True])
@pytest.mark.parametrize("make", [Residual, Vgg])
def test_what_a_network_overwrites_is_as_safe(make, lowered):
    net = seeded(make, dtype=torch.float32)
    sample = picture(1, (12, 10), dtype=np.float32)[0]
    _, engine = prepared(net, sample, lowered)
    for form in masks_of((12, 10)):
        for _ in range(2):  # the clean values are what they were
            assert_same(engine, net, sample, form, 1e-5)


@pytest.mark.parametrize("name", [name for name in NETS if name != "two_inputs"])
def test_the_networks_of_the_kit_too(name):
    spec = NETS[name]()
    (shape,) = spec.inputs.values()
    if len(shape) < 2:
        pytest.skip("vectors have no positions")
    net, sample = build(spec).double().eval(), picture(1, shape[:-1], shape[-1])[0]
    _, engine = prepared(net, sample)
    for form in masks_of(shape[:-1]):
        assert_same(engine, net, sample, form, 1e-12)


def test_a_described_batch_is_computed_in_the_type_of_the_network():
    net, sample = seeded(Residual), picture(1, (12, 10))[0]
    _, engine = prepared(net, sample)
    form = masks_of((12, 10))[0]
    batch = Blended(sample.astype(np.float32), form, np.zeros(3, np.float32))
    (found,) = engine.run(batch)
    assert found.dtype == torch.float64


# Whether windows pay: not behind squeeze-and-excite, or where channels are shuffled by reshaping.
ARCHITECTURES = {
    "densenet121": True,
    "efficientnet_b0": False,
    "googlenet": True,
    "mobilenet_v2": True,
    "resnet18": True,
    "shufflenet_v2_x0_5": False,
    "squeezenet1_1": True,
    "vgg11_bn": True,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_real_architectures_too(name):
    try:
        define()
    except ModuleNotFoundError:
        pytest.skip("torchvision is not installed")
    from torchvision.models import get_model

    options = {"init_weights": True} if name == "googlenet" else {}
    net = seeded(lambda: get_model(name, weights=None, **options), dtype=torch.float32)
    sample = picture(1, (160, 128), dtype=np.float32)[0]
    _, engine = prepared(net, sample, lowered=True)
    form = WindowMasks(Windows.over((160, 128), 16, 16)).form(3, 12)
    assert engine.pays(form) == ARCHITECTURES[name]
    assert_same(engine, net, sample, form, 1e-5)
