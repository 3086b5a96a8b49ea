"""Infidelity and max-sensitivity against captum, with the same changes of the same pictures."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial

import numpy as np
import pytest
import torch
from captum.attr import InputXGradient
from captum.attr import Saliency as CaptumSaliency
from captum.metrics import infidelity, sensitivity_max
from torchcam.metrics import ClassificationMetric

from cnnviz_core.fills import filling
from cnnviz_core.maps import min_max
from cnnviz_core.metric import Annotation, Explained
from cnnviz_core.targets import ClassScore
from cnnviz_gradient.gradient_x_input import GradientXInput
from cnnviz_gradient.saliency import Saliency
from cnnviz_metrics.confidence import AverageDrop, AverageIncrease
from cnnviz_metrics.infidelity import Gaussian, Infidelity, Squares
from cnnviz_metrics.sensitivity import MaxSensitivity, in_ball
from cnnviz_torch.model import wrap
from support.torch_nets import Residual, seeded

CLASSES = (1, 4, 0)
METHODS = {
    "saliency": (Saliency(), lambda net: CaptumSaliency(net).attribute),
    "gradient-x-input": (GradientXInput(), lambda net: InputXGradient(net).attribute),
}


@pytest.fixture
def net():
    # An in-place ReLU is refused by captum's gradients of the input.
    net = seeded(Residual).eval()
    net.relu.inplace = False
    return net


def explained(net, explainer, seed=6):
    x = np.random.default_rng(2).normal(size=(3, 12, 10, 3))
    model, targets = wrap(net, input_shape=(12, 10, 3)), tuple(map(ClassScore, CLASSES))
    maps = explainer.explain(model, x, targets)
    return Explained(model, explainer, x, maps, (Annotation(),) * 3, batch_size=4, seed=seed)


def tensor(x):
    """Give captum's layout, (N, C, H, W)."""
    return torch.from_numpy(np.moveaxis(x, -1, 1).copy())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ["gaussian", "squares"])
@pytest.mark.parametrize("scaled", [False, True])
def test_infidelity_is_captums(net, method, kind, scaled):
    batch = explained(net, METHODS[method][0])
    metric = Infidelity(kind, draws=7, noise=0.2, side=0.3, fill=0.25, scaled=scaled)
    changes = np.concatenate(
        [
            (
                Gaussian(x, 0.2, 6) if kind == "gaussian" else Squares(x, filling(x, 0.25), 0.3, 6)
            ).drawn(0, 7)
            for x in batch.x
        ]
    )

    def change(inputs):
        return tensor(changes), inputs - tensor(changes)

    expected = infidelity(
        net,
        change,
        tensor(batch.x),
        tensor(batch.maps.raw),
        target=torch.tensor(CLASSES),
        n_perturb_samples=7,
        normalize=scaled,
    )
    found = metric.measure(batch)["infidelity"]
    np.testing.assert_allclose(found, expected.detach().numpy(), rtol=1e-9)


@pytest.mark.filterwarnings("ignore:Input Tensor 0 did not already require gradients")
@pytest.mark.parametrize("method", METHODS)
def test_max_sensitivity_is_captums(net, method):
    ours, theirs = METHODS[method]
    batch = explained(net, ours)
    draws = np.stack([in_ball(batch.x, 0.02, draw, 6) for draw in range(10)], axis=1)

    def moved(inputs):
        return tensor(draws.reshape(30, *batch.x.shape[1:]))

    keywords = {"abs": False} if method == "saliency" else {}
    with torch.enable_grad():
        expected = sensitivity_max(
            theirs(net),
            tensor(batch.x),
            moved,
            n_perturb_samples=10,
            target=torch.tensor(CLASSES),
            **keywords,
        )
    found = MaxSensitivity().measure(batch)["largest"]
    np.testing.assert_allclose(found, expected.detach().numpy(), rtol=1e-9)


def test_captums_ball_is_ours_where_a_picture_has_a_range_of_one(net):
    rng = np.random.default_rng(0)
    x = rng.random((1, 40, 50, 3))
    x[0, 0, 0] = (0, 1, 0.5)
    assert np.ptp(x) == 1
    from captum.metrics._core.sensitivity import default_perturb_func

    (theirs,) = default_perturb_func(tensor(x))
    shares = [
        moved.std() for moved in (in_ball(x, 0.02, 0) - x, theirs.numpy() - tensor(x).numpy())
    ]
    np.testing.assert_allclose(shares, 0.02 / np.sqrt(3), rtol=0.02)


@pytest.mark.parametrize("method", METHODS)
def test_average_drop_and_increase_are_torchcams(net, method):
    """Up to the 1e-7 that torchcam adds to the divisor."""
    batch = explained(net, METHODS[method][0])
    shown = torch.from_numpy(min_max(batch.shown))

    class Given:
        """An extractor of the maps that are there."""

        model = net

        def __call__(self, class_idx, scores):
            return [shown]

        def fuse_cams(self, cams):
            return cams[0]

        def _hooks_off(self):
            return nullcontext()

    oracle = ClassificationMetric(Given(), partial(torch.softmax, dim=-1))
    oracle.update(tensor(batch.x), class_idx=list(CLASSES))
    expected = oracle.summary()
    for metric, name in ((AverageDrop(), "avg_drop"), (AverageIncrease(), "conf_increase")):
        (found,) = metric.summarise(metric.measure(batch)).values()
        assert found == pytest.approx(expected[name], rel=1e-5)
    assert expected["avg_drop"] > 0
