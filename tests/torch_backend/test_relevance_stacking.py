"""Products with several parts of a weight made at once are those made one after the other."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.nn.functional import pad

from cnnviz_core.redistribution import redistribute
from cnnviz_core.steps import (
    NEGATIVE,
    POSITIVE,
    LinearStep,
    Share,
    Term,
    alpha_beta,
    epsilon,
    flat,
    gamma,
    w_square,
    without_bias,
    z_box,
    z_plus,
)
from cnnviz_torch.operations import FUNCTIONS, Affine, Convolution

STEPS = {
    "epsilon": epsilon(0.01),
    "alpha-beta": alpha_beta(2, 1, 0.01),
    "alpha-beta, no epsilon": alpha_beta(3, 2, 0),
    "alpha-beta without bias": without_bias(alpha_beta(2, 1, 0.01)),
    "gamma": gamma(0.25, 0.01),
    "z-plus": z_plus(0.01),
    "z-box": z_box(0.01),
    "w-square": w_square(),
    "flat": flat(),
    "shares of their own": LinearStep(
        (
            Share((Term(),)),
            Share((Term(POSITIVE, POSITIVE, POSITIVE), Term(NEGATIVE, NEGATIVE, None)), -0.5),
        ),
        0.01,
    ),
}


def convolution(transposed, axes, groups, bordered, signed):
    """Record a convolution of random numbers, and give it with a relevance of its result."""
    torch.manual_seed(0)
    shape = (4, 6 // groups) if transposed else (6, 4 // groups)
    weight = torch.randn(*shape, *(3,) * axes, dtype=torch.float64)
    x = torch.randn(2, 4, *(12,) * axes, dtype=torch.float64)
    x = x if signed else x.abs()
    bias = torch.randn(6, dtype=torch.float64)
    padding = [int(transposed)] * axes
    options = [[2] * axes, [1] * axes, [1] * axes, transposed, padding, groups]
    border = [1, 2] * axes if bordered else ()
    result = torch.convolution(pad(x, border) if bordered else x, weight, bias, *options)
    after = Affine(torch.rand(6, dtype=torch.float64) + 0.5, torch.randn(6, dtype=torch.float64))
    box = ((-3.0,), (3.0,))
    made = Convolution([x], weight, bias, result, after, box, options, border)
    return made, torch.randn_like(result)


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("transposed", [False, True])
def test_stacked_products_are_the_separate_ones(monkeypatch, transposed, axes, step):
    for groups, bordered, signed in itertools.product((1, 2), (False, True), (False, True)):
        made, relevance = convolution(transposed, axes, groups, bordered, signed)
        assert made._light == (groups == 1)  # else there is nothing to compare
        (stacked,) = redistribute(step, made, relevance, FUNCTIONS)
        with monkeypatch.context() as patched:
            patched.setattr(Convolution, "_light", property(lambda self: False))
            made, relevance = convolution(transposed, axes, groups, bordered, signed)
            (separate,) = redistribute(step, made, relevance, FUNCTIONS)
        torch.testing.assert_close(stacked, separate, rtol=1e-12, atol=1e-12)
