"""The bounds that a rule reads are those of the network's input."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cnnviz_core.errors import RuleError
from cnnviz_core.steps import z_box, z_plus
from support.torch_nets import picture
from support.torch_relevance import conv, head, made, relevance_of, rule


def test_bounds_must_fit_the_first_layer():
    x = picture()
    bounded = rule("box", z_plus(), first=z_box()).bounded([-5, -5, -4], [6, 6, 4])
    assert relevance_of(made(lambda x, c: c(x), conv()), x, bounded).any()
    flattened = made(lambda x, f: f(x.flatten(1)), lambda: nn.Linear(360, 4))
    with pytest.raises(RuleError, match="bounds are those of 3 channels"):
        relevance_of(flattened, x, bounded)
    averaged = made(lambda x, f: f(x.mean((2, 3))), head(3))
    with pytest.raises(RuleError, match="before which there is Mean"):
        relevance_of(averaged, x, bounded)


@pytest.mark.parametrize("pad", [0, 1])
def test_bounds_are_those_of_the_networks_input(pad):
    x = np.random.default_rng(4).uniform(0, 255, (2, 12, 10, 3))
    mean, std = np.array([0.4, 0.5, 0.6]), np.array([0.2, -0.3, 0.25])

    def rescaled(x, layer):
        centre, spread = (torch.from_numpy(values)[:, None, None] for values in (mean, std))
        return layer(F.pad((x / 255 - centre) / spread, (pad,) * 4))

    whole = made(rescaled, conv())
    alone = made(lambda x, c: c(F.pad(x, (pad,) * 4)), conv())
    seen = (x / 255 - mean) / std
    ends = np.sort([-mean / std, (1 - mean) / std], axis=0)
    box = rule("box", z_plus(), first=z_box())
    found = relevance_of(whole, x, box.bounded([0], [255]))
    expected = relevance_of(alone, seen, box.bounded(*ends))
    np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-12)
    mixed = made(lambda x, c: c(torch.stack([x[:, 0] / 2, x[:, 1], x[:, 2]], dim=1)), conv())
    with pytest.raises(RuleError, match="before which there is"):
        relevance_of(mixed, x, box.bounded([0], [255]))
