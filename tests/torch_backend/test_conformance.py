"""The PyTorch backend passes the conformance kit."""

from __future__ import annotations

import numpy as np
import pytest

from cnnviz_core.testing.backend import BackendConformance, assert_close
from cnnviz_core.testing.nets import NETS, random_input
from cnnviz_core.testing.reference import ReferenceModel
from cnnviz_torch.build import build
from cnnviz_torch.model import wrap


class TestTorch(BackendConformance):
    def build(self, net):
        return wrap(build(net))


@pytest.mark.parametrize("name", NETS)
def test_float64_is_kept_and_agrees_to_rounding(name):
    net = NETS[name]()
    model, reference = wrap(build(net, dtype="float64")), ReferenceModel(net, "float64")
    x = {key: array.astype(np.float64) for key, array in random_input(net).items()}
    actual, expected = (m.pullback(x, np.ones_like) for m in (model, reference))
    assert actual.gradients["@input"].dtype == np.float64
    assert_close(actual.gradients["@input"], expected.gradients["@input"], 1e-13)
