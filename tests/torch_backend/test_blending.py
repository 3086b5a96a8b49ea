"""Batches that are described: made by torch as NumPy makes them, and run like any other."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from cnnviz_core.blended import BLEND, Blended
from cnnviz_core.errors import ArrayError, CnnvizError, OutOfMemoryError
from cnnviz_core.inputs import OneInput
from cnnviz_core.mask_forms import Affine, Drawn, NumPyArrays, Separable, draw
from cnnviz_core.memo import MemoModel
from cnnviz_core.model import INPUT
from cnnviz_core.registry import get_registry
from cnnviz_core.targets import ClassScore
from cnnviz_core.testing.blending import hard_forms, soft_forms
from cnnviz_core.testing.nets import NETS, random_input
from cnnviz_torch.blending import TorchArrays, blended
from cnnviz_torch.build import build
from cnnviz_torch.model import wrap
from support.torch_nets import seeded

CPU = torch.device("cpu")
SIZES = [(7,), (6, 5), (4, 3, 5)]
X = np.random.default_rng(0).normal(size=(6, 5, 3)).astype(np.float32)
SOFT = soft_forms((6, 5))


def small():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 3)).eval()


def single(make):
    return seeded(make, dtype=torch.float32)


def logits(model, batch):
    return model.forward(batch).logits


# ------------------------------------------------------------------------------- the batch


@pytest.mark.parametrize("size", SIZES, ids=len)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_masks_are_those_of_numpy(size, dtype):
    for name, form in {**soft_forms(size), **hard_forms(size)}.items():
        actual = draw(form, TorchArrays(CPU, np.dtype(dtype)))
        expected = draw(form, NumPyArrays(dtype))
        assert actual.dtype == getattr(torch, dtype), name
        eps = np.finfo(dtype).eps
        np.testing.assert_allclose(actual.numpy(), expected, rtol=4 * eps, atol=4 * eps)


def test_a_mask_that_is_constant_or_huge_stretches_as_in_numpy():
    weights = [np.ones((2, 6)), np.eye(3, 5)]
    values = np.stack([np.zeros((2, 3)), np.full((2, 3), 1.6e38) * [-1, 0, 1]])
    form = Separable(values, weights, stretch=True)
    actual = draw(form, TorchArrays(CPU, np.dtype("float32"))).numpy()
    np.testing.assert_array_equal(actual, draw(form, NumPyArrays()))
    assert set(np.unique(actual[1])) == {0, 0.5, 1}


@pytest.mark.parametrize("channels_first", [True, False])
@pytest.mark.parametrize("fill", [0.5, [1, 2, 3], X[:1] * 2, X[::-1, ::-1]])
def test_the_tensor_is_contiguous_and_its_own(channels_first, fill):
    fill = np.asarray(fill, np.float32)
    for name, form in SOFT.items():
        batch = Blended(X, form, fill)
        made = blended(batch, channels_first=channels_first)
        assert made.is_contiguous(), name
        made = made.movedim(1, -1) if channels_first else made
        np.testing.assert_allclose(made.numpy(), np.asarray(batch), rtol=1e-6, atol=1e-6)
    ones = blended(Blended(X, Drawn(np.ones((1, 6, 5))), fill), channels_first=False)
    ones.zero_()
    assert X.all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_blended_in_single(dtype):
    like = torch.zeros((), dtype=dtype)
    for form in SOFT.values():
        batch = Blended(X, form, np.float32(1 / 3))
        made = blended(batch, like, channels_first=False)
        assert made.dtype == dtype
        torch.testing.assert_close(made, torch.from_numpy(np.asarray(batch)).to(dtype))
    hard = Blended(X, hard_forms((6, 5))["separable"], np.float32(1 / 3))
    expected = torch.from_numpy(np.asarray(hard)).to(dtype)
    assert torch.equal(blended(hard, like, channels_first=False), expected)


def test_autocast_does_not_reach_the_masks():
    batch = Blended(X, SOFT["separable"], np.float32(0))
    with torch.autocast("cpu", torch.bfloat16):
        made = blended(batch, channels_first=False)
    np.testing.assert_allclose(made.numpy(), np.asarray(batch), rtol=1e-6, atol=1e-6)


# ------------------------------------------------------------------------------- networks


def test_doubles_stay_doubles():
    model, x = wrap(seeded(small)), X.astype(np.float64)
    for form in SOFT.values():
        batch = Blended(x, form, x.mean((0, 1)))
        made = np.asarray(batch)
        assert logits(model, batch).dtype == np.float64
        np.testing.assert_allclose(logits(model, batch), logits(model, made), rtol=1e-12)


def test_singles_given_to_a_network_of_doubles_are_blended_in_doubles():
    model, batch = wrap(seeded(small)), Blended(X, SOFT["separable"], np.float32(0.5))
    made = np.asarray(batch.astype(np.float64))
    np.testing.assert_allclose(logits(model, batch), logits(model, made), rtol=1e-12)


def test_integers_are_blended_as_real_numbers():
    model, x = wrap(single(small)), np.arange(90).reshape(6, 5, 3)
    batch = Blended(x, SOFT["labelled"], np.array(4))
    made = np.asarray(batch.astype(np.float32))
    np.testing.assert_allclose(logits(model, batch), logits(model, made), rtol=1e-5)


def test_the_first_batch_may_be_described():
    model = wrap(single(small))
    batch = Blended(X, SOFT["stretched"], np.float32(0))
    found = logits(model, batch)
    assert model.layers["0"].shape == (4, 3, 4)
    np.testing.assert_allclose(found, logits(model, np.asarray(batch)), rtol=1e-5, atol=1e-7)


class Overwriting(nn.Module):
    """Scales its input where it lies."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        return self.conv(x.mul_(2).sub_(1)).mean((2, 3))


def test_a_network_may_overwrite_the_batch():
    model, batch = wrap(single(Overwriting)), Blended(X, SOFT["drawn"], np.float32(0.5))
    made = np.asarray(batch)
    trace = model.forward(batch, capture=[INPUT])
    np.testing.assert_allclose(trace[INPUT], made, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(trace.logits, logits(model, made), rtol=1e-5)


def test_a_network_with_its_channels_last():
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = nn.LSTM(2, 6, batch_first=True)

        def forward(self, x):
            return self.lstm(x)[0][:, -1]

    x = X[:, 0, :2]
    model, batch = wrap(single(Recurrent)), Blended(x, soft_forms((6,))["separable"], x.mean(0))
    np.testing.assert_allclose(logits(model, batch), logits(model, np.asarray(batch)), rtol=1e-5)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("how", ["script", "export"])
def test_networks_without_their_modules_offer_it(how):
    net, batch = single(small), Blended(X, SOFT["separable"], np.float32(0))
    made = np.asarray(batch)
    native = torch.from_numpy(made).movedim(-1, 1).contiguous()
    program = torch.jit.script(net) if how == "script" else torch.export.export(net, (native,))
    model = wrap(program)
    assert BLEND in model.capabilities
    np.testing.assert_allclose(logits(model, batch), logits(wrap(net), made), rtol=1e-5, atol=1e-7)
    if how == "export":
        with pytest.raises(ArrayError, match="dynamic_shapes"):
            model.forward(batch[:2])


def test_one_of_several_inputs_is_described():
    net = NETS["two_inputs"]()
    x = random_input(net, 1)
    for free in x:
        held = {name: array for name, array in x.items() if name != free}
        model = OneInput(wrap(build(net)), free, held)
        assert BLEND in model.capabilities
        batch = Blended(x[free][0], soft_forms(x[free].shape[1:-1])["labelled"], np.float32(0))
        actual, expected = (model.forward(b, capture=[INPUT]) for b in (batch, np.asarray(batch)))
        np.testing.assert_allclose(actual.logits, expected.logits, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(actual[INPUT], expected[INPUT], rtol=1e-6, atol=1e-6)


def test_a_model_that_remembers_lets_it_through(monkeypatch):
    model = wrap(single(small))
    memo = MemoModel(model, X[None])
    known = logits(memo, X[None])
    batch = Blended(X, Affine(SOFT["drawn"], 0, 1), np.float32(0))  # the batch, five times
    made = never_made(monkeypatch)
    for part in (batch, batch[:1]):
        np.testing.assert_allclose(logits(memo, part), known.repeat(len(part), 0), rtol=1e-5)
        np.testing.assert_array_equal(logits(memo, part), logits(model, part))
    np.testing.assert_array_equal(logits(memo, X[None]), known)
    named = MemoModel(model, {"input": X[None]})
    np.testing.assert_array_equal(logits(named, {"input": batch}), logits(model, batch))
    assert not made


# ------------------------------------------------------------------------------- methods


def never_made(monkeypatch):
    """Let NumPy refuse to make a described batch; give the list of those that it was to make."""
    asked = []

    def refuse(self, dtype=None, copy=None):
        asked.append(self)
        raise AssertionError("NumPy made the batch")

    monkeypatch.setattr(Blended, "__array__", refuse)
    return asked


@pytest.mark.parametrize("name", ["rise", "occlusion", "lime", "score-cam"])
def test_methods_describe_their_batches(name, monkeypatch):
    net = NETS["plain"]()
    x = random_input(net, 1)["image"]
    known = {"samples": 40, "layer": "conv2", "segmentation": "grid", "segments": 6}
    fields = get_registry().parameters(name)
    params = {p.name: known[p.name] for p in fields if p.name in known}
    method = get_registry().explainer(name, **params)
    reference = wrap(build(net))
    reference.capabilities = reference.capabilities - {BLEND}
    expected = method.explain(reference, x, [ClassScore(1)]).raw
    never_made(monkeypatch)
    actual = method.explain(wrap(build(net)), x, [ClassScore(1)]).raw
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


# ------------------------------------------------------------------------------- memory


class Limited(nn.Module):
    """Has memory for some samples at once."""

    def __init__(self, error):
        super().__init__()
        self.net, self.most, self.error, self.sizes = small(), 3, error, []

    def forward(self, x):
        self.sizes.append(len(x))
        if len(x) > self.most:
            raise self.error
        return self.net(x)


CUDA = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB\nof many")
MPS = RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)")


def exhausted():
    """Give what torch raises where the computer itself has too little memory."""
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 52)
    return caught.value


@pytest.mark.parametrize("error", [CUDA, MPS, exhausted()], ids=["cuda", "mps", "cpu"])
def test_torch_without_memory_is_told_apart(error):
    net = single(lambda: Limited(error))
    model, x = wrap(net), np.repeat(X[None], 5, 0)
    for ask in (logits, lambda m, x: m.pullback(x, np.ones_like)):
        with pytest.raises(OutOfMemoryError, match="batch_size='auto'") as caught:
            ask(model, x)
        assert isinstance(caught.value, MemoryError)
        assert isinstance(caught.value, CnnvizError)
        assert caught.value.__cause__ is error
        assert "(5, 6, 5, 3)" in str(caught.value)
        assert str(error).splitlines()[0] in caught.value.problem
        assert "of many" not in str(caught.value)
    assert logits(model, x[:3]).shape == (3, 3)


def test_other_errors_come_through():
    error = RuntimeError("mat1 and mat2 shapes cannot be multiplied")
    with pytest.raises(RuntimeError) as caught:
        wrap(single(lambda: Limited(error))).forward(np.repeat(X[None], 5, 0))
    assert caught.value is error


def test_a_measured_batch_size_ends_where_the_memory_does():
    net = single(lambda: Limited(CUDA))
    expected = get_registry().explainer("rise", samples=20, cells=2)
    measured = get_registry().explainer("rise", samples=20, cells=2, batch_size="auto")
    maps = measured.explain(wrap(net), X[None], [ClassScore(1)])
    assert max(net.sizes) > net.most
    plain = wrap(net.net)
    np.testing.assert_allclose(
        maps.raw, expected.explain(plain, X[None], [ClassScore(1)]).raw, rtol=1e-4, atol=1e-6
    )
