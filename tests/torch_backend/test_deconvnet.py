"""The backward pass under the deconvnet rule is the deconvolutional network of Zeiler & Fergus.

That network is written out here as in the paper's section 2.1: each layer of the convolutional
network, from the one that is looked at down to the picture, is undone in turn.  Of the layer's
value one activation is kept and all others are zero.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cnnviz_core.model import INPUT
from cnnviz_core.rules import DECONVNET
from cnnviz_torch.model import wrap
from support.torch_nets import Vgg, native, picture, seeded
from support.torchvision_ops import define


def overwriting(signal, pool, switches, size):
    """Unpool to the switches as torch does: of windows that share a switch the last one counts."""
    return F.max_unpool2d(
        signal, switches, pool.kernel_size, pool.stride, pool.padding, output_size=size
    )


def adding(signal, pool, switches, size):
    """Unpool to the switches; what windows that share a switch send there adds up."""
    flat = signal.new_zeros(*size[:2], size[2] * size[3])
    return flat.scatter_add(2, switches.flatten(2), signal.flatten(2)).view(size)


def transposed(signal, conv, size):
    """Convolve with the transposed filters, without a bias."""
    rest = [
        (n + 2 * p - k) % s
        for n, p, k, s in zip(size[2:], conv.padding, conv.kernel_size, conv.stride, strict=True)
    ]
    return F.conv_transpose2d(signal, conv.weight, None, conv.stride, conv.padding, rest)


def ascend(layers, x):
    """Run the convolutional network; give its value, and what each layer saw and chose."""
    record = []
    for layer in layers:
        size, switches = x.shape, None
        if isinstance(layer, nn.MaxPool2d):
            x, switches = F.max_pool2d(
                x, layer.kernel_size, layer.stride, layer.padding, return_indices=True
            )
        else:
            x = layer(x)
        record.append((layer, size, switches))
    return x, record


def descend(signal, record, unpool):
    """Run the deconvolutional network: unpool, rectify, filter."""
    for layer, size, switches in reversed(record):
        if isinstance(layer, nn.MaxPool2d):
            signal = unpool(signal, layer, switches, size)
        elif isinstance(layer, nn.ReLU):
            signal = signal.clamp(min=0)
        else:
            signal = transposed(signal, layer, size)
    return signal


@torch.no_grad()
def projections(net, x, at, unpool):
    """Project the strongest activation of layer `at` both ways; give the backward pass first."""
    value, record = ascend(list(net.features)[: at + 1], native(x))
    flat = value.flatten(1)
    first = flat.argmax(1, keepdim=True)  # overlapping windows may have one maximum in common
    kept = torch.zeros_like(flat).scatter(1, first, flat.gather(1, first)).view_as(value)
    cotangent = kept.movedim(1, -1).numpy()
    found = wrap(net).pullback(x, cotangent, of=f"features.{at}", rule=DECONVNET).gradients[INPUT]
    return found, descend(kept, record, unpool).movedim(1, -1).numpy()


def assert_equal(found, expected):
    assert np.abs(expected).max() > 0
    assert np.abs(found - expected).max() <= 1e-12 * np.abs(expected).max()


class Alex(nn.Module):
    """As AlexNet: a convolution with a stride, and pools of 3 x 3 that overlap by one."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 5, stride=2, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(8, 10, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, padding=1),
            nn.Conv2d(10, 6, 3, padding=1),
            nn.ReLU(inplace=True),
        )

    def forward(self, x):
        return self.features(x).mean((2, 3))


@pytest.mark.parametrize("unpool", [overwriting, adding])
@pytest.mark.parametrize("at", [2, 3, 4, 5, 6, 7])
def test_a_small_vgg(at, unpool):
    assert_equal(*projections(seeded(Vgg), picture(3), at, unpool))


@pytest.mark.parametrize("at", range(2, 8))
def test_overlapping_pools_add_up(at):
    assert_equal(*projections(seeded(Alex), picture(3, (47, 42)), at, adding))


@pytest.mark.parametrize("at", [2, 5, 6, 7])
def test_overlapping_pools_do_not_overwrite(at):
    """Torch's own unpooling loses what all but one of the windows send to a shared switch.

    What remains may be the zero of a window that was not looked at.
    """
    found, expected = projections(seeded(Alex), picture(3, (47, 42)), at, overwriting)
    assert np.abs(found - expected).max() > 1e-2 * np.abs(found).max()


@pytest.fixture(scope="module")
def vgg16():
    """The network at its full size, in double precision."""
    define()
    from torchvision import models

    return seeded(models.vgg16, weights=None)


@pytest.mark.slow
@pytest.mark.parametrize("at", [4, 9, 14, 16, 23, 28, 29, 30])
def test_vgg16(vgg16, at):
    assert_equal(*projections(vgg16, picture(1, (224, 224)), at, overwriting))


@pytest.mark.slow
@pytest.mark.parametrize("at", [2, 5, 8, 11, 12])
def test_alexnet(at):
    define()
    from torchvision import models

    net, x = seeded(models.alexnet, weights=None), picture(2, (224, 224))
    assert_equal(*projections(net, x, at, adding))
