"""Noisy copies."""

from __future__ import annotations

import numpy as np
import pytest

from cnnviz_core.noise import noisy_copies, value_range
from cnnviz_core.registry import get_registry
from cnnviz_core.targets import ClassScore
from cnnviz_core.testing.nets import NETS, random_input
from cnnviz_core.testing.reference import ReferenceModel

X = np.random.default_rng(3).normal(size=(3, 6, 5, 2)) * np.array([1, 10, 0]).reshape(3, 1, 1, 1)


def test_the_noise_is_a_fraction_of_each_samples_range():
    expected = np.random.default_rng(7)
    for copy in noisy_copies(X, 0.2, 4, seed=7):
        draw = expected.standard_normal((6, 5, 2))
        for sample, noisy in zip(X, copy, strict=True):
            deviation = 0.2 * (sample.max() - sample.min())
            np.testing.assert_allclose(noisy, sample + deviation * draw, rtol=1e-12)


def test_a_samples_copies_do_not_depend_on_its_batch():
    for whole, alone in zip(
        noisy_copies(X, 0.3, 2, seed=1), noisy_copies(X[1:2], 0.3, 2, seed=1), strict=True
    ):
        np.testing.assert_array_equal(whole[1:2], alone)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_copies_keep_the_type(dtype):
    (copy,) = noisy_copies(X.astype(dtype), 0.1, 1, seed=0)
    assert copy.dtype == dtype
    assert value_range(X.astype(dtype)).dtype == np.float64


def test_all_methods_draw_the_same_copies():
    """SmoothGrad, the tunnel around the gradient and Smooth Grad-CAM++ see the same pictures."""
    net = NETS["plain"]()

    class Watched(ReferenceModel):
        def __init__(self):
            super().__init__(net, "float64")
            self.seen = []

        def pullback(self, x, cotangent, **kwargs):
            self.seen.append(np.array(x))
            return super().pullback(x, cotangent, **kwargs)

    x = random_input(net, 2, seed=2)["image"].astype(np.float64)
    looked = []
    for method in ("smoothgrad", "noise-tunnel(of=saliency)", "smooth-grad-cam++"):
        model = Watched()
        get_registry().configured(method).explain(model, x, [ClassScore(1)] * 2)
        looked.append(np.concatenate(model.seen))
    assert len(looked[0]) == 50
    for other in looked[1:]:
        np.testing.assert_array_equal(other, looked[0])
