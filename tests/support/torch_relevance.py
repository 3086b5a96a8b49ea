"""Rules of relevance, and small torch networks to try them on."""

from __future__ import annotations

import numpy as np
from torch import nn

from cnnviz_core.model import INPUT
from cnnviz_core.rules import relevance_rule
from cnnviz_core.steps import (
    alpha_beta,
    epsilon,
    flat,
    gamma,
    w_square,
    without_bias,
    z_box,
    z_plus,
)
from cnnviz_torch.model import wrap
from support.torch_nets import seeded


def rule(name, *steps, unknown="mark", **places):
    """Make a rule that names what it has no step for."""
    return relevance_rule(name, *steps, unknown=unknown, **places)


CALM = epsilon(0.01)
"""Where contributions of both signs cancel out, a small epsilon would magnify mere rounding."""

RULES = {
    made.name: made
    for made in (
        rule("epsilon", CALM),
        rule("lrp-0", epsilon(0), shared=z_plus()),
        rule("gamma", gamma(), CALM, shared=gamma(1.0)),
        rule("alpha-beta", alpha_beta(), shared=CALM),
        rule("alpha-beta, no bias", without_bias(alpha_beta(3, 2)), last=without_bias(CALM)),
        rule("z-plus", z_plus(), CALM, last=gamma(0.5)),
        rule("w-square", w_square(), shared=z_plus()),
        rule("flat", flat(), last=CALM, shared=flat()),
        rule("z-box", z_plus(), first=z_box()).bounded([-5], [6]),
        rule("gamma, no bias", without_bias(gamma()), without_bias(CALM)),
    )
}
PLUS = relevance_rule("plus", z_plus(), epsilon())
FOLDING = [RULES["alpha-beta"], RULES["gamma"], RULES["epsilon"]]
"""Rules that tell a layer whose bias or batch norm is its own from one where it is not."""


def relevance_of(net, x, made=PLUS, **kwargs):
    """Give the relevance at the input, where what a network returns has itself as relevance."""
    return wrap(net).pullback(x, lambda value: value, rule=made, **kwargs).gradients[INPUT]


def assert_same(actual, expected, rtol=1e-9):
    """Compare arrays that are not all zero, as a share of the largest value."""
    np.testing.assert_allclose(actual, expected, rtol=0, atol=rtol * np.abs(expected).max())
    assert np.abs(expected).max() > 0


class Made(nn.Module):
    """A network of a function of modules and the input."""

    def __init__(self, function, *modules):
        super().__init__()
        self.function = function
        self.parts = nn.ModuleList(modules)

    def forward(self, x):
        return self.function(x, *self.parts)


def made(function, *modules):
    """Make a network: the same weights for the same modules."""
    return seeded(lambda: Made(function, *(module() for module in modules)))


def conv(c_in=3, c_out=8, **options):
    """Give what makes a convolution."""
    return lambda: nn.Conv2d(c_in, c_out, 3, **options)


def norm(channels=8):
    """Give what makes a batch norm."""
    return lambda: nn.BatchNorm2d(channels)


def head(c_in=8):
    """Give what makes a last layer."""
    return lambda: nn.Linear(c_in, 4)


def by_norm(spelt):
    """Make a network of a convolution, a batch norm as it is spelt, and a head."""
    return made(
        lambda x, c, n, f: f(spelt(c(x), n).relu().mean((2, 3))), conv(bias=False), norm(), head()
    )
