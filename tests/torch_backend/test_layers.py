"""Layers' kinds and arrays, in the words and layouts that all backends share."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from cnnviz_core.errors import UnknownLayerError
from cnnviz_torch.layers import arrays_of, kind_of, type_of
from cnnviz_torch.model import wrap
from support.torch_nets import Residual, seeded


class WindowAttention(nn.Module):
    def __init__(self):
        super().__init__()
        self.proj = nn.Linear(2, 2)


class DropPath(nn.Module):
    pass


KINDS = {
    "conv": [nn.Conv1d(1, 1, 1), nn.Conv2d(1, 1, 1), nn.ConvTranspose2d(1, 1, 1)],
    "linear": [nn.Linear(1, 1)],
    "relu": [nn.ReLU(), nn.ReLU6(), nn.LeakyReLU()],
    "activation": [nn.Softmax(1), nn.Sigmoid(), nn.GELU(), nn.SiLU(), nn.PReLU(), nn.Hardtanh()],
    "pool": [nn.MaxPool2d(2), nn.AvgPool1d(2), nn.AdaptiveAvgPool2d(1), nn.LPPool2d(2, 2)],
    "norm": [nn.BatchNorm2d(1), nn.LayerNorm(1), nn.GroupNorm(1, 1), nn.InstanceNorm2d(1)],
    "reshape": [nn.Flatten()],
    "dropout": [nn.Dropout(), nn.Dropout2d(), DropPath()],
    "attention": [nn.MultiheadAttention(2, 1), WindowAttention()],
    "container": [nn.Sequential(nn.ReLU()), Residual()],
    "pad": [nn.ZeroPad2d(1), nn.ReflectionPad1d(1), nn.ReplicationPad3d(1), nn.CircularPad2d(1)],
    "other": [nn.Identity(), nn.Upsample(scale_factor=2)],
}


@pytest.mark.parametrize("kind", KINDS)
def test_kinds(kind):
    assert [kind_of(module) for module in KINDS[kind]] == [kind] * len(KINDS[kind])
    assert [type_of(module) for module in KINDS[kind]] == [type(m).__name__ for m in KINDS[kind]]


@pytest.mark.parametrize("groups", [1, 2, 6])
def test_a_convolutions_weight_is_kernel_first(groups):
    conv = seeded(nn.Conv2d, 6, 12, (2, 3), groups=groups)
    arrays = arrays_of(conv)
    assert arrays["weight"].shape == (2, 3, 6 // groups, 12)
    x = np.random.default_rng(0).normal(size=(2, 3, 6))
    expected = conv(torch.from_numpy(x.transpose(2, 0, 1)[None]))[0, :, 0, 0].detach().numpy()
    size = 6 // groups
    parts = [
        np.einsum("hwi,hwio->o", x[..., g * size : (g + 1) * size],
                  np.split(arrays["weight"], groups, -1)[g])
        for g in range(groups)
    ]  # fmt: skip
    np.testing.assert_allclose(np.concatenate(parts) + arrays["bias"], expected, rtol=1e-12)


@pytest.mark.parametrize("groups", [1, 2])
def test_a_transposed_convolutions_weight_too(groups):
    conv = seeded(nn.ConvTranspose2d, 4, 6, (2, 3), groups=groups, bias=False)
    arrays = arrays_of(conv)
    assert set(arrays) == {"weight"}
    assert arrays["weight"].shape == (2, 3, 4 // groups, 6)
    x = np.random.default_rng(0).normal(size=4)
    expected = conv(torch.from_numpy(x)[None, :, None, None])[0].detach().movedim(0, -1).numpy()
    size = 4 // groups
    parts = [
        np.einsum("i,hwio->hwo", x[g * size : (g + 1) * size],
                  np.split(arrays["weight"], groups, -1)[g])
        for g in range(groups)
    ]  # fmt: skip
    np.testing.assert_allclose(np.concatenate(parts, -1), expected, rtol=1e-12)


def test_linear_and_norm_arrays():
    linear = seeded(nn.Linear, 3, 2)
    arrays = arrays_of(linear)
    x = np.random.default_rng(0).normal(size=(4, 3))
    expected = linear(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(x @ arrays["weight"] + arrays["bias"], expected, rtol=1e-12)

    norm = seeded(nn.BatchNorm1d, 3)
    arrays = arrays_of(norm)
    assert set(arrays) == {"scale", "shift", "mean", "variance", "epsilon"}
    y = (x - arrays["mean"]) / np.sqrt(arrays["variance"] + arrays["epsilon"])
    expected = norm(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(y * arrays["scale"] + arrays["shift"], expected, rtol=1e-12)

    assert set(arrays_of(nn.BatchNorm2d(3, affine=False))) == {"mean", "variance", "epsilon"}
    assert set(arrays_of(nn.LayerNorm(3))) == {"scale", "shift"}


def test_other_arrays_come_as_torch_has_them():
    assert {k: v.shape for k, v in arrays_of(nn.PReLU(4)).items()} == {"weight": (4,)}
    assert arrays_of(nn.Sequential(nn.Linear(2, 2))) == {}
    assert "in_proj_weight" in arrays_of(nn.MultiheadAttention(4, 2))


def test_a_models_arrays_are_found_by_path_and_by_node():
    net = seeded(Residual)
    model = wrap(net, input_shape=(6, 6, 3))
    np.testing.assert_array_equal(
        model.parameters("conv1")["weight"], net.conv1.weight.detach().permute(2, 3, 1, 0).numpy()
    )
    assert model.parameters("relu@1") == {}
    assert model.parameters("relu") == {}
    with pytest.raises(UnknownLayerError, match="conv1"):
        model.parameters("conv11")
    model.parameters("conv1")["weight"][...] = 0
    assert net.conv1.weight.any()


def test_weights_are_read_anew():
    net = seeded(lambda: nn.Sequential(nn.Conv2d(3, 2, 1), nn.Flatten()))
    model, x = wrap(net), np.ones((1, 2, 2, 3))
    before = model.forward(x).output
    with torch.no_grad():
        net[0].weight.mul_(2)
    assert not np.array_equal(model.forward(x).output, before)
    np.testing.assert_allclose(
        model.parameters("0")["weight"][0, 0], net[0].weight.detach()[:, :, 0, 0].T.numpy()
    )
