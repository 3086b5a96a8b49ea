"""Which model runs the samples of one call, and which the inputs that methods make of them."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from cnnviz.lanes import Lanes
from cnnviz.samples import Held, Sample
from cnnviz_core.delegate import Delegate
from cnnviz_core.fast import MANY
from cnnviz_core.inputs import OneInput
from cnnviz_core.model import PREPARE
from cnnviz_core.testing.nets import NETS
from cnnviz_core.testing.reference import ReferenceModel


class Preparable(Delegate):
    """Counts how often it is prepared."""

    def __init__(self, model):
        super().__init__(model)
        self.capabilities = model.capabilities | {PREPARE}
        self.copies = []

    def prepared(self, x, samples=None):
        assert x.shape[0] == 1
        self.copies.append(Delegate(self))
        return self.copies[-1]


class Method:
    """An explainer that takes so many passes for a sample."""

    needs = frozenset()

    def __init__(self, passes):
        self.passes = lambda model, x: passes


@pytest.fixture
def model():
    return Preparable(ReferenceModel(NETS["plain"]()))


def lanes(model, samples):
    return Lanes(SimpleNamespace(model=model), samples)


def sample(shape=(12, 9, 3), held=None):
    return Sample(np.zeros(shape, np.float32), None, None, "a sample", held)


def test_few_samples_and_few_passes_are_the_networks_own(model):
    few = lanes(model, 3)
    assert few.first(sample()) is model
    assert few.further(sample(), Method(MANY // 4)) is model
    assert not model.copies


def test_many_passes_of_few_samples_are_a_copys(model):
    """The samples themselves are not: what a method is told of them is the network's own."""
    few = lanes(model, 2)
    assert few.further(sample(), Method(MANY // 2)) is model.copies[0]
    assert few.first(sample()) is model


def test_many_samples_are_a_copys_and_one_is_made_for_all(model):
    many = lanes(model, MANY)
    first = many.first(sample())
    assert first is model.copies[0]
    assert many.first(sample()) is first
    assert many.further(sample(), Method(1)) is first
    assert many.further(sample(), Method(MANY)) is first
    assert len(model.copies) == 1


def test_a_call_has_copies_of_its_own(model):
    one, two = (lanes(model, MANY).first(sample()) for _ in range(2))
    assert one is not two


def test_samples_beside_other_inputs_have_models_of_their_own():
    """One for each set of other inputs; the network itself is asked, as a copy would not do."""
    network = Preparable(ReferenceModel(NETS["two_inputs"]()))
    held = [Held("image", {"vector": np.full((1, 4), k, np.float32)}) for k in range(2)]
    every = lanes(network, MANY)
    models = [every.first(sample((8, 10, 3), each)) for each in (*held, *held)]
    assert models[0] is models[2] is not models[1]
    assert models[1] is models[3]
    assert all(isinstance(model, OneInput) for model in models)
    assert not network.copies
