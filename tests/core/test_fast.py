"""When a faster copy of a network is made."""

from __future__ import annotations

import numpy as np
import pytest

from cnnviz_core.delegate import Delegate
from cnnviz_core.errors import MissingCapabilityError
from cnnviz_core.fast import MANY, fast_paths, prepared
from cnnviz_core.model import PREPARE, preparable
from cnnviz_core.testing.nets import NETS, random_input
from cnnviz_core.testing.reference import ReferenceModel

X = random_input(NETS["plain"]())["image"]


class Preparable(Delegate):
    """Counts how often it is prepared."""

    def __init__(self, model):
        super().__init__(model)
        self.capabilities = model.capabilities | {PREPARE}
        self.copies = []

    def prepared(self, x, samples=None):
        np.testing.assert_array_equal(x, X)
        self.copies.append(Delegate(self))
        return self.copies[-1]


@pytest.fixture
def model():
    return Preparable(ReferenceModel(NETS["plain"]()))


def test_much_work_is_done_by_a_copy_and_little_by_the_network(model):
    assert prepared(model, X, MANY - 1) is model
    assert not model.copies
    assert prepared(model, X, MANY) is model.copies[0]
    assert len(model.copies) == 1


@pytest.mark.parametrize(
    ("value", "fast"),
    [("0", False), (" Off ", False), ("false", False), ("NO", False), ("1", True), ("", True)],
)
def test_the_environment_may_forbid_it(model, monkeypatch, value, fast):
    monkeypatch.setenv("CNNVIZ_FAST", value)
    assert fast_paths() is fast
    assert (prepared(model, X, MANY) is not model) is fast
    monkeypatch.delenv("CNNVIZ_FAST")
    assert fast_paths()


def test_a_model_that_does_not_offer_it_is_used_as_it_is():
    plain = ReferenceModel(NETS["plain"]())
    assert PREPARE not in plain.capabilities
    assert prepared(plain, X, MANY) is plain
    with pytest.raises(MissingCapabilityError, match="prepare"):
        preparable(plain)


def test_a_model_that_stands_for_another_does_not_offer_it(model):
    """A copy of the other one would not differ as it does."""
    delegate = Delegate(model)
    assert prepared(delegate, X, MANY) is delegate
    assert not model.copies
