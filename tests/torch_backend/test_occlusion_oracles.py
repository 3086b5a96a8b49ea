"""Occlusion against captum: windows that overlap, and discs as the features of an ablation."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from captum.attr import FeatureAblation
from captum.attr import Occlusion as Captums

from cnnviz_core.fills import filling
from cnnviz_core.targets import ClassScore
from cnnviz_core.testing.nets import NETS, random_input
from cnnviz_core.windows import Windows
from cnnviz_perturbation.occlusion import Occlusion
from cnnviz_torch.build import build
from cnnviz_torch.model import wrap

CLASSES = [0, 3]


def case(name):
    net = NETS[name]()
    (x,) = random_input(net, len(CLASSES), seed=2).values()
    return build(net, dtype="float64"), x.astype(np.float64)


def first(x):
    """Put the channels where PyTorch has them."""
    return torch.from_numpy(np.moveaxis(x, -1, 1).copy())


def ours(network, x, **params):
    targets = [ClassScore(c) for c in CLASSES]
    return Occlusion(**params).explain(wrap(network), x, targets)


def captums(method, x, **more):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = method.attribute(first(x), target=torch.tensor(CLASSES), **more)
    return np.moveaxis(found.detach().numpy(), 1, -1)


# Where the last window of each axis is flush with its edge, as captum cuts it off otherwise.
@pytest.mark.parametrize(
    ("name", "window", "stride"),
    [
        *(("plain", window, stride) for window, stride in [(3, 3), (6, 3), (9, 3), (1, 1), (4, 1)]),
        *(("signal", window, stride) for window, stride in [(5, 4), (8, 3), (1, 1), (11, 10)]),
        *(("volume", window, stride) for window, stride in [(2, 1), (4, 1), (5, 1)]),
    ],
)
@pytest.mark.parametrize("fill", [0.0, 0.5])
def test_windows_with_strides(name, window, stride, fill):
    network, x = case(name)
    shape = (x.shape[-1], *(window for _ in x.shape[1:-1]))
    steps = (x.shape[-1], *(stride for _ in x.shape[1:-1]))
    expected = captums(
        Captums(network), x, sliding_window_shapes=shape, strides=steps, baselines=fill
    )
    found = ours(network, x, window=window, stride=stride, fill=fill).raw
    np.testing.assert_allclose(np.stack([found] * x.shape[-1], -1), expected, atol=1e-12)


@pytest.mark.parametrize("fill", ["mean", "blur", "noise"])
def test_fills_that_depend_on_the_sample(fill):
    network, x = case("plain")
    shown = np.stack([np.broadcast_to(filling(s, fill).under(s), s.shape) for s in x])
    expected = captums(
        Captums(network),
        x,
        sliding_window_shapes=(3, 6, 6),
        strides=(3, 3, 3),
        baselines=first(shown),
    )
    found = ours(network, x, window=6, stride=3, fill=fill).raw
    np.testing.assert_allclose(found, expected[..., 0], atol=1e-12)


@pytest.mark.parametrize(
    ("name", "window", "stride"), [("plain", 5, 3), ("plain", 8, 5), ("volume", 5, 3)]
)
@pytest.mark.parametrize("fill", [0.5, "inpaint"])
def test_discs_are_the_features_of_an_ablation(name, window, stride, fill):
    network, x = case(name)
    size = x.shape[1:-1]
    maps = ours(network, x, window=window, stride=stride, fill=fill, shape="disc")
    windows = Windows.over(size, window, stride, "disc")
    drops = maps.extras["drops"].reshape(len(x), -1)
    total, times = np.zeros(x.shape[:-1]), np.zeros(size)
    for index in range(len(windows)):
        part, inside = windows.place(index)
        disc = np.zeros(size, bool)
        disc[part] = inside
        shown = np.stack(
            [np.broadcast_to(filling(s, fill).under(1.0 - disc[None]), (1, *s.shape))[0] for s in x]
        )
        found = captums(
            FeatureAblation(network),
            x,
            baselines=first(shown),
            feature_mask=torch.from_numpy(disc.astype(int))[None, None],
        )[..., 0]
        np.testing.assert_allclose(drops[:, index], found[:, disc].mean(1), atol=1e-12)
        total[:, disc] += found[:, disc]
        times += disc
    np.testing.assert_allclose(maps.raw, total / times, atol=1e-12)
