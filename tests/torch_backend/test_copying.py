"""Copies of networks with other arrays, whatever the modules are, and the network as it was."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations

from cnnviz_core.errors import (
    ArrayError,
    MissingCapabilityError,
    OutOfMemoryError,
    UnsupportedModelError,
)
from cnnviz_core.model import copyable
from cnnviz_metrics.sanity import cascade, random_arrays, randomised_parts
from cnnviz_torch.layers import arrays_of
from cnnviz_torch.model import wrap
from support.torch_nets import Residual, Vgg, seeded

X = np.random.default_rng(0).normal(size=(2, 12, 8, 3))


class Everything(nn.Module):
    """One of each module that has arrays of its own kind."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
        self.bn = nn.BatchNorm2d(8)
        self.down = nn.Conv2d(8, 6, 2, stride=2, groups=2)
        self.up = nn.ConvTranspose2d(6, 4, 2, stride=2, groups=2)
        self.prelu = nn.PReLU(4)
        self.gn = nn.GroupNorm(2, 4)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.ln = nn.LayerNorm(4)
        self.fc = nn.Linear(4, 5)

    def forward(self, x):
        x = F.relu(self.bn(self.depthwise(self.stem(x))))
        x = self.gn(self.prelu(self.up(self.down(x)))).flatten(2).transpose(1, 2)
        x = self.ln(x + self.attention(x, x, x, need_weights=False)[0])
        return self.fc(x.mean(1))


class Tied(nn.Module):
    """Two layers with one weight, and one layer called twice."""

    def __init__(self):
        super().__init__()
        self.one = nn.Conv2d(3, 3, 3, padding=1)
        self.two = nn.Conv2d(3, 3, 3, padding=1)
        self.two.weight = self.one.weight
        self.fc = nn.Linear(3, 4)

    def forward(self, x):
        return self.fc(self.one(self.two(self.one(x))).mean((2, 3)))


def state(net):
    """Give every byte of a network's tensors, and where they are."""
    return {k: (v.data_ptr(), v.numpy(force=True).tobytes()) for k, v in net.state_dict().items()}


def others(model, layers):
    """Draw other arrays for layers."""
    return {layer: random_arrays(model.parameters(layer), layer) for layer in layers}


@pytest.mark.parametrize("layer", [n for n, _ in Everything().named_children()])
def test_every_kind_of_layer(layer):
    net = seeded(Everything)
    model, before = wrap(net, input_shape=X.shape[1:]), state(net)
    arrays = {
        name: values * 1.5 for name, values in model.parameters(layer).items() if name != "epsilon"
    }
    copy = copyable(model).copied({layer: arrays})
    found = copy.parameters(layer)
    for name, values in arrays.items():
        np.testing.assert_array_equal(found[name], values)
    # The same, written by hand in torch's own layout: all of it is a multiple.
    twin = seeded(Everything)
    with torch.no_grad():
        for own in (*twin.get_submodule(layer).parameters(recurse=False),
                    *twin.get_submodule(layer).buffers(recurse=False)):  # fmt: skip
            if own.is_floating_point():
                own.mul_(1.5)
    expected = wrap(twin).forward(X).logits
    np.testing.assert_allclose(copy.forward(X).logits, expected, rtol=1e-12)
    assert not np.allclose(expected, model.forward(X).logits)
    assert state(net) == before


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("make", [nn.Conv2d, nn.ConvTranspose2d])
def test_a_kernel_comes_back_to_its_place(make, groups):
    net = seeded(lambda: nn.Sequential(make(4, 6, (2, 3), groups=groups)))
    drawn = np.random.default_rng(1).normal(size=arrays_of(net[0])["weight"].shape)
    model = wrap(net)
    copy = copyable(model).copied({"0": {"weight": drawn}})
    np.testing.assert_array_equal(copy.parameters("0")["weight"], drawn)


def test_batch_statistics_can_be_set():
    net = seeded(Residual)
    model = wrap(net, input_shape=X.shape[1:])
    variance = np.arange(1.0, 7)
    copy = copyable(model).copied({"bn1": {"variance": variance, "mean": -variance}})
    net.bn1.running_var.copy_(torch.from_numpy(variance))
    net.bn1.running_mean.copy_(torch.from_numpy(-variance))
    np.testing.assert_array_equal(copy.forward(X).logits, model.forward(X).logits)


def test_no_memory_is_shared():
    net = seeded(Residual)
    model = wrap(net, input_shape=X.shape[1:])
    copy = copyable(model).copied({})
    before = copy.forward(X).logits
    with torch.no_grad():
        for tensor in (*net.parameters(), *net.buffers()):
            tensor.mul_(2)
    np.testing.assert_array_equal(copy.forward(X).logits, before)
    assert not np.allclose(model.forward(X).logits, before)


def test_modes_hooks_and_gradients_are_untouched():
    net = seeded(Residual).train()
    net.bn1.eval()
    calls = []
    net.conv1.register_forward_hook(lambda *_: calls.append(1))
    net.stem.weight.grad = torch.ones_like(net.stem.weight)
    model, before = wrap(net, input_shape=X.shape[1:]), state(net)
    random = torch.get_rng_state()
    for copy in cascade(model, randomised_parts(model, X)):
        copy.pullback(X, np.ones_like)
    assert state(net) == before
    assert torch.equal(torch.get_rng_state(), random)
    assert [m.training for m in (net, net.bn1, net.bn2)] == [True, False, True]
    assert net.stem.weight.grad.eq(1).all()
    assert len(net.conv1._forward_hooks) == 1


def test_an_error_in_the_middle_changes_nothing():
    net = seeded(Residual)
    model, before = wrap(net, input_shape=X.shape[1:]), state(net)
    good = others(model, ["conv1", "bn1"])
    with pytest.raises(ArrayError, match="epsilon"):
        copyable(model).copied({**good, "bn2": {"epsilon": np.ones(6)}})
    with pytest.raises(ArrayError, match="head"):
        copyable(model).copied({**good, "head": {"weight": np.ones((2, 2))}})
    assert state(net) == before


def test_tied_layers_stay_tied():
    net = seeded(Tied)
    model = wrap(net, input_shape=X.shape[1:])
    drawn = others(model, ["one@0"])["one@0"]["weight"]
    copy = copyable(model).copied({"one@0": {"weight": drawn}})
    for layer in ("one", "one@1", "two"):
        np.testing.assert_array_equal(copy.parameters(layer)["weight"], drawn)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_arrays_come_in_the_networks_type(dtype):
    net = seeded(Residual, dtype=dtype)
    model = wrap(net, input_shape=X.shape[1:])
    drawn = others(model, ["conv1"])
    copy = copyable(model).copied(drawn)
    rounded = torch.from_numpy(drawn["conv1"]["weight"]).to(dtype).float().numpy()
    np.testing.assert_array_equal(copy.parameters("conv1")["weight"], rounded)
    np.testing.assert_array_equal(
        copyable(copy).copied({}).forward(X).logits, copy.forward(X).logits
    )


def test_parametrized_weights_become_plain_ones():
    net = seeded(Vgg)
    net.features[2] = parametrizations.weight_norm(net.features[2])
    net.features[5] = parametrizations.spectral_norm(net.features[5]).train()
    net.classifier[0] = parametrizations.orthogonal(net.classifier[0])
    model = wrap(net, input_shape=X.shape[1:])
    before = state(net)
    drawn = others(model, ["features.2", "features.5", "classifier.0"])
    copy = copyable(model).copied(drawn)
    for layer, arrays in drawn.items():
        for name, values in arrays.items():
            np.testing.assert_array_equal(copy.parameters(layer)[name], values)
    plain = seeded(Vgg)
    expected = copyable(wrap(plain, input_shape=X.shape[1:])).copied(drawn)
    np.testing.assert_allclose(copy.forward(X).logits, expected.forward(X).logits, rtol=1e-9)
    assert state(net) == before
    assert list(model.layers) == list(copy.layers)


def test_weights_made_in_inference_mode():
    with torch.inference_mode():
        net = seeded(Residual)
    model = wrap(net, input_shape=X.shape[1:])
    drawn = others(model, ["conv1", "bn2"])
    expected = copyable(wrap(seeded(Residual), input_shape=X.shape[1:])).copied(drawn)
    copy = copyable(model).copied(drawn)
    np.testing.assert_array_equal(copy.forward(X).logits, expected.forward(X).logits)
    back = copy.pullback(X, np.ones_like, wrt=["conv1"]).gradients["conv1"]
    expected_back = expected.pullback(X, np.ones_like, wrt=["conv1"]).gradients["conv1"]
    np.testing.assert_allclose(back, expected_back, rtol=1e-12)


def test_exported_programs():
    net = seeded(Residual).eval()
    example = torch.from_numpy(np.moveaxis(X, -1, 1).copy())
    model = wrap(torch.export.export(net, (example,), dynamic_shapes=[{0: torch.export.Dim("n")}]))
    drawn = others(model, ["conv1", "bn1", "head"])
    expected = copyable(wrap(net)).copied(drawn).forward(X).logits
    before = model.forward(X).logits
    copy = copyable(model).copied(drawn)
    np.testing.assert_allclose(copy.forward(X).logits, expected, rtol=1e-9)
    np.testing.assert_array_equal(model.forward(X).logits, before)


def test_compiled_networks_are_copied_uncompiled():
    net = seeded(Residual).eval()
    model = wrap(torch.compile(net, backend="eager"), input_shape=X.shape[1:])
    drawn = others(model, ["conv1"])
    expected = copyable(wrap(net)).copied(drawn).forward(X).logits
    np.testing.assert_array_equal(copyable(model).copied(drawn).forward(X).logits, expected)


def test_the_copy_knows_what_was_seen():
    model = wrap(seeded(Residual))
    model.forward(X)
    copy = copyable(model).copied({})
    assert dict(copy.layers) == dict(model.layers)
    assert copyable(wrap(seeded(Residual))).copied({}).forward(X).logits.shape == (2, 5)


def test_options_of_the_wrapper_are_kept():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = Residual()

        def forward(self, x):
            y = self.net(x)
            return {"first": y, "second": torch.sigmoid(y)}

    model = wrap(seeded(Two), output="second", activation="sigmoid")
    copy = copyable(model).copied({})
    assert copy.activation == "sigmoid"
    np.testing.assert_array_equal(copy.forward(X).output, model.forward(X).output)


def test_what_cannot_be_copied_says_so():
    net = seeded(Residual)
    net.lock = threading.Lock()
    model, before = wrap(net, input_shape=X.shape[1:]), state(net)
    with pytest.raises(UnsupportedModelError, match="lock"):
        copyable(model).copied({})
    assert state(net) == before
    del net.lock
    net.kept = net.stem.weight * 2
    with pytest.raises(UnsupportedModelError, match="deepcopy"):
        copyable(model).copied({})


def test_memory_that_does_not_suffice_is_told_in_our_way(monkeypatch):
    net = seeded(Residual)
    model = wrap(net, input_shape=X.shape[1:])

    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(net.bn1, "__deepcopy__", full, raising=False)
    with pytest.raises(OutOfMemoryError, match="a copy of the network: CUDA"):
        copyable(model).copied({})


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_scripts_do_not_offer_it():
    net = seeded(Vgg).eval()
    example = torch.from_numpy(np.moveaxis(X, -1, 1).copy())
    model = wrap(torch.jit.trace(net, example))
    assert "copy" not in model.capabilities
    with pytest.raises(MissingCapabilityError, match="copy"):
        copyable(model)
    with pytest.raises(MissingCapabilityError, match="copy"):
        model.copied({})
