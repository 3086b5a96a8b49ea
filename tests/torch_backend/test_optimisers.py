"""Adam beside PyTorch's own."""

from __future__ import annotations

import numpy as np
import torch

from cnnviz_core.optimisers import Adam


def test_adam_descends_as_pytorch_does():
    at = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    theirs = torch.optim.Adam([at], lr=0.07, betas=(0.8, 0.99), eps=1e-6)
    step, ours = Adam(0.07, 0.8, 0.99, 1e-6).begin(), np.zeros((2, 3))
    for gradient in np.random.default_rng(3).normal(size=(30, 2, 3)):
        at.grad = torch.tensor(gradient)
        theirs.step()
        ours = ours - step(gradient)
        np.testing.assert_allclose(ours, at.detach().numpy(), rtol=1e-10)
