"""Equal rows of a batch go through the first layers once, and nothing else tells."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from cnnviz_core.model import INPUT, LOGITS, OUTPUT
from cnnviz_torch.model import wrap

ROWS = np.array([2, 0, 0, 1, 2, 2, 0, 0])
LAYER = "features.2"


def features():
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2), nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.MaxPool2d(2)
    )


class Net(nn.Module):
    """A network of which everything goes through its features."""

    def __init__(self):
        super().__init__()
        self.features = features()
        self.head = nn.Sequential(nn.Linear(24, 8), nn.Tanh(), nn.Linear(8, 5))

    def forward(self, x):
        return self.head(self.features(x).flatten(1))


class Sized(Net):
    """Lays its features out for as many samples as it was given."""

    def forward(self, x):
        n = x.shape[0]
        return self.head(self.features(x).view(n, -1))


class Shared(Net):
    """Divides its scores among its samples."""

    def forward(self, x):
        n = len(x)
        return self.head(self.features(x).flatten(1)) / n


class Joined(Net):
    """Adds a constant that it made for as many samples as it was given."""

    def forward(self, x):
        shift = torch.arange(5, dtype=x.dtype).expand(len(x), 5)
        return self.head(self.features(x).flatten(1)) + shift


class Passed(Net):
    """Looks at the picture past its features."""

    def forward(self, x):
        return self.head(self.features(x).flatten(1)) + x.mean((1, 2, 3))[:, None]


class Unrolled(Net):
    """Goes through the rows one by one, as many as it was given."""

    def forward(self, x):
        rows = range(len(x))
        y = self.features(x).flatten(1)
        return torch.stack([self.head(y[i]) for i in rows])


class Softened(Net):
    """Ends in probabilities."""

    def forward(self, x):
        return super().forward(x).softmax(1)


class Frozen(Net):
    """Does not record its features."""

    def forward(self, x):
        with torch.no_grad():
            y = self.features(x)
        return self.head(y.flatten(1))


SOUND = [Net, Softened, Frozen]
PECULIAR = [Sized, Shared, Passed, Unrolled, Joined]


def made(kind):
    torch.manual_seed(0)
    net = kind().double().eval()
    net.features[1].running_mean.uniform_(-0.2, 0.2)
    net.features[1].running_var.uniform_(0.5, 2)
    return net


def pictures(rows=ROWS):
    return np.random.default_rng(0).normal(size=(3, 10, 10, 3))[rows]


def answers(net, x, layer=LAYER, of=LOGITS):
    model = wrap(net, input_shape=(10, 10, 3))
    back = model.pullback(x, np.cos, of=of, wrt=(layer,))
    return {**back.values, "gradient": back.gradients[layer]}


def counting(net, monkeypatch):
    """Note how many rows go through the first layer."""
    seen = []
    plain = net.features[0].forward
    monkeypatch.setattr(
        net.features[0], "forward", lambda x: (seen.append(len(x)), plain(x))[1], raising=False
    )
    return seen


@pytest.mark.parametrize("of", [LOGITS, OUTPUT])
@pytest.mark.parametrize("kind", SOUND + PECULIAR)
def test_values_and_gradients_are_those_of_the_whole_batch(kind, of, monkeypatch):
    for rows in (ROWS, ROWS * 0, ROWS[:2] * 0, np.arange(3), ROWS[1:3]):
        fast = answers(made(kind), pictures(rows), of=of)
        monkeypatch.setenv("CNNVIZ_FAST", "0")
        plain = answers(made(kind), pictures(rows), of=of)
        monkeypatch.delenv("CNNVIZ_FAST")
        assert fast.keys() == plain.keys()
        for node, value in plain.items():
            assert np.allclose(fast[node], value, rtol=1e-12, atol=1e-13), (node, rows)


@pytest.mark.parametrize("kind", SOUND)
def test_each_sample_goes_through_the_first_layers_once(kind, monkeypatch):
    net = made(kind)
    model = wrap(net, input_shape=(10, 10, 3))
    model.pullback(pictures(), np.cos, wrt=(LAYER,))  # tries the layer
    seen = counting(net, monkeypatch)
    model.pullback(pictures(), np.cos, wrt=(LAYER,))
    model.pullback(pictures(ROWS * 0), np.cos, wrt=(LAYER,))
    passes = 2 if kind is Frozen else 1
    assert seen == passes * [3] + passes * [1]
    monkeypatch.setenv("CNNVIZ_FAST", "0")
    model.pullback(pictures(), np.cos, wrt=(LAYER,))
    assert seen[-1] == len(ROWS)


@pytest.mark.parametrize("kind", PECULIAR)
def test_a_network_that_is_not_made_for_it_gets_all_rows(kind, monkeypatch):
    net = made(kind)
    model = wrap(net, input_shape=(10, 10, 3))
    model.pullback(pictures(), np.cos, wrt=(LAYER,))
    seen = counting(net, monkeypatch)
    model.pullback(pictures(), np.cos, wrt=(LAYER,))
    assert seen == [len(ROWS)]


def test_gradients_at_the_input_or_of_a_layer_or_at_several_are_as_ever(monkeypatch):
    def asked():
        model = wrap(made(Net), input_shape=(10, 10, 3))
        for of, wrt in (
            (LOGITS, (INPUT,)),
            ("features.1", ("features.0",)),
            (LOGITS, ("features.0", LAYER)),
        ):
            yield from model.pullback(pictures(), np.cos, of=of, wrt=wrt).gradients.values()

    fast = list(asked())
    monkeypatch.setenv("CNNVIZ_FAST", "0")
    for one, other in zip(fast, asked(), strict=True):
        assert np.allclose(one, other, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("kind", SOUND + PECULIAR)
def test_only_what_follows_a_replaced_value_runs_for_each_row(kind, monkeypatch):
    x = np.broadcast_to(pictures()[0], (9, 10, 10, 3))
    put = {LAYER: np.random.default_rng(1).normal(size=(9, 4, 4, 6))}
    put_by = {LAYER: lambda value: value * put[LAYER]}

    def asked(net, replace, capture=()):
        model = wrap(net, input_shape=(10, 10, 3))
        model.forward(x, replace=replace)
        seen = counting(net, monkeypatch)
        found = model.forward(x, replace=replace, capture=capture).values
        return found, seen

    for replace in (put, put_by):
        for capture in ((), ("features.3", LAYER), ("features.0",)):
            monkeypatch.delenv("CNNVIZ_FAST", raising=False)
            fast, seen = asked(made(kind), replace, capture)
            assert (seen[-1] == 1) == (kind in [*SOUND, Joined] and "features.0" not in capture)
            monkeypatch.setenv("CNNVIZ_FAST", "0")
            plain, seen = asked(made(kind), replace, capture)
            assert seen == [9]
            assert fast.keys() == plain.keys()
            for node, value in plain.items():
                assert np.allclose(fast[node], value, rtol=1e-12, atol=1e-13), node


def test_a_replacement_that_does_not_fit_is_no_fault_of_the_network(monkeypatch):
    net = made(Net)
    model = wrap(net, input_shape=(10, 10, 3))
    x = np.broadcast_to(pictures()[0], (4, 10, 10, 3))
    with pytest.raises(ValueError, match="replacement"):
        model.forward(x, replace={LAYER: np.zeros((4, 4, 4, 5))})
    seen = counting(net, monkeypatch)
    model.forward(x, replace={LAYER: np.zeros((4, 4, 4, 6))})
    assert seen == [1]
