"""Rules of relevance at single layers of torch are the published formulas, on dense matrices."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from cnnviz_core.model import INPUT
from cnnviz_core.steps import alpha_beta, flat, gamma, w_square, z_box, z_plus
from cnnviz_torch.model import wrap
from support.torch_nets import native, seeded
from support.torch_relevance import CALM, assert_same, rule


def dense(layer, x):
    """Write a layer out as a matrix (results, inputs) and a bias, for one sample."""
    with torch.no_grad():
        shape = native(x).shape[1:]
        zero = layer(torch.zeros(1, *shape, dtype=torch.float64))
        basis = torch.eye(shape.numel(), dtype=torch.float64).reshape(-1, *shape)
        matrix = (layer(basis) - zero).flatten(1).T
    return matrix.numpy(), zero.flatten().numpy()


def split(contributions, bias, relevance, eps=1e-6):
    """Split relevance in proportion to contributions (results, inputs)."""
    z = contributions.sum(1) + bias
    return contributions.T @ (relevance / (z + np.where(z >= 0, eps, -eps)))


def formula(name, matrix, bias, x, relevance):
    """Give the relevance of the inputs by the published formulas."""
    c = matrix * x
    up, down = np.maximum(c, 0), np.minimum(c, 0)
    b_up, b_down = np.maximum(bias, 0), np.minimum(bias, 0)
    if name == "epsilon":
        return split(c, bias, relevance, 0.01)
    if name == "z-plus":
        return split(up, b_up, relevance)
    if name == "alpha-beta":
        return 2 * split(up, b_up, relevance) - split(down, b_down, relevance)
    if name == "w-square":
        return split(matrix**2, bias**2, relevance)
    if name == "z-box":
        low, high = np.full_like(x, -5), np.full_like(x, 6)
        w_up, w_down = np.maximum(matrix, 0), np.minimum(matrix, 0)
        # Zeros in the border are no inputs: they contribute nothing here.
        return split(c - w_up * low - w_down * high, bias - b_up - b_down, relevance)
    out = c.sum(1) + bias
    more = 0.25
    plus = split(c + more * up, bias + more * b_up, np.where(out > 0, relevance, 0))
    return plus + split(c + more * down, bias + more * b_down, np.where(out < 0, relevance, 0))


STEPS = {
    "epsilon": CALM,
    "z-plus": z_plus(),
    "alpha-beta": alpha_beta(),
    "gamma": gamma(),
    "w-square": w_square(),
    "z-box": z_box(),
}
LAYERS = {
    "conv1d": (lambda: nn.Conv1d(2, 4, 3, 2, 1, 2, 2), (11, 2)),
    "conv2d": (lambda: nn.Conv2d(3, 4, (3, 2), (2, 1), (1, 0)), (6, 5, 3)),
    "conv2d, grouped": (lambda: nn.Conv2d(4, 6, 3, 1, 1, groups=2, bias=False), (5, 4, 4)),
    "conv2d, many": (lambda: nn.Conv2d(12, 3, 3, padding=1), (4, 3, 12)),
    "conv2d, same": (lambda: nn.Conv2d(3, 4, (2, 4), padding="same"), (5, 6, 3)),
    "conv3d": (lambda: nn.Conv3d(2, 3, 2, (1, 2, 1)), (3, 4, 3, 2)),
    "transposed": (lambda: nn.ConvTranspose2d(4, 6, 3, 2, 1, 1, 2), (3, 4, 4)),
    "transposed 1d": (lambda: nn.ConvTranspose1d(4, 6, 3, 2), (5, 4)),
    "depthwise": (lambda: nn.Conv2d(4, 8, 3, groups=4), (5, 4, 4)),
    "linear": (lambda: nn.Linear(7, 5), (7,)),
    "linear, many": (lambda: nn.Linear(90, 5), (90,)),
    "linear, no bias": (lambda: nn.Linear(7, 5, bias=False), (7,)),
}


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("norm", [False, True], ids=["alone", "with a batch norm"])
@pytest.mark.parametrize("layer", LAYERS)
def test_layers_obey_the_formulas(layer, norm):
    make, size = LAYERS[layer]

    def net():
        layers = [make()]
        if norm:
            with torch.no_grad():
                channels = layers[0](torch.zeros(1, size[-1], *size[:-1])).shape[1]
            kinds = {1: nn.BatchNorm1d, 2: nn.BatchNorm1d, 3: nn.BatchNorm2d, 4: nn.BatchNorm3d}
            layers.append(kinds[len(size)](channels))
        return nn.Sequential(*layers)

    module = seeded(net)
    if norm:
        with torch.no_grad():
            module[1].weight[::2] *= -1
    for sign in (False, True):
        x = np.random.default_rng(2).normal(size=(1, *size))
        x = np.abs(x) if sign else x
        matrix, bias = dense(module, x)
        model = wrap(module)
        top = np.random.default_rng(3).normal(size=model.forward(x).output.shape)
        flattened = native(top).flatten().numpy()
        for name, step in STEPS.items():
            expected = formula(name, matrix, bias, native(x).flatten().numpy(), flattened)
            expected = np.moveaxis(expected.reshape(native(x).shape), 1, -1)
            made = rule(name, z_plus(), first=step).bounded([-5], [6])
            assert_same(model.pullback(x, top, rule=made).gradients[INPUT], expected)


def test_flat_spreads_evenly_inside_the_border():
    net = seeded(lambda: nn.Sequential(nn.Conv2d(1, 2, 3, padding=1)))
    expected = np.zeros((4, 5))
    for i in range(4):
        for j in range(5):
            window = expected[max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2]
            window += 2 / window.size  # of two channels
    model = wrap(net)
    back = model.pullback(np.ones((1, 4, 5, 1)), np.ones_like, rule=rule("flat", flat(0)))
    np.testing.assert_allclose(back.gradients[INPUT][0, :, :, 0], expected, rtol=1e-12)
